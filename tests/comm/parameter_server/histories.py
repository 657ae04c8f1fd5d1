"""Histories of a parameter server on a network that loses, doubles and reorders, with nodes that die, hang and come.

Each push carries an integer that names it, a store keeps the integers that it was given, and every client, replica and
answer is held against what was acknowledged.
"""

import random
import zlib
from collections import Counter
from typing import NamedTuple

from daskdml.comm.parameter_server import CONTROL, Client, Control, Newcomer, Node

LOSS, DOUBLES = 0.08, 0.10


class Named:
    """A store of integers, each of which names a push."""

    def __init__(self):
        self.log = []

    def apply(self, updates):
        self.log += updates

    def read(self, what):
        return tuple(self.log)

    def state(self):
        return {"log": tuple(self.log)}

    def restore(self, state):
        self.log = list(state["log"])


class Faults(NamedTuple):
    """What happens to nodes and clients in a history.

    Attributes
    ----------
    crashes : int
        Nodes that are taken for dead.
    zombies : float
        Share of them that live on, and know nothing of it.
    joins : int
        Nodes that come.
    client_deaths, client_joins : int
    """

    crashes: int = 0
    zombies: float = 0.0
    joins: int = 0
    client_deaths: int = 0
    client_joins: int = 0


class History:
    """One run, a function of its seed.

    Parameters
    ----------
    seed : int
    faults : Faults
    n_nodes, n_shards, n_clients, n_clocks, replicas : int
    staleness : int or None
    is_collective : bool
    node, client : callable
        Make nodes and clients: mutants do so otherwise.
    reads_near : bool
        Whether each client reads from a node of its own what that holds, and not from the heads.
    """

    def __init__(
        self, seed, faults, *, n_nodes=5, n_shards=4, n_clients=3, n_clocks=8, replicas=1, staleness=2,
        is_collective=False, node=Node, client=Client, reads_near=False,
    ):  # fmt: skip
        self.random, self.faults, self.n_clocks, self.staleness = random.Random(seed), faults, n_clocks, staleness
        self.make_node, self.make_client, self.reads_near = node, client, reads_near
        names, clients = [f"node {i}" for i in range(n_nodes)], [f"client {i}" for i in range(n_clients)]
        self.rule = {"is_collective": is_collective}
        self.first_clients, self.n_shards, self.n_nodes = clients, n_shards, n_nodes
        self.nodes = {name: self._node(name) for name in names}
        self.control = Control(n_shards, names, replicas, clients)
        self.clients = {name: self._client(name) for name in clients}
        self.dead, self.waiting, self.queue, self.violations = set(), set(), [], []
        self.newcomers, self.finished = {}, []
        self.pushed = {}  # (client, shard) -> the integers of its clocks, in order
        self.acknowledged, self.left = set(), set()
        self.leads, self.n_in_transfer = [], 0
        self.post(self.control.begin())
        events = ["crash"] * faults.crashes + ["join"] * faults.joins
        events += ["client death"] * faults.client_deaths + ["client join"] * faults.client_joins
        self.plan = sorted((self.random.randrange(30, 900), event) for event in events)

    def _node(self, name):
        return self.make_node(name, lambda shard: Named(), self.first_clients, **self.rule)

    def _client(self, name, clock=0):
        return self.make_client(name, self.control.directory, clock, self.staleness, near=self._near(name))

    def _near(self, name):
        return f"node {int(name.split()[1]) % self.n_nodes}" if self.reads_near else None

    def post(self, messages):
        for to, message in messages:
            while self.random.random() >= LOSS:
                self.queue.append((to, message))
                if self.random.random() >= DOUBLES:
                    break

    def run(self, most=100_000):
        """Go on until every client is through and every node is where it belongs, or the history gets too long."""
        for self.n_steps in range(most):
            step = self.n_steps
            while self.plan and self.plan[0][0] <= step:
                self.happen(self.plan.pop(0)[1])
            if self.queue and self.random.random() < 0.9:
                self.deliver(*self.queue.pop(self.random.randrange(len(self.queue))))
            elif self.random.random() < 0.5:
                self.act()
            else:
                self.remind()
            if step % 20 == 0 and self.is_over():
                break
        self.judge()
        return self

    def deliver(self, to, message):
        if to == CONTROL:
            self.post(self.control.on(message))
        elif to in self.nodes and to not in self.dead:
            self.post(self.nodes[to].on(message))
        elif to in self.newcomers:
            self.post(self.newcomers[to].on(message))
        elif to in self.clients:
            client = self.clients[to]
            self.post(client.on(message))
            if type(message).__name__ == "Value" and message.value is None:
                self.check_kept(client, message)
            if type(message).__name__ == "Ack":
                has_announced = to in self.control.entered
                done = self.pushed.get((to, message.shard), [])[: message.sequence - has_announced]
                self.acknowledged.update((message.shard, number) for number in done)

    def act(self):
        """Let a client go on: push what it has computed from what it has read, or ask for the next values."""
        ready = [name for name in self.clients if self.clients[name].clock < self.n_clocks]
        if not ready:
            return
        name = self.random.choice(ready)
        client = self.clients[name]
        if not client.is_answered or client.n_unacknowledged > 3:
            return
        if name in self.waiting:
            self.waiting.discard(name)
            client.use()
            self.check_read(client)
            self.leads.append(client.clock - min(one.clock for one in self.clients.values()))
            updates = {}
            for shard in range(self.n_shards):
                number = zlib.crc32(f"{name} {shard}".encode()) * 1000 + client.clock
                self.pushed.setdefault((name, shard), []).append(number)
                updates[shard] = number
            self.post(client.push(updates))
        else:
            self.waiting.add(name)
            self.post(client.pull(dict.fromkeys(range(self.n_shards))))

    def check_read(self, client):
        """What was read misses nothing that a client may count on: acknowledged or not, of clocks long completed."""
        for (shard, _), held in client.held.items():
            if not set(self.pushed.get((client.name, shard), ())) <= set(held.value):
                self.violations.append(f"{client.name} has not read its own of shard {shard}")
        if self.staleness is None:
            return
        for (shard, _), held in client.held.items():
            for (name, of), numbers in self.pushed.items():
                if of == shard and name not in self.left:
                    due = numbers[: max(client.clock - self.staleness - self.joined_at(name), 0)]
                    if not set(due) <= set(held.value):
                        self.violations.append(f"{client.name} has read too old values of shard {shard} from {name}")

    def check_kept(self, client, message):
        """What a client is told to keep is what the one that said so has, if that has not gone on since."""
        held = client.held[message.shard, None]
        if (held.epoch, held.version) != (message.epoch, message.version):
            return  # told too late, and of an older request
        for node in self.nodes.values():
            replica = node.replicas.get(message.shard)
            if replica is None or not replica.is_head:
                continue
            is_as_it_was = replica.epoch == message.epoch and replica.version == message.version
            if is_as_it_was and held.value != tuple(replica.store.log):
                self.violations.append(f"{client.name} keeps other values of shard {message.shard}")

    def joined_at(self, name):
        return self.control.entered.get(name, 0)

    def remind(self):
        choice = self.random.random()
        if choice < 0.1 and self.newcomers:
            self.post(self.random.choice(list(self.newcomers.values())).retry())
        elif choice < 0.4:
            self.post(self.random.choice(list(self.clients.values())).retry() if self.clients else [])
        elif choice < 0.8:
            alive = [name for name in self.nodes if name not in self.dead]
            self.post(self.nodes[self.random.choice(alive)].remind())
        else:
            self.post(self.control.remind())

    def happen(self, event):
        if event == "crash":
            self.crash()
        elif event == "join":
            name = f"node {len(self.nodes)}"
            self.nodes[name] = self._node(name)
            self.post(self.control.joined(name))
        elif event == "client death" and len(self.clients) > 1:
            name = self.random.choice(sorted(self.clients))
            del self.clients[name]
            self.left.add(name)
            self.post(self.control.enrol("leave", name))
        elif event == "client join":
            n = len(self.first_clients) + len(self.control.entered)
            newcomer = Newcomer(f"client {n + len(self.newcomers)} later")
            self.newcomers[newcomer.name] = newcomer

    def crash(self):
        """Lose a node, but never the last one of a chain: that is an error, which has a test of its own."""
        chains = self.control.directory.chains.values()
        safe = [n for n in sorted(self.control.nodes) if all(len(chain) > 1 for chain in chains if n in chain)]
        if not safe:
            self.plan = sorted([*self.plan, (self.plan[-1][0] + 50 if self.plan else 1000, "crash")])
            return
        moving = self.in_transfer() & set(safe)
        name = self.random.choice(sorted(moving) if moving and self.random.random() < 0.7 else safe)
        self.n_in_transfer += name in moving
        if self.random.random() >= self.faults.zombies:
            self.dead.add(name)
        self.post(self.control.lost(name))

    def in_transfer(self):
        """Return the nodes that bring a shard to another one, or are brought one."""
        chains, recruits = self.control.directory.chains, self.control._recruits
        return {node for shard, recruit in recruits.items() for node in (chains[shard][-1], recruit)}

    def is_over(self):
        for name, newcomer in list(self.newcomers.items()):
            if newcomer.entered is not None:
                self.clients[name], messages = newcomer.client(staleness=self.staleness, near=self._near(name))
                self.post(messages)
                del self.newcomers[name]
        for name in list(self.clients):
            client = self.clients[name]
            if client.clock >= self.n_clocks and not client.n_unacknowledged:
                self.finished.append(self.clients.pop(name))
                self.left.add(name)  # or all others wait for it
                self.post(self.control.enrol("leave", name))
        if self.clients or self.newcomers or self.plan or not self.control.is_settled:
            return False
        directory = self.control.directory
        for shard, chain in directory.chains.items():
            replicas = [self.nodes[name].replicas.get(shard) for name in chain]
            if None in replicas or {replica.epoch for replica in replicas} != {directory.epochs[shard]}:
                return False
            if len({replica.version for replica in replicas}) > 1:
                return False
        return True

    @property
    def is_complete(self):
        """Whether every client came to its end, and every shard has as many replicas as there should be."""
        directory = self.control.directory
        length = min(self.control.length, len(self.control.nodes))
        return self.is_over() and all(len(chain) == length for chain in directory.chains.values())

    def judge(self):
        """Hold what replicas have against what was acknowledged."""
        for shard, chain in self.control.directory.chains.items():
            logs = [self.nodes[n].replicas[shard].store.log for n in chain if shard in self.nodes[n].replicas]
            if not logs:
                self.violations.append(f"shard {shard} is nowhere")
                continue
            counts = Counter(logs[0])
            lost = [number for of, number in self.acknowledged if of == shard and not counts[number]]
            doubled = [number for number, times in counts.items() if times > 1]
            known = {number for (_, of), numbers in self.pushed.items() if of == shard for number in numbers}
            self.violations += [f"lost {number}" for number in lost] + [f"doubled {number}" for number in doubled]
            self.violations += [f"made up {number}" for number in counts if number not in known]
            for (_, of), numbers in self.pushed.items():
                if of == shard and not self.rule["is_collective"]:
                    places = [logs[0].index(number) for number in numbers if number in counts]
                    if places != sorted(places):
                        self.violations.append("applied out of order")
            shortest = min(map(len, logs))
            clocks = [number % 1000 for number in logs[0]]
            if self.rule["is_collective"] and clocks != sorted(clocks):
                self.violations.append("clocks were applied out of order")
            if any(log[:shortest] != logs[0][:shortest] for log in logs):
                self.violations.append(f"replicas of shard {shard} differ")
