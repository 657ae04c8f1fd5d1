"""SimpleImputer beyond the contract: placeholders, empty columns, types, exact medians, refusals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import impute as reference
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from daskdml import config_context
from daskdml.impute import SimpleImputer
from daskdml.testing.tables import DENSE, LAZY, SPARSE, cuts, dense, partitions

STRATEGIES = ("mean", "median", "most_frequent", "constant")


def table(n=150, empty=True, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=(n, 2)), rng.integers(0, 4, (n, 2)), np.zeros(n)].astype(dtype)
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 1] = rng.normal(size=n)  # a column without holes
    if empty:
        X[:, 4] = np.nan
    return X


def same(ours, theirs):
    found, expected = ours.statistics_.astype(float), theirs.statistics_.astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert list(ours.get_feature_names_out(list("abcde"))) == list(theirs.get_feature_names_out(list("abcde")))


@pytest.mark.filterwarnings("ignore:Skipping features")
@pytest.mark.parametrize("options", [{}, {"add_indicator": True}, {"keep_empty_features": True}], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["numpy", "dask array"])
def test_is_scikit_learns_with_empty_columns(kind, strategy, options):
    X = table()
    theirs = reference.SimpleImputer(strategy=strategy, **options).fit(X)
    ours = SimpleImputer(strategy=strategy, **options).fit(DENSE[kind](X))
    same(ours, theirs)
    out = ours.transform(DENSE[kind](X))
    np.testing.assert_allclose(dense(out).astype(float), theirs.transform(X).astype(float), rtol=1e-12)
    if "add_indicator" in options:
        np.testing.assert_allclose(
            dense(ours.inverse_transform(out)).astype(float), theirs.inverse_transform(theirs.transform(X)), rtol=1e-12
        )


@pytest.mark.filterwarnings("ignore:Skipping features")
@pytest.mark.parametrize("options", [{}, {"add_indicator": True}, {"keep_empty_features": True}], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["csr", "dask csr"])
def test_is_scikit_learns_with_empty_sparse_columns(kind, strategy, options):
    X = table()
    X[np.random.default_rng(1).random(X.shape) < 0.5] = 0
    X[:, 4] = np.nan
    options = {**options, "fill_value": 7.0}
    theirs = reference.SimpleImputer(strategy=strategy, **options).fit(sparse.csc_matrix(X))
    ours = SimpleImputer(strategy=strategy, **options).fit(SPARSE[kind](X))
    same(ours, theirs)
    out = ours.transform(SPARSE[kind](X))
    assert sparse.issparse(out.compute() if kind in LAZY else out)
    np.testing.assert_allclose(dense(out), theirs.transform(sparse.csc_matrix(X)).toarray(), rtol=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("missing", [0, -1, 3.0])
@pytest.mark.parametrize("kind", ["numpy", "dask array", "dask frame"])
def test_other_placeholders_are_scikit_learns(kind, missing, strategy):
    X = np.nan_to_num(table(empty=False), nan=-1)
    theirs = reference.SimpleImputer(missing_values=missing, strategy=strategy, add_indicator=True).fit(X)
    ours = SimpleImputer(missing_values=missing, strategy=strategy, add_indicator=True).fit(DENSE[kind](X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(
            dense(ours.transform(DENSE[kind](X))).astype(float), theirs.transform(X).astype(float), rtol=1e-12
        )


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
@pytest.mark.parametrize("missing", [np.nan, None, "?"])
def test_words_are_scikit_learns(missing, strategy):
    import dask.array as da

    rng = np.random.default_rng(2)
    X = rng.choice(np.array(["a", "b", "c", missing], dtype=object), (60, 3))
    theirs = reference.SimpleImputer(missing_values=missing, strategy=strategy, add_indicator=True).fit(X)
    for lazy in (X, da.from_array(X, chunks=(cuts(60), 3))):
        ours = SimpleImputer(missing_values=missing, strategy=strategy, add_indicator=True).fit(lazy)
        assert list(ours.statistics_) == list(theirs.statistics_)
        np.testing.assert_array_equal(dense(ours.transform(lazy)), theirs.transform(X))


@pytest.mark.parametrize("dtype", ["str", "string", "category", "Int64", "boolean"])
def test_pandas_columns_with_missing_values(dtype):
    if dtype == "str" and int(pd.__version__.partition(".")[0]) < 3:
        pytest.skip("before pandas 3, dtype='str' has no missing values")
    values = {"Int64": [3, None, 1], "boolean": [True, None, False]}.get(dtype, ["b", None, "a"])
    frame = pd.DataFrame({"c": pd.Series([values[0]] * 12 + values * 3, dtype=dtype), "x": 1.0})
    for lazy in (frame, partitions(frame, (9, 0, 1, 11))):
        out = dense(SimpleImputer(strategy="most_frequent").fit_transform(lazy))
        assert all(found == want for found, want in zip(out[:, 0], frame["c"].fillna(values[0])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [8, 9, 1000, 1001])
def test_median_is_exact(dtype, n):
    """Whatever the values: spread over all exponents, tied, of either sign, zero of either sign."""
    rng = np.random.default_rng(n)
    X = np.c_[
        rng.normal(size=n),
        rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n),
        rng.integers(0, 2, n),
        rng.choice([-0.0, 0.0, 1e-40], n),
        np.sort(rng.normal(1e6, 1e-3, n)),
    ].astype(dtype)
    X[rng.random(X.shape) < 0.1] = np.nan
    imputer = SimpleImputer(strategy="median").fit(DENSE["dask array"](X))
    np.testing.assert_array_equal(imputer.statistics_, np.nanmedian(X.astype(np.float64), axis=0))


def test_mean_is_that_of_the_values_at_a_large_offset():
    X = table(dtype=np.float32)[:, :2] + np.float32(1e6)
    expected = np.nanmean(X.astype(np.float64), axis=0)
    for kind in DENSE:
        np.testing.assert_allclose(SimpleImputer().fit(DENSE[kind](X)).statistics_, expected, rtol=1e-15)


@pytest.mark.filterwarnings("ignore:Skipping features")
@pytest.mark.parametrize("kind", DENSE)
def test_float32_stays_float32(kind):
    X = DENSE[kind](table(dtype=np.float32))
    for strategy in STRATEGIES:
        assert dense(SimpleImputer(strategy=strategy).fit_transform(X)).dtype == np.float32


def test_integers_stay_integers_where_scikit_learn_keeps_them():
    import dask.array as da

    X = np.array([[1, -1], [2, 5], [1, 5], [-1, 5]] * 3)
    for lazy in (X, da.from_array(X, chunks=(4, 2))):
        out = SimpleImputer(missing_values=-1, strategy="most_frequent").fit_transform(lazy)
        assert out.dtype == np.int64 and dense(out)[3, 0] == 1 and dense(out).dtype == np.int64


def test_callable_strategy_in_memory_only():
    X = table(empty=False)
    theirs = reference.SimpleImputer(strategy=np.max).fit(X)
    np.testing.assert_array_equal(SimpleImputer(strategy=np.max).fit(X).statistics_, theirs.statistics_)
    with pytest.raises(ValueError, match="callable strategy for data in memory only"):
        SimpleImputer(strategy=np.max).fit(DENSE["dask array"](X))


@pytest.mark.parametrize(
    "options, X, message",
    [
        ({"strategy": "guess"}, np.ones((9, 1)), "'strategy' parameter"),
        ({"missing_values": [1]}, np.ones((9, 1)), "'missing_values' parameter"),
        ({"add_indicator": 2}, np.ones((9, 1)), "'add_indicator' parameter"),
        ({"missing_values": "?"}, np.ones((9, 1)), "expected to be both numerical"),
        ({"strategy": "constant", "fill_value": "x"}, np.ones((9, 1)), "cannot be cast"),
        ({"missing_values": 0}, sparse.csr_matrix(np.eye(9)), "input is sparse"),
        ({"missing_values": -1}, np.full((9, 1), np.nan), "Input X contains NaN"),
        ({}, np.full((9, 1), np.inf), "Input X contains infinity"),
        ({"strategy": "median"}, np.full((9, 1), -np.inf), "Input X contains infinity"),
        ({"strategy": "most_frequent"}, np.full((9, 1), np.inf), "Input X contains infinity"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(options, X, message):
    import dask.array as da

    lazy = da.from_array(X.toarray() if sparse.issparse(X) else X, chunks=(4, X.shape[1]))
    lazy = lazy.map_blocks(sparse.csr_matrix) if sparse.issparse(X) else lazy
    for one in (X, lazy):
        with pytest.raises(ValueError, match=message):
            SimpleImputer(**options).fit(one)


def test_words_and_a_strategy_for_numbers():
    frame = pd.DataFrame({"c": ["a", None] * 6})
    for one in (frame, partitions(frame, (5, 7))):
        with pytest.raises(ValueError, match="TableEncoder"):
            SimpleImputer().fit(one)
    with pytest.raises(ValueError, match="Cannot use mean strategy with non-numeric data"):
        SimpleImputer().fit([["a"], ["b"]])


def test_left_out_features_are_said():
    imputer = SimpleImputer().fit(DENSE["dask frame"](table()))
    with pytest.warns(UserWarning, match=r"Skipping features without any observed values: \['f4'\]"):
        out = imputer.transform(DENSE["dask frame"](table()))
    assert list(out.columns) == ["f0", "f1", "f2", "f3"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_place_is_for_memory_only(strategy):
    import dask.array as da

    X = table(empty=False)
    imputer = SimpleImputer(strategy=strategy, copy=False).fit(X)
    imputer.transform(da.from_array(X, chunks=-1)).compute()
    np.testing.assert_array_equal(X, table(empty=False))


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_works_in_a_pipeline():
    X = table(empty=False)
    pipeline = make_pipeline(SimpleImputer(add_indicator=True), SimpleImputer(missing_values=0, strategy="median"))
    expected = dense(clone(pipeline).fit_transform(X))
    for kind in DENSE:
        np.testing.assert_allclose(dense(clone(pipeline).fit_transform(DENSE[kind](X))), expected, rtol=1e-12)


@pytest.mark.cluster
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_on_a_cluster(cluster_client, strategy):
    X = DENSE["dask array"](table(empty=False))
    on_cluster = SimpleImputer(strategy=strategy).fit(X)
    with config_context(runtime="threads"):
        in_process = SimpleImputer(strategy=strategy).fit(X)
    assert list(on_cluster.statistics_) == list(in_process.statistics_)


@pytest.mark.parametrize("missing", [np.nan, -1.0])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["numpy", "pandas", *LAZY])
def test_transform_refuses_what_fit_refuses(kind, strategy, missing):
    X = np.nan_to_num(table(empty=False))
    ours = SimpleImputer(strategy=strategy, missing_values=missing).fit(X)
    theirs = reference.SimpleImputer(strategy=strategy, missing_values=missing).fit(X)
    for bad, message in ((np.inf, "infinity"), (np.nan, "NaN")):
        spoiled = X.copy()
        spoiled[7, 1] = bad
        lazy = {**DENSE, **SPARSE}[kind](spoiled)
        if bad is np.nan and missing is np.nan:
            found, expected = dense(ours.transform(lazy)), theirs.transform(spoiled)
            np.testing.assert_allclose(found.astype(float), expected.astype(float))
            continue
        for transform, rows in ((theirs.transform, spoiled), (ours.transform, lazy)):
            with pytest.raises(ValueError, match=f"Input (X )?contains {message}"):
                dense(transform(rows))
