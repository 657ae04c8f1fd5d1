"""Minimises the objective of a linear model over all rows.

The walk: draw the pilot and its moments -> solve on the pilot -> polish on all rows with the exact gradient and the
pilot's Hessian -> certificate, warnings, report.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from daskdml.fitting import histogram_of, order_of, time_rows
from daskdml.linear_model import _expected as expected
from daskdml.linear_model._expected import lasts, polishing_passes, step_seconds
from daskdml.linear_model._moments import column_moments, coordinates
from daskdml.linear_model._separable import has_separating_direction, is_blind_to_columns, separating_columns
from daskdml.objectives import Evaluator, LinearObjective, OwnShare
from daskdml.solvers import Newton, NewtonCG, ProxNewton, State, minimize, minimize_apart
from daskdml.utils.random import as_seed

# The pilot: enough rows for a Hessian that is right to a few per cent, never more than a tenth of all, nor 256 MB.
PILOT_ROWS, PILOT_ROWS_PER_FEATURE, PILOT_SHARE, PILOT_BYTES = 20_000, 200, 0.1, 256e6
# Beyond this many parameters a Hessian (8 p^2 bytes a thread) costs more than the passes it saves.
HESSIAN_PARAMS, HESSIAN_PARAMS_CSR = 3_000, 500
# Rows a parameter below which a pilot's Hessian is no guide.
PILOT_ROWS_PER_PARAM = 5
EXACT_FLOPS = 2e10
PILOT_ROWS_PER_CLASS = 20
# Means so many deviations from zero that sums over rows must be centred row by row.
FAR_FROM_ZERO = {np.dtype(np.float32): 8.0, np.dtype(np.float64): 1e4}
# Parameters beyond which the eigenvectors that a search for separating directions takes cost more than the fit.
SEARCHED_PARAMS = 1_000


class Solution(NamedTuple):
    """What `solve_linear` found, in the user's coordinates."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: int
    objective: LinearObjective
    theta: np.ndarray


def solve_linear(fit, loss, penalty, strategy=None, **problem):
    """Minimise what `_solve` is told of, wherever the rows are; returns its `Solution`.

    Takes ``random_state`` (None, int or generator; None is 0: two fits then agree bit for bit) for its seed, and a
    `daskdml.strategies.ParameterServer`, if ranks are to come near the optimum at their own pace.
    """
    run, q = fit.run, loss.n_outputs * (fit.run.n_features + problem["fit_intercept"])
    if is_small(run, q):
        n_passes = expected.NEWTON_PASSES
    else:
        n_passes = 1 + expected.polishing_passes(problem["tol"], q, pilot_size(run), penalty.smooth)
    # Drawn here, once: ranks that drew for themselves from one generator would draw different pilots.
    random_state = problem.pop("random_state", None)
    seed = 0 if random_state is None else as_seed(random_state)
    server = None
    if strategy is not None:
        from daskdml.runtime.spmd.apart import Server

        server = Server(strategy, q)
    body = functools.partial(_solve, loss=loss, penalty=penalty, seed=seed, is_served=server is not None, **problem)
    return fit.carry_out(body, n_passes, stacklevel=4, facts=(seed, problem.get("start")), server=server)


