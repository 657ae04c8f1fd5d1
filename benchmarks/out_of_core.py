"""8 GB of float32 on disk, fitted in a process that may hold 3 GB, and by two workers of 1.5 GB each."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks import child
from benchmarks.data import Rows, make_slab
from benchmarks.machine import MemoryWatch
from benchmarks.report import Sheet

ROWS, FEATURES = 40_000_000, 50
PROCESS_LIMIT, WORKER_LIMIT = 3_000_000_000, 1_500_000_000
# Rows of a file: 20 MB of float32.
FILE_ROWS = 100_000


def run(rows=None, full=False):
    """The fit finishes within its limits, on a stack of .npy files and on Parquet.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Changes nothing here.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("out_of_core", at_size=rows is None)
    rows = rows or ROWS
    folder = tempfile.mkdtemp(prefix="daskdml-out-of-core-")
    try:
        for source, write in (("npy stack", _write_npy), ("Parquet", _write_parquet)):
            path = Path(folder) / source.replace(" ", "_")
            write(path, Rows(rows, FEATURES))
            for where, function in (
                (f"one process of {PROCESS_LIMIT / 1e9:g} GB", "fit_in_process"),
                (f"two workers of {WORKER_LIMIT / 1e9:g} GB", "fit_on_cluster"),
            ):
                found = child.call(f"benchmarks.out_of_core:{function}", source=source, path=str(path))
                _add(sheet, f"logistic {rows:,} x {FEATURES} float32 in {source}, {where}", found)
            shutil.rmtree(path)  # both at once would be twice the disk
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sheet


def _add(sheet, work, found):
    quality = ("certified gap", found["gap"])
    sheet.add(work, "daskdml", "seconds", found["seconds"], quality=quality, note=found["report"])
    for process, memory in found["memory"].items():
        for name, value in memory.items():
            limited = name == "RssAnon" and process != "the client"
            limit = ("<=", found["limit"] / 1e9) if limited else None
            sheet.add(work, process, f"GB {name}, peak", value / 1e9, must=limit)
    if "trouble" in found:
        note = "; ".join(found["trouble"])
        sheet.add(work, "workers", "pauses, kills and restarts", len(found["trouble"]), must=("==", 0), note=note)


def fit_in_process(source, path):
    """Fit under RLIMIT_DATA; runs in a child process.

    Parameters
    ----------
    source : {"npy stack", "Parquet"}
    path : str

    Returns
    -------
    dict
    """
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (PROCESS_LIMIT, PROCESS_LIMIT))
    with MemoryWatch(every=0.01) as watch:
        found = _fit(source, path)
    return {**found, "limit": PROCESS_LIMIT, "memory": {"the process": watch.peak[os.getpid()]}}


def fit_on_cluster(source, path):
    """Fit on two workers with memory limits and follow what becomes of them; runs in a child process.

    Parameters
    ----------
    source : {"npy stack", "Parquet"}
    path : str

    Returns
    -------
    dict
    """
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, memory_limit=WORKER_LIMIT, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        before = client.run(os.getpid)
        with MemoryWatch([os.getpid(), *before.values()], every=0.01) as watch, _StateWatch(cluster) as states:
            found = _fit(source, path)
        after = client.run(os.getpid)
        lines = [str(line) for logs in client.get_worker_logs().values() for line in logs]
        lines += [str(line) for logs in client.get_worker_logs(nanny=True).values() for line in logs]
    trouble = [f"{address} restarted" for address in before if after.get(address) != before[address]]
    trouble += [line for line in lines if "Pausing worker" in line or "exceeded" in line or "Restarting" in line]
    trouble += [f"state {name}" for name in sorted(states.seen - {"running"})]
    names = {os.getpid(): "the client", **{pid: f"worker {i}" for i, pid in enumerate(sorted(before.values()))}}
    memory = {names[pid]: peak for pid, peak in watch.peak.items()}
    return {**found, "limit": WORKER_LIMIT, "memory": memory, "trouble": trouble}


class _StateWatch(MemoryWatch):
    """Follow the states of a cluster's workers: running, paused, closed ..."""

    def __init__(self, cluster):
        super().__init__(pids=[], every=0.05)
        self.cluster, self.seen = cluster, set()

    def look(self):
        self.seen |= {worker.status.name for worker in list(self.cluster.scheduler.workers.values())}


def _fit(source, path):
    from daskdml.linear_model import LogisticRegression

    X, y = _read(source, Path(path))
    start = time.perf_counter()
    model = LogisticRegression().fit(X, y)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "gap": model.fit_report_.gap, "report": str(model.fit_report_)}


def _read(source, path):
    if source == "Parquet":
        import dask.dataframe as dd

        table = dd.read_parquet(path)
        return table.drop(columns="y"), table["y"]
    import dask.array as da

    return da.from_npy_stack(path / "X"), da.from_npy_stack(path / "y")


def _write_npy(path, spec):
    """Write what `dask.array.from_npy_stack` reads, file by file."""
    import pickle

    import numpy as np

    lengths = []
    for name in ("X", "y"):
        (path / name).mkdir(parents=True)
    for i, (X, y) in enumerate(_files(spec)):
        np.save(path / "X" / f"{i}.npy", X)
        np.save(path / "y" / f"{i}.npy", y)
        lengths.append(len(y))
    for name, chunks, dtype in (
        ("X", (tuple(lengths), (spec.features,)), X.dtype),
        ("y", (tuple(lengths),), y.dtype),
    ):
        (path / name / "info").write_bytes(pickle.dumps({"chunks": chunks, "dtype": dtype, "axis": 0}))


def _write_parquet(path, spec):
    import pandas as pd

    path.mkdir(parents=True)
    for i, (X, y) in enumerate(_files(spec)):
        table = pd.DataFrame(X, columns=[f"x{j}" for j in range(spec.features)])
        table["y"] = y
        table.to_parquet(path / f"part-{i:05d}.parquet", compression=None)


def _files(spec):
    """Yield (X, y) of each file; a slab of the generator is a file."""
    assert spec.slab_rows == FILE_ROWS or spec.features > FEATURES
    for i in range(spec.n_slabs):
        yield make_slab(spec, i)
