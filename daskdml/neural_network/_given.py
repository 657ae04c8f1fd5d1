"""Rows as networks read them, and those that a user gives to be scored: checked before any row is trained on."""

import copy
import functools

import numpy as np
from scipy import sparse

from daskdml.data import as_matrix, check_features, whole_rows
from daskdml.fitting import fitting
from daskdml.kernels.device import on_host
from daskdml.training import Piece, as_trained


def read(dtype, X):
    """Return rows as they are trained on."""
    return as_trained(as_matrix(X), dtype)


def summed(kind):
    """Return what is asked of targets in the pass over them; labels are numbers as well."""
    return "classes" if kind == "classes" else "values"


def check_given(given):
    """Tell whether validation rows are given; raise ValueError for half of them."""
    X_val, y_val, weight = given
    if (X_val is None) != (y_val is None) or (weight is not None and X_val is None):
        names = ("X_val", "y_val", "sample_weight_val")
        got = [name for name, part in zip(names, given) if part is not None]
        raise ValueError(f"Validation rows are X_val and y_val together, got {' and '.join(got)} alone.")
    return X_val is not None


def given_rows(estimator, features, kind, given, classes, n_outputs):
    """Return the validation rows of the user as a `Piece` in this process.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    features : namespace
        Names and number of those of X.
    kind : {"classes", "labels", "values"}
    given : tuple
        X_val, y_val and sample_weight_val.
    classes : ndarray or None
        All that y may hold.
    n_outputs : int
        Columns that y_val must have; one for classes.

    Returns
    -------
    Piece

    Raises
    ------
    ValueError
        Where they are not like the rows that are trained on, with what was got and what is allowed.
    """
    try:
        X, y, weight = _read_given(estimator, features, kind, given, classes, n_outputs)
        as_matrix(X, ensure_finite=True)
    except ValueError as error:
        raise ValueError(f"X_val, y_val: {error}") from error
    return Piece(0, X, y, weight)


def _read_given(estimator, features, kind, given, classes, n_outputs):
    """Return X, y and weights in memory, y as it is trained on."""
    X, y, weight = given
    expecting = copy.copy(estimator)
    vars(expecting).pop("feature_names_in_", None)
    vars(expecting).update(vars(features))
    check_features(expecting, X, reset=False)
    reader = functools.partial(read, np.dtype(estimator.dtype))
    with fitting(estimator, whole_rows(X), estimator._targets(y), weight, passes="few", matrix=reader) as fit:
        n_columns = max(fit.run.map_reduce(_n_columns, max, reads_x=False), 1)
        expected = 1 if kind == "classes" else n_outputs
        if n_columns != expected:
            raise ValueError(f"y_val must have as many columns as y, {expected}, got {n_columns}; give it those of y.")
        found = fit.targets(summed(kind)).classes
        if kind == "classes":
            known, found = classes.tolist(), found.tolist()
            unknown = [label for label in found if label not in known]
            if unknown:
                raise ValueError(
                    f"y_val holds the classes {unknown}, which are none of those of y, {known}; leave these rows out, "
                    "or train on some of theirs."
                )
        if classes is not None:
            fit.run.transform_targets(estimator._encoder(kind, classes))
        parts = fit.run.pilot(fit.run.n_samples, 0).map(_parts)
    X, y, weights = zip(*parts)
    weight = None if weights[0] is None else np.concatenate(weights)
    is_sparse = hasattr(X[0], "indptr")
    X = sparse.vstack(X, format="csr") if is_sparse else np.concatenate([on_host(part) for part in X])
    return X, np.concatenate(y), weight


def _n_columns(block):
    return 1 if block.y.ndim == 1 else block.y.shape[1]


def _parts(block):
    return block.X, block.y, block.weight
