"""Logistic loss of a 0/1 label: half the binomial deviance."""

import numpy as np

from daskdml.kernels.compile import TILE_SIGNATURE, build_tile
from daskdml.kernels.scalar import exp_negative, twice_artanh
from daskdml.losses._ends import LEAST_MEAN


class Logistic:
    """Logistic loss, pointwise in (y, raw).

    loss(y, raw) = log(1 + exp(raw)) - y * raw,  y in {0, 1} (or a probability)
    d loss / d raw = expit(raw) - y,   d2 loss / d raw2 = expit(raw) * (1 - expit(raw))

    It is scikit-learn's ``HalfBinomialLoss``. Finite for every finite raw; NaN stays NaN.
    """

    name = "logistic"
    n_outputs = 1
    smooth = True
    shift_invariant = False
    constant_hessian = False
    y_domain = (0.0, 1.0)
    #: Lowest value over raw: what the duality gap subtracts.
    infimum = 0.0
    #: The best constant is this quantile of the targets; None: it follows from their mean.
    quantile = None
    params = np.empty(0)

    @property
    def tile(self):
        """The compiled tile function."""
        return build_tile(_tile, TILE_SIGNATURE)

    def arrays(self, raw, y, weight, order, xp=np):
        """Evaluate whole arrays by the formulas above: the definition for tests, and what runs on a GPU.

        Parameters
        ----------
        raw, y, weight : arrays of shape (n,), float64
        order : {0, 1, 2, 3}
            As for `tile`, except that all three are computed whatever it is.
        xp : module, default numpy
            numpy or cupy.

        Returns
        -------
        value : float, gradient : array of shape (n,), hessian : array of shape (n,)
        """
        e = xp.exp(-xp.abs(raw))
        p = xp.where(raw >= 0, 1.0, e) / (1.0 + e)
        value = (weight * (xp.maximum(raw, 0.0) - raw * y + xp.log1p(e))).sum()
        return value, weight * (p - y), weight * e / (1.0 + e) ** 2

    def predict(self, raw):
        """Return the probability of label 1."""
        e = np.exp(-np.abs(raw))
        return np.where(raw >= 0, 1.0, e) / (1.0 + e)

    def baseline(self, mean):
        """Return the best constant raw value for targets of a given mean."""
        mean = min(max(mean, LEAST_MEAN), 1.0 - LEAST_MEAN)
        return float(np.log(mean) - np.log1p(-mean))


def _tile(raw, y, weight, gradient, hessian, params, order):
    if order == 3:
        for i in range(raw.size):
            r = raw[i]
            e = exp_negative(-abs(r))
            p = (1.0 if r >= 0 else e) / (1.0 + e)
            gradient[i] = weight[i] * (p - y[i])
            hessian[i] = weight[i] * e / ((1.0 + e) * (1.0 + e))
        return 0.0
    if order == 4:
        for i in range(raw.size):
            r = raw[i]
            e = exp_negative(-abs(r))
            weight[i] *= max(r, 0.0) - r * y[i] + twice_artanh(e / (2.0 + e))
        return 0.0
    total = 0.0
    if order == 2:
        for i in range(raw.size):
            e = exp_negative(-abs(raw[i]))
            hessian[i] = weight[i] * e / ((1.0 + e) * (1.0 + e))
    for i in range(raw.size):
        r = raw[i]
        e = exp_negative(-abs(r))
        p = (1.0 if r >= 0 else e) / (1.0 + e)
        gradient[i] = weight[i] * (p - y[i])
        # Not by one division for both: p near 1 would be off by twice its rounding, which p - y shows.
        total += weight[i] * (max(r, 0.0) - r * y[i] + twice_artanh(e / (2.0 + e)))
    return total
