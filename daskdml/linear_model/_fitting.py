"""What the fits of all linear models share: the door, the pilot, the choice of solver, the report.

The walk of a fit: align X, y, weights (`data`) -> open a run (`runtime`) -> draw the pilot and its moments -> solve on
the pilot -> polish on all rows with the exact gradient and the pilot's Hessian -> certificate, warnings, report.
"""

import contextlib
import functools
import time
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from daskdml import runtime
from daskdml.data import Partitioned, check_features, target_summary
from daskdml.kernels.compile import compile_seconds
from daskdml.kernels.csr import squared_column_sums
from daskdml.linear_model import _expected as expected
from daskdml.linear_model._expected import lasts, polishing_passes, step_seconds
from daskdml.linear_model._separable import has_separating_direction, is_blind_to_columns, separating_columns
from daskdml.objectives import Evaluator, LinearObjective
from daskdml.objectives.panels import in_phases
from daskdml.report import FitReport, Progress, Record
from daskdml.runtime import costs
from daskdml.runtime.checkpoint import digest_of
from daskdml.solvers import Newton, NewtonCG, ProxNewton, State, minimize
from daskdml.utils.portable import portable
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


# Parameters that change nothing of the answer, and the generator, whose seed stands for it.
_IDLE_PARAMS = ("verbose", "n_jobs", "random_state")


class Fit:
    """One fit under way: its run, its report, its clock.

    Attributes
    ----------
    run : daskdml.runtime Run
    report : FitReport
    features : namespace with ``n_features_in_`` and perhaps ``feature_names_in_``
    warnings : list of (str, category)
        To be issued where the user called.
    """

    def __init__(self, run, report, progress, features, *, what="", elapsed=0.0):
        self.run, self.report, self.progress, self.features = run, report, progress, features
        self.warnings = []
        self._what = what
        self._started, self._compiled = time.perf_counter() - elapsed, compile_seconds()

    def carry_out(self, body, n_passes, stacklevel, facts=()):
        """Return ``body(fit)``, a function that makes many passes: with this fit, or on ranks with theirs.

        Parameters
        ----------
        body : callable of a Fit
            Picklable, and a function of what its passes return.
        n_passes : float
            That it is expected to make: where few, it is not worth the start of ranks.
        stacklevel : int
            Of the warnings that it leaves behind, as seen from the caller.
        facts : object
            What else body computes with, beside rows and parameters: checkpoints must agree in it.
        """
        elapsed = time.perf_counter() - self._started
        found, report, texts = self.run.iterate(_Body(body, self, elapsed), n_passes, self._what + digest_of(facts))
        if report is not self.report:
            vars(self.report).update({**vars(report), "bytes_moved": self.run.bytes_moved})
            for record in report.records:
                self.progress.update(record)
            self.progress.finish(report)
        for text, category in texts:
            warnings.warn(text, category, stacklevel=stacklevel + 1)
        return found

    def record(self, stage, step, state, proposal):
        """Write down one point visited."""
        timings, value = self.run.timings, float(state.evaluation.value)
        compiled = self._compile_seconds()
        record = Record(
            step=step, stage=stage, passes=self.run.passes, seconds=time.perf_counter() - self._started - compiled,
            value=value, gap=proposal.gap / abs(value) if value else proposal.gap, violation=proposal.violation,
            seconds_compile=compiled, seconds_compute=timings["compute"], seconds_reduce=timings["reduce"],
            seconds_wait=timings["wait"], bytes_moved=self.run.bytes_moved, memory=_resident_bytes(),
        )  # fmt: skip
        self.report.append(record)
        self.progress.update(record)

    def foresee(self, n_passes, seconds_per_row, partial_bytes, step_seconds=0.0):
        """Write down when the fit will have ended, if that many passes over all rows are still to come.

        Parameters
        ----------
        n_passes : int
        seconds_per_row : float
            Of one thread in such a pass, as this fit has measured it on its sample.
        partial_bytes : int
            Of what a pass sums up.
        step_seconds : float, default 0.0
            Beside each pass, in this process.
        """
        run = self.run
        if run.mode == "stream" or run.by_columns:
            return  # such passes read, or send, what the sample did not
        load = costs.Load(n_passes, n_passes, 0, partial_bytes, seconds_per_row * run.n_samples, run.n_blocks)
        slots = costs.slots_of(run.n_workers, run.threads_per_worker, run.n_blocks)
        left = costs.passes_seconds(load, run.runtime, run.n_workers, slots) + n_passes * step_seconds
        self.report.predicted_seconds = time.perf_counter() - self._started - self._compile_seconds() + left

    def close(self, *, converged, stopped_because, n_iter):
        """Write down how it ended."""
        compiled = self._compile_seconds()
        self.report.close(
            converged=converged, stopped_because=stopped_because, n_iter=n_iter, passes=self.run.passes,
            seconds=time.perf_counter() - self._started - compiled, compile_seconds=compiled,
        )  # fmt: skip
        self.progress.finish(self.report)

    def _compile_seconds(self):
        return max(self.run.timings["compile"], compile_seconds() - self._compiled)

    def targets(self, kind):
        """Check y and weights in one pass over them, before any pass over X; return their `TargetSummary`."""
        return self.run.map_reduce(functools.partial(target_summary, kind=kind), reads_x=False).check()

    def refuse_nonfinite(self):
        """Raise for the first NaN or infinity in X; if there is none, the arithmetic overflowed."""
        self.run.locate_nonfinite()
        raise ValueError(
            "The objective is not finite although X is: its values are too large for float64 arithmetic. "
            "Divide the largest columns by their size, for example with daskdml.preprocessing.StandardScaler."
        )


