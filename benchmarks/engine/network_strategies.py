"""Time to a test score on simulated workers: of which some are slow now and then, and of which there are many."""

import warnings

import numpy as np

from benchmarks.estimators.networks import HIDDEN, make_rows
from benchmarks.report import Sheet
from daskdml.strategies import AllReduce, LocalSGD

RANKS, BATCH, RATE = 8, 2048, 0.1
HICCUPS = 0.05, 10.0  # share of the batches of a worker that take longer, and how many times
LATENCY, BANDWIDTH = (2e-4, 1e-3), 3e8
SIZES = (1, 2, 4, 8, 16, 64, 256)
STRATEGIES = {
    "all-reduce": AllReduce(), "local steps, 8": LocalSGD(8), "two groups, 8": LocalSGD(8, groups=2),
    "local steps, 8, gossip": LocalSGD(8, mixing="gossip"),
}  # fmt: skip


def stragglers(rows=None, full=False):
    """Virtual seconds to the same test score where 5 % of the batches of a worker take ten times as long.

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
    data = make_rows(n, n_test=5_000)
    row_seconds, n_epochs = _seconds_per_row(data), 12
    work = f"{n:,} x 784, 784-{HIDDEN}-10, batches of {BATCH}, {RANKS} simulated workers"
    for has_hiccups in (False, True):
        hiccups = HICCUPS if has_hiccups else (0.0, 1.0)
        where = f"{work}, {'5 % of batches 10x slow' if has_hiccups else 'none slow'}"
        found = {name: [] for name in STRATEGIES}
        for seed in range(3 if full else 1):
            runs = {
                name: _curve(data, RANKS, BATCH, RATE, n_epochs, row_seconds, seed, strategy, hiccups)
                for name, strategy in STRATEGIES.items()
            }
            target = runs["all-reduce"][1][-1] - 0.002
            for name, (seconds, scores, _) in runs.items():
                found[name].append((_first(seconds, scores, target), scores[-1]))
        for name, values in found.items():
            times = [seconds for seconds, _ in values]
            quality = "accuracy at the end", float(np.mean([score for _, score in values]))
            sheet.add(where, name, "virtual seconds to all-reduce's score", times, quality=quality)
            pairs = [a / b for (a, _), (b, _) in zip(found["all-reduce"], values)]
            sheet.add(where, name, "times faster than all-reduce", pairs)
    return sheet


def scaling(rows=None, full=False):
    """Virtual seconds to the same test score on 1 to 256 workers: larger batches, without and with a larger rate.

    Parameters
    ----------
    rows : int, optional
        Instead of 60,000.
    full : bool, default False
        Up to 256 workers instead of 8.

    Returns
    -------
    Sheet
    """
    sheet, n = Sheet("networks_scaling", rows is None and full), rows or (60_000 if full else 16_384)
    data = make_rows(n, n_test=5_000)
    row_seconds, n_epochs = _seconds_per_row(data), 12
    work = f"{n:,} x 784, 784-{HIDDEN}-10, sgd, simulated workers"
    ways = {
        "batches of 256": (256, 0.02), "batches of 4,096, the same rate": (4096, 0.02),
        "batches of 4,096, 16 times the rate": (4096, 0.32), "batches of 16,384, 64 times the rate": (16384, 1.28),
    }  # fmt: skip
    target = None
    for name, (batch, rate) in ways.items():
        for size in SIZES if full else SIZES[:4]:
            if batch == 256 and size > 8:
                continue  # one micro-batch: more workers only wait
            seconds, scores, gap = _curve(data, size, min(batch, n), rate, n_epochs, row_seconds, 0, AllReduce())
            target = scores[-1] - 0.002 if target is None else target
            sheet.add(
                work, f"{name}, {size} worker{'s' * (size > 1)}", "virtual seconds to the score of batches of 256",
                _first(seconds, scores, target), quality=("accuracy at the end", scores[-1]),
                note=f"train-test gap {gap:.4f}; an epoch {np.diff(seconds).mean():.3g} s",
            )  # fmt: skip
    return sheet


def _first(seconds, scores, target):
    """Return when the target was reached; infinity if it was not."""
    reached = np.flatnonzero(np.array(scores) >= target)
    return float(seconds[reached[0]]) if len(reached) else float("inf")


def _curve(data, n_ranks, batch, rate, n_epochs, row_seconds, seed, strategy, hiccups=(0.0, 1.0)):
    """Return virtual seconds and test scores after each epoch, and by how much the training rows score better."""
    from daskdml.neural_network import MLPClassifier
    from daskdml.testing import SimulatedCluster

    X, y, X_test, y_test, _ = data
    model = MLPClassifier(
        (HIDDEN,), solver="sgd", learning_rate_init=rate, warm_up=1.0, batch_size=batch, max_iter=n_epochs, tol=0.0,
        n_iter_no_change=n_epochs + 1, random_state=seed, strategy=strategy,
    )  # fmt: skip
    cluster = SimulatedCluster(
        n_ranks, latency=LATENCY, bandwidth=BANDWIDTH, seconds_per_row=row_seconds, hiccups=hiccups, seed=seed,
        rows_per_block=max(len(X) // (4 * n_ranks), 1),
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        cluster.fit(model, X, y, X_val=X_test, y_val=y_test)
    seconds = [record.seconds for record in model.fit_report_.records]
    return seconds, model.validation_scores_, model.score(X[:5000], y[:5000]) - model.validation_scores_[-1]


def _seconds_per_row(data):
    """Return what a row takes in a real fit of this process, on one thread."""
    from daskdml import config_context
    from daskdml.neural_network import MLPClassifier

    X, y, *_ = data
    with config_context(n_threads=1), warnings.catch_warnings(action="ignore"):
        model = MLPClassifier((HIDDEN,), solver="sgd", batch_size=256, max_iter=2, random_state=0).fit(X, y)
    return model.fit_report_.phases["compute"] / 2 / len(X)
