"""The peer's best: its fastest run over solvers, tolerances and forms of the input that reaches the gap."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gap import LogisticObjective
from benchmarks.timing import timed

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12)
MOST_STEPS = 10_000
# Seconds that one run of a peer may take while nothing has reached the gap yet.
PATIENCE = 120.0


class Candidate(NamedTuple):
    """One way to run a peer.

    Attributes
    ----------
    name : str
        Library, solver and form of the input.
    fit : callable (tol, max_iter) -> (coef, intercept)
        Does everything a user would have to do, preparation included.
    objective : LogisticObjective
        What this way minimises: standardised columns are penalised in another unit, and held to their own minimum.
    """

    name: str
    fit: Callable[[float, int], tuple[np.ndarray, np.ndarray]]
    objective: LogisticObjective


class Trial(NamedTuple):
    """One run of a candidate."""

    candidate: Candidate
    tol: float
    max_iter: int
    seconds: float
    gap: float

    def __str__(self):
        return f"{self.candidate.name}, " + ("one step" if self.max_iter == 1 else f"tol={self.tol:g}")

    def again(self):
        """Run it again, as `take_turns` wants it."""
        return self.candidate.fit(self.tol, self.max_iter)


class Best(NamedTuple):
    """The fastest trial that reached the gap, or the one that came nearest if none did."""

    trial: Trial
    reached: bool
    tried: list[Trial]


def find_best(candidates, goal, *, tolerances=TOLERANCES, patience=PATIENCE):
    """Try each candidate with ever smaller tolerances until it reaches the gap, or cannot be the fastest any more.

    Parameters
    ----------
    candidates : list of Candidate
        The likely fastest first: later ones are stopped when they take longer than the best so far.
    goal : float
        The gap to be reached.
    tolerances : sequence of float, descending
    patience : float
        Seconds a run may take while there is no best yet.

    Returns
    -------
    Best
    """
    best, tried = None, []
    for candidate in candidates:
        limit = patience if best is None else min(patience, 1.2 * best.seconds)
        max_iter, probes = _steps_within(candidate, limit)
        tried += probes
        for tol in tolerances if max_iter else ():
            tried.append(_try(candidate, tol, max_iter))
            reached = tried[-1].gap <= goal
            if reached and (best is None or tried[-1].seconds < best.seconds):
                best = tried[-1]
            if reached or tried[-1].seconds > limit or _is_stuck(tried):
                break
    return Best(best or min(tried, key=lambda trial: trial.gap), best is not None, tried)


def _is_stuck(tried):
    """Say whether the last three trials, of one candidate, brought it no nearer: smaller tolerances won't either.

    Two equal ones say nothing: a Newton step may meet several tolerances at once.
    """
    last = tried[-3:]
    return len(last) == 3 and len({t.candidate.name for t in last}) == 1 and last[-1].gap > 0.99 * last[0].gap


def _try(candidate, tol, max_iter):
    seconds, found = timed(lambda: candidate.fit(tol, max_iter))
    return Trial(candidate, tol, max_iter, seconds, candidate.objective.gap(*found))


def _steps_within(candidate, limit):
    """Return the steps that fit twice into the time limit, 0 if one is too long, and the short runs that told so."""
    short = _try(candidate, 1e-12, 1)
    if short.seconds > limit:
        return 0, [short]
    if 4 * short.seconds > limit:
        # Preparation included, so too long: there is time for at least so many steps.
        step = short.seconds
    else:
        step = max((_try(candidate, 1e-12, 5).seconds - short.seconds) / 4, 1e-6)
    return int(min(MOST_STEPS, math.ceil(3 * limit / step))), []


def sklearn_logistic(objective, X, y, solver, form="as it is"):
    """Return scikit-learn's LogisticRegression as a candidate.

    Parameters
    ----------
    objective : LogisticObjective
        Of columns in this form.
    X, y : arrays
    solver : str
    form : {"as it is", "standardised", "as float64", "as float64, standardised"}
        What the user does to X first; it is part of the time.

    Returns
    -------
    Candidate
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def fit(tol, max_iter):
        A = X.astype(np.float64) if "float64" in form else X
        scaler = None
        if "standardised" in form:
            scaler = StandardScaler()
            A = scaler.fit_transform(A)
        model = LogisticRegression(solver=solver, tol=tol, max_iter=max_iter).fit(A, y)
        return _unscaled(model, scaler)

    return Candidate(f"scikit-learn {solver}, X {form}", fit, objective)


def dask_ml_logistic(objective, X, y, solver, standardised):
    """Return dask-ml's LogisticRegression on a dask.array as a candidate; None where dask-ml is not installed.

    Takes what `sklearn_logistic` takes. dask-ml wants labels 0 and 1 and penalises the intercept; its Newton drops the
    penalty.
    """
    try:
        from dask_ml.linear_model import LogisticRegression
    except ImportError:
        return None
    import dask.array as da
    from dask_ml.preprocessing import StandardScaler

    def fit(tol, max_iter):
        # As a user would: as many chunks as threads share evenly.
        A = da.from_array(X, chunks=(-(-len(X) // 8), X.shape[1]))
        b = da.from_array(y, chunks=A.chunks[0])
        scaler = None
        if standardised:
            scaler = StandardScaler()
            A = scaler.fit_transform(A).persist()
        model = LogisticRegression(solver=solver, tol=tol, max_iter=max_iter, C=1.0).fit(A, b)
        return _unscaled(model, scaler)

    return Candidate(f"dask-ml {solver}, X {'standardised' if standardised else 'as it is'}", fit, objective)


def _unscaled(model, scaler):
    """Return coefficients and intercept for X as it was."""
    coef = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept: Any = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
    if scaler is None:
        return coef, intercept
    coef = coef / np.asarray(scaler.scale_, dtype=np.float64)
    return coef, intercept - coef @ np.asarray(scaler.mean_, dtype=np.float64)
