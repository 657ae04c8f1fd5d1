"""Where the bins of each feature end: from all distinct values where they are few, else from a sample's quantiles.

The sample is drawn by row number (`daskdml.runtime.Run.pilot`), and distinct values are collected from all rows: sets
and integers, which add up to the same in any order. So bins depend on the rows alone, not on chunks or workers.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from daskdml.kernels import binning, stored
from daskdml.trees.thresholds import distinct, thresholds_between, thresholds_of_sample, thresholds_of_sorted
from daskdml.utils.portable import portable

SAMPLE_ROWS = 200_000  # as scikit-learn
SAMPLE_BYTES = 256 << 20
MISSING = binning.MISSING
# Features for each value that a row stores, from which on codes of stored values are kept and not all bins: where both
# take as long (400,000 rows, 28 values stored of 84, classes that follow a fifth of the columns).
LEAST_SPARSITY = 3


def sample_rows(n_features, dtype):
    """Return how many rows to draw: 200,000, or as many as 256 MB hold."""
    row = max(1, n_features) * np.dtype(dtype or np.float64).itemsize
    return int(min(SAMPLE_ROWS, max(SAMPLE_BYTES // row, 1000)))


@portable
class Bins(NamedTuple):
    """Where the bins of each feature end.

    Attributes
    ----------
    thresholds : tuple of ndarray of float64
        Of each feature, ascending: x has bin b if exactly b of them are below it. For categories the known codes.
    is_categorical : ndarray of bool, shape (p,)
    max_bins : int
    values : tuple of (ndarray or None), or None
        The one value of each bin, of features all of whose values are known; None where nobody keeps them.
    n_stored : float or None
        Values that a row of CSR stores, in the mean of a sample; None for dense rows.
    """

    thresholds: Any
    is_categorical: Any
    max_bins: int
    values: Any = None
    n_stored: Any = None

    def of(self, columns):
        """Return the bins of a slice of the features."""
        values = None if self.values is None else self.values[columns]
        return self._replace(
            thresholds=self.thresholds[columns], is_categorical=self.is_categorical[columns], values=values
        )

    def __repr__(self):
        # Dask writes what it is to call into its log, or would: this needs 80 ms for 28 features in full.
        return f"Bins of {len(self.thresholds)} features"

    @property
    def n_bins(self):
        """Bins of each feature, the one of missing values left out; an ndarray of int64."""
        n = [len(t) + (not c) for t, c in zip(self.thresholds, self.is_categorical)]
        return np.array(n, dtype=np.int64)

    @property
    def first(self):
        """Where the bins of each feature begin in a histogram, that of missing values last; an ndarray (p + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_bins + 1)])

    @property
    def zero(self):
        """The bin of zero of each feature of numbers, an ndarray (p,) of uint8."""
        return np.array([np.count_nonzero(t < 0) for t in self.thresholds], np.uint8)

    def kept_as(self, encode, layout):
        """Return how trees keep rows: all bins, or codes of stored values where these take less time.

        Parameters
        ----------
        encode : callable
            Makes a matrix of rows.
        layout : str
            Of the rows.

        Returns
        -------
        Kept
        """
        p = len(self.thresholds)
        if layout != "csr" or self.n_stored is None or self.is_categorical.any() or self.n_stored * LEAST_SPARSITY > p:
            fn = BinRows(self, encode)
            return Kept(fn, fn.n_columns, np.dtype(np.uint8))
        return Kept(StoreRows(self, encode), p, stored.code_type(self.first[-1]), self.n_stored)

    def edges(self, dtype, width=binning.N_BINS):
        """Return what kernels search: an ndarray (p, width) of a dtype, filled up with inf.

        For float32 rounded down, which no float32 can tell from the threshold itself.
        """
        table = np.full((len(self.thresholds), width), np.inf, dtype=dtype)
        counts = np.where(self.is_categorical, 0, [len(t) for t in self.thresholds])
        is_taken = np.arange(width) < counts[:, None]
        numbers = [t for t, c in zip(self.thresholds, self.is_categorical) if not c]
        table[is_taken] = round_down(np.concatenate([np.empty(0), *numbers]), dtype)
        return table


