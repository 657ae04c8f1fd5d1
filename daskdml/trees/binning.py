"""Where the bins of each feature end: from all distinct values where they are few, else from a sample's quantiles.

The sample is drawn by row number (`daskdml.runtime.Run.pilot`), and distinct values are collected from all rows: sets
and integers, which add up to the same in any order. So bins depend on the rows alone, not on chunks or workers.
"""

from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import binning
from daskdml.utils.portable import portable

SAMPLE_ROWS = 200_000  # as scikit-learn
SAMPLE_BYTES = 256 << 20
ALMOST_INF = 1e300  # scikit-learn's: what a threshold is at most
MISSING = binning.MISSING


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
    """

    thresholds: Any
    is_categorical: Any
    max_bins: int
    values: Any = None

    def __repr__(self):
        # Dask writes what it is to call into its log, or would: this needs 80 ms for 28 features in full.
        return f"Bins of {len(self.thresholds)} features"

    @property
    def n_bins(self):
        """Bins of each feature, the one of missing values left out; an ndarray of int64."""
        n = [len(t) + (not c) for t, c in zip(self.thresholds, self.is_categorical)]
        return np.array(n, dtype=np.int64)

    def edges(self, dtype):
        """Return what kernels search: an ndarray (p, 256) of a dtype, filled up with inf.

        For float32 rounded down, which no float32 can tell from the threshold itself.
        """
        table = np.full((len(self.thresholds), binning.N_BINS), np.inf, dtype=dtype)
        for f, thresholds in enumerate(self.thresholds):
            if not self.is_categorical[f]:
                table[f, : len(thresholds)] = round_down(thresholds, dtype)
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

    def __call__(self, block):
        X = self.encode(block.X)
        keep = None if block.weight is None else block.weight > 0
        return Values(tuple(self._of(X, f, known, keep) for f, known in enumerate(self.wanted)), self.limit)

    def _of(self, X, f, known, keep):
        if known is None:
            return None
        column = column_of(X, f)
        if keep is not None:
            column = column[keep]
        # Values that the sample had are told apart by a search; only others are sorted.
        at = np.minimum(np.searchsorted(known, column), max(len(known) - 1, 0))
        new = column[known[at] != column] if len(known) else column
        new = np.unique(new[new == new]).astype(np.float64)
        return _union(known, new, self.limit) if len(new) else known


def column_of(X, f):
    """Return one column of a dense or CSR matrix as a dense vector."""
    if not hasattr(X, "indptr"):
        return X[:, f]
    column = np.zeros(X.shape[0], X.dtype)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    own = X.indices == f
    np.add.at(column, rows[own], X.data[own])  # an entry may stand twice
    return column


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
    return np.clip(np.unique(_middle(values[:-1], values[1:])), None, ALMOST_INF)


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
    if weight is not None:
        present &= weight > 0
        weight = weight[present]
    column = column[present]
    if len(column) == 0:
        return np.empty(0)
    share = np.arange(1, max_bins) / max_bins
    if weight is None:
        found = _quantiles(np.sort(column), share)
    else:
        order = np.argsort(column, kind="stable")
        found = _weighted_quantiles(column[order].astype(np.float64), weight[order], share)
    return np.clip(np.unique(found), None, ALMOST_INF)


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

    def __call__(self, X):
        X = self.encode(X)
        p = len(self.bins.thresholds)
        out = np.zeros((X.shape[0], binning.row_bytes(p)), np.uint8)
        edges = self.bins.edges(X.dtype)
        if hasattr(X, "indptr"):
            zero = np.array([np.count_nonzero(e < 0) for e in edges], np.uint8)
            X = X if X.has_canonical_format else _summed(X)
            binning.bin_csr(X.data, X.indices, X.indptr, edges, zero, out)
        else:
            binning.bin_dense(X, edges, out)
        for f in np.flatnonzero(self.bins.is_categorical):
            out[:, f] = bin_codes(column_of(X, f), self.bins.thresholds[f])
        return out


def _summed(X):
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
    blocks = pilot.map(_itself)
    # By columns: to look for one column in CSR costs as much as for all. One is made dense at a time.
    parts = [encode(block.X) for block in blocks]
    parts = [part.tocsc() if hasattr(part, "indptr") else part for part in parts]
    weight = None if blocks[0].weight is None else np.concatenate([block.weight for block in blocks])
    counts = slice(None) if weight is None or (weight > 0).all() else weight > 0
    is_given = is_categorical if categories is not None else np.zeros(p, bool)
    known, of_sample = [None] * p, [None] * p
    wanted = np.flatnonzero(~is_given)

    def look(i):
        f = wanted[i]
        column = _column(parts, f)
        known[f] = distinct(column[counts], max_bins)
        if known[f] is None:
            of_sample[f] = thresholds_of_sample(column, max_bins, weight)

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
            thresholds.append(thresholds_of_sample(_column(parts, f), max_bins, weight))
    return Bins(
        tuple(thresholds), np.asarray(is_categorical, bool), int(max_bins), tuple(known) if keeps_values else None
    )


def _itself(block):
    return block


def _column(parts, f):
    """Return one column of matrices, dense or CSC, that stand on top of each other."""
    return np.concatenate([_column_of_one(part, f) for part in parts])


def _column_of_one(X, f):
    if not hasattr(X, "indptr"):
        return X[:, f]
    column = np.zeros(X.shape[0], X.dtype)
    own = slice(X.indptr[f], X.indptr[f + 1])
    np.add.at(column, X.indices[own], X.data[own])  # an entry may stand twice
    return column
