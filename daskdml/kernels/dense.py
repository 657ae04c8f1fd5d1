"""One read of a dense row block: margins, loss, gradient and curvature of a single-output loss.

For rows i of the block, with ``raw_i = (x_i - shift) @ w + b``:

    value      sum_i weight_i * loss(y_i, raw_i)
    gradient   sum_i g_i * (x_i - shift)  and  sum_i g_i,   g_i = weight_i * d loss / d raw
    hessian    h_i = weight_i * d2 loss / d raw2, one per row, when asked for

A tile of rows is multiplied, handed to the loss and summed while it lies in the first cache, so X crosses the memory
bus once. float32 rows are multiplied in float32, each row in the same order wherever it stands, and summed in float64:
another chunking then changes an answer by rounding in float64 only. Sums in float32, flushed every 16 rows, differed by
1e-8 and saved nothing: the bus is what a pass waits for.
"""

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import ADDRESS, TILE_ROWS, address, build, f4, f8, i8, matrix, tile_at, vector
from daskdml.kernels.simd import LANES, dot_rows, gather, padded, spread, sum_rows

# Rows of a tile are chosen so that it stays in the first-level cache between its two uses.
_TILE_BYTES = 25_600
# What a loss's compiled loop takes at once, unrolled.
_TILE_STEP = 32


