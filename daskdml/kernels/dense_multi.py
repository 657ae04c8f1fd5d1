"""One read of a dense row block for a loss with several outputs (classes) per row.

For rows i and outputs k, with ``raw_ik = (x_i - shift) @ W[:, k] + b_k``: value, gradient ``X^T G`` with
``G_ik = weight_i * d loss / d raw_ik``, and, when asked for, what the loss says of its curvature per row.

Tiles go through BLAS twice: with ten classes the products do twenty operations per number read, so there is arithmetic
to be saved and no bandwidth.
"""

import numpy as np
from numba import types
from numba.extending import register_jitable

from daskdml.kernels.compile import TILE_MULTI, TILE_ROWS, build, f4, f8, i8, matrix, vector

_EMPTY = np.empty(0)
_EMPTY_2D = np.empty((0, 0))
_TYPES = {np.dtype(np.float32): f4, np.dtype(np.float64): f8}


class DenseMultiPass:
    """Evaluate a several-output loss at one point of parameter space on any number of dense blocks.

    Parameters
    ----------
    W : ndarray of shape (p, k), float64
    b : ndarray of shape (k,), float64
    loss : object with ``tile`` and ``params``; see `daskdml.losses`
    order : {0, 1, 2}
    shift : ndarray of shape (p,) or None
    wide : bool
        Do float32 arithmetic in float64.
    """

    def __init__(self, W, b, loss, *, order=1, shift=None, wide=False):
        self.W, self.b, self.loss, self.order, self.shift, self.wide = W, b, loss, order, shift, wide

    def __call__(self, X, y, weight=None):
        """Walk one block; X of shape (n, p), y of shape (n,), weight of shape (n,) or None.

        Returns
        -------
        value : float
        gradient : ndarray of shape (p, k)
        gradient_sum : ndarray of shape (k,)
        curvature : ndarray of shape (n, k) or None
            The loss's per-row curvature; for the multinomial loss the weighted probabilities.
        """
        n, p = X.shape
        k = self.b.size
        if not X.flags.c_contiguous and X.strides[0] != X.itemsize:
            X = np.ascontiguousarray(X)
        by_rows = X.flags.c_contiguous
        compute = np.dtype(np.float64) if self.wide else X.dtype
        direct = self.shift is None and compute == X.dtype and by_rows
        x, c = _TYPES[X.dtype], _TYPES[compute]
        signature = f8(
            matrix(x) if by_rows else types.Array(x, 2, "A"), vector(_TYPES[y.dtype]), vector(f8), matrix(c), vector(f8), vector(c),
            types.boolean, TILE_MULTI, vector(f8), i8, matrix(f8), vector(f8), matrix(f8),
        )  # fmt: skip
        walk = build(_walk_rows if by_rows else _walk_columns, signature)
        gradient = np.zeros((p, k))
        gradient_sum = np.zeros(k)
        per_row = np.empty((n, k)) if self.order == 2 else _EMPTY_2D
        shift = np.zeros(p, dtype=compute) if self.shift is None else self.shift.astype(compute)
        W = np.ascontiguousarray(self.W, dtype=compute)
        value = walk(
            X, y, _EMPTY if weight is None else weight, W, self.b, shift, direct,
            self.loss.tile, self.loss.params, self.order, gradient, gradient_sum, per_row,
        )  # fmt: skip
        return value, gradient, gradient_sum, per_row if self.order == 2 else None


def _walk_rows(X, y, weight, W, b, shift, direct, tile, params, order, gradient, gradient_sum, per_row):
    n, p = X.shape
    k = b.size
    scratch = np.empty((1 if direct else TILE_ROWS, p), dtype=W.dtype)
    raw = np.empty((TILE_ROWS, k))
    g = np.empty((TILE_ROWS, k))
    h = np.empty((TILE_ROWS, k))
    factor = np.empty((TILE_ROWS, k), dtype=W.dtype)
    y_tile = np.empty(TILE_ROWS)
    weight_tile = np.ones(TILE_ROWS)
    value = 0.0
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        if direct:
            raw[:m] = np.dot(X[start : start + m], W)
        else:
            for i in range(m):
                row = X[start + i]
                out = scratch[i]
                for j in range(p):
                    out[j] = row[j] - shift[j]
            raw[:m] = np.dot(scratch[:m], W)
        for i in range(m):
            y_tile[i] = y[start + i]
            for c in range(k):
                raw[i, c] += b[c]
        if weight.size:
            for i in range(m):
                weight_tile[i] = weight[start + i]
        value += tile(raw[:m], y_tile[:m], weight_tile[:m], g[:m], h[:m], params, order)
        if order == 2:
            per_row[start : start + m] = h[:m]
        if order == 0:
            continue
        for i in range(m):
            for c in range(k):
                gradient_sum[c] += g[i, c]
                factor[i, c] = g[i, c]
        if direct:
            gradient += np.dot(X[start : start + m].T, factor[:m])
        else:
            gradient += np.dot(scratch[:m].T, factor[:m])
    return value


_walk_rows_compiled = register_jitable(_walk_rows)


def _walk_columns(X, y, weight, W, b, shift, direct, tile, params, order, gradient, gradient_sum, per_row):
    n, p = X.shape
    k = b.size
    scratch = np.empty((TILE_ROWS, p), dtype=W.dtype)
    value = 0.0
    # A tile is turned into rows once and walked as such: two transposed BLAS products would read it no faster.
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        for j in range(p):
            column = X[start : start + m, j]
            for i in range(m):
                scratch[i, j] = column[i] - shift[j]
        value += _walk_rows_compiled(
            scratch[:m], y[start : start + m], weight[start : start + m], W, b, shift, True, tile, params, order,
            gradient, gradient_sum, per_row[start : start + m],
        )  # fmt: skip
    return value
