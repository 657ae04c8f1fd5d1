"""Linear models by stochastic gradient descent: a step a row, or with a strategy a step a batch."""

import functools
import numbers
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from daskdml.data import as_matrix, check_features, encode_classes, whole_rows
from daskdml.data.targets import announced_classes
from daskdml.fitting import (
    Follower,
    ScoredByAccuracy,
    ScoredByR2,
    check_classes,
    class_weights,
    fitting,
    one_dimensional,
    report_epochs,
    report_training,
)
from daskdml.kernels.sequential import LOSSES, PENALTIES, Settings, new_state, settle
from daskdml.linear_model._base import LinearPredictor, StoredCoefficients, check_fitted, to_sklearn
from daskdml.linear_model._one_against_all import OneAgainstAll
from daskdml.programs.training import train
from daskdml.training import as_trained, is_mixable
from daskdml.training.asking import check_place, check_strategy, warn_of_forgetting
from daskdml.training.sequential import SequentialTraining, schedule_of
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

_INT, _REAL = numbers.Integral, numbers.Real
LARGE = 1 << 20  # features of sparse rows: a step for all of them takes longer than those of a batch of rows
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
    "batch_size": [Options({"auto"}), Interval(_INT, 1, None)],
}


class DescendedModel(StoredCoefficients, LinearPredictor, BaseEstimator):
    """A linear model that takes steps; see `SGDClassifier` and `SGDRegressor`."""

    _constraints: dict = {}

    def fit(self, X, y, coef_init=None, intercept_init=None, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
            Rows of cupy need a strategy, and are trained on where they are; what workers send goes through the host.
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
        if self.strategy is not None:
            check_strategy(self.strategy)
            self._way(is_large=False).check(self)
            self.strategy.check(self)
            if is_incremental:
                warn_of_forgetting(self.strategy)
        elif self.batch_size != "auto":
            raise ValueError(
                f"batch_size={self.batch_size} needs a strategy, such as daskdml.strategies.AllReduce(): without one a "
                "step is taken for each row. Give a strategy, or leave it at 'auto'."
            )
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                f"{type(self).__name__} runs as ranks, config_context(runtime='spmd'), or on threads of this process, "
                "'threads'; runtime='tasks' has neither. Leave it at 'auto'."
            )

    def _way(self, is_large, layout="csr"):
        """Return the class that trains: what needs a strategy is imported where there is one."""
        if self.strategy is None:
            return ByRows
        if self.strategy.is_served and self.strategy.is_by_row(is_large and layout == "csr"):
            if layout != "csr":
                raise ValueError(
                    f"{self.strategy} is for CSR rows, and these are {layout}: pass scipy.sparse.csr_matrix(X), or "
                    "give sparse=False."
                )
            from daskdml.linear_model._sgd_served import ByServedRows

            return ByServedRows
        from daskdml.linear_model._sgd_batches import ByBatches

        return ByBatches

    def _way_of(self, run):
        """Return the class that trains on some rows."""
        way = self._way(run.n_features >= LARGE, run.layout)
        if self.strategy is not None:
            way.check(self)
        return way

    def _fit(self, X, y, sample_weight, given, is_incremental):
        self._check_params(is_incremental)
        goes_on = hasattr(self, "coef_") and (self.warm_start or is_incremental)
        if goes_on:
            check_features(self, X, reset=False)
        y, X = one_dimensional(y), whole_rows(X)
        reader = functools.partial(_read, _dtype_of(X))
        with fitting(self, X, y, sample_weight, verbose=self.verbose, matrix=reader) as fit:
            if self.strategy is not None:
                check_place(self.strategy, fit.run.layout)
            elif fit.run.layout == "device":
                raise ValueError(
                    f"{type(self).__name__} takes a step a row, for which a device is too slow. Give a strategy, such "
                    "as daskdml.strategies.AllReduce(), for a step a batch on the device; or pass X.get(), or NumPy "
                    "chunks."
                )
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
        labels, factors = self._prepare_targets(run, summary, found, goes_on, is_incremental)
        run.locate_nonfinite()  # a loss that is zero on one side takes no step for a row of NaN
        way = self._way_of(run)(self, run, labels, factors)
        seed = as_seed(0 if self.random_state is None else self.random_state)
        is_mixed = bool(self.shuffle) and (self.shuffle == "rows" or is_mixable(run.n_samples, p, run.dtype))
        schedule = way.schedule(seed, is_mixed, self.validation_fraction if self.early_stopping else 0.0)
        if self.early_stopping and not 0 < schedule.n_trained < run.n_samples:
            raise ValueError(
                f"Splitting {run.n_samples} samples into a train set and a validation set with validation_fraction="
                f"{self.validation_fraction} led to an empty set. Please either change validation_fraction, increase "
                "number of samples, or disable early_stopping."
            )
        tol = -np.inf if self.tol is None or is_incremental else float(self.tol)
        center = 0.0 if labels is not None else float(summary.total / summary.weight)
        training = way.training(schedule, 1 if is_incremental else int(self.max_iter), tol, center)
        kept = getattr(self, "_kept", None) if goes_on and is_incremental else None
        t = 1.0 if kept is None else self.t_ if kept.way is type(way) else way.t_after(kept.n_rows)
        state = self._begin(way, training, given, goes_on, kept, t)
        follow = Follower(fit, schedule.n_trained) if self.verbose else None
        state = train(run, training, state, fit.what, (seed,), follow)
        if state.stopped_because == "not finite":
            raise ValueError(
                f"Floating-point under-/overflow occurred at epoch #{state.epoch + (state.batch > 0)}. Scaling input "
                "data with daskdml.preprocessing.StandardScaler might help, or a smaller eta0."
            )
        if state.stopped_because == "no score":
            raise ValueError(
                "The sample weights for validation set are all zero, consider using a different random state."
            )
        self._note(found, fit, way, training, state, is_incremental, t, 0 if kept is None else kept.n_rows)
        return found

    def _settings(self, weight_pos, weight_neg):
        return Settings(
            self.loss, float(self.epsilon), self.penalty, float(self.alpha), float(self.l1_ratio or 0.0),
            self.learning_rate, float(self.eta0), float(self.power_t), bool(self.fit_intercept), None,
            int(self.average), float(weight_pos), float(weight_neg),
        )  # fmt: skip

    def _begin(self, way, training, given, goes_on, kept, t):
        """Return the state to begin with: coefficients that are given, or where the last fit has stopped."""
        age = 0 if kept is None else kept.age
        if kept is not None and self._is_untouched(kept):
            # Steps go on from what they have learnt, and an average from what predicts.
            average = kept.coef.reshape(kept.learnt[0].shape), kept.intercept
            return way.begin(training, *kept.learnt, kept.steps if kept.way is type(way) else t, age, average)
        k, p = len(way.factors), way.run.n_features
        coef, intercept = given
        if goes_on:
            coef, intercept = self.coef_ if coef is None else coef, self.intercept_ if intercept is None else intercept
        coef = np.broadcast_to(0.0, (k, p)) if coef is None else np.asarray(coef, np.float64)
        intercept = np.zeros(k) if intercept is None else np.atleast_1d(np.asarray(intercept, np.float64))
        if coef.size != k * p or coef.shape not in ((k, p), (p,), (1, p)):
            raise ValueError(f"Provided coef_init does not match dataset: its shape is {coef.shape}, not {(k, p)}.")
        if intercept.shape != (k,):
            raise ValueError(
                f"Provided intercept_init does not match dataset: its shape is {intercept.shape}, not {(k,)}."
            )
        with np.errstate(over="ignore"):
            is_finite = np.isfinite(coef.sum()) or np.isfinite(coef).all()
        if not (is_finite and np.isfinite(intercept).all()):
            raise ValueError("coef_init and intercept_init must be finite, and hold NaN or infinity.")
        return way.begin(training, coef.reshape(k, p), intercept, t, age)

    def _is_untouched(self, kept):
        """Whether coefficients are those that the last fit left, and not some of the user's."""
        if kept.coef is None:
            return False
        return np.array_equal(self.coef_, kept.coef) and np.array_equal(self.intercept_, kept.intercept)

    def _note(self, found, fit, way, training, state, is_incremental, t, n_rows):
        """Write down what was found, and how the fit ended."""
        (coef, intercept), learnt, found.n_iter_, found.t_, n_seen, steps = way.outcome(training, state, t)
        found.coef_, found.intercept_ = self._shaped(coef), intercept
        found._kept = SimpleNamespace(
            way=type(way), steps=steps, age=state.age, coef=None if learnt is None else found.coef_.copy(),
            intercept=intercept.copy(), learnt=learnt, n_rows=n_rows + n_seen,
        )  # fmt: skip
        n_trained = training.schedule.n_trained
        if self.strategy is None:
            report_epochs(fit, state, n_trained, {"streams": training.schedule.n_micro})
        else:
            report_training(self, fit, state, training)
        has_converged = bool(state.stopped_because) or is_incremental or self.tol is None
        fit.close(converged=has_converged, stopped_because=state.stopped_because or "max_iter", n_iter=found.n_iter_)
        if not has_converged:
            warnings.warn(
                f"{type(self).__name__}: maximum number of iteration reached before convergence. Consider increasing "
                f"max_iter, now {self.max_iter}, to improve the fit.",
                ConvergenceWarning, stacklevel=5,
            )  # fmt: skip

    def _shaped(self, coef):
        return coef

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


