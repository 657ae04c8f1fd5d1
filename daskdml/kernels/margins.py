"""Losses of many rows and outputs, of raw predictions that are there: those of `daskdml.kernels.sequential`.

Conventions. An output may tell a class from all others; ``y`` then holds numbers of classes, and what the loss is given
is 1 for rows of that class and -1 for the others, 0 for ``log_loss``. Otherwise it is ``y`` itself.
"""

import functools

import numpy as np

from daskdml.kernels.compile import build, f8, i8, matrix, vector
from daskdml.kernels.sequential import LOG_LOSS, LOSSES, MOST_SLOPE, loss_and_slope

_NOTHING = np.empty(0)


def apply_margins(raw, y, weight, loss, epsilon, labels, factors, gradient):
    """Write the weighted slopes of a loss, and return its weighted sum over rows and outputs.

    Parameters
    ----------
    raw : ndarray of float64, shape (n, k)
    y : ndarray of float64, shape (n,)
    weight : ndarray of float64, shape (n,), or None for ones
    loss : one of `daskdml.kernels.sequential.LOSSES`
    epsilon : float
    labels : ndarray of int64, shape (k,) or (0,)
        The class of each output; without any, y are targets.
    factors : ndarray of float64, shape (k, 2)
        Of the weights of rows of the output's class (without labels: with positive targets), and of the others.
    gradient : ndarray of float64, shape (n, k)

    Returns
    -------
    float

    Notes
    -----
    Slopes are cut at 1e12, as scikit-learn's are.
    """
    weight = _NOTHING if weight is None else weight
    return float(_compiled()(raw, y, weight, LOSSES.index(loss), epsilon, labels, factors, gradient))


@functools.cache
def _compiled():
    reals, table = vector(f8, read=True), matrix(f8, read=True)
    signature = f8(table, reals, reals, i8, f8, vector(i8, read=True), table, matrix(f8))
    return build(_apply, signature, rounds_as_written=True)


def _apply(raw, y, weight, loss, epsilon, labels, factors, gradient):
    total = 0.0
    other = 0.0 if loss == LOG_LOSS else -1.0
    for i in range(raw.shape[0]):
        row_weight = weight[i] if weight.size else 1.0
        for j in range(raw.shape[1]):
            target = y[i]
            if labels.size:
                target = 1.0 if y[i] == labels[j] else other
            value, slope = loss_and_slope(loss, epsilon, target, raw[i, j])
            slope = -MOST_SLOPE if slope < -MOST_SLOPE else MOST_SLOPE if slope > MOST_SLOPE else slope
            factor = row_weight * factors[j, 0 if target > 0.0 else 1]
            gradient[i, j] = factor * slope
            total += factor * value
    return total
