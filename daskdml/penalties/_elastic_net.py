"""Elastic net: L1 and L2 together; L2 alone, L1 alone and no penalty are its special cases."""

import numpy as np

from daskdml.kernels.coordinate_descent import minimize_quadratic


class ElasticNet:
    """Elastic-net penalty of ``coef = scale * u``.

    penalty(u) = l1 * sum_j |scale_j u_j| + l2 / 2 * sum_j (scale_j u_j)^2

    Parameters
    ----------
    l1, l2 : float, >= 0
        Strengths, against a *mean* loss.
    """

    def __init__(self, l1=0.0, l2=0.0):
        self.l1, self.l2 = float(l1), float(l2)

    @property
    def smooth(self):
        """Whether the gradient is all there is: no L1 part."""
        return self.l1 == 0.0

    @property
    def is_zero(self):
        """Whether there is no penalty at all."""
        return self.l1 == 0.0 and self.l2 == 0.0

    def value(self, u, scale):
        """Return the penalty."""
        coef = scale * u
        return self.l1 * np.abs(coef).sum() + 0.5 * self.l2 * (coef @ coef)

    def gradient(self, u, scale):
        """Return the gradient of the smooth (L2) part."""
        return self.l2 * scale**2 * u

    def curvature(self, scale):
        """Return the diagonal of the Hessian of the smooth (L2) part."""
        return self.l2 * scale**2

    def prox(self, u, step, scale):
        """Shrink each coordinate towards zero.

        prox(u) = argmin_v  step * l1 * sum_j scale_j |v_j| + 1/2 |v - u|^2 = sign(u) max(|u| - step * l1 * scale, 0)
        """
        return np.sign(u) * np.maximum(np.abs(u) - step * self.l1 * scale, 0.0)

    def violation(self, u, gradient, scale):
        """Return the largest distance, over coordinates, of -gradient to the L1 part's subdifferential.

        ``gradient`` is that of the loss and of the smooth part of the penalty together.
        """
        bound = self.l1 * scale
        at_zero = np.maximum(np.abs(gradient) - bound, 0.0)
        return float(np.max(np.where(u == 0, at_zero, np.abs(gradient + bound * np.sign(u))), initial=0.0))

    def conjugate(self, v, scale):
        """Return ``max_u  v @ u - penalty(u)`` over the penalised coordinates, and the factor v had to be shrunk by.

        With an L2 part it is sum_j max(|v_j| - l1 scale_j, 0)^2 / (2 l2 scale_j^2); without one it is finite only where
        |v_j| <= l1 scale_j, so v is first multiplied by the largest factor <= 1 that makes it so.
        """
        kept = scale > 0
        v, scale = np.abs(v[kept]), scale[kept]
        if self.l2 > 0:
            excess = np.maximum(v - self.l1 * scale, 0.0)
            return float((excess**2 / (2 * self.l2 * scale**2)).sum()), 1.0
        largest = np.max(v / scale, initial=0.0)
        return 0.0, 1.0 if largest <= self.l1 else self.l1 / largest

    def minimize_quadratic(self, hessian, linear, u, scale, *, tol=1e-12, max_sweeps=10_000):
        """Return argmin_u  1/2 u^T hessian u - linear @ u + l1 sum_j scale_j |u_j|, from a start.

        The L2 part is expected in ``hessian``.
        """
        return minimize_quadratic(hessian, linear, u, self.l1 * scale, tol, max_sweeps)
