"""Exact medians of columns that nobody holds in one place, by selection over blocks.

A float's bits, with the sign bit flipped for positive numbers and all bits flipped for negative ones, are an unsigned
integer in the same order. The median is found on these keys from the top bits down: each pass counts, in bins of the
next bits, the keys that still share the median's leading bits, and keeps the one bin that holds the middle rank. Once
the bins hold few keys in all, one last pass fetches them and sorts. Nothing is approximated and nothing depends on the
order of rows or blocks.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from daskdml.data.statistics import joined, refuse_infinite

HISTOGRAM_BINS = 2**19  # over all columns: 4 MiB of counts per partial result
FETCHED_KEYS = 2**20  # over all columns: 8 MiB of keys fetched by the last pass


class Search(NamedTuple):
    """Where each column's middle key lies: among the keys that equal ``prefix`` in their leading bits.

    ``below`` keys are smaller than these; ``rank`` is the lower middle rank among all keys. A column whose candidates
    are known to be one key has ``settled`` set.
    """

    bits: int  # leading bits known
    prefix: np.ndarray
    below: np.ndarray
    inside: np.ndarray
    count: np.ndarray
    settled: np.ndarray


class Bins(NamedTuple):
    """Counts of candidates by their next bits, with the smallest and the largest candidate."""

    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def merge(self, other):
        """Return the counts of both."""
        return Bins(self.counts + other.counts, np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class Fetched(NamedTuple):
    """Per column the candidates themselves and the smallest key above them."""

    keys: list
    above: np.ndarray

    def merge(self, other):
        """Return the keys of both."""
        return Fetched(
            [np.concatenate(pair) for pair in zip(self.keys, other.keys)], np.minimum(self.above, other.above)
        )


def column_medians(run, dtype, prepare=None, n_columns=None):
    """Compute the median of each column of the data of a run, leaving out NaN.

    Parameters
    ----------
    run : object with ``map_reduce`` and ``n_features``
        An open run over blocks of numbers.
    dtype : float32 or float64
        Of the blocks.
    prepare : picklable callable, optional
        Makes each block's X a matrix of numbers (it may turn values into NaN).
    n_columns : int, optional
        Of what `prepare` returns; `run.n_features` by default.

    Returns
    -------
    medians : ndarray of float64, shape (n_features,)
        NaN for a column without values; the mean of the two middle values for an even number, as `numpy.median`.
    counts : ndarray of int64, shape (n_features,)
        Values per column that are not NaN.

    Raises
    ------
    ValueError
        When a value is infinite, with its block and row.

    Notes
    -----
    Passes over the data: at most seven for 100 columns of float64 (three or four when the values are spread out), at
    most four for float32; more for thousands of columns, whose bins are coarser. Memory per partial result: 4 MiB of
    counts, at most 8 MiB of keys in the last pass.
    """
    width = np.dtype(dtype).itemsize * 8
    p = run.n_features if n_columns is None else n_columns
    step = int(np.clip(np.log2(HISTOGRAM_BINS / max(p, 1)), 4, 16))
    search, bits = None, 0
    while bits < width:
        step = min(step, width - bits)
        count = partial(_count_bins, p=p, search=search, step=step, width=width, prepare=prepare)
        bins = run.map_reduce(count, Bins.merge)
        search, bits = _narrow(search, bins, bits, step, width), bits + step
        if search.inside[~search.settled].sum() <= FETCHED_KEYS:
            break
    fetched = run.map_reduce(partial(_fetch, p=p, search=search, width=width, prepare=prepare), Fetched.merge)
    return _medians(search, fetched, width), search.count


def ordered_keys(X):
    """Map floats to unsigned integers in the same order; minus zero becomes zero."""
    unsigned = np.uint32 if X.dtype == np.float32 else np.uint64
    bits = (X + X.dtype.type(0)).view(unsigned)
    sign = unsigned(1 << (8 * bits.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def ordered_values(keys, width):
    """Map the keys of `ordered_keys` back to float64."""
    unsigned, floating = (np.uint32, np.float32) if width == 32 else (np.uint64, np.float64)
    keys = np.asarray(keys).astype(unsigned)
    sign = unsigned(1 << (width - 1))
    return np.where(keys & sign, keys ^ sign, ~keys).view(floating).astype(np.float64)


def _columns(block, width, prepare):
    """Yield (column, keys present, times each key stands for or None for once); implicit zeros are one key."""
    X = joined(block.X)
    X = X if prepare is None else prepare(X)
    refuse_infinite(X, block)
    X = X.astype(np.float32 if width == 32 else np.float64, copy=False)
    is_sparse = sparse.issparse(X)
    X = X.tocsc() if is_sparse else X
    for j in range(X.shape[1]):
        values = X.data[X.indptr[j] : X.indptr[j + 1]] if is_sparse else np.ascontiguousarray(X[:, j])
        implicit = X.shape[0] - len(values)
        missing = np.isnan(values)
        keys, times = ordered_keys(values[~missing] if missing.any() else values), None
        if implicit:
            times = np.append(np.ones(len(keys)), implicit)
            keys = np.append(keys, ordered_keys(np.zeros(1, X.dtype)))
        yield j, keys.astype(np.uint64), times


def _candidates(keys, search, j, width):
    return np.ones(len(keys), bool) if search is None else (keys >> np.uint64(width - search.bits)) == search.prefix[j]


def _count_bins(block, p, search, step, width, prepare):
    known = 0 if search is None else search.bits
    bins = Bins(np.zeros((p, 2**step), np.int64), np.full(p, 2**64 - 1, np.uint64), np.zeros(p, np.uint64))
    shift, mask = np.uint64(width - known - step), np.uint64(2**step - 1)
    for j, keys, times in _columns(block, width, prepare):
        if search is not None and search.settled[j]:
            continue
        chosen = _candidates(keys, search, j, width)
        keys, times = keys[chosen], times if times is None else times[chosen]
        if len(keys):
            into = ((keys >> shift) & mask).astype(np.intp)
            bins.counts[j] += np.bincount(into, weights=times, minlength=2**step).astype(np.int64)
            bins.low[j], bins.high[j] = keys.min(), keys.max()
    return bins


def _narrow(search, bins, bits, step, width):
    """Keep, per column, the bin that holds the lower middle rank."""
    p = len(bins.low)
    if search is None:
        count = bins.counts.sum(axis=1)
        search = Search(0, np.zeros(p, np.uint64), np.zeros(p, np.int64), count, count, count == 0)
    rank = (search.count - 1) // 2
    prefix, below, inside = search.prefix.copy(), search.below.copy(), search.inside.copy()
    settled = search.settled.copy()
    known = np.uint64(width - bits - step)
    for j in np.flatnonzero(~search.settled):
        upto = np.cumsum(bins.counts[j])
        chosen = int(np.searchsorted(upto, rank[j] - below[j], side="right"))
        if bins.low[j] == bins.high[j]:
            settled[j] = True
        inside[j] = bins.counts[j, chosen]
        below[j] += upto[chosen] - inside[j]
        prefix[j] = (prefix[j] << np.uint64(step)) | np.uint64(chosen)
        settled[j] |= known == 0
        if settled[j]:
            prefix[j] = bins.low[j] if bins.low[j] == bins.high[j] else prefix[j]
    # A settled column keeps its whole key as prefix: no later pass looks at its leading bits again.
    return Search(bits + step, prefix, below, inside, search.count, settled)


def _fetch(block, p, search, width, prepare):
    found = Fetched([np.empty(0, np.uint64) for _ in range(p)], np.full(p, 2**64 - 1, np.uint64))
    for j, keys, times in _columns(block, width, prepare):
        if search.settled[j]:
            above = keys[keys > search.prefix[j]]
        else:
            leading = keys >> np.uint64(width - search.bits)
            chosen = leading == search.prefix[j]
            found.keys[j] = keys[chosen] if times is None else np.repeat(keys[chosen], times[chosen].astype(np.int64))
            above = keys[leading > search.prefix[j]]
        if len(above):
            found.above[j] = above.min()
    return found


def _medians(search, fetched, width):
    medians = np.full(len(search.count), np.nan)
    for j in np.flatnonzero(search.count):
        ranks = np.array([(search.count[j] - 1) // 2, search.count[j] // 2]) - search.below[j]
        keys = np.sort(fetched.keys[j])
        if search.settled[j]:
            middle = [search.prefix[j] if rank < search.inside[j] else fetched.above[j] for rank in ranks]
        else:
            middle = [keys[rank] if rank < len(keys) else fetched.above[j] for rank in ranks]
        lower, upper = ordered_values(np.array(middle, np.uint64), width)
        medians[j] = lower if lower == upper else _midpoint(lower, upper)
    return medians


def _midpoint(lower, upper):
    middle = (lower + upper) / 2
    return middle if np.isfinite(middle) else lower / 2 + upper / 2

