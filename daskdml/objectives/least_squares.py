"""Least squares by sufficient statistics: one pass gives the Gram matrix, a second one the residual's gradient.

F(W, b) = sum_i weight_i * |y_i - x_i @ W - b|^2 + sum_t alpha_t * |W_t|^2

needs nothing of X but ``sum_i weight_i (x_i - c)(x_i - c)^T`` and the like. Rows are shifted by ``c`` (a sample's mean)
before they are multiplied: without it a column whose mean is 1000 deviations from zero loses six of its digits. float32
rows are multiplied in float64: a Gram matrix squares the condition number, and float32 products leave nothing of it
beyond 1e3.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from daskdml.objectives.panels import in_phases, product, product_transposed, times
from daskdml.utils.portable import portable


@portable
class Gram(NamedTuple):
    """Weighted sums over rows of z = (x - c, y - d): of 1, of z and of z z^T. Sums of disjoint rows add up."""

    weight: float
    total: np.ndarray
    square: np.ndarray

    adds_up = True  # field by field, see `daskdml.comm.values`

    def __add__(self, other):
        return Gram(self.weight + other.weight, self.total + other.total, self.square + other.square)


class GramPass:
    """One block's `Gram`.

    Parameters
    ----------
    center : ndarray of shape (p + t,)
        c and d above: shifts of the features and of the targets.
    """

    def __init__(self, center):
        self.center = center

    def __call__(self, block):
        y = _columns(block.y)
        if sparse.issparse(block.X):
            return self._sparse(block.X, y, block.weight)
        n, width = len(y), self.center.size
        total, square, weight_sum = np.zeros(width), np.zeros((width, width)), 0.0
        step = _slab_rows(width)
        # One buffer for all slabs: in a Dask worker malloc gives large ones back at once, and their pages are made
        # anew for each slab (measured: half the time of a block).
        buffer, product = np.empty((min(n, step), width)), np.empty((width, width))
        for start in range(0, n, step):
            s = slice(start, start + step)
            z = _rows(block.X, y, s, self.center, buffer)
            if block.weight is not None:
                # sqrt(weight) on both sides keeps the product symmetric, which BLAS computes at half the cost.
                root = np.sqrt(block.weight[s])[:, None]
                total += block.weight[s] @ z
                z *= root
            else:
                total += z.sum(axis=0)
            square += np.matmul(z.T, z, out=product)
        weight_sum = float(n if block.weight is None else block.weight.sum())
        return Gram(weight_sum, total, square)

    def _sparse(self, X, y, weight):
        p = X.shape[1]
        if np.any(self.center[:p]):
            raise ValueError("Sparse rows are not shifted; their center is zero.")
        X = sparse.csr_matrix(X)
        y = y - self.center[p:]
        weight = np.ones(len(y)) if weight is None else weight
        weighted = X.multiply(weight[:, None]).tocsr()
        total = np.concatenate([np.asarray(weighted.sum(axis=0)).ravel(), weight @ y])
        square = np.empty((total.size, total.size))
        square[:p, :p] = (weighted.T @ X).toarray()
        square[:p, p:] = weighted.T @ y
        square[p:, :p] = square[:p, p:].T
        square[p:, p:] = y.T @ (y * weight[:, None])
        return Gram(float(weight.sum()), total, square)


@portable
class Slope(NamedTuple):
    """Weighted sums over rows, with residual r: of 1, of r, of (x - c) r, of r^2, of x - c."""

    weight: float
    residual: np.ndarray
    gradient: np.ndarray
    square: np.ndarray
    total: np.ndarray

    adds_up = True  # field by field, see `daskdml.comm.values`

    def __add__(self, other):
        return Slope(*(None if a is None else a + b for a, b in zip(self, other)))


class SlopePass:
    """One block's `Slope`, for residuals ``y - (x - c) @ W - b``.

    Parameters
    ----------
    W : ndarray of shape (p, t)
    b : ndarray of shape (t,)
    center : ndarray of shape (p,)
    with_targets : bool, default True
        False takes y = 0: the gradient is then minus the Gram matrix times W, which conjugate gradients need.
    """

    def __init__(self, W, b, center, with_targets=True):
        self.W, self.b, self.center, self.with_targets = W, b, center, with_targets

    def __call__(self, block):
        if sparse.issparse(block.X):
            return in_phases(self, block)
        total, step = None, _slab_rows(sum(self.W.shape))
        for start in range(0, len(block.y), step):
            s = slice(start, start + step)
            # Rows are shifted once for both phases.
            rows = _rows(block.X, None, s, self.center)
            partial, g = self.pointwise(
                times(rows, self.W), block.y[s], None if block.weight is None else block.weight[s]
            )
            partial = self.join(partial, [times(rows.T, g)])
            total = partial if total is None else total + partial
        return total

    # In phases; see `daskdml.objectives.panels` ----------------------------------------------------------------------

    phases = ("forward", "backward")

    def forward(self, X, columns):
        """Return ``(x - c) @ W`` of some columns."""
        W, center = self.W[columns], self.center[columns]
        if sparse.issparse(X):
            # (x - c) @ W = x @ W - c @ W: sparse rows stay sparse.
            return product(X, W, wide=True) - center @ W
        return product(X, W, shift=center, wide=True)

    def pointwise(self, raw, y, weight):
        """Return (`Slope` without sums over columns, the weighted residuals and the weights)."""
        y = _columns(y)
        weight = np.ones(len(y)) if weight is None else weight
        r = (y if self.with_targets else 0.0) - raw - self.b
        weighted = r * weight[:, None]
        partial = Slope(float(weight.sum()), weighted.sum(axis=0), None, (weighted * r).sum(axis=0), None)
        return partial, np.column_stack([weighted, weight])

    def backward(self, X, columns, g):
        """Return ``(x - c)^T @ g`` of some columns."""
        if sparse.issparse(X):
            return product_transposed(X, g, wide=True) - np.outer(self.center[columns], g.sum(axis=0))
        return product_transposed(X, g, shift=self.center[columns], wide=True)

    def join(self, partial, pieces):
        """Return the `Slope` with its sums over columns."""
        sums = np.concatenate(pieces)
        return partial._replace(gradient=sums[:, :-1], total=sums[:, -1])


def _columns(y):
    y = np.asarray(y, dtype=np.float64)
    return y[:, None] if y.ndim == 1 else y


def _slab_rows(width):
    """Rows multiplied at once: few enough for the cache, enough that adding the product costs nothing beside it."""
    return int(min(max(width, 512), 4096))


def _rows(X, y, s, center, buffer=None):
    """Return rows of (X, y) minus the center, in float64, as the first rows of a buffer where one is given."""
    panels = X if isinstance(X, tuple) else (X,)
    width = sum(panel.shape[1] for panel in panels)
    n = panels[0][s].shape[0]
    out = np.empty((n, width + (0 if y is None else y.shape[1]))) if buffer is None else buffer[:n]
    start = 0
    for panel in panels:
        stop = start + panel.shape[1]
        rows = panel[s]
        rows = rows.toarray() if sparse.issparse(rows) else rows.get() if hasattr(rows, "get") else rows
        np.subtract(rows, center[start:stop], out=out[:, start:stop])
        start = stop
    if y is not None:
        np.subtract(y[s], center[width:], out=out[:, width:])
    return out
