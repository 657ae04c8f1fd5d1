"""Thresholds between the bins of one feature, as scikit-learn chooses them."""

import numpy as np

ALMOST_INF = 1e300  # scikit-learn's: what a threshold is at most


def distinct(column, limit):
    """Return the distinct values of a column, NaN left out, in ascending order; None if there are more than a limit.

    A few rows usually tell that there are many: a sort of all of them is spared then.
    """
    head = np.unique(column[: 4 * limit])
    if np.count_nonzero(head == head) > limit:
        return None
    values = np.unique(column)
    values = values[values == values]
    return values.astype(np.float64) if len(values) <= limit else None


def thresholds_between(values):
    """Return the midpoints of ascending distinct values."""
    values = np.asarray(values, dtype=np.float64)
    return _as_thresholds(_middle(values[:-1], values[1:]))


def _as_thresholds(found):
    return np.clip(np.unique(found), None, ALMOST_INF) + 0.0  # which makes -0.0 the 0.0 that sparse rows do not store


def _middle(low, high):
    """Return the means of pairs of float64; of -inf and inf it is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle = (low + high) / 2
        # Halves first only where the sum overflows: of tiny numbers they are not exact.
        middle = np.where(np.isfinite(middle), middle, low / 2 + high / 2)
    return np.where(np.isnan(middle), 0.0, middle)


def thresholds_of_sample(column, max_bins, weight=None):
    """Return the thresholds of equal numbers of rows: scikit-learn's, by averaged inverted distribution function.

    Parameters
    ----------
    column : ndarray of shape (n,)
    max_bins : int
    weight : ndarray of shape (n,), optional
    """
    present = column == column
    if weight is None:
        return thresholds_of_sorted(np.sort(column[present]), max_bins)
    present &= weight > 0
    weight, column = weight[present], column[present]
    if len(column) == 0:
        return np.empty(0)
    order = np.argsort(column, kind="stable")
    return _as_thresholds(_weighted_quantiles(column[order].astype(np.float64), weight[order], _shares(max_bins)))


def thresholds_of_sorted(column, max_bins):
    """Return the thresholds of equal numbers of rows of a column in ascending order without NaN."""
    if len(column) == 0:
        return np.empty(0)
    return _as_thresholds(_quantiles(column, _shares(max_bins)))


def _shares(max_bins):
    return np.arange(1, max_bins) / max_bins


def _quantiles(column, share):
    """Return quantiles of ascending values; the mean of two where the share falls between them."""
    place = share * len(column)
    below = np.clip(np.ceil(place - 1e-9 * len(column)).astype(np.int64) - 1, 0, len(column) - 1)
    between = np.abs(place - np.rint(place)) <= 1e-9 * len(column)
    above = np.where(between, np.minimum(below + 1, len(column) - 1), below)
    return _middle(column[below].astype(np.float64), column[above].astype(np.float64))


def _weighted_quantiles(column, weight, share):
    cumulative = np.cumsum(weight)
    place = share * cumulative[-1]
    slack = 1e-9 * cumulative[-1]
    below = np.minimum(np.searchsorted(cumulative, place - slack), len(column) - 1)
    between = np.abs(cumulative[below] - place) <= slack
    above = np.where(between, np.minimum(below + 1, len(column) - 1), below)
    return _middle(column[below], column[above])
