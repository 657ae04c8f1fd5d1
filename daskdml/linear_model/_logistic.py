"""Logistic regression."""

import functools
import numbers
import warnings

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator

from daskdml.data import encode_classes
from daskdml.fitting import (
    Planned,
    ScoredByAccuracy,
    check_classes,
    class_weights,
    fitting,
    label_rows,
    log_probabilities,
    one_dimensional,
    planning,
    probabilities,
)
from daskdml.linear_model._base import LinearPredictor, StoredCoefficients, to_sklearn
from daskdml.linear_model._planning import expect_linear
from daskdml.linear_model._solving import solve_linear
from daskdml.losses import Logistic, Multinomial
from daskdml.penalties import ElasticNet
from daskdml.utils.params import Interval, Options, check_params

_SOLVERS = ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")


class LogisticRegression(Planned, StoredCoefficients, LinearPredictor, ScoredByAccuracy, BaseEstimator):
    """Classify by a logistic model of a linear map; scikit-learn's objective, parameters and attributes.

    Minimises, over coefficients W (and intercepts, which are not penalised)::

        C * sum_i weight_i * loss_i + (1 - l1_ratio) / 2 * ||W||_2^2 + l1_ratio * ||W||_1

    with ``loss_i = log(1 + exp(raw_i)) - y_i raw_i`` for two classes and ``log(sum_k exp(raw_ik)) - raw_{i, y_i}`` for
    more.

    Parameters
    ----------
    penalty : {"l2", "l1", "elasticnet", None}, default "deprecated"
        Deprecated, as in scikit-learn 1.8: use ``l1_ratio`` and ``C=inf``.
    C : float, default 1.0
        Inverse strength of the penalty, > 0; ``inf`` is no penalty.
    l1_ratio : float in [0, 1], default 0.0
        0 is L2, 1 is L1.
    dual : bool, default False
        Only with ``solver="liblinear"``, where it changes the algorithm and so nothing here.
    tol : float, default 1e-4
        The certified relative gap (objective - minimum) / objective is at most ``tol**2``: half the Newton decrement
        for L2, a duality gap with L1. Up to 20,000 rows the fit runs to rounding whatever ``tol``.
    fit_intercept : bool, default True
    intercept_scaling : float, default 1
        Only with ``solver="liblinear"``, whose objective penalises the intercept as the coefficient of a constant
        feature of this size.
    class_weight : dict, "balanced" or None, default None
        Multiplies the weight of each row by its class's; classes that a dict leaves out have 1. With all weight on one
        class only a penalised intercept ("liblinear"), or none, has a finite optimum: else `fit` raises.
    random_state : int, generator or None, default None
        Draws the pilot rows; changes the answer within ``tol``. None is a fixed draw.
    solver : {"lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"}, default "lbfgs"
        "liblinear" chooses its objective (see ``intercept_scaling``), for L2 or L1 only; the others are hints that
        change nothing. L1 and elastic net need no particular solver.
    max_iter : int, default 100
        Steps on all rows at most; fewer than needed warn.
    verbose : int, default 0
        1 draws a progress bar.
    warm_start : bool, default False
        Start from the fitted coefficients.
    n_jobs : None
        Deprecated, as in scikit-learn 1.8; threads come from ``daskdml.config_context(n_threads=...)``.
    strategy : daskdml.strategies.ParameterServer or None, default None
        Lets ranks come near the optimum at their own pace, before they find it together: see Notes. None has them in
        step from the first pass on, which is as fast.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features), float64
    intercept_ : ndarray of shape (1,) or (n_classes,), float64
    n_iter_ : ndarray of shape (1,), int32
        Steps on all rows.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X had string column names.
    fit_report_ : FitReport
        Where it ran, what each step cost, the certified gap.

    Notes
    -----
    Newton's method: solved on a pilot (at most a tenth of the rows, drawn by row-id hash), then polished on all rows
    with the exact gradient and the pilot's Hessian, 3 to 4 passes over X while the pilot has 200 rows a parameter. A
    pass sends one vector of n_params numbers per worker and memory beside X is the pilot plus a Hessian a thread. With
    more than 3,000 parameters (500 on CSR) Newton steps are solved by conjugate gradients, a pass per product.

    With a ``strategy`` each rank pushes the gradient of its rows as soon as it has it, and goes on from what all have
    pushed (`daskdml.solvers.apart`); when each has done so about as often as there are passes otherwise, the last
    passes are in step and certify the gap as ever. Nobody waits for the slowest of each pass, and quick ranks make more
    of them, which comes to about the same time. Rows stay where they are. It acts where a pilot's Hessian does and
    several ranks hold the rows; else ``fit_report_.notes`` says why not.

    Separable data without a penalty have no optimum: a `ConvergenceWarning` says so, also where only some rows are
    told apart, as by a rare category that all have one class.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=200).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> round(model.score(X, y), 2)
    0.97
    """

    _constraints = {
        "penalty": [Options({"l1", "l2", "elasticnet", "deprecated"}), None],
        "C": [Interval(numbers.Real, 0, None, "neither")],
        "l1_ratio": [Interval(numbers.Real, 0, 1), None],
        "dual": ["boolean"],
        "tol": [Interval(numbers.Real, 0, None, "left")],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(numbers.Real, 0, None, "neither")],
        "class_weight": [dict, Options({"balanced"}), None],
        "random_state": ["random_state"],
        "solver": [Options(set(_SOLVERS))],
        "max_iter": [Interval(numbers.Integral, 0, None)],
        "verbose": ["boolean", Interval(numbers.Integral, 0, None)],
        "warm_start": ["boolean"],
        "n_jobs": [None, numbers.Integral],
    }

    def __init__(
        self, penalty="deprecated", *, C=1.0, l1_ratio=0.0, dual=False, tol=1e-4, fit_intercept=True,
        intercept_scaling=1, class_weight=None, random_state=None, solver="lbfgs", max_iter=100, verbose=0,
        warm_start=False, n_jobs=None, strategy=None,
    ):  # fmt: skip
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.strategy = strategy

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
            float32 is kept as float32.
        y : array_like, Series or Dask collection, shape (n_samples,)
            Numbers, booleans or strings.
        sample_weight : the same, shape (n_samples,), or a number for every row, optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, y, weights or shapes before the first pass over X; for NaN or infinity in X after it.
        """
        check_params(self, self._constraints)
        C, l1_ratio = self._strength()
        self._check_strategy()
        y = one_dimensional(y)
        with fitting(self, X, y, sample_weight, verbose=self.verbose, gap=self.tol**2) as fit:
            summary = fit.targets("classes")
            classes = summary.classes
            weights, by_class = self._check_targets(summary, C)
            fit.run.transform_targets(functools.partial(encode_classes, classes))
            total = float(weights.sum())
            solution = self._solve(fit, classes, weights, total, by_class, C, l1_ratio)
        self.classes_ = classes
        self.coef_, self.intercept_ = solution.coef, solution.intercept
        self.n_iter_ = np.array([solution.n_iter], dtype=np.int32)
        self.fit_report_ = fit.report
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(fit.features))
        return self

    def _plan(self, X, y, sample_weight):
        check_params(self, self._constraints)
        C, l1_ratio = self._strength()
        y = one_dimensional(y)
        with planning(self, X, y, sample_weight) as plan:
            summary = plan.targets("classes")
            if plan.sample.everything is not None:
                self._check_targets(summary, C)
            plan.sample.transform_targets(functools.partial(encode_classes, summary.classes))
            k = max(2, len(summary.classes))
            penalty = ElasticNet() if np.isinf(C) else ElasticNet(l1=l1_ratio, l2=1 - l1_ratio)
            loss = Logistic() if k == 2 else Multinomial(k)
            found = expect_linear(plan, loss, penalty, fit_intercept=self.fit_intercept, tol=self.tol)
            return plan.finish(self, found)

    def _check_targets(self, summary, C):
        """Refuse classes and weights that have no optimum; return (weight of each class, its factor or None)."""
        classes = summary.classes
        self._check_classes(classes)
        by_class = class_weights(self.class_weight, summary)
        weights = summary.weights if by_class is None else summary.weights * by_class
        self._check_weights(classes, weights, C)
        return weights, by_class

    def _solve(self, fit, classes, weights, total, by_class, C, l1_ratio):
        k = len(classes)
        strength = 0.0 if np.isinf(C) else 1.0 / (C * total)
        penalty = ElasticNet(l1=l1_ratio * strength, l2=(1 - l1_ratio) * strength)
        # A class without weight would start at minus infinity.
        share = np.maximum(weights / total, 1e-10)
        loss = Logistic() if k == 2 else Multinomial(k)
        liblinear = self.solver == "liblinear" and self.fit_intercept
        solution = solve_linear(
            fit, loss, penalty, total_weight=total, fit_intercept=self.fit_intercept,
            baseline=loss.baseline(min(share[1], 1 - 1e-10)) if k == 2 else loss.baseline(share),
            tol=self.tol, max_iter=self.max_iter, random_state=self.random_state, class_weight=by_class,
            intercept_scale=1.0 / self.intercept_scaling if liblinear else 0.0,
            start=self._start(fit, k), strategy=self.strategy,
        )  # fmt: skip
        return _symmetric(solution, penalty) if k > 2 else solution

    def _start(self, fit, k):
        rows = 1 if k == 2 else k
        if not self.warm_start or getattr(self, "coef_", np.empty((0, 0))).shape != (rows, fit.run.n_features):
            return None
        coef = self.coef_.toarray() if sparse.issparse(self.coef_) else self.coef_
        return coef, self.intercept_ if self.fit_intercept else np.zeros(rows)

    def _strength(self):
        """Return (C, l1_ratio) that say the same as the deprecated spellings; warn and raise as scikit-learn does."""
        C, l1_ratio, penalty = self.C, self.l1_ratio, self.penalty
        if self.n_jobs is not None:
            warnings.warn(
                f"'n_jobs' has no effect, as in scikit-learn since 1.8 (got {self.n_jobs}); leave it unspecified, and "
                "choose threads by daskdml.config_context(n_threads=...).",
                FutureWarning, stacklevel=3,
            )  # fmt: skip
        if penalty == "deprecated":
            if l1_ratio is None:
                warnings.warn(
                    "'l1_ratio=None' is deprecated, as in scikit-learn since 1.8; use l1_ratio=0.0, which is the same.",
                    FutureWarning, stacklevel=3,
                )  # fmt: skip
        else:
            warnings.warn(
                "'penalty' is deprecated, as in scikit-learn since 1.8: use l1_ratio=0 for 'l2', l1_ratio=1 for 'l1', "
                "0 < l1_ratio < 1 for 'elasticnet', and C=np.inf for None.",
                FutureWarning, stacklevel=3,
            )  # fmt: skip
            if penalty == "elasticnet" and l1_ratio is None:
                raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
            if penalty is None and C != 1.0:
                warnings.warn("Setting penalty=None will ignore the C and l1_ratio parameters", stacklevel=3)
        self._warn_of_unused_ratio()
        C, l1_ratio = self._effective()
        if self.solver == "liblinear" and np.isinf(C):
            raise ValueError("C=np.inf as well as penalty=None is not supported for the liblinear solver")
        if self.solver == "liblinear" and 0 < l1_ratio < 1:
            raise ValueError(
                f"solver='liblinear' supports an L2 or an L1 penalty only, got elastic net (l1_ratio={l1_ratio}); use "
                "l1_ratio=0 or 1, or another solver."
            )
        if self.dual and (self.solver != "liblinear" or l1_ratio != 0):
            raise ValueError(
                f"dual=True goes with solver='liblinear' and an L2 penalty only, got solver={self.solver!r} and "
                f"l1_ratio={l1_ratio}; leave dual=False."
            )
        return C, l1_ratio

    def _effective(self):
        """Return (C, l1_ratio) that say the same as the deprecated spellings."""
        C = np.inf if self.penalty is None else self.C
        ratios = {"l1": 1.0, "l2": 0.0, None: 0.0}
        return C, ratios.get(self.penalty, 0.0 if self.l1_ratio is None else self.l1_ratio)

    def _warn_of_unused_ratio(self):
        """Warn where ``l1_ratio`` has no effect or contradicts ``penalty``, in the cases in which scikit-learn does."""
        ratio, penalty = self.l1_ratio, self.penalty
        none = penalty is None or (penalty == "deprecated" and np.isinf(self.C))
        if ratio is not None and 0 < ratio < 1 and (none or penalty in ("l1", "l2")):
            warnings.warn(
                f"l1_ratio={ratio} has no effect {'without a penalty' if none else f'with penalty={penalty!r}'}: the "
                "l1_ratio parameter is only used when penalty is 'elasticnet'. Leave it at its default.",
                stacklevel=4,
            )  # fmt: skip
        if (penalty == "l2" and ratio != 0) or (penalty == "l1" and ratio != 1):
            warnings.warn(
                f"Inconsistent values: penalty={penalty!r} with l1_ratio={ratio}; penalty decides. It is deprecated: "
                "use l1_ratio only.",
                stacklevel=4,
            )  # fmt: skip

    def _check_strategy(self):
        strategy = self.strategy
        if strategy is None:
            return
        if isinstance(strategy, type) or not hasattr(strategy, "check_exact"):
            raise ValueError(
                "strategy must be a daskdml.strategies.ParameterServer(...), or None, which has all ranks in step; got "
                f"{strategy!r}."
            )
        strategy.check(self)
        strategy.check_exact()

    def _check_classes(self, classes):
        check_classes(classes)
        if self.solver == "liblinear" and len(classes) > 2:
            raise ValueError(
                "The 'liblinear' solver does not support multiclass classification (n_classes >= 3). Either use "
                "another solver or wrap the estimator in a OneVsRestClassifier to keep applying a one-versus-rest "
                "scheme."
            )

    def _check_weights(self, classes, weights, C):
        """Refuse weights with which the intercept would grow without end."""
        weighty = np.flatnonzero(weights)
        penalised = np.isfinite(C) and (self.solver == "liblinear" or not self.fit_intercept)
        if not len(weighty):
            raise ValueError(
                f"The weights of all rows are zero with class_weight={self.class_weight!r}; give at least one class "
                "that y holds a weight above 0."
            )
        if len(weighty) < 2 and not penalised:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but all the weight is on the class "
                f"{classes.tolist()[weighty[0]]!r}, for which an unpenalised intercept would grow without end. Give "
                "another class a weight above 0."
            )

    def decision_function(self, X):
        """Return raw values: the log-odds of ``classes_[1]`` for two classes, one value per class for more.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes); lazy on Dask input, with its chunks and index
        """
        if len(getattr(self, "classes_", ())) > 2:
            return self._map_rows(X, None, kind="matrix", columns=self.classes_)
        return self._map_rows(X, np.ravel, kind="vector", name="decision")

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,); lazy on Dask input, with its chunks and index
        """
        classes = getattr(self, "classes_", None)
        dtype = None if classes is None else classes.dtype
        return self._map_rows(X, functools.partial(label_rows, classes), kind="vector", dtype=dtype, name="prediction")

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input: a dask.dataframe gives one with a column per class
        """
        return self._map_rows(X, probabilities, kind="matrix", columns=getattr(self, "classes_", None))

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`, finite where that rounds to zero.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        return self._map_rows(X, log_probabilities, kind="matrix", columns=getattr(self, "classes_", None))

    def to_sklearn(self):
        """Return a fitted ``sklearn.linear_model.LogisticRegression`` with the same coefficients.

        It can be fitted again: where its solver could not minimise this objective, it has ``solver="saga"``.
        """
        from sklearn.linear_model import LogisticRegression as Twin

        C, l1_ratio = self._effective()
        needs_saga = np.isfinite(C) and l1_ratio > 0 and self.solver != "liblinear"
        return to_sklearn(self, Twin, **({"solver": "saga"} if needs_saga else {}))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _symmetric(solution, penalty):
    """Choose, of the many parameters with the same probabilities, those that sum to zero over classes.

    The same number added to all classes' raw values changes nothing: intercepts are free up to it, and without a
    penalty coefficients too.
    """
    coef = solution.coef - solution.coef.mean(axis=0) if penalty.is_zero else solution.coef
    return solution._replace(coef=coef, intercept=solution.intercept - solution.intercept.mean())
