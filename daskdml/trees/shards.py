"""The rows of one rank as shards, and what a tree does with all of them, a thread per shard."""

import queue
import time

import numpy as np

from daskdml.kernels import binning, growing
from daskdml.kernels.binning import row_bytes

LEAST_ROWS = 32_768  # of a shard: each costs a flush of its histogram per leaf, 5 microseconds
SHARDS_PER_THREAD = 2
LEAST_HISTOGRAMS = 300  # to search by a thread
NODES = 64  # places for segments at first
_NONE_F4, _NONE_F8, _NONE_U1 = np.empty(0, np.float32), np.empty(0), np.empty(0, np.uint8)


class Shard:
    """Rows that one thread works on at a time.

    Parameters
    ----------
    bins : ndarray of uint8, shape (n, row_bytes(p))
    n_features : int
    y : ndarray of shape (n,), float32 or float64
    weight : ndarray of float64, shape (n,), or None
        What gradients are multiplied by.
    times : ndarray of uint8, shape (n,), or None
        How often a row counts, 0 to 15; None for once.
    spans : list of (start, stop, first_row)
        Which rows follow each other in the data, and the number of the first one there.
    raw : ndarray of float64, shape (n,) or (n, k)
        Raw predictions so far.
    has_hessian : bool
        Whether hessians differ from row to row.
    by_columns : bool, default True
        Whether bins are kept by columns too, by which leaves are divided twice as fast or more.
    given_weight : ndarray of float64, shape (n,), or None
        What rows came with, those without a part in trees too: for scores.
    """

    def __init__(
        self, bins, n_features, y, weight, times, spans, raw, has_hessian, by_columns=True, given_weight=None
    ):
        n = len(bins)
        self.bins, self.y, self.raw, self.spans, self.given_weight = bins, y, raw, spans, given_weight
        self.weight = _NONE_F8 if weight is None else weight
        self.times = _NONE_U1 if times is None else times
        self.words = bins.view(np.uint32)
        self.columns = bins.T[:n_features]
        if by_columns:
            self.columns = np.empty((n_features, n), np.uint8)
            binning.transpose(bins, self.columns)
        k = 1 if raw.ndim == 1 else raw.shape[1]
        self.gradient = np.empty((k, n), np.float32)
        self.hessian = np.empty((k, n if has_hessian else 0), np.float32)
        self.entries = np.empty(n, np.uint64)
        self.segments = np.zeros((NODES, 2), np.int64)

    def __len__(self):
        return len(self.bins)

    def raw_of(self, k):
        """Return the raw predictions of one output."""
        return self.raw if self.raw.ndim == 1 else self.raw[:, k]

    def gradient_of(self, k):
        """Return gradient and hessian of one output; the latter may be empty, for ones."""
        return self.gradient[k], self.hessian[k]


def bytes_per_row(n_features, n_outputs, by_columns=True):
    """Return the bytes that a row takes in a `Shard`."""
    # Bins, three times where memory is plentiful: as they came, in one piece and by columns; y and an entry; raw
    # predictions, gradients and hessians.
    return row_bytes(n_features) * (1 + by_columns) + n_features * by_columns + 4 + 8 + 16 * n_outputs


def histogram_bytes(n_features):
    """Return the bytes of the histograms of a leaf and its children, the least that a tree needs."""
    return 3 * 3 * growing.N_BINS * row_bytes(n_features) * np.dtype(np.int64).itemsize


