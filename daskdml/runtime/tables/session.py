"""Tables as one rank of a program sees them: read, add to, and say when a clock is over."""

import zlib

import numpy as np

from daskdml.comm.parameter_server import CONTROL, Leave, Newcomer
from daskdml.runtime.tables.rows import RowTable, RowView
from daskdml.runtime.tables.spec import DenseTable, SparseTable, add_up
from daskdml.utils.memory import Recycled

MOST_UNACKNOWLEDGED = 4  # clocks that a client may be ahead of what is acknowledged: back-pressure


def take_part(wire, name, comm, layout, service):
    """Return the `Tables` of a rank that begins; the client that its worker had in the group before leaves.

    Parameters
    ----------
    wire : object
        See `Tables`; ``clients`` is a dict of those on this worker, by their names.
    name : str
        Of the new client.
    comm : daskdml.runtime.spmd.Comm
    layout : Layout
    service : daskdml.runtime.tables.network.Service
    """
    if comm.generation > 1:  # those whom scripts are about are not all here any more
        wire.node.forget_scripts()
    see_off(wire, list(wire.clients))
    newcomer = wire.clients[name] = Newcomer(name)
    wire.act(newcomer.retry)
    wire.wait(lambda: newcomer.entered is not None)
    client, messages = newcomer.client(near=service.near(wire.node), **service.of_clients)
    wire.clients[name] = client
    wire.act(lambda: messages)
    comm.barrier()  # in step, a shard must know all ranks before one of them has completed a clock
    return Tables(client, layout, wire)


