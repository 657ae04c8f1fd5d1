"""The shards of one worker: takes messages to the replica that they are for."""

from daskdml.comm.parameter_server.messages import CONTROL, AskDirectory, Confirm, Refuse
from daskdml.comm.parameter_server.order import Order
from daskdml.comm.parameter_server.replica import Replica

OF_CLIENTS = ("Push", "Pull")  # by their numbers in an `Order`


class Node:
    """What a worker holds of a parameter server.

    Parameters
    ----------
    name : str
        Its address. A process that begins again is another node, with another name.
    make_store : callable of int
        Makes the store of a shard as it is at the start, the same on every node.
    clients : iterable of str
        That are there from the start.
    make_empty : callable of int, optional
        Makes the store of a shard that will be restored from a snapshot at once; ``make_store`` by default.
    is_collective : bool, default False
        See `Replica`.
    scripts : dict of int to sequence, optional
        Of shards, what `Order` is to follow. An empty dict only writes down what is done.

    Attributes
    ----------
    replicas : dict of int to Replica
    orders : dict of int to Order
        Of shards of which clients have talked to this node, where there are scripts.
    """

    def __init__(self, name, make_store, clients=(), is_collective=False, scripts=None, make_empty=None):
        self.name, self.replicas, self._number = name, {}, -1
        self._make_store, self._make_empty, self._clients = make_store, make_empty or make_store, tuple(clients)
        self._is_collective, self._scripts, self.orders = is_collective, scripts, {}

    def on(self, message):
        """Take in a message; return those that follow from it, as a list of (to, message)."""
        kind = type(message).__name__
        if kind in ("Directory", "Snapshot"):
            return self._on_directory(message) if kind == "Directory" else self._on_snapshot(message)
        replica = self.replicas.get(message.shard)
        if kind == "Enrol" and message.kind == "leave" and self._waits_for(message.client):
            self.forget_scripts()
        if replica is not None:
            if kind in OF_CLIENTS and self._scripts is not None:
                messages = self._order_of(message.shard).deal(replica, OF_CLIENTS.index(kind), message)
            else:
                messages = getattr(replica, f"on_{kind.lower()}")(message)
            return messages + (self._ask() if message.epoch > replica.epoch else [])
        if kind not in OF_CLIENTS:
            return []
        client = message.operation.client if kind == "Push" else message.client
        return [(client, Refuse(message.shard, client, -1, False)), *self._ask()]

    def remind(self):
        """Send again what has not been answered: for networks that lose messages."""
        return [message for replica in self.replicas.values() for message in replica.remind()]

    def _ask(self):
        return [(CONTROL, AskDirectory(self.name))]

    def forget_scripts(self):
        """Do as it comes from now on: those whom scripts are about are not all there any more."""
        if self._scripts:
            self._scripts = {}
            for order in list(self.orders.values()):
                order.forget_script()

    def _waits_for(self, client):
        """Tell whether a script of what this node is the head of has something yet to be done by a client."""
        heads = [shard for shard, replica in self.replicas.items() if replica.is_head] if self._scripts else ()
        return any(self._order_of(shard).waits_for(client) for shard in heads)

    def _order_of(self, shard):
        if shard not in self.orders:
            self.orders[shard] = Order(self._scripts.get(shard, ()))
        return self.orders[shard]

    def _on_directory(self, directory):
        if directory.number <= self._number:
            return []
        self._number, messages = directory.number, []
        for shard, chain in directory.chains.items():
            replica, epoch = self.replicas.get(shard), directory.epochs[shard]
            if self.name not in chain:
                # A recruit is in no chain yet, but its epoch is that of the chain it is recruited for.
                if replica is not None and replica.epoch < epoch:
                    del self.replicas[shard]
            elif replica is None:
                # Only at the start: whoever comes later is in no chain before it has everything.
                self.replicas[shard] = self._make(self._make_store(shard), shard, epoch, chain, self._clients)
            else:
                if epoch > replica.epoch and shard in self.orders:
                    self.orders[shard].forget_script()
                messages += replica.regroup(epoch, chain)
        return messages

    def _on_snapshot(self, message):
        replica, state = self.replicas.get(message.shard), message.state
        if replica is not None and (message.epoch < replica.epoch or self.name in replica.chain):
            return []
        if replica is None or message.epoch > replica.epoch or state["version"] > replica.version:
            replica = self._make(self._make_empty(message.shard), message.shard, message.epoch, state["chain"])
            replica.restore(state)
            self.replicas[message.shard] = replica
        return [(message.source, Confirm(message.shard, message.epoch, self.name, replica.version))]

    def _make(self, store, shard, epoch, chain, clients=()):
        return Replica(self.name, shard, epoch, chain, store, clients, self._is_collective)
