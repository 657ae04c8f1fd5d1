"""Accuracy and log loss."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.utils import column_or_1d

from daskdml.metrics._blocks import Rows, Target, check_argument, check_finite, fold, union


def accuracy_score(y_true, y_pred, *, normalize=True, sample_weight=None):
    """Share of rows (or their number) whose label is predicted exactly: sum_i w_i [y_i = p_i] / sum_i w_i.

    Parameters
    ----------
    y_true, y_pred : array-like or Dask collection, shape (n,) or (n, n_labels)
        Labels (integers, booleans or strings), or 0/1 indicator matrices, where a row counts if all of it agrees.
    normalize : bool, default=True
        False gives the (weighted) number of correct rows.
    sample_weight : array-like or Dask collection, shape (n,), default=None

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If targets are continuous, of different types or lengths, empty, or all weights are zero.

    Notes
    -----
    One pass over the inputs; a block sends a few numbers.

    Examples
    --------
    >>> accuracy_score(["a", "b", "b"], ["a", "b", "a"], normalize=False)
    2.0
    """
    check_argument("accuracy_score", "normalize", normalize, isinstance(normalize, (bool, np.bool_)), "True or False")
    hits = fold(_Hits.of, y_true, y_pred, sample_weight)
    hits.rows.check()
    # Labels are compared, never counted: whether there are two or more of them is not known here and does not matter.
    types = ["multiclass" if kind == "binary" else kind for kind in (hits.true.type(), hits.pred.type())]
    if types[0] != types[1]:
        mixed = " and ".join(types)
        raise ValueError(f"Classification metrics can't handle a mix of {mixed} targets")
    if types[0] not in ("multiclass", "multilabel-indicator"):
        raise ValueError(f"{types[0]} is not supported")
    if {"number", "string"} <= hits.true.kinds | hits.pred.kinds:
        raise ValueError("Mix of label input types (string and number)")
    return float(hits.rows.mean(hits.value) if normalize else hits.value)


@dataclass(frozen=True)
class _Hits:
    rows: Rows
    true: Target
    pred: Target
    value: float

    @classmethod
    def of(cls, y_true, y_pred, weight):
        true, pred = Target.of(y_true, "y_true", labels=False), Target.of(y_pred, "y_pred", labels=False)
        value = 0.0
        if true.kinds == pred.kinds and y_true.shape == y_pred.shape:
            right = y_true == y_pred
            right = right.all(axis=1) if right.ndim == 2 else right
            value = np.count_nonzero(right) if weight is None else weight[right.astype(bool)].sum()
        elif true.kinds == pred.kinds:
            raise ValueError(
                f"y_true and y_pred must have equal numbers of columns; got {y_true.shape[1:]} and {y_pred.shape[1:]}."
            )
        return cls(Rows.of(y_true, weight), true, pred, float(value))

    def __add__(self, other):
        return _Hits(self.rows + other.rows, self.true + other.true, self.pred + other.pred, self.value + other.value)


def log_loss(y_true, y_proba=None, *, normalize=True, sample_weight=None, labels=None, y_pred="deprecated"):
    """Negative log-likelihood of probabilities: -sum_i w_i log p_i[y_i] / sum_i w_i.

    Parameters
    ----------
    y_true : array-like or Dask collection, shape (n,), or (n, n_classes) of 0 and 1
        Labels.
    y_proba : array-like or Dask collection of float, shape (n, n_classes) or (n,)
        Probabilities, columns in the sorted order of the labels; a vector is the probability of the greater of two
        labels. Clipped to [eps, 1 - eps] of its dtype.
    normalize : bool, default=True
        False gives the sum in place of the mean.
    sample_weight : array-like or Dask collection, shape (n,), default=None
    labels : array-like, default=None
        All labels, where ``y_true`` may lack some.
    y_pred : the same as y_proba
        Deprecated name of ``y_proba``, as in scikit-learn 1.9.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If probabilities lie outside [0, 1], the number of classes differs from the number of columns, ``y_true`` holds
        one label only or one that is not in ``labels``.

    Warns
    -----
    UserWarning
        If rows of ``y_proba`` do not sum to one.
    FutureWarning
        If ``y_pred`` is given.

    Notes
    -----
    One pass, although the labels are not known before it: a block sums the logarithms by (label, column), and labels
    meet columns at the end. A block sends n_classes squared floats.

    Examples
    --------
    >>> round(log_loss(["spam", "ham", "ham"], [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2]]), 6)
    0.144622
    """
    check_argument("log_loss", "normalize", normalize, isinstance(normalize, (bool, np.bool_)), "True or False")
    if not (isinstance(y_pred, str) and y_pred == "deprecated"):
        if y_proba is not None:
            raise ValueError("Cannot use both `y_pred` and `y_proba`. `y_pred` is deprecated, use `y_proba` instead.")
        warnings.warn(
            "`y_pred` was renamed to `y_proba` in version 1.9 and will be removed in 1.11. Use `y_proba` instead.",
            FutureWarning,
            stacklevel=2,
        )
        y_proba = y_pred
    check_argument("log_loss", "y_proba", y_proba, y_proba is not None, "an array-like")
    logs = fold(_Logs.of, y_true, y_proba, sample_weight)
    logs.rows.check()
    if logs.high > 1:
        raise ValueError(f"y_prob contains values greater than 1: {logs.high}")
    if logs.low < 0:
        raise ValueError(f"y_prob contains values lower than 0: {logs.low}")
    classes = _classes_of(logs, labels)
    if not logs.sums_to_one:
        warnings.warn(
            "The y_prob values do not sum to one. Make sure to pass probabilities.", UserWarning, stacklevel=2
        )
    at = np.searchsorted(classes, logs.labels)
    total = -float(logs.table[np.arange(len(at)), at].sum())
    return float(logs.rows.mean(total) if normalize else total)


def _classes_of(logs, labels):
    found, n_columns = logs.labels, logs.table.shape[1]
    kind = logs.true.type()
    if kind not in ("binary", "multiclass", "multilabel-indicator"):
        raise ValueError(f"Unknown label type: {kind}")
    if labels is None:
        classes, culprit = found, "y_true"
        if len(classes) == 1:
            raise ValueError(
                f"y_true contains only one label ({classes[0]}). Please provide the list of all expected class labels "
                "explicitly through the labels argument."
            )
    else:
        classes, culprit = np.unique(column_or_1d(labels)), "labels"
        if len(classes) == 1:
            raise ValueError(f"The labels array needs to contain at least two labels, got {classes}.")
        _check_declared(found, classes, labels)
    if len(classes) != n_columns:
        if labels is None:
            raise ValueError(
                f"y_true and y_prob contain different number of classes: {len(classes)} vs {n_columns}. Please provide "
                f"the true labels explicitly through the labels argument. Classes found in y_true: {classes}"
            )
        raise ValueError(
            f"The number of classes in labels is different from that in y_prob. Classes found in {culprit}: {classes}"
        )
    return classes


def _check_declared(found, classes, labels):
    if list(classes) != list(labels):
        warnings.warn(
            f"Labels passed were {labels}. But this function assumes labels are ordered lexicographically. Pass the "
            f"ordered labels={classes.tolist()} and ensure that the columns of y_prob correspond to this ordering.",
            UserWarning,
            stacklevel=4,
        )
    undeclared = set(found.tolist()) - set(classes.tolist())
    if undeclared:
        raise ValueError(f"y_true contains values {undeclared} not belonging to the passed labels {labels}.")


@dataclass(frozen=True)
class _Logs:
    """``table[k, c]``: sum of w_i log p_i[c] over the rows whose label is ``labels[k]``."""

    rows: Rows
    true: Target
    labels: np.ndarray
    table: np.ndarray
    low: float
    high: float
    sums_to_one: bool

    @classmethod
    def of(cls, y_true, proba, weight):
        if proba.dtype not in (np.float32, np.float64):
            proba = proba.astype(np.float64)
        check_finite(proba, "y_proba")
        low, high = (float(proba.min()), float(proba.max())) if proba.size else (0.0, 1.0)
        if proba.ndim == 1:
            proba = np.stack([1 - proba, proba], axis=1)
        true = Target.of(y_true, "y_true", labels=True)
        eps = np.finfo(proba.dtype).eps
        sums = np.isclose(proba.sum(axis=1), 1, rtol=np.sqrt(eps)).all()
        clipped = np.clip(proba, eps, 1 - eps)
        if y_true.ndim == 2 and y_true.shape != proba.shape:
            raise ValueError(f"y_true has {y_true.shape[1]} columns and y_prob has {proba.shape[1]}; they must agree.")
        if y_true.ndim == 2:
            labels, table = np.arange(proba.shape[1]), _table_of_indicator(y_true, clipped, weight)
        else:
            labels, table = true.labels, _table_of_labels(y_true, clipped, weight, true.labels)
        return cls(Rows.of(y_true, weight), true, labels, table, low, high, bool(sums))

    def __add__(self, other):
        true, labels = self.true + other.true, union(self.labels, other.labels)
        table = np.zeros((len(labels), self.table.shape[1]))
        for one in (self, other):
            if one.table.shape[1] != table.shape[1]:
                raise ValueError(
                    f"y_proba has {self.table.shape[1]} columns in one block and {other.table.shape[1]} in another."
                )
            table[np.searchsorted(labels, one.labels)] += one.table
        return _Logs(
            self.rows + other.rows,
            true,
            labels,
            table,
            min(self.low, other.low),
            max(self.high, other.high),
            self.sums_to_one and other.sums_to_one,
        )


def _table_of_labels(y_true, proba, weight, labels):
    n_columns = proba.shape[1]
    if len(labels) == 0:
        return np.zeros((0, n_columns))
    codes = np.searchsorted(labels, y_true)
    weighted = (lambda logs: logs) if weight is None else (lambda logs: weight * logs)
    if len(labels) == n_columns:  # then label k can only belong to column k: one logarithm a row
        logs = np.log(proba[np.arange(len(codes)), codes].astype(np.float64))
        return np.diag(np.bincount(codes, weighted(logs), minlength=n_columns))
    logs = np.log(proba.astype(np.float64))
    columns = [np.bincount(codes, weighted(logs[:, c]), minlength=len(labels)) for c in range(n_columns)]
    return np.stack(columns, axis=1)


def _table_of_indicator(y_true, proba, weight):
    """Rows of 0 and 1: column c is the label c."""
    logs = y_true * np.log(proba.astype(np.float64))
    return np.diag(logs.sum(axis=0) if weight is None else weight @ logs)
