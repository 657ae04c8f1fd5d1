"""The one that forms chains: told who came and went, it says who holds what; it waits for nothing and sends nothing."""

from daskdml.comm.parameter_server import placement
from daskdml.comm.parameter_server.messages import Directory, Enrol, Entered, Recruit, Resting, Yield

MOST_TRANSFERS = 4  # shards that are brought to another node at one time, for the others to stay quick


class ShardsLost(RuntimeError):
    """No node that held a shard is left.

    Attributes
    ----------
    shards : tuple of int
    """

    def __init__(self, shards):
        self.shards = tuple(shards)
        super().__init__(
            f"All workers that held {len(self.shards)} of the shards of the parameter server are gone, and with them "
            "what they held. Go on from a checkpoint, if there is one: config_context(checkpoint=..., resume=True). "
            "Or begin anew, and keep more copies: replicas = 2 lets two workers die at once."
        )


class NodeFailed(RuntimeError):
    """A node that is there cannot hold its shards."""


class Control:
    """Form the chains of all shards, and form them anew whenever nodes come and go.

    Parameters
    ----------
    n_shards : int
    nodes : iterable of str
    replicas : int, default 1
        Copies of each shard beside its head, as far as there are nodes.
    clients : iterable of str
        That are there from the start.

    Attributes
    ----------
    directory : Directory
        The newest one.
    entered : dict of str to int
        The clock at which each client that came later begins, once every shard knows it.

    Notes
    -----
    A shard's epoch is the number of the directory in which its chain was changed last. A node joins a chain only when
    it has everything and nothing is acknowledged without it (`Recruited`), and becomes its head only while the chain
    is quiet (`Yielded`): so each node of a chain has every acknowledged operation, at any time.

    Handlers return messages as a list of (to, message). `remind` sends again what has had no answer.
    """

    def __init__(self, n_shards, nodes, replicas=1, clients=()):
        self.nodes, self.clients, self.length = set(nodes), set(clients), replicas + 1
        chains = placement.place(n_shards, self.nodes, self.length)
        self.directory = Directory(0, dict.fromkeys(chains, 0), chains)
        self.entered, self._resting = {}, {}
        self._recruits, self._excess, self._turning = {}, {}, {}
        self._enrolling = {}  # (kind, client) -> {shard: clock, None where unknown}

    def begin(self):
        """Return the first messages."""
        return self._publish()

    @property
    def is_settled(self):
        """Whether no shard is on its way, and no client about to enter or leave."""
        return not (self._recruits or self._turning or self._enrolling)

    # Events ----------------------------------------------------------------------------------------------------------

    def lost(self, node):
        """Take a node out of all chains; for ever.

        Raises
        ------
        ShardsLost
            If it was the last one of a chain.
        """
        if node not in self.nodes:
            return []
        self.nodes.discard(node)
        changed = {}
        for shard, chain in self.directory.chains.items():
            left = tuple(other for other in chain if other != node)
            # One that was about to join may have been counted on already: the chain is formed anew without it.
            if left != chain or self._recruits.get(shard) == node:
                changed[shard] = left
        if broken := [shard for shard, chain in changed.items() if not chain]:
            raise ShardsLost(broken)
        return self._change(changed)

    def joined(self, node):
        """Let a node hold its share."""
        if node in self.nodes:
            return []
        self.nodes.add(node)
        return [*self._publish(), *self._improve()]

    def enrol(self, kind, client):
        """Let a client "enter" or "leave"; one that has left never comes back under its name."""
        known = client in self.clients
        if known != (kind == "leave"):
            return []
        (self.clients.discard if known else self.clients.add)(client)
        self._enrolling[kind, client] = dict.fromkeys(self.directory.chains)
        return self._ask_enrolling()

    def on(self, message):
        """Take in a message; return those that follow from it.

        Raises
        ------
        NodeFailed
            If a node says so.
        """
        return getattr(self, f"_on_{type(message).__name__.lower()}")(message)

    def remind(self):
        """Send again whatever has had no answer."""
        epochs, chains = self.directory.epochs, self.directory.chains
        recruits = [(chains[s][-1], Recruit(s, epochs[s], node)) for s, node in self._recruits.items()]
        turning = [(chains[s][0], Yield(s, epochs[s])) for s in self._turning]
        return [*self._publish(), *recruits, *turning, *self._ask_enrolling()]

    def _on_askdirectory(self, message):
        resting = {client: rest for client, rest in self._resting.items() if client in self.clients}
        answer = [(message.name, self.directory)]
        return [*answer, (message.name, Resting(resting))] if resting and message.name in self.clients else answer

    def _on_meets(self, message):
        self._resting[message.client] = message.number, message.clock
        return []

    def _on_enter(self, message):
        if message.client in self.entered:
            return self._welcome(message.client)
        return self.enrol("enter", message.client) or self._ask_enrolling()

    def _on_failed(self, message):
        raise NodeFailed(message.why)

    def _on_leave(self, message):
        return self.enrol("leave", message.client)

    def _welcome(self, client):
        return [(client, Entered(client, self.entered[client], self.directory))]

    def _on_recruited(self, message):
        shard, node = message.shard, message.node
        if message.epoch != self.directory.epochs[shard] or self._recruits.get(shard) != node:
            return []
        excess = self._excess.get(shard)
        chain = tuple(other for other in self.directory.chains[shard] if other != excess)
        return self._change({shard: (*chain, node)})

    def _on_yielded(self, message):
        shard = message.shard
        if message.epoch != self.directory.epochs[shard] or shard not in self._turning:
            return []
        head = self._turning[shard]
        others = tuple(node for node in self.directory.chains[shard] if node != head)
        return self._change({shard: (head, *others)})

    def _on_enrolled(self, message):
        asked = self._enrolling.get((message.kind, message.client))
        if asked is None:
            return []
        asked[message.shard] = message.clock
        if None in asked.values():
            return []
        del self._enrolling[message.kind, message.client]
        if message.kind == "leave":
            return []
        self.entered[message.client] = max(asked.values())
        return self._welcome(message.client)

    # Chains ----------------------------------------------------------------------------------------------------------

    def _change(self, chains):
        """Form chains anew, with a new epoch each."""
        number = self.directory.number + 1
        for shard in chains:
            for plans in (self._recruits, self._excess, self._turning):
                plans.pop(shard, None)
        epochs = {**self.directory.epochs, **dict.fromkeys(chains, number)}
        self.directory = Directory(number, epochs, {**self.directory.chains, **chains})
        return [*self._publish(), *self._improve(), *self._ask_enrolling(chains)]

    def _publish(self):
        return [(name, self.directory) for name in sorted(self.nodes) + sorted(self.clients)]

    def _improve(self):
        """Plan what brings chains nearer to their length, and nodes nearer to equal shares."""
        messages, epochs, chains = [], self.directory.epochs, self.directory.chains
        length = min(self.length, len(self.nodes))
        busy = {*self._recruits, *self._turning}
        expected = {s: (*c, self._recruits[s]) if s in self._recruits else c for s, c in chains.items()}
        expected = {s: tuple(n for n in c if n != self._excess.get(s)) for s, c in expected.items()}
        while len(self._recruits) < MOST_TRANSFERS:
            heads, held = placement.loads(expected, self.nodes)
            short = [shard for shard in chains if shard not in busy and len(chains[shard]) < length]
            if short:
                shard, excess = short[0], None
                node = placement.recruit_for(shard, chains[shard], held)
            elif (move := placement.shard_to_move(expected, held)) and move[0] not in busy:
                shard, excess, node = move
            else:
                break
            self._recruits[shard] = node
            if excess is not None:
                self._excess[shard] = excess
            busy.add(shard)
            expected[shard] = (*(n for n in expected[shard] if n != excess), node)
            messages.append((chains[shard][-1], Recruit(shard, epochs[shard], node)))
        if not self._recruits and not self._turning and (turn := placement.shard_to_turn(chains, heads)):
            self._turning[turn[0]] = turn[1]
            messages.append((chains[turn[0]][0], Yield(turn[0], epochs[turn[0]])))
        return messages

    def _ask_enrolling(self, shards=None):
        """Tell the heads of those shards that have not answered who enters and leaves."""
        messages, epochs, chains = [], self.directory.epochs, self.directory.chains
        for (kind, client), asked in self._enrolling.items():
            for shard, clock in asked.items():
                if clock is None and (shards is None or shard in shards):
                    messages.append((chains[shard][0], Enrol(shard, epochs[shard], kind, client)))
        return messages
