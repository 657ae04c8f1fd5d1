"""Linear models by stochastic gradient descent, a step a row."""

import functools
import numbers
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if

from daskdml.data import as_matrix, check_features, encode_classes, whole_rows
from daskdml.fitting import (
    ScoredByAccuracy,
    ScoredByR2,
    check_classes,
    class_weights,
    fitting,
    label_rows,
    one_dimensional,
)
from daskdml.kernels.sequential import LOSSES, PENALTIES, Settings, new_state, settle
from daskdml.linear_model._base import LinearPredictor, StoredCoefficients, check_fitted, to_sklearn
from daskdml.losses import Logistic
from daskdml.programs.training import TrainingProgram
from daskdml.report import Record
from daskdml.runtime.checkpoint import digest_of
from daskdml.training import as_trained
from daskdml.training.sequential import SequentialTraining, schedule_of
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

_INT, _REAL = numbers.Integral, numbers.Real
# As of networks: up to so many bytes rows are put in a random order first.
MIXED_BYTES = 1 << 30
_MIXED_COLUMNS = 1000
_SMOOTH = ("log_loss", "modified_huber")
CONSTRAINTS = {
    "penalty": [Options({p for p in PENALTIES if p}), None],
    "alpha": [Interval(_REAL, 0, None, "left")],
    "l1_ratio": [Interval(_REAL, 0, 1), None],
    "fit_intercept": ["boolean"],
    "max_iter": [Interval(_INT, 1, None)],
    "tol": [Interval(_REAL, 0, None, "left"), None],
    "shuffle": ["boolean", Options({"rows"})],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "epsilon": [Interval(_REAL, 0, None, "left")],
    "random_state": ["random_state"],
    "learning_rate": [Options({"constant", "optimal", "invscaling", "adaptive", "pa1", "pa2"})],
    "eta0": [Interval(_REAL, 0, None, "neither")],
    "power_t": [Interval(_REAL, None, None, "neither")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(_REAL, 0, 1, "neither")],
    "n_iter_no_change": [Interval(_INT, 1, None)],
    "warm_start": ["boolean"],
    "average": ["boolean", Interval(_INT, 0, None)],
}


