"""A pass in two phases, for rows whose columns lie in several panels: margins forward, gradients backward.

Conventions. A function of panels is a function of one block that can also be asked for its steps, by whoever holds
each panel:

    raw = sum of fn.forward(panel, columns)      (n, k)     margins of the panel's own columns
    partial, g = fn.pointwise(raw, y, weight)               all that needs no X; g of shape (n, m), or None
    piece = fn.backward(panel, columns, g)                  what the panel's columns contribute
    result = fn.join(partial, pieces)                       pieces in the order of the panels

Its ``phases`` say which steps there are: ``("forward",)`` has no g (a value alone), ``("backward",)`` needs no margins
(each column for itself; partial and g are None), ``()`` is no function of panels after all. ``columns`` is the panel's
slice of all columns. Partials and pieces add up over disjoint rows, block by block in one tree, so it does not matter
whether they are joined before or after.
"""

import functools
import operator

import numpy as np
from scipy import sparse

# Rows multiplied at once: what float32 may sum before float64 takes over.
SLAB = 4096


def panels_of(X):
    """List (panel, its columns) of a matrix or of a tuple of column panels."""
    out, start = [], 0
    for panel in X if isinstance(X, tuple) else (X,):
        out.append((panel, slice(start, start + panel.shape[1])))
        start += panel.shape[1]
    return out


def margins(fn, X):
    """Return the sum of ``fn.forward`` over the panels of X.

    Neighbours are added in pairs, then neighbouring sums: the order in which workers that hold panels add them.
    """
    parts = [fn.forward(panel, columns) for panel, columns in panels_of(X)]
    while len(parts) > 1:
        parts = [functools.reduce(operator.add, parts[k : k + 2]) for k in range(0, len(parts), 2)]
    return parts[0]


def in_phases(fn, block):
    """Return the result of a function of panels on a block that is held in one place."""
    partial = g = None
    if "forward" in fn.phases:
        partial, g = fn.pointwise(margins(fn, block.X), block.y, block.weight)
    pieces = [fn.backward(panel, s, g) for panel, s in panels_of(block.X)] if "backward" in fn.phases else []
    return fn.join(partial, pieces)


def product(X, W, *, shift=None, wide=False):
    """Return ``(X - shift) @ W`` in float64.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, p)
    W : ndarray of shape (p, k), float64
    shift : ndarray of shape (p,) or None
        None is 0, the only shift of sparse rows.
    wide : bool, default False
        Do float32 arithmetic in float64.
    """
    if shift is None and not wide:
        return np.asarray(times(X, W.astype(X.dtype)), dtype=np.float64)
    if sparse.issparse(X):
        return X @ W
    return np.concatenate([times(_rows(X, s, shift, wide), W) for s in slabs(X)], axis=0)


def product_transposed(X, g, *, shift=None, wide=False):
    """Return ``(X - shift)^T @ g`` in float64; see `product`."""
    if sparse.issparse(X):
        return np.asarray(X.T @ (g if wide else g.astype(X.dtype)), dtype=np.float64)
    total = np.zeros((X.shape[1], g.shape[1]))
    for s in slabs(X):
        rows = _rows(X, s, shift, wide)
        total += times(rows.T, g[s].astype(rows.dtype))
    return total


def squares(X, h, center):
    """Return ``sum_i h_ik (x_ij - center_j)^2``, of shape (p, k); for sparse X the center is zero by construction."""
    if sparse.issparse(X):
        from daskdml.kernels.csr import squared_column_sums

        return np.stack([squared_column_sums(X, np.ascontiguousarray(h[:, c])) for c in range(h.shape[1])], axis=1)
    X = dense_rows(X)
    return sum((X[s] - center).astype(np.float64).T ** 2 @ h[s] for s in slabs(X))


def slabs(X):
    """List slices of `SLAB` rows."""
    return [slice(start, start + SLAB) for start in range(0, X.shape[0], SLAB)]


def dense_rows(X):
    """Return rows of any kind as an ndarray."""
    if sparse.issparse(X):
        return X.toarray()
    return X.get() if hasattr(X, "get") else X


def times(X, W):
    """Return X @ W; a few columns one by one, since BLAS takes four times as long for two at once as for one."""
    if W.shape[1] > 3 or sparse.issparse(X):
        return X @ W
    return np.stack([X @ np.ascontiguousarray(W[:, k]) for k in range(W.shape[1])], axis=1)


def _rows(X, s, shift, wide):
    rows = dense_rows(X[s])
    dtype = np.float64 if wide else rows.dtype
    return rows.astype(dtype, copy=False) if shift is None else np.subtract(rows, shift.astype(dtype), dtype=dtype)
