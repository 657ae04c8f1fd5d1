"""Mergeable statistics against NumPy and collections.Counter, for any cut of the rows."""

import functools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml.data.statistics import (
    Moments,
    ValueCounts,
    block_moments,
    column_moments,
    columns_of,
    count_values,
    factorize,
    locate,
)


def pieces(n, seed):
    """Ends of pieces of n rows; some are empty."""
    return np.r_[0, np.sort(np.random.default_rng(seed).integers(0, n + 1, 7)), n]


def matrix(n=300, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.normal([0, 1e6, -1e-6], [1, 1, 1e-9], (n, 3)).astype(dtype)
    X[rng.random(n) < 0.3, 0] = np.nan
    return X


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_moments_of_pieces_are_those_of_the_whole(dtype, seed):
    X = matrix(dtype=dtype)
    ends = pieces(len(X), seed)
    found = functools.reduce(Moments.merge, [column_moments(X[a:b]) for a, b in zip(ends, ends[1:])])
    exact = X.astype(np.longdouble)
    np.testing.assert_array_equal(found.weight, (~np.isnan(X)).sum(axis=0))
    np.testing.assert_allclose(found.mean, np.nanmean(exact, axis=0).astype(float), rtol=1e-13)
    np.testing.assert_allclose(found.variance, np.nanvar(exact, axis=0).astype(float), rtol=1e-12)


@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix])
def test_weighted_moments_by_definition(make):
    rng = np.random.default_rng(1)
    X = rng.normal(2, 1, (200, 4)) * (rng.random((200, 4)) < 0.5)
    X[::9, 2] = np.nan
    weight = rng.random(200) * (rng.random(200) < 0.8)
    found = column_moments(make(X[:120]), weight[:120]).merge(column_moments(make(X[120:]), weight[120:]))
    for j in range(4):
        there = ~np.isnan(X[:, j])
        mean = np.average(X[there, j], weights=weight[there])
        assert found.weight[j] == pytest.approx(weight[there].sum(), rel=1e-12)
        assert found.mean[j] == pytest.approx(mean, rel=1e-12)
        assert found.variance[j] == pytest.approx(
            np.average((X[there, j] - mean) ** 2, weights=weight[there]), rel=1e-12
        )


def test_sparse_moments_are_those_of_the_dense_matrix():
    X = matrix() * (np.random.default_rng(2).random((300, 3)) < 0.4)
    dense, thin = column_moments(X), column_moments(sparse.csr_matrix(X))
    np.testing.assert_array_equal(thin.weight, dense.weight)
    np.testing.assert_allclose(thin.mean, dense.mean, rtol=1e-12)
    np.testing.assert_allclose(thin.variance, dense.variance, rtol=1e-12)


def test_a_constant_column_has_no_variance_however_it_is_cut():
    for value in (0.1, 1e300, -7.0, 1 / 3):
        X = np.full((1000, 1), value)
        parts = [column_moments(X[:1]), column_moments(X[1:1]), column_moments(X[1:334]), column_moments(X[334:])]
        found = functools.reduce(Moments.merge, parts)
        assert found.m2[0] == 0 and found.mean[0] == value


def test_no_rows_are_the_neutral_element():
    some, none = column_moments(matrix()), column_moments(matrix()[:0])
    for merged in (some.merge(none), none.merge(some)):
        for left, right in zip(merged, some):
            np.testing.assert_array_equal(left, right)
    assert np.isnan(none.variance).all()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_infinity_is_found_with_its_row(make):
    X = np.nan_to_num(matrix())
    X[17, 1] = np.inf
    block = SimpleNamespace(X=make(X), weight=None, index=3, start=1000)
    with pytest.raises(ValueError, match=r"infinity or a value too large .* First in row 1017 \(block 3\)"):
        block_moments(block)
    block.start = None
    with pytest.raises(ValueError, match=r"dtype\('float64'\).$"):
        block_moments(block)


COLUMNS = {
    "objects": np.array(["b", None, "a", np.nan, "b", "ccc"] * 20, dtype=object),
    "integers": np.random.default_rng(3).integers(-3, 3, 120),
    "floats": np.where(np.arange(120) % 5 == 0, np.nan, np.arange(120) % 3 / 3),
    "words": np.random.default_rng(4).choice(["x", "yyyy", "zz"], 120),
    "booleans": np.arange(120) % 3 == 0,
    "pandas strings": pd.Series(["b", None, "a"] * 40, dtype="str"),
    "pyarrow strings": pd.Series(["b", None, "a"] * 40, dtype="string[pyarrow]"),
    "categories": pd.Series(pd.Categorical(["b", None, "a"] * 40, categories=["a", "b", "never"])),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("seed", range(3))
def test_counts_of_pieces_are_those_of_the_whole(name, seed):
    column = COLUMNS[name]
    ends = pieces(len(column), seed)
    parts = [count_values(column[a:b]) for a, b in zip(ends, ends[1:])]
    found = functools.reduce(ValueCounts.merge, parts)
    missing = pd.isna(column)
    assert dict(zip(found.values.tolist(), found.counts)) == Counter(np.asarray(column)[~missing].tolist())
    assert found.n_none + found.n_nan == missing.sum() and found.n_rows == len(column)
    if name == "objects":
        assert found.n_none == found.n_nan == 20


def test_counts_keep_the_dtype_of_their_values():
    for name, kind in {"integers": "i", "floats": "f", "words": "U", "booleans": "b", "objects": "O"}.items():
        column = COLUMNS[name]
        assert count_values(column[:60]).merge(count_values(column[60:])).values.dtype.kind == kind
    mixed = count_values(np.array([1, 2])).merge(count_values(np.array(["a"])))
    assert sorted(map(str, mixed.values)) == ["1", "2", "a"] and mixed.values.dtype == object


def test_too_many_distinct_values_are_given_up_wherever_they_are_cut():
    column = np.arange(30)
    for cut in (0, 5, 15, 25, 30):
        found = count_values(column[:cut], 20).merge(count_values(column[cut:], 20), 20)
        assert found.overflow and len(found.values) == 0
    assert not count_values(column[:20], 20).merge(count_values(column[10:20], 20), 20).overflow


@pytest.mark.parametrize("name", COLUMNS)
def test_located_values_are_their_categories(name):
    column = COLUMNS[name]
    codes, values = factorize(column)
    at = locate(column, values)
    np.testing.assert_array_equal(at, codes)
    assert (locate(column, values[:1])[codes > 0] == -1).all()


def test_none_and_nan_are_told_apart_in_objects():
    column = COLUMNS["objects"]
    found = locate(column, np.array(["a", "b", None, np.nan], dtype=object))
    expected = {"b": 1, "a": 0, "ccc": -1, None: 2}
    assert [expected.get(value, 3) if value is None or value == value else 3 for value in column] == found.tolist()


def test_uncountable_values_are_one_sentence():
    lists = np.empty(2, dtype=object)
    lists[:] = [[1], [2]]
    with pytest.raises(TypeError, match="must be a string or a number"):
        count_values(lists)


def test_columns_of_frames_have_the_same_dtype_with_and_without_missing_values():
    frame = pd.DataFrame({"i": pd.array([1, 2], dtype="Int64"), "f": pd.array([1.5, None], dtype="Float64"), "c": 1})
    assert [column.dtype.kind for column in columns_of(frame)] == ["i", "f", "i"]
    assert np.isnan(columns_of(frame)[1][1])
    assert columns_of(np.ones((2, 3), np.float16))[0].dtype == np.float32
