"""Histogram gradient boosting."""

import functools
import numbers

import numpy as np

from daskdml.data import encode_classes
from daskdml.ensemble._boosting_base import HistGradientBoosting
from daskdml.fitting import (
    ScoredByAccuracy,
    ScoredByR2,
    check_classes,
    class_weights,
    label_rows,
    log_probabilities,
    probabilities,
    with_exact_weights,
)
from daskdml.losses import Absolute, Gamma, Logistic, Multinomial, Pinball, Poisson, Squared
from daskdml.utils.params import Interval, Options


class HistGradientBoostingClassifier(ScoredByAccuracy, HistGradientBoosting):
    """Classify by boosted trees on binned features; scikit-learn's parameters and attributes.

    Each iteration adds one tree (one per class for more than two) that is grown on the gradients g and hessians h of
    the log loss at the raw predictions so far; a leaf of rows R adds ``-learning_rate * sum_R g / (sum_R h + l2)``.

    Parameters
    ----------
    loss : {"log_loss"}, default "log_loss"
    learning_rate : float, default 0.1
        What leaves are multiplied by.
    max_iter : int, default 100
        Iterations at most.
    max_leaf_nodes : int or None, default 31
    max_depth : int or None, default None
    min_samples_leaf : int, default 20
        Rows; integer weights up to 15 count as so many.
    l2_regularization : float, default 0.0
    max_features : float, default 1.0
        Share of the features that are tried at each node.
    max_bins : int, default 255
        Bins of values that are not missing, at most 255.
    categorical_features : None, "from_dtype", array_like of bool, int or str, default "from_dtype"
        Which features are categories, whose values have no order: a mask, indices, names, or those columns of a
        DataFrame (pandas, polars, dask.dataframe) that have a category dtype. A column that is marked may hold words,
        numbers or anything else that can be sorted, at most ``max_bins`` values. Categories are the values that some
        row holds, be its weight zero; others, declared by the dtype or first met by ``predict``, are missing values.
    monotonic_cst : array_like of int, dict or None, default None
        1, 0 or -1 for each feature; of two classes only.
    interaction_cst : {"pairwise", "no_interactions"}, sequence of sequences of int, or None, default None
        Groups of features that may stand together on the way to a leaf.
    warm_start : bool, default False
        Add iterations to those of the last fit.
    early_stopping : "auto" or bool, default "auto"
        Stop when the score does not get better; "auto" does for more than 10,000 rows.
    scoring : str, callable or None, default "loss"
        What stops early: "loss", one of scikit-learn's scorers, by name or itself, or None for the accuracy (or R²). A
        scorer sees some 10,000 of the rows that trees are grown on and a million of the others (or of X_val; fewer of
        many classes), which come to one worker after each iteration, in their order. What it gets for X are raw
        predictions. A fit with a function of your own is not gone on with from a checkpoint by another process.
    validation_fraction : float, int or None, default 0.1
        Rows that scores are taken of, those whose numbers have the least hashes; None takes them of the training rows.
        Of more than a million rows a share is held out to within its square root.
    n_iter_no_change : int, default 10
    tol : float, default 1e-7
    verbose : int, default 0
    random_state : int, generator or None, default None
        Of all draws: the rows that bins are made from, validation rows, `subsample`, `max_features`, stochastic
        rounding. None is a fixed draw, the same as 0.
    class_weight : dict, "balanced" or None, default None
    subsample : float, default 1.0
        Share of the rows that each tree is grown on.
    rounding : {"auto", "stochastic", "nearest"}, default "auto"
        How gradients become the integers of histograms: of 15 bits up to 50,000 rows, of 12 above. "stochastic" rounds
        up or down by a hash of the row's number, so that sums have the right mean; with the "nearest" integers whole
        weights up to 15 are repeated rows, and the order of rows changes nothing, to the last bit. "auto" is
        "nearest" up to 50,000 rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_iter_, n_trees_per_iteration_ : int
    train_score_, validation_score_ : ndarray of shape (n_iterations + 1,)
        Minus the mean loss, or the score, before the first iteration and after each; empty without early stopping.
    do_early_stopping_ : bool
    feature_importances_ : ndarray of shape (n_features,)
    is_categorical_ : ndarray of bool, shape (n_features,), or None
        None if no feature is categorical.
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    The same trees, bit for bit, for any number of threads and workers and any chunks of the same rows: gradients are
    rounded to 12 bits, up or down by a hash of the row's number, and sums of integers have no order. The values of
    leaves come from sums of some 40 bits. Two to four passes over X make the bins, one byte a value, which stay in
    memory, beside their transpose, or are files where they have no room. 28 bytes a row (12 and 16 for each class of
    more than two) stay in memory: where these have no room the fit is refused before bins are made.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = HistGradientBoostingClassifier(random_state=0).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    """

    _constraints = {"loss": [Options({"log_loss"})], "class_weight": [dict, Options({"balanced"}), None]}
    _kind = "classes"

    def __init__(
        self, loss="log_loss", *, learning_rate=0.1, max_iter=100, max_leaf_nodes=31, max_depth=None,
        min_samples_leaf=20, l2_regularization=0.0, max_features=1.0, max_bins=255, categorical_features="from_dtype",
        monotonic_cst=None, interaction_cst=None, warm_start=False, early_stopping="auto", scoring="loss",
        validation_fraction=0.1, n_iter_no_change=10, tol=1e-7, verbose=0, random_state=None, class_weight=None,
        subsample=1.0, rounding="auto",
    ):  # fmt: skip
        self.loss = loss
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.max_leaf_nodes = max_leaf_nodes
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization
        self.max_features = max_features
        self.max_bins = max_bins
        self.categorical_features = categorical_features
        self.monotonic_cst = monotonic_cst
        self.interaction_cst = interaction_cst
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.class_weight = class_weight
        self.subsample = subsample
        self.rounding = rounding

    def _check_targets(self, summary):
        check_classes(summary.classes)
        weights = summary.weights * (1.0 if self.class_weight is None else class_weights(self.class_weight, summary))
        if np.count_nonzero(weights) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but all the weight is on the class "
                f"{summary.classes.tolist()[int(np.argmax(weights))]!r}. Give another class a weight above 0."
            )

    def _prepare_targets(self, run, summary):
        run.transform_targets(functools.partial(encode_classes, summary.classes))
        k = len(summary.classes)
        return Logistic() if k <= 2 else Multinomial(k)

    def _class_weights(self, summary, run):
        if self.class_weight == "balanced":
            summary = with_exact_weights(summary, run)
        return class_weights(self.class_weight, summary)

    def decision_function(self, X):
        """Return raw predictions: log odds of the second of two classes, (n, n_classes) of more.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes); lazy on Dask input
        """
        if self._fitted().n_outputs == 1:
            return self._map_raw(X, None)
        return self._map_raw(X, None, kind="matrix", columns=self.classes_)

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,), lazy on Dask input
        """
        self._fitted()
        return self._map_raw(X, functools.partial(label_rows, self.classes_), dtype=self.classes_.dtype)

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        self._fitted()
        return self._map_raw(X, probabilities, kind="matrix", columns=self.classes_)

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        self._fitted()
        return self._map_raw(X, log_probabilities, kind="matrix", columns=self.classes_)

    def staged_decision_function(self, X):
        """Yield `decision_function` after each iteration, of data in memory.

        Parameters
        ----------
        X : any input in memory, shape (n, n_features)

        Yields
        ------
        ndarray of shape (n,) or (n, n_classes)
        """
        return self._staged(X, None)

    def staged_predict(self, X):
        """Yield `predict` after each iteration, of data in memory.

        Parameters
        ----------
        X : any input in memory, shape (n, n_features)

        Yields
        ------
        ndarray of shape (n,)
        """
        return self._staged(X, functools.partial(label_rows, self.classes_))

    def staged_predict_proba(self, X):
        """Yield `predict_proba` after each iteration, of data in memory.

        Parameters
        ----------
        X : any input in memory, shape (n, n_features)

        Yields
        ------
        ndarray of shape (n, n_classes)
        """
        return self._staged(X, probabilities)


class HistGradientBoostingRegressor(ScoredByR2, HistGradientBoosting):
    """Predict numbers by boosted trees on binned features; scikit-learn's parameters and attributes.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "gamma", "poisson", "quantile"}, default "squared_error"
        Leaves of "absolute_error" and "quantile" are quantiles of residuals; "gamma" and "poisson" predict exp(raw).
    quantile : float or None, default None
        Which one, of ``loss="quantile"``.
    learning_rate, max_iter, max_leaf_nodes, max_depth, min_samples_leaf, l2_regularization, max_features, max_bins : \
    see `HistGradientBoostingClassifier`
    categorical_features : None, "from_dtype", array_like of bool, int or str, default "from_dtype"
        Likewise.
    monotonic_cst, interaction_cst, warm_start, early_stopping, scoring, validation_fraction : likewise
    n_iter_no_change, tol, verbose, random_state, subsample, rounding : likewise

    Attributes
    ----------
    n_iter_, n_trees_per_iteration_ : int
    train_score_, validation_score_ : ndarray of shape (n_iterations + 1,)
    do_early_stopping_ : bool
    feature_importances_ : ndarray of shape (n_features,)
    is_categorical_ : ndarray of bool, shape (n_features,), or None
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    See `HistGradientBoostingClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> HistGradientBoostingRegressor(random_state=0).fit(X, y).score(X, y) > 0.8
    True
    """

    _constraints = {
        "loss": [Options({"squared_error", "absolute_error", "gamma", "poisson", "quantile"})],
        "quantile": [Interval(numbers.Real, 0, 1), None],
    }
    _kind = "values"

    def __init__(
        self, loss="squared_error", *, quantile=None, learning_rate=0.1, max_iter=100, max_leaf_nodes=31,
        max_depth=None, min_samples_leaf=20, l2_regularization=0.0, max_features=1.0, max_bins=255,
        categorical_features="from_dtype", monotonic_cst=None, interaction_cst=None, warm_start=False,
        early_stopping="auto", scoring="loss", validation_fraction=0.1, n_iter_no_change=10, tol=1e-7, verbose=0,
        random_state=None, subsample=1.0, rounding="auto",
    ):  # fmt: skip
        self.loss = loss
        self.quantile = quantile
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.max_leaf_nodes = max_leaf_nodes
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization
        self.max_features = max_features
        self.max_bins = max_bins
        self.categorical_features = categorical_features
        self.monotonic_cst = monotonic_cst
        self.interaction_cst = interaction_cst
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.subsample = subsample
        self.rounding = rounding

    def _check_targets(self, summary):
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        if self.loss == "poisson" and (summary.low < 0 or summary.total <= 0):
            raise ValueError("loss='poisson' requires non-negative y and sum(y) > 0.")
        if self.loss == "gamma" and summary.low <= 0:
            raise ValueError("loss='gamma' requires strictly positive y.")
        if self.loss == "quantile" and self.quantile is None:
            raise ValueError("loss='quantile' needs quantile=, a number between 0 and 1.")

    def _prepare_targets(self, run, summary):
        kinds = {"squared_error": Squared, "absolute_error": Absolute, "poisson": Poisson, "gamma": Gamma}
        return Pinball(self.quantile) if self.loss == "quantile" else kinds[self.loss]()

    def _class_weights(self, summary, run):
        return None

    def predict(self, X):
        """Return the prediction for each row.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of float64, shape (n,), lazy on Dask input
        """
        self._fitted()
        return self._map_raw(X, self._loss.predict)

    def staged_predict(self, X):
        """Yield `predict` after each iteration, of data in memory.

        Parameters
        ----------
        X : any input in memory, shape (n, n_features)

        Yields
        ------
        ndarray of shape (n,)
        """
        return self._staged(X, self._fitted() and self._loss.predict)
