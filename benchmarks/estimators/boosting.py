"""Boosting beside LightGBM, XGBoost and scikit-learn: fits in process, predictions, what kernels cost a first fit."""

import functools
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.report import Sheet
from benchmarks.timing import THREADS, microseconds, ratios, take_turns, threads, timed

ROWS, TEST_ROWS, FEATURES, TREES, LEAVES, BINS, RATE = 1_000_000, 200_000, 28, 100, 31, 255, 0.1
CLASS_ROWS, CLASS_FEATURES, CLASSES = 300_000, 20, 5
SEEDS, PAIRS = 3, 7


def make_rows(n_rows, n_features, n_classes=2, seed=0, n_test=TEST_ROWS):
    """Draw rows whose log odds are products, steps and waves of some of the features: no tree has them in one split.

    Parameters
    ----------
    n_rows, n_features, n_classes, seed, n_test : int

    Returns
    -------
    X, y, X_test, y_test : ndarrays, float32
    """
    rng = np.random.default_rng([n_rows, n_features, n_classes, seed])
    X = rng.normal(size=(n_rows + n_test, n_features)).astype(np.float32)
    raw = np.stack([_log_odds(np.roll(X, k, axis=1), np.random.default_rng(k)) for k in range(n_classes - 1)], axis=1)
    gumbel = rng.gumbel(size=(len(X), n_classes))
    gumbel[:, 1:] += raw
    y = gumbel.argmax(axis=1).astype(np.float32)
    return X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:]


def _log_odds(X, rng):
    waves, products = np.sin(2 * X[:, 0]) * X[:, 1], 0.7 * X[:, 2] * X[:, 3]
    steps = np.abs(X[:, 4]) - 0.8 + 0.5 * X[:, 5] * X[:, 6] * (X[:, 7] > 0)
    return 0.6 * X @ rng.normal(size=X.shape[1]).astype(np.float32) * 0.5 + waves + products + steps


def ours(n_threads, seed=0, trees=TREES):
    """Return our classifier with the settings of all sides."""
    from daskdml.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=LEAVES, max_bins=BINS, learning_rate=RATE, early_stopping=False,
        random_state=seed,
    )  # fmt: skip


def lightgbm(n_threads, seed=0, trees=TREES, **params):
    """Return LightGBM's."""
    import lightgbm as lgb

    return lgb.LGBMClassifier(
        n_estimators=trees, num_leaves=LEAVES, max_bin=BINS, learning_rate=RATE, min_child_samples=20,
        min_child_weight=1e-3, n_jobs=n_threads, random_state=seed, verbose=-1, **params,
    )  # fmt: skip


def lightgbm_quantised(n_threads, seed=0, trees=TREES):
    """Return LightGBM's with gradients of few bits, as it recommends."""
    return lightgbm(n_threads, seed, trees, use_quantized_grad=True, quant_train_renew_leaf=True)


def xgboost(n_threads, seed=0, trees=TREES):
    """Return XGBoost's: histograms, best leaf first."""
    import xgboost as xgb

    return xgb.XGBClassifier(
        n_estimators=trees, max_leaves=LEAVES, max_depth=0, max_bin=BINS, learning_rate=RATE, tree_method="hist",
        grow_policy="lossguide", reg_lambda=0.0, min_child_weight=1e-3, n_jobs=n_threads, random_state=seed,
    )  # fmt: skip


def scikit_learn(n_threads, seed=0, trees=TREES):
    """Return scikit-learn's, whose threads come from OpenMP."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=LEAVES, max_bins=BINS, learning_rate=RATE, early_stopping=False,
        random_state=seed,
    )  # fmt: skip


SIDES = {
    "daskdml": ours, "LightGBM": lightgbm, "LightGBM, quantised": lightgbm_quantised, "XGBoost": xgboost,
    "scikit-learn": scikit_learn,
}  # fmt: skip
EXACT = ("LightGBM", "XGBoost", "scikit-learn")


def fit(side, n_threads, X, y, seed=0):
    """Fit one side's classifier on so many threads."""
    with threads(n_threads):
        return SIDES[side](n_threads, seed).fit(X, y)


def against(sheet, work, seconds, peers, least, who="daskdml against the fastest of the peers"):
    """Add how many times faster ours is than the fastest peer, round by round."""
    fastest = min(peers, key=lambda name: statistics.median(seconds[name]))
    faster = ratios(seconds[fastest], seconds["daskdml"])
    sheet.add(work, who, "times faster", faster, must=(">=", least), note=f"the fastest: {fastest}")


