"""Forests beside scikit-learn, XGBoost and LightGBM: equal features a node, depth and draw of rows."""

import functools

import numpy as np

from benchmarks.estimators.boosting import make_rows
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, microseconds, ratios, take_turns, threads, timed

ROWS, TEST_ROWS, FEATURES, TREES, DEPTH, TRIED = 500_000, 200_000, 28, 100, 12, 5
FEW_TREES = 10  # of scikit-learn, whose seconds grow by trees: 100 take more than three minutes
SEEDS = 3


def ours(seed, trees=TREES):
    """Return our forest."""
    from daskdml.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=trees, max_depth=DEPTH, max_features=TRIED, random_state=seed)


def scikit_learn(seed, trees=TREES):
    """Return scikit-learn's, on all threads."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=trees, max_depth=DEPTH, max_features=TRIED, random_state=seed, n_jobs=THREADS
    )


def xgboost(seed, trees=TREES):
    """Return XGBoost's: one round of parallel trees, each on a share of the rows as large as a bootstrap's."""
    import xgboost as xgb

    return xgb.XGBRFClassifier(
        n_estimators=trees, max_depth=DEPTH, colsample_bynode=TRIED / FEATURES, subsample=0.632, max_bin=255,
        tree_method="hist", reg_lambda=0.0, min_child_weight=0.0, random_state=seed, n_jobs=THREADS,
    )  # fmt: skip


def lightgbm(seed, trees=TREES):
    """Return LightGBM's, which grows by leaves: as many as the depth allows."""
    import lightgbm as lgb

    return lgb.LGBMClassifier(
        boosting_type="rf", n_estimators=trees, max_depth=DEPTH, num_leaves=2**DEPTH, max_bin=255,
        feature_fraction_bynode=TRIED / FEATURES, bagging_fraction=0.632, bagging_freq=1, min_child_samples=1,
        min_child_weight=0.0, random_state=seed, n_jobs=THREADS, verbose=-1,
    )  # fmt: skip


SIDES = {"daskdml": ours, "scikit-learn": scikit_learn, "XGBoost, XGBRF": xgboost, "LightGBM, rf": lightgbm}


def _fit(side, X, y, seed=0, trees=TREES):
    with threads(THREADS):
        return SIDES[side](seed, trees).fit(X, y)


def run(rows=None, full=False):
    """25x scikit-learn at an AUC within 0.003; 2x XGBRF and LightGBM's rf.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        All of scikit-learn's trees, three seeds for the AUC.

    Returns
    -------
    Sheet
    """
    from sklearn.metrics import roc_auc_score

    sheet = Sheet("forest", at_size=rows is None)
    X, y, X_test, y_test = make_rows(rows or ROWS, FEATURES, n_test=TEST_ROWS)
    work = f"forest {len(X):,} x {FEATURES} float32, {TREES} trees of depth {DEPTH}, {TRIED} features a node"
    first, model = timed(lambda: _fit("daskdml", X, y))
    sheet.add(work, "daskdml, first fit of the process", "seconds", first,
              note=f"of these {model.fit_report_.compile_seconds:.2f} s building or loading kernels")  # fmt: skip
    for name in SIDES:
        _fit(name, X[:20_000], y[:20_000], trees=2)  # libraries that a first fit loads
    trees = {name: TREES if full or name != "scikit-learn" else FEW_TREES for name in SIDES}
    seconds, scores = {name: [] for name in SIDES}, {name: [] for name in SIDES}
    for seed in range(SEEDS if full else 1):
        works = {name: functools.partial(_fit, name, X, y, seed, trees[name]) for name in SIDES}
        took, models = take_turns(works, 1)
        for name in SIDES:
            seconds[name].append(took[name][0] * TREES / trees[name])
            scores[name].append(roc_auc_score(y_test, models[name].predict_proba(X_test)[:, 1]))
    for name in SIDES:
        quality = ("AUC", float(np.mean(scores[name])))
        sheet.add(work, name, "seconds", seconds[name], quality=quality, note=f"{trees[name]} of {TREES} trees timed")
        sheet.add(work, name, "AUC", scores[name])
    print(f"  {models['daskdml'].fit_report_.phases}", flush=True)
    for name, least in (("scikit-learn", 25.0), ("XGBoost, XGBRF", 2.0), ("LightGBM, rf", 2.0)):
        faster = ratios(seconds[name], seconds["daskdml"])
        sheet.add(work, f"daskdml against {name}", "times faster", faster, must=(">=", least))
    behind = float(np.mean(scores["scikit-learn"]) - np.mean(scores["daskdml"]))
    sheet.add(work, "scikit-learn's AUC beyond daskdml's", "AUC", behind, must=("<=", 0.003))
    _one_row(sheet, models, trees, X_test[:1])
    return sheet


def _one_row(sheet, models, trees, row):
    """Add the microseconds of one row's `predict`, ours beside scikit-learn's, on one thread."""
    models["scikit-learn"].set_params(n_jobs=1)  # threads for one row would take several times as long
    with threads(1):
        for name, n in (("daskdml", 500), ("scikit-learn", 20)):
            each = microseconds(functools.partial(models[name].predict, row), n)
            work = f"predict of one row, {trees[name]} trees of depth {DEPTH}, 1 thread"
            sheet.add(work, name, "microseconds", each)
