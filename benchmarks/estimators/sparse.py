"""Seconds to a relative objective gap, logistic regression on CSR rows with power-law columns."""

import math

from benchmarks.data import make_sparse
from benchmarks.gap import LogisticObjective
from benchmarks.peers import find_best, sklearn_logistic
from benchmarks.report import TRIED, Sheet
from benchmarks.timing import THREADS, ratios, take_turns, threads, timed

ROWS, FEATURES, PER_ROW = 500_000, 100_000, 50
GAP = 1e-8
LEAST = 3.0
# scikit-learn's Cholesky solver would need a matrix of 80 GB here; its liblinear penalises the intercept.
SOLVERS, MORE_SOLVERS = ("newton-cg", "lbfgs"), ("liblinear",)


def run(rows=None, full=False):
    """3x scikit-learn's best.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about; columns shrink with it.
    full : bool, default False
        More solvers and repetitions.

    Returns
    -------
    Sheet
    """
    from daskdml.linear_model import LogisticRegression

    sheet = Sheet("sparse", at_size=rows is None)
    rows = rows or ROWS
    X, y = make_sparse(rows, max(PER_ROW, rows * FEATURES // ROWS), PER_ROW)
    work = f"logistic CSR {X.shape[0]:,} x {X.shape[1]:,}, {X.nnz / X.shape[0]:.0f} a row, to {GAP:g}"
    with threads(THREADS):
        objective = LogisticObjective(X, y)
        seconds, _ = timed(objective.solve)
        print(f"  reference: F* = {objective.minimum:.12g} ({seconds:.0f} s)", flush=True)
        solvers = SOLVERS + (MORE_SOLVERS if full else ())
        best = find_best([sklearn_logistic(objective, X, y, solver) for solver in solvers], GAP)
        fit = lambda: LogisticRegression(tol=math.sqrt(GAP)).fit(X, y)  # noqa: E731
        cold, first = timed(fit)
        seconds, results = take_turns({"ours": fit, "theirs": best.trial.again}, 3 if full else 1)
    model = results["ours"]
    gap = objective.gap(model.coef_, model.intercept_)
    note = f"{model.fit_report_.passes:.1f} passes"
    sheet.add(work, "daskdml", "seconds", seconds["ours"], quality=("gap", gap), note=note)
    note = f"of these {first.fit_report_.compile_seconds:.2f} s building or loading kernels"
    sheet.add(work, "daskdml, first fit of the process", "seconds", cold, note=note)
    sheet.add(work, str(best.trial), "seconds", seconds["theirs"], quality=("gap", best.trial.gap))
    for trial in best.tried:
        if trial is not best.trial:
            sheet.add(work, f"{trial} {TRIED}", "seconds", trial.seconds, quality=("gap", trial.gap))
    sheet.add(work, "daskdml", "gap", gap, must=("<=", GAP))
    note = "" if best.reached else "a lower bound: the peer did not reach the gap"
    faster = ratios(seconds["theirs"], seconds["ours"])
    sheet.add(work, "daskdml against scikit-learn", "times faster", faster, must=(">=", LEAST), note=note)
    return sheet
