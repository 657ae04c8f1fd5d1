"""The rows of one rank as shards, and what a tree does with all of them, a thread per shard."""

import math
import queue
import time

import numpy as np

from daskdml.kernels import growing, loss_rows
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
    rows : DenseRows or StoredRows
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
    given_weight : ndarray of float64, shape (n,), or None
        What rows came with, those without a part in trees too: for scores.
    """

    def __init__(self, rows, y, weight, times, spans, raw, has_hessian, given_weight=None):
        n = len(rows)
        self.rows, self.y, self.raw, self.spans, self.given_weight = rows, y, raw, spans, given_weight
        self.weight = _NONE_F8 if weight is None else weight
        self.times = _NONE_U1 if times is None else times
        k = 1 if raw.ndim == 1 else raw.shape[1]
        self.gradient = np.empty((k, n), np.float32)
        self.hessian = np.empty((k, n if has_hessian else 0), np.float32)
        self.entries = np.empty(n, np.uint64)
        self.segments = np.zeros((NODES, 2), np.int64)

    def __len__(self):
        return len(self.rows)

    def make_room(self, last):
        """Let there be segments up to a number."""
        if last >= len(self.segments):
            more = np.zeros((2 * last, 2), np.int64)
            more[: len(self.segments)] = self.segments
            self.segments = more

    def raw_of(self, k):
        """Return the raw predictions of one output."""
        return self.raw if self.raw.ndim == 1 else self.raw[:, k]

    def gradient_of(self, k):
        """Return gradient and hessian of one output; the latter may be empty, for ones."""
        return self.gradient[k], self.hessian[k]


def bytes_per_row(n_features, n_outputs, by_columns=True, n_stored=None, in_files=False):
    """Return the bytes of memory that a row takes in a `Shard`.

    Parameters
    ----------
    n_features, n_outputs : int
    by_columns : bool, default True
        Whether bins are kept by columns too.
    n_stored : float or None, default None
        Values that a row stores, where it is kept as codes.
    in_files : bool, default False
        Whether bins, or codes, are files.
    """
    # y and an entry; raw predictions, gradients and hessians.
    beside = 4 + 8 + 16 * n_outputs
    if n_stored is not None:
        # Codes and columns as they came; in one piece and by columns where memory is plentiful. Where rows begin, as it
        # came and again; slots and lists.
        stored = 0 if in_files else math.ceil(n_stored * (4 + 4 + (4 + 5) * by_columns))
        return stored + 8 + 4 + 9 * by_columns + beside
    if in_files:
        return beside
    # Bins, three times where memory is plentiful: as they came, in one piece and by columns.
    return row_bytes(n_features) * (1 + by_columns) + n_features * by_columns + beside


def histogram_bytes(n_bins, max_leaf_nodes, n_threads):
    """Return the bytes of the histograms of a process, about: of leaves that may be divided, and of threads."""
    leaves = 32 if max_leaf_nodes is None else max(8, max_leaf_nodes)
    return (leaves + leaves // 2 + n_threads) * 3 * n_bins * np.dtype(np.int64).itemsize  # half again while they grow


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
    first : ndarray of int64, shape (p + 1,)
        Where the bins of each feature begin in a histogram.
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

    talks = False  # whether leaves cannot be divided without the other ranks

    def __init__(self, shards, first, n_threads, for_each):
        self._shards, self.first, self.n_threads, self._for_each = shards, first, n_threads, for_each
        n_threads = min(n_threads, len(shards))
        self._scratch = queue.SimpleQueue()
        most = max(map(len, shards), default=0)
        n_packed = max((shard.rows.n_packed for shard in shards), default=0)
        for t in range(n_threads):
            self._scratch.put((t, np.zeros(n_packed, np.int64), np.empty(most + 1, np.uint64)))
        self._parts = np.zeros((n_threads, 1, 3, first[-1]), np.int64)
        self.seconds, self.grower, self.watched, self.shares = {}, None, None, None

    def __iter__(self):
        return iter(self._shards)

    def each(self, work):
        """Call ``work(shard)`` for all shards; return the list of results."""
        return self._over(self._shards, work)

    def _over(self, shards, work):
        found = [None] * len(shards)

        def visit(i):
            found[i] = work(shards[i])

        self._for_each(len(found), visit)
        return found

    def owned(self, comm):
        """Return ranges of features of which this rank has all rows, and no other any; None where that is not so."""

    def counting(self):
        """Return the shards whose rows count on this rank, where several have them."""
        return self._shards

    def once(self, work):
        """Return the list of ``work(shard)`` of `counting` shards."""
        return self._over(self.counting(), work)

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
            lambda shard: loss_rows.gradients(shard.raw, shard.y, shard.weight, loss, shard.gradient, shard.hessian)
        )
        return np.max(found, axis=0, initial=0.0)

    def root(self, k, key, scales, most, share=1.0, is_stochastic=True):
        """Begin the tree of output k: write all entries, and add up the root's histogram.

        Returns
        -------
        ndarray of int64, shape (n_threads, 1, 3, first[-1])
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
                shard.rows.add(shard.entries, packed, parts[t, 0], most)

        self.each(work)
        return parts

    def split(self, splits, goes_right, adds, most):
        """Divide leaves and add up a child of each; see `daskdml.kernels.growing.split_leaves`.

        Returns
        -------
        ndarray of int64, shape (n_threads, m, 3, first[-1])
        """
        parts, last = self._parts_for(len(splits)), int(splits[:, 2:].max())

        def work(shard):
            shard.make_room(last)
            took = np.zeros(2, np.int64)
            with self._borrowed() as (t, packed, spare):
                shard.rows.split(
                    shard.entries, shard.segments, splits, goes_right, adds, packed, parts[t], spare, most, took
                )  # fmt: skip
            return took

        started = time.perf_counter()
        self._charge_partition(self.each(work), started)
        return parts

    def _charge_partition(self, took, started):
        """Take from the time of histograms, which is measured around this, what it took to divide leaves."""
        # Never less than nothing: counters of two processors may differ.
        divided, added = np.maximum(took, 0).reshape(-1, 2).sum(axis=0)
        seconds = (time.perf_counter() - started) * divided / max(divided + added, 1.0)
        self._charge("partition", seconds)

    def _charge(self, phase, seconds):
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.seconds["histogram"] = self.seconds.get("histogram", 0.0) - seconds

    def settle(self, leaves):
        """Let the entries of each leaf of a tree that has been grown be a range of each shard."""

        def work(shard):
            with self._borrowed() as (_, _, spare):
                shard.rows.settle(shard.entries, shard.segments, leaves, spare)

        if any(shard.rows.settles for shard in self._shards):
            self.each(work)

    def sum_leaves(self, k, leaves, scales):
        """Return the sums of gradients and hessians of leaves, ndarray of int64 of shape (m, 2)."""

        def work(shard):
            sums = np.zeros((len(leaves), 2), np.int64)
            growing.sum_leaves(shard.entries, shard.segments, leaves, *shard.gradient_of(k), scales, sums)
            return sums

        return sum(self.once(work), np.zeros((len(leaves), 2), np.int64))

    def add_leaves(self, k, leaves, values):
        """Add the values of leaves to the raw predictions of output k."""
        self.each(lambda s: growing.add_leaves(s.entries, s.segments, leaves, values, s.raw_of(k)))

    def _borrowed(self):
        return _Borrowed(self._scratch)

    def _parts_for(self, m):
        if self._parts.shape[1] < m:
            self._parts = np.zeros((len(self._parts), m, 3, self.first[-1]), np.int64)
        # Contiguous for each thread; places behind m stay zeros.
        return self._parts


