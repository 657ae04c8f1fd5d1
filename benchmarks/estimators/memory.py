"""Memory that a fit takes beside X and y: the peak of RssAnon in a process of its own."""

import os

import numpy as np

from benchmarks import child
from benchmarks.data import Rows, make_table
from benchmarks.machine import MemoryWatch, memory_of
from benchmarks.report import Sheet

FEATURES = 50
X_BYTES = 1_000_000_000
MOST_SHARE = 0.15
WARM_UP_ROWS = 25_000


def run(rows=None, full=False):
    """At most 15% of X beside X and y, for X of 1 GB in either precision.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("memory", at_size=rows is None)
    for dtype in ("float32", "float64"):
        n = rows or X_BYTES // (FEATURES * np.dtype(dtype).itemsize)
        for estimator in ("LogisticRegression", "Ridge"):
            found = [
                child.call("benchmarks.estimators.memory:measure", rows=n, dtype=dtype, estimator=estimator)
                for _ in range(3 if full else 1)
            ]
            work = f"{estimator} {n:,} x {FEATURES} {dtype}"
            megabytes = [f["beside"] / 1e6 for f in found]
            sheet.add(work, "daskdml", "MB beside X and y", megabytes, note=f"X {found[0]['X'] / 1e6:,.0f} MB")
            shares = [f["beside"] / f["X"] for f in found]
            sheet.add(work, "daskdml", "share of X", shares, must=("<=", MOST_SHARE))
    return sheet


def measure(rows, dtype, estimator):
    """Fit once and report by how much RssAnon rose above what it was with X and y in memory; runs in a child process.

    Parameters
    ----------
    rows : int
    dtype : str
    estimator : str

    Returns
    -------
    dict with bytes of "X" and "beside"
    """
    from daskdml import linear_model

    spec = Rows(rows, FEATURES, "binary" if estimator == "LogisticRegression" else "regression")
    X, y = make_table(spec, dtype)
    model = getattr(linear_model, estimator)()
    # Of a copy: nothing that the fit may keep about these rows serves the next one.
    model.fit(X[:WARM_UP_ROWS].copy(), y[:WARM_UP_ROWS].copy())
    before = memory_of()["RssAnon"]
    with MemoryWatch() as watch:
        model.fit(X, y)
    return {"X": X.nbytes, "beside": watch.peak[os.getpid()]["RssAnon"] - before}