def round_down(thresholds, dtype):
    """Return the largest numbers of a dtype that are not above thresholds."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(thresholds).astype(dtype)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.array(-np.inf, dtype)), rounded).astype(dtype)


class Values(NamedTuple):
    """Distinct values of features: sets that add up.

    Attributes
    ----------
    found : tuple of ndarray or None
        Of each feature, ascending, without NaN; None once they are more than a limit, or where nobody asks.
    limit : int
    """

    found: tuple
    limit: int

    def __add__(self, other):
        pairs = zip(self.found, other.found)
        return Values(tuple(_union(a, b, self.limit) for a, b in pairs), self.limit)


def _union(a, b, limit):
    if a is None or b is None:
        return None
    both = a if np.array_equal(a, b) else np.union1d(a, b)
    return both if len(both) <= limit else None


class DistinctValues(NamedTuple):
    """The function of a block that returns the `Values` of some features, rows without weight left out.

    Attributes
    ----------
    wanted : tuple of ndarray or None
        Of each feature values known already, None where nobody asks.
    limit : int
    encode : callable
        Makes a matrix of the rows of a block.
    """

    wanted: tuple
    limit: int
    encode: Any

    def for_columns(self, columns):
        """Return the same of a slice of the features."""
        return self._replace(wanted=self.wanted[columns])

    @staticmethod
    def join(parts):
        """Return the `Values` of all features from those of slices."""
        return parts[0]._replace(found=sum((part.found for part in parts), ()))

    def __call__(self, block):
        X = self.encode(block.X)
        if block.weight is not None and not (block.weight > 0).all():
            X = X[block.weight > 0]
        if hasattr(X, "indptr"):
            return Values(tuple(self._of_csr(_canonical(X))), self.limit)
        columns = zip(X.T, self.wanted)
        return Values(tuple(None if known is None else self._with(known, x) for x, known in columns), self.limit)

    def _with(self, known, column):
        # Values that the sample had are told apart by a search; only others are sorted.
        at = np.minimum(np.searchsorted(known, column), max(len(known) - 1, 0))
        new = column[known[at] != column] if len(known) else column
        new = np.unique(new[new == new]).astype(np.float64)
        return _union(known, new, self.limit) if len(new) else known

    def _of_csr(self, X):
        found = list(self.wanted)
        n_known = np.array([-1 if known is None else len(known) for known in found])
        table = np.full((len(found), 1 << int(n_known.max(initial=0)).bit_length()), np.inf)
        for row, known in zip(table, found):
            if known is not None:
                row[: len(known)] = known
        places, data, indices = np.empty(X.nnz, np.int64), X.data[: X.nnz], X.indices[: X.nnz]
        places = places[: stored.find_others(data, indices, table, n_known, places)]
        places = places[np.argsort(X.indices[places], kind="stable")]
        features, starts = np.unique(X.indices[places], return_index=True)
        for f, own in zip(features, np.split(places, starts[1:])):
            found[f] = self._with(found[f], X.data[own])
        has_zero = np.bincount(indices, minlength=len(found)) < X.shape[0]
        for f in np.flatnonzero(has_zero & (n_known >= 0) & ~(table == 0).any(axis=1)):
            if found[f] is not None:
                found[f] = self._with(found[f], np.zeros(1))
        return found


def _by_columns(X):
    """Return CSR rows by columns, each value once: to look for one column in CSR costs as much as for all."""
    X = X.tocsc()
    X.sum_duplicates()
    return X


def _values_of(X, f):
    """Return the values of one column of a dense or CSC matrix; of zeros that are not stored one."""
    if not hasattr(X, "indptr"):
        return X[:, f]
    values = X.data[X.indptr[f] : X.indptr[f + 1]]
    return values if len(values) == X.shape[0] else np.append(values, X.dtype.type(0))


def column_of(X, f):
    """Return one column of a dense or CSR matrix as a dense vector."""
    if not hasattr(X, "indptr"):
        return X[:, f]
    column = np.zeros(X.shape[0], X.dtype)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    own = X.indices == f
    np.add.at(column, rows[own], X.data[own])  # an entry may stand twice
    return column


class BinRows(NamedTuple):
    """The function of rows that returns their bins, an ndarray of uint8 of `row_bytes` columns.

    Attributes
    ----------
    bins : Bins
    encode : callable
        Makes a matrix of rows.
    """

    bins: Bins
    encode: Any

    @property
    def n_columns(self):
        """Of the result."""
        return binning.row_bytes(len(self.bins.thresholds))

    def for_columns(self, columns):
        """Return the same of a slice of the features."""
        return self._replace(bins=self.bins.of(columns))

    def __call__(self, X):
        X = self.encode(X)
        out = np.zeros((X.shape[0], self.n_columns), np.uint8)
        edges = self.bins.edges(X.dtype)
        if hasattr(X, "indptr"):
            X = _canonical(X)
            binning.bin_csr(X.data, X.indices, X.indptr, edges, self.bins.zero, out)
        else:
            binning.bin_dense(X, edges, out)
        for f in np.flatnonzero(self.bins.is_categorical):
            out[:, f] = bin_codes(column_of(X, f), self.bins.thresholds[f])
        return out


class StoreRows(NamedTuple):
    """The function of rows that returns their codes: CSR of them, columns being features.

    See `daskdml.kernels.stored`: codes say where values lie in a histogram, and values in the bin of zero have none.

    Attributes
    ----------
    bins : Bins
    encode : callable
        Makes a matrix of rows.
    """

    bins: Bins
    encode: Any

    def __call__(self, X):
        X, bins = self.encode(X), self.bins
        X = _canonical(X if hasattr(X, "indptr") else sparse.csr_matrix(X))
        first = bins.first
        edges = bins.edges(X.dtype, 1 << int(np.diff(first).max(initial=1) - 1).bit_length())
        codes, features = np.empty(X.nnz, stored.code_type(first[-1])), np.empty(X.nnz, np.int32)
        indptr, zero = np.empty(X.shape[0] + 1, np.int64), bins.zero
        n = stored.bin_stored(X.data, X.indices, X.indptr, edges, first, zero, codes, features, indptr)
        if n < 0:  # the matrix says that it is in order, and is not: somebody has changed its arrays
            X = X.copy()
            X.has_sorted_indices = X.has_canonical_format = False
            X.sum_duplicates()
            n = stored.bin_stored(X.data, X.indices, X.indptr, edges, first, zero, codes, features, indptr)
        if n < X.nnz:
            codes, features = codes[:n].copy(), features[:n].copy()
        return sparse.csr_matrix((codes, features, indptr), shape=X.shape)


class Kept(NamedTuple):
    """What `daskdml.runtime.Run.replace_rows` takes.

    Attributes
    ----------
    fn : callable of rows
    n_columns : int
    dtype : numpy dtype
    n_stored : float or None
    """

    fn: Any
    n_columns: int
    dtype: Any
    n_stored: Any = None


def _canonical(X):
    """Return CSR rows with each value once, in the order of columns."""
    if X.has_canonical_format:
        return X
    X = X.copy()
    X.sum_duplicates()
    return X


def bin_codes(column, codes):
    """Return the bins of category codes; those that are not known are missing."""
    if len(codes) == 0:
        return np.full(len(column), MISSING, np.uint8)
    at = np.minimum(np.searchsorted(codes, column), len(codes) - 1)
    return np.where(codes[at] == column, at, MISSING).astype(np.uint8)


def find_bins(run, max_bins, is_categorical, encode, seed, names=None, categories=None, keeps_values=False):
    """Choose the bins of all features.

    Parameters
    ----------
    run : daskdml.runtime Run
    max_bins : int
        2 to 255.
    is_categorical : ndarray of bool, shape (p,)
    encode : callable
        Makes a matrix of the rows of a block; see `daskdml.data.codes.Coding`.
    seed : int
        Of the sample.
    names : sequence of str, optional
        Of the features, for errors.
    categories : sequence of (ndarray or None), optional
        The codes of each categorical feature, ascending, where they are known: nobody looks for them then.
    keeps_values : bool, default False
        Whether `Bins.values` are wanted.

    Returns
    -------
    Bins

    Raises
    ------
    ValueError
        If a categorical feature has more categories than bins.

    Notes
    -----
    Reads the sample, and all rows once more if some feature has few values in it and there are rows that it left out.
    """
    p = len(is_categorical)
    n_sample = sample_rows(p, run.dtype)
    pilot = run.pilot(n_sample, seed)
    sample = _Sample(pilot.map(_itself), encode)
    is_given = is_categorical if categories is not None else np.zeros(p, bool)
    known, of_sample = [None] * p, [None] * p
    wanted = np.flatnonzero(~is_given)

    def look(i):
        f = wanted[i]
        known[f] = distinct(sample.values(f), max_bins)
        if known[f] is None:
            of_sample[f] = sample.thresholds(f, max_bins)

    pilot.for_each(len(wanted), look)
    if run.n_samples > n_sample and any(values is not None for values in known):
        known = run.map_reduce(DistinctValues(tuple(known), max_bins, encode)).found
    thresholds = []
    for f, values in enumerate(known):
        if is_given[f]:
            thresholds.append(categories[f])
        elif is_categorical[f]:
            if values is None:
                name = f"at index {f}" if names is None else repr(names[f])
                raise ValueError(
                    f"Categorical feature {name} is expected to have a cardinality <= {max_bins} but actually has more "
                    "categories; merge rare ones, or encode it as numbers."
                )
            thresholds.append(values)
        elif values is not None:
            thresholds.append(thresholds_between(values))
        elif of_sample[f] is not None:
            thresholds.append(of_sample[f])
        else:
            thresholds.append(sample.thresholds(f, max_bins))
    return Bins(
        tuple(thresholds), np.asarray(is_categorical, bool), int(max_bins), tuple(known) if keeps_values else None,
        sample.n_stored,
    )


def _itself(block):
    return block


class _Sample:
    """Columns of some rows, in blocks; ``n_stored`` as `Bins` has it."""

    def __init__(self, blocks, encode):
        parts = [encode(block.X) for block in blocks]
        weight = None if blocks[0].weight is None else np.concatenate([block.weight for block in blocks])
        counts = None if weight is None or (weight > 0).all() else weight > 0
        self._weight, self._counts, self._parts, self._X, self.n_stored = weight, counts, parts, None, None
        if all(hasattr(part, "indptr") for part in parts):
            X = sparse.vstack(parts, format="csr")
            self.n_stored = X.nnz / max(X.shape[0], 1)
            self._X = _by_columns(X if counts is None else X[counts])
            self._weight, self._parts = weight if counts is None else weight[counts], None

    def values(self, f):
        """Return values of the rows with weight: each of them at least once."""
        if self._X is not None:
            return _values_of(self._X, f)
        column = self._column(f)
        return column if self._counts is None else column[self._counts]

    def thresholds(self, f, max_bins):
        """Return `thresholds_of_sample` of a feature."""
        X = self._X
        if X is None:
            return thresholds_of_sample(self._column(f), max_bins, self._weight)
        own = slice(X.indptr[f], X.indptr[f + 1])
        values, n_zeros = X.data[own], X.shape[0] - (own.stop - own.start)
        if self._weight is not None:
            column = np.zeros(X.shape[0], X.dtype)
            column[X.indices[own]] = values
            return thresholds_of_sample(column, max_bins, self._weight)
        values = np.sort(values[values == values])
        at = np.searchsorted(values, 0)
        values = np.concatenate([values[:at], np.zeros(n_zeros, X.dtype), values[at:]])
        return thresholds_of_sorted(values, max_bins)

    def _column(self, f):
        # Blocks of frames may have become dense and CSR.
        return np.concatenate([column_of(part, f) for part in self._parts])
