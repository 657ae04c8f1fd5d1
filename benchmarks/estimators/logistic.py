"""Seconds to a relative objective gap, logistic regression on dense rows: two classes, many features, many classes."""

import math

import numpy as np

from benchmarks.data import Rows, make_table
from benchmarks.gap import LogisticObjective
from benchmarks.peers import dask_ml_logistic, find_best, sklearn_logistic
from benchmarks.report import TRIED, Sheet
from benchmarks.timing import THREADS, ratios, take_turns, threads, timed


def run(rows=None, full=False):
    """Two classes, 50 features, to 1e-8: 12x scikit-learn, 30x dask-ml, at most 4.5 passes.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Every solver and form of the peers, and more repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("logistic", at_size=rows is None)
    # The likely fastest first: later candidates are stopped when they take longer.
    likely = [("newton-cholesky", "as it is"), ("newton-cholesky", "standardised"), ("lbfgs", "standardised")]
    _measure(
        sheet, Rows(rows or 2_000_000, 50), 1e-8, likely, full,
        least=12, most_passes=4.5, least_dask_ml=30, repetitions=9 if full else 3,
    )  # fmt: skip
    return sheet


def run_wide(rows=None, full=False):
    """Two classes, 1,000 features, to 1e-8: 3x scikit-learn, at most 9 passes. Takes what `run` takes."""
    sheet = Sheet("wide", at_size=rows is None)
    likely = [("lbfgs", "standardised"), ("newton-cholesky", "standardised"), ("newton-cholesky", "as it is")]
    _measure(
        sheet, Rows(rows or 200_000, 1000), 1e-8, likely, full, least=3, most_passes=9, repetitions=3 if full else 1
    )
    return sheet


def run_multinomial(rows=None, full=False):
    """Ten classes, 100 features, to 1e-6: 4x scikit-learn. Takes what `run` takes."""
    sheet = Sheet("multinomial", at_size=rows is None)
    likely = [("lbfgs", "standardised"), ("newton-cholesky", "standardised")]
    _measure(sheet, Rows(rows or 500_000, 100, 10), 1e-6, likely, full, least=4, repetitions=3 if full else 1)
    return sheet


def _measure(sheet, spec, goal, likely, full, *, least, repetitions, most_passes=None, least_dask_ml=None):
    """Add the rows of both precisions.

    Parameters
    ----------
    sheet : Sheet
    spec : Rows
    goal : float
        The gap to be reached.
    likely : list of (solver, form)
        What the short form tries.
    full : bool
    least, least_dask_ml : float
        How many times faster than scikit-learn, than dask-ml.
    repetitions : int
    most_passes : float, optional
    """
    X, y = make_table(spec, np.float64)
    with threads(THREADS):
        # One reference serves both precisions: all values are float32 numbers.
        n_classes = 2 if spec.target == "binary" else spec.target
        objective, scaled = (LogisticObjective(X, y, n_classes=n_classes, standardised=s) for s in (False, True))
        seconds, _ = timed(lambda: (objective.solve(), scaled.solve()))
    print(f"  references: F* = {objective.minimum:.12g}, {scaled.minimum:.12g} ({seconds:.0f} s)", flush=True)
    for dtype in ("float32", "float64"):
        work = f"{sheet.name} {spec.rows:,} x {spec.features} {dtype} to {goal:g}"
        A = X if dtype == "float64" else X.astype(np.float32)
        with threads(THREADS):
            best = find_best(_candidates(objective, scaled, A, y, likely, full), goal)
            _compare(sheet, work, A, y, objective, goal, best, least, repetitions, most_passes)
            if least_dask_ml:
                _compare_dask_ml(sheet, work, A, y, scaled, goal, least_dask_ml)


def _compare(sheet, work, X, y, objective, goal, best, least, repetitions, most_passes):
    """Time ours and the peers' best in turns and add the rows."""
    from daskdml.linear_model import LogisticRegression

    # The certificate of tol is a relative gap of tol squared.
    fit = lambda: LogisticRegression(tol=math.sqrt(goal)).fit(X, y)  # noqa: E731
    cold, first = timed(fit)
    seconds, results = take_turns({"ours": fit, "theirs": best.trial.again}, repetitions)
    model, theirs = results["ours"], seconds["theirs"]
    gap = objective.gap(model.coef_, model.intercept_)
    passes = model.fit_report_.passes
    sheet.add(work, "daskdml", "seconds", seconds["ours"], quality=("gap", gap), note=f"{passes:.2f} passes")
    note = f"of these {first.fit_report_.compile_seconds:.2f} s building or loading kernels"
    sheet.add(work, "daskdml, first fit in this precision", "seconds", cold, note=note)
    sheet.add(work, str(best.trial), "seconds", theirs, quality=("gap", best.trial.gap), note=_doubt(best, goal))
    for trial in best.tried:
        if trial is not best.trial:
            sheet.add(work, f"{trial} {TRIED}", "seconds", trial.seconds, quality=("gap", trial.gap))
    sheet.add(work, "daskdml", "gap", gap, must=("<=", goal))
    if most_passes:
        sheet.add(work, "daskdml", "passes", passes, must=("<=", most_passes))
    note = "" if best.reached else "a lower bound: the peer did not reach the gap"
    who = "daskdml against scikit-learn"
    sheet.add(work, who, "times faster", ratios(theirs, seconds["ours"]), must=(">=", least), note=note)


def _compare_dask_ml(sheet, work, X, y, objective, goal, least):
    """Time dask-ml once, ours beside it, and add the rows; one that says so where dask-ml is not installed."""
    # On columns of very different sizes neither of its solvers converges.
    found = [dask_ml_logistic(objective, X, y, solver, standardised=True) for solver in ("newton", "lbfgs")]
    if None in found:
        sheet.skip(f"{work}, dask-ml", "dask-ml is not installed: pip install '.[bench]'")
        return
    from daskdml.linear_model import LogisticRegression

    best = find_best(found, goal)
    ours, _ = timed(lambda: LogisticRegression(tol=math.sqrt(goal)).fit(X, y))
    trial = best.trial
    sheet.add(work, str(trial), "seconds", trial.seconds, quality=("gap", trial.gap), note=_doubt(best, goal))
    note = "" if best.reached else "a lower bound: the peer did not reach the gap"
    sheet.add(work, "daskdml against dask-ml", "times faster", trial.seconds / ours, must=(">=", least), note=note)


def _candidates(objective, scaled, X, y, likely, full):
    """Return scikit-learn's solvers on each legal form of X: as it is, standardised, and float32 cast to float64."""
    chosen = list(likely)
    if full:
        forms = ("as it is", "standardised")
        solvers = ("newton-cholesky", "lbfgs", "newton-cg")
        chosen += [(solver, form) for solver in solvers for form in forms if (solver, form) not in likely]
    if X.dtype == np.float32:
        cast = {"as it is": "as float64", "standardised": "as float64, standardised"}
        chosen = [pair for solver, form in chosen for pair in ((solver, form), (solver, cast[form]))]
    return [
        sklearn_logistic(scaled if "standardised" in form else objective, X, y, solver, form) for solver, form in chosen
    ]


def _doubt(best, goal):
    return "" if best.reached else f"did not reach {goal:g}: the nearest it came"
