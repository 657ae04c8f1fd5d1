"""What decision trees and forests share: the fit, the mean of trees, importances, the way to scikit-learn."""

import functools
import math
import numbers
import time
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from daskdml.data import apply_rows, as_matrix, check_features, encode_classes, is_dask, whole_rows
from daskdml.fitting.classes import class_weights, with_exact_weights
from daskdml.fitting.fit import fitting, one_dimensional
from daskdml.fitting.growing import ForestProgram
from daskdml.fitting.rows import FactsOfRows
from daskdml.fitting.scores import ScoredByAccuracy, ScoredByR2
from daskdml.fitting.sklearn_nodes import sklearn_nodes
from daskdml.kernels.binning import row_bytes
from daskdml.runtime.checkpoint import digest_of
from daskdml.trees import BinRows, Forest, ForestState, MeanOfTrees, Recipe
from daskdml.trees.binning import find_bins
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

ROOM_SHARE = 0.8  # of a worker's limit
_REAL, _INT = numbers.Real, numbers.Integral
_CONSTRAINTS = {
    "n_estimators": [Interval(_INT, 1, None)],
    "splitter": [Options({"best", "random"})],
    "max_depth": [Interval(_INT, 1, None), None],
    "min_samples_split": [Interval(_INT, 2, None), Interval(float, 0, 1, "right")],
    "min_samples_leaf": [Interval(_INT, 1, None), Interval(float, 0, 1, "neither")],
    "min_weight_fraction_leaf": [Interval(_REAL, 0, 0.5)],
    "max_features": [Interval(_INT, 1, None), Interval(float, 0, 1, "right"), Options({"sqrt", "log2"}), None],
    "max_leaf_nodes": [Interval(_INT, 2, None), None],
    "min_impurity_decrease": [Interval(_REAL, 0, None)],
    "bootstrap": ["boolean"],
    "oob_score": ["boolean", callable],
    "n_jobs": [_INT, None],
    "random_state": ["random_state"],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "warm_start": ["boolean"],
    "ccp_alpha": [Interval(_REAL, 0, None)],
    "max_samples": [None, Interval(_INT, 1, None), Interval(float, 0, 1, "right")],
    "monotonic_cst": ["array-like", None],
    "max_bins": [Interval(_INT, 2, 255)],
}


def single_rows(X):
    """Return rows as float32, as scikit-learn's trees see them; NaN is a missing value.

    Raises
    ------
    ValueError
        For infinite values, and those that float32 makes infinite.
    """
    X = as_matrix(X)
    with np.errstate(over="ignore"):
        X = X if X.dtype == np.float32 else X.astype(np.float32)
    if np.isinf(X.data if hasattr(X, "indptr") else X).any():
        raise ValueError(
            "Input X contains infinity or a value too large for dtype('float32'). Trees see float32: divide the column "
            "by its size, or let missing values be NaN."
        )
    return X


