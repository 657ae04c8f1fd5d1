"""Moments of columns, and the coordinates that they choose: centred and scaled, for solvers to find their way."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from daskdml.kernels.csr import squared_column_sums
from daskdml.objectives.panels import in_phases
from daskdml.utils.portable import portable


def coordinates(moments, layout, dtype, may_shift):
    """Return (center, deviation, how many deviations the farthest mean is from zero)."""
    mean, variance = moments.mean, moments.square / max(moments.n, 1)
    if layout == "csr" or not may_shift:
        size = np.sqrt(variance + (0 if layout == "csr" else mean**2))
        return None, size, 0.0
    # Kernels subtract it in the rows' own precision; what is added back to the intercept must be the same number.
    mean = mean.astype(dtype or np.float64).astype(np.float64)
    deviation = np.sqrt(variance)
    # A column that varies by rounding only is constant: dividing by its deviation would blow the rounding up.
    deviation[deviation <= 1e-12 * np.abs(mean)] = 0.0
    varies = deviation > 0
    far = np.max(np.abs(mean[varies]) / deviation[varies], initial=0.0)
    return mean, deviation, far


@portable
class _Moments(NamedTuple):
    """Column sums and centred squares of some rows (raw squares for CSR); they merge by Chan's update."""

    n: int
    total: np.ndarray
    square: np.ndarray

    @property
    def mean(self):
        return self.total / max(self.n, 1)

    @classmethod
    def of(cls, X):
        return cls(X.shape[0], *_sums_and_squares(X))

    def __add__(self, other):
        n = self.n + other.n
        if self.n == 0 or other.n == 0 or not self.square.size:
            return _Moments(n, self.total + other.total, self.square + other.square)
        delta = other.mean - self.mean
        between = delta**2 * (self.n * other.n / n)
        return _Moments(n, self.total + other.total, self.square + other.square + between)


class _ColumnMoments:
    """The `_Moments` of one block; each column for itself, see `daskdml.objectives.panels`."""

    phases = ("backward",)

    def __call__(self, block):
        return in_phases(self, block)

    def backward(self, X, columns, g):
        return _Moments.of(X)

    def join(self, partial, pieces):
        _, totals, squares = zip(*pieces)
        return _Moments(pieces[0].n, np.concatenate(totals), np.concatenate(squares))


column_moments = _ColumnMoments()


def _sums_and_squares(X):
    if sparse.issparse(X):
        # Squares about zero: sparse columns are scaled, not shifted. A mean of zero makes the merge add nothing.
        return np.zeros(X.shape[1]) + _nan_if_not_finite(X), squared_column_sums(X, np.ones(X.shape[0]))
    if hasattr(X, "get"):
        X = X.get()
    total = np.zeros(X.shape[1])
    square = np.zeros(X.shape[1])
    if X.shape[0] == 0:
        return total, square
    with np.errstate(all="ignore"):
        about = X[0].astype(np.float64)
        for start in range(0, X.shape[0], 4096):
            rows = X[start : start + 4096] - about
            total += rows.sum(axis=0)
            square += np.einsum("ij,ij->j", rows, rows)
        square -= total**2 / X.shape[0]
    return total + about * X.shape[0], np.maximum(square, 0.0)


def _nan_if_not_finite(X):
    return 0.0 if np.isfinite(X.data.sum()) else np.nan