def see_off(wire, names):
    """Let clients of a group that is over leave, when all that they have pushed is acknowledged: it counts."""
    for name in names:
        client = wire.clients.get(name)
        if client is None:
            continue
        if not isinstance(client, Newcomer):
            wire.act(client.retry)
            wire.wait(lambda client=client: not client.n_unacknowledged)
        _leave(wire, name)
        wire.clients.pop(name, None)


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
        self._added, self._codec_states, self._is_asked, self.recycled = {}, {}, False, Recycled(most_held=16)
        self._has_left, self._told = False, {}

    def __getitem__(self, name):
        """Return a view of a table."""
        if name not in self.layout.tables:
            known = ", ".join(self.layout.tables) or "none"
            raise ValueError(f"There is no table {name!r}; this program has {known}.")
        kinds = (DenseTable, DenseView), (SparseTable, SparseView), (RowTable, RowView)
        return next(view for table, view in kinds if isinstance(self.layout.tables[name], table))(self, name)

    @property
    def moved(self):
        """Bytes that this process has sent to others and received from them for tables, its node's among them."""
        return self.wire.moved

    @property
    def clock(self):
        """How often this rank has pushed."""
        return self.client.clock

    @property
    def has_added(self):
        """Whether something was added and not pushed."""
        return bool(self._added)

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

    def agree(self, comm):
        """Wait until this rank knows all chains that any rank does, and reads from none of before.

        What others had pushed and settled before they came here is in what is read from then on.
        """
        known = -1 if self._has_left else self.client.directory.number
        newest = int(comm.allreduce(np.array([known]), "max")[0])
        if not self._has_left and known < newest:
            self.wire.act(self.client.retry)  # asks for the directory
            self.wire.wait(lambda: self.client.directory.number >= newest)

    def begin_meeting(self):
        """Say that this rank pushes nothing before all have come: who reads what it has yet to push waits in vain."""
        if not self._has_left:
            self.wire.act(self.client.meet)

    def end_meeting(self):
        """Go on after a meeting of all."""
        self.client.n_meetings += 1

    def leave(self):
        """Wait until all that was pushed is acknowledged, and let nobody wait for this rank any more."""
        self.settle()
        self._has_left = True
        _leave(self.wire, self.client.name)

    def get_dense(self):
        """Return all dense tables by their names: arrays, of which each shard is asked once."""
        found = self.answers() if self._is_asked else self._pull(self._all_dense())
        views = {name: self[name] for name in self.layout.tables if isinstance(self[name], DenseView)}
        parts = {name: self.layout.parts(name) for name in views}
        return {
            name: view._put_together([found[shard][name] for shard, _, _ in parts[name]])
            for name, view in views.items()
        }  # fmt: skip

    def ask_dense(self):
        """Ask for all dense tables, which `get_dense` returns after the next push; return at once.

        What comes is a clock older than what would be asked for then. Where that is too old, as with BSP, nothing is
        asked for now.
        """
        if self.may_ask_ahead:
            self.ask(self._all_dense(), 1)

    @property
    def may_ask_ahead(self):
        """Whether what is asked for a clock before it is used is new enough."""
        return self.client.staleness is None or self.client.staleness > 0

    def ask(self, wanted, ahead=0):
        """Ask shards for something; `answers` returns what they say.

        Parameters
        ----------
        wanted : dict of int to object
            What to read of each shard: see `daskdml.runtime.tables.spec.Store.read`.
        ahead : int, default 0
            Pushes until it is used.
        """
        self.wire.act(self.client.pull, wanted, ahead)
        self._is_asked = True

    def answers(self):
        """Wait for what was asked for, and return it by shards."""
        self._is_asked, self.client.waits_for = False, None
        self.wire.wait(lambda: self.client.is_answered or self.client.waits_for is not None)
        if not self.client.is_answered:
            raise RuntimeError(
                f"A rank reads what {self.client.waits_for!r} has yet to push, which waits for all to put tables down, "
                "as config_context(checkpoint=...) asks. Push equally often in each step on all ranks (nothing, where "
                "there is nothing to add), let consistency be ASP(), or leave checkpoint out."
            )
        self.client.use()
        return self.client.answers

    def _all_dense(self):
        layout = self.layout
        dense = (name for name in layout.tables if isinstance(self[name], DenseView))
        return {shard: None for name in dense for shard, _, _ in layout.parts(name)}

    def held_shards(self, comm):
        """Yield (shard, state) of the shards that this rank is to put down, all of them among all ranks.

        Only when nobody pushes, and no push waits for others of its clock.
        """
        epochs = self.client.directory.epochs  # a head of an older one has been moved away, and does not know it
        found = list(self.wire.node.replicas.items())
        replicas = {shard: one for shard, one in found if one.is_head and one.epoch >= epochs[shard]}
        is_held = np.zeros(self.layout.n_shards)
        is_held[list(replicas)] = 1.0
        others = np.flatnonzero(comm.allreduce(is_held) == 0).tolist()  # on workers that have no rank
        for shard, replica in replicas.items():
            yield shard, replica.store.state()
        for shard in others:
            if shard % comm.size == comm.rank:
                yield shard, self._pull_now(shard)

    def _pull_now(self, shard):
        """Return the state of a shard as it is: those whose clocks might be waited for wait as well."""
        bound, self.client.staleness = self.client.staleness, None
        try:
            return self._pull({shard: True})[shard]
        finally:
            self.client.staleness = bound

    def forget(self):
        """Forget what codecs have left out so far."""
        self._codec_states = {}

    def orders(self):
        """Return what this process's node has done as the head of shards, in its order, by shards; see `Program`."""
        return {shard: list(order.done) for shard, order in self.wire.node.orders.items()}

    def take_orders(self, comm):
        """Return what all nodes have done since this was last asked: (shard, push or pull, rank, number) in rows.

        Parameters
        ----------
        comm : daskdml.runtime.spmd.Comm

        Returns
        -------
        ndarray of int64, shape (n, 4)
        """
        rows = []
        for shard, done in self.orders().items():
            rows += [(shard, *one) for one in done[self._told.get(shard, 0) :]]
            self._told[shard] = len(done)
        return np.concatenate(comm.allgather(np.array(rows, np.int64).reshape(-1, 4)))

    def take_stalenesses(self, comm):
        """Return how often so many pushes of others had come between a read and the push that followed from it.

        Of all ranks, since this was last asked.

        Parameters
        ----------
        comm : daskdml.runtime.spmd.Comm

        Returns
        -------
        ndarray of int64
            By how many.
        """
        found, self.client.stalenesses = self.client.stalenesses, {}
        length = int(comm.allreduce(np.array([max([max(lag, 0) + 1 for lag in found], default=0)]), "max")[0])
        n_lags = np.zeros(length, np.int64)
        for lag, n in found.items():
            n_lags[max(lag, 0)] += n
        return comm.allreduce(n_lags)

    def _pull(self, wanted):
        """Return what was asked for of each shard."""
        self.ask(wanted)
        return self.answers()


