"""What tables there are, how they are cut into shards, and what a shard of them holds."""

import functools
import math
import numbers
import zlib
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels.copying import copy_pieces
from daskdml.kernels.hash_table import HashTable, add_rows, put_pieces
from daskdml.runtime.tables.rows import RowPart, RowTable
from daskdml.utils.memory import Recycled

LEAST_PART = 4096  # numbers of a dense table on a shard, lest a short vector take a message from every worker
SLAB_ROWS = 1 << 14
FLOATS = ("float32", "float64")
_KEY_STREAM = np.uint64(0x9E3779B97F4A7C15)


class DenseTable:
    """An array that all ranks read and add to.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : {"float32", "float64"}, default "float32"
    start : ndarray, or callable of (first, stop), optional
        What it is at first, or what returns that of entries ``first`` to ``stop - 1`` of the flat array, the same
        whenever it is asked: no process needs all of it then. Zeros by default.
    rule : object, optional
        What is done with what is added: ``n_moments``, and ``step(theta, update, moments, n_updates)``, which changes
        flat arrays in place and remembers nothing else. By default it is added. One with ``n_scalars`` is given a fifth
        argument: as many numbers that every push tells all shards, summed as updates are; and returns how many updates
        it was, which ``n_updates`` counts, this one not among them.
    moments : sequence of ndarray, optional
        Arrays of the shape that the rule's moments begin with; zeros by default.
    n_updates : int, default 0
        That were before.
    compression : codec of daskdml.compress, optional
        Makes what is sent of updates, of each shard's part for itself; what it leaves out is added to the next one.

    Raises
    ------
    ValueError
        For a shape, dtype, start, rule, moments or compression that does not fit.

    Examples
    --------
    >>> DenseTable((3, 2)).n_numbers
    6
    """

    def __init__(self, shape, dtype="float32", start=None, rule=None, *, moments=None, n_updates=0, compression=None):
        shape = (shape,) if isinstance(shape, numbers.Integral) else tuple(shape)
        if not all(isinstance(n, numbers.Integral) and n >= 0 for n in shape):
            raise ValueError(f"shape must be an int or a tuple of ints of at least 0, got {shape!r}.")
        self.shape, self.dtype, self.rule = shape, _float_dtype(dtype), _checked_rule(rule)
        if start is not None and not callable(start):
            start = np.asarray(start)
            if start.shape != shape:
                raise ValueError(f"start must have the table's shape {shape}, got {start.shape}.")
        self.start, self.moments, self.n_updates = start, self._checked_moments(moments), n_updates
        self.codec = _checked_codec(compression)

    def _checked_moments(self, moments):
        if moments is None:
            return None
        found = [np.shape(moment) for moment in moments]
        if found != [self.shape] * getattr(self.rule, "n_moments", 0):
            raise ValueError(
                f"moments must be arrays of the table's shape {self.shape}, as many as its rule has; got {found}."
            )
        return list(moments)

    @property
    def n_numbers(self):
        """How many numbers it has."""
        return math.prod(self.shape)

    def most_parts(self, least=LEAST_PART):
        """Return how many parts it may be cut into.

        Parameters
        ----------
        least : int, default 4096
            Numbers of a part.

        Returns
        -------
        int
        """
        return max(-(-self.n_numbers // least), 1)

    def _cut(self, n_shards, least):
        """Return the first entry of each part and one more at the end: as many parts as shards, or few long ones."""
        n_parts = min(n_shards, self.most_parts(least))
        return [self.n_numbers * k // n_parts for k in range(n_parts + 1)]

    def _first(self, begin, stop):
        """Return what some entries are at first."""
        if self.start is None:
            return np.zeros(stop - begin, self.dtype)
        part = self.start(begin, stop) if callable(self.start) else self.start.reshape(-1)[begin:stop]
        part = np.array(part, self.dtype)
        if part.shape != (stop - begin,):
            raise ValueError(f"start({begin}, {stop}) must return {stop - begin} numbers, got shape {part.shape}.")
        return part


class SparseTable:
    """Rows of numbers by keys of 64 bits; a row that nobody has added to is zeros, and takes no memory.

    Parameters
    ----------
    width : int, default 1
        Numbers of a row.
    dtype : {"float32", "float64"}, default "float32"
    rule : object, optional
        See `DenseTable`; it is given the rows that are added to, and their moments.

    Raises
    ------
    ValueError
        For a width, dtype or rule that is none.

    Examples
    --------
    >>> SparseTable(4).width
    4
    """

    def __init__(self, width=1, dtype="float32", rule=None):
        if not (isinstance(width, numbers.Integral) and width >= 1):
            raise ValueError(f"width must be an int of at least 1, got {width!r}.")
        self.width, self.dtype, self.rule = int(width), _float_dtype(dtype), _checked_rule(rule)

    def most_parts(self, least=LEAST_PART):
        """Return how many parts it may be cut into: any number.

        Parameters
        ----------
        least : int, default 4096
            Without effect: rows are dealt by their keys.

        Returns
        -------
        float
            Infinity.
        """
        return math.inf


def _float_dtype(dtype):
    dtype = np.dtype(dtype)
    if dtype.name not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(FLOATS)}, got {dtype.name!r}.")
    return dtype


def _checked_codec(codec):
    if codec is None:
        return None
    if codec.reduce_kind == "linear":
        raise ValueError(
            f"compression={codec} is added up by ranks that send at the same time, and a table is pushed to whenever "
            "one likes: take FP16(), QSGD(), TopK() or OneBit()."
        )
    if codec.exact or codec.unbiased or codec.reduce_kind == "sum":
        return codec
    from daskdml.compress import ErrorFeedback  # brings scikit-learn, 130 MB that a worker without codecs does not need

    return ErrorFeedback(codec)


def _checked_rule(rule):
    if rule is not None and not (hasattr(rule, "n_moments") and callable(getattr(rule, "step", None))):
        raise ValueError(f"rule must have n_moments and step(theta, update, moments, n_updates), got {rule!r}.")
    return rule


class Layout(NamedTuple):
    """Which part of which table is on which shard; the same on every rank.

    Attributes
    ----------
    tables : dict of str to DenseTable, SparseTable or RowTable
    n_shards : int
    least_part : int
        Numbers of a dense table on a shard that has some.
    saved : daskdml.runtime.tables.saving.Saving or None
        Where stores are filled from.
    """

    tables: Any
    n_shards: int
    least_part: int = LEAST_PART
    saved: Any = None

    def parts(self, name):
        """Return (shard, first, stop) of the parts of a dense table."""
        edges = self.tables[name]._cut(self.n_shards, self.least_part)
        return [(self.shard_of_part(name, k), a, b) for k, (a, b) in enumerate(zip(edges, edges[1:]))]

    def _begin(self, name):
        return zlib.crc32(name.encode())

    def n_parts(self, name):
        """Return how many parts a table of dense or numbered rows is cut into."""
        return min(self.n_shards, self.tables[name].most_parts(self.least_part))

    def shard_of_part(self, name, part):
        """Return the shard that has a part."""
        return (self._begin(name) + part) % self.n_shards

    def shards_of(self, keys):
        """Return the shard of each key of a sparse table: other bits of a hash than those that choose a slot there."""
        keys = np.asarray(keys, np.int64).view(np.uint64)
        with np.errstate(over="ignore"):
            mixed = (keys ^ (keys >> np.uint64(32))) * _KEY_STREAM
        return ((mixed >> np.uint64(32)) % np.uint64(self.n_shards)).astype(np.int64)

    def empty_store(self, shard):
        """Return what can be restored from a snapshot of a shard; what tables of rows begin with is not read."""
        return self.store(shard, is_empty=True)

    def store(self, shard, is_empty=False):
        """Return what a shard holds at first."""
        parts, is_filled = {}, self.saved is not None and not is_empty
        for name, table in self.tables.items():
            if isinstance(table, SparseTable):
                parts[name] = SparsePart(table)
            elif isinstance(table, RowTable):
                part = (shard - self._begin(name)) % self.n_shards
                if part < self.n_parts(name):
                    parts[name] = RowPart(table, part, self.n_parts(name), is_empty)
            else:
                own = [(a, b) for owner, a, b in self.parts(name) if owner == shard]
                if own:
                    (parts[name],) = (DensePart(table, a, b) for a, b in own)
        store = Store(parts)
        if is_filled:
            self.saved.fill(store, shard)
        return store


class Store:
    """What a shard holds: a part of each table; see `daskdml.comm.parameter_server.replica.Replica`.

    Parameters
    ----------
    parts : dict of str to DensePart or SparsePart
    """

    def __init__(self, parts):
        self.parts = parts

    def apply(self, updates):
        """Take in updates, dicts of what is added to each table: several of them as their sum."""
        for name in sorted({name for update in updates for name in update}):
            self.parts[name].apply([update[name] for update in updates if name in update])

    def read(self, what):
        """Return the parts of all dense tables for None, of one for its name; rows of sparse ones by their keys.

        True stands for all that `state` returns.
        """
        if what is True:
            return self.state()
        if isinstance(what, str):
            return self.parts[what].read()
        if what is None:
            return {name: part.read() for name, part in self.parts.items() if isinstance(part, DensePart)}
        return {name: self.parts[name].read(*(() if keys is None else (keys,))) for name, keys in what.items()}

    def state(self):
        """Return all of it, as values that travel."""
        return {name: part.state() for name, part in self.parts.items()}

    def restore(self, state):
        """Be what `state` has returned."""
        for name, part in self.parts.items():
            part.restore(state[name])


class DensePart:
    """Some entries of a dense table, flat; and a copy of them for readers, until they change."""

    def __init__(self, table, first, stop):
        self.table, self.rule, self.n_updates = table, table.rule, table.n_updates
        self.theta, self._copy, self._recycled = table._first(first, stop), None, Recycled()
        self.moments = [np.zeros_like(self.theta) for _ in range(getattr(table.rule, "n_moments", 0))]
        for moment, start in zip(self.moments, table.moments or ()):
            moment[:] = np.reshape(start, -1)[first:stop]

    def apply(self, updates):
        """Take in the sum of some updates, each (packet or array, scalars); or be what one of them is the state of."""
        self._copy = None
        for update in updates:
            if isinstance(update, dict):
                return self.restore(update)
        codec = self.table.codec
        arrays = [array if codec is None else codec.decode(array) for array, _ in updates]
        update = functools.reduce(np.add, arrays)
        if self.rule is None:
            self.theta += update
        elif getattr(self.rule, "n_scalars", 0):
            scalars = functools.reduce(np.add, [np.asarray(scalars) for _, scalars in updates])
            update = np.asarray(update, self.theta.dtype)  # decoded ones are float64
            self.n_updates += self.rule.step(self.theta, update, self.moments, self.n_updates, scalars)
        else:
            self.n_updates += 1
            self.rule.step(self.theta, update, self.moments, self.n_updates)
        return None

    def read(self, what="theta"):
        """Return a copy that is not to be changed; for "moments" those, and how many updates there were."""
        if what == "moments":
            return {"moments": [moment.copy() for moment in self.moments], "n": self.n_updates}
        if self._copy is None:
            self._copy = self._recycled.copy(self.theta)
            self._copy.flags.writeable = False
        return self._copy

    def state(self):
        """Return copies of all arrays."""
        return {
            "theta": self.theta.copy(), "moments": [moment.copy() for moment in self.moments], "n": self.n_updates,
        }  # fmt: skip

    def restore(self, state):
        """Be what `state` has returned."""
        self.theta, self.n_updates, self._copy = np.array(state["theta"]), state["n"], None
        self.moments = [np.array(moment) for moment in state["moments"]]


class SparsePart:
    """Rows of a sparse table: theta and moments side by side, in slabs, in the order in which keys came."""

    def __init__(self, table):
        self.table, self.rule, self.n_updates = table, table.rule, 0
        self.n_moments = getattr(table.rule, "n_moments", 0)
        self._numbers, self._slabs = HashTable(), []

    @property
    def _width(self):
        return self.table.width * (1 + self.n_moments)

    @property
    def _row_bytes(self):
        return self._width * self.table.dtype.itemsize

    def apply(self, updates):
        """Take in the sum of some updates, each (keys without repetition, rows)."""
        keys, rows = updates[0] if len(updates) == 1 else add_up(updates, self.table)
        where = self._addresses(self._insert(keys))
        held = np.empty((len(keys), self._width), self.table.dtype)
        copy_pieces(where, np.full(len(keys), self._row_bytes), held)
        self.n_updates += 1
        width = self.table.width
        if self.rule is None:
            held[:, :width] += rows
        else:
            parts = [np.ascontiguousarray(part).reshape(-1) for part in np.split(held, 1 + self.n_moments, axis=1)]
            theta, *moments = parts
            self.rule.step(theta, np.ascontiguousarray(rows).reshape(-1), moments, self.n_updates)
            held = np.concatenate([part.reshape(len(keys), width) for part in parts], axis=1)
        put_pieces(np.ascontiguousarray(held), where, self._row_bytes)

    def _insert(self, keys):
        numbers = self._numbers.insert(np.ascontiguousarray(keys, np.int64))
        while len(self._slabs) * SLAB_ROWS < self._numbers.n_keys:
            self._slabs.append(np.zeros((SLAB_ROWS, self._width), self.table.dtype))
        return numbers

    def _addresses(self, numbers):
        slabs = np.array([slab.ctypes.data for slab in self._slabs], np.int64)
        return slabs[numbers // SLAB_ROWS] + numbers % SLAB_ROWS * self._row_bytes

    def read(self, keys):
        """Return the rows of some keys; zeros for those that nobody has added to."""
        numbers = self._numbers.find(np.ascontiguousarray(keys, np.int64))
        rows, known = np.zeros((len(keys), self.table.width), self.table.dtype), numbers >= 0
        found = np.empty((int(known.sum()), self.table.width), self.table.dtype)
        n_bytes = self.table.width * self.table.dtype.itemsize
        copy_pieces(self._addresses(numbers[known]), np.full(len(found), n_bytes), found)
        rows[known] = found
        return rows

    def state(self):
        """Return keys and rows, with moments, in the order in which keys came."""
        n = self._numbers.n_keys
        rows = np.concatenate([*self._slabs, np.zeros((0, self._width), self.table.dtype)])[:n]
        return {"keys": self._numbers.keys(), "rows": rows, "n": self.n_updates}

    def restore(self, state):
        """Be what `state` has returned."""
        self._numbers, self._slabs, self.n_updates = HashTable(), [], state["n"]
        where = self._addresses(self._insert(state["keys"]))
        put_pieces(np.ascontiguousarray(state["rows"]), where, self._row_bytes)


def add_up(updates, table):
    """Return (distinct keys, sums of their rows) of several (keys, rows), each with any repetitions.

    Parameters
    ----------
    updates : list of (ndarray of int64, ndarray of shape (n, width))
    table : SparseTable
    """
    numbers = HashTable()
    which = [numbers.insert(np.ascontiguousarray(keys, np.int64)) for keys, _ in updates]
    sums = np.zeros((numbers.n_keys, table.width), table.dtype)
    for numbers_of, (_, rows) in zip(which, updates):
        add_rows(numbers_of, np.ascontiguousarray(rows, table.dtype), sums)
    return numbers.keys(), sums