def cut(n_rows, n_threads):
    """Return the edges of the shards that so many rows in one piece are cut into.

    Examples
    --------
    >>> cut(100_000, 2)
    [0, 50000, 100000]
    """
    n = min(n_rows // LEAST_ROWS, SHARDS_PER_THREAD * n_threads)
    if n > n_threads:
        n -= n % n_threads  # as many for each
    n = max(n, 1, -(-n_rows // growing.MOST_ROWS))
    return [n_rows * i // n for i in range(n + 1)]


class Shards:
    """All shards of a rank.

    Parameters
    ----------
    shards : list of Shard
    n_features : int
    n_threads : int
    for_each : callable of (n_items, work)
        Calls ``work(i)`` for each item, on the threads of the rank.

    Attributes
    ----------
    seconds : dict of str to float
        What phases took.
    grower : Grower or None
        What grows trees on these rows, once there is one.
    watched : daskdml.trees.given_rows.WatchedRows or None
        Of the validation rows that a user gave, from the first score on.
    shares : tuple of two floats, or None
        Of rows that are scored, by other scores than the loss.
    """

    def __init__(self, shards, n_features, n_threads, for_each):
        self._shards, self.n_features, self.n_threads, self._for_each = shards, n_features, n_threads, for_each
        n_words = -(-n_features // 4)
        self.width = growing.N_BINS * 4 * n_words
        n_threads = min(n_threads, len(shards))
        self._scratch = queue.SimpleQueue()
        most = max(map(len, shards), default=0)
        for t in range(n_threads):
            packed = np.zeros(4 * growing.PACKED_BINS * n_words, np.int64)
            self._scratch.put((t, packed, np.empty(most + 1, np.uint64)))
        self._parts = np.zeros((n_threads, 1, 3, self.width), np.int64)
        self.seconds, self.grower, self.watched, self.shares = {}, None, None, None

    def __iter__(self):
        return iter(self._shards)

    def each(self, work):
        """Call ``work(shard)`` for all shards; return the list of results."""
        found = [None] * len(self._shards)

        def visit(i):
            found[i] = work(self._shards[i])

        self._for_each(len(found), visit)
        return found

    def over_features(self, start, stop, n_nodes, work):
        """Call ``work(start, stop)`` on ranges of features; return the results in their order.

        To wake up another thread takes as long as to search some hundred histograms.
        """
        n = max(1, min(self.n_threads, (stop - start) * n_nodes // LEAST_HISTOGRAMS))
        edges = [start + (stop - start) * i // n for i in range(n + 1)]
        found = [None] * n

        def visit(i):
            found[i] = work(edges[i], edges[i + 1])

        self._for_each(n, visit)
        return found

    def clock(self, phase, started):
        """Add what has passed to a phase; return the time."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - started
        return now

    def gradients(self, loss):
        """Write gradients and hessians of all rows; return the largest of each, ndarray of shape (2,)."""
        found = self.each(
            lambda shard: growing.gradients(shard.raw, shard.y, shard.weight, loss, shard.gradient, shard.hessian)
        )
        return np.max(found, axis=0, initial=0.0)

    def root(self, k, key, scales, most, share=1.0, is_stochastic=True):
        """Begin the tree of output k: write all entries, and add up the root's histogram.

        Returns
        -------
        ndarray of int64, shape (n_threads, 1, 3, width)
            To be added up over the first axis, and to be zeros again afterwards.
        """
        parts = self._parts_for(1)

        def work(shard):
            gradient, hessian = shard.gradient_of(k)
            for a, b, first_row in shard.spans:
                growing.fill_entries(
                    gradient[a:b], hessian[a:b], shard.times[a:b], first_row, key, scales, share, is_stochastic,
                    shard.entries[a:b], a,
                )  # fmt: skip
            shard.segments[0] = 0, len(shard)
            with self._borrowed() as (t, packed, _):
                growing.add_rows(shard.words, shard.entries, 0, len(shard), packed, parts[t, 0], most)

        self.each(work)
        return parts

    def split(self, splits, goes_right, adds, most):
        """Divide leaves and add up a child of each; see `daskdml.kernels.growing.split_leaves`.

        Returns
        -------
        ndarray of int64, shape (n_threads, m, 3, width)
        """
        parts, last = self._parts_for(len(splits)), int(splits[:, 2:].max())

        def work(shard):
            if last >= len(shard.segments):
                more = np.zeros((2 * last, 2), np.int64)
                more[: len(shard.segments)] = shard.segments
                shard.segments = more
            with self._borrowed() as (t, packed, spare):
                growing.split_leaves(
                    shard.words, shard.columns, shard.entries, shard.segments, splits, goes_right, adds, packed,
                    parts[t], spare, most,
                )  # fmt: skip

        self.each(work)
        return parts

    def sum_leaves(self, k, leaves, scales):
        """Return the sums of gradients and hessians of leaves, ndarray of int64 of shape (m, 2)."""

        def work(shard):
            sums = np.zeros((len(leaves), 2), np.int64)
            growing.sum_leaves(shard.entries, shard.segments, leaves, *shard.gradient_of(k), scales, sums)
            return sums

        return sum(self.each(work), np.zeros((len(leaves), 2), np.int64))

    def add_leaves(self, k, leaves, values):
        """Add the values of leaves to the raw predictions of output k."""
        self.each(lambda s: growing.add_leaves(s.entries, s.segments, leaves, values, s.raw_of(k)))

    def _borrowed(self):
        return _Borrowed(self._scratch)

    def _parts_for(self, m):
        if self._parts.shape[1] < m:
            self._parts = np.zeros((len(self._parts), m, 3, self.width), np.int64)
        # Contiguous for each thread; places behind m stay zeros.
        return self._parts


class _Borrowed:
    """Scratch of one thread, from whoever has none in use."""

    def __init__(self, free):
        self.free = free

    def __enter__(self):
        self.item = self.free.get()
        return self.item

    def __exit__(self, *error):
        self.free.put(self.item)
