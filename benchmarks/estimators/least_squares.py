"""Ordinary least squares and ridge on dense rows, beside scikit-learn's Ridge (cholesky) and LinearRegression."""

import numpy as np

from benchmarks.data import Rows, make_table
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, ratios, take_turns, threads

ROWS, FEATURES = 2_000_000, 100
LEAST_AGAINST_RIDGE, LEAST_AGAINST_OLS = 1.0, 5.0
# Beyond this condition number one residual pass follows the pass over X.
ILL_CONDITIONED = 1e5
# The pilot that centres the columns is counted as well: 20,000 rows, 1% of these.
PILOT_PASSES = 0.02
RANK_ROWS, RANK_FEATURES, RANK = 20_000, 30, 20


def run(rows=None, full=False):
    """Not slower than Ridge, 5x LinearRegression, one pass over X.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("least_squares", at_size=rows is None)
    X, y = make_table(Rows(rows or ROWS, FEATURES, "regression"), np.float64)
    references, condition = _solve_exactly(X, y)
    for dtype in ("float32", "float64"):
        A = X if dtype == "float64" else X.astype(np.float32)
        with threads(THREADS):
            _measure(sheet, A, y.astype(dtype), references, condition, 5 if full else 1)
    _deficient(sheet)
    return sheet


def _measure(sheet, X, y, references, condition, repetitions):
    from sklearn import linear_model

    from daskdml.linear_model import LinearRegression, Ridge

    works = {
        "daskdml LinearRegression": lambda: LinearRegression().fit(X, y),
        "daskdml Ridge": lambda: Ridge(alpha=1.0).fit(X, y),
        "scikit-learn Ridge(solver='cholesky')": lambda: linear_model.Ridge(alpha=1.0, solver="cholesky").fit(X, y),
        "scikit-learn LinearRegression": lambda: linear_model.LinearRegression().fit(X, y),
    }
    ours, ridge, peer_ridge, peer = works
    for name in (ours, ridge):
        works[name]()  # compiles
    seconds, models = take_turns(works, repetitions)
    size = f"{len(X):,} x {X.shape[1]} {X.dtype}"
    for name in works:
        reference = references["Ridge" in name]
        error = float(np.abs(models[name].coef_ - reference).max() / np.abs(reference).max())
        sheet.add(f"least squares {size}", name, "seconds", seconds[name], quality=("coefficient error", error))
    for name in (ours, ridge):
        report = models[name].fit_report_
        allowed = (2 if condition > ILL_CONDITIONED else 1) + PILOT_PASSES
        note = f"condition number of the centred X {condition:.1e}"
        sheet.add(f"least squares {size}", name, "passes", report.passes, must=("<=", allowed), note=note)
    for mine, theirs, least in ((ridge, peer_ridge, LEAST_AGAINST_RIDGE), (ours, peer_ridge, LEAST_AGAINST_RIDGE),
                                (ours, peer, LEAST_AGAINST_OLS)):  # fmt: skip
        who = f"{mine} against {theirs}"
        faster = ratios(seconds[theirs], seconds[mine])
        sheet.add(f"least squares {size}", who, "times faster", faster, must=(">=", least))


def _solve_exactly(X, y):
    """Return the coefficients for alpha = 0 and 1, and the condition number of the centred X, by QR."""
    mean = X.mean(axis=0)
    scale = np.abs(X - mean).max(axis=0)
    R = np.zeros((0, X.shape[1] + 1))
    for start in range(0, len(X), 100_000):
        part = slice(start, start + 100_000)
        rows = np.column_stack([(X[part] - mean) / scale, y[part] - y.mean()])
        R = np.linalg.qr(np.concatenate([R, rows]), mode="r")
    references = []
    for alpha in (0.0, 1.0):
        A = np.concatenate([R[:-1, :-1], np.diag(np.sqrt(alpha) / scale)])
        target = np.concatenate([R[:-1, -1], np.zeros(len(scale))])
        references.append(np.linalg.lstsq(A, target, rcond=None)[0] / scale)
    return references, float(np.linalg.cond(R[:-1, :-1] * scale))


def _deficient(sheet):
    """Compare the minimum-norm answer on columns that repeat each other with scikit-learn's."""
    from sklearn import linear_model

    from daskdml.linear_model import LinearRegression

    rng = np.random.default_rng(3)
    X = rng.standard_normal((RANK_ROWS, RANK)) @ rng.standard_normal((RANK, RANK_FEATURES))
    y = X @ rng.standard_normal(RANK_FEATURES) + rng.standard_normal(RANK_ROWS)
    ours, theirs = LinearRegression().fit(X, y).coef_, linear_model.LinearRegression().fit(X, y).coef_
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    work = f"least squares {RANK_ROWS:,} x {RANK_FEATURES} of rank {RANK}"
    sheet.add(work, "daskdml against scikit-learn LinearRegression", "coefficient difference", error, must=("<=", 1e-6))
