"""Scores other than the loss: scikit-learn's scorers, shown an estimator whose rows are raw predictions."""

import inspect

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring

from daskdml.fitting import label_rows, probabilities


class _Seen(BaseEstimator):
    """An estimator that is fitted; what it predicts from are raw predictions."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        """Do nothing: there is nothing left to learn."""
        return self


class _SeenClassifier(ClassifierMixin, _Seen):
    def __init__(self, classes, loss):
        self.classes, self.loss = classes, loss
        self.classes_ = classes

    def decision_function(self, raw):
        return raw

    def predict_proba(self, raw):
        return probabilities(raw)

    def predict(self, raw):
        return label_rows(self.classes_, raw)


class _SeenRegressor(RegressorMixin, _Seen):
    def __init__(self, loss):
        self.loss = loss

    def predict(self, raw):
        return self.loss.predict(raw)


class Score:
    """The score of raw predictions.

    Parameters
    ----------
    scoring : str, callable or None
        As scikit-learn takes it; None for the accuracy, or R².
    classes : ndarray or None
        Of a classifier.
    loss : object
        See `daskdml.losses`.

    Raises
    ------
    ValueError
        If scikit-learn knows no such scorer.
    """

    def __init__(self, scoring, classes, loss):
        self.classes = classes
        self.seen = _SeenRegressor(loss) if classes is None else _SeenClassifier(classes, loss)
        self.scorer = check_scoring(self.seen, scoring)
        parameters = inspect.signature(self.scorer).parameters
        self._takes_weight = "sample_weight" in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())

    def __call__(self, raw, y, weight):
        """Return the score, a float: more is better.

        Parameters
        ----------
        raw : ndarray of shape (n,) or (n, k)
        y : ndarray of float64, shape (n,)
        weight : ndarray of float64, shape (n,), or None
        """
        y = y if self.classes is None else self.classes[y.astype(int)]
        if weight is None:
            return float(self.scorer(self.seen, raw, y))
        if not self._takes_weight:
            raise ValueError(
                f"scoring={self.scorer!r} takes no sample_weight, but rows, or their classes, have weights; give a "
                "scorer that does, or scoring='loss'."
            )
        return float(self.scorer(self.seen, raw, y, sample_weight=weight))
