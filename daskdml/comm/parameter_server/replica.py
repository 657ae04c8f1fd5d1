"""One copy of one shard: applies operations in one order, hands them down its chain, and answers pulls.

Chain replication (R. van Renesse, F. Schneider, "Chain replication for supporting high throughput and availability",
2004): the head gives operations their order, each replica applies them and passes them on, the tail acknowledges. So
what is acknowledged is held by every replica, and any of them that is left has all of it. A pull may go to any replica:
each knows the clocks and pushes that it has, and waits for those that the reader may count on.
"""

import math
from collections import deque

from daskdml.comm.parameter_server.messages import (
    CONTROL,
    Ack,
    Confirm,
    Copy,
    Enrolled,
    Operation,
    Recruited,
    Refuse,
    Snapshot,
    Value,
    Yielded,
)


class Replica:
    """A copy of a shard on one node.

    Parameters
    ----------
    name : str
        Of the node.
    shard : int
    epoch : int
        In which the chain was formed: messages of another one are refused.
    chain : tuple of str
        The nodes that hold the shard, head first.
    store : object
        What the shard holds: ``apply(updates)`` takes in a list of updates, all those of one clock where
        ``is_collective``, else a single one; ``read(what)``, ``state()`` and ``restore(state)``.
    clients : iterable of str
        That push and pull from the start, at clock 0.
    is_collective : bool, default False
        Whether the updates of a clock are applied together, in the order of client names, once all are there.

    Attributes
    ----------
    version, n_pushes : int
        Operations applied, and how many of them were pushes.
    clocks : dict of str to int
        Clocks completed by each client that has not left.
    seen : dict of str to int
        The last push applied of each client that has ever entered.
    recruit : str or None
        The node that this one, the tail, brings up to date.

    Notes
    -----
    Handlers return messages as a list of (to, message); nothing here waits or sends. A message that comes before its
    turn is dropped: whoever sent it sends it again. All state that decides what is applied (order, sequences, clocks,
    updates that wait for others of their clock) is part of a snapshot.
    """

    def __init__(self, name, shard, epoch, chain, store, clients=(), is_collective=False):
        self.name, self.shard, self.epoch, self.chain, self.store = name, shard, epoch, tuple(chain), store
        self.is_collective = is_collective
        self.version, self.n_pushes, self.clocks = 0, 0, dict.fromkeys(clients, 0)
        self.seen, self.gathered = dict(self.clocks), {}
        self.recruit, self._recruit_has, self._is_welcomed, self._is_yielding = None, -1, False, False
        self._unconfirmed, self._waiting = deque(), {}

    @property
    def is_head(self):
        """Whether clients talk to this replica."""
        return self.chain[0] == self.name

    @property
    def slowest(self):
        """Clocks that every client has completed."""
        return min(self.clocks.values(), default=math.inf)

    # From clients ----------------------------------------------------------------------------------------------------

    def on_push(self, message):
        """Apply a push whose turn it is; acknowledge one again that all replicas have."""
        operation = message.operation
        if refusal := self._refusal(message.epoch, operation.client, self.is_head):
            return refusal
        last = self.seen[operation.client]
        if operation.sequence <= last:
            return self._again(operation)
        if operation.sequence > last + 1 or self._is_yielding:
            return []
        return self._take(operation)

    def on_pull(self, message):
        """Answer, or wait until all clients have come far enough.

        Any replica of the chain may: it has all that it says it has, and where it is behind it waits for the rest.
        """
        is_member = self.name in self.chain
        return self._refusal(message.epoch, message.client, is_member) or self._answer([message])

    def _refusal(self, epoch, client, may_answer):
        if epoch != self.epoch or not may_answer:
            return [(client, Refuse(self.shard, client, self.epoch, False))]
        if client not in self.clocks:
            return [(client, Refuse(self.shard, client, self.epoch, True))]
        return []

    def _again(self, operation):
        """Answer a push that was applied before: it is confirmed, or on its way down the chain."""
        if self._is_under_way(operation):
            return self.remind()
        return [(operation.client, Ack(self.shard, operation.client, operation.sequence, -1))]

    def _is_under_way(self, operation):
        """Tell whether an operation that was applied here is not confirmed by all behind."""
        return not self._is_last and any(waiting[:3] == operation[:3] for _, waiting in self._unconfirmed)

    # From the chain --------------------------------------------------------------------------------------------------

    def on_copy(self, message):
        """Apply the operation that is next; say again what was had before."""
        if message.epoch != self.epoch or message.version > self.version + 1:
            return []
        if message.version <= self.version:
            return [*self._confirm(), *self.remind()]
        return self._take(message.operation)

    def on_confirm(self, message):
        """Note what the rest of the chain has, and tell those before."""
        if message.epoch != self.epoch or message.node != self._next:
            return []
        while self._unconfirmed and self._unconfirmed[0][0] <= message.version:
            self._unconfirmed.popleft()
        if message.node == self.recruit:
            self._recruit_has = max(self._recruit_has, message.version)
        return [*self._confirm(), *self._welcome(), *self._quiet()]

    def _take(self, operation):
        """Apply an operation, pass it on, and answer what waited for it."""
        self._apply(operation)
        messages = []
        if self._next is not None:
            self._unconfirmed.append((self.version, operation))
            messages.append((self._next, Copy(self.shard, self.epoch, self.version, operation)))
        if self._is_last:
            messages += [*self._acknowledge(operation, self.n_pushes), *self._confirm()]
        return messages + self._answer(self._waiting.values())

    def _apply(self, operation):
        self.version += 1
        client = operation.client
        if operation.kind == "leave":
            self.clocks.pop(client)
        elif operation.kind == "enter":
            slowest = self.slowest
            self.clocks[client] = operation.clock if slowest == math.inf else slowest
            self.seen[client] = 0
        else:
            self.n_pushes += 1
            self.seen[client], self.clocks[client] = operation.sequence, operation.clock
            self._add(client, operation)
        self._add_complete()

    def _add(self, client, operation):
        if operation.update is None:
            return
        if self.is_collective:
            self.gathered.setdefault(operation.clock, {})[client] = operation.update
        else:
            self.store.apply([operation.update])

    def _add_complete(self):
        """Apply the updates of clocks that all clients have completed."""
        for clock in sorted(clock for clock in self.gathered if clock <= self.slowest):
            updates = self.gathered.pop(clock)
            self.store.apply([updates[client] for client in sorted(updates)])

    @property
    def _next(self):
        """The node that operations are passed on to: of the chain, or a recruit."""
        place = self.chain.index(self.name) + 1 if self.name in self.chain else len(self.chain)
        return self.chain[place] if place < len(self.chain) else self.recruit

    @property
    def _is_last(self):
        """Whether nothing that was applied here waits for another: the tail, until its recruit has everything."""
        return self._next is None or (self._next == self.recruit and not self._is_welcomed)

    def _confirm(self):
        """Tell the replica before this one up to where this one and all behind it are."""
        is_behind = self._unconfirmed and not self._is_last
        version = self._unconfirmed[0][0] - 1 if is_behind else self.version
        place = self.chain.index(self.name) if self.name in self.chain else len(self.chain)
        if not place:
            return []
        return [(self.chain[place - 1], Confirm(self.shard, self.epoch, self.name, version))]

    def _acknowledge(self, operation, n_pushes=-1):
        client = operation.client
        if operation.kind == "push":
            return [(client, Ack(self.shard, client, operation.sequence, n_pushes))]
        return [(CONTROL, Enrolled(self.shard, operation.kind, client, self.clocks.get(client, -1)))]

    def _answer(self, pulls):
        """Return answers to pulls whose time has come; keep the others."""
        messages, waiting = [], {}
        for pull in list(pulls):
            if self.slowest < pull.least_clock or self.seen.get(pull.client, 0) < pull.sequence:
                waiting[pull.client] = pull
                continue
            self._waiting.pop(pull.client, None)
            value = None if pull.version == self.version else self.store.read(pull.what)
            counts = self.version, self.n_pushes, self.seen.get(pull.client, 0)
            answer = Value(self.shard, self.epoch, pull.client, pull.request, *counts, value)
            messages.append((pull.client, answer))
        self._waiting |= waiting
        return messages

    # From the control ------------------------------------------------------------------------------------------------

    def on_enrol(self, message):
        """Let a client enter or leave, at one place of the order for all replicas."""
        if message.epoch != self.epoch or not self.is_head or self._is_yielding:
            return []
        operation = Operation(message.kind, message.client, 0, 0, None)
        # One that has left never enters again, however late a message says so.
        is_news = message.client in self.clocks if message.kind == "leave" else message.client not in self.seen
        if is_news:
            return self._take(operation)
        return self.remind() if self._is_under_way(operation) else self._acknowledge(operation)

    def on_recruit(self, message):
        """Begin to bring a node up to date, or go on with it."""
        if message.epoch != self.epoch or self.chain[-1] != self.name:
            return []
        if message.node != self.recruit and not self._is_welcomed:
            self.recruit, self._recruit_has = message.node, -1
            self._unconfirmed.clear()
        return self.remind()

    def on_yield(self, message):
        """Take in no more, until the chain is formed anew."""
        if message.epoch != self.epoch or not self.is_head:
            return []
        self._is_yielding = True
        return self._quiet() or self.remind()

    def regroup(self, epoch, chain):
        """Go on as a member of another chain; whatever was on its way in the old one is sent anew."""
        if epoch <= self.epoch:
            return []
        was_last = self._is_last
        self.epoch, self.chain = epoch, tuple(chain)
        self.recruit, self._recruit_has, self._is_welcomed, self._is_yielding = None, -1, False, False
        messages = [(p.client, Refuse(self.shard, p.client, epoch, False)) for p in self._waiting.values()]
        self._waiting = {}
        if self._is_last:
            for _, operation in () if was_last else self._unconfirmed:
                messages += self._acknowledge(operation)
            self._unconfirmed.clear()
        return [*messages, *self._confirm(), *self.remind()]

    def remind(self):
        """Send again what the rest of the chain has not confirmed."""
        if self.recruit is not None and self._recruit_has < 0:
            return [(self.recruit, Snapshot(self.shard, self.epoch, self.name, self.state()))]
        messages = [(self._next, Copy(self.shard, self.epoch, *waiting)) for waiting in self._unconfirmed]
        return [*messages, *self._welcome(), *self._quiet()]

    def _welcome(self):
        """Tell of the recruit as soon as it has everything: from then on nothing is acknowledged without it."""
        if self.recruit is None or (self._recruit_has < self.version and not self._is_welcomed):
            return []
        self._is_welcomed = True
        return [(CONTROL, Recruited(self.shard, self.epoch, self.recruit))]

    def _quiet(self):
        if not self._is_yielding or self._unconfirmed:
            return []
        return [(CONTROL, Yielded(self.shard, self.epoch))]

    # Snapshots -------------------------------------------------------------------------------------------------------

    def state(self):
        """Return all that decides what this replica does next, for a snapshot or a checkpoint."""
        return {
            "chain": self.chain, "version": self.version, "n_pushes": self.n_pushes, "clocks": dict(self.clocks),
            "seen": dict(self.seen),
            "gathered": {clock: dict(updates) for clock, updates in self.gathered.items()},
            "store": self.store.state(),
        }  # fmt: skip

    def restore(self, state):
        """Be what `state` has returned on another node."""
        self.version, self.n_pushes = state["version"], state["n_pushes"]
        self.clocks, self.seen = dict(state["clocks"]), dict(state["seen"])
        self.gathered = {clock: dict(updates) for clock, updates in state["gathered"].items()}
        self.store.restore(state["store"])

