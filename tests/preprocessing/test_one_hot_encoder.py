"""OneHotEncoder beyond the contract: all options and types, unknown values, inverse, refusals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import preprocessing as reference
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from daskdml import config_context
from daskdml.preprocessing import OneHotEncoder, StandardScaler
from daskdml.testing.tables import cuts, dense, partitions

N = 120


def words(missing=True):
    rng = np.random.default_rng(0)
    X = np.empty((N, 3), dtype=object)
    X[:, 0] = rng.choice(["cat", "dog", "a much longer animal"], N)
    X[:, 1] = rng.choice(["x", "y"], N)
    X[:, 2] = rng.choice(["r", "s", "t", "u", "v"], N, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    if missing:
        X[::7, 1] = None
        X[::5, 2] = np.nan
    return X


def frame():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "text": words(missing=False)[:, 2],
            "number": rng.integers(0, 4, N),
            "hole": np.where(rng.random(N) < 0.2, np.nan, rng.integers(0, 3, N)),
            "flag": rng.random(N) < 0.5,
            "category": pd.Categorical(words(missing=False)[:, 0]),
            "single": "only",
        },
        index=np.arange(N) + 1000,
    )


def dask_array(X, chunks=None):
    import dask.array as da

    return da.from_array(X, chunks=(cuts(len(X)), chunks or X.shape[1]))


TABLES = {
    "words": words(),
    "numbers": np.random.default_rng(2).integers(0, 5, (N, 3)),
    "floats": np.where(np.random.default_rng(3).random((N, 2)) < 0.1, np.nan, np.arange(N)[:, None] % 3 / 2),
    "fixed-width words": words(missing=False).astype(str),
    "booleans": np.arange(2 * N).reshape(N, 2) % 3 == 0,
    "frame": frame(),
}
OPTIONS = [
    {},
    {"sparse_output": False, "dtype": np.float32},
    {"drop": "first"},
    {"drop": "if_binary"},
    {"min_frequency": 9},
    {"min_frequency": 0.2},
    {"max_categories": 2, "handle_unknown": "infrequent_if_exist"},
    {"max_categories": 1},
    {"max_categories": 3, "drop": "first"},
    {"handle_unknown": "ignore", "min_frequency": 15, "drop": "if_binary"},
]


def lazily(X):
    """Cut any of TABLES into chunks."""
    return partitions(X, cuts(N)) if isinstance(X, pd.DataFrame) else dask_array(X)


def same(ours, theirs):
    assert len(ours.categories_) == len(theirs.categories_)
    for found, expected in zip(ours.categories_, theirs.categories_):
        # "strings are objects" and "numbers are numbers" is what matters; NaN equals NaN.
        assert found.dtype.kind == expected.dtype.kind
        pd.testing.assert_series_equal(pd.Series(found), pd.Series(expected), check_dtype=False)
    assert (ours.drop_idx_ is None) == (theirs.drop_idx_ is None)
    if theirs.drop_idx_ is not None:
        assert list(ours.drop_idx_) == list(theirs.drop_idx_)
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
    if ours.max_categories or ours.min_frequency:
        for found, expected in zip(ours.infrequent_categories_, theirs.infrequent_categories_):
            pd.testing.assert_series_equal(pd.Series(found), pd.Series(expected), check_dtype=False)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", TABLES)
def test_is_scikit_learns(name, options):
    X = TABLES[name]
    theirs = reference.OneHotEncoder(**options).fit(X)
    expected = theirs.transform(X)
    for table in (X, lazily(X)):
        ours = OneHotEncoder(**options).fit(table)
        same(ours, theirs)
        out = ours.transform(table)
        computed = out.compute() if table is not X else out
        assert sparse.issparse(computed) == sparse.issparse(expected)
        assert computed.dtype == expected.dtype if sparse.issparse(expected) else True
        np.testing.assert_array_equal(dense(computed), dense(expected))


@pytest.mark.parametrize("name", ["words", "numbers", "fixed-width words", "frame"])
def test_inverse_transform_is_scikit_learns(name):
    X = TABLES[name]
    for options in ({}, {"drop": "first"}, {"handle_unknown": "ignore"}, {"max_categories": 2}):
        theirs = reference.OneHotEncoder(**options).fit(X)
        expected = theirs.inverse_transform(theirs.transform(X))
        ours = OneHotEncoder(**options).fit(lazily(X))
        for encoded in (ours.transform(X), ours.transform(X).toarray()):
            found = ours.inverse_transform(encoded)
            pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected), check_dtype=False)
        lazy = ours.inverse_transform(ours.transform(lazily(X))).compute()
        pd.testing.assert_frame_equal(pd.DataFrame(lazy), pd.DataFrame(expected), check_dtype=False)


@pytest.mark.parametrize(
    "options, fitted",
    [
        ({"handle_unknown": "ignore"}, None),
        ({"handle_unknown": "ignore", "drop": "first"}, None),
        ({"handle_unknown": "infrequent_if_exist", "max_categories": 2}, None),
        ({"handle_unknown": "infrequent_if_exist"}, None),
        ({"handle_unknown": "ignore", "categories": [["b", "a"], ["z", np.nan]]}, None),
        ({"categories": [["b", "a", "c"], ["z", "y"]], "drop": ["a", "y"]}, None),
    ],
    ids=str,
)
def test_unknown_and_stated_categories_are_scikit_learns(options, fitted):
    X = np.array([["a", "y"], ["b", "z"], ["a", "z"], ["c", "z"]] * 4, dtype=object)
    new = np.array([["a", "z"], ["new", "y"], ["b", "other"]], dtype=object)
    theirs = reference.OneHotEncoder(**options).fit(X)
    ours = OneHotEncoder(**options).fit(dask_array(X))
    same(ours, theirs)
    if ours.handle_unknown == "error":
        new = new[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = theirs.transform(new).toarray()
        np.testing.assert_array_equal(ours.transform(new).toarray(), expected)
        lazy = ours.transform(dask_array(np.vstack([new] * 4))).compute().toarray()
        np.testing.assert_array_equal(lazy, np.vstack([expected] * 4))
        if ours.handle_unknown != "error":
            np.testing.assert_array_equal(ours.inverse_transform(expected), theirs.inverse_transform(expected))


def test_unknown_categories_raise_or_warn():
    X, new = np.array([["a"], ["b"]] * 8, dtype=object), np.array([["b"], ["z"]] * 8, dtype=object)
    with pytest.raises(ValueError, match=r"Found unknown categories \['z'\] in column 0 during transform"):
        OneHotEncoder().fit(X).transform(new)
    lazy = OneHotEncoder().fit(X).transform(dask_array(new))
    with pytest.raises(ValueError, match=r"Found unknown categories \['z'\] in column 0 during transform"):
        lazy.compute()
    with pytest.warns(UserWarning, match=r"unknown categories in columns \[0\]"):
        OneHotEncoder(handle_unknown="warn").fit(X).transform(new)
    with pytest.raises(ValueError, match=r"Found unknown categories \['b'\] in column 0 during fit"):
        OneHotEncoder(categories=[["a"]]).fit(dask_array(X))


@pytest.mark.parametrize(
    "options",
    [
        {"categories": [["a", "b"]]},
        {"categories": [["a", "a"], ["y"]]},
        {"categories": [[np.nan, "a"], ["y"]]},
        {"drop": ["a"]},
        {"drop": ["a", "nowhere"]},
        {"drop": ["rare", "y"], "min_frequency": 3},
        {"handle_unknown": "guess"},
        {"min_frequency": 1.5},
        {"max_categories": 0},
        {"sparse_output": 1},
        {"feature_name_combiner": 3},
    ],
    ids=str,
)
def test_what_scikit_learn_refuses_is_refused(options):
    X = np.array([["a", "y"]] * 9 + [["rare", "y"]], dtype=object)
    # Naming a dropped infrequent word ends in an AttributeError there.
    with pytest.raises((ValueError, AttributeError)):
        reference.OneHotEncoder(**options).fit(X)
    for table in (X, dask_array(X)):
        with pytest.raises(ValueError):
            OneHotEncoder(**options).fit(table)


def test_mixed_and_uncountable_values_are_refused():
    for table in (np.array([["a"], [1]] * 8, dtype=object), dask_array(np.array([["a"], [1]] * 8, dtype=object))):
        with pytest.raises(TypeError, match="uniformly strings or numbers. Got .'int', 'str'."):
            OneHotEncoder().fit(table)
    lists = np.empty((2, 1), dtype=object)
    lists[:, 0] = [[1], [2]]
    with pytest.raises(TypeError, match="must be a string or a number"):
        OneHotEncoder().fit(lists)
    with pytest.raises(ValueError, match="infinity"):
        OneHotEncoder().fit(dask_array(np.array([[1.0], [np.inf]] * 8)))
    with pytest.raises(TypeError, match="dense data"):
        OneHotEncoder().fit(dask_array(np.ones((9, 2))).map_blocks(sparse.csr_matrix))


def test_names_and_their_combiner():
    X = words(missing=False)
    for combiner in ("concat", lambda feature, category: f"{feature}={category!r}"):
        theirs = reference.OneHotEncoder(feature_name_combiner=combiner).fit(X)
        ours = OneHotEncoder(feature_name_combiner=combiner).fit(X)
        assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
        assert list(ours.get_feature_names_out(list("pqr"))) == list(theirs.get_feature_names_out(list("pqr")))
    with pytest.raises(TypeError, match="should return a Python string"):
        OneHotEncoder(feature_name_combiner=lambda feature, category: 1).fit(X).get_feature_names_out()
    with pytest.raises(AttributeError):
        OneHotEncoder().fit(X).infrequent_categories_  # noqa: B018


@pytest.mark.parametrize("dtype", ["string", "string[pyarrow]", "category", "Int64", "boolean", "object"])
def test_pandas_dtypes_give_the_same_columns(dtype):
    """Whatever holds the values, in memory or in partitions some of which have no missing value."""
    values = {"Int64": [3, None, 1], "boolean": [True, None, False]}.get(dtype, ["b", None, "a"])
    table = pd.DataFrame({"c": pd.Series(values[:1] * 20 + values * 5, dtype=dtype)})
    encoder = OneHotEncoder().fit(table)
    lazy = OneHotEncoder().fit(partitions(table, (18, 0, 1, 16)))
    assert len(encoder.categories_[0]) == 3
    pd.testing.assert_series_equal(pd.Series(lazy.categories_[0]), pd.Series(encoder.categories_[0]))
    out = encoder.transform(table).toarray()
    assert (out.sum(axis=1) == 1).all() and out[:, 2].sum() == 5
    np.testing.assert_array_equal(lazy.transform(partitions(table, (18, 0, 1, 16))).compute().toarray(), out)


def test_categories_unknown_to_dask_need_no_extra_step():
    table = pd.DataFrame({"c": pd.Categorical(list("abca" * 5))})
    lazy = partitions(table, (4, 0, 1, 15)).assign(c=lambda part: part.c.astype(object).astype("category"))
    assert not lazy.c.cat.known
    encoder = OneHotEncoder().fit(lazy)
    assert list(encoder.categories_[0]) == ["a", "b", "c"]
    np.testing.assert_array_equal(
        encoder.transform(lazy).compute().toarray(), reference.OneHotEncoder().fit_transform(table).toarray()
    )


def test_polars_is_pandas():
    import polars as pl

    table = frame().drop(columns="category").assign(text=lambda t: t.text.where(t.number > 0))
    # Missing words are NaN or None, as the version of pandas has it, on both sides.
    table = pl.from_pandas(table).to_pandas()
    for ours, theirs in (
        (OneHotEncoder().fit(pl.from_pandas(table)), OneHotEncoder().fit(table)),
        (OneHotEncoder(max_categories=2).fit(pl.from_pandas(table)), OneHotEncoder(max_categories=2).fit(table)),
    ):
        assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
        assert (ours.transform(pl.from_pandas(table)) != theirs.transform(table)).nnz == 0


def test_works_in_a_pipeline_and_refuses_frames_for_sparse_output():
    table = frame()[["text", "number"]]
    pipeline = make_pipeline(OneHotEncoder(), StandardScaler(with_mean=False))
    expected = dense(clone(pipeline).fit_transform(table))
    np.testing.assert_allclose(dense(clone(pipeline).fit_transform(lazily(table))), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="sparse"):
        OneHotEncoder().set_output(transform="pandas").fit_transform(table)


@pytest.mark.cluster
def test_on_a_cluster(cluster_client):
    table = lazily(frame())
    encoder = OneHotEncoder(min_frequency=20).fit(table)
    with config_context(runtime="threads"):
        in_process = OneHotEncoder(min_frequency=20).fit(table)
    same(encoder, in_process)
    assert (encoder.transform(table).compute() != in_process.transform(frame())).nnz == 0
