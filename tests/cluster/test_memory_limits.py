"""More data than the workers may hold: no worker pauses, none is killed."""

import contextlib
import os
import sys
import threading
import time

import cloudpickle
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context, runtime
from daskdml.data import Partitioned
from daskdml.ensemble import HistGradientBoostingRegressor

from ..runtime import blocks

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
cloudpickle.register_pickle_by_value(blocks)  # workers cannot import the tests

SCALE = float(os.environ.get("DASKDML_TEST_SCALE", 1))
ROWS, P = 250_000, 50  # 50 MB of float32 per file


def memory(dask_worker):
    lines = open("/proc/self/status").read().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {
        "pid": os.getpid(),
        "status": dask_worker.status.name,
        **{name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS", "VmHWM")},
    }


@contextlib.contextmanager
def watched(cluster):
    """Yield a list that gets the memory of all workers, ten times a second."""
    seen, over = [], threading.Event()

    def watch():
        with Client(cluster, set_as_default=False) as watcher:
            while not over.wait(0.1):
                seen.append(watcher.run(memory))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def check(client, seen):
    """None paused, none was started anew."""
    assert {worker["status"] for moment in seen for worker in moment.values()} == {"running"}
    assert {worker["pid"] for moment in seen for worker in moment.values()} == set(client.run(os.getpid).values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mode", ["auto", "stream"])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_no_worker_is_paused_or_killed(kind, mode, tmp_path):
    """1.2 GB on two workers of 0.9 GB; 8.4 GB on two of 1.5 GB with DASKDML_TEST_SCALE=7."""
    n_files, limit = int(24 * SCALE), int(900e6 + 100e6 * (SCALE - 1))
    total = blocks.write_source(kind, tmp_path / "X", n_files, ROWS, P)
    X = da.from_npy_stack(tmp_path / "X") if kind == "npy" else dd.read_parquet(tmp_path / "X")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=limit, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        with watched(cluster) as seen, config_context(memory=mode):
            with runtime.open(Partitioned.from_any(X)) as run:
                where = run.where
                assert run.mode == ("stream" if mode == "stream" else "mmap")
                start = time.perf_counter()
                first = run.map_reduce(blocks.total)
                seconds = time.perf_counter() - start
                assert run.map_reduce(blocks.total) == first == pytest.approx(total, rel=1e-9)
        check(client, seen)
    last = list(seen[-1].values())
    peak = [max(m[a]["RssAnon"] for m in seen) / 1e6 for a in seen[-1]]
    highest = [worker["VmHWM"] / 1e6 for worker in last]
    print(f"{kind} {where}: {seconds:.1f} s a pass, peak RssAnon {peak} MB, VmHWM {highest} MB")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_boosting_of_bins_that_workers_cannot_hold():
    """1 GB of bins on two workers of 0.7 GB: they are files, and no worker pauses."""
    n, p = int(5_000_000 * SCALE), 200
    X = da.random.default_rng(0).random((n, p), dtype=np.float32, chunks=(50_000, p))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=700e6, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        with watched(cluster) as seen:
            model = HistGradientBoostingRegressor(max_iter=3, max_bins=16, early_stopping=False).fit(X, y)
        check(client, seen)
    assert model.fit_report_.where.endswith(", bins in files")
    peak = max(worker["RssAnon"] for moment in seen for worker in moment.values()) / 1e6
    print(f"{model.fit_report_.seconds:.1f} s, {model.fit_report_.phases}, peak RssAnon {peak:.0f} MB")
    rows = X[:100].compute()
    assert np.corrcoef(model.predict(rows), rows[:, 0] * rows[:, 1] + rows[:, 2])[0, 1] > 0.5
