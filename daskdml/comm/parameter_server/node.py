"""The shards of one worker: takes messages to the replica that they are for."""

from daskdml.comm.parameter_server.messages import CONTROL, AskDirectory, Confirm, Refuse
from daskdml.comm.parameter_server.replica import Replica

OF_CLIENTS = ("Push", "Pull")


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
    staleness, is_collective
        See `Replica`.

    Attributes
    ----------
    replicas : dict of int to Replica
    """

    def __init__(self, name, make_store, clients=(), staleness=None, is_collective=False):
        self.name, self.replicas, self._number = name, {}, -1
        self._make_store, self._clients = make_store, tuple(clients)
        self._rule = staleness, is_collective

    def on(self, message):
        """Take in a message; return those that follow from it, as a list of (to, message)."""
        kind = type(message).__name__
        if kind in ("Directory", "Snapshot"):
            return self._on_directory(message) if kind == "Directory" else self._on_snapshot(message)
        replica = self.replicas.get(message.shard)
        if replica is not None:
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
                self.replicas[shard] = self._make(shard, epoch, chain, self._clients)
            else:
                messages += replica.regroup(epoch, chain)
        return messages

    def _on_snapshot(self, message):
        replica, state = self.replicas.get(message.shard), message.state
        if replica is not None and (message.epoch < replica.epoch or self.name in replica.chain):
            return []
        if replica is None or message.epoch > replica.epoch or state["version"] > replica.version:
            replica = self._make(message.shard, message.epoch, state["chain"])
            replica.restore(state)
            self.replicas[message.shard] = replica
        return [(message.source, Confirm(message.shard, message.epoch, self.name, replica.version))]

    def _make(self, shard, epoch, chain, clients=()):
        return Replica(self.name, shard, epoch, chain, self._make_store(shard), clients, *self._rule)
