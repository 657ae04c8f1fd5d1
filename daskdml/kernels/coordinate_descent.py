"""Coordinate descent on a quadratic with an L1 term: the inner problem of a proximal Newton step."""

import numpy as np

from daskdml.kernels.compile import build, f8, i8, matrix, vector


def minimize_quadratic(hessian, linear, start, l1, tol, max_sweeps):
    """Minimise ``1/2 u^T H u - c^T u + sum_j l1_j |u_j|``.

    Parameters
    ----------
    hessian : ndarray of shape (p, p), float64, symmetric, non-negative diagonal
    linear : ndarray of shape (p,)
    start : ndarray of shape (p,)
    l1 : ndarray of shape (p,), >= 0
    tol : float
        Stop when no coordinate's optimality is violated by more than ``tol`` times the largest violation at the start.
    max_sweeps : int

    Returns
    -------
    ndarray of shape (p,)

    Notes
    -----
    A sweep costs p^2 multiplications at most: a coordinate that stays where it is costs O(1). After each full sweep the
    moving coordinates alone are swept until they rest. Friedman, Hastie, Tibshirani, "Regularization paths for
    generalized linear models via coordinate descent", J. Stat. Software 33 (2010), section 2.2 (covariance updates).
    """
    signature = f8(matrix(f8), vector(f8), vector(f8), vector(f8), f8, i8)
    u = np.array(start, dtype=np.float64)
    residual = linear - hessian @ u
    build(_sweep, signature)(np.ascontiguousarray(hessian), residual, u, np.ascontiguousarray(l1), tol, max_sweeps)
    return u


def _sweep(hessian, residual, u, l1, tol, max_sweeps):
    p = u.size
    active = np.ones(p, dtype=np.bool_)
    first = -1.0
    for sweep in range(max_sweeps):
        everything = sweep == 0 or not active.any()
        if everything:
            active[:] = True
        worst = 0.0
        for j in range(p):
            if not active[j]:
                continue
            curvature = hessian[j, j]
            if curvature <= 0.0:
                active[j] = False
                continue
            z = residual[j] + curvature * u[j]
            if z > l1[j]:
                new = (z - l1[j]) / curvature
            elif z < -l1[j]:
                new = (z + l1[j]) / curvature
            else:
                new = 0.0
            step = new - u[j]
            violation = abs(step) * curvature
            worst = max(worst, violation)
            if step != 0.0:
                u[j] = new
                for i in range(p):
                    residual[i] -= step * hessian[j, i]
            if first > 0 and violation <= tol * first:
                active[j] = False
        if first < 0:
            first = worst
        if worst <= tol * first:
            if everything:
                return float(sweep)
            active[:] = False
    return float(max_sweeps)
