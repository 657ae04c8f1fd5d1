"""Time to a test score on simulated workers, of which some are slow now and then."""

import warnings

import numpy as np

from benchmarks.estimators.networks import HIDDEN, make_rows
from benchmarks.report import Sheet
from benchmarks.timing import ratios
from daskdml.strategies import AllReduce, LocalSGD

RANKS, BATCH, RATE, EPOCHS = 8, 2048, 0.1, 6
# Below all-reduce's best score: what is to be reached. From about the fifth epoch on rows are learnt by heart.
SLACK = 0.002
HICCUPS = 0.05, 10.0  # share of the batches of a worker that take longer, and how many times
# Seconds of an empty message and bytes a second: through Dask's own connections, and 10 Gb/s.
NETWORKS = {"0.2 to 1 ms, 300 MB/s": ((2e-4, 1e-3), 3e8), "0.05 to 0.1 ms, 1.25 GB/s": ((5e-5, 1e-4), 1.25e9)}
MEAN_SLOWNESS = 1.1  # of simulated workers, drawn from 1 to 1.2 times what they are given for each batch
STRATEGIES = {
    "all-reduce": AllReduce(), "local steps, 8": LocalSGD(8), "two groups, 8": LocalSGD(8, groups=2),
    "local steps, 8, gossip": LocalSGD(8, mixing="gossip"),
}  # fmt: skip


def stragglers(rows=None, full=False):
    """Virtual seconds to the same test score where 5 % of the batches of a worker take ten times as long.

    The score is that of 10,000 test rows after each epoch, 0.2 points below the best of all-reduce with the same seed.
    What a row takes is measured here, what a message takes is made up: two networks.

    Parameters
    ----------
    rows : int, optional
        Instead of 60,000.
    full : bool, default False
        Three seeds instead of one.

    Returns
    -------
    Sheet
    """
    sheet, n = Sheet("stragglers", rows is None and full), rows or (60_000 if full else 16_384)
    data = make_rows(n)
    row_seconds = seconds_per_row(data, BATCH)
    work = f"{n:,} x 784, 784-{HIDDEN}-10, batches of {BATCH:,}, {RANKS} simulated workers"
    sheet.add(work, "measured, 1 thread", "microseconds a row", 1e6 * row_seconds)
    for network, link in NETWORKS.items():
        quiet = {}
        for has_hiccups in (False, True):
            hiccups = HICCUPS if has_hiccups else (0.0, 1.0)
            where = f"{work}, {network}, {'5 % of batches 10x slow' if has_hiccups else 'none slow'}"
            found = _times(data, row_seconds, link, hiccups, 3 if full else 1)
            _show(sheet, where, found, quiet)
            quiet = {name: [times for times, *_ in values] for name, values in found.items()}
    return sheet


def _show(sheet, where, found, quiet):
    """Add the rows of one network, with or without stragglers; ``quiet`` has the seconds without, if any."""
    theirs = [seconds for seconds, *_ in found["all-reduce"]]
    for name, values in found.items():
        times, scores, epochs = (list(part) for part in zip(*values))
        quality = "best accuracy", float(np.mean(scores))
        sheet.add(where, name, "virtual seconds to all-reduce's score", times, quality=quality)
        sheet.add(where, name, "virtual seconds of an epoch", epochs)
        sheet.add(where, name, "times faster than all-reduce", ratios(theirs, times))
        if quiet:
            more = [slow - without for slow, without in zip(times, quiet[name])]
            sheet.add(where, name, "virtual seconds more than without slow batches", more)


def _times(data, row_seconds, link, hiccups, n_seeds):
    """Return for each strategy and seed the seconds to the score, the best score, and the seconds of an epoch."""
    found = {name: [] for name in STRATEGIES}
    for seed in range(n_seeds):
        runs = {name: _curve(data, seed, strategy, row_seconds, link, hiccups) for name, strategy in STRATEGIES.items()}
        target = max(runs["all-reduce"][1]) - SLACK
        for name, (seconds, scores) in runs.items():
            found[name].append((first(seconds, scores, target), max(scores), seconds[-1] / EPOCHS))
    return found


def first(seconds, scores, target):
    """Return when the target was reached; infinity if it was not."""
    reached = np.flatnonzero(np.array(scores) >= target)
    return float(seconds[reached[0]]) if len(reached) else float("inf")


def _curve(data, seed, strategy, row_seconds, link, hiccups):
    """Return virtual seconds and test scores after each epoch."""
    from daskdml.neural_network import MLPClassifier
    from daskdml.testing import SimulatedCluster

    X, y, X_test, y_test, _ = data
    model = MLPClassifier(
        (HIDDEN,), solver="sgd", learning_rate_init=RATE, warm_up=1.0, batch_size=BATCH, max_iter=EPOCHS, tol=0.0,
        n_iter_no_change=EPOCHS + 1, random_state=seed, strategy=strategy,
    )  # fmt: skip
    cluster = SimulatedCluster(
        RANKS, latency=link[0], bandwidth=link[1], seconds_per_row=row_seconds / MEAN_SLOWNESS, hiccups=hiccups,
        seed=seed, rows_per_block=max(len(X) // (4 * RANKS), 1),
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        cluster.fit(model, X, y, X_val=X_test, y_val=y_test)
    return [record.seconds for record in model.fit_report_.records], model.validation_scores_


def seconds_per_row(data, batch, n_fits=3, n_epochs=5):
    """Return the seconds of a row in a fit of this process, on one thread, in its fastest epoch.

    Parameters
    ----------
    data : tuple
        What `make_rows` returned.
    batch, n_fits, n_epochs : int

    Returns
    -------
    float
        The fastest, for others may share the cores; the first epoch of each fit is left out.
    """
    from daskdml import config_context
    from daskdml.neural_network import MLPClassifier

    X, y, *_ = data
    found = []
    for _ in range(n_fits):
        with config_context(n_threads=1), warnings.catch_warnings(action="ignore"):
            model = MLPClassifier((HIDDEN,), solver="sgd", batch_size=batch, max_iter=n_epochs, random_state=0)
            records = model.fit(X, y).fit_report_.records
        found += np.diff([record.seconds_compute for record in records]).tolist()
    return min(found) / len(X)