def _solve(
    fit, loss, penalty, *, total_weight, baseline, fit_intercept, tol, max_iter, seed=0, class_weight=None,
    intercept_scale=0.0, start=None, is_served=False,
):  # fmt: skip
    """Minimise the mean loss of a linear map plus a penalty over all rows of a fit.

    Parameters
    ----------
    fit : Fit
    loss, penalty : see `daskdml.losses`, `daskdml.penalties`
    total_weight : float
        Sum of all weights.
    baseline : float or ndarray of shape (n_outputs,)
        Intercept of the best constant model, where the search starts.
    fit_intercept : bool
    tol : float
        Certified gap, relative to the objective, is at most ``tol**2``.
    max_iter : int
    seed : int, default 0
        Draws the pilot; changes the answer within ``tol`` only.
    class_weight : ndarray or None
    intercept_scale : float
        See `LinearObjective`.
    start : tuple (coef, intercept) or None
    is_served : bool, default False
        Whether there was to be a parameter server.

    Returns
    -------
    Solution

    Notes
    -----
    Pilot rows leave the workers once; all else that travels is one vector a pass and worker.
    """
    run = fit.run
    q = loss.n_outputs * (run.n_features + fit_intercept)
    small = is_small(run, q)
    # Where columns lie apart nobody can form a Hessian of all rows, however few they are.
    n_pilot = run.n_samples if small and not run.by_columns else pilot_size(run)
    pilot = run.pilot(n_pilot, seed) if n_pilot < run.n_samples else None
    moments = (run if small else pilot or run).map_reduce(column_moments)
    # Squares that overflow would make every column look infinitely wide, and every coefficient zero.
    if not (np.isfinite(moments.total).all() and np.isfinite(moments.square).all()):
        fit.refuse_nonfinite()
    center, deviation, far = coordinates(moments, run.layout, run.dtype, fit_intercept and not intercept_scale)
    make = functools.partial(
        LinearObjective, loss, penalty, run.n_features, fit_intercept=fit_intercept, center=center,
        deviation=deviation, class_weight=class_weight, intercept_scale=intercept_scale,
        in_kernel=far > FAR_FROM_ZERO.get(np.dtype(run.dtype), 0.0) and run.layout != "csr",
    )  # fmt: skip
    # The duality gap of a pure L1 penalty is as wide as the gradient's rounding: float32 leaves 1e-6 of it.
    objective = make(total_weight, wide=small or not penalty.smooth)
    theta = objective.start(baseline) if start is None else objective.flatten(*start)
    if run.layout != "device":
        run.warm(functools.partial(_warm, objective, run.layout, run.dtype, run.by_columns))
    # Without a penalty the optimum of a pilot that misses what tells a rare category's classes apart lies at infinity.
    is_blind = penalty.is_zero and pilot is not None and is_blind_to_columns(
        run, pilot, _n_classes(loss), class_weight, fit_intercept
    )  # fmt: skip
    solver, state = _choose_solver(fit, make, pilot, objective, theta, tol, is_blind, warm=start is not None)
    model, full = state.model, _PilotCurvature(objective, run, pilot) if run.by_columns else Evaluator(objective, run)
    nearer = None if not is_served else _come_near(fit, full, solver, state, tol, pilot)
    state = state._replace(evaluation=None) if nearer is None else nearer
    # The Hessian of one pilot is not worth renewing: it is kept, and corrected by secants.
    go = functools.partial(
        minimize, evaluators=full, tol=tol**2, max_iter=max_iter, to_rounding=small,
        renew_beyond=np.inf if run.by_columns else 0.25, on_step=functools.partial(_record, fit, "full"),
    )  # fmt: skip
    result = go(solver, state=state)
    # Along directions in which a pilot has no curvature Newton steps do not go, and the gap does not count them.
    is_blind = is_blind or (model is not None and penalty.is_zero and model.factor.kind == "eigen")
    if model is not None and (is_blind or result.stopped_because == "no step along it helps"):
        # The pilot led astray, or to a point that only it calls the best: begin again with a Hessian of all rows.
        solver = NewtonCG(objective, tol**2) if is_blind and run.by_columns else solver
        result = go(solver, state=State(objective.start(baseline), None, None))
    if result.stopped_because == "not finite":
        fit.refuse_nonfinite()
    separable = ""
    if penalty.is_zero:
        wide = Evaluator(make(total_weight, wide=True), run)
        separable = _why_separable(fit, None if is_blind else pilot, wide, baseline, result)
    fit.close(
        converged=result.converged and not separable, n_iter=result.n_iter,
        stopped_because="no finite optimum" if separable else result.stopped_because,
    )  # fmt: skip
    _warn(fit, result, separable, max_iter)
    coef, intercept = objective.unflatten(result.theta)
    return Solution(coef, intercept, result.n_iter, objective, result.theta)


def _record(fit, stage, step, state, proposal):
    fit.record(stage, step, state, proposal)


def is_small(run, q):
    """Tell whether the problem is small, or no pilot would help."""
    n = run.n_samples
    return n <= PILOT_ROWS or (n <= PILOT_ROWS_PER_FEATURE * q and n * q**2 <= EXACT_FLOPS)


def pilot_size(run):
    """Return how many rows the pilot has; too few for a Hessian still make good moments."""
    n, p = run.n_samples, run.n_features
    return int(max(min(max(PILOT_ROWS, PILOT_ROWS_PER_FEATURE * p), n * PILOT_SHARE, PILOT_BYTES / (8 * p)), 1))


def use_hessian(run, q, n):
    """Tell whether a Hessian of n rows of a pilot is worth its memory and time, and a guide for all."""
    return q <= _most_params(run) and n >= PILOT_ROWS_PER_PARAM * q


