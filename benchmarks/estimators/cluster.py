"""The same fit on a LocalCluster of two processes and on two threads of this process."""

import logging

from benchmarks.data import Rows, make_lazy
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, threads, timed

ROWS, FEATURES = 2_000_000, 50
MOST_FACTOR, MOST_EXTRA = 1.5, 0.5


def run(rows=None, full=False):
    """At most 1.5x plus half a second, on persisted rows.

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
    from distributed import Client, LocalCluster

    sheet = Sheet("cluster", at_size=rows is None)
    X, y = make_lazy(Rows(rows or ROWS, FEATURES))
    here = [part.persist(scheduler="threads") for part in (X, y)]
    work = f"logistic {X.shape[0]:,} x {FEATURES} float32, persisted"
    local, remote = [], []
    with (
        threads(THREADS),
        # Workers that lose the scheduler at the end would say so.
        LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        there = client.persist([X, y])
        client.gather(client.map(len, client.futures_of(there)))  # wait for them
        first_here, _ = timed(lambda: _fit(*here))
        with client.as_current():
            first_there, _ = timed(lambda: _fit(*there))
        for _ in range(9 if full else 3):
            seconds, model = timed(lambda: _fit(*here))
            local.append(seconds)
            with client.as_current():
                seconds, remote_model = timed(lambda: _fit(*there))
            remote.append(seconds)
        print(f"  {model.fit_report_}\n  {remote_model.fit_report_}", flush=True)
    difference = float(abs(model.coef_ - remote_model.coef_).max() / abs(model.coef_).max())
    quality = ("difference", difference)
    sheet.add(work, "daskdml, 2 threads in process", "seconds", local)
    sheet.add(work, "daskdml, LocalCluster of 2 processes", "seconds", remote, quality=quality)
    sheet.add(work, "daskdml, 2 threads in process, first fit", "seconds", first_here)
    sheet.add(work, "daskdml, LocalCluster of 2 processes, first fit", "seconds", first_there)
    limits = [r / (MOST_FACTOR * s + MOST_EXTRA) for r, s in zip(remote, local)]
    who = "LocalCluster against 2 threads"
    sheet.add(work, who, f"share of {MOST_FACTOR} x + {MOST_EXTRA} s", limits, must=("<=", 1.0))
    return sheet


def _fit(X, y):
    from daskdml.linear_model import LogisticRegression

    return LogisticRegression().fit(X, y)
