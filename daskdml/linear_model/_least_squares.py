"""Least squares and ridge regression: one pass over X through the Gram matrix."""

import functools
import numbers
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin
from sklearn.exceptions import ConvergenceWarning

from daskdml.fitting import Expected, Planned, ScoredByR2, fitting, planning, time_rows
from daskdml.linear_model import _expected as expected
from daskdml.linear_model._base import LinearPredictor, to_sklearn
from daskdml.linear_model._moments import column_moments
from daskdml.linear_model._planning import planned_moments
from daskdml.objectives.least_squares import Gram, GramPass, SlopePass
from daskdml.solvers.gram import GramSolver, solve_nonnegative, solve_products
from daskdml.utils.params import Interval, Options, check_params

# Beyond this many features a Gram matrix (8 p^2 bytes a thread, n p^2 multiplications) costs more than passes of
# products.
GRAM_FEATURES, GRAM_FEATURES_CSR = 5_000, 3_000
# Condition number of the design beyond which the Gram matrix has lost digits that a residual pass gives back.
REFINE_BEYOND = 1e5
_MOST_REFINEMENTS = 6
_SHIFT_ROWS = 1_000
_UNITS = 64
# Of all rows: so few may be walked once more, to say how long all will take.
_FORESEEN_SHARE = 0.01
# Relative error of coefficients that conjugate gradients go for at most.
_FINEST = 1e-10


class _Solution(NamedTuple):
    coef: np.ndarray  # (t, p)
    intercept: np.ndarray  # (t,)
    rank: int | None
    singular: np.ndarray | None
    n_iter: int | None


