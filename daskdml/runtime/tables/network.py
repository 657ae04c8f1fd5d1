"""Nodes, clients and the control of a parameter server in one process: messages are calls."""

import numbers
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from daskdml.comm.parameter_server import CONTROL, Client, Control, Node, Patience
from daskdml.runtime.tables.rows import RowTable
from daskdml.runtime.tables.session import Tables
from daskdml.runtime.tables.spec import DenseTable, Layout, SparseTable

SHARDS_PER_NODE = 4
RETRY_SECONDS = 1.0  # after which what has no answer is sent again: its receiver may have died, or was behind


class Service(NamedTuple):
    """How the tables of a program are served.

    Attributes
    ----------
    staleness : int or None
        See `daskdml.comm.parameter_server.Client`.
    is_collective : bool
        See `daskdml.comm.parameter_server.replica.Replica`.
    replicas : int
    n_shards : int or None
        None is `SHARDS_PER_NODE` for each worker that there is in the beginning, or fewer for small tables.
    caches : bool
    scripts : dict of int to list, or None
        See `daskdml.comm.parameter_server.Node`.
    may_tighten : bool
        Whether clients may come to have a smaller staleness, or some.
    saving : Saving or None
        What shards begin with, where they were put down by an earlier process.
    reads_near : bool
        See `daskdml.Program`.
    """

    staleness: Any
    is_collective: bool
    replicas: int
    n_shards: Any
    caches: bool
    scripts: Any = None
    may_tighten: bool = False
    saving: Any = None
    reads_near: bool = False

    def layout(self, tables, n_nodes):
        """Return which part of which table is on which shard; there are none that nothing has room on."""
        saved = self.saving
        if saved is not None and saved.version is not None:
            return Layout(tables, saved.n_shards, saved.least_part, saved)
        if self.n_shards:
            return Layout(tables, self.n_shards, least_part=1)
        most = sum(table.most_parts() for table in tables.values())
        return Layout(tables, max(min(SHARDS_PER_NODE * n_nodes, most), 1))

    @property
    def of_nodes(self):
        """What a node is to know of it."""
        return {"is_collective": self.is_collective, "scripts": self.scripts}

    def near(self, node):
        """Return the name of a client's own node, if it may be read from: not where heads follow a script."""
        return node.name if self.reads_near and self.scripts is None else None

    @property
    def of_clients(self):
        """What a client is to know of it."""
        tells_all = self.staleness is not None or self.may_tighten
        return {"staleness": self.staleness, "tells_all": tells_all, "caches": self.caches}


def service_of(program):
    """Return how the tables of a program are served.

    Raises
    ------
    ValueError
        For a consistency, replicas or shards that are none.
    """
    consistency, replicas, n_shards = program.consistency, program.replicas, program.shards
    if consistency is not None and (isinstance(consistency, type) or not hasattr(consistency, "is_collective")):
        raise ValueError(
            "A program's consistency must be None or one of daskdml.strategies' BSP(), SSP(staleness), ASP(), got "
            f"{consistency!r}."
        )
    if not isinstance(replicas, numbers.Integral) or replicas < 0:
        raise ValueError(f"A program's replicas must be an int of at least 0, got {replicas!r}.")
    if n_shards is not None and not (isinstance(n_shards, numbers.Integral) and n_shards >= 1):
        raise ValueError(f"A program's shards must be None or an int of at least 1, got {n_shards!r}.")
    rule = (0, True) if consistency is None else (consistency.bound, consistency.is_collective)
    return Service(
        *rule, int(replicas), n_shards, bool(program.caches), program.scripts, program.may_tighten, program._saving,
        bool(program.reads_near),
    )  # fmt: skip


def checked_tables(program, meta):
    """Return the tables of a program, an empty dict if it has none; refuse what are none.

    Raises
    ------
    ValueError
    """
    tables = program.tables(meta)
    kinds = DenseTable, SparseTable, RowTable
    if not isinstance(tables, dict) or not all(isinstance(table, kinds) for table in tables.values()):
        raise ValueError(f"tables must return a dict of DenseTable and SparseTable by their names, got {tables!r}.")
    return tables


