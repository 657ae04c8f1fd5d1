"""One walk over the stored values of a CSR row block: margins, loss, gradient, curvature and Hessian products.

Columns are addressed through unsigned copies of nothing: indices are read as they are stored (int32 or int64) and cast,
because a signed index costs a sign extension and a wrap-around test per value.
"""

import numpy as np

from daskdml.kernels.compile import ADDRESS, TILE_ROWS, address, build, f4, f8, i4, i8, tile_at, vector

_EMPTY = np.empty(0)
_TYPES = {np.dtype(np.float32): f4, np.dtype(np.float64): f8, np.dtype(np.int32): i4, np.dtype(np.int64): i8}


class CSRPass:
    """Evaluate a single-output loss at one point of parameter space on any number of CSR blocks.

    Parameters
    ----------
    w : ndarray of shape (p,), float64
    b : float
    loss : object with ``tile`` and ``params``; see `daskdml.losses`
    order : {0, 1, 2}
    direction : ndarray of shape (p,), float64, or None
        If given, what is summed is the Hessian times this direction instead of the gradient:
        ``sum_i h_i * (x_i @ direction + direction_b) * x_i``.
    direction_b : float
    """

    def __init__(self, w, b, loss, *, order=1, direction=None, direction_b=0.0):
        self.w, self.b, self.loss, self.order = w, float(b), loss, order
        self.direction, self.direction_b = direction, float(direction_b)

    def __call__(self, X, y, weight=None):
        """Walk one block; see `daskdml.kernels.dense.DensePass.__call__` for what comes back."""
        n, p = X.shape
        signature = f8(
            *_csr_types(X), vector(_TYPES[y.dtype], read=True), vector(f8, read=True), vector(f8), f8, vector(f8), f8,
            ADDRESS, vector(f8), i8, vector(f8), vector(f8),
        )  # fmt: skip
        sums = np.zeros(p + 1)
        per_row = np.empty(n) if self.order == 2 else _EMPTY
        value = build(_walk, signature)(
            X.data, X.indices, X.indptr, y, _EMPTY if weight is None else weight, self.w, self.b,
            _EMPTY if self.direction is None else self.direction, self.direction_b,
            address(self.loss.tile), self.loss.params, self.order, sums, per_row,
        )  # fmt: skip
        return value, sums[:p], sums[p], per_row if self.order == 2 else None


def _csr_types(X):
    return [vector(_TYPES[part.dtype], read=True) for part in (X.data, X.indices, X.indptr)]


def squared_column_sums(X, factor):
    """Return ``sum_i factor_i * x_ij^2`` for each column j of a CSR block: the diagonal of its Hessian."""
    signature = f8(*_csr_types(X), vector(f8, read=True), vector(f8))
    sums = np.zeros(X.shape[1])
    build(_square_columns, signature)(X.data, X.indices, X.indptr, factor, sums)
    return sums


def _walk(data, indices, indptr, y, weight, w, b, direction, direction_b, tile, params, order, sums, per_row):
    n = indptr.size - 1
    raw = np.empty(TILE_ROWS)
    along = np.empty(TILE_ROWS)
    g = np.empty(TILE_ROWS)
    h = np.empty(TILE_ROWS)
    y_tile = np.empty(TILE_ROWS)
    weight_tile = np.ones(TILE_ROWS)
    call = tile_at(tile, raw)
    value = 0.0
    offset = indptr[0]
    for start in range(0, n, TILE_ROWS):
        m = min(TILE_ROWS, n - start)
        for i in range(m):
            total = b
            for q in range(np.uint64(indptr[start + i] - offset), np.uint64(indptr[start + i + 1] - offset)):
                total += data[q] * w[np.uint64(indices[q])]
            raw[i] = total
            y_tile[i] = y[start + i]
        if direction.size:
            for i in range(m):
                total = direction_b
                for q in range(np.uint64(indptr[start + i] - offset), np.uint64(indptr[start + i + 1] - offset)):
                    total += data[q] * direction[np.uint64(indices[q])]
                along[i] = total
        if weight.size:
            for i in range(m):
                weight_tile[i] = weight[start + i]
        value += call(raw[:m], y_tile[:m], weight_tile[:m], g[:m], h[:m], params, order)
        if per_row.size:
            for i in range(m):
                per_row[start + i] = h[i]
        if direction.size:
            for i in range(m):
                g[i] = h[i] * along[i]
        if order == 0:
            continue
        for i in range(m):
            factor = g[i]
            sums[-1] += factor
            for q in range(np.uint64(indptr[start + i] - offset), np.uint64(indptr[start + i + 1] - offset)):
                sums[np.uint64(indices[q])] += data[q] * factor
    return value


def _square_columns(data, indices, indptr, factor, sums):
    offset = indptr[0]
    for i in range(indptr.size - 1):
        for q in range(np.uint64(indptr[i] - offset), np.uint64(indptr[i + 1] - offset)):
            sums[np.uint64(indices[q])] += data[q] * data[q] * factor[i]
    return 0.0
