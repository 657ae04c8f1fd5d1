"""ParallelPostFit gives what the model inside gives, lazily, and ships the model once."""

import pickle

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from daskdml.wrappers import ParallelPostFit

N = 200


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(N, 3))


@pytest.fixture
def y(X):
    return np.array(["low", "middle", "very high"])[np.digitize(X[:, 0], [-0.5, 0.5])]


@pytest.fixture
def model(X, y):
    return LogisticRegression().fit(X, y)


@parametrize_with_checks([ParallelPostFit(LogisticRegression()), ParallelPostFit(StandardScaler())])
def test_sklearn_checks(estimator, check):
    check(estimator)


METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunks", [(50, 3), (N, 3), ((0, 1, 199), (2, 1))])
def test_arrays(model, X, method, chunks):
    expected = getattr(model, method)(X)
    wrapped = ParallelPostFit(model)
    assert_array_equal(getattr(wrapped, method)(X), expected)
    lazy = da.from_array(X, chunks=chunks)
    got = getattr(wrapped, method)(lazy)
    assert isinstance(got, da.Array) and got.shape == expected.shape and got.chunks[0] == lazy.chunks[0]
    if method == "predict":
        assert got.dtype == object
        assert_array_equal(got.compute(), expected)
    else:  # a product of fewer rows may round otherwise
        assert got.dtype == expected.dtype
        assert_allclose(got.compute(), expected, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_frames(X, y, method):
    table = pd.DataFrame(X, columns=list("abc"), index=np.arange(N) * 2)
    model = LogisticRegression().fit(table, y)
    frame = dd.from_pandas(table, npartitions=3)
    got = getattr(ParallelPostFit(model), method)(frame)
    assert got.divisions == frame.divisions
    computed = got.compute()
    expected = getattr(model, method)(table)
    if method == "predict":
        assert_array_equal(computed.to_numpy(), expected)
    else:
        assert_allclose(computed.to_numpy(), expected, rtol=1e-12)
    pd.testing.assert_index_equal(computed.index, table.index)
    if method == "predict":
        assert isinstance(got, dd.Series)
        assert frame.assign(p=got).compute()["p"].tolist() == model.predict(table).tolist()
    else:
        assert list(got.columns) == list(computed.columns) == ["low", "middle", "very high"]


def test_unknown_chunks_and_types(X):
    frame = dd.from_pandas(pd.DataFrame(X), npartitions=3)
    model = ParallelPostFit(Ridge().fit(X.astype(np.float32), X[:, 0].astype(np.float32)))
    assert model.predict(frame.to_dask_array().astype(np.float32)).dtype == np.float32
    assert_allclose(model.predict(frame.to_dask_array()), model.predict(X))
    two = ParallelPostFit(LinearRegression().fit(X, X[:, :2]))
    assert two.predict(da.from_array(X, chunks=(50, 3))).shape == (N, 2)
    sparse = da.from_array(X, chunks=(50, 3)).map_blocks(sp.csr_matrix, meta=sp.csr_matrix((0, 3)))
    assert_allclose(model.predict(sparse), model.predict(X))


def test_a_pipeline_of_columns_gets_frames(X, y):
    table = pd.DataFrame({"number": X[:, 1], "word": y, "day": pd.Categorical(np.arange(N) % 7)})
    encode = make_column_transformer((OneHotEncoder(), ["word", "day"]), remainder=StandardScaler())
    model = make_pipeline(encode, LogisticRegression()).fit(table, y)
    frame = dd.from_pandas(table, npartitions=3)
    wrapped = ParallelPostFit(model)
    assert_array_equal(wrapped.predict(frame).compute(), model.predict(table))
    assert wrapped.score(frame, dd.from_pandas(pd.Series(y), npartitions=3)) == model.score(table, y)


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_transform(X, output):
    table = pd.DataFrame(X, columns=list("abc"))
    model = StandardScaler().set_output(transform=output).fit(table)
    wrapped, expected = ParallelPostFit(model), np.asarray(model.transform(table))
    got = wrapped.transform(dd.from_pandas(table, npartitions=3))
    assert isinstance(got, dd.DataFrame) and list(got.columns) == list("abc") == list(wrapped.get_feature_names_out())
    assert_allclose(got.compute(), expected)
    assert not hasattr(wrapped, "predict")


def test_transform_of_text_gives_sparse_chunks(y):
    words = dd.from_pandas(pd.Series(y), npartitions=3)
    model = CountVectorizer().fit(y)
    got = ParallelPostFit(model).transform(words)
    blocks = dask.compute(*got.to_delayed().ravel())
    assert_array_equal(sp.vstack(blocks).toarray(), model.transform(y).toarray())


def test_score_is_a_number(X, y, model):
    two = np.where(y == "low", "no", "yes")
    lazy, rows = da.from_array(X, chunks=(50, 3)), np.random.default_rng(1).uniform(size=N)
    for labels, scorings in ((y, [None, "accuracy", "neg_log_loss"]), (two, [None, "roc_auc", "neg_log_loss"])):
        fitted = LogisticRegression().fit(X, labels)
        for scoring in scorings:
            wrapped = ParallelPostFit(fitted, scoring=scoring)
            for weights in (None, rows):
                got = wrapped.score(lazy, da.from_array(labels, chunks=77), weights)
                assert isinstance(got, float)
                assert_allclose(got, wrapped.score(X, labels, weights))
    linear = ParallelPostFit(LinearRegression().fit(X, X[:, 0] ** 2))
    assert_allclose(linear.score(lazy, lazy[:, 0] ** 2), linear.score(X, X[:, 0] ** 2))
    forest = ParallelPostFit(RandomForestClassifier(5).fit(X, two), scoring="roc_auc")
    assert_allclose(forest.score(lazy, two), forest.score(X, two))
    assert ParallelPostFit(model, scoring=lambda self, X, y: 7.0).score(lazy, y) == 7.0
    with pytest.raises(ValueError, match="scoring of ParallelPostFit must be one of accuracy"):
        ParallelPostFit(model, scoring="f1").score(lazy, y)


def test_fit_is_in_memory(X, y):
    wrapped = ParallelPostFit(LogisticRegression())
    lazy = da.from_array(X, chunks=(50, 3))
    for args in ((lazy, y), (X, da.from_array(y))):
        with pytest.raises(TypeError, match="fits its model in memory, but . is a Dask Array"):
            wrapped.fit(*args)
    with pytest.raises(NotFittedError):
        wrapped.predict(lazy)
    assert not hasattr(wrapped, "classes_") and not hasattr(wrapped, "coef_")
    wrapped.fit(X, y, sample_weight=np.ones(N))
    assert wrapped.classes_.tolist() == ["low", "middle", "very high"]
    assert wrapped.n_features_in_ == 3 and wrapped.coef_.shape == (3, 3)
    assert is_classifier(wrapped) and is_regressor(ParallelPostFit(Ridge()))
    assert_array_equal(pickle.loads(pickle.dumps(wrapped)).predict(X), wrapped.predict(X))
    assert not hasattr(clone(wrapped), "estimator_")


def test_wrong_features_are_found_at_once(X, y, model):
    with pytest.raises(ValueError, match="X has 2 features, but LogisticRegression is expecting 3"):
        ParallelPostFit(model).predict(da.from_array(X[:, :2]))
    named = LogisticRegression().fit(pd.DataFrame(X, columns=list("abc")), y)
    with pytest.raises(ValueError, match="feature names should match"):
        ParallelPostFit(named).predict(dd.from_pandas(pd.DataFrame(X, columns=list("abd")), npartitions=1))


def test_no_row_is_read_before_compute(X, model):
    def broken(block):
        raise AssertionError("X was read")

    lazy = da.from_array(X, chunks=(50, 3)).map_blocks(broken, dtype=float)
    for method in METHODS:
        getattr(ParallelPostFit(model), method)(lazy)


def test_the_model_is_one_value_of_the_graph(X, y):
    forest = RandomForestClassifier(500, random_state=0).fit(X, y)
    size = len(pickle.dumps(forest))
    assert size > 2**20
    graph = ParallelPostFit(forest).predict(da.from_array(np.zeros((1000, 3)), chunks=(20, 3))).__dask_graph__()
    tasks = dict(graph)
    total = sum(len(cloudpickle.dumps(task)) for task in tasks.values())
    assert len(tasks) >= 50 and total < 1.5 * size


@pytest.mark.cluster
def test_on_a_cluster(cluster_client, X, y):
    forest = RandomForestClassifier(100, random_state=0).fit(X, y)
    lazy = da.from_array(X, chunks=(20, 3)).persist()
    wrapped = ParallelPostFit(forest)
    assert_array_equal(wrapped.predict(lazy).compute(), forest.predict(X))
    assert wrapped.score(lazy, y) == forest.score(X, y)
