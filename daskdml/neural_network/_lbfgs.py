"""L-BFGS on all rows: SciPy's, which asks for sums over blocks."""

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from daskdml.kernels.device import module_of, on_host

ROWS = 1024  # whose activations are in memory at once
DEVICE_ROWS = 65_536  # the same on a device, from which a gradient is brought after them


class GradientOfRows(NamedTuple):
    """The function of a block that returns sums of its rows: gradient, loss and weight, as one vector."""

    network: Any
    theta: Any

    def __call__(self, block):
        network, n, xp = self.network, block.n_rows, module_of(block.X)
        theta, step = xp.asarray(self.theta), ROWS if xp is np else DEVICE_ROWS
        work = network.workspace(min(n, step), like=xp)
        part, total = xp.empty(network.n_params, network.dtype), np.zeros(network.n_params + 2)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            X, y, weight = block.X[rows], block.y[rows], None if block.weight is None else block.weight[rows]
            value = network.gradient(theta, X, y, weight, part, work)
            total[:-2] += on_host(part)
            total[-2] += network.scikit_learn_loss(value, y, weight)
            total[-1] += X.shape[0] if weight is None else weight.sum()
        return total


def minimise(fit, network, theta, tol, max_iter, max_fun):
    """Return SciPy's result of minimising the objective of a network over all rows of a fit.

    Parameters
    ----------
    fit : daskdml.fitting.Fit
    network : Network
    theta : ndarray of shape (n_params,)
    tol : float
        Largest entry of the gradient that is small enough.
    max_iter, max_fun : int
    """
    body = functools.partial(_minimise, network=network, theta=theta, tol=tol, max_iter=max_iter, max_fun=max_fun)
    return fit.carry_out(body, min(2 * max_iter, max_fun), stacklevel=5)


def _minimise(fit, *, network, theta, tol, max_iter, max_fun):
    def evaluate(theta):
        theta = theta.astype(network.dtype)
        total = fit.run.map_reduce(GradientOfRows(network, theta))
        weight, coefs = total[-1], theta[: network.n_decayed].astype(np.float64)
        gradient = total[:-2]
        gradient[: network.n_decayed] += network.alpha * coefs
        return (total[-2] + 0.5 * network.alpha * (coefs @ coefs)) / weight, gradient / weight

    options = {"maxfun": max_fun, "maxiter": max_iter, "gtol": tol}
    return minimize(evaluate, theta.astype(np.float64), method="L-BFGS-B", jac=True, options=options)
