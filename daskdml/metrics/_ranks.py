"""Scores as sorted cells, and the area under the ROC curve of merged cells.

A score becomes a 64-bit integer that sorts as it does (`score_keys`). A block keeps its distinct (key, label) pairs
with their weights, sorted; two blocks merge by sorting again. Only the order of scores matters to the curve, so nothing
is lost: the merged cells are the exact curve.

With a limit on the number of cells, the lowest ``level`` bits of all keys are dropped: the fewest that meet the limit.
That level depends on the set of scores alone, because dropping bits never makes more distinct keys and a part of the
scores never has more than the whole. So the result is the same for any chunking and any order of merging.
"""

from dataclasses import dataclass

import numpy as np


def score_keys(scores):
    """Map floats to uint64 keys that sort as the floats do and are equal only if they are equal.

    Cells of keys that share their high bits are narrow near 0 (as floats are) and, by reflection, near 1: probabilities
    of a common class crowd there.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        Finite; scores above 2^970 count as equal, since reflection needs the room of their keys.

    Returns
    -------
    ndarray of uint64, shape (n,)

    Examples
    --------
    >>> keys = score_keys(np.array([-2.0, 0.0, 0.3, 0.9, 1.0, 5.0]))
    >>> bool((keys[1:] > keys[:-1]).all())
    True
    """
    scores = np.asarray(scores, dtype=np.float64) + 0.0  # -0.0 becomes 0.0
    keys = _float_keys(scores)
    # From one half to one: count down from the key of 1 - s, which is exact there and at least 2^-53, or 0 at one.
    upper = (scores > 0.5) & (scores < 1)
    keys[upper] = _HALF + (_HALF - _float_keys(1 - scores[upper]))
    above = scores >= 1
    keys[above] = np.minimum(keys[above], _LAST - _SHIFT) + _SHIFT
    return keys


def _float_keys(values):
    bits = values.view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


_SIGN = np.uint64(1 << 63)
_LAST = np.uint64(2**64 - 1)
_HALF, _ONE, _LEAST = _float_keys(np.array([0.5, 1.0, 2.0**-53]))
_SHIFT = _HALF + (_HALF - _LEAST) + np.uint64(1) - _ONE  # key of one = one more than the last key below one


@dataclass(frozen=True)
class Cells:
    """Distinct (key, code) pairs with their weights, sorted; keys have lost ``level`` low bits."""

    keys: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    level: int

    @classmethod
    def of(cls, scores, codes, weights, bins):
        """Make the cells of one block's scores; rows of weight zero are left out, as they move nothing."""
        weights = np.ones(len(scores)) if weights is None else weights
        held = weights != 0
        if not held.all():
            scores, codes, weights = scores[held], codes[held], weights[held]
        return cls(score_keys(scores), codes.astype(np.int32), weights, 0)._sorted()._coarsened(bins)

    def merge(self, other, bins):
        """Add two blocks' cells."""
        level = max(self.level, other.level)
        pair = (self._at(level), other._at(level))
        keys, codes, weights = (
            np.concatenate([getattr(one, name) for one in pair]) for name in ("keys", "codes", "weights")
        )
        return Cells(keys, codes, weights, level)._sorted()._coarsened(bins)

    def recoded(self, codes):
        """Rename codes: code ``c`` becomes ``codes[c]``."""
        return Cells(self.keys, codes[self.codes].astype(np.int32), self.weights, self.level)

    @property
    def nbytes(self):
        return self.keys.nbytes + self.codes.nbytes + self.weights.nbytes

    def _at(self, level):
        return Cells(self.keys >> np.uint64(level - self.level), self.codes, self.weights, level)

    def _sorted(self):
        if len(self.keys) == 0:
            return self
        order = np.lexsort((self.codes, self.keys))
        keys, codes = self.keys[order], self.codes[order]
        first = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (codes[1:] != codes[:-1])])
        return Cells(keys[first], codes[first], np.add.reduceat(self.weights[order], first), self.level)

    def _coarsened(self, bins):
        if bins is None or _n_distinct(self.keys, 0) <= bins:
            return self
        low, high = 0, 63  # low has too many distinct keys; 63 leaves at most two
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _n_distinct(self.keys, middle) <= bins else (middle, high)
        return self._at(self.level + high)._sorted()


def _n_distinct(keys, level):
    shifted = keys >> np.uint64(level)
    return len(keys) and 1 + np.count_nonzero(shifted[1:] != shifted[:-1])


def area_under_curve(cells, positive, negative, max_fpr=None):
    """Area under the ROC curve of two groups of rows, and how far it can be off.

    Within a cell the curve is drawn as a straight line: rows of equal score count half, as they should; rows that only
    share a cell after bits were dropped could count anything from none to all, which is what the bound adds up:
    sum_cells positive * negative / (2 P N).

    Parameters
    ----------
    cells : Cells
    positive, negative : ndarray of bool, shape (n_codes,)
        Which codes belong to either group; rows of neither are left out.
    max_fpr : float or None
        Area up to this false positive rate, standardised by McClish to 0.5 for no skill and 1 for perfect.

    Returns
    -------
    area, bound : float
        nan and 0 if either group has no weight.
    """
    if len(cells.keys) == 0:
        return np.nan, 0.0
    first = np.flatnonzero(np.r_[True, cells.keys[1:] != cells.keys[:-1]])
    rates = []
    for group in (negative, positive):
        held = np.add.reduceat(np.where(group[cells.codes], cells.weights, 0.0), first)[::-1]
        total = np.cumsum(held)
        if not total[-1] > 0:
            return np.nan, 0.0
        rates.append(np.r_[0.0, total / total[-1]])
    fpr, tpr = rates
    limited = max_fpr is not None and max_fpr < 1
    if limited:
        stop = np.searchsorted(fpr, max_fpr, "right")
        tpr = np.r_[tpr[:stop], np.interp(max_fpr, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])]
        # The cell that max_fpr cuts keeps its whole height in the bound: its curve may rise before the cut.
        heights = np.r_[np.diff(tpr[:-1]), rates[1][stop] - rates[1][stop - 1]]
        fpr = np.r_[fpr[:stop], max_fpr]
    else:
        heights = np.diff(tpr)
    area = np.trapezoid(tpr, fpr)
    bound = 0.0 if cells.level == 0 else np.sum(np.diff(fpr) * heights)
    if limited:
        least, most = 0.5 * max_fpr**2, max_fpr
        # A cut cell's line may lie anywhere in its rectangle, so the whole of it, not half, bounds the error.
        return 0.5 * (1 + (area - least) / (most - least)), 0.5 * bound / (most - least)
    return area, 0.5 * bound
