"""Multinomial (softmax) loss of a class code."""

import numpy as np

from daskdml.kernels.compile import TILE_MULTI_SIGNATURE, build_tile
from daskdml.kernels.scalar import exp_negative
from daskdml.losses._ends import LEAST_SHARE


class Multinomial:
    """Multinomial logistic loss, pointwise in (y, raw) with one raw value per class.

    loss(y, raw) = log(sum_k exp(raw_k)) - raw_y,  y in {0, ..., n_outputs - 1}
    d loss / d raw_k = p_k - [k == y],   d2 loss / d raw_k d raw_l = p_k ([k == l] - p_l),   p = softmax(raw)

    It is scikit-learn's ``HalfMultinomialLoss``. What `tile` writes as curvature are the weighted probabilities
    ``weight * p_k``, from which the k x k matrix above follows.

    Parameters
    ----------
    n_classes : int
    """

    name = "multinomial"
    smooth = True
    #: The same number added to all raw values of a row changes nothing.
    shift_invariant = True
    constant_hessian = False
    infimum = 0.0
    quantile = None
    params = np.empty(0)

    def __init__(self, n_classes):
        self.n_outputs = n_classes
        self.y_domain = (0, n_classes - 1)

    @property
    def tile(self):
        """The compiled tile function."""
        return build_tile(_tile, TILE_MULTI_SIGNATURE)

    def arrays(self, raw, y, weight, order, xp=np):
        """Evaluate whole arrays by the formulas above; see `Logistic.arrays`."""
        rows = xp.arange(raw.shape[0])
        codes = y.astype(np.int64)
        top = raw.max(axis=1, keepdims=True)
        e = xp.exp(raw - top)
        norm = e.sum(axis=1, keepdims=True)
        value = (weight * (xp.log(norm[:, 0]) + top[:, 0] - raw[rows, codes])).sum()
        curvature = weight[:, None] * e / norm
        gradient = curvature.copy()
        gradient[rows, codes] -= weight
        return value, gradient, curvature

    def predict(self, raw):
        """Return the class probabilities, one row each."""
        e = np.exp(raw - raw.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def baseline(self, share):
        """Return the best constant raw values for classes of given shares, summing to zero."""
        raw = np.log(np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE))
        return raw - raw.mean()


def _tile(raw, y, weight, gradient, hessian, params, order):
    total = 0.0
    k = raw.shape[1]
    for i in range(raw.shape[0]):
        code = int(y[i])
        top = raw[i, 0]
        for c in range(1, k):
            # NaN must win: a comparison with it is false, and the row would count as finite.
            top = raw[i, c] if raw[i, c] > top or raw[i, c] != raw[i, c] else top
        total += weight[i] * (top - raw[i, code])
        for c in range(k):
            gradient[i, c] = raw[i, c] - top
    # One loop over all numbers becomes vector code, which one over a few classes does not: 3 times faster.
    flat = gradient.reshape(gradient.size)
    for j in range(flat.size):
        flat[j] = exp_negative(flat[j])
    for i in range(raw.shape[0]):
        norm = 0.0
        for c in range(k):
            norm += gradient[i, c]
        total += weight[i] * np.log(norm)
        if order == 4:
            # exp(raw_c - top) is still there, for the class itself too.
            weight[i] *= np.log(norm / gradient[i, int(y[i])])
            continue
        scale = weight[i] / norm
        for c in range(k):
            gradient[i, c] *= scale
        if order >= 2:
            for c in range(k):
                hessian[i, c] = gradient[i, c]
        gradient[i, int(y[i])] -= weight[i]
    return 0.0 if order >= 3 else total
