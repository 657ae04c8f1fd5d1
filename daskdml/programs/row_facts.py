"""What boosting and forests must know of all rows beforehand, from one pass over their bins and weights."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.trees.binning import MISSING
from daskdml.trees.boosting import MOST_TIMES, is_held_out
from daskdml.utils.memory import Pages


class RowFacts(NamedTuple):
    """Facts of some rows, which add up.

    Attributes
    ----------
    has_missing : ndarray of bool, shape (p,)
        Which features miss values in some row.
    most_weight : float
    counts : bool
        Whether weights may say how often a row counts: they are integers that an entry can hold.
    n_counted : int
        Rows, as often as they count.
    trains, validates : bool
        Whether some row that trees are grown on, and some that is held out, has a weight above 0.
    """

    has_missing: Any
    most_weight: float
    counts: bool
    n_counted: int
    trains: bool
    validates: bool

    def __add__(self, other):
        return RowFacts(
            self.has_missing | other.has_missing, max(self.most_weight, other.most_weight),
            self.counts and other.counts, self.n_counted + other.n_counted, self.trains or other.trains,
            self.validates or other.validates,
        )  # fmt: skip


class FactsOfRows(NamedTuple):
    """The function of a block of bins that returns its `RowFacts`.

    Attributes
    ----------
    n_features : int
    class_weight : ndarray of shape (n_classes,), or None
    seed : int
    validation : float or None
        See `daskdml.trees.boosting.Boosting`.
    first : ndarray of int64, shape (n_features + 1,), or None
        Where the bins of each feature begin, for blocks of codes; see `daskdml.kernels.stored`.
    """

    n_features: int
    class_weight: Any
    seed: int
    validation: Any
    first: Any = None

    def for_columns(self, columns):
        """Return the same of a slice of the features."""
        return self._replace(n_features=columns.stop - columns.start)

    @staticmethod
    def join(parts):
        """Return the `RowFacts` of all features from those of slices, of the same rows."""
        return parts[0]._replace(has_missing=np.concatenate([part.has_missing for part in parts]))

    def __call__(self, block):
        n, weight = block.n_rows, block.weight
        given = np.ones(n) if weight is None else weight
        most = float(given.max(initial=0.0))
        counts = weight is None or (most <= MOST_TIMES and bool((given == np.rint(given)).all()))
        is_held = np.zeros(n, bool)
        if self.validation is not None:
            is_held = is_held_out(self.seed, block.start, n, self.validation)
        has_weight = given > 0
        if self.class_weight is not None:
            has_weight &= self.class_weight[block.y.astype(np.intp)] > 0
        return RowFacts(
            self._has_missing(block.X), most, counts, int(given.sum()) if counts else 0,
            bool((has_weight & ~is_held).any()), bool((has_weight & is_held).any()),
        )  # fmt: skip

    def _has_missing(self, X):
        if not hasattr(X, "indptr"):
            with Pages(X):
                return (X[:, : self.n_features] == MISSING).any(axis=0)
        found = np.zeros(self.n_features, bool)
        found[X.indices[X.data == (self.first[1:] - 1)[X.indices]]] = True
        return found
