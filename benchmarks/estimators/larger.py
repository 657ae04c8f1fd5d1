"""Boosting rows on disk that no worker's memory holds: 50,000,000 x 28 float32 on two workers of 3 GB."""

import logging
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.estimators.boosting import FEATURES, make_rows, ours
from benchmarks.estimators.boosting_cluster import largest_peak
from benchmarks.report import Sheet
from benchmarks.timing import timed

ROWS, PART_ROWS, TREES, WORKERS, LIMIT = 50_000_000, 500_000, 20, 2, 3_000_000_000


def run(rows=None, full=False):
    """20 trees on 50,000,000 rows of 5.6 GB, read from files; the peak of a worker stays below its 3 GB.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        The same.

    Returns
    -------
    Sheet
    """
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster
    from sklearn.metrics import roc_auc_score

    sheet = Sheet("boosting_larger", at_size=rows is None)
    n_rows = rows or ROWS
    folder = Path(tempfile.mkdtemp(prefix="benchmark-rows-"))
    try:
        n_parts = -(-n_rows // PART_ROWS)
        lengths = [min(PART_ROWS, n_rows - k * PART_ROWS) for k in range(n_parts)]
        seconds, _ = timed(lambda: [_write(folder, k, n) for k, n in enumerate(lengths)])
        n_bytes = sum(path.stat().st_size for path in folder.glob("X*.npy"))
        where = f"{WORKERS} workers of {LIMIT / 1e9:g} GB"
        work = f"boosting {n_rows:,} x {FEATURES} float32 on disk, {TREES} trees, {where}"
        sheet.add(work, "daskdml", "bytes of X on disk", n_bytes, note=f"written in {seconds:.0f} s")
        X, y = (
            da.concatenate([
                da.from_delayed(dask.delayed(np.load)(folder / f"{name}{k}.npy"), (n, *shape), dtype)
                for k, n in enumerate(lengths)
            ])
            for name, shape, dtype in (("X", (FEATURES,), np.float32), ("y", (), np.float32))
        )  # fmt: skip
        with (
            LocalCluster(
                WORKERS, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=None,
                silence_logs=logging.CRITICAL, local_directory=str(folder),
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            fitted = []
            start = time.perf_counter()
            peak = largest_peak(client, lambda: fitted.append(ours(1, trees=TREES).fit(X, y)))
            sheet.add(work, "daskdml", "seconds", time.perf_counter() - start, note=str(fitted[0].fit_report_))
            sheet.add(work, "daskdml", "bytes of the largest worker at its peak", peak, must=("<=", LIMIT))
            print(f"  {fitted[0].fit_report_.phases}", flush=True)
        _, _, X_test, y_test = make_rows(1, FEATURES, seed=1)
        sheet.add(work, "daskdml", "AUC on 200,000 rows", roc_auc_score(y_test, fitted[0].decision_function(X_test)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sheet


def _write(folder, k, n):
    X, y, *_ = make_rows(n, FEATURES, seed=k + 2, n_test=1)
    np.save(folder / f"X{k}.npy", X)
    np.save(folder / f"y{k}.npy", y)