class DescendedModel(StoredCoefficients, LinearPredictor, BaseEstimator):
    """A linear model that takes a step a row; see `SGDClassifier` and `SGDRegressor`."""

    _constraints: dict = {}

    def fit(self, X, y, coef_init=None, intercept_init=None, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
        y : array_like, Series or Dask collection, shape (n_samples,)
        coef_init : array_like, optional
            To begin with, of the shape of ``coef_``.
        intercept_init : array_like, optional
        sample_weight : as y, or a number for every row, optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, y, weights or shapes, and for NaN or infinity in X.
        """
        return self._fit(X, y, sample_weight, (coef_init, intercept_init), is_incremental=False)

    def _check_params(self, is_incremental):
        check_params(self, {**CONSTRAINTS, **self._constraints})
        if self.early_stopping and is_incremental:
            raise ValueError("early_stopping should be False with partial_fit")
        if self.learning_rate == "optimal" and self.alpha == 0:
            raise ValueError(
                "alpha must be > 0 since learning_rate is 'optimal': it is used to compute the optimal learning rate."
            )
        if self.learning_rate in ("pa1", "pa2") and self.loss != self._passive_loss:
            raise ValueError(f"Learning rate '{self.learning_rate}' only works with loss '{self._passive_loss}'.")
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError("l1_ratio must be set when penalty is 'elasticnet'")
        if self.power_t < 0:
            warnings.warn(
                "Negative values for `power_t` are deprecated, as in scikit-learn since 1.8; use values in the range "
                "[0.0, inf) instead.",
                FutureWarning, stacklevel=4,
            )  # fmt: skip
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                f"{type(self).__name__} runs as ranks, config_context(runtime='spmd'), or on threads of this process, "
                "'threads'; runtime='tasks' has neither. Leave it at 'auto'."
            )

    def _fit(self, X, y, sample_weight, given, is_incremental):
        self._check_params(is_incremental)
        goes_on = hasattr(self, "coef_") and (self.warm_start or is_incremental)
        if goes_on:
            check_features(self, X, reset=False)
        y, X = one_dimensional(y), whole_rows(X)
        reader = functools.partial(_read, _dtype_of(X))
        with fitting(self, X, y, sample_weight, verbose=self.verbose, matrix=reader) as fit:
            if fit.run.layout == "device":
                raise ValueError(f"{type(self).__name__} takes no cupy arrays; pass X.get(), or NumPy chunks.")
            found = self._descend(fit, given, goes_on, is_incremental)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(found))
        vars(self).update(vars(fit.features))
        self.fit_report_ = fit.report
        return self

    def _descend(self, fit, given, goes_on, is_incremental):
        """Return the namespace of fitted attributes."""
        run, found, p = fit.run, SimpleNamespace(), fit.run.n_features
        summary = fit.targets(self._kind)
        labels, weights = self._prepare_targets(run, summary, found, goes_on, is_incremental)
        run.locate_nonfinite()  # a loss that is zero on one side takes no step for a row of NaN
        settings = tuple(self._settings(*pair) for pair in weights)
        seed = as_seed(0 if self.random_state is None else self.random_state)
        row_bytes = min(p, _MIXED_COLUMNS) * np.dtype(run.dtype).itemsize
        is_mixed = bool(self.shuffle) and (self.shuffle == "rows" or run.n_samples * row_bytes <= MIXED_BYTES)
        schedule = schedule_of(
            run.n_samples, p, run.layout == "csr", seed, is_shuffled=bool(self.shuffle), is_mixed=is_mixed,
            held_out=self.validation_fraction if self.early_stopping else 0.0,
        )  # fmt: skip
        if self.early_stopping and not 0 < schedule.n_trained < run.n_samples:
            raise ValueError(
                f"Splitting {run.n_samples} samples into a train set and a validation set with validation_fraction="
                f"{self.validation_fraction} led to an empty set. Please either change validation_fraction, increase "
                "number of samples, or disable early_stopping."
            )
        tol = -np.inf if self.tol is None or is_incremental else float(self.tol)
        training = SequentialTraining(
            settings, labels, schedule, p, 1 if is_incremental else int(self.max_iter), tol,
            int(self.n_iter_no_change), bool(self.early_stopping),
            0.0 if labels is not None else float(summary.total / summary.weight),
        )  # fmt: skip
        state = training.begin(*self._begin(settings, p, given, goes_on, is_incremental))
        state = run.run_saved(TrainingProgram(training, state), fit.what + digest_of((seed, state)))
        if state.stopped_because == "not finite":
            raise ValueError(
                f"Floating-point under-/overflow occurred at epoch #{state.epoch}. Scaling input data with "
                "daskdml.preprocessing.StandardScaler might help, or a smaller eta0."
            )
        self._note(found, fit, training, state, goes_on and is_incremental, is_incremental)
        return found

    def _settings(self, weight_pos, weight_neg):
        return Settings(
            self.loss, float(self.epsilon), self.penalty, float(self.alpha), float(self.l1_ratio or 0.0),
            self.learning_rate, float(self.eta0), float(self.power_t), bool(self.fit_intercept), None,
            int(self.average), float(weight_pos), float(weight_neg),
        )  # fmt: skip

    def _begin(self, settings, p, given, goes_on, is_incremental):
        """Return a state for each model to begin with, and the epochs of all fits so far."""
        k, kept = len(settings), getattr(self, "_kept", None)
        if goes_on and is_incremental and kept is not None and len(kept.states) == k and self._is_untouched(kept):
            return [_copy(state, one) for state, one in zip(kept.states, settings)], kept.age
        coef, intercept = given
        if goes_on:
            coef, intercept = self.coef_ if coef is None else coef, self.intercept_ if intercept is None else intercept
        coef = np.zeros((k, p)) if coef is None else np.asarray(coef, np.float64)
        intercept = np.zeros(k) if intercept is None else np.atleast_1d(np.asarray(intercept, np.float64))
        if coef.size != k * p or coef.shape not in ((k, p), (p,), (1, p)):
            raise ValueError(f"Provided coef_init does not match dataset: its shape is {coef.shape}, not {(k, p)}.")
        if intercept.shape != (k,):
            raise ValueError(
                f"Provided intercept_init does not match dataset: its shape is {intercept.shape}, not {(k,)}."
            )
        states = zip(settings, coef.reshape(k, p), intercept.tolist())
        t, age = (self.t_, kept.age) if goes_on and is_incremental and kept is not None else (1.0, 0)
        return [new_state(p, one, row, b, t) for one, row, b in states], age

    def _is_untouched(self, kept):
        """Whether coefficients are those that the last fit left, and not some of the user's."""
        return np.array_equal(self.coef_, kept.coef) and np.array_equal(self.intercept_, kept.intercept)

    def _note(self, found, fit, training, state, goes_on, is_incremental):
        """Write down what was found, and how the fit ended."""
        run, n = fit.run, training.schedule.n_trained
        models = training.states(state.theta)
        for model in models:
            settle(model)
        rows = []
        for model in models:
            is_averaged = self.average and self.average <= model.t - 1
            rows.append((model.average_coef, model.average_intercept) if is_averaged else (model.coef, model.intercept))
        found.coef_, found.intercept_ = np.stack([row for row, _ in rows]), np.array([b for _, b in rows])
        found.n_iter_ = int(state.n_epochs.max())
        # scikit-learn's counts every row of every epoch, those that are held out too.
        found.t_ = (self.t_ if goes_on else 1.0) + found.n_iter_ * run.n_samples
        found._kept = SimpleNamespace(
            states=models, age=state.age, coef=found.coef_.copy(), intercept=found.intercept_.copy()
        )  # fmt: skip
        passes = run.passes
        for epoch, trace in enumerate(state.trace):
            fit.report.append(Record(
                step=epoch + 1, stage="epoch", passes=passes + (epoch + 1) * n / run.n_samples,
                seconds=trace.seconds["all"], value=state.losses[epoch],
                seconds_compute=trace.seconds.get("compute", 0.0),
                seconds_reduce=trace.seconds.get("encode", 0.0) + trace.seconds.get("transfer", 0.0),
                seconds_wait=trace.seconds.get("wait", 0.0), bytes_moved=trace.bytes_sent, rounds=trace.n_rounds,
            ))  # fmt: skip
        run.rows_read += state.epoch * n
        fit.report.phases = {phase: taken for phase, taken in (state.seconds or {}).items() if phase != "all"}
        fit.report.counts = {
            "streams": training.schedule.n_micro, "rounds": state.n_rounds, "bytes sent": state.bytes_sent,
            "bytes received": state.bytes_received,
        }  # fmt: skip
        has_converged = bool(state.stopped_because) or is_incremental or self.tol is None
        fit.close(converged=has_converged, stopped_because=state.stopped_because or "max_iter", n_iter=found.n_iter_)
        if not has_converged:
            warnings.warn(
                f"{type(self).__name__}: maximum number of iteration reached before convergence. Consider increasing "
                f"max_iter, now {self.max_iter}, to improve the fit.",
                ConvergenceWarning, stacklevel=5,
            )  # fmt: skip

    def to_sklearn(self):
        """Return scikit-learn's own estimator with the same parameters and coefficients.

        Returns
        -------
        estimator of scikit-learn
        """
        from sklearn import linear_model

        return to_sklearn(self, getattr(linear_model, type(self).__name__), shuffle=bool(self.shuffle))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _dtype_of(X):
    """Return float32 for rows that all are, as their metadata say; chunks must not differ."""
    dtypes = [X.dtype] if hasattr(X, "dtype") else list(getattr(X, "dtypes", ()))
    return np.dtype(np.float32 if dtypes and all(dtype == np.float32 for dtype in dtypes) else np.float64)


def _read(dtype, X):
    return as_trained(as_matrix(X), dtype)


def _copy(state, settings):
    """Return a state to go on from; averages begin where they were off before."""
    p = len(state.coef)
    new = new_state(p, settings, state.coef, state.intercept, state.t)
    if settings.average and len(state.average_coef):
        new.average_coef[:] = state.average_coef
        new.average_intercept = state.average_intercept
    return new


def _has_probabilities(estimator):
    if estimator.loss not in _SMOOTH:
        raise AttributeError(f"probability estimates are not available for loss={estimator.loss!r}")
    return True


class SGDClassifier(ScoredByAccuracy, DescendedModel):
    """Classify by a linear model that takes a step a row; scikit-learn's parameters, objective and attributes.

    Minimises, of each class against the others (of two classes for the second)::

        mean_i weight_i loss(y_i, x_i w + b) + alpha ((1 - l1_ratio) / 2 ||w||_2^2 + l1_ratio ||w||_1)

    Parameters
    ----------
    loss : {"hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_error", "huber", \
    "epsilon_insensitive", "squared_epsilon_insensitive"}, default "hinge"
    penalty : {"l2", "l1", "elasticnet", None}, default "l2"
    alpha : float, default 1e-4
    l1_ratio : float, default 0.15
    fit_intercept : bool, default True
    max_iter : int, default 1000
    tol : float or None, default 1e-3
    shuffle : bool or "rows", default True
        See `daskdml.neural_network.MLPClassifier`.
    verbose : int, default 0
    epsilon : float, default 0.1
    n_jobs : int or None, default None
        Without effect: threads come from ``daskdml.config_context(n_threads=...)``.
    random_state : int, generator or None, default None
        Of the order of rows. None is a fixed draw, the same as 0.
    learning_rate : {"optimal", "constant", "invscaling", "adaptive", "pa1", "pa2"}, default "optimal"
    eta0 : float, default 0.01
    power_t : float, default 0.5
    early_stopping : bool, default False
    validation_fraction : float, default 0.1
    n_iter_no_change : int, default 5
    class_weight : dict, "balanced" or None, default None
    warm_start : bool, default False
    average : bool or int, default False

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (1, n_features) or (n_classes, n_features)
    intercept_ : ndarray of float64, shape (1,) or (n_classes,)
    n_iter_ : int
    t_ : float
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    Of fewer than 131,072 rows it is scikit-learn's algorithm, step for step: without shuffling coefficients agree to
    rounding. More rows are up to 64 streams, each of at least 65,536 rows, which take steps beside each other and are
    averaged every 4,096 rows (of sparse ones of many columns up to 65,536); rates go down as if all steps were one's.
    How many there are follows from the numbers of rows and columns: the same bits for any number of threads and
    workers. What is averaged are 8 bytes a coefficient and class, 16 with averages, 8 more with L1. M. Zinkevich,
    M. Weimer, A. Smola, L. Li, "Parallelized stochastic gradient descent", 2010, with averages in between.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> SGDClassifier(loss="log_loss", learning_rate="constant", random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _constraints = {
        "loss": [Options(set(LOSSES))], "n_jobs": [_INT, None],
        "class_weight": [dict, Options({"balanced"}), None],
    }  # fmt: skip
    _kind = "classes"
    _passive_loss = "hinge"

    def __init__(
        self, loss="hinge", *, penalty="l2", alpha=0.0001, l1_ratio=0.15, fit_intercept=True, max_iter=1000, tol=1e-3,
        shuffle=True, verbose=0, epsilon=0.1, n_jobs=None, random_state=None, learning_rate="optimal", eta0=0.01,
        power_t=0.5, early_stopping=False, validation_fraction=0.1, n_iter_no_change=5, class_weight=None,
        warm_start=False, average=False,
    ):  # fmt: skip
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.average = average

    def _prepare_targets(self, run, summary, found, goes_on, is_incremental):
        """Replace y by the numbers of classes; return the class of each model, and its weight and the others'."""
        classes = summary.classes
        if is_incremental:
            known = self.classes_ if goes_on else self._announced
            unknown = np.setdiff1d(classes, known)
            if len(unknown):
                raise ValueError(f"`y` has classes not in `classes`, which are {known.tolist()}: {unknown.tolist()}.")
            classes = known
        else:
            by_class = class_weights(self.class_weight, summary)
            weights = summary.weights if by_class is None else summary.weights * by_class
            check_classes(classes)
            if np.count_nonzero(weights) < 2:
                only = classes.tolist()[int(np.argmax(weights))]
                raise ValueError(
                    "This solver needs samples of at least 2 classes in the data, but all the weight is on the class "
                    f"{only!r}. Give another class a weight above 0."
                )
        if goes_on and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"A warm start goes on with the classes {self.classes_.tolist()}, but y holds {classes.tolist()}; set "
                "warm_start=False."
            )
        found.classes_, k = classes, len(classes)
        run.transform_targets(functools.partial(encode_classes, classes))
        factor = np.ones(k)
        if self.class_weight == "balanced":
            # scikit-learn's: of rows, whatever they weigh.
            factor = summary.counts.sum() / (k * summary.counts)
        elif self.class_weight is not None:
            known = [self.class_weight.get(label, 1.0) for label in classes.tolist()]
            factor = np.array(known, np.float64) if is_incremental else by_class
        if k == 2:
            return (1,), [(factor[1], factor[0])]
        return tuple(range(k)), [(one, 1.0) for one in factor]

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Take a step for each of these rows.

        Parameters
        ----------
        X, y : as `fit` takes them
        classes : array_like of shape (n_classes,), optional
            All classes there will be, at the first call.
        sample_weight : as `fit` takes it

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y) of scikit-learn, on a sample that is large "
                "enough, and pass the resulting weights as the class_weight parameter."
            )
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._announced = np.unique(np.asarray(classes))
            check_classes(self._announced)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(np.asarray(classes))):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
            )
        try:
            return self._fit(X, y, sample_weight, (None, None), is_incremental=True)
        finally:
            vars(self).pop("_announced", None)

    def decision_function(self, X):
        """Return raw values: of ``classes_[1]`` for two classes, one value per class for more.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes); lazy on Dask input
        """
        if len(getattr(self, "classes_", ())) > 2:
            return self._map_rows(X, None, kind="matrix", columns=self.classes_)
        return self._map_rows(X, np.ravel, kind="vector", name="decision")

    def predict(self, X):
        """Return the class with the largest raw value of each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,); lazy on Dask input
        """
        classes = getattr(self, "classes_", None)
        dtype = None if classes is None else classes.dtype
        return self._map_rows(X, functools.partial(label_rows, classes), kind="vector", dtype=dtype, name="prediction")

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Return the probability of each class: of "log_loss" and "modified_huber".

        Of more than two classes each is told from the others, and the probabilities are divided by their sum.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        finish = functools.partial(_probabilities, self.loss)
        return self._map_rows(X, finish, kind="matrix", columns=getattr(self, "classes_", None))

    @available_if(_has_probabilities)
    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        finish = functools.partial(_log_probabilities, self.loss)
        return self._map_rows(X, finish, kind="matrix", columns=getattr(self, "classes_", None))


