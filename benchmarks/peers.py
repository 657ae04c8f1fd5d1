"""The peer's best: its fastest run over solvers, tolerances and forms of the input that reaches the gap."""

import math
from typing import Any, Callable, NamedTuple

import numpy as np

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
    """

    name: str
    fit: Callable[[float, int], tuple[np.ndarray, np.ndarray]]


class Trial(NamedTuple):
    """One run of a candidate."""

    candidate: Candidate
    tol: float
    max_iter: int
    seconds: float
    gap: float

    def __str__(self):
        return f"{self.candidate.name}, tol={self.tol:g}"

    def again(self):
        """Run it again, as `take_turns` wants it."""
        return self.candidate.fit(self.tol, self.max_iter)


class Best(NamedTuple):
    """The fastest trial that reached the gap, or the one that came nearest if none did."""

    trial: Trial
    reached: bool
    tried: list[Trial]


def find_best(candidates, gap, goal, *, tolerances=TOLERANCES, patience=PATIENCE):
    """Try each candidate with ever smaller tolerances until it reaches the gap, or cannot be the fastest any more.

    Parameters
    ----------
    candidates : list of Candidate
        The likely fastest first: later ones are stopped when they take longer than the best so far.
    gap : callable (coef, intercept) -> float
    goal : float
    tolerances : sequence of float, descending
    patience : float
        Seconds a run may take while there is no best yet.

    Returns
    -------
    Best
    """
    best, tried = None, []
    for candidate in candidates:
        limit = patience if best is None else min(patience, 1.5 * best.seconds)
        max_iter = _steps_within(candidate, limit)
        for tol in tolerances:
            seconds, found = timed(lambda: candidate.fit(tol, max_iter))
            trial = Trial(candidate, tol, max_iter, seconds, gap(*found))
            tried.append(trial)
            if trial.gap <= goal and (best is None or seconds < best.seconds):
                best = trial
            if trial.gap <= goal or seconds > limit or _is_stuck(tried):
                break
    return Best(best or min(tried, key=lambda trial: trial.gap), best is not None, tried)


def _is_stuck(tried):
    """Say whether the last three trials were of one candidate and brought it no nearer: smaller tolerances won't either.

    Two equal ones say nothing: a Newton step may meet several tolerances at once.
    """
    last = tried[-3:]
    return len(last) == 3 and len({t.candidate.name for t in last}) == 1 and last[-1].gap > 0.99 * last[0].gap


def _steps_within(candidate, limit):
    """Return the steps that fit twice into the time limit, by two short runs: a bound, with room for fast late steps."""
    short, long = (timed(lambda: candidate.fit(1e-12, steps))[0] for steps in (1, 5))
    step = max((long - short) / 4, 1e-6)
    return int(min(MOST_STEPS, max(10, math.ceil(2 * limit / step))))


def sklearn_logistic(X, y, solver, form="as it is"):
    """Return scikit-learn's LogisticRegression as a candidate.

    Parameters
    ----------
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

    return Candidate(f"scikit-learn {solver}, X {form}", fit)


def dask_ml_logistic(X, y, solver, standardised):
    """Return dask-ml's LogisticRegression on a dask.array as a candidate; None where dask-ml is not installed.

    dask-ml takes NumPy-backed chunks, labels 0 and 1, and penalises the intercept; its Newton drops the penalty.
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

    return Candidate(f"dask-ml {solver}, X {'standardised' if standardised else 'as it is'}", fit)


def _unscaled(model, scaler):
    """Return coefficients and intercept for X as it was."""
    coef = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept: Any = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
    if scaler is None:
        return coef, intercept
    coef = coef / np.asarray(scaler.scale_, dtype=np.float64)
    return coef, intercept - coef @ np.asarray(scaler.mean_, dtype=np.float64)
