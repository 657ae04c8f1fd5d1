"""A network of a hundred million coefficients that no process holds: memory of workers and of the caller, and time."""

import os
import threading
import time
import warnings

import numpy as np

from benchmarks.estimators.networks_cluster import cluster_of
from benchmarks.report import Sheet

FEATURES, HIDDEN, CLASSES, ROWS, BATCH = 4000, 25_000, 3, 2000, 200
WORKERS, SIMULATED = (2, 4), 4
COPIES = 4  # of each coefficient in a training with Adam: itself, two moments, its gradient
LOOK_SECONDS = 0.02


def run(rows=None, full=False):
    """Each worker takes less than its share of coefficients, moments and gradient beside activations, the caller too.

    4,000-25,000(relu)-3, Adam, strategy=ModelParallel(), on two and on four worker processes; the same bits there and
    on four workers in virtual time. Memory is what processes took beyond what they had before the fit (RssAnon, looked
    at every 20 ms), activations and rows included.

    Parameters
    ----------
    rows : int, optional
        Neurons, instead of 25,000.
    full : bool, default False
        Two epochs instead of one, and four processes too.

    Returns
    -------
    Sheet
    """
    hidden, n_epochs = rows or HIDDEN, 2 if full else 1
    sheet = Sheet("networks_sharded", at_size=rows is None)
    random = np.random.default_rng(0)
    X = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
    n = FEATURES * hidden + hidden + hidden * CLASSES + CLASSES
    models = {}
    for size in WORKERS if full else WORKERS[:1]:
        work = f"{FEATURES:,}-{hidden:,}(relu)-{CLASSES}, {n / 1e6:.0f} million, Adam, {size} processes"
        with cluster_of(size, X, y) as (client, parts):
            models[size], taken, seconds = _watched(client, parts, hidden, n_epochs)
        share = COPIES * 4 * n / size
        report = models[size].fit_report_
        note = f"{n_epochs} epochs of {ROWS // BATCH} batches of {BATCH} rows; of a rank: {_words(report.phases)}"
        sheet.add(work, "daskdml", "seconds of a fit", seconds, quality=("loss", models[size].loss_), note=note)
        sheet.add(work, "daskdml", "seconds of an epoch", _seconds_of_epochs(report))
        worst, beside = max(taken["workers"]), 4 * (2 * BATCH * hidden / size + ROWS * FEATURES)
        note = f"{worst / 1e6:.0f} MB, the worker that took most; a share is {share / 1e6:.0f} MB"
        sheet.add(work, "a worker", "of its share of memory", worst / share, note=note)
        note = f"{beside / 1e6:.0f} MB: what its neurons give for a batch, slopes of that, and rows of some batches"
        of_both = worst / (share + beside)
        sheet.add(work, "a worker", "of its share and activations", of_both, must=("<=", 1.0), note=note)
        sheet.add(work, "the caller", "of a worker's share of memory", taken["caller"] / share, must=("<=", 1.0),
                  note=f"{taken['caller'] / 1e6:.0f} MB")  # fmt: skip
    models["in virtual time"] = _simulated(X, y, hidden, n_epochs)
    first, *others = models.values()
    work = f"{FEATURES:,}-{hidden:,}(relu)-{CLASSES}, on {', '.join(map(str, models))} workers"
    sheet.add(work, "daskdml", "coefficients of other bits", sum(_different_bits(first, other) for other in others),
              must=("==", 0), note=f"{SIMULATED} workers in virtual time")  # fmt: skip
    return sheet


def _make(hidden, n_epochs):
    from daskdml.neural_network import MLPClassifier
    from daskdml.strategies import ModelParallel

    return MLPClassifier((hidden,), batch_size=BATCH, max_iter=n_epochs, tol=0.0, n_iter_no_change=n_epochs + 1,
                         strategy=ModelParallel())  # fmt: skip


def _watched(client, parts, hidden, n_epochs):
    """Return the model, the bytes that processes took beyond what they had, and the seconds."""
    from daskdml import config_context

    pids = {"caller": [os.getpid()], "workers": list(client.run(os.getpid).values())}
    with client.as_current(), config_context(runtime="spmd"), warnings.catch_warnings(action="ignore"):
        _make(64, 1).fit(*parts)  # imports, kernels, connections
        before = {who: [_bytes_of(pid) for pid in some] for who, some in pids.items()}
        most, is_over = {who: list(some) for who, some in before.items()}, threading.Event()

        def look():
            while not is_over.wait(LOOK_SECONDS):
                for who, some in pids.items():
                    most[who] = [max(known, _bytes_of(pid)) for known, pid in zip(most[who], some)]

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        started = time.perf_counter()
        model = _make(hidden, n_epochs).fit(*parts)
        seconds = time.perf_counter() - started
        is_over.set()
        watcher.join()
    taken = {who: [b - a for a, b in zip(before[who], most[who])] for who in pids}
    return model, {"workers": taken["workers"], "caller": taken["caller"][0]}, seconds


def _bytes_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def _simulated(X, y, hidden, n_epochs):
    from daskdml.testing import SimulatedCluster

    with warnings.catch_warnings(action="ignore"):
        return SimulatedCluster(SIMULATED, rows_per_block=256).fit(_make(hidden, n_epochs), X, y)


def _different_bits(model, other):
    """Count, some rows at a time: the coefficients of each are a file."""
    count = 0
    for a, b in zip((*model.coefs_, *model.intercepts_), (*other.coefs_, *other.intercepts_)):
        for first in range(0, len(a), 1000):
            rows = slice(first, first + 1000)
            count += np.count_nonzero(a[rows].view(np.uint32) != b[rows].view(np.uint32))
    return int(count)


def _seconds_of_epochs(report):
    return np.diff([0.0, *(record.seconds for record in report.records)]).tolist()


def _words(phases):
    return ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in phases.items() if seconds > 0.05)
