"""One-pass statistics of columns that merge: moments and counts of values.

Conventions. A statistic of some rows is a NamedTuple of plain arrays; ``merge`` of two of them is the statistic of the
rows of both. Merging is commutative and has the statistic of no rows as neutral element, so that blocks may be empty.
A value is *missing* when it is None, NaN, NaT or ``pandas.NA``; missing values take no part in moments.
"""

import numbers
from typing import NamedTuple

import numpy as np
from scipy import sparse

_INFINITE = "Input X contains infinity or a value too large for {!r}."


class Moments(NamedTuple):
    """Weight, mean and centred second moment of each column.

    ``weight`` counts the present values (int64), or sums their weights (float64). The mean is ``shift + offset``, where
    ``shift`` is a value of the column: two means that agree in many digits keep the digits they differ in. ``m2`` is
    :math:`\\sum_i w_i (x_i - \\bar x)^2`, exactly zero for a column whose present values are all equal.
    """

    weight: np.ndarray
    shift: np.ndarray
    offset: np.ndarray
    m2: np.ndarray

    def merge(self, other):
        """Return the moments of the rows of both (Chan, Golub, LeVeque 1983, eq. 1.5)."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros(len(weight)), where=weight > 0)
        shift = np.where(self.weight > 0, self.shift, other.shift)
        offset = np.where(self.weight > 0, self.offset, other.offset)
        delta = np.where(other.weight > 0, (other.shift - shift) + (other.offset - offset), 0.0)
        m2 = self.m2 + other.m2 + delta * delta * (self.weight * share)
        return Moments(weight, shift, offset + delta * share, m2)

    @property
    def mean(self):
        """Mean of each column; 0 where no value is present."""
        return self.shift + self.offset

    @property
    def variance(self):
        """Variance of each column with divisor ``weight``; NaN where no value is present."""
        return np.divide(self.m2, self.weight, out=np.full(len(self.m2), np.nan), where=self.weight > 0)


def column_moments(X, weight=None):
    """Compute the moments of the columns of a block.

    Values are shifted by one present value of their column and then by the mean of what is left, so that a mean of a
    million standard deviations costs no digits and a constant column has a second moment of exactly zero.

    Parameters
    ----------
    X : ndarray or CSR / CSC matrix of float32 or float64, shape (n, p)
        NaN is missing.
    weight : ndarray of float, shape (n,), optional

    Returns
    -------
    Moments
        In float64.

    Notes
    -----
    Memory: one float64 copy and one mask of a dense block; three vectors of the stored values of a sparse one.

    Examples
    --------
    >>> column_moments(np.array([[1.0], [3.0], [np.nan]])).variance
    array([1.])
    """
    if sparse.issparse(X):
        return _sparse_moments(X, weight)
    n, p = X.shape
    if n == 0:
        return Moments(np.zeros(p, np.int64 if weight is None else np.float64), *np.zeros((3, p)))
    missing = np.isnan(X)
    holes = bool(missing.any())
    first = missing.argmin(axis=0) if holes else np.zeros(p, np.intp)
    shift = np.nan_to_num(X[first, np.arange(p)].astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    total = n - np.count_nonzero(missing, axis=0) if weight is None else weight @ ~missing
    with np.errstate(invalid="ignore", over="ignore"):
        centred = X - shift
        if holes:
            centred[missing] = 0.0
        mean = _divide(_total(centred, weight), total)
        centred -= mean
        if holes:
            centred[missing] = 0.0
        left = _divide(_total(centred, weight), total)
        squares = "ij,ij->j" if weight is None else "ij,ij,i->j"
        m2 = np.einsum(squares, centred, centred, *(() if weight is None else (weight,)))
        # What rounding left in the mean comes off again: the corrected two-pass algorithm of the same paper.
        return Moments(total, shift, mean + left, np.maximum(m2 - total * left * left, 0.0))


def _total(X, weight):
    return X.sum(axis=0) if weight is None else weight @ X


def _divide(total, weight):
    return np.divide(total, weight, out=np.zeros(len(total)), where=weight > 0)


def _sparse_moments(X, weight):
    """Moments where all values that are not stored are zero."""
    n, p = X.shape
    X = X.tocsr()
    rows_weight = np.ones(n) if weight is None else weight
    stored_weight = np.repeat(rows_weight, np.diff(X.indptr))
    missing = np.isnan(X.data)
    values = np.where(missing, 0.0, X.data.astype(np.float64))
    stored_weight[missing] = 0.0
    column = X.indices
    absent = np.bincount(column[missing], weights=np.repeat(rows_weight, np.diff(X.indptr))[missing], minlength=p)
    total = rows_weight.sum() - absent
    with np.errstate(invalid="ignore", over="ignore"):
        mean = _divide(np.bincount(column, weights=stored_weight * values, minlength=p), total)
        values -= mean[column]
        m2 = np.bincount(column, weights=stored_weight * values * values, minlength=p)
        stored = np.bincount(column, weights=stored_weight, minlength=p)
        m2 += np.maximum(total - stored, 0.0) * mean * mean
    return Moments(np.rint(total).astype(np.int64) if weight is None else total, np.zeros(p), mean, m2)


def block_moments(block):
    """Compute the moments of one block, refusing infinite values; see `column_moments`."""
    X = joined(block.X)
    found = column_moments(X, block.weight)
    if not np.isfinite(found.mean + found.m2).all():
        refuse_infinite(X, block)
    return found


def joined(X):
    """Join a block's column panels; a block of one panel is returned as it is."""
    if not isinstance(X, tuple):
        return X
    return sparse.hstack(X, format="csr") if any(map(sparse.issparse, X)) else np.hstack(X)


