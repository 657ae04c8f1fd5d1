"""Sparse logistic regression of very many features with a parameter server on two processes, beside scikit-learn."""

import logging
import statistics
import warnings

import numpy as np
from scipy import sparse

from benchmarks.report import Sheet
from benchmarks.timing import timed

ROWS, TEST_ROWS, FEATURES, STORED = 1_000_000, 50_000, 10_000_000, 40
MOST_TIMES, MOST_BYTES = 3.0, 1.5
KEY_BYTES = 8  # of the 64-bit number that names a row of the model
CHUNKS, ALPHA = 16, 1e-6
LAWS = {"Zipf(1.1)": 1.1, "all alike": None}


def run(rows=None, full=False):
    """One epoch at most 3x the seconds of scikit-learn's, log loss no worse, bytes 1.5x the rows that were touched.

    Fits take turns with scikit-learn's, which holds the whole model and all rows in its process, and each is the first
    of a round as often; the first fit of each cluster, which loads kernels, is left out. The size of a row that is
    touched is its coefficient and the 64-bit number that names it, once for each batch that reads and pushes it; bytes
    are those of both processes, copies of the shards among them.

    Parameters
    ----------
    rows : int, optional
        Instead of 1,000,000.
    full : bool, default False
        Six rounds instead of three, and features that are all as frequent too.

    Returns
    -------
    Sheet
    """
    sheet, n = Sheet("sparse_server", at_size=rows is None), rows or ROWS
    for law in LAWS if full else list(LAWS)[:1]:
        _compare(sheet, law, n, 6 if full else 3)
    return sheet


def make_rows(n, law, seed=0):
    """Return rows whose features have a law of frequency, and classes that are drawn by their margins.

    Parameters
    ----------
    n : int
    law : float or None
        Exponent of Zipf's law; None for features that are all as frequent.
    seed : int, default 0
    """
    rng = np.random.default_rng(seed)
    u = rng.random(n * STORED)
    if law is None:
        ranks = (u * FEATURES).astype(np.int64)
    else:
        ranks = np.minimum((FEATURES ** (1 - law) * u + 1 - u) ** (1 / (1 - law)), FEATURES).astype(np.int64) - 1
    columns = (ranks * 6_180_339_887 + 12_345) % FEATURES  # hashed: the frequent ones lie anywhere
    edges = np.arange(0, n * STORED + 1, STORED, dtype=np.int32)
    X = sparse.csr_matrix((np.full(n * STORED, STORED**-0.5), columns.astype(np.int32), edges), shape=(n, FEATURES))
    coef = 2 * rng.normal(size=FEATURES)
    return X, (rng.random(n) < 1 / (1 + np.exp(-X @ coef))).astype(int)


def _compare(sheet, law, n, n_rounds):
    import dask.array as da
    from distributed import Client, LocalCluster
    from sklearn.linear_model import SGDClassifier as Scikit
    from sklearn.metrics import log_loss

    from daskdml.linear_model import SGDClassifier
    from daskdml.strategies import SSP, ParameterServer

    X, y = make_rows(n + TEST_ROWS, LAWS[law])
    X, y, more, theirs = X[:n], y[:n], X[n:], y[n:]
    params = {"loss": "log_loss", "alpha": ALPHA, "max_iter": 1, "tol": None, "random_state": 0}
    who = {
        "scikit-learn": Scikit(**params),
        "daskdml, SSP(3)": SGDClassifier(strategy=ParameterServer(consistency=SSP(3)), **params),
        "daskdml, SSP(3), reads_ahead": SGDClassifier(
            strategy=ParameterServer(consistency=SSP(3), reads_ahead=True), **params),
    }  # fmt: skip
    found = {name: [] for name in who}
    with (
        warnings.catch_warnings(action="ignore"),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL,
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        chunk = -(-n // CHUNKS)
        rows = [client.scatter(X[first : first + chunk]) for first in range(0, n, chunk)]
        meta = sparse.csr_matrix((0, FEATURES))
        spread = da.concatenate([
            da.from_delayed(part, (min(chunk, n - k * chunk), FEATURES), meta=meta) for k, part in enumerate(rows)
        ])  # fmt: skip
        labels = client.persist(da.from_array(y, chunks=chunk))
        for i in range(-1, n_rounds):
            names = list(who)  # of which the one behind scikit-learn was 0.3 s slower, whichever it was
            for name in names[i % len(names) :] + names[: i % len(names)]:
                model = who[name]
                fitted = timed(lambda model=model, name=name: model.fit(*(
                    (X, y) if name == "scikit-learn" else (spread, labels))))  # fmt: skip
                if i >= 0:
                    loss = log_loss(theirs, model.predict_proba(more))
                    found[name].append((fitted[0], loss, getattr(model, "fit_report_", None)))
    work = f"{n:,} x {FEATURES:,}, {STORED} stored a row, features {law}, one epoch"
    seconds = {name: [one[0] for one in runs] for name, runs in found.items()}
    losses = {name: statistics.median(one[1] for one in runs) for name, runs in found.items()}
    for name, runs in found.items():
        where = "one process, the whole model" if name == "scikit-learn" else "two processes"
        sheet.add(work, name, "seconds of a fit", seconds[name], quality=("log loss", losses[name]), note=where)
        if name == "scikit-learn":
            continue
        is_asked = LAWS[law] is not None
        times = [own / other for own, other in zip(seconds[name], seconds["scikit-learn"])]
        sheet.add(work, name, "times scikit-learn's seconds", times, must=("<=", MOST_TIMES) if is_asked else None)
        worse = [one[1] - other[1] for one, other in zip(runs, found["scikit-learn"])]
        sheet.add(work, name, "log loss above scikit-learn's", worse, must=("<=", 0.0))
        shares = []
        for _, _, report in runs:
            counts = report.counts
            touched = counts["coefficients read"] * (KEY_BYTES + X.dtype.itemsize)
            shares.append((counts["bytes sent for steps"] + counts["bytes received for steps"]) / touched)
        sheet.add(work, name, "bytes of the rows touched", shares, must=("<=", MOST_BYTES))
