"""Rows that are named by their numbers, against what NumPy says of them, and shares against their definition."""

import numpy as np
import pytest
from scipy import sparse

from daskdml.kernels import numbered_rows
from daskdml.kernels.numbered_rows import (
    Change,
    add_to_rows,
    deal,
    moved_rows,
    number_columns,
    shares_of_sum,
    take_rows,
)
from daskdml.kernels.sequential import Settings, SparseRows, new_state


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def how(request, monkeypatch):
    if request.param == "plain":
        for name in ("_compiled", "_typed", "_summing"):
            bodies = {"_summing": lambda dtype: numbered_rows._sum_strengths}
            monkeypatch.setattr(numbered_rows, name, bodies.get(name, lambda body, *dtype: body))
    return request.param


def matrix(n, p, density, dtype=np.float64, seed=0):
    return sparse.random(n, p, density, format="csr", dtype=dtype, random_state=np.random.default_rng(seed))


@pytest.mark.parametrize("n_expected", [0, 1, 10**6])
@pytest.mark.parametrize(
    "shape, density", [((40, 300), 0.1), ((90, 3000), 0.02), ((7, 2**31 - 2), 1e-8), ((5, 9), 0.0)]
)
def test_columns_are_counted_through_in_the_order_in_which_they_come(shape, density, n_expected):
    X = matrix(*shape, density)
    order = np.random.default_rng(1).permutation(X.shape[0])
    rows = SparseRows.of(X, order)
    numbers, columns = number_columns(rows.columns, rows.counts, n_expected)
    stored = X[order].indices
    known = dict.fromkeys(stored.tolist())
    assert columns.tolist() == list(known)
    np.testing.assert_array_equal(columns[numbers], stored)