class GrownTrees(BaseEstimator):
    """Trees that are grown beside each other on all rows; see the classes of `daskdml.ensemble` and `daskdml.tree`."""

    _is_random = False
    _stands_alone = False  # a tree, not a forest

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
            Read as float32, as scikit-learn does. NaN is a missing value.
        y : array_like, Series or Dask collection, shape (n_samples,)
        sample_weight : the same, shape (n_samples,), or a number for every row, optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, y, weights or shapes, and for infinite values.
        """
        check_params(self, {**_CONSTRAINTS, **self._constraints})
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                f"{type(self).__name__} runs as ranks, config_context(runtime='spmd'), or on threads of this process, "
                "'threads'; runtime='tasks' has neither. Leave it at 'auto'."
            )
        if self._goes_on:
            check_features(self, X, reset=False)  # its bins, and its trees, are of those
        y, X = one_dimensional(y), whole_rows(X)
        verbose = getattr(self, "verbose", 0)
        with fitting(self, X, y, sample_weight, verbose=verbose, passes="few") as fit:
            found = self._grow(fit)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(found))
        vars(self).update(vars(fit.features))
        self.fit_report_ = fit.report
        return self

    def _grow(self, fit):
        """Return the namespace of fitted attributes."""
        run, p = fit.run, fit.run.n_features
        found = SimpleNamespace()
        summary = fit.targets(self._kind)
        recipe = self._recipe(fit, summary, found)
        wants_oob = bool(getattr(self, "oob_score", False))
        if wants_oob and recipe.draws is None:
            raise ValueError("Out of bag estimation only available if bootstrap=True.")
        n_trees, state, seed, bins = self._begin(found)
        # Bins by rows and by features, those on their way from other ranks twice; y and weights; what a thread needs of
        # each row. Dask kills a worker at 95 % of its limit, and the process is not empty.
        n_bytes = row_bytes(p) + 3 * p + 32 + 88 * run.threads_per_worker
        run.check_room(math.ceil(n_bytes / ROOM_SHARE), on_each=True)
        started = time.perf_counter()
        if bins is None:
            bins = find_bins(run, self.max_bins, np.zeros(p, bool), single_rows, seed, keeps_values=True)
        run.replace_rows(BinRows(bins, single_rows), row_bytes(p), np.uint8)
        facts = run.map_reduce(FactsOfRows(p, recipe.class_weight, seed, None))
        n_counted = facts.n_counted if facts.counts else run.n_samples
        _check_sizes(summary, facts, recipe)
        forest = Forest(recipe, bins, n_trees, seed, n_counted, facts.most_weight, facts.counts, wants_oob)
        now = time.perf_counter()
        program = ForestProgram(forest, state, _n_threads(getattr(self, "n_jobs", None)))
        # Rows are bins by now: what the bins are of, and what was there before, no hash of the rows tells.
        state = run.run_saved(program, fit.what + digest_of((seed, state, bins)))
        found.__dict__.update(
            _model=MeanOfTrees(state.trees, max(recipe.n_classes, 1)), _forest=forest, _n_samples=run.n_samples,
            n_outputs_=1,
        )  # fmt: skip
        if self._stands_alone:
            found.max_features_ = recipe.max_features
        fit.report.phases = {"bin": now - started, "grow": time.perf_counter() - now}
        if wants_oob:
            self._score_out_of_bag(*state.oob, found)
        fit.close(converged=True, stopped_because="", n_iter=len(state.trees))
        return found

    def _recipe(self, fit, summary, found):
        n, p = summary.n_rows, fit.run.n_features
        n_classes, by_class, is_balanced = self._prepare_targets(fit, summary, found)
        draws = None
        if getattr(self, "bootstrap", False):
            most = self.max_samples
            if isinstance(most, _INT) and most > n:
                raise ValueError(f"`max_samples` must be <= n_samples={n} but got value {most}")
            draws = 1.0 if most is None else most / n if isinstance(most, _INT) else float(most)
        elif getattr(self, "max_samples", None) is not None:
            raise ValueError(
                "`max_sample` cannot be set if `bootstrap=False`. Either switch to `bootstrap=True` or set "
                "`max_sample=None`."
            )
        return Recipe(
            self.criterion, n_classes, _n_features(self.max_features, p), self.max_depth, self.max_leaf_nodes,
            max(2, _n_rows(self.min_samples_split, n)), _n_rows(self.min_samples_leaf, n),
            float(self.min_weight_fraction_leaf), float(self.min_impurity_decrease), float(self.ccp_alpha),
            self._is_random or getattr(self, "splitter", "best") == "random", _senses(self.monotonic_cst, p, n_classes),
            draws, is_balanced, by_class,
        )  # fmt: skip

    @property
    def _goes_on(self):
        return getattr(self, "warm_start", False) and getattr(self, "_model", None) is not None

    def _begin(self, found):
        """Return the number of trees, the state to begin with, the seed and, where they are known, the bins."""
        n_trees = 1 if self._stands_alone else int(self.n_estimators)
        if not self._goes_on:
            return n_trees, ForestState(), as_seed(0 if self.random_state is None else self.random_state), None
        model = self._model
        if n_trees < len(model.trees):
            raise ValueError(
                f"n_estimators={n_trees} must be larger or equal to len(estimators_)={len(model.trees)} when "
                "warm_start==True"
            )
        known = getattr(self, "classes_", None)
        if known is not None and not np.array_equal(known, found.classes_):
            raise ValueError(
                f"A warm start goes on with the classes {known.tolist()}, but y holds {found.classes_.tolist()}; set "
                "warm_start=False."
            )
        if n_trees == len(model.trees):
            warnings.warn(
                "Warm-start fitting without increasing n_estimators does not fit new trees.", stacklevel=4
            )
        return n_trees, ForestState(model.trees), self._forest.seed, self._forest.bins

    def _fitted(self):
        model = getattr(self, "_model", None)
        if model is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )
        return model

    def __sklearn_is_fitted__(self):
        return getattr(self, "_model", None) is not None

    def _map(self, X, fn, **result):
        self._fitted()
        check_features(self, X, reset=False)
        return apply_rows(fn, X, **result) if is_dask(X) else fn(X)

    def apply(self, X):
        """Return the leaf that each row ends in, as scikit-learn numbers them.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of int, shape (n, n_trees), of a single tree (n,); lazy on Dask input
        """
        fn = functools.partial(_leaves_of, self._fitted(), self._stands_alone)
        if self._stands_alone:
            return self._map(X, fn, dtype=np.int64)
        return self._map(X, fn, kind="matrix", columns=np.arange(len(self._model.trees)), dtype=np.int64)

    def decision_path(self, X):
        """Return the nodes that each row passes, for data in memory; see scikit-learn's method of that name.

        Parameters
        ----------
        X : any input in memory, shape (n, n_features)

        Returns
        -------
        CSR matrix of shape (n, n_nodes), for a forest with the first column of each tree beside it
        """
        self._fitted()
        if is_dask(X):
            raise ValueError("decision_path takes data in memory only; compute() the rows first, or call apply.")
        check_features(self, X, reset=False)
        return self.to_sklearn().decision_path(single_rows(X))

    @property
    def feature_importances_(self):
        """Share of each feature in what splits lower the impurity by, an ndarray of (n_features,) that sums to one."""
        return self._fitted().importances(self.n_features_in_)

    def _twin(self, kind, tree):
        """Return a scikit-learn tree that holds one of ours."""
        twin = kind()
        known = twin.get_params(deep=False)
        twin.set_params(**{name: value for name, value in self.get_params(deep=False).items() if name in known})
        twin.tree_ = sklearn_nodes(tree, self.n_features_in_, max(len(getattr(self, "classes_", ())), 1))
        twin.n_features_in_, twin.n_outputs_ = self.n_features_in_, 1
        twin.max_features_ = _n_features(self.max_features, self.n_features_in_)
        if hasattr(self, "classes_"):
            # Trees of scikit-learn's forests know classes by their numbers.
            known = self.classes_ if self._stands_alone else np.arange(len(self.classes_), dtype=np.float64)
            twin.classes_, twin.n_classes_ = known, len(known)
        return twin

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags


class ClassesOfTrees(ScoredByAccuracy):
    """What classifiers of trees share; beside `GrownTrees`."""

    _kind = "classes"

    def _prepare_targets(self, fit, summary, found):
        found.classes_, found.n_classes_ = summary.classes, len(summary.classes)
        fit.run.transform_targets(functools.partial(encode_classes, summary.classes))
        balanced_each = self.class_weight == "balanced_subsample"
        given = "balanced" if balanced_each and not self.bootstrap else self.class_weight
        if given == "balanced":
            summary = with_exact_weights(summary, fit.run)
        by_class = None if given == "balanced_subsample" else class_weights(given, summary)
        return len(summary.classes), by_class, given == "balanced_subsample"

    def _score_out_of_bag(self, means, y, found):
        seen = _warn_of_rows_that_all_saw(means)
        found.oob_decision_function_ = means
        label = found.classes_[means.argmax(axis=1)][seen]
        score = self.oob_score if callable(self.oob_score) else _share_of_equal
        found.oob_score_ = float(score(found.classes_[y[seen]], label)) if seen.any() else np.nan

    def predict(self, X):
        """Return the class that most trees think probable: that of the largest mean probability.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,), lazy on Dask input
        """
        model = self._fitted()
        return self._map(X, functools.partial(_class_of, model, self.classes_), dtype=self.classes_.dtype)

    def predict_proba(self, X):
        """Return the mean of the trees' probabilities of each class.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        return self._map(X, functools.partial(_mean_of, self._fitted()), kind="matrix", columns=self.classes_)

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`, -inf where that is 0.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes); lazy on Dask input
        """
        return self._map(X, functools.partial(_log_mean_of, self._fitted()), kind="matrix", columns=self.classes_)


class NumbersOfTrees(ScoredByR2):
    """What regressors of trees share; beside `GrownTrees`."""

    _kind = "values"

    def _prepare_targets(self, fit, summary, found):
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        if self.criterion == "poisson" and (summary.low < 0 or summary.total <= 0):
            raise ValueError(
                "Some value(s) of y are negative, or all are zero, which is not allowed for Poisson regression."
            )
        return 0, None, False

    def _score_out_of_bag(self, means, y, found):
        from sklearn.metrics import r2_score

        seen = _warn_of_rows_that_all_saw(means)
        found.oob_prediction_ = means[:, 0]
        score = self.oob_score if callable(self.oob_score) else r2_score
        found.oob_score_ = float(score(y[seen], means[seen, 0])) if seen.any() else np.nan

    def predict(self, X):
        """Return the mean of the trees' predictions.

        Parameters
        ----------
        X : any input, shape (n, n_features)

        Returns
        -------
        ndarray of float64, shape (n,), lazy on Dask input
        """
        return self._map(X, functools.partial(_number_of, self._fitted()))


def _share_of_equal(y, label):
    return np.mean(y == label)


def _warn_of_rows_that_all_saw(means):
    """Return which rows some tree did not see; the others' means become 0, as scikit-learn's."""
    seen = ~np.isnan(means).any(axis=1)
    if not seen.all():
        warnings.warn(
            "Some inputs do not have OOB scores. This probably means too few trees were used to compute any reliable "
            "OOB estimates.",
            stacklevel=5,
        )
        means[~seen] = 0.0
    return seen


def _check_sizes(summary, facts, recipe):
    """Raise ValueError for what the arithmetic of trees cannot hold."""
    if summary.n_rows >= 2**32:
        raise ValueError(
            f"Trees of forests have fewer than {2**32:,} rows, got {summary.n_rows:,}; "
            "daskdml.ensemble.HistGradientBoosting* have more."
        )
    if not facts.trains:
        raise ValueError("No row has a weight above 0: sample_weight or class_weight is 0 for each; raise one of them.")
    size = 1.0 if recipe.n_classes else float(max(abs(summary.low), abs(summary.high)))
    factor = 1.0 if recipe.class_weight is None else float(np.max(recipe.class_weight))
    if not (1e-250 < facts.most_weight * factor and facts.most_weight * factor * size**2 * summary.n_rows < 1e300):
        raise ValueError(
            f"Weights up to {facts.most_weight * factor:g} and targets up to {size:g} are more than float64 arithmetic "
            "can hold; divide them by their size."
        )


def _n_features(given, p):
    """Return how many features a node tries, by scikit-learn's rules."""
    if given is None:
        return p
    if isinstance(given, str):
        return max(1, int(math.sqrt(p) if given == "sqrt" else math.log2(p)))
    if isinstance(given, _INT):
        return min(int(given), p)
    return max(1, int(given * p))


def _n_rows(given, n):
    return int(given) if isinstance(given, _INT) else math.ceil(given * n)


def _n_threads(n_jobs):
    """Return the threads of each process at most, None for all of them; negative numbers leave some out."""
    if n_jobs is None or n_jobs == -1:
        return None
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 has no meaning; give a number of threads, -1 for all, or None.")
    from daskdml.runtime.threads import n_cores

    return n_jobs if n_jobs > 0 else max(n_cores() + 1 + n_jobs, 1)


def _senses(given, p, n_classes):
    """Return the sense of each feature's constraint, or None for none."""
    if given is None:
        return None
    senses = np.asarray(given)
    if n_classes > 2:
        raise ValueError("Monotonicity constraints are not supported with multiclass classification")
    if senses.shape != (p,):
        raise ValueError(f"monotonic_cst has shape {senses.shape} but the input data X has {p} features.")
    if not np.isin(senses, (-1, 0, 1)).all():
        raise ValueError(f"monotonic_cst must be None or an array-like of -1, 0 or 1, but got {np.unique(senses)}")
    return senses.astype(np.int64) if senses.any() else None


def _mean_of(model, X):
    return model.mean(single_rows(X))


def _log_mean_of(model, X):
    with np.errstate(divide="ignore"):
        return np.log(_mean_of(model, X))


def _class_of(model, classes, X):
    return classes[_mean_of(model, X).argmax(axis=1)]


def _number_of(model, X):
    return _mean_of(model, X)[:, 0]


def _leaves_of(model, is_single, X):
    leaves = model.leaves(single_rows(X))
    found = np.column_stack([number[leaves[:, t]] for t, number in enumerate(model.preorders)])
    return found[:, 0] if is_single else found