class TileShards(Shards):
    """Shards of rows of which each rank has some features: which rows go right is said by who has the feature.

    Attributes
    ----------
    comm : Comm
        Of the group; every call that divides leaves is one of all ranks.
    unseen : tuple of tuple of Tree
        Iterations that raw predictions do not know of yet: to follow them needs the other ranks.
    """

    talks = True

    def __init__(self, *args):
        super().__init__(*args)
        self.comm, self.unseen = None, ()

    def owned(self, comm):
        panels = self._shards[0].rows.panels
        if comm.size == 1:
            return None
        held = np.zeros((comm.size, len(panels)), np.int64)
        for shard in self._shards:
            held[comm.rank, list(shard.rows.held)] += len(shard)
        held = comm.allreduce(held)
        if not np.isin(held, (0, comm.meta.n_samples)).all() or ((held > 0).sum(axis=0) != 1).any():
            return None
        return [(panels[j].start, panels[j].stop) for j in np.flatnonzero(held[comm.rank])]

    def counting(self):
        return [shard for shard in self._shards if shard.rows.counts]

    def split(self, splits, goes_right, adds, most):
        parts, last = self._parts_for(len(splits)), int(splits[:, 2:].max())
        started = time.perf_counter()
        bits = self.each(lambda s: s.rows.mark(s.entries, s.segments, splits, goes_right))
        self._charge("partition", time.perf_counter() - started)
        bits = self._meet(bits)

        took = np.zeros((len(self._shards), 2), np.int64)

        def work(i):
            shard = self._shards[i]
            shard.make_room(last)
            with self._borrowed() as (t, packed, spare):
                shard.rows.split(
                    bits[i], shard.entries, shard.segments, splits, adds, packed, parts[t], spare, most, took[i]
                )  # fmt: skip

        started = time.perf_counter()
        self._for_each(len(self._shards), work)
        self._charge_partition(list(took), started)
        return parts

    def follow(self):
        """Let raw predictions be those after the iterations that they do not know of."""
        for iteration in self.unseen:
            for k, tree in enumerate(iteration):
                nodes = self._leaves(tree)
                for shard, at in zip(self._shards, nodes):
                    shard.raw_of(k)[:] += tree.value[at]
        self.unseen = ()

    def _leaves(self, tree):
        """Return the leaf of a tree that each row of each shard ends in."""
        nodes = [np.zeros(len(shard), np.int64) for shard in self._shards]
        level, inner = np.zeros(1, np.int64), ~tree.is_leaf
        while inner[level].any():
            bits = self._meet([shard.rows.walk(tree, at) for shard, at in zip(self._shards, nodes)])
            nodes = [np.where(inner[at], tree.left[at] + bit, at) for at, bit in zip(nodes, bits)]
            level = level[inner[level]]
            level = np.concatenate([tree.left[level], tree.left[level] + 1])
        return nodes

    def _meet(self, bits):
        """Return the bits of rows that any rank has set, of a list with an array for each shard."""
        if self.comm.size == 1:
            return bits
        started = time.perf_counter()
        n = self.comm.meta.n_samples
        whole = np.zeros(-(-n // 64) * 64, np.uint8)
        for shard, own in zip(self._shards, bits):
            for a, b, first_row in shard.spans:
                whole[first_row : first_row + b - a] |= own[a:b]
        # Of each bit one rank has the feature, so that sums carry nothing.
        whole = np.unpackbits(self.comm.allreduce(np.packbits(whole).view(np.int64)).view(np.uint8))
        spans = [shard.spans for shard in self._shards]
        found = [np.concatenate([whole[first : first + b - a] for a, b, first in own]) for own in spans]
        # The time of histograms, which is measured around this, is another phase's.
        self._charge("reduce", time.perf_counter() - started)
        return found


class _Borrowed:
    """Scratch of one thread, from whoever has none in use."""

    def __init__(self, free):
        self.free = free

    def __enter__(self):
        self.item = self.free.get()
        return self.item

    def __exit__(self, *error):
        self.free.put(self.item)