class _Body:
    """A function of a run, which does with it what another does with a `Fit`; on a rank the fit is made anew."""

    def __init__(self, body, fit, elapsed):
        self.body, self.fit, self.elapsed = body, fit, elapsed
        self.estimator, self.features = fit.report.estimator, fit.features

    def __getstate__(self):
        return {**vars(self), "fit": None}

    def __call__(self, run):
        fit = self.fit
        if fit is None or run is not fit.run:
            report = FitReport(run.where, estimator=self.estimator)
            fit = Fit(run, report, Progress(), self.features, elapsed=self.elapsed)
        return self.body(fit), fit.report, fit.warnings


@contextlib.contextmanager
def fitting(estimator, X, y, sample_weight, *, verbose=0, gap=float("nan")):
    """Open a fit: check names and shapes, align the inputs, choose where to run and say so.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight : as given to its ``fit``
    verbose : int, default 0
    gap : float, default nan
        Relative gap at which the fit will stop: it tells the progress bar how far there is to go.

    Yields
    ------
    Fit
        Nothing of it is on the estimator yet: a fit that fails leaves the estimator as it was.
    """
    data, features = aligned(estimator, X, y, sample_weight)
    with Progress(int(verbose)) as progress, runtime.open(data) as run:
        report = FitReport(run.where, estimator=type(estimator).__name__)
        progress.start(run.where, gap)
        params = {name: repr(v) for name, v in estimator.get_params(deep=False).items() if name not in _IDLE_PARAMS}
        yield Fit(run, report, progress, features, what=f"{report.estimator}({params})")


def aligned(estimator, X, y, sample_weight):
    """Check names and shapes; return the inputs as `Partitioned`, and the namespace of features of `Fit`."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None; pass one target value for each row of X."
        )
    features = SimpleNamespace()
    data = Partitioned.from_any(X, y, sample_weight)
    check_features(features, X, reset=True)
    return data, features


class Solution(NamedTuple):
    """What `solve_linear` found, in the user's coordinates."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: int
    objective: LinearObjective
    theta: np.ndarray


def solve_linear(fit, loss, penalty, **problem):
    """Minimise what `_solve` is told of, wherever the rows are; returns its `Solution`.

    Takes ``random_state`` (None, int or generator; None is 0: two fits then agree bit for bit) for its seed.
    """
    run, q = fit.run, loss.n_outputs * (fit.run.n_features + problem["fit_intercept"])
    if is_small(run, q):
        n_passes = expected.NEWTON_PASSES
    else:
        n_passes = 1 + expected.polishing_passes(problem["tol"], q, pilot_size(run), penalty.smooth)
    # Drawn here, once: ranks that drew for themselves from one generator would draw different pilots.
    random_state = problem.pop("random_state", None)
    seed = 0 if random_state is None else as_seed(random_state)
    body = functools.partial(_solve, loss=loss, penalty=penalty, seed=seed, **problem)
    return fit.carry_out(body, n_passes, stacklevel=4, facts=(seed, problem.get("start")))


