"""Entries, rows of bins and their histograms by the definition, which kernels are compared with."""

import numpy as np

from daskdml.kernels import growing, stored_leaves

MISSING = 255


def pack(times, row, g, h):
    """Return an entry; see the head of the module."""
    return times << 60 | row << 32 | (g & 0xFFFF) << 16 | h


def unpack(entry):
    """Return times, row, gradient and hessian of an entry."""
    g = entry >> 16 & 0xFFFF
    return entry >> 60, entry >> 32 & 0xFFFFFFF, g - (1 << 16) if g >= 1 << 15 else g, entry & 0xFFFF


def fields(entries):
    """Return times, rows, gradients and hessians of many entries, as int64."""
    return np.array([unpack(entry) for entry in entries.tolist()], np.int64).reshape(-1, 4).T


class Rows:
    """Rows of bins as the kernels of dense rows want them, and their histograms by the definition."""

    def __init__(self, bins):
        self.n, self.p = bins.shape
        width = -(-self.p // 4) * 4
        self.rows = np.zeros((self.n, width), np.uint8)
        self.rows[:, : self.p] = bins
        # As many as there are, and the one of missing values.
        known = [max([b + 1 for b in set(column.tolist()) if b < MISSING], default=1) for column in bins.T]
        self.first = np.cumsum([0, *(n + 1 for n in known)])
        self.packed = np.zeros(growing.PACKED_BINS * width, np.int64)

    def entries(self):
        """Return entries of rows in any order."""
        return random_entries(self.n)

    def zeros(self, *shape):
        return np.zeros((*shape, 3, self.first[-1]), np.int64)

    def places(self, f):
        """Return where the bins of a feature stand in a histogram."""
        own, end = self.rows[:, f].astype(np.int64), self.first[f + 1]
        return np.where(own == MISSING, end - 1, self.first[f] + own)

    def histogram(self, entries):
        """Return sums of gradients, hessians and counts by feature and bin."""
        sums = self.zeros()
        times, rows, g, h = fields(entries)
        for f in range(self.p):
            for plane, what in enumerate((times * g, times * h, times)):
                np.add.at(sums[plane], self.places(f)[rows], what)
        return sums

    def add(self, entries, start, stop, most, sums=None):
        sums = self.zeros() if sums is None else sums
        self._add(entries, start, stop, sums, most)
        assert not self.packed.any()
        return sums

    def divide(self, entries, segments, splits, goes_right, adds, most=100):
        """Divide copies; return entries, segments and sums."""
        entries, segments = entries.copy(), segments.copy()
        sums, spare = self.zeros(len(splits)), np.empty(len(entries) + 1, np.uint64)
        goes_right, adds = goes_right.astype(np.uint8), np.array(adds, np.int64)
        self._split(entries, segments, np.array(splits, np.int64), goes_right, adds, sums, spare, most)
        assert not self.packed.any()
        return entries, segments, sums

    def _add(self, entries, start, stop, sums, most):
        growing.add_rows(self.rows.view(np.uint32), entries, start, stop, self.packed, self.first, sums, most)

    def _split(self, entries, segments, splits, goes_right, adds, sums, spare, most):
        columns = np.ascontiguousarray(self.rows[:, : self.p].T)
        growing.split_leaves(
            self.rows.view(np.uint32), columns, entries, segments, splits, goes_right, adds, self.packed, self.first,
            sums, spare, most, np.zeros(2, np.int64),
        )  # fmt: skip


class Stored(Rows):
    """The same as codes, of another bin of zero for each feature; every row stands twice."""

    def __init__(self, bins, dtype=np.uint16):
        bins = np.concatenate([bins, bins[::-1]])
        super().__init__(bins)
        self.zero = (np.diff(self.first) // 2 % np.maximum(np.diff(self.first) - 1, 1)).astype(np.uint8)
        self.packed = np.zeros(self.first[-1], np.int64)
        codes = np.transpose([self.places(f) for f in range(self.p)])
        is_kept = bins != self.zero
        self.codes, self.indptr = codes[is_kept].astype(dtype), np.cumsum([0, *is_kept.sum(axis=1)])

    def entries(self):
        """Return entries of half of the rows, in ascending order."""
        rows = np.random.default_rng(0).permutation(self.n)[: self.n // 2]
        return random_entries(len(rows), np.sort(rows))

    def windows(self, most):
        return stored_leaves.find_windows(self.codes, self.indptr, self.first[-1], most)

    def _add(self, entries, start, stop, sums, most):
        stored_leaves.add_rows(
            self.codes, self.indptr, entries, start, stop, self.packed, self.first, self.zero, self.windows(most), sums
        )  # fmt: skip

    def _split(self, entries, segments, splits, goes_right, adds, sums, spare, most):
        """Divide lists."""
        nodes = np.column_stack([segments, np.zeros(len(segments), np.int64)])
        leaves = stored_leaves.Leaves(nodes, np.empty(0, np.uint8), entries, np.array([len(entries), 0]))
        columns = np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.uint8)
        stored_leaves.split_leaves(
            self.codes, self.indptr, columns, entries, leaves, splits, goes_right, adds, self.packed, self.first,
            self.zero, self.windows(most), sums, spare, 1, np.zeros(2, np.int64),
        )  # fmt: skip
        segments[:] = nodes[:, :2]


def random_entries(n, rows=None):
    rng = np.random.default_rng(0)
    rows = rng.permutation(n) if rows is None else rows
    draws = rng.integers(0, 16, n), rows, rng.integers(-2048, 2049, n), rng.integers(0, 4097, n)
    return np.array([pack(*row) for row in np.transpose(draws).tolist()], np.uint64)
