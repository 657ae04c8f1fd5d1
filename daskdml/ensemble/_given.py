"""Validation rows that a user gives: checked and binned as the others are, then brought to every rank."""

import functools

import numpy as np

from daskdml.data import check_features, encode_classes
from daskdml.fitting import fitting, one_dimensional
from daskdml.kernels.binning import row_bytes
from daskdml.trees import BinRows, GivenRows


def check_given(estimator, X_val, y_val, sample_weight_val):
    """Return whether validation rows are given; raise ValueError for half of them, or where nobody looks at them."""
    if X_val is None and y_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val is provided, but X_val and y_val were not provided.")
        return False
    if y_val is None:
        raise ValueError("X_val is provided, but y_val was not provided.")
    if X_val is None:
        raise ValueError("y_val is provided, but X_val was not provided.")
    if estimator.early_stopping is False:
        raise ValueError(
            "X_val and y_val are passed to fit while at the same time early_stopping is False. When passing X_val and "
            "y_val to fit, early_stopping should be set to either 'auto' or True."
        )
    return True


def given_rows(estimator, features, given, bins, encode, matrix, classes):
    """Return the validation rows.

    Parameters
    ----------
    estimator : estimator
    features : namespace
        The features of the training rows.
    given : tuple
        X, y and weights, of any kind.
    bins : daskdml.trees.Bins
    encode, matrix
        How rows are read; see `daskdml.fitting.fitting`.
    classes : ndarray or None

    Returns
    -------
    GivenRows

    Notes
    -----
    Their bins, a byte a value, are held by this process and by every worker.
    """
    X, y, weight = given
    check_features(features, X, reset=False)
    with fitting(estimator, X, one_dimensional(y), weight, passes="few", matrix=matrix) as fit:
        run = fit.run
        fit.targets(estimator._kind)
        if classes is not None:
            run.transform_targets(functools.partial(encode_classes, classes))
        run.replace_rows(BinRows(bins, encode), row_bytes(len(bins.thresholds)), np.uint8)
        bins, y, weights = zip(*run.pilot(run.n_samples, 0).map(_parts))
    weight = None if weights[0] is None else np.concatenate(weights)
    if weight is not None and not weight.any():
        raise ValueError("sample_weight_val is 0 for all rows of X_val; give some of them a weight above 0.")
    return GivenRows(np.concatenate(bins), np.concatenate(y).astype(np.float64), weight)


def _parts(block):
    return block.X, block.y, block.weight