def check_no_infinity(X):
    """Raise scikit-learn's sentence when a matrix of floats holds an infinite value; NaN passes."""
    values = X.data if sparse.issparse(X) else X
    # A finite sum proves finite values at the price of one read without a temporary; all else only asks for the test.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()) or not np.isinf(values).any():
            return
    raise ValueError(_INFINITE.format(X.dtype))


def refuse_infinite(X, block):
    """Raise ValueError, with block and row, when the matrix X of a block holds an infinite value.

    With NaN allowed, the run's own search for non-finite values would find NaN first.
    """
    infinite = np.isinf(X.data if sparse.issparse(X) else X)
    if infinite.any():
        at = int(infinite.argmax())
        row = np.searchsorted(X.indptr, at, side="right") - 1 if sparse.issparse(X) else at // X.shape[1]
        # The pass that also finds out how long the chunks are cannot number rows.
        where = "" if block.start is None else f" First in row {block.start + int(row)} (block {block.index})."
        raise ValueError(_INFINITE.format(X.dtype) + where)


class ValueCounts(NamedTuple):
    """How often each value occurs in a column.

    ``values`` are the distinct present values in no particular order, ``counts`` their int64 counts; ``n_none`` and
    ``n_nan`` count None and the other missing values. With more than `MAX_DISTINCT` values, ``overflow`` is true and
    ``values`` are no longer kept.
    """

    values: np.ndarray
    counts: np.ndarray
    n_none: int
    n_nan: int
    overflow: bool = False

    @property
    def n_rows(self):
        """Number of rows counted; meaningless after an overflow."""
        return int(self.counts.sum()) + self.n_none + self.n_nan

    def merge(self, other, max_distinct=None):
        """Return the counts of the rows of both."""
        n_none, n_nan = self.n_none + other.n_none, self.n_nan + other.n_nan
        if self.overflow or other.overflow:
            return ValueCounts(self.values[:0], self.counts[:0], n_none, n_nan, True)
        codes, values = factorize(_concatenate(self.values, other.values))
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, codes, np.concatenate([self.counts, other.counts]))
        if max_distinct is not None and len(values) > max_distinct:
            return ValueCounts(values[:0], counts[:0], n_none, n_nan, True)
        return ValueCounts(values, counts, n_none, n_nan)


