"""Values of any kind between ranks: combined along the tree over blocks, gathered, handed out."""

import itertools
import math
import operator
from typing import NamedTuple

import numpy as np
import pytest

from daskdml.comm import blocks, exchange
from daskdml.comm.blocks import is_sliced
from daskdml.comm.values import allreduce_values, broadcast_value, gather_values
from daskdml.utils.fold import Fold
from daskdml.utils.portable import portable

SIZES = (1, 2, 3, 4, 7, 16, 17)
BLOCKS = 37


def value(block):
    rng = np.random.default_rng(block)
    return {"sum": rng.normal(size=5), "blocks": (block,), "most": float(rng.normal())}


def combine(a, b):
    """Associative up to rounding, and not commutative: the order of blocks shows."""
    return {"sum": a["sum"] + b["sum"], "blocks": a["blocks"] + b["blocks"], "most": max(a["most"], b["most"])}


def definition():
    parts = [value(block) for block in range(BLOCKS)]
    while len(parts) > 1:
        pairs = range(0, len(parts), 2)
        parts = [combine(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in pairs]
    return parts[0]


def shares(size, how):
    if how == "ranges":
        return [range(r * BLOCKS // size, (r + 1) * BLOCKS // size) for r in range(size)]
    return [range(r, BLOCKS, size) for r in range(size)]


@pytest.mark.parametrize("how", ["ranges", "scattered"])
@pytest.mark.parametrize("size", range(1, 18))
def test_values_are_combined_along_the_tree_over_blocks(size, how):
    own, expected = shares(size, how), definition()
    ranks = [allreduce_values(r, size, {b: value(b) for b in own[r]}, BLOCKS, combine) for r in range(size)]
    results, _ = exchange(ranks, seed=size)
    for result in results:
        assert result["sum"].tobytes() == expected["sum"].tobytes()
        assert result["blocks"] == tuple(range(BLOCKS)) and result["most"] == expected["most"]


def test_what_is_folded_already_gives_the_same_bits():
    folds = [Fold(BLOCKS, combine) for _ in range(3)]
    for fold, own in zip(folds, shares(3, "ranges")):
        for block in own:
            fold.add(block, value(block))
    results, _ = exchange([allreduce_values(r, 3, folds[r], BLOCKS, combine) for r in range(3)])
    assert {result["sum"].tobytes() for result in results} == {definition()["sum"].tobytes()}


def test_a_contiguous_rank_sends_few_values():
    n, size = 1 << 12, 4
    own = [dict.fromkeys(range(r << 10, (r + 1) << 10), np.ones(1)) for r in range(size)]
    results, sent = exchange([allreduce_values(r, size, own[r], n, np.add) for r in range(size)])
    assert results[0] == n and max(sent) <= 8 * (2 * 12 + size)


@pytest.mark.parametrize("blocks", [range(1, BLOCKS), [*range(BLOCKS), 3]])
def test_a_block_that_is_missing_or_came_twice_is_an_error(blocks):
    halves = [list(blocks)[:20], list(blocks)[20:]]
    with pytest.raises(ValueError, match="not received all of them|given twice"):
        exchange([allreduce_values(r, 2, {b: value(b) for b in halves[r]}, BLOCKS, combine) for r in range(2)])


def test_what_cannot_travel_is_a_sentence():
    with pytest.raises(TypeError, match="cannot travel"):
        exchange([allreduce_values(r, 2, {r: object()}, 2, lambda a, b: a) for r in range(2)])


@pytest.mark.parametrize("size", SIZES)
def test_gather_and_broadcast(size):
    results, _ = exchange([gather_values(r, size, {"rank": r, "x": np.arange(r)}) for r in range(size)])
    assert results[1:] == [None] * (size - 1)
    assert [found["rank"] for found in results[0]] == [len(found["x"]) for found in results[0]] == list(range(size))
    results, _ = exchange([broadcast_value(r, size, ["seed", r] if r == 0 else None) for r in range(size)])
    assert results == [["seed", 0]] * size


@portable
class Sums(NamedTuple):
    """As a block's value, gradient and Hessian."""

    value: float
    gradient: np.ndarray
    nothing: None
    hessian: np.ndarray

    adds_up = True

    def __add__(self, other):
        return type(self)(*(None if a is None else a + b for a, b in zip(self, other)))


@portable
class Whole(NamedTuple):
    """The same, without saying so."""

    value: float
    gradient: np.ndarray
    nothing: None
    hessian: np.ndarray

    __add__ = Sums.__add__


@pytest.mark.parametrize("p", [3, 250])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_large_records_are_summed_in_slices_to_the_same_bits(size, p):
    rng, n_blocks = np.random.default_rng(size), 21
    found, sent = {}, {}
    parts = [(rng.normal(), rng.normal(size=p), None, rng.normal(size=(p, p))) for _ in range(n_blocks)]
    edges = [n_blocks * k // size for k in range(size + 1)]
    for kind in (Sums, Whole):
        own = [{i: kind(*parts[i]) for i in range(*edge)} for edge in itertools.pairwise(edges)]
        ranks = [allreduce_values(r, size, own[r], n_blocks, operator.add) for r in range(size)]
        found[kind], sent[kind] = exchange(ranks, seed=1)
    first = found[Whole][0]
    for answer in (*found[Whole], *found[Sums]):
        assert answer.value == first.value and answer.nothing is None and isinstance(answer.value, float)
        assert answer.gradient.tobytes() == first.gradient.tobytes()
        assert answer.hessian.tobytes() == first.hessian.tobytes() and answer.hessian.shape == (p, p)
    n_bytes = 8 * (1 + p + p * p)
    if is_sliced(size, n_bytes):
        assert max(sent[Sums]) < max(sent[Whole])
    # What the model of costs says, with as many nodes a rank as there are at most.
    most = blocks.bytes_sent(size, n_bytes, branches=2 * math.log2(n_blocks))
    assert max(sent[Sums]) <= most <= 12 * max(max(sent[Sums]), 1)
