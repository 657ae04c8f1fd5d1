"""What decision trees and forests share: the fit, the mean of trees, importances, the way to scikit-learn."""

import functools
import math
import numbers
import time
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator

from daskdml.data import apply_rows, check_features, is_dask, whole_rows
from daskdml.fitting.fit import fitting, one_dimensional
from daskdml.fitting.forest_planning import expect_forest
from daskdml.fitting.forest_recipe import (
    CONSTRAINTS,
    features_tried,
    recipe_of,
    rows_of_share,
    threads_of,
)  # fmt: skip
from daskdml.fitting.holding import HoldsTrees
from daskdml.fitting.planning import Planned, planning
from daskdml.fitting.sklearn_nodes import sklearn_nodes
from daskdml.kernels.binning import row_bytes
from daskdml.programs import FactsOfRows, ForestProgram, single_rows
from daskdml.runtime.checkpoint import digest_of
from daskdml.trees import BinRows, Forest, ForestState, MeanOfTrees
from daskdml.trees.binning import find_bins
from daskdml.utils.params import check_params
from daskdml.utils.random import as_seed

ROOM_SHARE = 0.8  # of a worker's limit


class GrownTrees(HoldsTrees, Planned, BaseEstimator):
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
        self._check_params()
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

    def _check_params(self):
        check_params(self, {**CONSTRAINTS, **self._constraints})
        self._check_runtime()

    def _plan(self, X, y, sample_weight):
        self._check_params()
        threads_of(getattr(self, "n_jobs", None))
        if self._goes_on:
            check_features(self, X, reset=False)
        y, X = one_dimensional(y), whole_rows(X)
        with planning(self, X, y, sample_weight) as plan:
            sample, found = plan.sample, SimpleNamespace()
            summary, p = plan.targets(self._kind), sample.n_features
            n_classes = self._prepare_targets(sample, summary, found)
            if sample.everything is not None:  # a few rows say little about the others
                self._check_targets(summary)
            if sample.everything is None and self._goes_on:
                found.classes_ = getattr(self, "classes_", None)
            # Shares of the rows are shares of those that are looked at: trees are grown on these.
            m, n = sample.run.n_samples, sample.n_samples
            most = getattr(self, "max_samples", None)
            if plan.data.known_lengths is None and isinstance(most, numbers.Integral):
                n = max(n, most)
            recipe = recipe_of(self, n, p, n_classes)._replace(
                min_samples_split=max(2, rows_of_share(self.min_samples_split, m)),
                min_samples_leaf=rows_of_share(self.min_samples_leaf, m),
            )
            n_trees, state, seed, _ = self._begin(found)
            of_row, of_thread = (_bytes_on_each(p, n_threads) / ROOM_SHARE for n_threads in (0, 1))
            return plan.finish(self, expect_forest(
                plan, recipe, self.max_bins, n_trees - len(state.trees), seed, single_rows, of_row, of_thread - of_row
            ))  # fmt: skip

    def _grow(self, fit):
        """Return the namespace of fitted attributes."""
        run, p = fit.run, fit.run.n_features
        found = SimpleNamespace()
        summary = fit.targets(self._kind)
        n_classes = self._prepare_targets(run, summary, found)
        self._check_targets(summary)
        by_class, is_balanced = self._class_weights(run, summary)
        recipe = recipe_of(self, summary.n_rows, p, n_classes, by_class, is_balanced)
        n_trees, state, seed, bins = self._begin(found)
        run.check_room(math.ceil(_bytes_on_each(p, run.threads_per_worker) / ROOM_SHARE), on_each=True)
        started = time.perf_counter()
        if bins is None:
            bins = find_bins(run, self.max_bins, np.zeros(p, bool), single_rows, seed, keeps_values=True)
        run.replace_rows(BinRows(bins, single_rows), row_bytes(p), np.uint8)
        facts = run.map_reduce(FactsOfRows(p, recipe.class_weight, seed, None))
        n_counted = facts.n_counted if facts.counts else run.n_samples
        _check_sizes(summary, facts, recipe)
        wants_oob = bool(getattr(self, "oob_score", False))
        forest = Forest(recipe, bins, n_trees, seed, n_counted, facts.most_weight, facts.counts, wants_oob)
        now = time.perf_counter()
        program = ForestProgram(forest, state, threads_of(getattr(self, "n_jobs", None)))
        # Rows are bins by now: what the bins are of, and what was there before, no hash of the rows tells.
        state = run.run_saved(program, fit.what + digest_of((seed, state, bins)))
        found.__dict__.update(
            _model=MeanOfTrees(state.trees, max(recipe.n_classes, 1)), _forest=forest, _n_samples=run.n_samples,
            n_outputs_=1,
        )  # fmt: skip
        if self._stands_alone:
            found.max_features_ = recipe.max_features
        fit.report.phases = {"bin": now - started, **(state.seconds or {})}
        fit.report.counts = {
            "rounds": state.n_rounds, "bytes a round": state.bytes_sent / max(state.n_rounds, 1)
        }  # fmt: skip
        if wants_oob:
            self._score_out_of_bag(*state.oob, found)
        fit.close(converged=True, stopped_because="", n_iter=len(state.trees))
        return found

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
        self._check_same_classes(found)
        if n_trees == len(model.trees):
            warnings.warn(
                "Warm-start fitting without increasing n_estimators does not fit new trees.", stacklevel=4
            )
        return n_trees, ForestState(model.trees), self._forest.seed, self._forest.bins

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
        twin.max_features_ = features_tried(self.max_features, self.n_features_in_)
        if hasattr(self, "classes_"):
            # Trees of scikit-learn's forests know classes by their numbers.
            known = self.classes_ if self._stands_alone else np.arange(len(self.classes_), dtype=np.float64)
            twin.classes_, twin.n_classes_ = known, len(known)
        return twin


def _bytes_on_each(p, n_threads):
    """Return the bytes that each process needs of every row.

    Bins by rows and by features, those on their way from other ranks twice; y and weights; what a thread needs of each.
    Dask kills a worker at 95 % of its limit, and the process is not empty.
    """
    return row_bytes(p) + 3 * p + 32 + 88 * n_threads


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


def _leaves_of(model, is_single, X):
    leaves = model.leaves(single_rows(X))
    found = np.column_stack([number[leaves[:, t]] for t, number in enumerate(model.preorders)])
    return found[:, 0] if is_single else found