class _LeastSquares(Planned, LinearPredictor, MultiOutputMixin, ScoredByR2, BaseEstimator):
    """What `LinearRegression` and `Ridge` share: the fit by Gram matrix and the prediction."""

    def _fit(self, X, y, sample_weight, *, alpha, tol, max_iter, cut=0.0):
        """Minimise ``sum_i weight_i |y_i - x_i W - b|^2 + sum_t alpha_t |W_t|^2`` and set the attributes."""
        y = np.asarray(y) if isinstance(y, (list, tuple)) else y
        with fitting(self, X, y, sample_weight) as fit:
            summary = fit.targets("values")
            shape = np.shape(summary.low)
            n_targets = shape[0] if shape else 1
            alpha = _per_target(alpha, n_targets)
            mean_y = np.reshape(summary.total, -1) / summary.weight
            if self._uses_gram(fit.run):
                body, n_passes = functools.partial(self._by_gram, alpha=alpha, mean_y=mean_y, cut=cut), 1
            else:
                body = functools.partial(self._by_products, alpha=alpha, mean_y=mean_y, tol=tol, max_iter=max_iter)
                n_passes = expected.GRAM_PRODUCTS
            solution = fit.carry_out(body, n_passes, stacklevel=3)
        self.coef_ = solution.coef if shape else solution.coef[0]
        self.intercept_ = solution.intercept if shape else float(solution.intercept[0])
        if not self.fit_intercept:
            self.intercept_ = 0.0
        self.fit_report_ = fit.report
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(fit.features))
        return solution

    def _uses_gram(self, run):
        return self.positive or run.n_features <= (GRAM_FEATURES_CSR if run.layout == "csr" else GRAM_FEATURES)

    def _plan_sums(self, X, y, sample_weight, *, alpha, singular):
        y = np.asarray(y) if isinstance(y, (list, tuple)) else y
        with planning(self, X, y, sample_weight) as plan:
            summary, sample = plan.targets("values"), plan.sample
            n_targets = np.size(summary.low)
            _per_target(alpha, n_targets)
            moments, n, width = planned_moments(plan), sample.n_samples, sample.n_features + n_targets
            shifted = self.fit_intercept and sample.layout != "csr"
            center = np.zeros(width)
            center[: sample.n_features] = moments.mean if shifted else 0.0
            few = min(_SHIFT_ROWS, n) * shifted
            if self._uses_gram(sample):
                # Sums of squares are symmetric: half the multiplications.
                n_passes, fn, work, size = 1, GramPass(center), width**2 // 2, width**2
                solve = (expected.SOLVE_SINGULAR if singular else expected.SOLVE) * width**3
            else:
                W = np.zeros((sample.n_features, n_targets))
                fn = SlopePass(W, np.zeros(n_targets), center[: sample.n_features])
                n_passes, work, size, few, solve = expected.GRAM_PRODUCTS, 2 * width, W.size, 0, 0.0
            found = Expected(
                1 + (few > 0) + n_passes, n_passes, fn, work, n * sample.seconds_per_row(fn, work), 8 * size, few,
                (1 + (few < n)) * few / n, few * sample.seconds_per_row(column_moments), solve,
            )  # fmt: skip
            return plan.finish(self, found)

    def _by_gram(self, fit, alpha, mean_y, cut):
        run, p, t = fit.run, fit.run.n_features, len(mean_y)
        shift, few = self._shift(fit)
        center = np.concatenate([shift, mean_y if self.fit_intercept else np.zeros(t)])
        if few is not None and not run.by_columns and few.n_samples <= _FORESEEN_SHARE * run.n_samples:
            _, row_seconds = time_rows(few, lambda: few.map_reduce(GramPass(center)), repetitions=3)
            fit.foresee(1, row_seconds, 8 * (p + t) ** 2)
        gram = _gram_of_panels(run, center) if run.by_columns else run.map_reduce(GramPass(center))
        if not np.isfinite(gram.square).all():
            fit.refuse_nonfinite()
        square = gram.square
        if self.fit_intercept:
            square = square - np.outer(gram.total, gram.total) / gram.weight
        G, B = square[:p, :p], square[:p, p:]
        solvers = {a: GramSolver(G, a, cut) for a in set(alpha.tolist())}
        if self.positive:
            W = np.column_stack([solve_nonnegative(G, B[:, k], alpha[k]) for k in range(t)])
        else:
            W = np.column_stack([solvers[alpha[k]].solve(B[:, k]) for k in range(t)])
            if max(s.condition for s in solvers.values()) > REFINE_BEYOND:
                W = self._refine(run, W, solvers, alpha, gram, center)
        mean = center + gram.total / gram.weight
        intercept = mean[p:] - mean[:p] @ W if self.fit_intercept else np.zeros(t)
        self._record(fit, gram, G, B, W, alpha, p)
        fit.close(converged=True, stopped_because="direct", n_iter=1)
        solver = solvers[alpha[0]]
        singular = None if solver.singular is None else solver.singular[: min(run.n_samples, p)]
        return _Solution(W.T, intercept, solver.rank, singular, None)

    def _refine(self, run, W, solvers, alpha, gram, center):
        """Correct W by the gradient of its own residuals, computed from the rows: iterative refinement.

        A pass shrinks the error by about eps * condition^2: one is enough up to 1e6, a few up to 1e7.
        """
        p = len(W)
        shift = center[:p] + gram.total[:p] / gram.weight if self.fit_intercept else center[:p]
        target = center[p:] + gram.total[p:] / gram.weight if self.fit_intercept else center[p:]
        worst = max(s.condition for s in solvers.values())
        for _ in range(1 if worst < 10 * REFINE_BEYOND else _MOST_REFINEMENTS):
            slope = run.map_reduce(SlopePass(W, target, shift))
            gradient = slope.gradient - alpha * W
            if self.fit_intercept:
                gradient = gradient - np.outer(slope.total, slope.residual) / slope.weight
            step = np.column_stack([solvers[a].solve(gradient[:, k]) for k, a in enumerate(alpha)])
            W = W + step
            if np.abs(step).max(initial=0.0) <= 1e-9 * np.abs(W).max(initial=0.0):
                break
        return W

    def _shift(self, fit):
        """Return (the mean of some rows, these rows); (zero, None) where rows may not be shifted."""
        run = fit.run
        if not self.fit_intercept or run.layout == "csr":
            return np.zeros(run.n_features), None
        n = min(_SHIFT_ROWS, run.n_samples)
        few = run if n == run.n_samples else run.pilot(n, 0)
        moments = few.map_reduce(column_moments)
        if not np.isfinite(moments.total).all():
            fit.refuse_nonfinite()
        return moments.mean, few

    def _by_products(self, fit, alpha, mean_y, tol, max_iter):
        """Solve the normal equations by conjugate gradients: for more features than a Gram matrix can have."""
        run, p, t = fit.run, fit.run.n_features, len(mean_y)
        nothing, no_b = np.zeros((p, t)), np.zeros(t)
        center = np.zeros(p)
        if self.fit_intercept:
            first = run.map_reduce(SlopePass(nothing, mean_y, center))
            center = first.total / first.weight
        slope = run.map_reduce(SlopePass(nothing, mean_y if self.fit_intercept else no_b, center))
        if not np.isfinite(slope.gradient).all():
            fit.refuse_nonfinite()

        def product(V):
            return alpha * V - run.map_reduce(SlopePass(V, no_b, center, with_targets=False)).gradient

        def on_step(n_iter, W, residual):
            value = 0.5 * float((slope.square - ((slope.gradient + residual) * W).sum(axis=0)).sum())
            fit.record("full", n_iter, _At(max(value, 0.0)), _Left(np.nan, float(np.abs(residual).max(initial=0.0))))

        goal = max(min(tol, 1e-4) ** 2, _FINEST)
        found = solve_products(product, slope.gradient, tol=goal, max_iter=max_iter or 1000, on_step=on_step)
        converged = found.error <= goal
        fit.close(converged=converged, stopped_because="tol" if converged else "max_iter", n_iter=found.n_iter)
        if not converged:
            fit.warnings.append((
                f"{type(self).__name__} stopped after {found.n_iter} steps of conjugate gradients with coefficients "
                f"that may be off by {found.error:.0e} of their norm; raise max_iter, raise tol, or scale the columns "
                "of X.",
                ConvergenceWarning,
            ))  # fmt: skip
        intercept = mean_y - center @ found.W if self.fit_intercept else no_b
        return _Solution(found.W.T, intercept, None, None, found.n_iter)

    def _record(self, fit, gram, G, B, W, alpha, p):
        """Write down the objective reached, and the violation of the normal equations."""
        yy = np.diag(gram.square)[p:] - (gram.total[p:] ** 2 / gram.weight if self.fit_intercept else 0.0)
        value = 0.5 * float((yy - 2 * (B * W).sum(axis=0) + (W * (G @ W + alpha * W)).sum(axis=0)).sum())
        violation = float(np.abs(G @ W + alpha * W - B).max(initial=0.0))
        fit.record("full", 0, _At(max(value, 0.0)), _Left(float("nan"), violation))

    def predict(self, X):
        """Return ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_targets); lazy on Dask input, with its chunks and index
        """
        if np.ndim(getattr(self, "coef_", None)) == 2:
            columns = [f"target{k}" for k in range(len(self.coef_))]
            return self._map_rows(X, None, kind="matrix", columns=columns)
        return self._map_rows(X, None, kind="vector", name="prediction")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _gram_of_panels(run, center):
    """Return the `Gram` of columns that lie apart: products with some unit vectors at a time.

    What travels is `_UNITS` numbers a row and pass, as many bytes in all as X has in float64, and no worker keeps them.
    Conjugate gradients would send less, but cannot tell a direction that the rank cut leaves out from one that they
    have not reached: they gave coefficients of 1e4 where the answer is 0.5.
    """
    p, t = run.n_features, len(center) - run.n_features
    first = run.map_reduce(SlopePass(np.zeros((p, t)), center[p:], center[:p]))
    square = np.zeros((p + t, p + t))
    square[:p, p:], square[p:, p:] = first.gradient, np.diag(first.square)
    for some in np.split(np.eye(p), range(_UNITS, p, _UNITS), axis=1):
        slope = run.map_reduce(SlopePass(some, np.zeros(some.shape[1]), center[:p], with_targets=False))
        square[:p, :p] -= slope.gradient @ some.T
    return Gram(first.weight, np.concatenate([first.total, first.residual]), square)


