"""Samples a second of a network on a LocalCluster of one and of two worker processes, one thread each."""

import contextlib
import logging
import warnings

import numpy as np

from benchmarks.estimators.networks import CLASSES, FEATURES, HIDDEN, ROWS, make_rows
from benchmarks.report import Sheet
from benchmarks.timing import timed

BATCH, OTHER_BATCHES = 4096, (256, 1024)
LEAST = 1.6
CHUNKS = 12


def run(rows=None, full=False):
    """Batches of 4,096: two processes 1.6x the samples a second of one, and the same bits of all coefficients.

    Clusters take turns, each alone: an idle one beside costs time of two cores. An epoch's seconds are the difference
    of the fit report's records; the first epoch, in which rows find their places, is left out.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Nine rounds of eight epochs, and five with smaller batches too; else two rounds of three.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("networks_cluster", at_size=rows is None)
    X, y, *_ = make_rows(rows or ROWS, n_test=1)
    n_epochs, n_rounds = (8, 9) if full else (3, 2)
    found = {batch: {1: [], 2: []} for batch in ((BATCH, *OTHER_BATCHES) if full else (BATCH,))}
    for i in range(n_rounds):
        for n in (1, 2) if i % 2 == 0 else (2, 1):
            with cluster_of(n, X, y) as (client, parts):
                _fit(client, parts, BATCH, 1)  # imports, kernels, connections
                if i == 0:
                    print(f"  {n} workers, BLAS threads of each: {sorted(client.run(_blas_threads).values())}")
                for batch, of_batch in found.items():
                    if batch == BATCH or i < 5:
                        of_batch[n].append(timed(lambda batch=batch: _fit(client, parts, batch, n_epochs)))
    for batch, of_batch in found.items():
        _compare(sheet, len(X), batch, n_epochs, of_batch)
    return sheet


def _compare(sheet, n_rows, batch, n_epochs, found):
    """Add the rows of one size of batches; ``found`` has seconds and models of the fits of each number of processes."""
    work, rates = f"{FEATURES}-{HIDDEN}(relu)-{CLASSES}, Adam, {n_rows:,} rows float32, batches of {batch:,}", {}
    for n, fits in found.items():
        whole, models = zip(*fits)
        rates[n] = [n_rows / np.median(seconds_of_epochs(model)) for model in models]
        first = models[-1].fit_report_.records[0].seconds
        note = f"each of {len(fits)} fits the median of {n_epochs - 1} epochs; the first one of the last {first:.2f} s"
        who = f"daskdml, {n} process{'es' * (n > 1)}"
        sheet.add(work, who, "samples a second", rates[n], quality=("loss", models[-1].loss_), note=note)
        note = f"{n_epochs} epochs, all that the caller waits"
        sheet.add(work, who, "seconds of a whole fit", list(whole), note=note)
    pairs = [b / a for a, b in zip(rates[1], rates[2])]
    must = (">=", LEAST) if batch == BATCH else None
    sheet.add(work, "daskdml, 2 processes against 1", "times the samples a second", pairs, must=must)
    (_, one), (_, two) = found[1][-1], found[2][-1]
    sheet.add(work, "daskdml, 2 processes against 1", "coefficients of other bits", different_bits(one, two),
              must=("==", 0))  # fmt: skip


def seconds_of_epochs(model):
    """Return the seconds of each epoch of a fit but the first."""
    return np.diff([record.seconds for record in model.fit_report_.records]).tolist()


def different_bits(model, other):
    """Return how many coefficients and intercepts of two networks do not have the same bits."""
    pairs = zip((*model.coefs_, *model.intercepts_), (*other.coefs_, *other.intercepts_))
    return int(sum(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)) for a, b in pairs))


@contextlib.contextmanager
def cluster_of(n_workers, X, y):
    """Start workers of one thread that hold the rows; yield the client and both collections."""
    import dask.array as da
    from distributed import Client, LocalCluster

    with (
        warnings.catch_warnings(action="ignore"),  # of other dashboards, and of rows that travel in a graph
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL,
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        with client.as_current():
            chunk = -(-len(X) // CHUNKS)
            parts = [client.persist(da.from_array(part, chunks=(chunk, *part.shape[1:]))) for part in (X, y)]
            client.gather(client.map(len, client.futures_of(parts)))  # wait for them
        yield client, parts


def _blas_threads():
    from threadpoolctl import threadpool_info

    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]


def _fit(client, parts, batch, n_epochs):
    from daskdml import config_context
    from daskdml.neural_network import MLPClassifier

    model = MLPClassifier((HIDDEN,), batch_size=batch, max_iter=n_epochs, random_state=0, tol=0.0,
                          n_iter_no_change=n_epochs + 1)  # fmt: skip
    # As many epochs as asked for are no convergence.
    with client.as_current(), config_context(runtime="spmd"), warnings.catch_warnings(action="ignore"):
        return model.fit(*parts)
