"""Columns on different workers: margins travel, X does not, and answers are those of the rows in one place."""

import functools
import operator
import os
import signal
import sys
import threading
import time

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, futures_of
from scipy import optimize, sparse
from sklearn import linear_model

from daskdml import config_context, runtime
from daskdml.data import Partitioned
from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge
from daskdml.objectives.least_squares import GramPass
from daskdml.objectives.panels import in_phases

from .apart import BANDS, WIDTHS, columns_apart, hold

pytestmark = pytest.mark.cluster
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

N, P = 6_000, 12


class Margins:
    """A function of panels by the textbook: the sums of y, of X @ w, of its square, and of X^T (X @ w)."""

    phases = ("forward", "backward")

    def __init__(self, w, seconds=0.0):
        self.w, self.seconds = w, seconds

    def forward(self, X, columns):
        time.sleep(self.seconds)
        return X @ self.w[columns]

    def pointwise(self, raw, y, weight):
        return np.array([y.sum(), raw.sum(), (raw**2).sum()]), raw

    def backward(self, X, columns, g):
        return X.T @ g

    def join(self, partial, pieces):
        return np.concatenate([partial, *[piece.ravel() for piece in pieces]])


def problem(n=N, p=P, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-1, 2, size=p) + rng.normal(size=p)
    raw = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.normal(size=(p, 3)) + rng.normal(size=(n, 3))
    return X, raw


def holders(client, X):
    return {key: found for key, found in client.who_has(futures_of(X)).items()}


class Transfers:
    """What workers receive from each other while this is open: a list of {key: bytes}."""

    def __init__(self, client):
        self.client = client

    def __enter__(self):
        # Workers keep the last 1000 entries only: what is appended to a full log makes it no longer.
        self.client.run(lambda dask_worker: dask_worker.transfer_incoming_log.clear())
        return self

    def __exit__(self, *error):
        logs = self.client.run(lambda dask_worker: [entry["keys"] for entry in dask_worker.transfer_incoming_log])
        self.received = [keys for log in logs.values() for keys in log]


def in_memory(model, X, y, weight=None):
    with config_context(runtime="threads"):
        return model.fit(X, y, sample_weight=weight)


CASES = {
    "binary": (LogisticRegression(tol=1e-10), lambda raw: (raw[:, 0] > 0).astype(int)),
    "multinomial": (LogisticRegression(tol=1e-10), lambda raw: np.array(["a", "b", "c"])[raw.argmax(axis=1)]),
    "L1": (LogisticRegression(tol=1e-10, C=0.1, l1_ratio=0.5), lambda raw: (raw[:, 0] > 0).astype(int)),
    "balanced": (LogisticRegression(tol=1e-10, class_weight="balanced"), lambda raw: raw[:, 0] > 1),
    "least squares": (LinearRegression(), lambda raw: raw[:, 0]),
    "ridge": (Ridge(alpha=3.0), lambda raw: raw),
    "no intercept": (Ridge(alpha=3.0, fit_intercept=False), lambda raw: raw[:, 1]),
}


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_coefficients_are_those_of_the_rows_in_memory(cluster_client, name, turn):
    model, target = CASES[name]
    X, raw = problem()
    y, weight = target(raw), np.random.default_rng(1).uniform(0.5, 2, N)
    expected = in_memory(type(model)(**model.get_params()), X, y, weight)
    apart, _ = columns_apart(cluster_client, X, turn=turn)
    before = holders(cluster_client, apart)
    yd = da.from_array(y, chunks=(1700, *y.shape[1:]))
    with Transfers(cluster_client) as transfers:
        found = model.fit(apart, yd, sample_weight=da.from_array(weight, chunks=900))
    scale = np.abs(expected.coef_).max()
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-8, atol=1e-8 * scale)
    assert "pinned in 3 column panels" in found.fit_report_.where
    # Every panel is where it was and nowhere else, and none was sent.
    assert holders(cluster_client, apart) == before
    moved = {key for keys in transfers.received for key in keys}
    assert moved and not moved & set(before) and not any("panel" in str(key) for key in moved)


