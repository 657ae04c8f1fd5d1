"""Losses of many rows and outputs, of raw predictions that are there: those of `daskdml.kernels.sequential`.

Arrays of a device are computed as whole arrays, to the same numbers but for rounding.

Conventions. An output may tell a class from all others; ``y`` then holds numbers of classes, and what the loss is given
is 1 for rows of that class and -1 for the others, 0 for ``log_loss``. Otherwise it is ``y`` itself.
"""

import functools

import numpy as np

from daskdml.kernels.compile import build, f8, i8, matrix, vector
from daskdml.kernels.device import module_of
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
        The class of each output; without any, y are targets. On the host, as are factors.
    factors : ndarray of float64, shape (k, 2)
        Of the weights of rows of the output's class (without labels: with positive targets), and of the others.
    gradient : ndarray of float64, shape (n, k)

    Returns
    -------
    float
        Of a device an array without dimensions, which is not waited for.

    Notes
    -----
    Slopes are cut at 1e12, as scikit-learn's are.
    """
    if not isinstance(raw, np.ndarray):
        return _apply_by_arrays(raw, y, weight, loss, epsilon, labels, factors, gradient)
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


def _apply_by_arrays(raw, y, weight, loss, epsilon, labels, factors, gradient):
    xp, target = module_of(raw), y.reshape(-1, 1)
    if labels.size:
        target = xp.where(target == xp.asarray(labels), 1.0, 0.0 if loss == "log_loss" else -1.0)
    own, others = xp.asarray(factors.T)
    factor = xp.where(target > 0, own, others)
    if weight is not None:
        factor *= weight.reshape(-1, 1)
    value, slope = _BY_ARRAYS[loss](target, raw, epsilon, xp)
    gradient[...] = factor * xp.minimum(xp.maximum(slope, -MOST_SLOPE), MOST_SLOPE)
    return (factor * value).sum()


# Values and slopes, of targets y and raw predictions p, as `loss_and_slope` has them.


def _hinge(y, p, epsilon, xp):
    z = y * p
    return xp.where(z <= 1, 1 - z, 0.0), xp.where(z <= 1, -y, 0.0)


def _perceptron(y, p, epsilon, xp):
    z = y * p
    return xp.where(z <= 0, -z, 0.0), xp.where(z <= 0, -y, 0.0)


def _squared_hinge(y, p, epsilon, xp):
    short = xp.maximum(1 - y * p, 0)
    return short * short, -2.0 * y * short


def _modified_huber(y, p, epsilon, xp):
    z, (value, slope) = y * p, _squared_hinge(y, p, epsilon, xp)
    return xp.where(z < -1, -4.0 * z, value), xp.where(z < -1, -4.0 * y, slope)


def _log_loss(y, p, epsilon, xp):
    e = xp.exp(-xp.abs(p))
    slope = xp.where(p > 0, (1.0 - y) - y * e, (1.0 - y) * e - y) / (1.0 + e)
    return xp.maximum(p, 0) - y * p + xp.log1p(e), slope


def _squared_error(y, p, epsilon, xp):
    r = p - y
    return 0.5 * (r * r), r


def _huber(y, p, epsilon, xp):
    r = p - y
    cut = xp.minimum(xp.maximum(r, -epsilon), epsilon)
    return cut * (r - 0.5 * cut), cut


def _epsilon_insensitive(y, p, epsilon, xp):
    r = p - y
    beyond = xp.abs(r) - epsilon
    return xp.maximum(beyond, 0), xp.where(beyond > 0, xp.where(r >= 0, 1.0, -1.0), 0.0)


def _squared_epsilon_insensitive(y, p, epsilon, xp):
    beyond, sign = _epsilon_insensitive(y, p, epsilon, xp)
    return beyond * beyond, 2.0 * sign * beyond


_BY_ARRAYS = {
    "hinge": _hinge, "perceptron": _perceptron, "squared_hinge": _squared_hinge, "modified_huber": _modified_huber,
    "log_loss": _log_loss, "squared_error": _squared_error, "huber": _huber,
    "epsilon_insensitive": _epsilon_insensitive, "squared_epsilon_insensitive": _squared_epsilon_insensitive,
}  # fmt: skip
