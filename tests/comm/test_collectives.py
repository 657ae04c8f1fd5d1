"""Broadcast, gather, scatter, vote, barrier; sums over blocks that have the same bits for any number of ranks."""

import itertools

import numpy as np
import pytest

from daskdml.comm import allgather, allreduce_blocks, barrier, broadcast, exchange, reduce_scatter, vote
from daskdml.compress import FP16

SIZES = (1, 2, 3, 4, 7, 16, 17)


@pytest.mark.parametrize("codec", [None, FP16()], ids=["raw", "fp16"])
@pytest.mark.parametrize("size", SIZES)
def test_broadcast_from_any_rank(size, codec):
    for root in {0, size // 2, size - 1}:
        values = [np.full(3, np.pi * (rank + 1)) for rank in range(size)]
        ranks = [broadcast(r, size, values[r] if r == root else None, root) for r in range(size)]
        results, sent = exchange(ranks, codec)
        assert len({result.tobytes() for result in results}) == 1
        np.testing.assert_allclose(results[0], values[root], rtol=0 if codec is None else 1e-3)
        if codec is None:
            assert sum(sent) == (size - 1) * 24


@pytest.mark.parametrize("size", SIZES)
def test_allgather_keeps_lengths_and_order(size):
    results, _ = exchange([allgather(rank, size, np.arange(float(rank))) for rank in range(size)])
    for values in results:
        assert [len(value) for value in values] == list(range(size))


@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter_gives_each_rank_its_slice(size):
    values = np.random.default_rng(size).normal(size=(size, 50))
    results, _ = exchange([reduce_scatter(rank, size, values[rank]) for rank in range(size)])
    assert [len(part) for part in results] == [50 * (k + 1) // size - 50 * k // size for k in range(size)]
    np.testing.assert_allclose(np.concatenate(results), values.sum(axis=0), atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_one_yes_is_a_yes(size):
    for yes in (None, 0, size - 1):
        results, _ = exchange([vote(rank, size, rank == yes) for rank in range(size)], FP16())
        assert results == [yes is not None] * size


def test_nobody_passes_a_barrier_before_all_have_come():
    came = []

    def walk(rank, size):
        came.append(rank)
        yield from barrier(rank, size)
        assert len(came) == size

    for seed in range(20):
        came.clear()
        exchange([walk(rank, 5) for rank in range(5)], seed=seed)


def summed(owner, size, vectors, sliced, seed=None):
    n_blocks, length = vectors.shape
    ranks = [
        allreduce_blocks(
            r, size, {b: vectors[b] for b in range(n_blocks) if owner[b] == r}, n_blocks, length, sliced=sliced
        )
        for r in range(size)
    ]  # fmt: skip
    return exchange(ranks, seed=seed)


@pytest.mark.parametrize("n_blocks", [1, 2, 5, 8, 23])
def test_blocks_add_up_to_the_same_bits_whoever_holds_them(n_blocks):
    rng = np.random.default_rng(n_blocks)
    vectors = rng.normal(size=(n_blocks, 19)) * 10.0 ** rng.integers(-8, 9, size=(n_blocks, 1))
    expected = summed(np.zeros(n_blocks, dtype=int), 1, vectors, False)[0][0]
    np.testing.assert_allclose(expected, vectors.sum(axis=0), rtol=1e-10, atol=1e-6)
    for size, sliced in itertools.product(SIZES, (False, True)):
        contiguous = np.arange(n_blocks) * size // n_blocks
        for seed, owner in enumerate((contiguous, rng.integers(size, size=n_blocks))):
            for found in summed(owner, size, vectors, sliced, seed)[0]:
                assert found.tobytes() == expected.tobytes()


def test_contiguous_blocks_travel_as_few_nodes():
    size, n_blocks, length = 8, 256, 1000
    owner = np.arange(n_blocks) * size // n_blocks
    vectors = np.random.default_rng(0).normal(size=(n_blocks, length))
    _, sent = summed(owner, size, vectors, True)
    # 32 blocks of one rank are one node of the tree: every rank sends 7 / 8 of it, and 7 reduced slices.
    assert max(sent) == 2 * 7 * length + 7 * 16


def test_long_vectors_are_sliced():
    vectors = np.random.default_rng(1).normal(size=(4, 40_000))
    whole, sliced, chosen = (summed(np.arange(4), 4, vectors, choice) for choice in (False, True, None))
    assert chosen[1] == sliced[1] and max(sliced[1]) < max(whole[1])
    assert whole[0][0].tobytes() == sliced[0][3].tobytes()


@pytest.mark.parametrize("sliced", [False, True])
def test_a_missing_or_doubled_block_is_an_error(sliced):
    vectors = np.ones((3, 2))

    def ranks(held):
        return [allreduce_blocks(r, 2, {b: vectors[b] for b in held[r]}, 3, 2, sliced=sliced) for r in range(2)]

    with pytest.raises(ValueError, match="has not received all of them"):
        exchange(ranks([[0], [1]]))
    with pytest.raises(ValueError, match="given twice"):
        exchange(ranks([[0, 1], [1, 2]]))
