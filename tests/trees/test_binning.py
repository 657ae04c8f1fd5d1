"""Where bins end: between few values, at quantiles of many; the same for any chunks."""

import bisect
import functools
import itertools
import operator
import tracemalloc
from fractions import Fraction
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble._hist_gradient_boosting.binning import _find_binning_thresholds

from daskdml import config_context, runtime
from daskdml.data import Partitioned, as_matrix
from daskdml.runtime.run import pilot_rows
from daskdml.trees import binning, thresholds
from daskdml.trees.binning import BinRows, Bins, DistinctValues, Values, find_bins


def itself(X):
    return X


def quantiles(values, max_bins, weight=None):
    """Return the averaged inverted distribution function (Hyndman and Fan's second) at equal shares, each once."""
    order = np.argsort(values, kind="stable")
    values = np.asarray(values, float)[order].tolist()
    weight = [1] * len(values) if weight is None else np.asarray(weight)[order].tolist()
    up_to, found = list(itertools.accumulate(map(Fraction, weight))), set()
    for k in range(1, max_bins):
        place = Fraction(k, max_bins) * up_to[-1]
        below = bisect.bisect_left(up_to, place)
        above = below + 1 if up_to[below] == place else below
        found.add((values[below] + values[above]) / 2)
    return sorted(found)


# Few values -----------------------------------------------------------------------------------------------------------


FEW = {
    "whole numbers": np.arange(40.0),
    "two": np.array([-1.0, 3.5]),
    "one": np.array([7.0]),
    "irregular": np.random.default_rng(0).normal(size=255),
    "float32": np.random.default_rng(1).normal(size=50).astype(np.float32),
    "huge": np.array([-1.7e308, -1e308, -1e300, 0.0, 1e299, 1e300, 1.5e300, 1e308]),
    "infinite": np.array([-np.inf, -1.0, 2.0, np.inf]),
    "none": np.empty(0),
}


def same_thresholds(ours, theirs):
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name in FEW if name not in ("huge", "none")])
def test_few_values_are_divided_where_scikit_learn_does(name):
    values = np.sort(FEW[name])
    rng = np.random.default_rng(2)
    column = rng.permutation(np.concatenate([values, rng.choice(values, 300), [np.nan] * 20]).astype(values.dtype))
    found = thresholds.distinct(column, 255)
    np.testing.assert_array_equal(found, values)
    same_thresholds(thresholds.thresholds_between(found), _find_binning_thresholds(column, 255))


def test_huge_values_are_divided_at_their_midpoints():
    """Whose sums overflow; no threshold is above 1e300."""
    pairs = itertools.pairwise(map(Fraction, FEW["huge"].tolist()))
    middle = [float(min((a + b) / 2, Fraction(1e300))) for a, b in pairs]
    same_thresholds(thresholds.thresholds_between(FEW["huge"]), middle)
    assert thresholds.thresholds_between(FEW["none"]).size == 0