@pytest.mark.parametrize("wide", [False, True], ids=["two", "two hundred columns"])
def test_least_squares_of_columns_that_nearly_repeat(cluster_client, wide):
    """The rank cut, the singular values and ill-conditioned coefficients are LAPACK's and scikit-learn's."""
    rng = np.random.default_rng(1)
    p = 200 if wide else 6
    X = rng.normal(size=(N, p)) * 10.0 ** np.linspace(-1, 1, p)
    for distance, column in ((1e-7, p - 1), (1e-3, p - 2)):
        X[:, column] = X[:, 0] + distance * rng.normal(size=N)
    y = X[:, 0] + X[:, 1] + rng.normal(size=N)
    apart, _ = columns_apart(cluster_client, X, widths=(p // 2, p - p // 2))
    yd = da.from_array(y, chunks=1700)
    Xc, yc = X - X.mean(axis=0), y - y.mean()
    model = LinearRegression().fit(apart, yd)
    coef, _, rank, singular = np.linalg.lstsq(Xc, yc, rcond=1e-6)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-6 * np.abs(coef).max())
    assert model.rank_ == rank == p - 1
    np.testing.assert_allclose(model.singular_[:-1], singular[:-1], rtol=1e-6)
    theirs = linear_model.Ridge(solver="svd").fit(X, y)
    np.testing.assert_allclose(Ridge().fit(apart, yd).coef_, theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())
    expected, _ = optimize.nnls(np.vstack([Xc, np.eye(p)]), np.concatenate([yc, np.zeros(p)]))
    np.testing.assert_allclose(Ridge(positive=True).fit(apart, yd).coef_, expected, atol=1e-6 * expected.max())


def test_only_margins_travel(cluster_client):
    n, widths = 8_000, (150, 150)
    X = np.random.default_rng(0).normal(size=(n, sum(widths)))
    w, y = np.random.default_rng(1).normal(size=(sum(widths), 1)), np.arange(n) % 7.0
    apart, _ = columns_apart(cluster_client, X, bands=(4000, 4000), widths=widths)
    with runtime.open(Partitioned.from_any(apart, da.from_array(y, chunks=4000))) as run:
        before = run.bytes_moved
        with Transfers(cluster_client) as transfers:
            found = run.map_reduce(Margins(w))
        sizes = [sum(keys.values()) for keys in transfers.received]
        moved = run.bytes_moved - before
        assert run.passes == 1 and run.n_workers == 2
    raw = X @ w
    expected = np.concatenate([[y.sum(), raw.sum(), (raw**2).sum()], (X.T @ raw).ravel()])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    # Of each row, one margin to where y is and one number back.
    assert 2 * n * 8 <= sum(sizes) <= 1.2 * 2 * n * 8 < 0.1 * apart.blocks[0, 0].nbytes
    assert 2 * n * 8 <= moved <= 2 * n * 8 + 100_000


def test_a_worker_adds_up_the_margins_of_its_panels(cluster_client):
    n, widths = 8_000, (30, 40, 20, 10)
    X = np.random.default_rng(0).normal(size=(n, sum(widths)))
    w, y = np.random.default_rng(1).normal(size=(sum(widths), 1)), da.from_array(np.arange(n) % 7.0, chunks=4000)
    apart, _ = columns_apart(cluster_client, X, bands=(4000, 4000), widths=widths, beside=2)
    with runtime.open(Partitioned.from_any(apart, y)) as run:
        before = run.bytes_moved
        with Transfers(cluster_client) as transfers:
            run.map_reduce(Margins(w))
        moved = run.bytes_moved - before
    # One vector for two panels, and one back.
    assert 2 * n * 8 <= sum(size for keys in transfers.received for size in keys.values()) <= 1.2 * 2 * n * 8
    assert 2 * n * 8 <= moved <= 2 * n * 8 + 50_000


def test_sums_do_not_depend_on_who_holds_what(cluster_client):
    n, widths = 3_000, (3, 1, 4, 1, 5, 9, 2)
    X = np.random.default_rng(0).normal(size=(n, sum(widths)))
    w, y = np.random.default_rng(1).normal(size=(sum(widths), 2)), da.from_array(np.arange(n) % 7.0, chunks=1000)
    together = da.from_array(X, chunks=(1000, widths)).map_blocks(np.copy)
    with runtime.open(Partitioned.from_any(together, y)) as run:
        assert not run.by_columns
        expected = run.map_reduce(functools.partial(in_phases, Margins(w)))
    for beside, turn in ((1, 0), (1, 1), (2, 0), (3, 1), (4, 0), (6, 0)):
        apart, _ = columns_apart(cluster_client, X, (1000,) * 3, widths, turn, beside)
        with runtime.open(Partitioned.from_any(apart, y)) as run:
            assert run.by_columns
            assert run.map_reduce(Margins(w)).tobytes() == expected.tobytes()


def test_bits_do_not_depend_on_who_holds_what(cluster_client):
    X, raw = problem()
    y = da.from_array((raw[:, 0] > 0).astype(int), chunks=3000)
    fits = []
    for turn in (0, 1, 1):
        model = LogisticRegression().fit(columns_apart(cluster_client, X, turn=turn)[0], y)
        fits.append(model.coef_.tobytes() + model.intercept_.tobytes())
    assert fits[0] == fits[1] == fits[2]


@pytest.mark.parametrize("kind", ["float32", "int", "csr"])
def test_kinds_of_panels(cluster_client, kind):
    X, raw = problem()
    X = np.round(X * 16) * (np.random.default_rng(0).random(X.shape) < 0.5)
    y = (raw[:, 0] > 0).astype(int)
    expected = in_memory(LogisticRegression(tol=1e-10), X, y)
    make = {"float32": np.float32, "int": np.int64, "csr": sparse.csr_matrix}[kind]
    own = X.astype(make) if kind != "csr" else make(X)
    apart, _ = columns_apart(cluster_client, own)
    with runtime.open(Partitioned.from_any(apart, da.from_array(y, chunks=N))) as run:
        assert run.by_columns and run.dtype == (np.float32 if kind == "float32" else np.float64)
        (block,) = run.pilot(100, seed=0).map(lambda block: block)
        assert block.X.shape == (100, P) and sparse.issparse(block.X) == (kind == "csr")
    found = LogisticRegression(tol=1e-10).fit(apart, da.from_array(y, chunks=N))
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=1e-8 * np.abs(expected.coef_).max())