def run(rows=None, full=False):
    """1.6x the fastest peer, 1.2x LightGBM's quantised mode, 1.5x one thread; AUC within the noise of the best.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        More repetitions, three seeds for the AUC.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("boosting", at_size=rows is None)
    X, y, X_test, y_test = make_rows(rows or ROWS, FEATURES)
    work = f"boosting {len(X):,} x {FEATURES} float32, {TREES} trees of {LEAVES} leaves, {THREADS} threads"
    first, model = timed(lambda: fit("daskdml", THREADS, X, y))
    sheet.add(work, "daskdml, first fit of the process", "seconds", first,
              note=f"of these {model.fit_report_.compile_seconds:.2f} s building or loading kernels")  # fmt: skip
    seconds, scores, models = _over_seeds(
        SIDES, lambda seed: (X, y, X_test, y_test) if seed == 0 else make_rows(len(X), FEATURES, seed=seed),
        SEEDS if full else 1, lambda y, proba: auc(y, proba[:, 1]),
    )  # fmt: skip
    for name in SIDES:
        quality = ("AUC", float(np.mean(scores[name])))
        sheet.add(work, name, "seconds", seconds[name], quality=quality)
        sheet.add(work, name, "AUC", scores[name], note="each of other rows")
    phases = {phase: round(took, 2) for phase, took in models["daskdml"].fit_report_.phases.items()}
    print(f"  {phases}", flush=True)
    against(sheet, work, seconds, EXACT, 1.6)
    against(sheet, work, seconds, ("LightGBM, quantised",), 1.2, "daskdml against LightGBM, quantised")
    _behind(sheet, work, scores)
    ways = {n: functools.partial(fit, "daskdml", n, X, y) for n in (THREADS, 1)}
    pairs, _ = take_turns(ways, PAIRS if full else 1)
    sheet.add(work, "daskdml, 1 thread", "seconds", pairs[1])
    faster = ratios(pairs[1], pairs[THREADS])
    sheet.add(work, "daskdml, 2 threads against 1", "times faster", faster, must=(">=", 1.5))
    _predictions(sheet, models, X_test)
    _bits(sheet, 200_000 if rows is None else rows, 10 if full else 1)
    return sheet


def _over_seeds(names, draw, n_seeds, score):
    """Fit all sides in turns, each round on other rows.

    Parameters
    ----------
    names : iterable of str
        Of `SIDES`.
    draw : callable of a seed
        Returns what `make_rows` does.
    n_seeds : int
        Rounds.
    score : callable of y and probabilities

    Returns
    -------
    seconds, scores : dict {name: list of float}
        By round.
    models : dict {name: classifier}
        Of the last round.
    """
    seconds, scores = {name: [] for name in names}, {name: [] for name in names}
    for seed in range(n_seeds):
        X, y, X_test, y_test = draw(seed)
        if seed == 0:
            for name in names:
                fit(name, THREADS, X[:20_000], y[:20_000])  # libraries that a first fit loads
        took, models = take_turns({name: functools.partial(fit, name, THREADS, X, y, seed) for name in names}, 1)
        for name in names:
            seconds[name] += took[name]
            scores[name].append(score(y_test, models[name].predict_proba(X_test)))
    return seconds, scores, models


def auc(y, score):
    """Return the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(y, score)


def _behind(sheet, work, scores):
    """The best peer's AUC beyond ours, in the mean over rows of several seeds: at most twice its standard error.

    By the differences of the same rows; what they scatter by is pooled over all peers.
    """
    best = max(EXACT, key=lambda name: np.mean(scores[name]))
    apart = {name: np.subtract(scores[name], scores["daskdml"]) for name in EXACT}
    n = len(scores[best])
    error = 2 * np.sqrt(np.mean([np.var(apart[name], ddof=1) for name in EXACT]) / n) if n > 1 else 1e-3
    error = min(error, 1e-3)
    note = f"{best}; at most twice the standard error of {n} differences"
    sheet.add(work, "best peer's AUC beyond daskdml's", "AUC", float(apart[best].mean()), must=("<=", float(error)),
              note=note)  # fmt: skip


def _predictions(sheet, models, X):
    """More rows a second than each peer, on one thread; and the microseconds of one row."""
    work = f"prediction, {TREES} trees of {LEAVES} leaves, {len(X):,} x {FEATURES} float32, 1 thread"
    calls = {name: functools.partial(_raw, name, models[name]) for name in ("daskdml", *EXACT)}
    with threads(1):
        seconds, _ = take_turns({name: functools.partial(call, X) for name, call in calls.items()}, 3)
        for name in calls:
            sheet.add(work, name, "rows a second", [len(X) / s for s in seconds[name]])
        against(sheet, work, seconds, EXACT, 1.0)
        for name, call in calls.items():
            must = ("<=", 50) if name == "daskdml" else None
            each = microseconds(functools.partial(call, X[:1]), 2000 if name == "daskdml" else 20)
            sheet.add("prediction of one row", name, "microseconds", each, must=must)


def _raw(name, model, X):
    """Return raw predictions, by the way that each side has for it."""
    if name == "LightGBM":
        return model.booster_.predict(X, raw_score=True, num_threads=1)
    if name == "XGBoost":
        model.get_booster().set_param("nthread", 1)
        return model.get_booster().inplace_predict(X, predict_type="margin")
    return model.decision_function(X)


