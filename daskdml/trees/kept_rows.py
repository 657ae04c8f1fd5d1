"""How the rows of a shard keep their bins: all of them, or codes of those that CSR stores."""

import time

import numpy as np

from daskdml.kernels import binning, growing, stored, stored_leaves
from daskdml.utils.memory import Pages, empty_rows

_WALKED_A_SEARCH = 8  # values of a column that are gone through in the time in which a row of a list is searched
_NODES = 64  # places for leaves at first
_NO_COLUMNS = np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.uint8)
_PIECE, _LEAST_PIECE = 32 << 20, 1 << 16  # bytes of columns that are in memory at a time, and rows
_SLAB, _LEAST_SLAB = 1 << 20, 64  # bytes, and rows, of dense rows that predictions are made of at a time


class DenseRows:
    """Rows with the bins of all features.

    Parameters
    ----------
    bins : ndarray of uint8, shape (n, row_bytes(p))
    first : ndarray of int64, shape (p + 1,)
        Where the bins of each feature begin in a histogram.
    by_columns : bool, default True
        Whether bins are kept by columns too, by which leaves are divided twice as fast or more. Always where they are
        files.

    Attributes
    ----------
    n_packed : int
        Words of scratch that `add` and `split` ask for.
    settles : bool
        Whether leaves become ranges of entries not before `settle`.
    """

    settles = False

    def __init__(self, bins, first, by_columns=True):
        p = len(first) - 1
        self.bins, self._first, self._words = bins, first, bins.view(np.uint32)
        self._columns, self._pages = bins.T[:p], Pages(bins)
        if self._pages.are_mapped:
            self._columns = self._pages.beside((p, len(bins)), np.uint8, self._write_columns)
        elif by_columns:
            self._columns = np.empty((p, len(bins)), np.uint8)
            binning.transpose(bins, self._columns)
        self.n_packed, self._pages_by_column = -(-p // 4) * 4 * growing.PACKED_BINS, Pages(self._columns)

    def _write_columns(self, file):
        p, n = self._columns.shape
        step = max(_PIECE // max(p, 1), _LEAST_PIECE)
        for start in range(0, n, step):
            piece = np.empty((p, min(step, n - start)), np.uint8)
            with self._pages:
                binning.transpose(self.bins[start : start + step], piece)
            for f in range(p):
                file.write(f, piece[f : f + 1], start)

    def __len__(self):
        return len(self.bins)

    def add(self, entries, packed, sums, most):
        """Add all rows to a histogram; see `daskdml.kernels.growing.add_rows`."""
        self.add_range(entries, 0, len(self), packed, sums, most)

    def add_range(self, entries, start, stop, packed, sums, most):
        """Add a range of entries to a histogram."""
        with self._pages:
            growing.add_rows(self._words, entries, start, stop, packed, self._first, sums, most)

    def split(self, entries, segments, splits, goes_right, adds, packed, sums, spare, most, took):
        """Divide leaves and add up a child of each; see `daskdml.kernels.growing.split_leaves`."""
        with self._pages, self._pages_by_column:
            growing.split_leaves(
                self._words, self._columns, entries, segments, splits, goes_right, adds, packed, self._first, sums,
                spare, most, took,
            )  # fmt: skip

    def mark(self, feature, entries, start, stop, goes_right, bits):
        """Write which rows of a range of entries go right; see `daskdml.kernels.growing.mark_rows`."""
        growing.mark_rows(self._columns[feature], entries, start, stop, goes_right, bits)

    def predict(self, model, raw):
        """Add all trees of an `Ensemble` to raw predictions."""
        with self._pages:
            model.add_binned(self.bins, raw)


class Codes:
    """Codes of the stored values of rows; see `daskdml.kernels.stored`.

    Parameters
    ----------
    codes : ndarray of uint16 or uint32
    indptr : ndarray of int64, shape (n + 1,)
        From 0.
    """

    def __init__(self, codes, indptr):
        self.codes, self.indptr = codes, indptr

    def __len__(self):
        return len(self.indptr) - 1

    def __getitem__(self, rows):
        first, last = self.indptr[rows.start], self.indptr[rows.stop]
        return Codes(self.codes[first:last], self.indptr[rows.start : rows.stop + 1] - first)

    @classmethod
    def stacked(cls, parts, is_whole):
        """Put CSR matrices of codes on top of each other; see `stacked`."""
        begins = np.cumsum([0, *(part.nnz for part in parts)])
        ends = [part.indptr[1:].astype(np.int64) + begin for part, begin in zip(parts, begins)]
        return cls(stacked([part.data for part in parts], is_whole), np.concatenate([begins[:1], *ends]))


def stacked(parts, is_whole):
    """Put arrays on top of each other; where all lie so already, in one array, nothing is copied."""
    n, first = sum(map(len, parts)), parts[0]
    if is_whole:
        return np.lib.stride_tricks.as_strided(first, (n, *first.shape[1:]), first.strides, writeable=False)
    return np.concatenate(parts, out=None if first.ndim == 1 else empty_rows(n, first.shape[1], first.dtype))


class StoredRows:
    """Rows with codes of their stored values.

    Parameters
    ----------
    rows : Codes
    first : ndarray of int64, shape (p + 1,)
    zero : ndarray of uint8, shape (p,)
        The bins of zero.
    by_columns : bool, default True
        Whether codes are kept by columns too, five bytes a value and nine a row: large leaves are divided in time of
        what a column stores then.
    """

    settles = True

    def __init__(self, rows, first, zero, by_columns=True):
        self._codes, n = rows.codes, len(rows)
        self._indptr = rows.indptr.astype(np.uint32) if len(rows.codes) < 1 << 32 else rows.indptr
        self._first, self._zero, self.n_packed = first, zero, int(first[-1])
        self._windows, self._leaves, self._n_nodes, self._pages = {}, None, 1, Pages(rows.codes)
        self._columns, self._least = _NO_COLUMNS, n + 1
        if by_columns:
            self._columns = stored.by_columns(self._codes, self._indptr, first)
            self._least = 1 + len(self._codes) // (_WALKED_A_SEARCH * max(len(zero), 1))
            self._slots, self._listed = np.empty(n, np.uint8), np.empty(n, np.uint64)

    def __len__(self):
        return len(self._indptr) - 1

    def add(self, entries, packed, sums, most):
        """Add all rows to a histogram: those of a new tree.

        See `daskdml.kernels.stored_leaves.add_rows`.
        """
        self._begin(entries)
        with self._pages:
            stored_leaves.add_rows(
                self._codes, self._indptr, entries, 0, len(self), packed, self._first, self._zero,
                self._windows_of(most), sums,
            )  # fmt: skip

    def _begin(self, entries):
        nodes, used = np.zeros((_NODES, 3), np.int64), np.zeros(2, np.int64)
        if len(self) < self._least:  # a list
            nodes[0, 1] = used[0] = len(self)
            self._leaves = stored_leaves.Leaves(nodes, np.empty(0, np.uint8), entries, used)
        else:
            nodes[0], used[1], self._slots[:] = (-1, len(self), -1), 1, 0
            self._leaves = stored_leaves.Leaves(nodes, self._slots, self._listed, used)
        self._n_nodes = 1

    def split(self, entries, _, splits, goes_right, adds, packed, sums, spare, most, took):
        """Divide leaves and add up a child of each; see `daskdml.kernels.stored_leaves.split_leaves`."""
        self._n_nodes = max(self._n_nodes, int(splits[:, 2:].max()) + 1)
        if self._n_nodes > len(self._leaves.nodes):
            nodes = np.zeros((2 * self._n_nodes, 3), np.int64)
            nodes[: len(self._leaves.nodes)] = self._leaves.nodes
            self._leaves = self._leaves._replace(nodes=nodes)
        with self._pages:
            stored_leaves.split_leaves(
                self._codes, self._indptr, self._columns, entries, self._leaves, splits, goes_right, adds, packed,
                self._first, self._zero, self._windows_of(most), sums, spare, self._least, took,
            )  # fmt: skip

    def settle(self, entries, segments, leaves, spare):
        """Let the entries of each leaf of a tree be a range; see `daskdml.kernels.stored_leaves.settle`."""
        if self._leaves.listed is entries:
            segments[leaves] = self._leaves.nodes[leaves, :2]
        else:
            stored_leaves.settle(entries, self._leaves, self._n_nodes, leaves, segments, spare)

    def _windows_of(self, most):
        if most not in self._windows:
            self._windows[most] = stored_leaves.find_windows(self._codes, self._indptr, self.n_packed, most)
        return self._windows[most]

    def predict(self, model, raw):
        """Add all trees of an `Ensemble` to raw predictions."""
        p = len(self._zero)
        feature_of, wanted = np.repeat(np.arange(p, dtype=np.int32), np.diff(self._first)), model.features
        step = max(_SLAB // max(p, 1), _LEAST_SLAB)
        for start in range(0, len(self), step):
            dense = np.empty((min(step, len(self) - start), p), np.uint8)
            with self._pages:
                stored.fill_rows(self._codes, self._indptr, start, self._first, feature_of, self._zero, wanted, dense)
            model.add_binned(dense, raw[start : start + len(dense)])


class Tiles:
    """Bins of some of the panels of rows, each panel the bins of some features.

    Parameters
    ----------
    parts : dict of int to ndarray of uint8
        By the number of the panel.
    """

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows):
        return Tiles({j: part[rows] for j, part in self.parts.items()})


class TileRows:
    """Rows of which this rank has the bins of some features, others the others.

    Parameters
    ----------
    tiles : Tiles
    first : ndarray of int64, shape (p + 1,)
    panels : tuple of slice
        The features of each panel.
    by_columns : bool, default True
        See `DenseRows`.

    Attributes
    ----------
    panels : tuple of slice
    held : tuple of int
        Numbers of the panels that are here.
    counts : bool
        Whether the rows count on this rank, in sums that several ranks could contribute to: it has the first panel.
    """

    settles = False

    def __init__(self, tiles, first, panels, by_columns=True):
        self._n, self.panels, self._first, self.counts = len(tiles), panels, first, 0 in tiles.parts
        self.held = tuple(tiles.parts)
        self._rows = {
            j: DenseRows(bins, first[panels[j].start : panels[j].stop + 1] - first[panels[j].start], by_columns)
            for j, bins in tiles.parts.items()
        }
        self.n_packed = max(rows.n_packed for rows in self._rows.values())

    def __len__(self):
        return self._n

    def add(self, entries, packed, sums, most):
        """Add all rows to a histogram, of the features that are here."""
        self._add(entries, 0, self._n, packed, sums, most)

    def _add(self, entries, start, stop, packed, sums, most):
        for j, rows in self._rows.items():
            a, b = self._first[[self.panels[j].start, self.panels[j].stop]]
            own = np.zeros((3, b - a), np.int64)
            rows.add_range(entries, start, stop, packed[: rows.n_packed], own, most)
            sums[:, a:b] += own

    def mark(self, entries, segments, splits, goes_right):
        """Return which rows go right, of leaves that are divided by features that are here; 0 for all others."""
        bits = np.zeros(self._n, np.uint8)
        for (feature, node, _, _), table in zip(splits.tolist(), goes_right):
            for j, rows in self._rows.items():
                if self.panels[j].start <= feature < self.panels[j].stop:
                    rows.mark(feature - self.panels[j].start, entries, *segments[node].tolist(), table, bits)
        return bits

    def split(self, bits, entries, segments, splits, adds, packed, sums, spare, most, took):
        """Divide leaves as bits say, and add up a child of each."""
        nothing, tables = np.empty((0, 0), np.uint32), np.zeros((len(splits), 256), np.uint8)
        tables[:, 1] = 1
        by_bit = splits.copy()
        by_bit[:, 0] = 0
        none, first = np.full(len(adds), -1), np.zeros(1, np.int64)
        started = time.perf_counter_ns()
        growing.split_leaves(
            nothing, bits[None], entries, segments, by_bit, tables, none, packed, first, sums, spare, most,
            np.zeros(2, np.int64),
        )  # fmt: skip
        now = time.perf_counter_ns()
        for s in np.flatnonzero(adds >= 0):
            self._add(entries, *segments[splits[s, 2 + adds[s]]].tolist(), packed, sums[s], most)
        took += now - started, time.perf_counter_ns() - now

    def walk(self, tree, nodes):
        """Return which rows go right from the nodes of a tree where they are, by features that are here; else 0.

        Of numbers: categories are never in panels.
        """
        bits, feature = np.zeros(self._n, np.uint8), tree.feature[nodes]
        for j, rows in self._rows.items():
            own = np.flatnonzero((feature >= self.panels[j].start) & (feature < self.panels[j].stop))
            at, bins = nodes[own], rows.bins[own, feature[own] - self.panels[j].start]
            goes_left = np.where(bins == growing.MISSING, tree.missing_left[at], bins <= tree.bin[at])
            bits[own] = ~goes_left
        return bits