class _At:
    """A point for the record: only its value is known."""

    def __init__(self, value):
        self.evaluation = self
        self.value = value


class _Left(NamedTuple):
    """What is left to gain at it."""

    gap: float
    violation: float


def _per_target(alpha, n_targets):
    alpha = np.asarray(alpha, dtype=np.float64).ravel()
    if alpha.size not in (1, n_targets):
        raise ValueError(
            f"Number of targets and number of penalties do not correspond: {alpha.size} != {n_targets}"
        )
    return np.broadcast_to(alpha, (n_targets,))


class LinearRegression(_LeastSquares):
    """Ordinary least squares; scikit-learn's objective, parameters and attributes.

    Minimises ``sum_i weight_i |y_i - x_i @ W - b|^2``; where many W do, the one of least norm.

    Parameters
    ----------
    fit_intercept : bool, default True
    copy_X : bool, default True
        Kept for compatibility: X is never written to.
    tol : float, default 1e-6
        Directions of X whose singular value is at most this share of the largest are left out, as in scikit-learn 1.9:
        of many solutions, the one of least norm. With more than 5,000 features (3,000 on CSR), where no such direction
        is left out, the estimated error of the coefficients is at most ``max(tol**2, 1e-10)`` of their norm.
    n_jobs : None or int, default None
        A hint that changes nothing: threads come from ``daskdml.config_context(n_threads=...)``.
    positive : bool, default False
        Force coefficients to be >= 0.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features), float64
    intercept_ : float or ndarray of shape (n_targets,)
    rank_ : int
        Rank of the (centred) X, dense X only.
    singular_ : ndarray of shape (min(n_samples, n_features),)
        Singular values of the (centred) X, dense X only; those below 1e-8 of the largest are rounding.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
    fit_report_ : FitReport

    Notes
    -----
    One pass over X for the Gram matrix, a second one where the condition number exceeds 1e5, a few where it exceeds 1e6
    (iterative refinement: the Gram matrix squares it). n * p^2 multiplications; p^2 numbers travel per worker. Where
    the columns of a row lie on different workers, one pass per 64 columns, in which 64 numbers a row travel. Directions
    of X below 1e-7 of the largest are left out whatever ``tol``.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 1], [1, 2], [2, 2], [2, 3]])
    >>> model = LinearRegression().fit(X, X @ [1, 2] + 3)
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([1., 2.]), 3.0)
    """

    _constraints = {
        "fit_intercept": ["boolean"],
        "copy_X": ["boolean"],
        "tol": [Interval(numbers.Real, 0, None, "left")],
        "n_jobs": [None, numbers.Integral],
        "positive": ["boolean"],
    }

    def __init__(self, *, fit_intercept=True, copy_X=True, tol=1e-6, n_jobs=None, positive=False):
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs
        self.positive = positive

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
        y : array_like, Series, DataFrame or Dask collection, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array_like or Dask collection, shape (n_samples,), or a number for every row, optional

        Returns
        -------
        self
        """
        check_params(self, self._constraints)
        # A cut of zero would ask for no singular values; one this small cuts nothing.
        solution = self._fit(
            X, y, sample_weight, alpha=0.0, tol=self.tol, max_iter=None, cut=max(self.tol, np.finfo(float).tiny)
        )
        vars(self).pop("rank_", None)
        vars(self).pop("singular_", None)
        if solution.rank is not None:
            self.rank_, self.singular_ = solution.rank, solution.singular
        return self

    def _plan(self, X, y, sample_weight):
        check_params(self, self._constraints)
        return self._plan_sums(X, y, sample_weight, alpha=0.0, singular=True)

    def to_sklearn(self):
        """Return a fitted ``sklearn.linear_model.LinearRegression`` with the same coefficients."""
        from sklearn.linear_model import LinearRegression as Twin

        return to_sklearn(self, Twin)


_RIDGE_SOLVERS = ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs")


class Ridge(_LeastSquares):
    """Least squares with an L2 penalty; scikit-learn's objective, parameters and attributes.

    Minimises ``sum_i weight_i |y_i - x_i @ W - b|^2 + alpha |W|^2``.

    Parameters
    ----------
    alpha : float or array_like of shape (n_targets,), default 1.0
        Strength of the penalty, >= 0, one for all targets or one each.
    fit_intercept : bool, default True
    copy_X : bool, default True
        Kept for compatibility: X is never written to.
    max_iter : int or None, default None
        Steps of conjugate gradients at most (None: 1000); acts with more than 5,000 features (3,000 on CSR) only.
    tol : float, default 1e-4
        Acts where max_iter does: the estimated error of the coefficients is at most ``tol**2`` of their norm (1e-10 at
        the finest).
    solver : {"auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs"}, default "auto"
        A hint that changes nothing, but for "lbfgs", which like in scikit-learn needs ``positive=True``.
    positive : bool, default False
        Force coefficients to be >= 0.
    random_state : int, generator or None, default None
        Changes nothing: nothing is drawn.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features), float64
    intercept_ : float or ndarray of shape (n_targets,)
    n_iter_ : ndarray of shape (n_targets,)
        1 for the direct solution, for which scikit-learn has None.
    solver_ : str
        "cholesky" (Gram matrix), "sparse_cg" (products) or "lbfgs" (``positive=True``): scikit-learn's name of what was
        done.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
    fit_report_ : FitReport

    Notes
    -----
    As for `LinearRegression`: one pass, a second one where the condition number exceeds 1e5.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0], [0, 0], [1, 1]])
    >>> Ridge(alpha=0.5).fit(X, [0.0, 0.1, 1]).coef_.round(4)
    array([0.3455, 0.3455])
    """

    _constraints = {
        "alpha": [Interval(numbers.Real, 0, np.inf, "left"), "array-like"],
        "fit_intercept": ["boolean"],
        "copy_X": ["boolean"],
        "max_iter": [Interval(numbers.Integral, 1, None), None],
        "tol": [Interval(numbers.Real, 0, None, "left")],
        "solver": [Options(set(_RIDGE_SOLVERS))],
        "positive": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self, alpha=1.0, *, fit_intercept=True, copy_X=True, max_iter=None, tol=1e-4, solver="auto", positive=False,
        random_state=None,
    ):  # fmt: skip
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.positive = positive
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
        y : array_like, Series, DataFrame or Dask collection, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array_like or Dask collection, shape (n_samples,), or a number for every row, optional

        Returns
        -------
        self
        """
        alpha = self._checked_alpha()
        solution = self._fit(X, y, sample_weight, alpha=alpha, tol=self.tol, max_iter=self.max_iter)
        if self.coef_.shape[:-1] == (1,):
            self.coef_ = self.coef_[0]  # scikit-learn's Ridge has it so for y of shape (n, 1), its LinearRegression not
        by_products = solution.rank is None
        self.solver_ = "lbfgs" if self.positive else "sparse_cg" if by_products else "cholesky"
        self.n_iter_ = np.full(len(solution.coef), solution.n_iter if by_products else 1, dtype=np.int32)
        return self

    def _plan(self, X, y, sample_weight):
        return self._plan_sums(X, y, sample_weight, alpha=self._checked_alpha(), singular=False)

    def _checked_alpha(self):
        """Check all parameters; return alpha as an array."""
        check_params(self, self._constraints)
        alpha = np.asarray(self.alpha)
        if alpha.dtype.kind not in "fiub" or not (np.isfinite(alpha).all() and (alpha >= 0).all()):
            raise ValueError(f"alpha must hold finite numbers >= 0, got {self.alpha!r}.")
        if self.solver == "lbfgs" and not self.positive:
            raise ValueError(
                "'lbfgs' solver can be used only when positive=True. Please use another solver."
            )
        if self.positive and self.solver not in ("auto", "lbfgs"):
            raise ValueError(
                f"solver='{self.solver}' does not support positive fitting. Please set the solver to 'auto' or "
                "'lbfgs', or set `positive=False`"
            )
        return alpha

    def to_sklearn(self):
        """Return a fitted ``sklearn.linear_model.Ridge`` with the same coefficients."""
        from sklearn.linear_model import Ridge as Twin

        return to_sklearn(self, Twin)