def _bits(sheet, n_rows, n_seeds, trees=50):
    """What rounding gradients to few bits costs: the AUC by the number of bits, beside that of the same rows at 15."""
    from daskdml.trees import boosting

    kept = boosting.FEW_BITS, boosting.FEW_ROWS
    work = f"boosting {n_rows:,} rows, {trees} trees, gradients of so many bits"
    bits, found = (15, 12, 8, 5, 3), {}
    try:
        boosting.FEW_ROWS = 0
        for seed in range(n_seeds):
            X, y, X_test, y_test = make_rows(n_rows, FEATURES, seed=100 + seed)
            for boosting.FEW_BITS in bits:
                score = ours(THREADS, seed, trees).fit(X, y).decision_function(X_test)
                found.setdefault(boosting.FEW_BITS, []).append(auc(y_test, score))
            model = scikit_learn(THREADS, seed, trees).fit(X, y)
            found.setdefault("float", []).append(auc(y_test, model.decision_function(X_test)))
    finally:
        boosting.FEW_BITS, boosting.FEW_ROWS = kept
    for n in (*bits, "float"):
        apart = np.subtract(found[n], found[15])
        error = np.std(apart, ddof=1) / np.sqrt(n_seeds) if n_seeds > 1 else np.nan
        who = "scikit-learn, not rounded" if n == "float" else f"daskdml, {n} bits"
        sheet.add(work, who, "AUC", found[n])
        if n != 15:
            sheet.add(work, who, "AUC beyond 15 bits'", list(apart), note=f"mean {apart.mean():.2g}, error {error:.1g}")


def run_classes(rows=None, full=False):
    """Five classes: 1.3x the fastest of the three, log loss not worse.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Rows of three seeds.

    Returns
    -------
    Sheet
    """
    from sklearn.metrics import log_loss

    sheet, n = Sheet("boosting_classes", at_size=rows is None), rows or CLASS_ROWS
    work = f"boosting {n:,} x {CLASS_FEATURES} float32, {CLASSES} classes, {TREES} iterations, {THREADS} threads"
    names = ("daskdml", *EXACT)
    seconds, losses, _ = _over_seeds(
        names, functools.partial(make_rows, n, CLASS_FEATURES, CLASSES), SEEDS if full else 1, log_loss
    )
    for name in names:
        sheet.add(work, name, "seconds", seconds[name], quality=("log loss", float(np.mean(losses[name]))))
        sheet.add(work, name, "log loss", losses[name], note="each of other rows")
    against(sheet, work, seconds, EXACT, 1.3)
    best = min(EXACT, key=lambda name: np.mean(losses[name]))
    sheet.add(work, "daskdml against the best of the peers", "log loss ratio", ratios(losses["daskdml"], losses[best]),
              must=("<=", 1.001), note=f"the best: {best}; each of other rows")  # fmt: skip
    return sheet


_DENSE = "rng.normal(size=({rows}, 8)).astype(np.float32)"
# Ten features for each value that a row stores: codes of stored values are kept, by kernels of their own.
_CSR = 'sparse.random({rows}, 80, density=0.1, format="csr", dtype=np.float32, random_state=rng)'
_FIRST_FIT = """
import time
import numpy as np
from scipy import sparse
from daskdml import ensemble
from daskdml.kernels.compile import compile_seconds

rng = np.random.default_rng(0)
X = {X}
total = np.asarray(X.sum(axis=1)).ravel()
model = getattr(ensemble, "{name}")({params})
started = time.perf_counter()
model.fit(X, total > np.median(total)).predict_proba(X)
print(compile_seconds(), time.perf_counter() - started)
"""


def run_compile(rows=None, full=False):
    """Kernels of a first fit and prediction in a new process: under 30 s to compile them, under 1 s from the cache.

    Parameters
    ----------
    rows : int, optional
        Instead of 5,000.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("boosting_compile", at_size=rows is None)
    for name, params, of_rows, X in (
        ("HistGradientBoostingClassifier", "max_iter=2", "", _DENSE),
        ("HistGradientBoostingClassifier", "max_iter=2", " of CSR rows", _CSR),
        ("RandomForestClassifier", "n_estimators=2", "", _DENSE),
    ):
        code = _FIRST_FIT.format(X=X.format(rows=rows or 5000), name=name, params=params)
        work = f"a first {name}{of_rows}, new process"
        with tempfile.TemporaryDirectory() as folder:
            for where, most, n in (("no cache", 30, 1), ("from the cache", 1, 5 if full else 1)):
                runs = [_run_python(code, NUMBA_CACHE_DIR=folder) for _ in range(n)]
                kernels, whole = zip(*(map(float, out.split()) for out in runs))
                sheet.add(work, where, "seconds of kernels", kernels, must=("<=", most))
                sheet.add(work, where, "seconds of fit and prediction", whole)
    return sheet


def _run_python(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment}).stdout
