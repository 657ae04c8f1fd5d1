"""Validation rows that a user gave: every rank has them all, and scores a share of them."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import exact, loss_rows
from daskdml.trees.predictor import Ensemble
from daskdml.utils.portable import portable


@portable
class GivenRows(NamedTuple):
    """Rows that only scores are taken of.

    Attributes
    ----------
    bins : ndarray of uint8, shape (n, row_bytes(p))
    y : ndarray of float64, shape (n,)
    weight : ndarray of float64, shape (n,), or None
    """

    bins: Any
    y: Any
    weight: Any


class WatchedRows:
    """The share of a rank, with raw predictions that follow the trees.

    Parameters
    ----------
    given : GivenRows
    rank, size : int
    n_outputs : int
    baseline : ndarray of float64, shape (n_outputs,)
    """

    def __init__(self, given, rank, size, n_outputs, baseline):
        n = len(given.y)
        own = slice(n * rank // size, n * (rank + 1) // size)
        self.bins, self.y, self.first = given.bins[own], given.y[own], own.start
        self.weight = np.ones(len(self.y)) if given.weight is None else given.weight[own]
        self.raw = np.empty((len(self.y), n_outputs))
        self.raw[:] = baseline
        self.n_outputs, self._n_seen = n_outputs, 0

    def follow(self, trees):
        """Add what iterations that have come since say of the rows."""
        if len(trees) > self._n_seen and len(self.y):
            new = Ensemble(trees[self._n_seen :], self.n_outputs, np.zeros(self.n_outputs))
            new.add_binned(self.bins, self.raw)
        self._n_seen = len(trees)

    def sums(self, loss):
        """Return exact sums of loss and weight."""
        raw = self.raw[:, 0] if self.n_outputs == 1 else self.raw
        values = loss_rows.losses(np.ascontiguousarray(raw), self.y, loss) * self.weight
        if not np.isfinite(values).all():
            raise ValueError(
                f"The {loss.name} loss of X_val is not finite: divide y and y_val, or the weights, by their size."
            )
        return exact.exact_sum(values), exact.exact_sum(self.weight)