def count_values(column, max_distinct=None):
    """Count the values of one column of a chunk.

    Parameters
    ----------
    column : ndarray or pandas.Series, shape (n,)
    max_distinct : int, optional
        With more distinct values than this the counts are given up; see `ValueCounts`.

    Returns
    -------
    ValueCounts

    Examples
    --------
    >>> count_values(np.array(["b", "a", "b", None], dtype=object))[1:3]
    (array([2, 1]), 1)
    """
    codes, values = factorize(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(values)).astype(np.int64)
    missing = codes < 0
    n_missing = int(np.count_nonzero(missing))
    n_none = sum(value is None for value in np.asarray(column)[missing]) if n_missing and _is_object(column) else 0
    if max_distinct is not None and len(values) > max_distinct:
        return ValueCounts(values[:0], counts[:0], n_none, n_missing - n_none, True)
    return ValueCounts(values, counts, n_none, n_missing - n_none)


def merge_columns(left, right):
    """Merge two lists of statistics, column by column."""
    return [one.merge(other) for one, other in zip(left, right)]


def factorize(column):
    """Number the distinct values of a column in order of first appearance.

    Returns
    -------
    codes : ndarray of int, shape (n,)
        The number of each row's value, -1 where it is missing.
    values : ndarray
        The distinct values; strings that are not NumPy's fixed-width ones are objects.
    """
    import pandas as pd

    try:
        codes, values = pd.factorize(column)
    except TypeError as error:
        raise TypeError(
            "Each value in the argument must be a string or a number to be counted as a category, got one that is "
            f"neither ({error}); turn such values into strings."
        ) from None
    values = np.asarray(values)
    if getattr(column.dtype, "kind", "O") in "US" and values.dtype != column.dtype:
        values = values.astype(column.dtype)
    return codes, values


def locate(column, categories):
    """Find each row's value in a list of distinct categories.

    Parameters
    ----------
    column : ndarray or pandas.Series, shape (n,)
    categories : ndarray
        May end with None, NaN or both.

    Returns
    -------
    ndarray of int64, shape (n,)
        Index into `categories`; -1 where the value is not among them.
    """
    known = categories.tolist()
    none = next((i for i, one in enumerate(known) if one is None), -1)
    nan = next((i for i, one in enumerate(known) if one is not None and one != one), -1)
    position = {one: i for i, one in enumerate(known)}
    codes, values = factorize(column)
    # The last entry is what code -1, a missing value, finds.
    table = np.array([position.get(one, -1) for one in values.tolist()] + [nan], np.int64)
    found = table[codes]
    if none != nan and _is_object(column):
        rows = np.flatnonzero(codes < 0)
        found[rows[[one is None for one in np.asarray(column)[rows]]]] = none
    return found


def columns_of(chunk):
    """Split one in-memory chunk of any kind into columns for `count_values` and `locate`.

    Parameters
    ----------
    chunk : ndarray, pandas.DataFrame or polars.DataFrame

    Returns
    -------
    list of ndarray or pandas.Series
        Series where pandas has the faster form (categories, strings), arrays otherwise.
    """
    if isinstance(chunk, np.ndarray):
        if chunk.dtype == np.float16:
            chunk = chunk.astype(np.float32)
        return [chunk[:, j] for j in range(chunk.shape[1])]
    if not hasattr(chunk, "iloc"):
        chunk = chunk.to_pandas()
    return [_plain(chunk.iloc[:, j]) for j in range(chunk.shape[1])]


def _plain(series):
    """Unwrap a pandas column of numbers, so that whether some partition has a hole does not change its dtype."""
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return series.to_numpy()
    if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        if isinstance(dtype, pd.CategoricalDtype):
            return series
        if series.isna().any():
            return series.to_numpy(dtype=np.float64, na_value=np.nan)
        return series.to_numpy(dtype=getattr(dtype, "numpy_dtype", np.float64))
    return series


def is_nan(value):
    """Tell whether a scalar is NaN or `pandas.NA`; importing nothing."""
    return type(value).__name__ == "NAType" or (isinstance(value, numbers.Real) and value != value)


def _is_object(column):
    return column.dtype == object


def _concatenate(left, right):
    if len(left) == 0 or len(right) == 0:
        return right if len(left) == 0 else left
    if left.dtype.kind != right.dtype.kind and not {left.dtype.kind, right.dtype.kind} <= set("iufb"):
        left, right = left.astype(object), right.astype(object)
    return np.concatenate([left, right])
