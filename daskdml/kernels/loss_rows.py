"""Gradients and losses of rows that trees are boosted on, by tiles of a loss; see `daskdml.kernels.pointwise`."""

import functools

import numpy as np

from daskdml.kernels.compile import ADDRESS, TILE_ROWS, address, build, f4, f8, matrix, tile_at, types, vector


def gradients(raw, y, weight, loss, gradient, hessian):
    """Write gradient and hessian of a loss at each row; return the largest of each, as absolute values, NaN if one is.

    Parameters
    ----------
    raw : ndarray of shape (n,) or (n, k), float64
    y : ndarray of shape (n,), float32 or float64
    weight : ndarray of shape (n,), float64, or (0,) for ones
    loss : object with ``tile`` and ``params``
    gradient, hessian : ndarrays of shape (k, n), float32
        Of the second nothing is written where it has no rows.

    Returns
    -------
    ndarray of shape (2,)

    Notes
    -----
    Tiles are always full: machine code treats the last rows of a shorter one otherwise, and their last bits would
    depend on where a shard begins.
    """
    kernel = _gradients_kernel(raw.ndim == 2, y.dtype)
    return np.array(kernel(raw, y, weight, address(loss.tile), loss.params, gradient, hessian))


@functools.cache
def _gradients_kernel(multi, dtype):
    signature = types.Tuple((f8, f8))(
        matrix(f8) if multi else vector(f8), vector(_real(dtype), read=True), vector(f8, read=True), ADDRESS,
        vector(f8), matrix(f4), matrix(f4),
    )  # fmt: skip
    return build(_gradients_multi if multi else _gradients, signature)


def _real(dtype):
    return f4 if dtype == np.float32 else f8


def _gradients(raw, y, weight, tile, params, gradient, hessian):
    n, call = raw.shape[0], tile_at(tile, raw)
    r, t, w, g, h = (np.zeros(TILE_ROWS), np.zeros(TILE_ROWS), np.ones(TILE_ROWS), np.zeros(TILE_ROWS),
                     np.zeros(TILE_ROWS))  # fmt: skip
    most_g = most_h = 0.0
    is_bad = False
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        for i in range(m):
            r[i] = raw[start + i]
            t[i] = y[start + i]
        if weight.size:
            for i in range(m):
                w[i] = weight[start + i]
        call(r, t, w, g, h, params, 3)
        for i in range(m):
            gradient[0, start + i] = np.float32(g[i])
            most_g = max(most_g, abs(g[i]))
            is_bad |= g[i] != g[i]  # which max() does not see
        if hessian.size:
            for i in range(m):
                hessian[0, start + i] = np.float32(h[i])
                most_h = max(most_h, h[i])
    return (np.nan if is_bad else most_g), most_h


def _gradients_multi(raw, y, weight, tile, params, gradient, hessian):
    n, k = raw.shape
    call = tile_at(tile, raw)
    r, t, w = np.zeros((TILE_ROWS, k)), np.zeros(TILE_ROWS), np.ones(TILE_ROWS)
    g, h = np.zeros((TILE_ROWS, k)), np.zeros((TILE_ROWS, k))
    most_g = most_h = 0.0
    is_bad = False
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        for i in range(m):
            t[i] = y[start + i]
            for c in range(k):
                r[i, c] = raw[start + i, c]
        if weight.size:
            for i in range(m):
                w[i] = weight[start + i]
        call(r, t, w, g, h, params, 3)
        for c in range(k):
            for i in range(m):
                # What softmax's tile writes as curvature is w p; the second derivative for a class is w p (1 - p).
                second = h[i, c] * (1.0 - h[i, c] / w[i]) if w[i] > 0 else 0.0
                gradient[c, start + i] = np.float32(g[i, c])
                if hessian.size:
                    hessian[c, start + i] = np.float32(second)
                    most_h = max(most_h, second)
                most_g = max(most_g, abs(g[i, c]))
                is_bad |= g[i, c] != g[i, c]
    return (np.nan if is_bad else most_g), most_h


def losses(raw, y, loss):
    """Return the loss of each row at weight one.

    Parameters
    ----------
    raw : ndarray of shape (n,) or (n, k), float64
    y : ndarray of shape (n,), float32 or float64
    loss : object with ``tile`` and ``params``

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    multi = raw.ndim == 2
    out = np.empty(len(y))
    array = matrix(f8) if multi else vector(f8)
    signature = types.void(array, vector(_real(y.dtype), read=True), ADDRESS, vector(f8), array, vector(f8))
    shape = (TILE_ROWS, raw.shape[1]) if multi else TILE_ROWS
    build(_losses, signature)(raw, y, address(loss.tile), loss.params, np.zeros(shape), out)
    return out


def _losses(raw, y, tile, params, spare, out):
    call = tile_at(tile, raw)
    r, t, w = np.zeros_like(spare), np.zeros(TILE_ROWS), np.ones(TILE_ROWS)
    for start in range(0, y.size, TILE_ROWS):
        m = min(TILE_ROWS, y.size - start)
        for i in range(m):
            r[i] = raw[start + i]
            t[i] = y[start + i]
        w[:] = 1.0
        call(r, t, w, spare, spare, params, 4)  # writes what each row loses over its weight
        for i in range(m):
            out[start + i] = w[i]
