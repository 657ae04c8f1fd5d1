"""What staleness is worth on a parameter server whose workers are slow now and then, and what one that always is."""

import warnings

import numpy as np

from benchmarks.engine.network_strategies import HICCUPS, MEAN_SLOWNESS, first, seconds_per_row
from benchmarks.report import Sheet
from benchmarks.timing import ratios
from daskdml.strategies import ASP, BSP, SSP, AllReduce, ParameterServer

# So many batches that a meeting at the end of an epoch is a small part of it, and each as long as several messages.
ROWS, FEATURES, HIDDEN, CLASSES, NOISE = 983_040, 64, 128, 10, 1.0
RANKS, BATCH, EPOCHS = 8, 2048, 3
# Of momentum and rate: steps as long in the end. What is stale moves on by itself, and momentum comes on top of that:
# I. Mitliagkas et al., "Asynchrony begets momentum", 2016.
WITHOUT, WITH = (0.0, 0.5), (0.9, 0.05)
SHARDS = RANKS  # one for each worker
LINK = (5e-5, 1e-4), 1.25e9  # seconds of an empty message, least and most, and bytes a second: 10 Gb/s
SLACK = 0.002  # below BSP's best score: what is to be reached
SLOW = {3: 4.0}
BEHIND = -0.5  # points of the best score that may be lost
SERVER = {"shards": SHARDS, "moves_rows": False}
NOW_AND_THEN = {
    "BSP": ParameterServer(consistency=BSP(), **SERVER),
    "SSP(3)": ParameterServer(consistency=SSP(3), **SERVER),
    "SSP(10)": ParameterServer(consistency=SSP(10), **SERVER),
    "SSP(3), 4 groups": ParameterServer(consistency=SSP(3), groups=4, **SERVER),
    "ASP": ParameterServer(consistency=ASP(), **SERVER),
    "ASP, reads_ahead=False": ParameterServer(consistency=ASP(), reads_ahead=False, **SERVER),
    "all-reduce": AllReduce(),
}
ALWAYS = {
    **{name: NOW_AND_THEN[name] for name in ("BSP", "SSP(3)", "ASP")},
    "BSP, rows move": ParameterServer(consistency=BSP(), shards=SHARDS),
    "SSP(3), rows move": ParameterServer(consistency=SSP(3), shards=SHARDS),
}
MOST = {"SSP(3)": 0.65, "ASP": 0.4}
RECOVERED = 0.7


