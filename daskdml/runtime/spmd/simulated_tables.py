"""A parameter server on the workers of a simulated cluster: its messages take their virtual time."""

from daskdml.comm.parameter_server import CONTROL, Control, HasLeft, Leave, Newcomer, Node, Patience
from daskdml.runtime.spmd.program import GroupChanged
from daskdml.runtime.tables.network import service_of
from daskdml.runtime.tables.session import take_part
from daskdml.utils.portable import pack

REMIND_SECONDS, MOST_REMINDERS = 1.0, 100
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
    clients : dict of worker to dict of str to Client or Newcomer
    moved : dict of worker to list of int
        Bytes that it sent to others and received from them.
    """

    def __init__(self, simulation, tables, program):
        self.simulation, self.service = simulation, service_of(program)
        self.layout = self.service.layout(tables, len(simulation.workers))
        self.nodes, self.clients, self.moved, self._patience, self._are_leaving = {}, {}, {}, {}, set()
        for worker in simulation.workers.values():
            self._add(worker)
        self.control = Control(self.layout.n_shards, self.nodes, self.service.replicas)
        self._n_reminders = 0
        self.carry(None, self.control.begin())
        self.remind()

    def remind(self):
        """Send again what has had no answer: a node that is behind drops what it cannot place yet."""
        self._n_reminders += 1
        if self._n_reminders > MOST_REMINDERS:
            return  # all wait for ever: the simulation says so when nothing else happens
        if not self.control.is_settled:
            self.carry(None, self.control.remind())
        for worker, clients in self.clients.items():
            for name, client in clients.items():
                waits = isinstance(client, Newcomer) or client.n_unacknowledged or not client.is_answered
                if waits and self._patience.setdefault(name, Patience()).is_over(client, self.simulation.now):
                    self.carry(worker, client.retry())
        self.simulation.at(self.simulation.now + REMIND_SECONDS, self.remind)

    def _add(self, worker):
        name = _node_of(worker)
        node = Node(name, self.layout.store, make_empty=self.layout.empty_store, **self.service.of_nodes)
        self.nodes[name] = worker, node

    def joined(self, worker):
        """Let a worker that has come hold its share."""
        self._add(worker)
        self.carry(None, self.control.joined(_node_of(worker)))

    def begin_group(self, workers):
        """Let clients of earlier groups leave whose workers have no rank in this one: all would wait for their clocks.

        Those of workers that have one leave when it begins.
        """
        for worker in self.clients:
            if worker not in workers and not worker.is_dead:
                self._see_off(worker)

    def _see_off(self, worker):
        """Let clients of a worker that has no rank leave, those of whom all pushes are acknowledged; see `_tell`."""
        self._are_leaving.add(worker)
        for name, client in list(self.clients[worker].items()):
            if isinstance(client, Newcomer) or not client.n_unacknowledged:
                del self.clients[worker][name]
                self.carry(worker, [(CONTROL, Leave(name))])

    def lost(self, worker):
        """Go on without a worker that is held to be dead; its clients are waited for no more.

        Raises
        ------
        ShardsLost
        """
        messages = self.control.lost(_node_of(worker))
        for name in self.clients.get(worker, ()):
            messages += self.control.enrol("leave", name)
        self.carry(None, messages)

    def tables(self, rank, number, comm):
        """Return the `Tables` of a rank that has begun; those of the group before it leave when all is acknowledged."""
        name = f"rank {number} of group {rank.generation} on {rank.worker.name}"
        rank.worker.rank, rank.worker.client_name = rank, name
        self._are_leaving.discard(rank.worker)
        wire = _Wire(self, rank, self.clients.setdefault(rank.worker, {}))
        return take_part(wire, name, comm, self.layout, self.service)

    # Messages --------------------------------------------------------------------------------------------------------

    def carry(self, source, messages):
        """Send messages from a worker, or from the control: those to one worker together."""
        by_place = {}
        for to, message in messages:
            by_place.setdefault(self._place_of(to), []).append((to, message))
        for place, bundle in by_place.items():
            n_bytes = sum(map(_n_bytes, bundle))
            if source is not place:
                for worker, direction in ((source, 0), (place, 1)):
                    self.moved.setdefault(worker, [0, 0])[direction] += n_bytes
            self.simulation.send_bundle(source, place, bundle, n_bytes, self._arrive)

    def _place_of(self, to):
        """Return the worker that an address is on, None for the control and for those who have gone."""
        if to in self.nodes:
            return self.nodes[to][0]
        return next((worker for worker, own in self.clients.items() if to in own), None)

    def _arrive(self, place, bundle):
        for to, message in bundle:
            if to == CONTROL:
                is_gone = type(message).__name__ == "Enter" and self._node_of_client(message.client) is None
                # Of a worker that is held to be gone nobody would ever tell that it has left.
                self.carry(None, [] if is_gone else self.control.on(message))
            elif to in self.nodes:
                self.carry(place, self.nodes[to][1].on(message))
            elif to in self.clients.get(place, ()):
                self._tell(place, to, message)

    def _node_of_client(self, name):
        """Return the node beside a client, None if it is held to be gone."""
        place = self._place_of(name)
        node = None if place is None else _node_of(place)
        return node if node in self.control.nodes else None

    def _tell(self, worker, name, message):
        try:
            self.carry(worker, self.clients[worker][name].on(message))
        except HasLeft:  # this worker was held to be dead, and lives
            worker.rank.is_aborted = worker.rank.is_aborted or name == worker.client_name
        if worker in self._are_leaving:
            self._see_off(worker)
        worker.rank.look()


class _Wire:
    """What the `Tables` of a simulated rank send by and wait on."""

    def __init__(self, server, rank, clients):
        self.server, self.rank, self.clients = server, rank, clients

    @property
    def node(self):
        """The node of the worker."""
        return self.server.nodes[_node_of(self.rank.worker)][1]

    @property
    def moved(self):
        """Bytes that the worker has sent to others and received from them."""
        return tuple(self.server.moved.get(self.rank.worker, (0, 0)))

    def act(self, call, *args):
        """Send what a call of the client returns."""
        self.server._n_reminders = 0
        self.server.carry(self.rank.worker, call(*args))

    def wait(self, condition):
        """Wait until something is so, or raise `GroupChanged`."""
        while not condition():
            if self.rank.is_aborted:
                raise GroupChanged
            self.rank.wait_for("tables", condition)
        if self.rank.is_aborted:
            raise GroupChanged


def _node_of(worker):
    return f"node on {worker.name}"


def _n_bytes(addressed):
    return HEADER_BYTES + pack(addressed[1], copies=False).nbytes