class DensePass:
    """Evaluate a loss at one point of parameter space on any number of dense blocks, each with one read of X.

    Parameters
    ----------
    w : ndarray of shape (p,), float64
    b : float
    loss : object with ``tile`` (compiled tile function) and ``params``; see `daskdml.losses`
    order : {0, 1, 2}
        0 value only, 1 and gradient, 2 and hessian.
    shift : ndarray of shape (p,) or None
        Subtracted from each row as it is read. None saves the subtraction.
    wide : bool
        Do float32 arithmetic in float64: exact products, half the speed.
    """

    def __init__(self, w, b, loss, *, order=1, shift=None, wide=False):
        self.w, self.b, self.loss, self.order, self.shift, self.wide = w, float(b), loss, order, shift, wide
        self._prepared = {}

    def __getstate__(self):
        return {**self.__dict__, "_prepared": {}}

    def __call__(self, X, y, weight=None):
        """Walk one block.

        Parameters
        ----------
        X : ndarray of shape (n, p), float32 or float64, C or F order
        y : ndarray of shape (n,), float32 or float64
        weight : ndarray of shape (n,), float64, or None for ones

        Returns
        -------
        value : float
        gradient : ndarray of shape (p,), float64
        gradient_sum : float
            ``sum_i g_i``, the derivative by the intercept.
        hessian : ndarray of shape (n,) or None
        """
        n, p = X.shape
        if not X.flags.c_contiguous and X.strides[0] != X.itemsize:
            X = np.ascontiguousarray(X)
        by_rows = X.flags.c_contiguous
        key = (by_rows, X.dtype, y.dtype)
        # Arrays that depend on w alone are laid out once for all blocks; two threads may do it twice, with equal
        # results.
        if key not in self._prepared:
            self._prepared[key] = (self._prepare_rows if by_rows else self._prepare_columns)(*key[1:])
        walk, width, first, sums_size, last = self._prepared[key]
        sums = np.zeros(sums_size)
        per_row = np.empty(n) if self.order == 2 else _EMPTY
        rows = (X,) if by_rows else _flat_columns(X)
        value = walk(*rows, y, _EMPTY if weight is None else weight, *first, *last, sums, per_row)
        gradient = gather(sums[:-1], width, first[0].dtype)[:p] if by_rows else sums[:p]
        return value, gradient, sums[-1], per_row if self.order == 2 else None

    def _prepare_rows(self, x_type, y_type):
        p = self.w.size
        compute = np.dtype(np.float64) if self.wide else x_type
        lanes = LANES[compute.name]
        direct = self.shift is None and compute == x_type and p >= lanes
        width = p if direct else -(-p // lanes) * lanes
        w = spread(np.concatenate([self.w, np.zeros(width - p)]), width, compute)
        walk = build(_walk if direct else _walk_moved, _rows_signature(x_type, y_type, compute))
        first = (w, self.b, self._moved(compute), lanes)
        return walk, width, first, padded(width, compute) + 1, (address(self.loss.tile), self.loss.params, self.order)

    def _prepare_columns(self, x_type, y_type):
        p = self.w.size
        compute = np.dtype(np.float64) if self.wide else x_type
        walk = build(_walk_columns, _columns_signature(x_type, y_type, compute))
        first = (self.w.astype(compute), self.b, self._moved(compute))
        return walk, p, first, p + 1, (address(self.loss.tile), self.loss.params, self.order)

    def _moved(self, compute):
        return np.zeros(self.w.size, dtype=compute) if self.shift is None else self.shift.astype(compute)


_EMPTY = np.empty(0)
_TYPES = {np.dtype(np.float32): f4, np.dtype(np.float64): f8}


def _rows_signature(x, y, compute):
    x, y, c = _TYPES[np.dtype(x)], _TYPES[np.dtype(y)], _TYPES[compute]
    read = (matrix(x, read=True), vector(y, read=True), vector(f8, read=True))
    return f8(*read, vector(c), f8, vector(c), i8, ADDRESS, vector(f8), i8, vector(f8), vector(f8))


def _columns_signature(x, y, compute):
    x, y, c = _TYPES[np.dtype(x)], _TYPES[np.dtype(y)], _TYPES[compute]
    read = (vector(x, read=True), i8, vector(y, read=True), vector(f8, read=True))
    return f8(*read, vector(c), f8, vector(c), ADDRESS, vector(f8), i8, vector(f8), vector(f8))


def _walk(X, y, weight, w, b, shift, lanes, tile, params, order, sums, per_row):
    n, p = X.shape
    rows = _tile_rows(p * w.itemsize)
    raw = np.empty(rows)
    g = np.empty(rows)
    h = np.empty(rows)
    y_tile = np.empty(rows)
    weight_tile = np.ones(rows)
    flat = X.reshape(-1)
    call = tile_at(tile, raw)
    value = 0.0
    for start in range(0, n, rows):
        m = min(rows, n - start)
        dot_rows(flat, start * p, p, m, p, w, lanes, raw, 0)
        for i in range(m):
            raw[i] += b
            y_tile[i] = y[start + i]
        if weight.size:
            for i in range(m):
                weight_tile[i] = weight[start + i]
        value += call(raw[:m], y_tile[:m], weight_tile[:m], g[:m], h[:m], params, order)
        if order == 2:
            for i in range(m):
                per_row[start + i] = h[i]
        if order == 0:
            continue
        # Not into sums[-1]: each addition would wait for the store of the one before.
        total = 0.0
        for i in range(m):
            total += g[i]
        sums[-1] += total
        sum_rows(flat, start * p, p, m, p, g, lanes, sums)
    return value


_walk_inner = register_jitable(_walk)


@register_jitable
def _tile_rows(row_bytes):
    return min(TILE_ROWS, max(_TILE_STEP, _TILE_BYTES // row_bytes // _TILE_STEP * _TILE_STEP))


def _walk_moved(X, y, weight, w, b, shift, lanes, tile, params, order, sums, per_row):
    """Turn each tile into shifted rows of the type computed in, padded to whole vectors, and walk those."""
    n, p = X.shape
    width = (p + lanes - 1) // lanes * lanes
    rows = _tile_rows(width * w.itemsize)
    scratch = np.zeros((rows, width), dtype=w.dtype)
    value = 0.0
    for start in range(0, n, rows):
        m = min(rows, n - start)
        stop = start + m
        for i in range(m):
            row = X[start + i]
            out = scratch[i]
            for j in range(p):
                out[j] = row[j] - shift[j]
        weight_tile = weight[start:stop] if weight.size else weight
        h_tile = per_row[start:stop] if per_row.size else per_row
        value += _walk_inner(
            scratch[:m], y[start:stop], weight_tile, w, b, shift, lanes, tile, params, order, sums, h_tile
        )  # fmt: skip
    return value


def _flat_columns(X):
    """Return the memory of a block whose columns are contiguous, and the distance between columns.

    Rows cut out of an F-ordered array are not F-contiguous; walked as a general array they would not vectorise.
    """
    n, p = X.shape
    ld = X.strides[1] // X.itemsize if p > 1 else n
    return np.lib.stride_tricks.as_strided(X, ((p - 1) * ld + n,), (X.itemsize,)), ld


def _walk_columns(X, ld, y, weight, w, b, shift, tile, params, order, gradient, per_row):
    n = y.size
    p = w.size
    raw = np.empty(TILE_ROWS)
    raw_sum = np.empty(TILE_ROWS, dtype=w.dtype)
    g = np.empty(TILE_ROWS)
    h = np.empty(TILE_ROWS)
    y_tile = np.empty(TILE_ROWS)
    weight_tile = np.ones(TILE_ROWS)
    call = tile_at(tile, raw)
    value = 0.0
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        stop = start + m
        raw_sum[:] = 0
        for j in range(p):
            column = X[j * ld + start : j * ld + stop]
            w_j = w[j]
            shift_j = shift[j]
            for i in range(m):
                raw_sum[i] += (column[i] - shift_j) * w_j
        for i in range(m):
            raw[i] = raw_sum[i] + b
            y_tile[i] = y[start + i]
        if weight.size:
            for i in range(m):
                weight_tile[i] = weight[start + i]
        value += call(raw[:m], y_tile[:m], weight_tile[:m], g[:m], h[:m], params, order)
        if order == 2:
            for i in range(m):
                per_row[start + i] = h[i]
        if order == 0:
            continue
        total_g = 0.0
        for i in range(m):
            total_g += g[i]
        gradient[p] += total_g
        for j in range(p):
            column = X[j * ld + start : j * ld + stop]
            shift_j = shift[j]
            total = 0.0
            for i in range(m):
                total += g[i] * (column[i] - shift_j)
            gradient[j] += total
    return value