class ByRows:
    """Trains each output of a model for itself, a step a row; see `ByBatches`, which has the same methods."""

    def __init__(self, model, run, labels, factors):
        self.model, self.run, self.labels, self.factors = model, run, labels, factors
        self.settings = tuple(model._settings(*pair) for pair in factors)

    def schedule(self, seed, is_mixed, held_out):
        run, is_shuffled = self.run, bool(self.model.shuffle)
        return schedule_of(
            run.n_samples, run.n_features, run.layout == "csr", seed, is_shuffled=is_shuffled, is_mixed=is_mixed,
            held_out=held_out,
        )  # fmt: skip

    def training(self, schedule, max_epochs, tol, center):
        model = self.model
        return SequentialTraining(
            self.settings, self.labels, schedule, self.run.n_features, max_epochs, tol, int(model.n_iter_no_change),
            bool(model.early_stopping), center,
        )  # fmt: skip

    def t_after(self, n_rows):
        """Return one more than the steps that so many rows are."""
        return 1.0 + n_rows

    def begin(self, training, coef, intercept, t, age, average=None):
        """Return the state to begin with; ``average`` are mean coefficients and intercepts where there are some."""
        average = (coef, intercept) if average is None else average
        parts = zip(self.settings, coef, intercept.tolist(), np.broadcast_to(t, len(coef)), *average)
        return training.begin([_begun(*part) for part in parts], age)

    def outcome(self, training, state, t):
        models, average = training.states(state.theta), self.model.average
        found, learnt = [], []
        for model in models:
            settle(model)
            learnt.append((model.coef, model.intercept))
            is_averaged = average and average <= model.t - 1
            found.append((model.average_coef, model.average_intercept) if is_averaged else learnt[-1])
        found, learnt = ((np.stack([w for w, _ in part]), np.array([b for _, b in part])) for part in (found, learnt))
        n_iter = int(state.n_epochs.max())
        # scikit-learn's t counts every row of every epoch, those that are held out too.
        n_rows = n_iter * self.run.n_samples
        return found, learnt, n_iter, t + n_rows, n_rows, np.array([model.t for model in models])


