"""Rows of CSR of which few values are stored are kept as codes of these: the same trees as from dense rows."""

import dask.array as da
import numpy as np
import pytest
from scipy import sparse

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.testing import SimulatedCluster
from daskdml.trees import Boosting, boosting, shards
from daskdml.trees.binning import StoreRows

from .boosted import same_models

N, P = 3000, 24


def table(dtype=np.float32, share=0.15, seed=0):
    """Return CSR rows, with values of all kinds in various columns, and targets."""
    rng = np.random.default_rng(seed)
    X = sparse.random(N, P, density=share, format="csr", dtype=dtype, random_state=seed)
    X.data[:] = rng.normal(size=X.nnz)
    X.data[X.indices < 6] = 1  # words that are there or not
    few = X.indices % 6 == 1
    X.data[few] = np.rint(X.data[few])
    X.data[rng.random(X.nnz) < 0.05] = np.nan
    X.data[rng.random(X.nnz) < 0.01] = np.inf
    dense = np.nan_to_num(X.toarray(), posinf=3, neginf=-3)
    return X, dense @ rng.normal(size=P) + dense[:, 2] * dense[:, 9] + 0.3 * rng.normal(size=N)


@pytest.fixture
def kept(monkeypatch):
    """Return the list of numbers of rows that were kept as codes."""
    found, call = [], StoreRows.__call__

    def count(self, X):
        found.append(X.shape[0])
        return call(self, X)

    monkeypatch.setattr(StoreRows, "__call__", count)
    return found


PARAMS = {
    "plain": {},
    "all leaves": {"max_leaf_nodes": None, "max_depth": 5},
    "validation": {"early_stopping": True, "n_iter_no_change": 2},
    "scores": {"early_stopping": True, "scoring": "neg_mean_absolute_error"},
    "subsample": {"subsample": 0.6, "max_features": 0.4, "rounding": "stochastic"},
    "constraints": {"monotonic_cst": [1, -1] * 12, "interaction_cst": [list(range(12)), list(range(8, 24))]},
    "few bins": {"max_bins": 7, "l2_regularization": 3.0},
    "quantile": {"loss": "quantile", "quantile": 0.8},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_same_trees_as_dense_rows(params, dtype, kept):
    X, y = table(dtype)
    a, b = (HistGradientBoostingRegressor(max_iter=6, **params).fit(rows, y) for rows in (X, X.toarray()))
    assert sum(kept) == N
    same_models(a, b)
    np.testing.assert_array_equal(a.predict(X), b.predict(X.toarray()))


def test_same_trees_without_columns(monkeypatch):
    """As where memory is scarce: all leaves are lists."""
    X, y = table()
    made, kept = [], boosting.StoredRows
    expected = HistGradientBoostingRegressor(max_iter=4, max_leaf_nodes=None, max_depth=7).fit(X, y)
    monkeypatch.setattr(boosting, "StoredRows", lambda *args: made.append(kept(*args[:3], False)) or made[-1])
    same_models(HistGradientBoostingRegressor(max_iter=4, max_leaf_nodes=None, max_depth=7).fit(X, y), expected)
    assert len(made) == 1


@pytest.mark.parametrize("n_threads", [1, 3])
def test_shards_and_ranks_without_rows_of_a_leaf(n_threads, monkeypatch):
    """Several shards a rank, ranks of few rows and of none; leaves that some of them have no row of."""
    X, y = table()
    X = sparse.vstack([X[:2000], sparse.csr_matrix((800, P), dtype=X.dtype), X[2800:]], format="csr")
    params = {"max_iter": 4, "max_leaf_nodes": 60, "min_samples_leaf": 1}
    expected = HistGradientBoostingRegressor(**params).fit(X.toarray(), y)
    monkeypatch.setattr(shards, "LEAST_ROWS", 400)
    with config_context(n_threads=n_threads):
        same_models(HistGradientBoostingRegressor(**params).fit(X, y), expected)
        for n_workers, n_rows in ((2, 700), (5, 500), (7, 800)):
            cluster = SimulatedCluster(n_workers, rows_per_block=n_rows)
            same_models(cluster.fit(HistGradientBoostingRegressor(**params), X, y), expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_deaths(share):
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=4).fit(X.toarray(), y)
    quiet = SimulatedCluster(4, rows_per_block=256, seconds_per_row=0.0)
    same_models(quiet.fit(HistGradientBoostingRegressor(max_iter=4), X, y), expected)
    kills = [(share * quiet.report.seconds, 1)]
    cluster = SimulatedCluster(4, rows_per_block=256, kills=kills, seconds_per_row=0.0)
    same_models(cluster.fit(HistGradientBoostingRegressor(max_iter=4), X, y), expected)
    assert cluster.report.generations == 2


@pytest.mark.parametrize("n_classes", [2, 4])
def test_classes_and_weights(n_classes, kept):
    X, y = table()
    labels = np.array(["a", "b", "c", "d"])[np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))]
    rng = np.random.default_rng(1)
    for weight in (rng.integers(0, 4, N).astype(float), rng.exponential(size=N) * (rng.random(N) < 0.9)):
        model = HistGradientBoostingClassifier(max_iter=4, class_weight="balanced")
        a, b = (
            model.__class__(**model.get_params()).fit(rows, labels, sample_weight=weight)
            for rows in (X, X.toarray())
        )  # fmt: skip
        same_models(a, b)
    assert sum(kept) == 2 * N


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
@pytest.mark.parametrize("lengths", [(1000, 1000, 1000), (0, 1, 2, 0, 2997, 0), (1,) * 3 + (2997,)])
def test_chunks(lengths, memory, kept):
    """Empty ones, of one row, of rows that store nothing; of lengths that nobody knows."""
    X, y = table()
    X = sparse.vstack([sparse.csr_matrix((3, P), dtype=X.dtype), X[3:]], format="csr")
    model = HistGradientBoostingRegressor(max_iter=4)
    expected = model.__class__(max_iter=4).fit(X.toarray(), y)
    lazy = da.from_array(X.toarray(), chunks=(lengths, -1)).map_blocks(sparse.csr_matrix)
    with config_context(memory=memory):
        same_models(model.fit(lazy, da.from_array(y, chunks=(lengths,))), expected)
    kept.clear()
    unknown = da.from_array(X.toarray(), chunks=(lengths, -1)).map_blocks(sparse.csr_matrix)
    unknown._chunks = ((np.nan,) * len(lengths), (P,))
    targets = da.from_array(y, chunks=(lengths,))
    targets._chunks = ((np.nan,) * len(lengths),)
    same_models(model.fit(unknown, targets), expected)
    assert sum(kept) == N


