"""A parameter server on the workers of a simulated cluster: its messages take their virtual time."""

from daskdml.comm.parameter_server import CONTROL, Control, HasLeft, Leave, Newcomer, Node
from daskdml.runtime.spmd.program import GroupChanged
from daskdml.runtime.tables.network import SHARDS_PER_NODE, rule_of
from daskdml.runtime.tables.session import Tables
from daskdml.runtime.tables.spec import Layout
from daskdml.utils.portable import pack

HEADER_BYTES = 64  # of a message, beside its arrays; about what one takes as msgpack


class SimulatedTables:
    """Nodes and clients on workers, and the control beside the driver.

    Parameters
    ----------
    simulation : object
        Whose clock, workers and links these use.
    tables : dict of str to DenseTable or SparseTable
    program : Program

    Attributes
    ----------
    control : Control
    nodes : dict of str to (worker, Node)
    clients : dict of str to (rank, Client)
    """

    def __init__(self, simulation, tables, program):
        self.simulation, self.program = simulation, program
        self.layout = Layout(tables, SHARDS_PER_NODE * len(simulation.workers))
        self.staleness, self.is_collective = rule_of(program.consistency)
        self.nodes, self.clients = {}, {}
        for worker in simulation.workers.values():
            self._add(worker)
        self.control = Control(self.layout.n_shards, self.nodes, program.replicas)
        self.carry(None, self.control.begin())

    def _add(self, worker):
        name = _node_of(worker)
        node = Node(name, self.layout.store, staleness=self.staleness, is_collective=self.is_collective)
        self.nodes[name] = worker, node

    def joined(self, worker):
        """Let a worker that has come hold its share."""
        self._add(worker)
        self.carry(None, self.control.joined(_node_of(worker)))

    def lost(self, worker):
        """Go on without a worker that is held to be dead; its clients are waited for no more.

        Raises
        ------
        ShardsLost
        """
        messages = self.control.lost(_node_of(worker))
        for name in [name for name, (rank, _) in self.clients.items() if rank.worker is worker]:
            messages += self.control.enrol("leave", name)
        self.carry(None, messages)

    def tables(self, rank, number, comm):
        """Return the `Tables` of a rank that has begun; those of the group before it leave when all is acknowledged."""
        wire = _Wire(self, rank)
        for name in [name for name, (own, _) in self.clients.items() if own.worker is rank.worker]:
            wire.retire(name)
        newcomer = Newcomer(f"rank {number} of group {rank.generation} on {rank.worker.name}")
        self.clients[newcomer.name] = rank, newcomer
        wire.act(newcomer.ask)
        wire.wait(lambda: newcomer.entered is not None)
        client, messages = newcomer.client(tells_all=self.staleness is not None)
        self.clients[client.name] = rank, client
        self.carry(rank.worker, messages)
        wire.name = client.name
        comm.barrier()  # in step, a shard must know all ranks before one of them has completed a clock
        return Tables(client, self.layout, wire)

    # Messages --------------------------------------------------------------------------------------------------------

    def carry(self, source, messages):
        """Send messages from a worker, or from the control: those to one worker together."""
        by_place = {}
        for to, message in messages:
            by_place.setdefault(self._place_of(to), []).append((to, message))
        for place, bundle in by_place.items():
            self.simulation.send_bundle(source, place, bundle, sum(map(_n_bytes, bundle)), self._arrive)

    def _place_of(self, to):
        """Return the worker that an address is on, None for the control and for those who have gone."""
        if to in self.nodes:
            return self.nodes[to][0]
        return self.clients[to][0].worker if to in self.clients else None

    def _arrive(self, place, bundle):
        for to, message in bundle:
            if to == CONTROL:
                self.carry(None, self.control.on(message))
            elif to in self.nodes:
                self.carry(place, self.nodes[to][1].on(message))
            elif to in self.clients:
                self._tell(*self.clients[to], message)

    def _tell(self, rank, client, message):
        try:
            self.carry(rank.worker, client.on(message))
        except HasLeft:
            rank.is_aborted = True  # it was held to be dead, and lives
        rank.look()


class _Wire:
    """What the `Tables` of a simulated rank send by and wait on."""

    def __init__(self, server, rank):
        self.server, self.rank, self.name = server, rank, None

    def act(self, call, *args):
        """Send what a call of the client returns."""
        self.server.carry(self.rank.worker, call(*args))

    def wait(self, condition):
        """Wait until something is so, or raise `GroupChanged`."""
        while not condition():
            if self.rank.is_aborted:
                raise GroupChanged
            self.rank.wait_for("tables", condition)
        if self.rank.is_aborted:
            raise GroupChanged

    def retire(self, name):
        """Wait until a client of an earlier group has all its pushes acknowledged, and let it leave."""
        _, client = self.server.clients[name]
        if not isinstance(client, Newcomer):
            self.server.clients[name] = self.rank, client
            self.act(client.retry)
            self.wait(lambda: not client.n_unacknowledged)
        self.act(lambda: [(CONTROL, Leave(name))])
        del self.server.clients[name]

    def leave(self):
        """Let nobody wait for this rank's client any more."""
        self.act(lambda: [(CONTROL, Leave(self.name))])


def _node_of(worker):
    return f"node on {worker.name}"


def _n_bytes(addressed):
    return HEADER_BYTES + pack(addressed[1], copies=False).nbytes
