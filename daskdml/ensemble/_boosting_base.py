"""What both kinds of histogram gradient boosting share: the fit, raw predictions, importances."""

import functools
import math
import numbers
import time
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator

from daskdml.data import apply_rows, as_matrix, check_features, is_dask, side_by_side, whole_rows
from daskdml.data.codes import Coding, as_columns
from daskdml.ensemble._categories import categorical_mask
from daskdml.ensemble._constraints import interaction_groups, monotonic_senses
from daskdml.ensemble._given import check_given, given_rows
from daskdml.ensemble._keeping import check_room, replace_by_bins
from daskdml.ensemble._lightgbm import write_model
from daskdml.ensemble._planning import expect_boosting
from daskdml.ensemble._scoring import Score
from daskdml.ensemble._sklearn import make_twin
from daskdml.fitting import HoldsTrees, Planned, fitting, one_dimensional, planning
from daskdml.programs import BoostingProgram, FactsOfRows
from daskdml.runtime.checkpoint import digest_of
from daskdml.trees import Boosting, BoostingState, Ensemble, Settings
from daskdml.trees.binning import find_bins
from daskdml.trees.boosting import FEW_ROWS, held_out_share
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

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
    "scoring": [str, callable, None],
    "validation_fraction": [Interval(float, 0, 1, "neither"), Interval(_INT, 1, None), None],
    "n_iter_no_change": [Interval(_INT, 1, None)],
    "tol": [Interval(_REAL, 0, None)],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "random_state": ["random_state"],
    "subsample": [Interval(_REAL, 0, 1, "right")],
    "rounding": [Options({"auto", "stochastic", "nearest"})],
}


