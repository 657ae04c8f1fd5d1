"""Histogram gradient boosting."""

import functools
import math
import numbers
import time
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import NotFittedError

from daskdml.data import apply_rows, as_matrix, check_features, encode_classes, is_dask, whole_rows
from daskdml.data.codes import Coding, as_columns
from daskdml.ensemble._categories import categorical_mask
from daskdml.ensemble._constraints import interaction_groups, monotonic_senses
from daskdml.ensemble._given import check_given, given_rows
from daskdml.ensemble._lightgbm import write_model
from daskdml.ensemble._program import BoostingProgram
from daskdml.fitting import (
    check_classes,
    class_weights,
    fitting,
    label_rows,
    log_probabilities,
    one_dimensional,
    probabilities,
    with_exact_weights,
)
from daskdml.fitting.rows import FactsOfRows
from daskdml.kernels.binning import row_bytes
from daskdml.losses import Absolute, Gamma, Logistic, Multinomial, Pinball, Poisson, Squared
from daskdml.runtime.checkpoint import digest_of
from daskdml.trees import BinRows, Boosting, BoostingState, Ensemble, Settings, bytes_per_row, histogram_bytes
from daskdml.trees.binning import find_bins
from daskdml.trees.boosting import FEW_ROWS, held_out_share
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

COLUMNS_SHARE = 0.5  # of the memory: where rows need more, bins are kept once
EARLY_STOPPING_ROWS = 10_000  # scikit-learn's: "auto" stops early above
_REAL, _INT = numbers.Real, numbers.Integral
_CONSTRAINTS = {
    "learning_rate": [Interval(_REAL, 0, None, "neither")],
    "max_iter": [Interval(_INT, 1, None)],
    "max_leaf_nodes": [Interval(_INT, 2, None), None],
    "max_depth": [Interval(_INT, 1, None), None],
    "min_samples_leaf": [Interval(_INT, 1, None)],
    "l2_regularization": [Interval(_REAL, 0, None)],
    "max_features": [Interval(_REAL, 0, 1, "right")],
    "max_bins": [Interval(_INT, 2, 255)],
    "categorical_features": ["array-like", Options({"from_dtype"}), None],
    "monotonic_cst": ["array-like", dict, None],
    "interaction_cst": [list, tuple, Options({"pairwise", "no_interactions"}), None],
    "warm_start": ["boolean"],
    "early_stopping": [Options({"auto"}), "boolean"],
    "scoring": [Options({"loss"})],
    "validation_fraction": [Interval(float, 0, 1, "neither"), Interval(_INT, 1, None), None],
    "n_iter_no_change": [Interval(_INT, 1, None)],
    "tol": [Interval(_REAL, 0, None)],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "random_state": ["random_state"],
    "subsample": [Interval(_REAL, 0, 1, "right")],
    "rounding": [Options({"auto", "stochastic", "nearest"})],
}


