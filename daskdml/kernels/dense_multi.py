"""One read of a dense row block for a loss with several outputs (classes) per row.

For rows i and outputs k, with ``raw_ik = (x_i - shift) @ W[:, k] + b_k``: value, gradient ``X^T G`` with
``G_ik = weight_i * d loss / d raw_ik``, and, when asked for, what the loss says of its curvature per row.

Tiles go through BLAS twice: with ten classes the products do twenty operations per number read, so there is arithmetic
to be saved and no bandwidth. float32 rows are multiplied in float32 and summed in float64: sums in float32 are faster,
but another chunking would change an answer by 5e-8.
"""

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from daskdml.kernels.compile import ADDRESS, TILE_ROWS, address, build, f4, f8, i8, matrix, tile_at, vector

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
            matrix(x, "C" if by_rows else "A", read=True), vector(_TYPES[y.dtype], read=True), vector(f8, read=True),
            matrix(c), vector(f8), vector(c), types.boolean, ADDRESS, vector(f8), i8, matrix(f8), vector(f8),
            matrix(f8),
        )  # fmt: skip
        walk = build(_walk if direct else _walk_moved, signature)
        gradient = np.zeros((p, k))
        gradient_sum = np.zeros(k)
        per_row = np.empty((n, k)) if self.order == 2 else _EMPTY_2D
        shift = np.zeros(p, dtype=compute) if self.shift is None else self.shift.astype(compute)
        W = np.ascontiguousarray(self.W, dtype=compute)
        value = walk(
            X, y, _EMPTY if weight is None else weight, W, self.b, shift, by_rows,
            address(self.loss.tile), self.loss.params, self.order, gradient, gradient_sum, per_row,
        )  # fmt: skip
        return value, gradient, gradient_sum, per_row if self.order == 2 else None


def _transposed_product(X, g, rows):
    return X.T.astype(np.float64) @ g


@overload(_transposed_product)
def _transposed_product_compiled(X, g, rows):
    def widened(X, g, rows):
        rows = rows[: X.shape[0]]
        rows[:] = X
        return np.dot(rows.T, g)

    return (lambda X, g, rows: np.dot(X.T, g)) if X.dtype == types.float64 else widened


def _walk(X, y, weight, W, b, shift, by_rows, tile, params, order, gradient, gradient_sum, per_row):
    n = X.shape[0]
    k = b.size
    raw = np.empty((TILE_ROWS, k))
    g = np.empty((TILE_ROWS, k))
    h = np.empty((TILE_ROWS, k))
    rows = np.empty((TILE_ROWS if X.itemsize < 8 else 0, X.shape[1]))
    y_tile = np.empty(TILE_ROWS)
    weight_tile = np.ones(TILE_ROWS)
    call = tile_at(tile, raw)
    value = 0.0
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        raw[:m] = np.dot(X[start : start + m], W)
        for i in range(m):
            y_tile[i] = y[start + i]
            for c in range(k):
                raw[i, c] += b[c]
        if weight.size:
            for i in range(m):
                weight_tile[i] = weight[start + i]
        value += call(raw[:m], y_tile[:m], weight_tile[:m], g[:m], h[:m], params, order)
        if order == 2:
            per_row[start : start + m] = h[:m]
        if order == 0:
            continue
        for i in range(m):
            for c in range(k):
                gradient_sum[c] += g[i, c]
        gradient += _transposed_product(X[start : start + m], g[:m], rows)
    return value


_walk_inner = register_jitable(_walk)


def _walk_moved(X, y, weight, W, b, shift, by_rows, tile, params, order, gradient, gradient_sum, per_row):
    """Turn each tile into shifted rows of the type computed in, and walk those."""
    n, p = X.shape
    scratch = np.empty((TILE_ROWS, p), dtype=W.dtype)
    value = 0.0
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        if by_rows:
            for i in range(m):
                for j in range(p):
                    scratch[i, j] = X[start + i, j] - shift[j]
        else:
            for j in range(p):
                for i in range(m):
                    scratch[i, j] = X[start + i, j] - shift[j]
        weight_tile = weight[start : start + m] if weight.size else weight
        h_tile = per_row[start : start + m] if per_row.size else per_row
        value += _walk_inner(
            scratch[:m], y[start : start + m], weight_tile, W, b, shift, True, tile, params, order,
            gradient, gradient_sum, h_tile,
        )  # fmt: skip
    return value