class HistGradientBoosting(HoldsTrees, Planned, BaseEstimator):
    """See the classes of `daskdml.ensemble`."""

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
        self._check_params()
        given = (X_val, y_val, sample_weight_val) if check_given(self, X_val, y_val, sample_weight_val) else None
        if self._goes_on:
            check_features(self, X, reset=False)  # its bins, and its trees, are of those
        y, X, matrix, coding = self._inputs(X, y)
        with fitting(self, X, y, sample_weight, verbose=self.verbose, passes="few", matrix=matrix) as fit:
            found = self._boost(fit, coding, given)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(found))
        vars(self).update(vars(fit.features))
        self.fit_report_, self._fitted_with_sw = fit.report, sample_weight is not None
        return self

    def _check_params(self):
        check_params(self, {**_CONSTRAINTS, **self._constraints})
        self._check_runtime()

    def _inputs(self, X, y):
        """Return y and X, how X becomes a matrix (see `daskdml.data.Partitioned`), and the `Coding` of categories."""
        y, is_categorical = one_dimensional(y), categorical_mask(self.categorical_features, X)
        if is_categorical is None:
            # Rows are told apart by their hashes for a checkpoint, which needs them whole; so do codes of sparse ones.
            is_whole = get_config()["checkpoint"] is not None or hasattr(getattr(X, "_meta", None), "indptr")
            return y, whole_rows(X) if is_whole else X, True, None
        X, coding = as_columns(whole_rows(X)), Coding(is_categorical)
        return y, X, coding.reader(X), coding

    def _plan(self, X, y, sample_weight):
        self._check_params()
        y, X, matrix, coding = self._inputs(X, y)
        with planning(self, X, y, sample_weight, matrix) as plan:
            summary, sample, encode = plan.targets(self._kind), plan.sample, side_by_side
            if coding is not None:
                found = sample.run.map_reduce(coding.finder(self.max_bins))
                encode = coding = coding.with_found(found, getattr(plan.features, "feature_names_in_", None))
            if sample.everything is not None:  # a few rows say little about the others
                self._check_targets(summary)
            loss = self._prepare_targets(sample, summary)
            settings = self._settings(plan.features, loss, coding)
            self._score_for(summary, loss)
            found = expect_boosting(
                plan, loss, settings, self.max_bins, int(self.max_iter), coding, encode, self._seed_of_draws()
            )
            return plan.finish(self, found)

    def _score_for(self, summary, loss):
        if isinstance(self.scoring, str) and self.scoring == "loss":
            return None
        return Score(self.scoring, summary.classes if self._kind == "classes" else None, loss)

    def _seed_of_draws(self):
        return as_seed(0 if self.random_state is None else self.random_state)

    def _boost(self, fit, coding, given):
        """Return the namespace of fitted attributes."""
        run, p = fit.run, fit.run.n_features
        found = SimpleNamespace()
        summary, coding = self._survey(fit, coding)
        self._check_targets(summary)
        loss = self._prepare_targets(run, summary)
        if self._kind == "classes":
            found.classes_ = summary.classes
        settings = self._settings(fit.features, loss, coding)
        score = self._score_for(summary, loss)
        seed, state, bins = self._begin(found)
        n_rows = run.n_samples
        stops = self.early_stopping
        if stops == "auto":
            stops = given is not None or n_rows > EARLY_STOPPING_ROWS
        stops = bool(stops)
        validation = self._validation(seed, n_rows) if stops and given is None else None
        encode, is_categorical, categories = side_by_side, np.zeros(p, bool), None
        if coding is not None:
            encode, is_categorical, categories = coding, coding.is_categorical, coding.codes
        check_room(run, loss.n_outputs)
        started = time.perf_counter()
        if bins is None:
            bins = find_bins(run, self.max_bins, is_categorical, encode, seed, categories=categories)
        kept = bins.kept_as(encode, run.layout if run.panels is None else "dense")
        by_columns = replace_by_bins(run, kept, bins.first[-1], loss.n_outputs, self.max_leaf_nodes)
        if run.mode == "mmap":
            fit.report.where += ", bins in files"
        if given is not None:
            given = self._given(given, fit.features, bins, coding, getattr(found, "classes_", None))
        by_class = self._class_weights(summary, run)
        facts = run.map_reduce(FactsOfRows(p, by_class, seed, validation, bins.first))
        bin_seconds = time.perf_counter() - started
        if validation is not None:
            self._check_validation(facts)
        n_times = facts.n_counted if facts.counts else n_rows
        boosting = Boosting(
            loss, settings, bins, facts.has_missing, n_times, int(self.max_iter), seed, counts=facts.counts,
            most_weight=facts.most_weight, subsample=float(self.subsample), is_stochastic=self._is_stochastic(n_times),
            validation=validation, scores=stops, patience=int(self.n_iter_no_change), tol=float(self.tol),
            class_weight=by_class, given=given, score=score, by_columns=by_columns, panels=run.panels,
            n_blocks=run.n_blocks,
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

    def _begin(self, found):
        """Return the seed, the state to begin with, and the bins, which a warm start has already."""
        if not self._goes_on:
            return self._seed_of_draws(), BoostingState(), None
        model = self._model
        if self.max_iter < self.n_iter_:
            raise ValueError(
                f"max_iter={self.max_iter} must be larger than or equal to n_iter_={self.n_iter_} when warm_start==True"
            )
        self._check_same_classes(found)
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

    def to_sklearn(self):
        """Return scikit-learn's own estimator with the same trees, parameters and predictions.

        Returns
        -------
        estimator of scikit-learn
            To predict, for its tools, and where daskdml is not installed; a fit of it begins anew, or should:
            with ``warm_start=True`` its bins are not those of the trees. It has no `subsample` and no `rounding`.

        Examples
        --------
        >>> import numpy as np
        >>> from daskdml.ensemble import HistGradientBoostingRegressor
        >>> X = np.arange(100.0).reshape(-1, 1)
        >>> model = HistGradientBoostingRegressor(max_iter=10).fit(X, X[:, 0] ** 2)
        >>> bool(np.allclose(model.to_sklearn().predict(X), model.predict(X)))
        True
        """
        from sklearn import ensemble

        self._fitted()
        return make_twin(self, getattr(ensemble, type(self).__name__))

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

    def _fitted_features(self):
        self._fitted()
        return self.n_features_in_

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
            yield raw.copy() if finish is None else finish(raw.copy())


def _raw_of(model, finish, X):
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype.char in "fd"
    raw = model.raw(X if plain else as_matrix(X))
    return raw if finish is None else finish(raw)


def _raw_of_categories(model, finish, coding, X):
    raw = model.raw(coding(X))
    return raw if finish is None else finish(raw)