class DenseView:
    """A dense table."""

    def __init__(self, tables, name):
        self._tables, self.name, self._table = tables, name, tables.layout.tables[name]

    def get(self):
        """Return the array; a copy."""
        parts = self._tables.layout.parts(self.name)
        found = self._tables._pull({shard: self.name for shard, _, _ in parts})
        return self._put_together([found[shard] for shard, _, _ in parts])

    def get_moments(self):
        """Return the list of the rule's moments, arrays of the table's shape, and the updates that all shards have."""
        parts = self._tables.layout.parts(self.name)
        found = self._tables._pull({shard: {self.name: "moments"} for shard, _, _ in parts})
        n, n_updates = self._table.rule.n_moments, min(found[shard][self.name]["n"] for shard, _, _ in parts)
        moments = [found[shard][self.name]["moments"] for shard, _, _ in parts]
        return [self._put_together([own[k] for own in moments]) for k in range(n)], n_updates

    def _put_together(self, parts):
        dtype = parts[0].dtype if parts else self._table.dtype
        found = self._tables.recycled.empty(self._table.n_numbers, dtype)
        return np.concatenate(parts, out=found).reshape(self._table.shape)

    def add(self, update, scalars=()):
        """Add an array of the table's shape.

        Parameters
        ----------
        update : ndarray
        scalars : sequence of float
            As many as the table's rule asks for.

        Raises
        ------
        ValueError
            For another shape, or another number of scalars.
        """
        update = np.asarray(update)
        if update.shape != self._table.shape:
            raise ValueError(f"Table {self.name!r} has shape {self._table.shape}, got an update of {update.shape}.")
        copied = self._tables.recycled.empty(self._table.n_numbers, self._table.dtype)
        copied[...] = update.reshape(-1)
        scalars, asked = np.array(scalars, np.float64), getattr(self._table.rule, "n_scalars", 0)
        if scalars.shape != (asked,):
            raise ValueError(f"The rule of table {self.name!r} asks for {asked} scalars, got {scalars.shape}.")
        before, own = self._tables._added.get(self.name), (copied, scalars)
        self._tables._added[self.name] = own if before is None else tuple(map(np.add, before, own))

    def put(self, theta, moments=(), n_updates=0):
        """Replace the table by arrays of its shape, with the moments of its rule; all that any rank adds is lost.

        Meant for moments when nobody else pushes.
        """
        flat = [np.array(part, self._table.dtype).reshape(-1) for part in (theta, *moments)]
        self._tables._added[self.name] = {"theta": flat[0], "moments": flat[1:], "n": n_updates}

    def _cut(self, added):
        if isinstance(added, dict):
            return [
                (shard, {"theta": added["theta"][a:b], "moments": [m[a:b] for m in added["moments"]], "n": added["n"]})
                for shard, a, b in self._tables.layout.parts(self.name)
            ]
        update, scalars = added
        parts = [(shard, update[a:b]) for shard, a, b in self._tables.layout.parts(self.name)]
        codec = self._table.codec
        if codec is not None:
            parts = [(shard, self._encoded(codec, shard, part)) for shard, part in parts]
        return [(shard, (part, scalars)) for shard, part in parts]

    def _encoded(self, codec, shard, part):
        """Return the packet of a shard's part; what it leaves out waits for the next one."""
        states = self._tables._codec_states
        if (self.name, shard) not in states:
            # Clients draw differently, or what they round off adds up.
            states[self.name, shard] = codec.start(zlib.crc32(f"{self._tables.client.name}/{shard}".encode()))
        packet, states[self.name, shard] = codec.encode(part, states[self.name, shard])
        return packet


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
        # Each key once, however often it is named: a shard of frequent keys has no more to send than others.
        distinct, where = np.unique(_checked_keys(keys), return_inverse=True)
        order, edges, shards = self._by_shard(distinct)
        parts = {shard: order[a:b] for shard, a, b in zip(shards, edges, edges[1:])}
        found = self._tables._pull({shard: {self.name: distinct[at]} for shard, at in parts.items()})
        rows = np.empty((len(distinct), self._table.width), self._table.dtype)
        for shard, at in parts.items():
            rows[at] = found[shard][self.name]
        return rows if len(distinct) == len(where) and (where[1:] > where[:-1]).all() else rows[where]

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