def test_beyond_the_size_that_is_solved_to_rounding(cluster_client):
    n = 30_000
    X, raw = problem(n)
    y = (raw[:, 0] > 0).astype(int)
    for dtype, tolerance in ((np.float64, 1e-8), (np.float32, 1e-6)):
        own = X.astype(dtype)
        expected = in_memory(LogisticRegression(tol=1e-10), own.astype(np.float64), y)
        apart, _ = columns_apart(cluster_client, own, bands=(n // 3,) * 3)
        found = LogisticRegression(tol=1e-10).fit(apart, da.from_array(y, chunks=n))
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=tolerance * np.abs(expected.coef_).max())
        assert found.fit_report_.passes < 20


@pytest.mark.parametrize("unknown", [False, True])
def test_empty_and_one_row_bands(cluster_client, unknown):
    X, raw = problem()
    y = (raw[:, 0] > 0).astype(int)
    expected = in_memory(LogisticRegression(), X, y)
    bands = (2000, 0, 1, 3999)
    apart, _ = columns_apart(cluster_client, X, bands=bands, turn=1, unknown=unknown)
    # y in memory beside unknown chunk sizes: they are counted first.
    found = LogisticRegression().fit(apart, y if unknown else da.from_array(y, chunks=N))
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=1e-8 * np.abs(expected.coef_).max())
    assert "column panels" in found.fit_report_.where


@pytest.mark.slow
def test_a_class_that_the_pilot_misses(cluster_client):
    X, raw = problem()
    y = np.where(raw[:, 0] > np.sort(raw[:, 0])[-4], 2, raw[:, 1] > 0).astype(int)
    expected = in_memory(LogisticRegression(tol=1e-10), X, y)
    found = LogisticRegression(tol=1e-10).fit(columns_apart(cluster_client, X)[0], da.from_array(y, chunks=N))
    # Solved by conjugate gradients, a pass per product.
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=1e-7 * np.abs(expected.coef_).max())


def test_pilot_is_that_of_the_rows_in_memory(cluster_client):
    X, raw = problem()
    apart, _ = columns_apart(cluster_client, X)
    with runtime.open(Partitioned.from_any(X, raw[:, 0])) as run:
        (expected,) = run.pilot(50, seed=3).map(lambda block: block)
    with runtime.open(Partitioned.from_any(apart, da.from_array(raw[:, 0], chunks=N))) as run:
        with Transfers(cluster_client) as transfers:
            (found,) = run.pilot(50, seed=3).map(lambda block: block)
        assert not transfers.received
        assert run.rows_read == 100 and found.X.flags.c_contiguous
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.y, expected.y)