class _HistGradientBoosting(BaseEstimator):
    """What both share: the fit, raw predictions, importances."""

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
            NaN is a missing value. Categories may be of any dtype, and what is missing of them None, NaN or NA.
        y : array_like, Series or Dask collection, shape (n_samples,)
        sample_weight : the same, shape (n_samples,), or a number for every row, optional
        X_val, y_val, sample_weight_val : the same, with other rows, optional
            Scores are taken of these rows instead of a share of the others, where boosting may stop early. Their bins,
            a byte a value, are held by this process and every worker.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, y, weights or shapes, for columns of words that are not marked as categorical, and for
            more categories than ``max_bins``.
        """
        check_params(self, {**_CONSTRAINTS, **self._constraints})
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                'Boosting runs as ranks, config_context(runtime="spmd"), or on threads of this process, "threads"; '
                'runtime="tasks" has neither. Leave it at "auto".'
            )
        given = (X_val, y_val, sample_weight_val) if check_given(self, X_val, y_val, sample_weight_val) else None
        if self._goes_on:
            check_features(self, X, reset=False)  # its bins, and its trees, are of those
        y, X, matrix, coding = one_dimensional(y), whole_rows(X), True, None
        is_categorical = categorical_mask(self.categorical_features, X)
        if is_categorical is not None:
            X, coding = as_columns(X), Coding(is_categorical)
            matrix = coding.reader(X)
        with fitting(self, X, y, sample_weight, verbose=self.verbose, passes="few", matrix=matrix) as fit:
            found = self._boost(fit, coding, given)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(found))
        vars(self).update(vars(fit.features))
        self.fit_report_ = fit.report
        return self

    def _boost(self, fit, coding, given):
        """Return the namespace of fitted attributes."""
        run, p = fit.run, fit.run.n_features
        found = SimpleNamespace()
        summary, coding = self._survey(fit, coding)
        loss = self._prepare_targets(fit, summary, found)
        settings = self._settings(fit.features, loss, coding)
        seed, state, bins = self._begin(found)
        n_rows = run.n_samples
        stops = self.early_stopping
        if stops == "auto":
            stops = given is not None or n_rows > EARLY_STOPPING_ROWS
        stops = bool(stops)
        validation = self._validation(seed, n_rows) if stops and given is None else None
        encode, is_categorical, categories = as_matrix, np.zeros(p, bool), None
        if coding is not None:
            encode, is_categorical, categories = coding, coding.is_categorical, coding.codes
        run.check_room(bytes_per_row(p, loss.n_outputs, by_columns=False), histogram_bytes(p))
        by_columns = run.has_room(bytes_per_row(p, loss.n_outputs), histogram_bytes(p), COLUMNS_SHARE)
        started = time.perf_counter()
        if bins is None:
            bins = find_bins(run, self.max_bins, is_categorical, encode, seed, categories=categories)
        run.replace_rows(BinRows(bins, encode), row_bytes(p), np.uint8)
        if given is not None:
            given = self._given(given, fit.features, bins, coding, getattr(found, "classes_", None))
        by_class = self._class_weights(summary, run)
        facts = run.map_reduce(FactsOfRows(p, by_class, seed, validation))
        bin_seconds = time.perf_counter() - started
        if validation is not None:
            self._check_validation(facts)
        n_times = facts.n_counted if facts.counts else n_rows
        boosting = Boosting(
            loss, settings, bins, facts.has_missing, n_times, int(self.max_iter), seed, counts=facts.counts,
            most_weight=facts.most_weight, subsample=float(self.subsample), is_stochastic=self._is_stochastic(n_times),
            validation=validation, scores=stops, patience=int(self.n_iter_no_change), tol=float(self.tol),
            class_weight=by_class, given=given, by_columns=by_columns,
        )  # fmt: skip
        # Rows are bins by now: what the bins are of, and what was there before, no hash of the rows tells.
        state = run.run_saved(BoostingProgram(boosting, state), fit.what + digest_of((seed, state, bins, given)))
        found.__dict__.update(
            do_early_stopping_=stops, train_score_=np.array(state.train_scores),
            validation_score_=np.array(state.validation_scores),
            is_categorical_=None if coding is None else is_categorical, _coding=coding, _bins=bins, _loss=loss,
            _model=Ensemble(state.trees, loss.n_outputs, state.baseline, categories), _seed=seed,
        )  # fmt: skip
        fit.report.phases = {"bin": bin_seconds, **(state.seconds or {})}
        fit.report.counts = {
            "rounds": state.n_rounds, "bytes a round": state.bytes_sent / max(state.n_rounds, 1),
            "splits": state.n_splits,
        }  # fmt: skip
        stopped_because = "early stopping" if state.is_over else "max_iter"
        fit.close(converged=True, stopped_because=stopped_because, n_iter=len(state.trees))
        return found

    def _given(self, given, features, bins, coding, classes):
        """Return the validation rows that a user gave."""
        X, *rest = given
        X, matrix, encode = whole_rows(X), True, as_matrix
        if coding is not None:
            X, encode = as_columns(X), coding
            matrix = coding.reader(X)
        return given_rows(self, features, (X, *rest), bins, encode, matrix, classes)

    def _survey(self, fit, coding):
        """Return the `TargetSummary` of y and, where there are categories, the coding that knows them: in one pass."""
        if self._goes_on:
            before = None if self._coding is None else self._coding.is_categorical
            now = None if coding is None else coding.is_categorical
            if not np.array_equal(before, now):
                raise ValueError(
                    "A warm start goes on with the categorical features of the last fit, but others are categorical "
                    "now; set warm_start=False."
                )
            return fit.targets(self._kind), self._coding
        if coding is None:
            return fit.targets(self._kind), None
        summary, found = fit.targets(self._kind, beside=coding.finder(self.max_bins))
        return summary, coding.with_found(found, getattr(fit.features, "feature_names_in_", None))

    @property
    def _goes_on(self):
        return self.warm_start and getattr(self, "_model", None) is not None

    def _begin(self, found):
        """Return the seed, the state to begin with, and the bins, which a warm start has already."""
        if not self._goes_on:
            return as_seed(0 if self.random_state is None else self.random_state), BoostingState(), None
        model = self._model
        if self.max_iter < self.n_iter_:
            raise ValueError(
                f"max_iter={self.max_iter} must be larger than or equal to n_iter_={self.n_iter_} when warm_start==True"
            )
        known = getattr(self, "classes_", None)
        if known is not None and not np.array_equal(known, found.classes_):
            raise ValueError(
                f"A warm start goes on with the classes {known.tolist()}, but y holds {found.classes_.tolist()}; set "
                "warm_start=False."
            )
        state = BoostingState(
            model.baseline, model.trees, tuple(self.train_score_.tolist()), tuple(self.validation_score_.tolist())
        )
        return self._seed, state, self._bins

    def _settings(self, features, loss, coding):
        p = features.n_features_in_
        monotonic = monotonic_senses(self.monotonic_cst, features)
        if monotonic is not None and loss.n_outputs > 1:
            raise ValueError("monotonic constraints are not supported for multiclass classification.")
        if monotonic is not None and coding is not None and monotonic[coding.is_categorical].any():
            raise ValueError("Categorical features cannot have monotonic constraints.")
        return Settings(
            self.max_leaf_nodes, self.max_depth, int(self.min_samples_leaf), float(self.l2_regularization),
            float(self.learning_rate), float(self.max_features), monotonic, interaction_groups(self.interaction_cst, p),
        )  # fmt: skip

    def _validation(self, seed, n_rows):
        """Return the share that hashes of validation rows are below, or None for no such rows."""
        given = self.validation_fraction
        if given is None:
            return None
        n_held = int(given) if isinstance(given, _INT) else math.ceil(given * n_rows)
        if n_held >= n_rows:
            raise ValueError(
                f"validation_fraction={given} holds out {n_held:,} of {n_rows:,} rows and leaves none to grow trees "
                "on; hold out fewer, or set validation_fraction=None (scores of the training rows) or "
                "early_stopping=False."
            )
        return held_out_share(seed, n_rows, n_held)

    def _check_validation(self, facts):
        if facts.trains and facts.validates:
            return
        which = "held out for validation" if facts.trains else "left to grow trees on"
        raise ValueError(
            f"With validation_fraction={self.validation_fraction} none of the rows {which} has a weight above 0; set "
            "another fraction or random_state, validation_fraction=None (scores of the training rows) or "
            "early_stopping=False."
        )

    def _is_stochastic(self, n_rows):
        return n_rows > FEW_ROWS if self.rounding == "auto" else self.rounding == "stochastic"

    @property
    def n_iter_(self):
        """Iterations of the boosting process."""
        return len(self._fitted().trees)

    @property
    def n_trees_per_iteration_(self):
        """Trees of one iteration: one per class, or one."""
        return self._fitted().n_outputs

    @property
    def feature_importances_(self):
        """Share of each feature in the gains of all splits, an ndarray of shape (n_features,) that sums to one."""
        return self.importances("gain")

    def importances(self, kind="gain"):
        """Return how much each feature was used.

        Parameters
        ----------
        kind : {"gain", "count"}, default "gain"
            By how much splits lowered the loss, or how many there were.

        Returns
        -------
        ndarray of float64, shape (n_features,)
            Sums to one, where there is a split.
        """
        if kind not in ("gain", "count"):
            raise ValueError(f"kind must be 'gain' or 'count', got {kind!r}.")
        total = np.zeros(self._fitted_features())
        for tree in (tree for iteration in self._fitted().trees for tree in iteration):
            split = ~tree.is_leaf
            np.add.at(total, tree.feature[split], tree.gain[split] if kind == "gain" else 1.0)
        return total / total.sum() if total.any() else total

    def to_lightgbm(self):
        """Return the model as text that LightGBM reads: ``lightgbm.Booster(model_str=text)``.

        Its ``predict`` gives what `predict` of a regressor does, and the probabilities of a classifier: of the second
        of two classes, of all where there are more. With ``raw_score=True`` it gives the same raw predictions.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If a categorical feature has other categories than whole numbers from 0 to 65,535, or if two features have
            the same name where white space counts as ``_``.

        Notes
        -----
        LightGBM truncates categories, 2.5 being 2 and not an unknown one, and takes what is within 1e-35 of zero for
        zero.
        """
        model = self._fitted()
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{f}" for f in range(self.n_features_in_)] if names is None else names.tolist()
        return write_model(model, self._loss, self._coding, names)

    def _fitted(self):
        model = getattr(self, "_model", None)
        if model is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )
        return model

    def _fitted_features(self):
        self._fitted()
        return self.n_features_in_

    def __sklearn_is_fitted__(self):
        return getattr(self, "_model", None) is not None

    def _map_raw(self, X, finish, **result):
        """Apply ``finish(raw predictions)`` to the rows of X, lazily on Dask input."""
        model = self._fitted()
        plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype.char in "fd"
        if not plain or hasattr(self, "feature_names_in_") or X.shape[1] != self.n_features_in_ or X.shape[0] == 0:
            check_features(self, X, reset=False)
        fn = functools.partial(_raw_of, model, finish)
        if self._coding is not None:
            X, fn = as_columns(X), functools.partial(_raw_of_categories, model, finish, self._coding)
        return apply_rows(fn, X, **result) if is_dask(X) else fn(X)

    def _staged(self, X, finish):
        if is_dask(X):
            raise ValueError(
                "Predictions after each iteration are given for data in memory only; compute() the rows first, or call "
                "this method by map_blocks or map_partitions."
            )
        model = self._fitted()
        check_features(self, X, reset=False)
        for raw in model.staged_raw(as_matrix(X) if self._coding is None else self._coding(as_columns(X))):
            yield finish(raw.copy())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags


class HistGradientBoostingClassifier(ClassifierMixin, _HistGradientBoosting):
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
    scoring : "loss", default "loss"
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
        Minus the mean loss before the first iteration and after each; empty without early stopping.
    do_early_stopping_ : bool
    feature_importances_ : ndarray of shape (n_features,)
    is_categorical_ : ndarray of bool, shape (n_features,), or None
        None if no feature is categorical.
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    The same trees, bit for bit, for any number of threads and workers and any chunks of the same rows: gradients are
    rounded to 12 bits, up or down by a hash of the row's number, and sums of integers have no order. The values of
    leaves come from sums of some 40 bits. Two to four passes over X make the bins, one byte a value; they, and 28 bytes
    a row (12 and 16 for each class of more than two), stay in memory, beside their transpose: what has no room is
    refused before bins are made.

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

    def _prepare_targets(self, fit, summary, found):
        found.classes_ = summary.classes
        check_classes(summary.classes)
        weights = summary.weights * (1.0 if self.class_weight is None else class_weights(self.class_weight, summary))
        if np.count_nonzero(weights) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but all the weight is on the class "
                f"{summary.classes.tolist()[int(np.argmax(weights))]!r}. Give another class a weight above 0."
            )
        fit.run.transform_targets(functools.partial(encode_classes, summary.classes))
        k = len(summary.classes)
        return Logistic() if k == 2 else Multinomial(k)

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
        return self._staged(X, _itself)

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

    def score(self, X, y, sample_weight=None):
        """Return the accuracy, a float, also on Dask input.

        Parameters
        ----------
        X : any input, shape (n, n_features)
        y : array_like or Dask collection, shape (n,)
        sample_weight : the same, optional

        Returns
        -------
        float
        """
        from daskdml.metrics import accuracy_score

        return accuracy_score(y, self.predict(X), sample_weight=sample_weight)


class HistGradientBoostingRegressor(RegressorMixin, _HistGradientBoosting):
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
        "quantile": [Interval(_REAL, 0, 1), None],
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

    def _prepare_targets(self, fit, summary, found):
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        if self.loss == "poisson" and (summary.low < 0 or summary.total <= 0):
            raise ValueError("loss='poisson' requires non-negative y and sum(y) > 0.")
        if self.loss == "gamma" and summary.low <= 0:
            raise ValueError("loss='gamma' requires strictly positive y.")
        if self.loss == "quantile" and self.quantile is None:
            raise ValueError("loss='quantile' needs quantile=, a number between 0 and 1.")
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

    def score(self, X, y, sample_weight=None):
        """Return R², a float, also on Dask input.

        Parameters
        ----------
        X : any input, shape (n, n_features)
        y : array_like or Dask collection, shape (n,)
        sample_weight : the same, optional

        Returns
        -------
        float
        """
        from daskdml.metrics import r2_score

        return r2_score(y, self.predict(X), sample_weight=sample_weight)


def _raw_of(model, finish, X):
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype.char in "fd"
    raw = model.raw(X if plain else as_matrix(X))
    return raw if finish is None else finish(raw)


def _raw_of_categories(model, finish, coding, X):
    raw = model.raw(coding(X))
    return raw if finish is None else finish(raw)


def _itself(raw):
    return raw
