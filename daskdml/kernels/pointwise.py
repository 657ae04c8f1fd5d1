"""A loss on margins that are already there: the middle of a two-phase pass.

Used where X is not walked in one go: column panels (margins of the panels are added first), CSR with several outputs,
and arrays that live on a GPU.
"""

import functools

import numpy as np

from daskdml.kernels.compile import ADDRESS, TILE_ROWS, address, build, f8, i8, matrix, tile_at, vector
from daskdml.kernels.device import module_of, on_host


def apply_loss(raw, y, weight, loss, order):
    """Evaluate a loss on the margins of a block.

    Parameters
    ----------
    raw : ndarray of shape (n,) or (n, k), float64, C order
    y : ndarray of shape (n,)
    weight : ndarray of shape (n,) or None
    loss : object with ``tile`` and ``params``; see `daskdml.losses`
    order : {0, 1, 2}

    Returns
    -------
    value : float
    gradient, hessian : ndarrays of the shape of raw
    """
    gradient = np.empty_like(raw)
    hessian = np.empty_like(raw)
    # Copies: a tile function takes arrays it could write to, and y may be read-only.
    y = np.array(y, dtype=np.float64)
    weight = np.ones(raw.shape[0]) if weight is None else np.array(weight)
    value = _compiled(raw.ndim)(raw, y, weight, address(loss.tile), loss.params, order, gradient, hessian)
    return value, gradient, hessian


@functools.cache
def _compiled(ndim):
    array = matrix(f8) if ndim == 2 else vector(f8)
    return build(_walk, f8(array, vector(f8), vector(f8), ADDRESS, vector(f8), i8, array, array))


def _walk(raw, y, weight, tile, params, order, gradient, hessian):
    call = tile_at(tile, raw)
    value = 0.0
    for start in range(0, raw.shape[0], TILE_ROWS):
        s = slice(start, min(start + TILE_ROWS, raw.shape[0]))
        value += call(raw[s], y[s], weight[s], gradient[s], hessian[s], params, order)
    return value


def array_pass(X, y, weight, w, b, loss, order, shift):
    """Evaluate a loss on a block by whole-array products: the twin of the dense kernels for cupy arrays.

    Parameters
    ----------
    X : cupy or NumPy array of shape (n, p)
    y : ndarray or array of shape (n,)
    weight : ndarray, array or None
    w : ndarray of shape (p,) or (p, k), float64
    b : float or ndarray of shape (k,)
    loss : object with ``arrays``
    order : {0, 1, 2}
    shift : ndarray of shape (p,) or None

    Returns
    -------
    value : float
    gradient : ndarray of shape (p,) or (p, k), float64, on the host
    gradient_sum : float or ndarray of shape (k,)
    hessian : array of the module of X, or None

    Notes
    -----
    X is read twice (margins, gradient). float32 products are taken in slabs of 65,536 rows, slabs are summed in
    float64. What comes back to the host is p x k numbers.
    """
    xp = module_of(X)
    n = X.shape[0]
    w_device = xp.asarray(w, dtype=X.dtype)
    y = xp.asarray(y, dtype=np.float64)
    weight = xp.ones(n) if weight is None else xp.asarray(weight)
    moved = None if shift is None else xp.asarray(shift, dtype=X.dtype)
    value = 0.0
    gradient = xp.zeros(w_device.shape)
    gradient_sum = xp.zeros(w_device.shape[1:])
    curvature = xp.empty((n, *w_device.shape[1:])) if order == 2 else None
    # One slab on the device may be large: what bounds it is the float32 sum of its rows, not the cache.
    for start in range(0, n, _SLAB):
        s = slice(start, start + _SLAB)
        slab = X[s] if moved is None else X[s] - moved
        raw = (slab @ w_device).astype(np.float64) + xp.asarray(b)
        part, g, h = loss.arrays(raw, y[s], weight[s], order, xp)
        value += part
        if order:
            gradient += (slab.T @ g.astype(X.dtype)).astype(np.float64)
            gradient_sum += g.sum(axis=0)
        if order == 2:
            curvature[s] = h
    total = on_host(gradient_sum)
    return float(value), on_host(gradient), float(total) if total.ndim == 0 else total, curvature


_SLAB = 65_536