def is_hessian_affordable(run, q):
    """Tell whether Hessians of all rows are cheap enough to form one at each step."""
    return q <= _most_params(run) and run.n_samples * q**2 <= 10 * EXACT_FLOPS


def _most_params(run):
    return HESSIAN_PARAMS_CSR if run.layout == "csr" else HESSIAN_PARAMS


def _choose_solver(fit, make, pilot, objective, theta, tol, is_blind, warm):
    """Return (solver, state to start with) for the passes over all rows; what is evaluated of it is the pilot's."""
    run, q = fit.run, objective.n_params
    exact, by_secants = _newtons(objective)
    if pilot is None:
        return (exact if is_hessian_affordable(run, q) else NewtonCG(objective, 1e-16)), State(theta, None, None)
    by_products = NewtonCG(objective, 1e-16 if is_small(run, q) else tol**2)
    if not use_hessian(run, q, pilot.n_samples):
        return by_products, State(theta, None, None)
    weight = pilot.map_reduce(functools.partial(_total_weight, objective.class_weight), reads_x=False)
    if is_blind or not weight > 0 or _rarest(pilot, objective.loss) < PILOT_ROWS_PER_CLASS:
        # A class hardly seen looks separable from the others: the pilot's optimum would lie at infinity.
        return by_products if run.by_columns else by_secants, State(theta, None, None)
    found, row_seconds = _solve_pilot(fit, pilot, make(weight), theta, warm)
    if not warm and lasts(q, pilot.n_samples):
        smooth = objective.penalty.smooth
        fit.foresee(polishing_passes(tol, q, pilot.n_samples, smooth), row_seconds, 8 * q, step_seconds(smooth))
    return by_secants, found


def _come_near(fit, full, solver, state, tol, pilot):
    """Return a state nearer to the optimum, to which ranks come at their own pace; None where they cannot."""
    run, report, objective = fit.run, fit.report, full.objective
    why = "" if state.model is not None else "there is no Hessian of a sample for ranks to share"
    if run.server is None:
        why = "no ranks make the passes of this fit, or one alone"
    if why:
        report.notes.append(f"ParameterServer had nothing to do: {why}.")
        return None
    n_rounds = polishing_passes(tol, objective.n_params, pilot.n_samples, objective.penalty.smooth) - 1
    work = functools.partial(_apart, objective, solver, state, max(n_rounds, 1))
    (theta, first, loss), told = run.apart(work)
    report.where += f", {run.server.strategy.manner(run.n_workers)}"
    report.counts["pushes"], report.order = told.n_pushes, order_of(told.order)
    report.histograms["staleness"] = histogram_of(told.staleness)
    evaluation = full.value_gradient(theta)
    if evaluation.value <= loss + objective.penalty.value(first, objective.scale):
        return State(theta, evaluation, state.model)
    # Ranks whose rows differ much from the sample's: by what they do not share they draw apart.
    report.notes.append(
        "Ranks at their own pace came to a worse point than they began with, for their rows differ, and went on from "
        "there in step. Bring rows into a random order."
    )
    return State(first, None, state.model)


def _apart(objective, solver, state, n_rounds, ledger):
    """Go towards the minimum with the other ranks; see `minimize_apart`."""
    weight = ledger.reduce(functools.partial(_total_weight, objective.class_weight), reads_x=False)
    share = OwnShare(objective, ledger, weight)
    return minimize_apart(solver, share, state.theta, state.evaluation.gradient, state.model, n_rounds)


def _n_classes(loss):
    return int(loss.y_domain[1]) + 1


def _rarest(pilot, loss):
    """Return the number of rows of the rarest class in the pilot; infinity where targets are no classes."""
    if not np.isfinite(loss.y_domain[1]):
        return np.inf
    return pilot.map_reduce(functools.partial(_class_counts, _n_classes(loss)), reads_x=False).min()


def _class_counts(n_classes, block):
    return np.bincount(block.y.astype(np.intp), minlength=n_classes)


