"""What classifiers, and what regressors, of trees share; beside `daskdml.fitting.forests.GrownTrees`."""

import functools
import warnings

import numpy as np

from daskdml.data import encode_classes
from daskdml.fitting.classes import class_weights, with_exact_weights
from daskdml.fitting.scores import ScoredByAccuracy, ScoredByR2
from daskdml.programs import single_rows


class ClassesOfTrees(ScoredByAccuracy):
    """What classifiers of trees share; beside `GrownTrees`."""

    _kind = "classes"

    def _check_targets(self, summary):
        if isinstance(self.class_weight, dict):
            class_weights(self.class_weight, summary)  # raises for classes that y does not hold, and bad factors

    def _prepare_targets(self, run, summary, found):
        found.classes_, found.n_classes_ = summary.classes, len(summary.classes)
        run.transform_targets(functools.partial(encode_classes, summary.classes))
        return len(summary.classes)

    def _class_weights(self, run, summary):
        """Return the weights of classes, or None, and whether each tree has others."""
        balanced_each = self.class_weight == "balanced_subsample"
        given = "balanced" if balanced_each and not self.bootstrap else self.class_weight
        if given == "balanced":
            summary = with_exact_weights(summary, run)
        return (None, True) if given == "balanced_subsample" else (class_weights(given, summary), False)

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

    def _check_targets(self, summary):
        if self.criterion == "poisson" and (summary.low < 0 or summary.total <= 0):
            raise ValueError(
                "Some value(s) of y are negative, or all are zero, which is not allowed for Poisson regression."
            )

    def _prepare_targets(self, run, summary, found):
        if np.ndim(summary.low) > 0:
            raise ValueError(f"y should be a 1d array, got {np.size(summary.low)} columns; fit one model for each.")
        return 0

    def _class_weights(self, run, summary):
        return None, False

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


def _mean_of(model, X):
    return model.mean(single_rows(X))


def _log_mean_of(model, X):
    with np.errstate(divide="ignore"):
        return np.log(_mean_of(model, X))


def _class_of(model, classes, X):
    return classes[_mean_of(model, X).argmax(axis=1)]


def _number_of(model, X):
    return _mean_of(model, X)[:, 0]
