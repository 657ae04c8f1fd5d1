"""Multi-layer perceptrons."""

import functools

import numpy as np

from daskdml.data import encode_classes
from daskdml.data.targets import announced_classes
from daskdml.fitting import (
    ScoredByAccuracy,
    ScoredByR2,
    check_classes,
    label_rows,
    log_probabilities,
    probabilities,
)
from daskdml.losses import Logistic, Multinomial, Poisson, Squared
from daskdml.neural_network._base import TrainedNetwork, is_stochastic, is_table
from daskdml.utils.params import Options


class MLPClassifier(ScoredByAccuracy, TrainedNetwork):
    """Classify by a fully connected network; scikit-learn's parameters, objective and attributes.

    Minimises, over the coefficients W and intercepts of all layers, by batches of rows::

        (sum_i weight_i loss_i + alpha / 2 ||W||^2) / sum_i weight_i

    where ``loss_i`` is the log loss of row i: of two classes through one output and the logistic function, of more
    through softmax. Where y has several columns of 0 and 1, one for each label that a row may have, it is the sum of
    the log losses of all.

    Parameters
    ----------
    hidden_layer_sizes : array_like of int, or int, default (100,)
    activation : {"identity", "logistic", "tanh", "relu"}, default "relu"
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        "lbfgs" looks at all rows in each step.
    alpha : float, default 1e-4
    batch_size : int or "auto", default "auto"
        Rows of a batch, of all workers together; "auto" is ``min(200, n_samples)``. Batches of more than 256 rows are
        added up of micro-batches, which threads and workers share. A size above 1,024 without a divisor near
        ``batch_size / 256`` is rounded up, and with compression or local steps one without a divisor near the number of
        workers.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of "sgd".
    learning_rate_init : float, default 0.001
    power_t : float, default 0.5
        Of "invscaling".
    max_iter : int, default 200
        Epochs of "sgd" and "adam", steps of "lbfgs", at most.
    shuffle : bool or "rows", default True
        Batches are drawn anew in each epoch. Up to a gigabyte of rows they are drawn from all rows; above, from some
        thousand that follow each other for each micro-batch, so that no row travels: "rows" brings rows into a random
        order first, once, over the network.
    random_state : int, generator or None, default None
        Of the first coefficients, the batches and the rows held out. None is a fixed draw, the same as 0.
    tol : float, default 1e-4
    verbose : bool or int, default False
    warm_start : bool, default False
    momentum : float, default 0.9
        Of "sgd".
    nesterovs_momentum : bool, default True
    early_stopping : bool, default False
        Stop when the score of rows that are held out, or given, gets no better.
    validation_fraction : float, default 0.1
    beta_1, beta_2, epsilon : float, default 0.9, 0.999, 1e-8
        Of "adam".
    n_iter_no_change : int, default 10
    max_fun : int, default 15000
        Of "lbfgs".
    strategy : object of `daskdml.strategies`, or None, default None
        How workers communicate; None is ``AllReduce()``.
    learning_rate_scaling : {"linear", "sqrt"} or None, default None
        What a step of k batches (`AllReduce` with ``accumulate``, `batch_growth`) multiplies the rate by: k, or its
        root. Linear is for "sgd" (P. Goyal et al., 2017), the root for "adam".
    warm_up : float, default 0.0
        Epochs in which the rate rises to that, from the rate of one batch; without scaling from zero.
    batch_growth : float, default 1.0
        Times the batches of a step that one of the next epoch has, rounded down.
    dtype : {"float32", "float64"}, default "float32"
        Of coefficients, and of the rows as they are read.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Numbers of the columns where y has several.
    coefs_, intercepts_ : list of ndarray
        Of each layer, shape (n_in, n_out) and (n_out,).
    loss_, best_loss_ : float
    loss_curve_ : list of float
        By epochs.
    validation_scores_ : list of float or None
        Accuracy of rows that are not trained on, by epochs.
    best_validation_score_ : float or None
    n_iter_, n_layers_, n_outputs_, t_ : int
    out_activation_ : str
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    Without compression or local steps the same bits for any number of threads and workers, any chunks of the same rows,
    and any death: a batch is a function of the seed, the epoch and the rows' numbers, and gradients of micro-batches
    are added up in a fixed tree. A step sends a gradient a worker. Each worker holds its rows, two copies of the
    parameters and their moments, and a gradient for each thread and level of the tree. (Of a model that `ModelParallel`
    or `Hybrid` cuts, only its shards; `predict` on Dask collections sends all of it to every worker.)

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((32,), max_iter=30, learning_rate_init=0.01, tol=0.01, random_state=0).fit(X / 16, y)
    >>> model.score(X / 16, y) > 0.98
    True
    """

    _kind = "classes"

    def __init__(
        self, hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001, batch_size="auto",
        learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True, random_state=None,
        tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True, early_stopping=False,
        validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10, max_fun=15000,
        strategy=None, learning_rate_scaling=None, warm_up=0.0, batch_growth=1.0, dtype="float32",
    ):  # fmt: skip
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.strategy = strategy
        self.learning_rate_scaling = learning_rate_scaling
        self.warm_up = warm_up
        self.batch_growth = batch_growth
        self.dtype = dtype

    def _kind_of(self, y):
        return "labels" if is_table(y) else "classes"

    def _encoder(self, kind, classes):
        """Return what replaces y by numbers."""
        return indicators if kind == "labels" else functools.partial(encode_classes, classes)

    def _prepare_targets(self, run, summary, found, goes_on, is_incremental):
        """Replace y by the numbers of classes; return the loss and the number of outputs."""
        classes = summary.classes
        if classes is None:
            return self._prepare_labels(run, np.size(summary.low), found, goes_on, is_incremental)
        if goes_on:
            unknown = np.setdiff1d(classes, self.classes_)
            if len(unknown) or (not is_incremental and len(classes) != len(self.classes_)):
                raise ValueError(
                    f"A fit goes on with the classes {self.classes_.tolist()}, but y has {classes.tolist()}; "
                    + ("`y` has classes not in `self.classes_`." if is_incremental else "set warm_start=False.")
                )
            classes = self.classes_
        elif is_incremental:
            unknown = np.setdiff1d(classes, self._announced)
            if len(unknown):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self._announced}. 'y' has {classes}."
                )
            classes = self._announced
        else:
            check_classes(classes)
            if np.count_nonzero(summary.weights) < 2:
                only = classes.tolist()[int(np.argmax(summary.weights))]
                raise ValueError(
                    "This solver needs samples of at least 2 classes in the data, but all the weight is on the class "
                    f"{only!r}. Give another class a weight above 0."
                )
        found.classes_ = classes
        run.transform_targets(functools.partial(encode_classes, classes))
        k = len(classes)
        return (Logistic(), 1) if k <= 2 else (Multinomial(k), k)

    def _prepare_labels(self, run, n_labels, found, goes_on, is_incremental):
        """Check columns of 0 and 1, one for each label; return the loss and their number."""
        known = self.classes_ if goes_on else self._announced if is_incremental else np.arange(n_labels)
        if not np.array_equal(known, np.arange(n_labels)) or (goes_on and not self._has_labels):
            raise ValueError(
                f"y has {n_labels} columns, one for each label, but the classes so far are {known.tolist()}; "
                "give targets of the same kind, or set warm_start=False."
            )
        found.classes_ = known
        run.transform_targets(indicators)
        return Logistic(), n_labels

    @property
    def _has_labels(self):
        """Whether a row may have several labels, each of its own."""
        return self._network.loss.name == "logistic" and self.n_outputs_ > 1

    def _planned_targets(self, plan, summary):
        """Return loss and outputs for a plan, whose rows get the numbers of the classes that are seen."""
        classes = summary.classes
        if classes is None:
            plan.sample.transform_targets(indicators)
            return Logistic(), np.size(summary.low)
        plan.sample.transform_targets(functools.partial(encode_classes, classes))
        k = max(len(classes), 2)
        return (Logistic(), 1) if k == 2 else (Multinomial(k), k)

    @is_stochastic
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go on training for one epoch over these rows.

        Parameters
        ----------
        X, y, sample_weight : as `fit` takes them
        classes : array_like of shape (n_classes,), optional
            All classes there will be, at the first call.

        Returns
        -------
        self
        """
        self._announced = announced_classes(classes, getattr(self, "classes_", None))
        check_classes(self._announced)
        try:
            return self._fit(X, y, sample_weight, (None, None, None), is_incremental=True)
        finally:
            vars(self).pop("_announced", None)

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,), or (n, n_labels) of 0 and 1 where y was; lazy on Dask input
        """
        self._check_fitted()
        if self._has_labels:
            return self._map_raw(X, _found_labels, kind="matrix", columns=self.classes_, dtype=int)
        classes = getattr(self, "classes_", None)
        return self._map_raw(X, functools.partial(label_rows, classes), dtype=getattr(classes, "dtype", None))

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        self._check_fitted()
        finish = Logistic().predict if self._has_labels else probabilities
        return self._map_raw(X, finish, kind="matrix", columns=self.classes_)

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        self._check_fitted()
        finish = _log_of_labels if self._has_labels else log_probabilities
        return self._map_raw(X, finish, kind="matrix", columns=self.classes_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(ScoredByR2, TrainedNetwork):
    """Predict numbers by a fully connected network; scikit-learn's parameters, objective and attributes.

    Minimises what `MLPClassifier` does, for the loss ``(y - raw)^2 / 2`` summed over outputs, or ``exp(raw) - y raw``.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default "squared_error"
        "poisson" predicts exp(raw).
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate : see `MLPClassifier`
    learning_rate_init, power_t, max_iter, shuffle, random_state, tol, verbose, warm_start : likewise
    momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, epsilon : likewise
    n_iter_no_change, max_fun, strategy, learning_rate_scaling, warm_up, batch_growth, dtype : likewise

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, loss_curve_, n_iter_, n_layers_, n_outputs_, t_ : see `MLPClassifier`
    validation_scores_, best_validation_score_ : likewise, of R²
    out_activation_, n_features_in_, feature_names_in_, fit_report_ : likewise

    Notes
    -----
    See `MLPClassifier`. As in scikit-learn, ``loss_`` is the mean over outputs of squared errors, and the gradient that
    of their sum.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=20, solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.99
    True
    """

    _constraints = {"loss": [Options({"squared_error", "poisson"})]}
    _kind = "values"

    def __init__(
        self, loss="squared_error", hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001,
        batch_size="auto", learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True,
        random_state=None, tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True,
        early_stopping=False, validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10,
        max_fun=15000, strategy=None, learning_rate_scaling=None, warm_up=0.0, batch_growth=1.0, dtype="float32",
    ):  # fmt: skip
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.strategy = strategy
        self.learning_rate_scaling = learning_rate_scaling
        self.warm_up = warm_up
        self.batch_growth = batch_growth
        self.dtype = dtype

    def _prepare_targets(self, run, summary, found, goes_on, is_incremental):
        """Return the loss and the number of outputs."""
        if self.loss == "poisson" and np.min(summary.low) < 0:
            raise ValueError("loss='poisson' requires non-negative y.")
        return Poisson() if self.loss == "poisson" else Squared(), int(np.size(summary.low))

    def _planned_targets(self, plan, summary):
        """Return loss and outputs for a plan."""
        return self._prepare_targets(None, summary, None, False, False)

    @is_stochastic
    def partial_fit(self, X, y, sample_weight=None):
        """Go on training for one epoch over these rows.

        Parameters
        ----------
        X, y, sample_weight : as `fit` takes them

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (None, None, None), is_incremental=True)

    def predict(self, X):
        """Return the prediction for each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs); lazy on Dask input
        """
        n_outputs = getattr(self, "n_outputs_", 1)
        finish = functools.partial(_predicted, getattr(getattr(self, "_network", None), "loss", None))
        if n_outputs > 1:
            return self._map_raw(X, finish, kind="matrix", columns=np.arange(n_outputs))
        return self._map_raw(X, finish)


def indicators(y):
    """Return targets of several labels as they are, of 0 and 1.

    Raises
    ------
    ValueError
        For any other number.
    """
    bad = (y != 0) & (y != 1)
    if bad.any():
        raise ValueError(
            f"A y of several columns says which labels a row has, by 0 and 1, but it holds {y[bad][0]}. Classes are "
            "one column; several columns of numbers are for MLPRegressor."
        )
    return np.ascontiguousarray(y, np.float64)


def _found_labels(raw):
    return (raw > 0).astype(int)


def _log_of_labels(raw):
    return -np.logaddexp(0.0, -raw)


def _predicted(loss, raw):
    found = loss.predict(raw)
    return found.ravel() if found.shape[1] == 1 else found