def _probabilities(loss, raw):
    """Return probabilities as scikit-learn makes them of one-against-all raw values."""
    if loss == "log_loss":
        if raw.ndim == 1 or raw.shape[1] == 1:
            return np.column_stack([Logistic().predict(-raw.ravel()), Logistic().predict(raw.ravel())])
        return np.exp(_log_probabilities(loss, raw))
    p = (np.clip(raw, -1, 1) + 1) / 2
    if raw.ndim == 1 or raw.shape[1] == 1:
        p = p.ravel()
        return np.column_stack([1 - p, p])
    total = p.sum(axis=1, keepdims=True)
    # Where all classes are sure to be none of them, all are as probable.
    p = np.where(total == 0, 1.0, p)
    return p / np.where(total == 0, p.shape[1], total)


def _log_probabilities(loss, raw):
    if loss == "log_loss" and (raw.ndim == 1 or raw.shape[1] == 1):
        return np.column_stack([-np.logaddexp(0, raw.ravel()), -np.logaddexp(0, -raw.ravel())])
    if loss == "log_loss":  # finite where all probabilities round to zero
        alone = -np.logaddexp(0, -raw)
        top = alone.max(axis=1, keepdims=True)
        return alone - top - np.log(np.exp(alone - top).sum(axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(_probabilities(loss, raw))


class SGDRegressor(ScoredByR2, DescendedModel):
    """Predict numbers by a linear model that takes a step a row; scikit-learn's parameters and attributes.

    Minimises what `SGDClassifier` does.

    Parameters
    ----------
    loss : {"squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"}, default "squared_error"
    penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, epsilon : see `SGDClassifier`
    random_state : likewise
    learning_rate : likewise, default "invscaling"
    eta0 : likewise
    power_t : float, default 0.25
    early_stopping, validation_fraction, n_iter_no_change, warm_start, average : likewise

    Attributes
    ----------
    coef_ : ndarray of float64, shape (n_features,)
    intercept_ : ndarray of float64, shape (1,)
    n_iter_, t_, n_features_in_, feature_names_in_, fit_report_ : see `SGDClassifier`

    Notes
    -----
    See `SGDClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> SGDRegressor(random_state=0).fit(X, X @ [1.0, 2.0]).coef_.round(1)
    array([1., 2.])
    """

    _constraints = {
        "loss": [Options({"squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"})]
    }
    _kind = "values"
    _passive_loss = "epsilon_insensitive"

    def __init__(
        self, loss="squared_error", *, penalty="l2", alpha=0.0001, l1_ratio=0.15, fit_intercept=True, max_iter=1000,
        tol=1e-3, shuffle=True, verbose=0, epsilon=0.1, random_state=None, learning_rate="invscaling", eta0=0.01,
        power_t=0.25, early_stopping=False, validation_fraction=0.1, n_iter_no_change=5, warm_start=False,
        average=False,
    ):  # fmt: skip
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.average = average

    def _prepare_targets(self, run, summary, found, goes_on, is_incremental):
        """Return that there are no classes, and the weights of the only model."""
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        return None, [(1.0, 1.0)]

    def _note(self, found, *args):
        super()._note(found, *args)
        found.coef_ = found._kept.coef = found.coef_[0]

    def partial_fit(self, X, y, sample_weight=None):
        """Take a step for each of these rows.

        Parameters
        ----------
        X, y, sample_weight : as `fit` takes them

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (None, None), is_incremental=True)

    def predict(self, X):
        """Return ``X @ coef_ + intercept_``.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,); lazy on Dask input
        """
        check_fitted(self)
        return self._map_rows(X, np.ravel, kind="vector", name="prediction")