@pytest.mark.parametrize("model", [LogisticRegression(), Ridge()])
def test_names_the_first_bad_row(cluster_client, model):
    X, raw = problem()
    X[4321, 2], X[4000, P - 1] = np.nan, np.inf
    apart, _ = columns_apart(cluster_client, X)
    with pytest.raises(ValueError, match=r"Input X contains infinity .* First in row 4000 \(block 2\)"):
        model.fit(apart, da.from_array((raw[:, 0] > 0).astype(int), chunks=N))
    assert not hasattr(model, "coef_")


def test_what_needs_whole_rows_says_so(cluster_client):
    X, raw = problem()
    apart, _ = columns_apart(cluster_client, X)
    data = Partitioned.from_any(apart, da.from_array(raw[:, 0], chunks=N))
    with (
        runtime.open(data) as run,
        pytest.raises(ValueError, match=r"GramPass needs whole rows.* X\.rechunk\(\{1: -1\}\)"),
    ):
        run.map_reduce(GramPass(np.zeros(P + 1)))


def test_panels_of_different_lengths_are_refused(cluster_client):
    X, raw = problem()
    pieces = [[X[:3000, :5], X[:3000, 5:]], [X[3000:, :5], X[3000:-1, 5:]]]
    workers = sorted(cluster_client.nthreads())
    rows = []
    for row in pieces:
        held = [cluster_client.submit(hold, piece, workers=[a]) for piece, a in zip(row, workers)]
        delayed = [da.from_delayed(dask.delayed(f), (3000, w), dtype=float) for f, w in zip(held, (5, P - 5))]
        rows.append(da.concatenate(delayed, axis=1))
    apart = da.concatenate(rows).persist()
    with pytest.raises(ValueError, match=r"Chunk 1: the column blocks of X have \[3000, 2999\] rows"):
        Ridge().fit(apart, da.from_array(raw[:, 0], chunks=3000))


def test_panels_on_one_worker_or_lazy_are_walked_together(cluster_client):
    X, raw = problem()
    y = da.from_array(raw[:, 0], chunks=N)
    worker = min(cluster_client.nthreads())
    lazy = da.from_array(X, chunks=(BANDS, WIDTHS))
    together = cluster_client.persist(lazy, workers=[worker])
    for data in (lazy, together):
        with runtime.open(Partitioned.from_any(data, y)) as run:
            assert not run.by_columns
            total = run.map_reduce(lambda block: sum(panel.sum() for panel in block.X))
            assert total == pytest.approx(X.sum())


@pytest.mark.parametrize("kind", [np.asarray, np.float32, sparse.csr_matrix])
@pytest.mark.parametrize("method", ["predict", "decision_function", "predict_proba"])
def test_predictions_stay_lazy_and_panels_where_they_are(cluster_client, method, kind):
    X, raw = problem()
    y = raw.argmax(axis=1)
    X, model = kind(X), LogisticRegression().fit(X, y)
    apart, _ = columns_apart(cluster_client, X, turn=1)
    before = holders(cluster_client, apart)
    predicted = getattr(model, method)(apart)
    assert isinstance(predicted, da.Array) and predicted.chunks[0] == BANDS
    with Transfers(cluster_client) as transfers:
        found = predicted.compute()
    expected = getattr(model, method)(X)
    assert found.shape == predicted.shape == expected.shape and found.dtype == predicted.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    moved = {key for keys in transfers.received for key in keys}
    assert moved and all(key[0].startswith(("part-", "from-panels-")) for key in moved)
    assert holders(cluster_client, apart) == before


def test_predictions_of_a_bad_row_say_so(cluster_client):
    X, raw = problem()
    model = Ridge().fit(X, raw[:, 0])
    X[4321, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(columns_apart(cluster_client, X)[0]).compute()


@pytest.mark.slow
def test_a_killed_worker_does_not_change_a_bit():
    X, raw = problem()
    w = np.random.default_rng(1).normal(size=(P, 2))
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        apart, _ = columns_apart(client, X, turn=1, strict=False)
        with runtime.open(Partitioned.from_any(apart, da.from_array(raw[:, 0], chunks=1000))) as run:
            assert run.by_columns
            run.transform_targets(operator.neg)
            expected = run.map_reduce(Margins(w))
            victim = min(client.run(os.getpid).values())
            killer = threading.Timer(0.4, os.kill, (victim, signal.SIGKILL))
            killer.start()
            found = run.map_reduce(Margins(w, seconds=0.4))
            assert not killer.is_alive() and found.tobytes() == expected.tobytes()
            assert run.map_reduce(Margins(w)).tobytes() == expected.tobytes()
            assert victim not in client.run(os.getpid).values()
