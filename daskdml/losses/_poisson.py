"""Poisson loss of a count: half the Poisson deviance, with the logarithm as link."""

import numpy as np

from daskdml.kernels.compile import TILE_SIGNATURE, build_tile
from daskdml.kernels.scalar import exp
from daskdml.losses._ends import LEAST_MEAN


class Poisson:
    """Poisson loss, pointwise in (y, raw).

    loss(y, raw) = exp(raw) - y * raw,  y >= 0
    d loss / d raw = exp(raw) - y,   d2 loss / d raw2 = exp(raw)

    It is scikit-learn's ``HalfPoissonLoss``. Finite for |raw| <= 700, and in `tile` beyond, where exp(raw) stays at
    exp(-708) or exp(709), as long as weights and sums leave room; NaN stays NaN.
    """

    name = "poisson"
    n_outputs = 1
    smooth = True
    shift_invariant = False
    constant_hessian = False
    y_domain = (0.0, np.inf)
    #: Over y and raw: the lowest value over raw is y - y log(y).
    infimum = -np.inf
    quantile = None
    params = np.empty(0)

    @property
    def tile(self):
        """The compiled tile function."""
        return build_tile(_tile, TILE_SIGNATURE)

    def arrays(self, raw, y, weight, order, xp=np):
        """Evaluate whole arrays by the formulas above; see `daskdml.losses.Logistic.arrays`."""
        e = xp.exp(raw)
        return (weight * (e - y * raw)).sum(), weight * (e - y), weight * e

    def predict(self, raw):
        """Return the expected count."""
        return np.exp(raw)

    def baseline(self, mean):
        """Return the best constant raw value for targets of a given mean."""
        return float(np.log(max(mean, LEAST_MEAN)))


def _tile(raw, y, weight, gradient, hessian, params, order):
    if order == 4:
        for i in range(raw.size):
            weight[i] *= exp(raw[i]) - y[i] * raw[i]
        return 0.0
    total = 0.0
    for i in range(raw.size):
        e = exp(raw[i])
        gradient[i] = weight[i] * (e - y[i])
        hessian[i] = weight[i] * e
        total += weight[i] * (e - y[i] * raw[i])
    return 0.0 if order == 3 else total
