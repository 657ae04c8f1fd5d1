"""The only loop: propose a step, search along it, learn from it, stop on a certificate.

A *solver* proposes. It has

* ``needs``: names of the evaluator's methods it calls (checked before any pass over the data);
* ``exact``: whether its model belongs to the current point, so that renewing it cannot help;
* ``evaluate(evaluators, theta)``: the evaluation it wants of a point it may step to;
* ``prepare(state, evaluators) -> state``: makes sure there is a model of the curvature;
* ``propose(state, evaluators) -> Proposal``: a step, the slope of the objective along it and the certified gap;
* ``learn(state, step, evaluation) -> model``: the model at the new point.

States are NamedTuples; nothing is kept in the solver.
"""

from typing import Any, NamedTuple

import numpy as np

_ARMIJO = 1e-4
# Value changes below this share of the value are rounding of its sum, not progress.
_ROUNDING = 4e-15
# float32 margins make values jump by about this share when parameters move.
_NOISE = 1e-8
# A step that promises less than this share of the value, and does not keep its promise, is made of rounding.
_PROMISE = 1e-13
_SHORTER_STEPS = (0.5, 0.25, 0.125, 2.0**-5, 2.0**-7, 2.0**-10, 2.0**-14)


class Proposal(NamedTuple):
    """A step; ``gap`` is the solver's bound or estimate of value - minimum, ``slope`` is negative."""

    step: np.ndarray
    slope: float
    gap: float
    violation: float


class State(NamedTuple):
    """Where a minimisation is: the point, its evaluation and the solver's model of the curvature."""

    theta: np.ndarray
    evaluation: Any
    model: Any


class Result(NamedTuple):
    """What a minimisation found; ``n_iter`` counts steps taken."""

    theta: np.ndarray
    evaluation: Any
    model: Any
    gap: float
    n_iter: int
    converged: bool
    stopped_because: str
    last_step: np.ndarray


def minimize(solver, evaluators, state, *, tol, max_iter, to_rounding=False, renew_beyond=0.25, on_step=None):
    """Minimise an objective through its evaluators.

    Parameters
    ----------
    solver : see the module's docstring
    evaluators : object with ``value_gradient``, ``many`` and what the solver needs
    state : State
        ``state.evaluation`` may be None: it is then asked for.
    tol : float
        Stop when the gap is at most ``tol * |value|``.
    max_iter : int
        Steps at most.
    to_rounding : bool, default False
        Whatever ``tol``, go on until steps no longer help: for problems so small that this is free.
    renew_beyond : float, default 0.25
        Renew the model of the curvature when the gap falls to no less than this share of the one before.
    on_step : callable or None
        Called with (n_iter, state, proposal) at each point visited.

    Returns
    -------
    Result
    """
    missing = [name for name in solver.needs if not hasattr(evaluators, name)]
    if missing:
        raise TypeError(f"{type(solver).__name__} needs {', '.join(missing)}, which {type(evaluators).__name__} lacks.")
    if state.evaluation is None:
        state = state._replace(evaluation=solver.evaluate(evaluators, state.theta))
    previous, fresh, n_iter = None, solver.exact or state.model is None, 0
    while True:
        if not np.isfinite(state.evaluation.value):
            return _result(state, None, n_iter, False, "not finite")
        state = solver.prepare(state, evaluators)
        proposal = solver.propose(state, evaluators)
        if on_step is not None:
            on_step(n_iter, state, proposal)
        reason = _why_stop(proposal, abs(state.evaluation.value), previous, tol, to_rounding)
        if reason or n_iter >= max_iter:
            return _result(state, proposal, n_iter, bool(reason), reason or "max_iter")
        # A model that no longer pays (a tenfold smaller gap a pass is what a pilot's Hessian gives) is renewed.
        stale = not fresh and n_iter >= 2 and proposal.gap > renew_beyond * previous.gap
        accepted = None if stale else _search(solver, evaluators, state, proposal)
        done = proposal.gap <= max(tol, 1e-12) * abs(state.evaluation.value)
        if accepted is not None:
            theta, evaluation = accepted
            model = solver.learn(state, theta - state.theta, evaluation)
            state, previous, n_iter = State(theta, evaluation, model), proposal, n_iter + 1
            fresh = solver.exact
        elif fresh or (done and _promises_rounding(proposal, state.evaluation.value)):
            return _result(state, proposal, n_iter, done, "rounding" if done else "no step along it helps")
        else:
            state, fresh = State(state.theta, state.evaluation, None), True


def _why_stop(proposal, value, previous, tol, to_rounding):
    if not to_rounding and proposal.gap <= tol * value:
        return "tol"
    if -proposal.slope <= 1e-30 * value:
        return "rounding"
    # What a step promises squares with each Newton step; here it is as small and did not fall by a factor of four.
    stalled = previous is not None and proposal.slope < 0.25 * previous.slope
    return "rounding" if stalled and _promises_rounding(proposal, value) else ""


def _promises_rounding(proposal, value):
    return -proposal.slope <= _PROMISE * abs(value)


def _search(solver, evaluators, state, proposal):
    """Return (theta, evaluation) that decreases enough, or None. The full step costs one pass, shorter ones two."""
    theta = state.theta + proposal.step
    evaluation = solver.evaluate(evaluators, theta)
    if _decreases(state.evaluation, evaluation, proposal):
        return theta, evaluation
    value = state.evaluation.value
    if _promises_rounding(proposal, value):
        return None
    thetas = [state.theta + t * proposal.step for t in _SHORTER_STEPS]
    good = [
        (v, k)
        for k, (t, v) in enumerate(zip(_SHORTER_STEPS, evaluators.many(thetas)))
        if v <= value + _ARMIJO * t * proposal.slope + _ROUNDING * abs(value)
    ]
    if not good:
        return None
    theta = thetas[min(good)[1]]
    return theta, solver.evaluate(evaluators, theta)


def _decreases(old, new, proposal):
    """Armijo's condition; where values differ by less than their noise, the slope must have shrunk instead.

    Hager and Zhang, "A new conjugate gradient method with guaranteed descent", SIAM J. Optim. 16 (2005), section 4.
    """
    if new.value <= old.value + _ARMIJO * proposal.slope + _ROUNDING * abs(old.value):
        return True
    near = new.value <= old.value + _NOISE * abs(old.value)
    return bool(near and abs(new.gradient @ proposal.step) <= 0.5 * abs(old.gradient @ proposal.step))


def _result(state, proposal, n_iter, converged, reason):
    gap, step = (np.nan, np.zeros_like(state.theta)) if proposal is None else (proposal.gap, proposal.step)
    return Result(*state, gap, n_iter, converged, reason, step)