@pytest.mark.parametrize("n_blocks, shift, n_parts", [(11, 0, 3), (11, 2, 4), (1, 9, 2), (5, 1, 8)])
def test_rows_are_dealt_to_one_place_each(n_blocks, shift, n_parts):
    factor = next(f for f in range(n_blocks // 2 + 1, 99) if np.gcd(f, n_blocks) == 1)
    keys = np.random.default_rng(0).permutation(n_blocks << shift).astype(np.int32)
    size = -(-n_blocks // n_parts)
    where, places, edges = deal(keys, factor, n_blocks, size, n_parts, shift)
    order = np.argsort(where)
    assert sorted(where.tolist()) == list(range(len(keys))) and edges[-1] == len(keys)
    for part in range(n_parts):
        own = slice(edges[part], edges[part + 1])
        named, where = keys[order[own]], places[own]
        assert len(set(where.tolist())) == len(where) and (where < size << shift).all()
        np.testing.assert_array_equal(((named >> shift) * factor % n_blocks) // size, part)
        np.testing.assert_array_equal(where & ((1 << shift) - 1), named & ((1 << shift) - 1))


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 78_125, 2**24 - 1, 2**31 - 1])
@pytest.mark.parametrize("part", [1, 2, 3, 1000])
def test_the_last_and_the_first_block_of_a_part_are_not_taken_for_each_other(n_blocks, part):
    """Products of two numbers of 31 bits are not divided but multiplied by what is rounded."""
    factor, size = max(n_blocks - 1, 1), -(-n_blocks // part)
    edges = np.arange(0, n_blocks, size)[:200, None] + np.array([-1, 0, 1])
    keys = np.unique((-edges * factor) % n_blocks).astype(np.int32)
    where, places, _ = deal(keys, factor, n_blocks, size, part, 0)
    for key, at in zip(keys.tolist(), where.tolist()):
        assert places[at] == key * factor % n_blocks % size
    found = [key * factor % n_blocks // size for key in keys.tolist()]
    assert [found[i] for i in np.argsort(where)] == sorted(found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_taken_and_added_to(dtype):
    rng = np.random.default_rng(0)
    rows, places = rng.normal(size=(50, 3)).astype(dtype), rng.permutation(50)[:20].astype(np.int32)
    factor = np.array([0.5, 0.5, 1.0])
    np.testing.assert_allclose(take_rows(rows, places, 0.5, 2), rows[places] * factor, rtol=1e-6)
    added, expected = rng.normal(size=(20, 3)).astype(dtype), rows.copy()
    expected[places] += added * factor
    add_to_rows(rows, places, added, 0.5, 2)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_what_l1_has_made_zero_is_zero_again():
    """Elsewhere 0.3 - 0.1 * 3 is a number."""
    rows = np.array([[0.1 * 3, 0.0]])
    add_to_rows(rows, np.zeros(1, np.int32), np.array([[-0.3, -0.3]]), 1.0, 1)
    np.testing.assert_array_equal(rows, [[0.0, -0.3]])


@pytest.mark.parametrize(
    "held, moved, shrinkage, most, after, taken",
    [
        (2.0, 0.5, -1.0, 9.0, 1.5, -1.0),  # a step, and a shrinkage after it
        (0.4, 0.5, -1.0, 9.0, 0.0, -0.9),  # to zero and not beyond
        (-0.4, -0.5, 1.0, 9.0, 0.0, 0.9),
        (0.0, 0.0, -1.0, 9.0, 0.0, 0.0),  # somebody else has made it zero
        (-3.0, 0.5, -1.0, 9.0, -2.5, 0.0),  # and here it has another sign by now
        (2.0, 0.5, -1.0, 0.3, 2.2, -0.3),  # all that has come up was less
    ],
)
def test_shrinkages_of_many_go_to_zero_and_no_further(held, moved, shrinkage, most, after, taken):
    rows = np.array([[held, 0.0]])
    add_to_rows(rows, np.zeros(1, np.int32), np.array([[moved + shrinkage, shrinkage, 0.0]]), 1.0, 1, most)
    np.testing.assert_allclose(rows, [[after, taken]], atol=1e-15)
    add_to_rows(rows, np.zeros(1, np.int32), np.array([[0.0, 0.0, 0.125]]), 1.0, 1, most)
    np.testing.assert_allclose(rows, [[after, taken + 0.125]], atol=1e-15)


@pytest.mark.parametrize("n_others", [1, 7])
def test_shares_by_their_definition(n_others):
    X = matrix(30, 12, 0.3).toarray()
    X[:, 3] = 1.0  # stored by all
    X = sparse.csr_matrix(X)
    rows, strengths = SparseRows.of(X), np.random.default_rng(0).gamma(1.0, 0.1, 30)
    numbers, columns = number_columns(rows.columns, rows.counts)
    shares, of_all = shares_of_sum(rows, numbers, len(columns), strengths, n_others)
    each = strengths * np.asarray(X.multiply(X).sum(axis=1)).ravel()
    for j, column in enumerate(columns.tolist()):
        stores = X[:, [column]].toarray().ravel() != 0
        own, c = each[stores].sum(), stores.sum()
        others = n_others * own * (c - 1) / c
        apart = 1 - np.exp(-own) + n_others * (1 - np.exp(-others / n_others))
        np.testing.assert_allclose(shares[j], (1 - np.exp(-own - others)) / apart, rtol=1e-9)
    assert of_all == pytest.approx(shares[columns.tolist().index(3)])
    # Many large steps along all columns: no more than one worker alone would do. Few small ones: all of them.
    shares, of_all = shares_of_sum(rows, numbers, len(columns), np.full(30, 50.0), n_others)
    assert of_all == pytest.approx(1 / (1 + n_others))
    shares, of_all = shares_of_sum(rows, numbers, len(columns), np.full(30, 1e-9), n_others)
    np.testing.assert_allclose([*shares, of_all], 1.0)


def test_half_of_the_steps_bear_half_of_the_penalty():
    """Two workers with the same rows, each with the share one half: together what one of them alone has done."""
    settings, n = Settings("squared_error", penalty="l2", alpha=0.5, learning_rate="constant", eta0=0.1), 6
    rows = np.random.default_rng(0).normal(size=(n, 1))
    state = new_state(n, settings, rows[:, 0] + 0.3)
    state.wscale = 0.9
    order, own = np.arange(n, dtype=np.int32)[::-1].copy(), 4 * np.log(1 - 0.05)
    alone = moved_rows(rows, order, np.empty(0), [state], [Change(0.9, own, own, 1.0, 0.0)], False, True)
    np.testing.assert_allclose(np.exp(own) * rows + alone[::-1], 0.9 * (rows + 0.3))
    change = Change(0.9, own, 2 * own, 2.0, 0.0)
    half = moved_rows(rows, order, np.full(n, 0.5), [state], [change], False, False)
    np.testing.assert_allclose(np.exp(2 * own) * rows + 2 * half[::-1], 0.9 * (rows + 0.3))


def test_what_l1_is_not_to_take_goes_against_the_sign():
    rows, order = np.array([[1.0, -0.2], [-2.0, 0.1], [0.0, 0.0]]), np.arange(3, dtype=np.int32)
    state = new_state(3, Settings(penalty="l1"), [1.5, -1.0, 0.0])
    state.q[:] = -0.4, 0.3, 0.0
    moved = moved_rows(rows, order, np.full(3, 0.25), [state], [Change(1.0, 0.0, 0.0, 2.0, 0.8)], True, False)
    np.testing.assert_allclose(moved, [[0.125, -0.05, -0.6], [0.25, 0.05, 0.6], [0.0, 0.0, 0.0]], atol=1e-15)