def _solve_pilot(fit, pilot, objective, theta, warm):
    """Return (state, seconds a row of a pass); for a warm start that at ``theta`` itself, and NaN.

    Two Hessians are formed: a rough one at the start, which secants then correct, and the one handed on. A quarter of
    the pilot is enough for the rough one. The optimum is off by about q / m anyway: no use in finding it more closely.
    """
    evaluators = Evaluator(objective, pilot)
    exact, by_secants = _newtons(objective)
    q, m, row_seconds = objective.n_params, pilot.n_samples, np.nan
    if not warm:
        rough, model = pilot.pilot(m // 4, 1) if m >= 16 * q else pilot, None
        weight = rough.map_reduce(functools.partial(_total_weight, objective.class_weight), reads_x=False)
        if weight > 0:
            model = exact.prepare(
                State(theta, Evaluator(objective.reweighted(weight), rough).hessian(theta), None), evaluators
            ).model
        go = functools.partial(
            minimize, by_secants, evaluators, State(theta, None, model), tol=0.3 * q / m, max_iter=50,
            renew_beyond=0.9, on_step=functools.partial(_record, fit, "pilot"),
        )  # fmt: skip
        found, row_seconds = time_rows(pilot, go)
        theta = found.theta if np.isfinite(found.evaluation.value) else theta
    return exact.prepare(State(theta, evaluators.hessian(theta), None), evaluators), row_seconds


class _PilotCurvature(Evaluator):
    """Evaluate on all rows, but for Hessians, which are the pilot's: of columns that lie apart nobody can form one."""

    def __init__(self, objective, run, pilot):
        super().__init__(objective, run)
        self.pilot = pilot

    def hessian(self, theta):
        weight = self.pilot.map_reduce(functools.partial(_total_weight, self.objective.class_weight), reads_x=False)
        model = Evaluator(self.objective.reweighted(weight), self.pilot).hessian(theta)
        return self.value_gradient(theta)._replace(hessian=model.hessian)


def _newtons(objective):
    """Return Newton's method with exact Hessians, and with secants."""
    if objective.penalty.smooth:
        return Newton(exact=True), Newton(exact=False)
    return ProxNewton(objective, exact=True), ProxNewton(objective, exact=False)


def _total_weight(class_weight, block):
    weight = np.ones(len(block.y)) if block.weight is None else block.weight
    if class_weight is not None:
        weight = weight * class_weight[block.y.astype(np.intp)]
    return float(weight.sum())


def _warm(objective, layout, dtype, in_panels):
    """Build the kernels a fit will call, by calling them on two rows."""
    from daskdml.data import Block

    X = np.zeros((2, objective.n_features), dtype=dtype or np.float64)
    X = sparse.csr_matrix(X) if layout == "csr" else X
    block = Block((X,) if in_panels else X, np.zeros(2, dtype=np.float32), None, 0, 0)
    objective.at(np.zeros(objective.n_params), 1)(block)


def _why_separable(fit, pilot, full, baseline, result):
    """Return what separates classes, so that no finite optimum exists, as half a sentence; empty where nothing does."""
    run, objective = fit.run, full.objective
    n_classes = _n_classes(objective.loss)
    columns = separating_columns(run, pilot, n_classes, objective.class_weight, objective.fit_intercept)
    if len(columns):
        names = getattr(fit.features, "feature_names_in_", np.arange(run.n_features))[columns[:5]].tolist()
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        return f"by the column(s) {', '.join(map(repr, names))}{more} of X, each for itself, be it in few rows"
    # A row on the wrong side loses at least log 2.
    if result.evaluation.loss_value * run.n_samples < np.log(2):
        return "by a linear function of X"
    near = _where_to_search(pilot, full)
    if near is None or not has_separating_direction(full, near, result.theta, objective.start(baseline)):
        return ""
    return "by a linear function of X, be it in few rows"


def _where_to_search(pilot, full):
    """Return the evaluator of the rows in which to look for separating directions; None where it costs too much."""
    run, q = full.run, full.objective.n_params
    if q > SEARCHED_PARAMS:
        return None
    if pilot is None:
        return full if run.n_samples * q**2 <= EXACT_FLOPS else None
    weight = pilot.map_reduce(functools.partial(_total_weight, full.objective.class_weight), reads_x=False)
    usable = weight > 0 and use_hessian(run, q, pilot.n_samples)
    return Evaluator(full.objective.reweighted(weight), pilot) if usable else None


def _warn(fit, result, separable, max_iter):
    name = fit.report.estimator
    if separable:
        fit.warnings.append((
            f"{name}: the classes are separable {separable}; without a penalty the coefficients have no finite optimum "
            f"and grew until a step promised less than tol or rounding (mean loss "
            f"{result.evaluation.loss_value:.0e}). Set a finite C.",
            ConvergenceWarning,
        ))  # fmt: skip
    elif not result.converged:
        fit.warnings.append((
            f"{name} stopped after {result.n_iter} steps ({result.stopped_because}) with a relative gap of "
            f"{fit.report.gap:.0e}; raise max_iter (now {max_iter}) or tol.",
            ConvergenceWarning,
        ))  # fmt: skip
