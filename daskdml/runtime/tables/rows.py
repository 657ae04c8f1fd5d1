"""A table of rows that are named by their numbers: coefficients of very many features, of which a batch has a few."""

import functools
import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels.numbered_rows import add_to_rows, deal, take_rows
from daskdml.runtime.shelf import Shelf
from daskdml.utils.memory import Recycled

MOST_ROWS = 2**31 - 1  # their numbers are of 32 bits, which half the bytes of most messages are
LARGE, BLOCK_SHIFT = 1 << 20, 7
LEAST_FACTOR = 1e-200
MOST_GROWTH = 20.0  # of what is added, as a power of e: then all that a part holds is multiplied out


class RowTable:
    """Rows of numbers by their numbers, 0 to ``n_rows - 1``; zeros at first.

    The first columns decay: what is read and added at a log scale ``s`` stands for ``exp(s)`` times what is held. So a
    penalty that shrinks all of them at every step costs nothing before they are read.

    Parameters
    ----------
    n_rows : int
    width : int, default 1
        Numbers of a row.
    dtype : {"float32", "float64"}, default "float64"
    n_decaying : int, default 0
        Columns that decay.
    start : (ndarray of int32, ndarray of shape (n, width)) or SavedRows, optional
        Numbers of rows that are not zeros at first, and these rows; or where they were put down.

    Raises
    ------
    ValueError
        For more rows than 2**31 - 1.

    Notes
    -----
    Rows are dealt to shards by ``number * factor % n_rows``, with a factor about the golden section of ``n_rows``:
    those that follow each other, as frequent features may, lie on different ones. From 2**20 rows on it is blocks of
    128 of them that are dealt: a page of the result is of few shards. Nothing is held beside the numbers, and the
    system makes pages of zeros when they are first written to.

    Examples
    --------
    >>> RowTable(10, 2).n_numbers
    20
    """

    def __init__(self, n_rows, width=1, dtype="float64", *, n_decaying=0, start=None):
        if not (isinstance(n_rows, numbers.Integral) and 0 < n_rows <= MOST_ROWS):
            raise ValueError(f"n_rows must be an int from 1 to {MOST_ROWS}, got {n_rows!r}.")
        self.n_rows, self.width, self.dtype = int(n_rows), int(width), np.dtype(dtype)
        self.n_decaying, self.start = int(n_decaying), start

    @property
    def n_numbers(self):
        """How many numbers it has."""
        return self.n_rows * self.width

    @property
    def shift(self):
        """Rows of a block, as a power of two."""
        return BLOCK_SHIFT if self.n_rows >= LARGE else 0

    @property
    def n_blocks(self):
        """Blocks that rows are dealt by; the last one may be longer than what is left."""
        return -(-self.n_rows >> self.shift)

    @functools.cached_property
    def factor(self):
        """What the numbers of blocks are multiplied by; it has no divisor in common with ``n_blocks``."""
        factor = max(round(self.n_blocks * (math.sqrt(5) - 1) / 2), 1)
        while math.gcd(factor, self.n_blocks) > 1:
            factor += 1
        return factor

    def deal(self, keys, n_parts, empty=np.empty):
        """Find where rows lie; see `daskdml.kernels.numbered_rows.deal`."""
        return deal(keys, self.factor, self.n_blocks, -(-self.n_blocks // n_parts), n_parts, self.shift, empty)

    def numbers_of(self, part, n_parts):
        """Return the numbers of the rows that a part holds, in its order; some may not be rows, but above them.

        Parameters
        ----------
        part, n_parts : int

        Returns
        -------
        ndarray of int64
        """
        size = -(-self.n_blocks // n_parts)
        slots = np.arange(part * size, max(min((part + 1) * size, self.n_blocks), part * size), dtype=np.int64)
        blocks = slots * pow(self.factor, -1, self.n_blocks) % self.n_blocks
        return ((blocks << self.shift)[:, None] + np.arange(1 << self.shift)).reshape(-1)

    def most_parts(self, least=4096):
        """Return how many parts it may be cut into: those of at least so many numbers, and one."""
        return max(-(-self.n_numbers // least), 1)


class SavedRows(NamedTuple):
    """A table that was put down, part by part.

    Attributes
    ----------
    folder : str
        Of a shelf that all see.
    names : list of str
        Of what the parts have returned as their `RowPart.state`, in their order.
    version : int
    """

    folder: str
    names: list
    version: int

    def fill(self, part):
        """Let a part of the same table hold its rows, whatever number of parts it was cut into."""
        shelf, n_saved = Shelf(self.folder, is_shared=True), len(self.names)
        for k, name in enumerate(self.names):
            if n_saved == part.n_parts and k != part.number:
                continue
            state = shelf.get(name, self.version)
            if n_saved == part.n_parts:
                return part.restore(state)
            numbers = part.table.numbers_of(k, n_saved)
            is_one = numbers < part.table.n_rows
            own, places = part.own(numbers[is_one].astype(np.int32))
            part.apply([(places, state["rows"][is_one][own], float(state["log scale"]), -1.0)])
        return None


class RowPart:
    """Rows of a `RowTable` on a shard.

    Parameters
    ----------
    table : RowTable
    number, n_parts : int
        Which part of how many.
    is_empty : bool, default False
        Whether it is not to hold what the table begins with.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, width)
    log_scale : float
        At which they are held.
    least_scale : float
        At which anybody has added to them.
    """

    def __init__(self, table, number, n_parts, is_empty=False):
        self.table, self.number, self.n_parts, self.log_scale, self.least_scale = table, number, n_parts, 0.0, 0.0
        self.rows = np.zeros((len(table.numbers_of(number, n_parts)), table.width), table.dtype)
        self._recycled = Recycled()
        if is_empty:
            return
        if isinstance(table.start, SavedRows):
            table.start.fill(self)
        elif table.start is not None:
            own, places = self.own(table.start[0])
            self.rows[places] = table.start[1][own]

    def own(self, keys):
        """Return which of some keys are of this part, and where it has their rows."""
        where, places, edges = self.table.deal(keys, self.n_parts)
        first, stop = edges[self.number : self.number + 2].tolist()
        return np.flatnonzero((where >= first) & (where < stop)), places[first:stop]

    def apply(self, updates):
        """Take in updates one after the other, each (places, rows, log scale, most shrinkage)."""
        for places, rows, log_scale, most_shrinkage in updates:
            if self.table.n_decaying and self.log_scale - log_scale > MOST_GROWTH:
                self.rescale(log_scale)
            self.least_scale = min(self.least_scale, log_scale)
            factor = math.exp(self.log_scale - log_scale)
            if factor < LEAST_FACTOR:  # of one that was so far behind nothing is left
                continue
            add_to_rows(self.rows, places, rows, factor, self.table.n_decaying, most_shrinkage)

    def rescale(self, log_scale):
        """Hold the same at another log scale."""
        self.rows[:, : self.table.n_decaying] *= math.exp(log_scale - self.log_scale)
        self.log_scale = log_scale

    def read(self, what):
        """Return the rows of some (places, log scale)."""
        places, log_scale = what
        # A reader that is behind others is given what they have left: at its own time what came since would be more.
        factor = math.exp(min(log_scale, self.least_scale) - self.log_scale)
        return take_rows(self.rows, places, factor, self.table.n_decaying, self._recycled.empty)

    def state(self):
        """Return copies of all that is held."""
        return {"rows": self.rows.copy(), "log scale": self.log_scale, "least scale": self.least_scale}

    def restore(self, state):
        """Be what `state` has returned."""
        rows = np.array(state["rows"])
        if rows.shape != self.rows.shape:
            raise ValueError(f"Part {self.number} of {self.n_parts} has rows {self.rows.shape}, and got {rows.shape}.")
        self.rows = rows
        self.log_scale, self.least_scale = float(state["log scale"]), float(state["least scale"])


class Dealt(NamedTuple):
    """Some rows of a table, and where they lie.

    Attributes
    ----------
    where : ndarray of int32, shape (n,)
        The place of each number that was asked for among all by shards.
    parts : dict of int to (int, int, ndarray of int32)
        For each shard that has some, in their order: where its own begin and end, and their places there.
    """

    where: Any
    parts: dict


class RowView:
    """A `RowTable` as a rank sees it.

    Parameters
    ----------
    tables : daskdml.runtime.tables.session.Tables
    name : str
    """

    def __init__(self, tables, name):
        self._tables, self.name, self._table = tables, name, tables.layout.tables[name]

    def deal(self, keys):
        """Find where rows lie; the result serves to read them and to add to them.

        Parameters
        ----------
        keys : ndarray of int32, shape (n,)
            Each once.

        Returns
        -------
        Dealt
        """
        layout = self._tables.layout
        where, places, edges = self._table.deal(keys, layout.n_parts(self.name), self._tables.recycled.empty)
        edges = edges.tolist()
        return Dealt(where, {
            layout.shard_of_part(self.name, k): (a, b, places[a:b])
            for k, (a, b) in enumerate(zip(edges, edges[1:])) if b > a
        })  # fmt: skip

    def wanted(self, dealt, log_scale):
        """Return what to ask each shard for; see `daskdml.runtime.tables.session.Tables.ask`."""
        return {shard: {self.name: (places, log_scale)} for shard, (_, _, places) in dealt.parts.items()}

    def rows_of(self, dealt, found):
        """Put the answers of the shards together: rows in the order of the keys.

        Parameters
        ----------
        dealt : Dealt
        found : dict
            By shards and names.

        Returns
        -------
        ndarray of shape (n, width)
        """
        empty = self._tables.recycled.empty
        by_shards = empty((len(dealt.where), self._table.width), self._table.dtype)
        for shard, (a, b, _) in dealt.parts.items():
            by_shards[a:b] = found[shard][self.name]
        return take_rows(by_shards, dealt.where, 1.0, 0, empty)

    def add(self, dealt, rows, log_scale, most_shrinkage=-1.0):
        """Add to rows; what is added counts from the next push on.

        Parameters
        ----------
        dealt : Dealt
        rows : ndarray of shape (n, width)
            By shards, see ``dealt.where``; not to be changed any more.
        log_scale : float
            Of the columns that decay.
        most_shrinkage : float, default -1.0
            See `daskdml.kernels.numbered_rows.add_to_rows`.
        """
        self._tables._added[self.name] = [
            (shard, (places, rows[a:b], float(log_scale), float(most_shrinkage)))
            for shard, (a, b, places) in dealt.parts.items()
        ]

    def _cut(self, added):
        return added

    def held(self, copies):
        """Return the parts that this process holds, perhaps also as copies: `RowPart` by the number of the part."""
        layout, node, found = self._tables.layout, self._tables.wire.node, {}
        for part in range(layout.n_parts(self.name)):
            replica = node.replicas.get(layout.shard_of_part(self.name, part))
            if replica is not None and (replica.is_head or (copies and node.name in replica.chain)):
                found[part] = replica.store.parts[self.name]
        return found

    def copy_of(self, part, log_scale):
        """Return a part that other processes hold."""
        layout = self._tables.layout
        n_parts = layout.n_parts(self.name)
        shard, copied = layout.shard_of_part(self.name, part), RowPart(self._table, part, n_parts, is_empty=True)
        places = np.arange(len(copied.rows), dtype=np.int32)
        copied.rows = self._tables._pull({shard: {self.name: (places, log_scale)}})[shard][self.name]
        copied.log_scale = log_scale
        return copied
