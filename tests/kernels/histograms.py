"""Entries, rows of bins and their histograms by the definition, which kernels are compared with."""

import numpy as np

from daskdml.kernels import growing, stored

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
            sums, spare, most,
        )  # fmt: skip


class Stored(Rows):
    """The same as codes, of another bin of zero for each feature."""

    def __init__(self, bins, dtype=np.uint16):
        super().__init__(bins)
        self.zero = (np.diff(self.first) // 2 % np.maximum(np.diff(self.first) - 1, 1)).astype(np.uint8)
        self.packed = np.zeros(self.first[-1], np.int64)
        codes = np.transpose([self.places(f) for f in range(self.p)])
        is_kept = bins != self.zero
        self.codes, self.indptr = codes[is_kept].astype(dtype), np.cumsum([0, *is_kept.sum(axis=1)])

    def _add(self, entries, start, stop, sums, most):
        stored.add_rows(
            self.codes, self.indptr, entries, start, stop, self.packed, self.first, self.zero, sums, most
        )  # fmt: skip

    def _split(self, entries, segments, splits, goes_right, adds, sums, spare, most):
        stored.split_leaves(
            self.codes, self.indptr, entries, segments, splits, goes_right, adds, self.packed, self.first, self.zero,
            sums, spare, most,
        )  # fmt: skip


def random_entries(n, seed=0):
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, 16, n), rng.permutation(n), rng.integers(-2048, 2049, n), rng.integers(0, 4097, n)
    return np.array([pack(*row) for row in np.transpose(draws).tolist()], np.uint64)