def staleness(rows, full):
    """Virtual seconds of an epoch, and to BSP's test score; what rows that move give back of a slow worker's time.

    Simulated: what a row takes is measured here, what a message takes is made up, and servers answer at once.

    Parameters
    ----------
    rows : int, optional
        Instead of 983,040.
    full : bool, default False
        Three seeds instead of one.

    Returns
    -------
    Sheet
    """
    sheet, n = Sheet("staleness", rows is None and full), rows or (ROWS if full else ROWS // 4)
    data, seeds = make_rows(n), range(3 if full else 1)
    row_seconds = seconds_per_row(data, BATCH)
    work = f"{n:,} x {FEATURES}, {FEATURES}-{HIDDEN}-{CLASSES}, batches of {BATCH:,}, {RANKS} simulated workers"
    sheet.add(work, "measured, 1 thread", "microseconds a row", 1e6 * row_seconds)
    where = f"{work}, 5 % of batches 10x slow"
    found = {name: [_curve(data, seed, one, row_seconds, hiccups=HICCUPS) for seed in seeds]
             for name, one in NOW_AND_THEN.items()}  # fmt: skip
    found["ASP, momentum 0.9"] = [
        _curve(data, seed, NOW_AND_THEN["ASP"], row_seconds, WITH, hiccups=HICCUPS) for seed in seeds
    ]
    _show(sheet, where, found, MOST)
    where = f"{work}, one worker 4x slow"
    found = {name: [_curve(data, seed, one, row_seconds, stragglers=SLOW) for seed in seeds]
             for name, one in ALWAYS.items()}  # fmt: skip
    _show(sheet, where, found, {})
    even = {name: [_curve(data, seed, ALWAYS[name], row_seconds) for seed in seeds] for name in ("BSP", "SSP(3)")}
    for name, quick in even.items():
        lost = zip(found[name], found[f"{name}, rows move"], quick)
        shares = [(_epoch(slow) - _epoch(moved)) / (_epoch(slow) - _epoch(fast)) for slow, moved, fast in lost]
        sheet.add(where, f"{name}, rows move", "share of the lost time that comes back", shares, must=(">=", RECOVERED),
                  note="of epochs but the first, which is measured: rows move after it")  # fmt: skip
    return sheet


def make_rows(n, n_test=20_000, seed=0):
    """Return X, y, X_test and y_test: the largest of ten outputs of a network of random weights, with noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + n_test, FEATURES)).astype(np.float32)
    first, second = rng.normal(size=(FEATURES, 32)) / 8, rng.normal(size=(32, CLASSES)) / 4
    raw = np.maximum(X @ first.astype(np.float32), 0) @ second.astype(np.float32)
    y = np.argmax(raw + NOISE * raw.std() * rng.gumbel(size=raw.shape) / 4, axis=1)
    return X[:n], y[:n], X[n:], y[n:]


def _show(sheet, where, found, most):
    """Add the rows of one kind of straggler; ``most`` has shares of BSP's time that may be taken."""
    best = [max(scores) for _, scores, _ in found["BSP"]]
    for name, runs in found.items():
        epochs, theirs = [_epoch(run) for run in runs], [_epoch(run) for run in found["BSP"]]
        apart = [100 * (max(scores) - of_bsp) for (_, scores, _), of_bsp in zip(runs, best)]
        reached = [first(seconds, scores, of_bsp - SLACK) for (seconds, scores, _), of_bsp in zip(runs, best)]
        lags = [lag for *_, lag in runs]
        note = f"updates between a read and its push: {np.mean(lags):.3g} in the mean" if max(lags) else ""
        sheet.add(where, name, "virtual seconds of an epoch", epochs, note=note)
        sheet.add(where, name, "virtual seconds to BSP's score", reached)
        must = ("<=", most[name]) if name in most else None
        sheet.add(where, name, "times BSP's seconds of an epoch", ratios(epochs, theirs), must=must)
        must = (">=", BEHIND) if name != "BSP" and "momentum" not in name else None
        sheet.add(where, name, "points beyond BSP's best score", apart, must=must)


def _epoch(run):
    """Return the seconds of an epoch but the first."""
    return float(np.mean(np.diff(run[0])))


def _curve(data, seed, strategy, row_seconds, steps=WITHOUT, **cluster):
    """Return virtual seconds and test scores after each epoch, and the mean staleness."""
    from daskdml.neural_network import MLPClassifier
    from daskdml.testing import SimulatedCluster

    X, y, X_test, y_test = data
    model = MLPClassifier(
        (HIDDEN,), solver="sgd", momentum=steps[0], learning_rate_init=steps[1], warm_up=1.0, batch_size=BATCH,
        max_iter=EPOCHS, tol=0.0, n_iter_no_change=EPOCHS + 1, random_state=seed, strategy=strategy,
    )  # fmt: skip
    simulated = SimulatedCluster(
        RANKS, latency=LINK[0], bandwidth=LINK[1], seconds_per_row=row_seconds / MEAN_SLOWNESS, seed=seed,
        rows_per_block=max(len(X) // (4 * RANKS), 1), **cluster,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        simulated.fit(model, X, y, X_val=X_test, y_val=y_test)
    lags = model.fit_report_.histograms.get("staleness", {0: 1})
    mean = sum(lag * n for lag, n in lags.items()) / sum(lags.values())
    print(f"  {strategy}, {cluster}, seed {seed}: {model.validation_scores_[-1]:.4f}", flush=True)
    return [record.seconds for record in model.fit_report_.records], model.validation_scores_, mean
