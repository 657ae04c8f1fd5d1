"""Estimators on ranks: the bits of tasks and threads for every kind of rows, whoever dies."""

import contextlib
import os
import signal

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from daskdml import config_context
from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge, _solving
from daskdml.runtime.spmd import cluster as spmd_cluster
from daskdml.strategies import ASP, BSP, SSP, ParameterServer

pytestmark = pytest.mark.cluster
N, P = 40_000, 12


def table(dtype=np.float64):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(N, P)).astype(dtype)
    return X, X @ np.linspace(-1, 1, P) + rng.logistic(size=N)


def bits(model):
    return np.ravel(model.coef_).tobytes() + np.ravel(model.intercept_).tobytes()


def dense(X, y):
    return da.from_array(X, chunks=(4000, P)), da.from_array(y, chunks=4000)


def uneven(X, y):
    chunks = (1, 0, 11_999, 0, 28_000)
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


def by_columns(X, y):
    return da.from_array(X, chunks=(8000, 5)), da.from_array(y, chunks=8000)


def unknown(X, y):
    frame = dd.from_pandas(pd.DataFrame(X).assign(y=y), npartitions=5, sort=False)
    return frame[list(range(P))].values, frame["y"].values


def frame(X, y):
    data = dd.from_pandas(pd.DataFrame(X, columns=[f"x{i}" for i in range(P)]).assign(y=y), npartitions=5)
    return data.drop(columns="y"), data["y"]


def csr(X, y):
    X = np.where(np.abs(X) > 1, X, 0)
    return da.from_array(X, chunks=(4000, P)).map_blocks(sparse.csr_array), da.from_array(y, chunks=4000)


KINDS = {f.__name__: f for f in (dense, uneven, by_columns, unknown, frame, csr)}
LOGISTIC = LogisticRegression()


def on(runtime, model, X, y, **params):
    with config_context(runtime=runtime):
        return model.fit(X, y, **params)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rows_gives_the_bits_of_tasks(kind, cluster_client):
    X, y = table()
    rows = KINDS[kind](X, (y > 0).astype(int))
    by_tasks, by_ranks = bits(on("tasks", LOGISTIC, *rows)), on("spmd", LOGISTIC, *rows)
    if kind == "by_columns":
        # Tasks leave the columns of a row apart and add their margins up; ranks bring them together.
        np.testing.assert_allclose(np.frombuffer(bits(by_ranks)), np.frombuffer(by_tasks), rtol=1e-8, atol=1e-9)
    else:
        assert bits(by_ranks) == by_tasks
    assert "2 workers" in by_ranks.fit_report_.where


@pytest.mark.parametrize(
    "model, targets",
    [
        (LogisticRegression(C=1e-3, l1_ratio=1.0), lambda y: (y > 0).astype(int)),
        (LogisticRegression(class_weight="balanced"), lambda y: np.array(["a", "b", "c"])[np.digitize(y, [-1, 1])]),
        (LogisticRegression(C=np.inf), lambda y: (y > 0).astype(int)),
        (LinearRegression(), np.asarray),
        (LinearRegression(positive=True), np.asarray),
        (Ridge(alpha=[1.0, 2.0]), lambda y: np.column_stack([y, y**2])),
    ],
    ids=["l1", "labels", "no penalty", "ols", "positive", "ridge"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_estimator_gives_the_bits_of_threads_and_tasks(model, targets, dtype, cluster_client):
    X, y = table(dtype)
    rows = da.from_array(X, chunks=(4000, P)), da.from_array(targets(y), chunks=(4000, -1)[: targets(y).ndim])
    weight = da.from_array(np.linspace(0.5, 2.0, N), chunks=4000)
    found = [bits(on(runtime, model, *rows, sample_weight=weight)) for runtime in ("threads", "tasks", "spmd")]
    assert found[0] == found[1] == found[2]


@pytest.fixture
def groups(monkeypatch):
    """Runs of ranks in this test."""
    found, run = [], spmd_cluster.ClusterRanks.run
    monkeypatch.setattr(
        spmd_cluster.ClusterRanks, "run", lambda self, *args: (found.append(self), run(self, *args))[1]
    )
    return found


def large():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600_000, P))  # 58 MB: nobody fetches that
    y = (X[:, 0] + rng.logistic(size=len(X)) > 0).astype(int)
    return da.from_array(X, chunks=(50_000, P)), da.from_array(y, chunks=50_000)


def test_auto_takes_ranks_where_passes_are_many(groups, cluster_client):
    rows = large()
    by_ranks = bits(on("auto", LOGISTIC, *rows))
    assert len(groups) == 1
    on("auto", LinearRegression(), *rows)  # two passes: ranks are not worth their start
    assert len(groups) == 1
    assert bits(on("tasks", LOGISTIC, *rows)) == by_ranks and len(groups) == 1


def test_auto_goes_by_tasks_where_distributed_lacks_something(groups, cluster_client, monkeypatch):
    monkeypatch.setattr(spmd_cluster, "_plugged", {})
    monkeypatch.setattr(spmd_cluster, "_warned", set())
    monkeypatch.setattr(spmd_cluster, "what_is_missing", lambda: "Worker.handlers")
    rows = large()
    with pytest.warns(RuntimeWarning, match="tasks instead of ranks.*lacks Worker.handlers") as caught:
        by_tasks = [bits(on("auto", LOGISTIC, *rows)) for _ in range(2)]
    assert len([w for w in caught if w.category is RuntimeWarning]) == 1 and not groups
    with pytest.raises(RuntimeError, match="lacks Worker.handlers"):
        on("spmd", LOGISTIC, *rows)
    monkeypatch.undo()
    assert bits(on("tasks", LOGISTIC, *rows)) == by_tasks[0] == by_tasks[1]


