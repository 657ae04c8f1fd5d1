"""Gamma loss of a positive amount: half the gamma deviance, with the logarithm as link."""

import numpy as np

from daskdml.kernels.compile import TILE_SIGNATURE, build_tile
from daskdml.kernels.scalar import exp
from daskdml.losses._ends import LEAST_MEAN


class Gamma:
    """Gamma loss, pointwise in (y, raw).

    loss(y, raw) = raw + y * exp(-raw),  y > 0
    d loss / d raw = 1 - y * exp(-raw),   d2 loss / d raw2 = y * exp(-raw)

    It is scikit-learn's ``HalfGammaLoss``. Finite for |raw| <= 700, and in `tile` beyond, where exp(-raw) stays at
    exp(-708) or exp(709), as long as y, weights and sums leave room; NaN stays NaN.
    """

    name = "gamma"
    n_outputs = 1
    smooth = True
    shift_invariant = False
    constant_hessian = False
    #: The ends belong to a domain: the lowest y is the smallest positive number.
    y_domain = (float(np.nextafter(0.0, 1.0)), np.inf)
    #: Over y and raw: the lowest value over raw is 1 + log(y).
    infimum = -np.inf
    quantile = None
    params = np.empty(0)

    @property
    def tile(self):
        """The compiled tile function."""
        return build_tile(_tile, TILE_SIGNATURE)

    def arrays(self, raw, y, weight, order, xp=np):
        """Evaluate whole arrays by the formulas above; see `daskdml.losses.Logistic.arrays`."""
        ratio = y * xp.exp(-raw)
        return (weight * (raw + ratio)).sum(), weight * (1.0 - ratio), weight * ratio

    def predict(self, raw):
        """Return the expected amount."""
        return np.exp(raw)

    def baseline(self, mean):
        """Return the best constant raw value for targets of a given mean."""
        return float(np.log(max(mean, LEAST_MEAN)))


def _tile(raw, y, weight, gradient, hessian, params, order):
    if order == 4:
        for i in range(raw.size):
            weight[i] *= raw[i] + y[i] * exp(-raw[i])
        return 0.0
    total = 0.0
    for i in range(raw.size):
        ratio = y[i] * exp(-raw[i])
        gradient[i] = weight[i] * (1.0 - ratio)
        hessian[i] = weight[i] * ratio
        total += weight[i] * (raw[i] + ratio)
    return 0.0 if order == 3 else total
