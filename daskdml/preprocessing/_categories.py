"""Choices that the encoders share: the order of categories, and which of them are frequent."""

import numbers

import numpy as np


def sorted_categories(found):
    """Sort the values of a column as scikit-learn does: ascending, then None, then NaN.

    Parameters
    ----------
    found : daskdml.data.statistics.ValueCounts

    Returns
    -------
    categories : ndarray
    counts : ndarray of int64

    Raises
    ------
    TypeError
        When the values cannot be compared, as strings and numbers.
    """
    values = found.values
    try:
        order = np.argsort(values, kind="stable") if len(values) else np.empty(0, np.intp)
    except TypeError:
        kinds = sorted({type(value).__qualname__ for value in values})
        raise TypeError(
            f"Encoders require their input argument must be uniformly strings or numbers. Got {kinds}"
        ) from None
    missing, n_missing = [], []
    for value, count in ((None, found.n_none), (np.nan, found.n_nan)):
        if count:
            missing.append(value)
            n_missing.append(count)
    if not missing:
        return values[order], found.counts[order]
    dtype = values.dtype
    if dtype.kind in "iub":
        dtype = np.dtype(np.float64 if len(values) and dtype.kind != "b" else object)
    tail = np.array(missing, dtype=object if None in missing else dtype if dtype.kind == "f" else object)
    head = values[order].astype(tail.dtype)
    return np.concatenate([head, tail]), np.concatenate([found.counts[order], np.array(n_missing, np.int64)])


def keep_frequent(counts, n_rows, min_frequency, max_categories):
    """Choose the infrequent categories by scikit-learn's rule.

    Parameters
    ----------
    counts : ndarray of int, shape (n_categories,)
    n_rows : int
    min_frequency : int, float or None
        Fewer rows, or a smaller share of ``n_rows``, make a category infrequent.
    max_categories : int or None
        The rarest become infrequent until this many columns are left, the infrequent one included; of equally rare
        categories the first.

    Returns
    -------
    ndarray of int
        Indices of the infrequent categories, ascending.
    """
    if min_frequency is None:
        infrequent = np.zeros(len(counts), bool)
    else:
        least = min_frequency if isinstance(min_frequency, numbers.Integral) else min_frequency * n_rows
        infrequent = counts < least
    n_columns = len(counts) - np.count_nonzero(infrequent) + 1
    if max_categories is not None and max_categories < n_columns:
        rarest = np.argsort(counts, kind="stable")
        infrequent[rarest[: len(counts) - (max_categories - 1)]] = True
    return np.flatnonzero(infrequent)
