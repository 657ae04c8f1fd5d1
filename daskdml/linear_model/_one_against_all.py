"""What classifiers predict that tell one class from all others: raw values, classes, probabilities."""

import functools

import numpy as np
from sklearn.utils.metaestimators import available_if

from daskdml.fitting import label_rows
from daskdml.linear_model._base import LinearPredictor
from daskdml.losses import Logistic

_SMOOTH = ("log_loss", "modified_huber")


def _has_probabilities(estimator):
    if estimator.loss not in _SMOOTH:
        raise AttributeError(f"probability estimates are not available for loss={estimator.loss!r}")
    return True


class OneAgainstAll(LinearPredictor):
    """Mixin: predictions of a linear model for each class, or of one for two classes, with the parameter ``loss``."""

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
