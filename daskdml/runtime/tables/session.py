"""Tables as one rank of a program sees them: read, add to, and say when a clock is over."""

import numpy as np

from daskdml.comm.parameter_server import CONTROL, Leave, Newcomer
from daskdml.runtime.tables.spec import SparseTable, add_up

MOST_UNACKNOWLEDGED = 4  # clocks that a client may be ahead of what is acknowledged: back-pressure


def take_part(wire, name, comm, layout, tells_all):
    """Return the `Tables` of a rank that begins; the client that its worker had in the group before leaves.

    Parameters
    ----------
    wire : object
        See `Tables`; ``clients`` is a dict of those on this worker, by their names.
    name : str
        Of the new client.
    comm : daskdml.runtime.spmd.Comm
    layout : Layout
    tells_all : bool
        See `daskdml.comm.parameter_server.Client`.
    """
    for old, client in list(wire.clients.items()):
        if not isinstance(client, Newcomer):  # what it pushed counts, though its group is over
            _settle(wire, client)
        _leave(wire, old)
        del wire.clients[old]
    newcomer = wire.clients[name] = Newcomer(name)
    wire.act(newcomer.retry)
    wire.wait(lambda: newcomer.entered is not None)
    client, messages = newcomer.client(tells_all=tells_all)
    wire.clients[name] = client
    wire.act(lambda: messages)
    comm.barrier()  # in step, a shard must know all ranks before one of them has completed a clock
    return Tables(client, layout, wire)


def _settle(wire, client):
    """Wait until all that a client has pushed is acknowledged."""
    wire.act(client.retry)
    wire.wait(lambda: not client.n_unacknowledged)


def _leave(wire, name):
    wire.act(lambda: [(CONTROL, Leave(name))])


class Tables:
    """The tables of a program, by their names.

    Parameters
    ----------
    client : daskdml.comm.parameter_server.Client
    layout : Layout
    wire : object
        ``act(call, *args)`` sends the messages that a call of the client returns; ``wait(condition)`` returns once that
        is true, or raises.

    Notes
    -----
    What is added counts from the next `push` on, which completes a clock of this rank. What is read misses nothing that
    the program's consistency promises: with BSP all that any rank has pushed in earlier clocks, with SSP(s) all but the
    last s clocks, with ASP nothing is promised. Parts of dense tables are sent again only when they have changed.
    """

    def __init__(self, client, layout, wire):
        self.client, self.layout, self.wire = client, layout, wire
        self._added = {}

    def __getitem__(self, name):
        """Return a view of a table."""
        if name not in self.layout.tables:
            known = ", ".join(self.layout.tables) or "none"
            raise ValueError(f"There is no table {name!r}; this program has {known}.")
        kind = SparseView if isinstance(self.layout.tables[name], SparseTable) else DenseView
        return kind(self, name)

    @property
    def clock(self):
        """How often this rank has pushed."""
        return self.client.clock

    def push(self):
        """Send what was added, and complete a clock; waits while too much is not acknowledged."""
        updates = {}
        for name, added in self._added.items():
            for shard, part in self[name]._cut(added):
                updates.setdefault(shard, {})[name] = part
        self._added = {}
        self.wire.act(self.client.push, updates)
        self.wire.wait(lambda: self.client.n_unacknowledged < MOST_UNACKNOWLEDGED)

    def settle(self):
        """Wait until all that was pushed is acknowledged: every replica of its shards has it then."""
        self.wire.wait(lambda: not self.client.n_unacknowledged)

    def leave(self):
        """Wait until all that was pushed is acknowledged, and let nobody wait for this rank any more."""
        self.settle()
        _leave(self.wire, self.client.name)

    def _pull(self, wanted):
        """Return what was asked for of each shard."""
        self.wire.act(self.client.pull, wanted)
        self.wire.wait(lambda: self.client.is_answered)
        return self.client.answers


class DenseView:
    """A dense table."""

    def __init__(self, tables, name):
        self._tables, self.name, self._table = tables, name, tables.layout.tables[name]

    def get(self):
        """Return the array; a copy."""
        parts = self._tables.layout.parts(self.name)
        found = self._tables._pull(dict.fromkeys(shard for shard, _, _ in parts))
        return np.concatenate([found[shard][self.name] for shard, _, _ in parts]).reshape(self._table.shape)

    def add(self, update):
        """Add an array of the table's shape.

        Raises
        ------
        ValueError
            For another shape.
        """
        update = np.asarray(update)
        if update.shape != self._table.shape:
            raise ValueError(f"Table {self.name!r} has shape {self._table.shape}, got an update of {update.shape}.")
        update = update.astype(self._table.dtype).reshape(-1)
        own = self._tables._added
        own[self.name] = own[self.name] + update if self.name in own else update

    def _cut(self, update):
        return [(shard, update[a:b]) for shard, a, b in self._tables.layout.parts(self.name)]


class SparseView:
    """A sparse table."""

    def __init__(self, tables, name):
        self._tables, self.name, self._table = tables, name, tables.layout.tables[name]

    def get_rows(self, keys):
        """Return the rows of some keys, zeros for those that nobody has added to.

        Parameters
        ----------
        keys : ndarray of int64, shape (n,)

        Returns
        -------
        ndarray of shape (n, width)
        """
        keys = _checked_keys(keys)
        order, edges, shards = self._by_shard(keys)
        parts = {shard: order[a:b] for shard, a, b in zip(shards, edges, edges[1:])}
        found = self._tables._pull({shard: {self.name: keys[at]} for shard, at in parts.items()})
        rows = np.empty((len(keys), self._table.width), self._table.dtype)
        for shard, at in parts.items():
            rows[at] = found[shard][self.name]
        return rows

    def add_rows(self, keys, rows):
        """Add to the rows of some keys; to one that is named twice, both.

        Parameters
        ----------
        keys : ndarray of int64, shape (n,)
        rows : ndarray of shape (n, width)

        Raises
        ------
        ValueError
            For rows of another shape.
        """
        keys, rows = _checked_keys(keys), np.asarray(rows, self._table.dtype)
        if rows.shape != (len(keys), self._table.width):
            raise ValueError(
                f"Table {self.name!r} takes rows of shape {(len(keys), self._table.width)} for {len(keys)} keys, got "
                f"{rows.shape}."
            )
        self._tables._added.setdefault(self.name, []).append((keys, rows.copy()))

    def _by_shard(self, keys):
        """Return an order of keys by shards, where each of them begins in it, and which they are."""
        shards = self._tables.layout.shards_of(keys)
        order = np.argsort(shards, kind="stable")
        named, first = np.unique(shards[order], return_index=True)
        return order, [*first.tolist(), len(keys)], named.tolist()

    def _cut(self, added):
        keys, rows = add_up(added, self._table)
        order, edges, shards = self._by_shard(keys)
        return [(shard, (keys[order[a:b]], rows[order[a:b]])) for shard, a, b in zip(shards, edges, edges[1:])]


def _checked_keys(keys):
    keys = np.asarray(keys)
    if keys.ndim != 1 or (len(keys) and keys.dtype.kind not in "iu"):
        raise ValueError(f"keys must be whole numbers of one dimension, got {keys.dtype} of shape {keys.shape}.")
    return keys.astype(np.int64)