def _solve(
    fit, loss, penalty, *, total_weight, baseline, fit_intercept, tol, max_iter, seed=0, class_weight=None,
    intercept_scale=0.0, start=None,
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
    solver, model, theta = _choose_solver(fit, make, pilot, objective, theta, tol, is_blind, warm=start is not None)
    full = _PilotCurvature(objective, run, pilot) if run.by_columns else Evaluator(objective, run)
    # The Hessian of one pilot is not worth renewing: it is kept, and corrected by secants.
    go = functools.partial(
        minimize, evaluators=full, tol=tol**2, max_iter=max_iter, to_rounding=small,
        renew_beyond=np.inf if run.by_columns else 0.25, on_step=functools.partial(_record, fit, "full"),
    )  # fmt: skip
    result = go(solver, state=State(theta, None, model))
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
    """Return (solver, model of the curvature, where to start) for the pass over all rows."""
    run, q = fit.run, objective.n_params
    exact, by_secants = _newtons(objective)
    if pilot is None:
        return (exact if is_hessian_affordable(run, q) else NewtonCG(objective, 1e-16)), None, theta
    by_products = NewtonCG(objective, 1e-16 if is_small(run, q) else tol**2)
    if not use_hessian(run, q, pilot.n_samples):
        return by_products, None, theta
    weight = pilot.map_reduce(functools.partial(_total_weight, objective.class_weight), reads_x=False)
    if is_blind or not weight > 0 or _rarest(pilot, objective.loss) < PILOT_ROWS_PER_CLASS:
        # A class hardly seen looks separable from the others: the pilot's optimum would lie at infinity.
        return by_products if run.by_columns else by_secants, None, theta
    model, theta, row_seconds = _solve_pilot(fit, pilot, make(weight), theta, warm)
    if not warm and lasts(q, pilot.n_samples):
        smooth = objective.penalty.smooth
        fit.foresee(polishing_passes(tol, q, pilot.n_samples, smooth), row_seconds, 8 * q, step_seconds(smooth))
    return by_secants, model, theta


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
    """Return (model, parameters, seconds a row of a pass); for a warm start the model at ``theta`` itself, and NaN.

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
    return exact.prepare(State(theta, evaluators.hessian(theta), None), evaluators).model, theta, row_seconds


def time_rows(run, walk):
    """Return what ``walk()`` does, and the seconds that one thread took in it for each row of the run that it read."""
    seconds, n_rows = run.busy_seconds, run.rows_read
    found = walk()
    return found, (run.busy_seconds - seconds) * run.n_threads / (run.rows_read - n_rows)


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


def coordinates(moments, layout, dtype, may_shift):
    """Return (center, deviation, how many deviations the farthest mean is from zero)."""
    mean, variance = moments.mean, moments.square / max(moments.n, 1)
    if layout == "csr" or not may_shift:
        size = np.sqrt(variance + (0 if layout == "csr" else mean**2))
        return None, size, 0.0
    # Kernels subtract it in the rows' own precision; what is added back to the intercept must be the same number.
    mean = mean.astype(dtype or np.float64).astype(np.float64)
    deviation = np.sqrt(variance)
    # A column that varies by rounding only is constant: dividing by its deviation would blow the rounding up.
    deviation[deviation <= 1e-12 * np.abs(mean)] = 0.0
    varies = deviation > 0
    far = np.max(np.abs(mean[varies]) / deviation[varies], initial=0.0)
    return mean, deviation, far


@portable
class _Moments(NamedTuple):
    """Column sums and centred squares of some rows (raw squares for CSR); they merge by Chan's update."""

    n: int
    total: np.ndarray
    square: np.ndarray

    @property
    def mean(self):
        return self.total / max(self.n, 1)

    @classmethod
    def of(cls, X):
        return cls(X.shape[0], *_sums_and_squares(X))

    def __add__(self, other):
        n = self.n + other.n
        if self.n == 0 or other.n == 0 or not self.square.size:
            return _Moments(n, self.total + other.total, self.square + other.square)
        delta = other.mean - self.mean
        between = delta**2 * (self.n * other.n / n)
        return _Moments(n, self.total + other.total, self.square + other.square + between)


class _ColumnMoments:
    """The `_Moments` of one block; each column for itself, see `daskdml.objectives.panels`."""

    phases = ("backward",)

    def __call__(self, block):
        return in_phases(self, block)

    def backward(self, X, columns, g):
        return _Moments.of(X)

    def join(self, partial, pieces):
        _, totals, squares = zip(*pieces)
        return _Moments(pieces[0].n, np.concatenate(totals), np.concatenate(squares))


column_moments = _ColumnMoments()


def _sums_and_squares(X):
    if sparse.issparse(X):
        # Squares about zero: sparse columns are scaled, not shifted. A mean of zero makes the merge add nothing.
        return np.zeros(X.shape[1]) + _nan_if_not_finite(X), squared_column_sums(X, np.ones(X.shape[0]))
    if hasattr(X, "get"):
        X = X.get()
    total = np.zeros(X.shape[1])
    square = np.zeros(X.shape[1])
    if X.shape[0] == 0:
        return total, square
    with np.errstate(all="ignore"):
        about = X[0].astype(np.float64)
        for start in range(0, X.shape[0], 4096):
            rows = X[start : start + 4096] - about
            total += rows.sum(axis=0)
            square += np.einsum("ij,ij->j", rows, rows)
        square -= total**2 / X.shape[0]
    return total + about * X.shape[0], np.maximum(square, 0.0)


def _nan_if_not_finite(X):
    return 0.0 if np.isfinite(X.data.sum()) else np.nan


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


def _resident_bytes():
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096
    except OSError:
        return 0