def test_mapped_rows_and_rows_in_memory(cluster_client):
    X, y = table()
    expected = bits(LOGISTIC.fit(X, y > 0))
    assert bits(on("spmd", LOGISTIC, X, y > 0)) == expected
    with config_context(memory="mmap"):
        assert bits(on("spmd", LOGISTIC, X, y > 0)) == expected
    with config_context(memory="stream"), pytest.raises(ValueError, match='memory="stream" reads them again'):
        on("spmd", LOGISTIC, X, y > 0)


def test_errors_and_warnings_are_those_of_a_fit_in_process(cluster_client):
    X, y = table()
    X[12_345, 3] = np.nan
    with pytest.raises(ValueError, match="First in row 12345"):
        on("spmd", LOGISTIC, *dense(X, (y > 0).astype(int)))
    X[12_345, 3] = 0.0
    with pytest.warns(ConvergenceWarning, match="max_iter") as caught:
        on("spmd", LogisticRegression(max_iter=1), *dense(X, (y > 0).astype(int)))
    assert [w.filename for w in caught if w.category is ConvergenceWarning] == [__file__]


def test_without_a_client_it_says_so():
    with pytest.raises(ValueError, match='runtime="spmd" needs a cluster, but no distributed.Client'):
        on("spmd", LOGISTIC, *table())


def test_the_report_counts_rows_bytes_and_seconds(cluster_client):
    X, y = table()
    rows = dense(X, (y > 0).astype(int))
    by_tasks, by_ranks = on("tasks", LogisticRegression(), *rows), on("spmd", LogisticRegression(), *rows)
    report = by_ranks.fit_report_
    assert report.passes == by_tasks.fit_report_.passes and report.n_iter == by_tasks.fit_report_.n_iter
    assert 0 < report.bytes_moved < by_tasks.fit_report_.bytes_moved
    assert report.converged and report.seconds > 0 and len(report.records) == len(by_tasks.fit_report_.records)


class Deadly:
    """What a fit does on each rank, but that the first rank to come to the k-th pass over all rows dies there."""

    def __init__(self, solve, k, file):
        self.solve, self.k, self.file = solve, k, str(file)

    def __call__(self, fit, **problem):
        count, fold = iter(range(self.k)), fit.run._fold

        def deadly(*args):
            if next(count, None) is None and not os.path.exists(self.file):
                # Two may come here at once: whose file it is, dies.
                with contextlib.suppress(FileExistsError), open(self.file, "x"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return fold(*args)

        fit.run._fold = deadly
        return self.solve(fit, **problem)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["pinned", "mmap"])
@pytest.mark.parametrize("k", [0, 2, 4])
def test_a_killed_worker_does_not_change_a_bit(k, memory, tmp_path, monkeypatch):
    X, y = table()
    rows = dense(X, (y > 0).astype(int))
    expected = LogisticRegression(tol=1e-8).fit(*rows)
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        monkeypatch.setattr(_solving, "_solve", Deadly(_solving._solve, k, tmp_path / "died"))
        with config_context(runtime="spmd", memory=memory):
            found = LogisticRegression(tol=1e-8).fit(*rows)
    assert os.path.exists(tmp_path / "died")
    assert bits(found) == bits(expected) and found.n_iter_ == expected.n_iter_


class DeadlyApart(Deadly):
    """Likewise, but in the k-th evaluation of its rows while ranks go at their own pace."""

    def __call__(self, fit, **problem):
        count, apart = iter(range(self.k)), fit.run.apart

        def deadly(work):
            def watched(ledger):
                reduce = ledger.reduce

                def and_die(*args, **kwargs):
                    found = reduce(*args, **kwargs)
                    if next(count, None) is None and not os.path.exists(self.file):
                        with contextlib.suppress(FileExistsError), open(self.file, "x"):
                            os.kill(os.getpid(), signal.SIGKILL)
                    return found

                ledger.reduce = and_die
                return work(ledger)

            return apart(watched)

        fit.run.apart = deadly
        return self.solve(fit, **problem)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("consistency", [BSP(), SSP(3), ASP()], ids=str)
def test_ranks_at_their_own_pace_go_on_without_one(consistency, k, tmp_path, monkeypatch):
    """From what all have pushed so far, to the optimum of a fit that nobody died in."""
    X, y = table()
    rows = dense(X, (y > 0).astype(int))
    expected = LogisticRegression(tol=1e-9).fit(*rows)
    strategy = ParameterServer(consistency=consistency)
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        monkeypatch.setattr(_solving, "_solve", DeadlyApart(_solving._solve, k, tmp_path / "died"))
        found = LogisticRegression(tol=1e-6, strategy=strategy).fit(*rows)
    assert os.path.exists(tmp_path / "died")
    report = found.fit_report_
    assert report.converged and report.notes == [] and report.counts["pushes"] > 0
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-5)