@pytest.mark.filterwarnings("error")
def test_infinite_values_are_divided_from_finite_ones():
    for values, expected in (
        ([-np.inf, np.inf], [0.0]), ([-np.inf, 3.0, np.inf], [-np.inf, 1e300]), ([-np.inf, -1e308], [-np.inf]),
    ):  # fmt: skip
        same_thresholds(thresholds.thresholds_between(values), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weight", [None, np.ones(900)])
def test_quantiles_of_huge_values_are_what_they_are(weight):
    column = np.repeat([-1.5 * 2.0**1023, -(2.0**1023), 0.0], 300)
    same_thresholds(thresholds.thresholds_of_sample(column, 3, weight), [-1.25 * 2.0**1023, -(2.0**1022)])


@pytest.mark.parametrize("limit", [2, 5, 30])
def test_distinct(limit):
    """None above the limit, whether the first rows tell it or the others; NaN does not count."""
    for n in (0, 1, limit - 1, limit, limit + 1, 3 * limit):
        values = np.arange(n, dtype=np.float32)
        for column in (values, np.concatenate([np.zeros(10 * limit), values, [np.nan] * 3 * limit])):
            n_values = len(set(column[~np.isnan(column)].tolist()))
            found = thresholds.distinct(column, limit)
            if n_values > limit:
                assert found is None
            else:
                same_thresholds(found, np.arange(n_values))


# Many values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_bins", [2, 3, 10, 55, 255])
@pytest.mark.parametrize("n", [300, 999, 2550])
def test_quantiles(n, max_bins, dtype):
    rng = np.random.default_rng(n)
    column = rng.normal(size=n).astype(dtype)
    given = rng.permutation(np.concatenate([column, [np.nan] * 7]).astype(dtype))
    found = thresholds.thresholds_of_sample(given, max_bins)
    same_thresholds(found, quantiles(column, max_bins))
    # Where the share falls on a row NumPy's float of it may lie to either side.
    between = [k for k in range(1, max_bins) if k * n % max_bins]
    theirs = np.percentile(column.astype(float), 100 * np.array(between) / max_bins, method="averaged_inverted_cdf")
    assert np.isin(theirs, found).all()


@pytest.mark.parametrize("max_bins", [4, 10, 60])
def test_quantiles_of_values_that_repeat(max_bins):
    rng = np.random.default_rng(0)
    column = rng.integers(0, 70, 1000) ** 2.0
    same_thresholds(thresholds.thresholds_of_sample(column, max_bins), quantiles(column, max_bins))


@pytest.mark.parametrize("max_bins", [2, 10, 100])
def test_weights_are_repeated_rows(max_bins):
    """Whatever their unit, and whatever zero weights stand on."""
    rng = np.random.default_rng(0)
    column, weight = rng.normal(size=700), rng.integers(0, 6, 700)
    column[weight == 0] = 1e10
    repeated = np.repeat(column, weight)
    expected = quantiles(repeated, max_bins)
    same_thresholds(thresholds.thresholds_of_sample(repeated, max_bins), expected)
    for unit in (1.0, 0.1, 1e-200, 3e200):
        same_thresholds(thresholds.thresholds_of_sample(column, max_bins, weight * unit), expected)
    column[5] = np.nan
    rest = np.arange(700) != 5
    same_thresholds(
        thresholds.thresholds_of_sample(column, max_bins, weight.astype(float)),
        thresholds.thresholds_of_sample(column[rest], max_bins, weight[rest].astype(float)),
    )


def test_quantiles_by_any_weight():
    rng = np.random.default_rng(1)
    column, weight = rng.normal(size=400), rng.exponential(size=400)
    same_thresholds(thresholds.thresholds_of_sample(column, 37, weight), quantiles(column, 37, weight))


def test_nothing_but_missing_values():
    column = np.full(10, np.nan)
    assert thresholds.thresholds_of_sample(column, 5).size == 0
    assert thresholds.thresholds_of_sample(np.ones(3), 5, np.zeros(3)).size == 0
    assert thresholds.distinct(column, 5).size == 0


# Distinct values of all rows ------------------------------------------------------------------------------------------


def make_blocks():
    """Return blocks, and the rows that count: of few values, of 6, the limit, of one more, of many, and any."""
    rng = np.random.default_rng(0)
    n = 200
    X = np.column_stack([
        rng.integers(0, 3, n), rng.integers(0, 6, n), rng.integers(0, 7, n), rng.normal(size=n), rng.integers(0, 4, n)
    ]).astype(float)  # fmt: skip
    X[rng.random(X.shape) < 0.1] = np.nan
    weight = (rng.random(n) < 0.8).astype(float)
    X[weight == 0, 0] = 99.0
    return [SimpleNamespace(X=X[a : a + 40], weight=weight[a : a + 40]) for a in range(0, n, 40)], X[weight > 0]


def same_values(found, expected):
    assert len(found.found) == len(expected)
    for ours, theirs in zip(found.found, expected):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            same_thresholds(ours, theirs)


@pytest.mark.parametrize("layout", [itself, sparse.csr_matrix])
def test_distinct_values_add_up_in_any_order(layout):
    blocks, X = make_blocks()
    sets = [sorted(set(column[~np.isnan(column)].tolist())) for column in X.T]
    expected = [values if len(values) <= 6 else None for values in sets[:4]] + [None]
    assert [values is None for values in expected] == [False, False, True, True, True]
    # The sample may have had no values, some, or all; the last feature nobody asks for.
    some, all_of_them = [[1.0], [0.0, 5.0], [3.0], []], [np.arange(3.0), np.arange(6.0), np.arange(6.0), []]
    for known in ([[], [], [], []], some, all_of_them):
        one = DistinctValues((*map(np.array, known), None), 6, layout)
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
            parts = [one(blocks[i]) for i in order]
            same_values(functools.reduce(operator.add, parts), expected)
            same_values(parts[0] + (parts[1] + (parts[2] + parts[3])) + parts[4], expected)


def test_too_many_values_stay_too_many():
    few, many = Values((np.arange(3.0),), 3), Values((np.array([7.0]),), 3)
    both = few + many
    assert both.found == (None,) and (both + few).found == (None,) and (few + both).found == (None,)
    same_values(few + few, [[0.0, 1.0, 2.0]])


def test_rows_without_weights_all_count():
    block = SimpleNamespace(X=np.array([[1.0], [0.0], [np.nan]]), weight=None)
    same_values(DistinctValues((np.empty(0),), 5, itself)(block), [[0.0, 1.0]])


# Categories -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [itself, sparse.csr_matrix])
def test_bins_of_categories(layout):
    """Places among the codes that are known; others, and NaN, are missing."""
    codes = np.array([0.0, 2.0, 5.0])
    bins = Bins((codes, np.array([2.5]), np.empty(0)), np.array([True, False, True]), 255)
    assert bins.n_bins.tolist() == [3, 2, 0]
    X = np.array([[0.0, 1.0, 0.0], [2.0, 3.0, 1.0], [5.0, 2.5, 0.0], [1.0, np.nan, 0.0], [6.0, 0.0, 2.0]])
    X = np.vstack([X, [[np.nan, 9.0, 0.0], [-1.0, 9.0, 0.0]]])
    expected = [[0, 0], [1, 1], [2, 0], [255, 255], [255, 0], [255, 1], [255, 1]]
    found = BinRows(bins, layout)(X)
    np.testing.assert_array_equal(found, [[*row, 255, 0] for row in expected])


# find_bins ------------------------------------------------------------------------------------------------------------


N, N_SAMPLE, SEED = 3000, 500, 3
CHUNKS = ((N,), (1, N - 1), (1000, 0, 700, 1300), (250,) * 12)


@pytest.fixture
def rows(monkeypatch):
    """Rows of many values, few, few of which the sample misses one, few in the sample alone, categories, and none."""
    monkeypatch.setattr(binning, "SAMPLE_ROWS", N_SAMPLE)
    rng = np.random.default_rng(0)
    X = np.column_stack([
        rng.normal(size=N), rng.integers(0, 12, N), rng.integers(0, 5, N), rng.integers(0, 19, N),
        rng.integers(0, 8, N) * 10, np.zeros(N),
    ]).astype(float)  # fmt: skip
    X[rng.random(X.shape) < 0.2] = 0.0
    X[rng.random(X.shape) < 0.03] = np.nan
    X[:, 5] = np.nan
    left_out = np.setdiff1d(np.arange(N), pilot_rows(N, N_SAMPLE, SEED))
    X[left_out[700], 2] = 77.5
    X[left_out[:15], 3] = 100.0 + np.arange(15)
    X[left_out[-1], 4] = 15.0
    return X, np.array([False, False, False, False, True, False])


def bins_of(X, is_categorical, weight=None, max_bins=20, seed=SEED, **options):
    with config_context(**options), runtime.open(Partitioned.from_any(X, None, weight)) as run:
        return find_bins(run, max_bins, is_categorical, as_matrix, seed)


def test_the_sample_of_sparse_rows_is_not_made_dense():
    """4,000 rows and features, one stored value each: 128 MB if they were."""
    X = sparse.csr_matrix((np.ones(4000), (np.arange(4000), np.arange(4000))), shape=(4000, 4000))
    tracemalloc.start()
    try:
        found = bins_of(X, np.zeros(4000, bool))
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()
    same_bins(found, [[0.5]] * 4000)


def same_bins(ours, thresholds):
    for found, expected in zip(ours.thresholds, thresholds, strict=True):
        same_thresholds(found, expected)


def expected_bins(X, is_categorical, weight=None, max_bins=20):
    """Return thresholds of each feature from the rows, and those that the sample has."""
    drawn, weight = pilot_rows(N, N_SAMPLE, SEED), np.ones(N) if weight is None else weight
    thresholds = []
    for f in range(X.shape[1]):
        known = (weight > 0) & ~np.isnan(X[:, f])
        values = sorted(set(X[known, f].tolist()))
        own = drawn[known[drawn]]
        if is_categorical[f]:
            thresholds.append(values)
        elif len(values) <= max_bins:
            thresholds.append([(a + b) / 2 for a, b in itertools.pairwise(values)])
        else:
            thresholds.append(quantiles(X[own, f], max_bins, weight[own]))
    return thresholds


@pytest.mark.parametrize("is_weighted", [False, True])
def test_bins_of_rows_in_memory(rows, is_weighted):
    X, is_categorical = rows
    weight = None
    if is_weighted:
        weight = np.random.default_rng(1).integers(0, 4, N).astype(float)
        X[weight == 0, 1] = -1.0  # a value that only rows without weight have
    found = bins_of(X, is_categorical, weight)
    same_bins(found, expected_bins(X, is_categorical, weight))
    assert found.max_bins == 20 and found.n_bins.tolist()[-2:] == [9, 1]


def test_bins_of_float32(rows):
    X, is_categorical = rows
    X = X.astype(np.float32)
    same_bins(bins_of(X, is_categorical), expected_bins(X.astype(float), is_categorical))


def test_bins_of_csr(rows):
    X, is_categorical = rows
    for given in (sparse.csr_matrix(X), sparse.csr_array(X)):
        same_bins(bins_of(given, is_categorical), expected_bins(X, is_categorical))


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_bins_do_not_hang_on_chunks(rows, memory, is_weighted):
    X, is_categorical = rows
    weight = np.random.default_rng(1).exponential(size=N) if is_weighted else None
    expected = bins_of(X, is_categorical, weight).thresholds
    for chunks in CHUNKS:
        lazy = da.from_array(X, chunks=(chunks, -1))
        lazy_weight = None if weight is None else da.from_array(weight, chunks=(chunks,))
        same_bins(bins_of(lazy, is_categorical, lazy_weight, memory=memory), expected)


def test_another_seed_draws_other_rows(rows):
    X, is_categorical = rows
    a, b = (bins_of(X, is_categorical, seed=seed).thresholds for seed in (3, 4))
    assert not np.array_equal(a[0], b[0])
    same_thresholds(a[2], b[2])


def test_all_rows_if_they_are_few(rows):
    X, is_categorical = rows
    found = bins_of(X[:400], is_categorical)
    same_thresholds(found.thresholds[0], quantiles(X[:400, 0][~np.isnan(X[:400, 0])], 20))


def test_too_many_categories_are_a_sentence(rows):
    X, is_categorical = rows
    for f, max_bins in ((0, 20), (3, 20), (4, 8)):
        is_categorical[:] = np.arange(6) == f
        with pytest.raises(ValueError, match=rf"feature at index {f} .* cardinality <= {max_bins} "):
            bins_of(X, is_categorical, max_bins=max_bins)


def test_sample_rows():
    """As many as 256 MB hold, 1,000 at least."""
    assert binning.sample_rows(10, np.float64) == binning.sample_rows(0, None) == 200_000
    assert binning.sample_rows(1000, np.float64) == 2**28 // 8000
    assert binning.sample_rows(1000, np.float32) == 2**28 // 4000
    assert binning.sample_rows(10**7, None) == 1000