def _begun(settings, coef, intercept, t, average_coef, average_intercept):
    """Return a state to begin with, and its averages where they have begun; the first of them must be zeros."""
    state = new_state(len(coef), settings, coef, intercept, t)
    if 0 < settings.average < t:
        state.average_coef[:], state.average_intercept = average_coef, average_intercept
    return state


class SGDClassifier(ScoredByAccuracy, OneAgainstAll, DescendedModel):
    """Classify by a linear model that takes a step a row; scikit-learn's parameters, objective and attributes.

    Minimises, of each class against the others (of two classes for the second)::

        mean_i weight_i loss(y_i, x_i w + b) + alpha ((1 - l1_ratio) / 2 ||w||_2^2 + l1_ratio ||w||_1)

    With a strategy a step is taken a batch, along the mean over its rows, which all workers compute together.

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
        Of the parameters after each step, or from so many rows on.
    strategy : see `daskdml.strategies`, or None, default None
        How workers that train by batches communicate. None takes a step a row.
    batch_size : int or "auto", default "auto"
        Rows of a step, with a strategy alone; "auto" is a fiftieth of all, and 200 at most. With a sparse
        `ParameterServer` rows between two pushes, see Notes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (1, n_features) or (n_classes, n_features)
    intercept_ : ndarray of float64, shape (1,) or (n_classes,)
    n_iter_ : int
    t_ : float
        One more than the rows of all epochs, with a strategy than the steps. Where a strategy is given or taken away
        between calls of ``partial_fit``, the rows so far count as the steps that they would have been, about.
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    Of fewer than 131,072 rows it is scikit-learn's algorithm, step for step: without shuffling coefficients agree to
    rounding. More rows are up to 64 streams, each of at least 65,536 rows, which take steps beside each other and are
    averaged every 4,096 rows (of sparse ones of many columns up to 65,536); rates go down as if all steps were one's.
    How many there are follows from the numbers of rows and columns: the same bits for any number of threads and
    workers. What is averaged are 8 bytes a coefficient and class, 16 with averages, 8 more with L1. M. Zinkevich,
    M. Weimer, A. Smola, L. Li, "Parallelized stochastic gradient descent", 2010, with averages in between.

    With a strategy batches are those of networks (`daskdml.neural_network.MLPClassifier`), and so are the bits: with
    `AllReduce` and no compression of any number of threads and workers. Batches of one row are scikit-learn's steps,
    but for L1, which moves all coefficients by its proximal operator after each step: scikit-learn's moves those of the
    row's columns, by what has come up since their last time. What else is counted a row there is counted a step: rates
    go down, and ``average`` begins, by steps, for a mean of b rows has a b-th of the noise and bears b times the rate.
    Means are over rows, whatever they weigh: with weights of mean one a batch of all rows is that of repeated rows.
    The objective that ``tol`` looks at has the weights in it, and is the mean over the classes, which stop together;
    rows that are held out are scored by the class that is predicted. A step takes time for all coefficients, however
    few values rows store; what travels is 8 bytes a coefficient and class, and with `ModelParallel`, which cuts models
    by features, 8 bytes a row and class.

    With `ParameterServer` and CSR rows of 2**20 features or more, or its ``sparse=True``, steps are a row again, and a
    worker has only the coefficients that the rows of its batch store (a fiftieth of all rows with "auto", and 16,384
    for each worker at most): in one process they are scikit-learn's steps, on several workers the model depends on how
    many there are. The classes stop together, by their mean objective or accuracy, and ``t_`` counts rows. ``coef_``
    maps a file of scratch space from 16 MB on; of float32 rows it is learnt as float32. A warm start, ``coef_init`` and
    each further call of ``partial_fit`` send the coefficients other than zero to every worker. ``average`` is refused.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> SGDClassifier(loss="log_loss", learning_rate="constant", random_state=0).fit(X, y).score(X, y) > 0.9
    True
    >>> from daskdml.strategies import AllReduce
    >>> SGDClassifier("log_loss", learning_rate="constant", strategy=AllReduce()).fit(X, y).score(X, y) > 0.9
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
        warm_start=False, average=False, strategy=None, batch_size="auto",
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
        self.strategy = strategy
        self.batch_size = batch_size

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
        """Take a step for each of these rows, or with a strategy for each batch of them.

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
        self._announced = announced_classes(classes, getattr(self, "classes_", None))
        check_classes(self._announced)
        try:
            return self._fit(X, y, sample_weight, (None, None), is_incremental=True)
        finally:
            vars(self).pop("_announced", None)


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
    early_stopping, validation_fraction, n_iter_no_change, warm_start, average, strategy, batch_size : likewise

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
        average=False, strategy=None, batch_size="auto",
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
        self.strategy = strategy
        self.batch_size = batch_size

    def _prepare_targets(self, run, summary, found, goes_on, is_incremental):
        """Return that there are no classes, and the weights of the only model."""
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        return None, [(1.0, 1.0)]

    def _shaped(self, coef):
        return coef[0]

    def partial_fit(self, X, y, sample_weight=None):
        """Take a step for each of these rows, or with a strategy for each batch of them.

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