class Inbox:
    """Messages for one that takes them one at a time, in the order in which they came: by whoever finds it idle.

    Parameters
    ----------
    take : callable of (message, post)
        Calls ``post(to, message)`` with what follows.
    """

    def __init__(self, take):
        self._take, self._waiting, self._lock = take, deque(), threading.Lock()

    def put(self, message):
        """Put a message; `work` must follow."""
        self._waiting.append(message)

    def work(self, post, then=None):
        """Take what waits, unless somebody is doing so already; call ``then()`` before others may."""
        # Looked at again without the lock: what was put while it was about to be let go of is not left.
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                while self._waiting:
                    self._take(self._waiting.popleft(), post)
                if then is not None:
                    then()
            finally:
                self._lock.release()


class Network:
    """A parameter server for ranks that are threads of this process: a node and a client each.

    Parameters
    ----------
    tables : dict of str to DenseTable or SparseTable
    n_ranks : int
    service : Service
        But for the replicas: nobody dies in one process.

    Attributes
    ----------
    inboxes : dict of str to Inbox
        Of nodes, clients and the control, by their addresses.

    Notes
    -----
    The thread that sends a message carries out what follows from it, unless another is at it already: a push of a rank
    is applied by that rank, on a lock of each node.
    """

    def __init__(self, tables, n_ranks, service):
        nodes, clients = [f"node {r}" for r in range(n_ranks)], [f"rank {r}" for r in range(n_ranks)]
        self.layout = service.layout(tables, n_ranks)
        self._control = Control(self.layout.n_shards, nodes, 0, clients)
        self.inboxes = {CONTROL: Inbox(_of(self._control))}
        make = self.layout.store, self.layout.empty_store
        made = [Node(name, make[0], clients, make_empty=make[1], **service.of_nodes) for name in nodes]
        for node in made:
            self.inboxes[node.name] = Inbox(_of(node))
        self._clients = {}
        for name, node in zip(clients, made):
            client = Client(name, self._control.directory, **service.of_clients)
            self._clients[name] = wire = Wire(self, name, client, node)
            self.inboxes[name] = Inbox(wire.take)
        self.carry(self._control.begin())

    def tables(self, rank, comm):
        """Return the `Tables` of a rank; ``comm.check()`` raises if it is to stop waiting."""
        wire = self._clients[f"rank {rank}"]
        wire.check = comm.check
        return Tables(wire.client, self.layout, wire)

    def wake(self):
        """Let ranks that wait look whether it is over."""
        for wire in self._clients.values():
            with wire.changed:
                wire.changed.notify_all()

    def carry(self, messages):
        """Carry messages, and all that follows from them."""
        touched = deque()

        def post(to, message):
            self.inboxes[to].put(message)
            touched.append(to)

        for to, message in messages:
            post(to, message)
        while touched:
            self.inboxes[touched.popleft()].work(post)


class Wire:
    """What a rank's `Tables` send by and wait on."""

    moved = 0, 0  # bytes to other processes and from them

    def __init__(self, network, name, client, node):
        self.network, self.name, self.client, self.node = network, name, client, node
        self.changed, self.check, self._patience = threading.Condition(), None, Patience()

    def take(self, message, post):
        """Give the client a message."""
        with self.changed:
            for to, answer in self.client.on(message):
                post(to, answer)
            self.changed.notify_all()

    def act(self, call, *args):
        """Send what a call of the client returns."""
        with self.changed:
            messages = call(*args)
        self.network.carry(messages)

    def wait(self, condition):
        """Wait until something is so, or raise what `check` does if this rank is to stop."""
        while True:
            with self.changed:
                if self.changed.wait_for(lambda: condition() or self.check(), RETRY_SECONDS):
                    return
            if self._patience.is_over(self.client, time.monotonic()):  # nothing is lost here: it asks who waits for it
                self.act(self.client.retry)


def _of(one):
    """Return what an inbox does with messages for a node, or the control."""

    def take(message, post):
        for to, answer in one.on(message):
            post(to, answer)

    return take