def test_columns_in_any_order_and_values_in_parts(kept):
    """An entry may stand twice: their sum counts."""
    X, y = table()
    double = X.copy()
    double.data, double.indices = np.repeat(X.data / 2, 2), np.repeat(X.indices, 2)
    double.indptr = X.indptr * 2
    turned = X[:, ::-1][:, ::-1]  # not in order any more
    turned.indices, turned.data = X.indices.copy(), X.data.copy()
    for i in range(N):
        own = slice(X.indptr[i], X.indptr[i + 1])
        turned.indices[own], turned.data[own] = X.indices[own][::-1], X.data[own][::-1]
    turned.has_sorted_indices = turned.has_canonical_format = double.has_canonical_format = False
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X.toarray(), y)
    for rows in (double, turned, X.tocsc(), sparse.csr_array(X)):
        same_models(HistGradientBoostingRegressor(max_iter=3).fit(rows, y), expected)
    assert sum(kept) == 4 * N


def test_a_matrix_that_wrongly_says_that_it_is_in_order(kept):
    """Somebody has changed its arrays since."""
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X.toarray(), y)
    assert X.has_canonical_format
    for i in range(0, N, 7):
        own = slice(X.indptr[i], X.indptr[i + 1])
        X.indices[own], X.data[own] = X.indices[own][::-1].copy(), X.data[own][::-1].copy()
    same_models(HistGradientBoostingRegressor(max_iter=3).fit(X, y), expected)


def test_negative_zeros_that_are_stored(kept):
    """Thresholds too are those of dense rows, to the sign of zero."""
    X, y = table(share=0.3)
    X.data[:] = np.where(np.random.default_rng(0).random(X.nnz) < 0.9, -0.0, X.data)
    expected = HistGradientBoostingRegressor(max_iter=3, max_bins=5).fit(np.where(X.toarray() == 0, 0, X.toarray()), y)
    same_models(HistGradientBoostingRegressor(max_iter=3, max_bins=5).fit(X, y), expected)


def test_given_validation_rows(kept):
    X, y = table()
    dense = X.toarray()
    models = (
        HistGradientBoostingRegressor(max_iter=5, early_stopping=True).fit(A, y, X_val=B, y_val=y[:500])
        for A, B in ((X, X[:500]), (dense, dense[:500]), (X, dense[:500]))
    )
    first, *others = models
    for other in others:
        same_models(first, other)


def test_warm_start_goes_on_with_rows_of_either_kind(kept):
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=6).fit(X.toarray(), y)
    for first, second in ((X, X), (X, X.toarray()), (X.toarray(), X)):
        model = HistGradientBoostingRegressor(max_iter=3, warm_start=True).fit(first, y)
        same_models(model.set_params(max_iter=6).fit(second, y), expected)


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_any_number_of_ranks(n_workers, kept):
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=4).fit(X.toarray(), y)
    cluster = SimulatedCluster(n_workers, rows_per_block=256)
    same_models(cluster.fit(HistGradientBoostingRegressor(max_iter=4), X, y), expected)
    assert sum(kept) >= N


def test_any_number_of_threads(kept):
    X, y = table()
    X, y = sparse.vstack([X] * 24, format="csr"), np.tile(y, 24)  # several shards
    expected = HistGradientBoostingRegressor(max_iter=3, early_stopping=False).fit(X.toarray(), y)
    for n_threads in (1, 3):
        with config_context(n_threads=n_threads):
            model = HistGradientBoostingRegressor(max_iter=3, early_stopping=False).fit(X, y)
        same_models(model, expected)


def test_rows_that_store_much_are_kept_whole(kept):
    X, y = table(share=0.6)
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X.toarray(), y)
    same_models(HistGradientBoostingRegressor(max_iter=3).fit(X, y), expected)
    assert not kept


def test_a_checkpoint_is_gone_on_from(tmp_path, kept, monkeypatch):
    """Raw predictions are those of the trees so far, made of codes."""
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=6).fit(X.toarray(), y)
    iterate, done = Boosting.iterate, []

    def stop(self, state, shards, comm):
        if len(state.trees) == 4 and not done:
            done.append(True)
            raise KeyboardInterrupt
        return iterate(self, state, shards, comm)

    monkeypatch.setattr(Boosting, "iterate", stop)
    model = HistGradientBoostingRegressor(max_iter=6)
    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        same_models(model.fit(X, y), expected)
    assert done and sum(kept) == 2 * N
