"""One task for two libraries: the same rows, the same split, the same preprocessing, the same parameters."""

import statistics
import time
import warnings
from typing import NamedTuple

import numpy as np

from daskdml.report import FitReport
from daskdml.report.units import format_seconds

C = 1.0
ALPHA = 1.0
TOL = 1e-6  # on both sides
_MAX_ITER = 1000
# A fit quicker than this is repeated, so that its time means something.
_TIMED_SECONDS = 0.3
_MOST_REPEATS = 7
# scikit-learn's Newton solver holds and factorises a matrix of this order squared.
_LARGEST_NEWTON = 2000
MOST_HELD_OUT_ROWS = 200_000  # for pictures


class Side(NamedTuple):
    """What one library did.

    Attributes
    ----------
    model : fitted estimator
    score : float
        Accuracy or R2 on held-out rows.
    seconds : float
        Median seconds of a fit, after the first.
    first_seconds : float
        Seconds of the first fit, compiling included.
    note : str
        Which solver ran, warnings.
    """

    model: object
    score: float
    seconds: float
    first_seconds: float
    note: str = ""


class Result(NamedTuple):
    """A task and what both libraries made of it.

    `theirs` is None where the rows don't fit into memory. `difference` is the largest difference of coefficients from
    those of scikit-learn's most exact solver, relative to its largest.
    """

    name: str
    kind: str
    preparation: str
    n_rows: int
    n_features: int
    ours: Side
    theirs: Side | None
    difference: float
    report: FitReport
    held_out: tuple[np.ndarray, np.ndarray]


def compete(name, kind, train, test, *, in_memory=None, held_out=None, n_rows=None, encoded=False):
    """Fit both libraries on one task.

    Parameters
    ----------
    name : str
    kind : {"classification", "regression"}
    train, test : tuple (X, y)
        Rows to fit and to score, of any kind daskdml takes.
    in_memory : tuple (X, y, X_test, y_test), optional
        The same rows in memory for scikit-learn. None leaves it out.
    held_out : tuple (X, y), optional
        Held-out rows in memory, for pictures; by default those of `in_memory`.
    n_rows : int, optional
        Rows for training and test together, where `train` doesn't know.
    encoded : bool, default=False
        The rows come from a TableEncoder; others are standardised within the fit, on both sides.

    Returns
    -------
    Result
    """
    ours = _fit(_make_ours(kind, encoded), *train, *test)
    theirs, difference = None, float("nan")
    if in_memory is not None:
        sides = [_fit(model, *in_memory, note=note) for note, model in _make_theirs(kind, encoded, *in_memory[:2])]
        difference = _difference(ours.model, sides[-1].model)
        theirs = min(sides, key=lambda side: side.seconds)
        if len(sides) > 1:
            theirs = theirs._replace(note=f"the fastest of scikit-learn's {', '.join(_describe(s) for s in sides)}")
    held_out = in_memory[2:] if held_out is None else held_out
    last = ours.model[-1]
    return Result(
        name=name,
        kind=kind,
        preparation="TableEncoder" if encoded else "StandardScaler",
        n_rows=n_rows or len(train[0]) + len(test[0]),
        n_features=last.n_features_in_,
        ours=ours,
        theirs=theirs,
        difference=difference,
        report=last.fit_report_,
        held_out=tuple(part[:MOST_HELD_OUT_ROWS] for part in held_out),
    )


def _make_ours(kind, encoded):
    from sklearn.pipeline import make_pipeline

    from daskdml.linear_model import LogisticRegression, Ridge
    from daskdml.preprocessing import StandardScaler

    steps = [] if encoded else [StandardScaler()]
    if kind == "regression":
        return make_pipeline(*steps, Ridge(alpha=ALPHA))
    return make_pipeline(*steps, LogisticRegression(C=C, tol=TOL, max_iter=_MAX_ITER))


def _make_theirs(kind, encoded, X, y):
    """Return scikit-learn's candidates as (solver, pipeline), the most exact last."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [] if encoded else [StandardScaler()]
    if kind == "regression":
        return [("", make_pipeline(*steps, Ridge(alpha=ALPHA)))]
    n_classes = len(np.unique(y))
    order = X.shape[1] * (1 if n_classes == 2 else n_classes)
    solvers = ["lbfgs", "newton-cholesky"] if order <= _LARGEST_NEWTON else ["lbfgs"]
    models = [LogisticRegression(C=C, tol=TOL, max_iter=_MAX_ITER, solver=solver) for solver in solvers]
    return [(solver, make_pipeline(*steps, model)) for solver, model in zip(solvers, models)]


def _fit(model, X, y, X_test, y_test, note=""):
    """Fit a model, again until its time is known, and score it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = _time(model, X, y)
        times = []
        while not times or (sum(times) < _TIMED_SECONDS and len(times) < _MOST_REPEATS):
            times.append(_time(model, X, y))
    problems = {str(w.message).splitlines()[0] for w in caught if w.category.__name__ == "ConvergenceWarning"}
    note = "; ".join([note, *sorted(problems)]).strip("; ")
    return Side(model, float(model.score(X_test, y_test)), statistics.median(times), first, note)


def _time(model, X, y):
    start = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - start


def _difference(ours, theirs):
    ours, theirs = (np.ravel(model[-1].coef_) for model in (ours, theirs))
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.finfo(float).tiny))


def _describe(side):
    return f"{side.note} ({format_seconds(side.seconds)})"
