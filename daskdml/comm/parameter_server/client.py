"""What a worker that trains keeps of a parameter server: its clock, what is not acknowledged, and what it has read."""

from collections import deque
from typing import Any, NamedTuple

from daskdml.comm.parameter_server.messages import (
    CONTROL,
    AskDirectory,
    Directory,
    Enter,
    Entered,
    Meets,
    Operation,
    Pull,
    Push,
)


class HasLeft(RuntimeError):
    """The nodes hold this client to be gone: what it pushes is refused."""


class Newcomer:
    """One that is about to be a client.

    Parameters
    ----------
    name : str
        Of nobody before it.

    Attributes
    ----------
    entered : Entered or None
        The control's answer.
    """

    def __init__(self, name):
        self.name, self.entered, self._directory, self.n_heard = name, None, None, 0

    def retry(self):
        """Ask the control to be let in."""
        return [(CONTROL, Enter(self.name))]

    def on(self, message):
        """Take in a message."""
        self.n_heard += 1
        if isinstance(message, Entered):
            self.entered, message = message, message.directory
        if isinstance(message, Directory) and (self._directory is None or message.number > self._directory.number):
            self._directory = message
        return []

    def client(self, **options):
        """Return the client, and its first messages."""
        client = Client(self.name, self._directory, self.entered.clock, **options)
        return client, client.announce()


class Patience:
    """When to send again what has had no answer: the later, the longer there was none.

    What is on a slow way is not lost: sent again every second it would never get through.

    Parameters
    ----------
    least, most : float
        Seconds before the first and between later ones.
    """

    def __init__(self, least=1.0, most=30.0):
        self._least, self._most, self._wait, self._heard, self._since = least, most, least, -1, None

    def is_over(self, client, now):
        """Tell whether a client is to send again; ``now`` is in seconds."""
        if client.n_heard != self._heard or self._since is None:
            self._heard, self._since, self._wait = client.n_heard, now, self._least
        if now - self._since < self._wait:
            return False
        self._since, self._wait = now, min(2 * self._wait, self._most)
        return True


class Held(NamedTuple):
    """Values of a shard as they were read.

    Attributes
    ----------
    epoch, version : int
    value : object
    """

    epoch: int
    version: int
    value: Any


class Client:
    """One client of a parameter server.

    Parameters
    ----------
    name : str
        A client that has left never comes back under its name.
    directory : Directory
    clock : int, default 0
        Clocks completed.
    staleness : int or None, default None
        Clocks that it may be ahead of the slowest client when it pulls; None waits for nobody. It may change.
    tells_all : bool, default True
        Whether every shard is told of every clock: those that wait for the slowest client need to know.
    caches : bool, default True
        Whether what has not changed since it was read last is not sent again.
    near : str, optional
        A node that is asked for values of the shards that it holds, whether or not it is their head.

    Attributes
    ----------
    held : dict of (int, object) to Held
        What was read last of each shard, by what was asked for.
    answers : dict of int to object
        What the last pull asked for of each shard; whoever computes with it says so, by `use`.
    n_heard : int
        Answers so far: whoever hears some need not send again what it has asked for.
    n_meetings : int
        For which all clients have waited for each other.
    waits_for : str or None
        A client without which what was asked for is never answered: it waits for this one in the next meeting.
    stalenesses : dict of int to int
        How often so many pushes of others had come between what was read of a shard and the update that followed.

    Notes
    -----
    Calls return messages as a list of (to, message). Pushes of one client to one shard are applied in their order, and
    each once; what is not acknowledged is kept, and sent again to whoever is the head by then.
    """

    def __init__(self, name, directory, clock=0, staleness=None, tells_all=True, caches=True, near=None):
        self.name, self.directory, self.clock, self.tells_all = name, directory, clock, tells_all
        self.staleness, self.caches, self.near, self.n_heard = staleness, caches, near, 0
        self.held, self.answers, self.stalenesses, self._seen, self._used = {}, {}, {}, {}, {}
        self._sequences = dict.fromkeys(directory.chains, 0)
        self._unacknowledged = {shard: deque() for shard in directory.chains}
        self._asked, self._request, self._least_clock, self._pushed = {}, 0, -1, {}
        self.n_meetings, self.waits_for = 0, None

    @property
    def n_unacknowledged(self):
        """Pushes that some replica may not have yet, of the shard that has most."""
        return max(map(len, self._unacknowledged.values()), default=0)

    @property
    def is_answered(self):
        """Whether all that was asked for has come."""
        return not self._asked

    def push(self, updates):
        """Complete a clock with updates of some shards.

        Parameters
        ----------
        updates : dict of int to object
            For the stores of the shards; they are not to be changed any more.
        """
        self.clock += 1
        return self._tell(self.directory.chains if self.tells_all else updates, updates)

    def announce(self):
        """Tell all shards at which clock this client begins: to some it entered at an earlier one."""
        return self._tell(self.directory.chains, {})

    def _tell(self, shards, updates):
        for shard in shards:
            self._sequences[shard] += 1
            operation = Operation("push", self.name, self._sequences[shard], self.clock, updates.get(shard))
            self._unacknowledged[shard].append((operation, self._used.get(shard)))
        return [self._push(shard, self._unacknowledged[shard][-1][0]) for shard in shards]

    def pull(self, wanted, ahead=0):
        """Ask for values; `answers` has them when `is_answered`.

        Parameters
        ----------
        wanted : dict of int to object
            What to read of each shard. None, all of it, and names are kept, and sent again only when the shard has
            changed.
        ahead : int, default 0
            Clocks that this client will have completed until it uses them. With a bound on staleness, at most that.
        """
        self._request += 1
        self._least_clock = -1 if self.staleness is None else self.clock + ahead - self.staleness
        # Asked for even where what is held would be new enough: steps along gradients of old values overshoot, and a
        # program alone on its tables diverged where SSP(3) let it read the same values in four clocks.
        self._asked, self.answers, self._pushed = dict(wanted), {}, dict(self._sequences)
        return self._pulls(wanted)

    def meet(self):
        """Say that this client waits for all others before it goes on; whoever has met counts ``n_meetings``."""
        return [(CONTROL, Meets(self.name, self.n_meetings + 1, self.clock))]

    def use(self):
        """Compute the next push from the last answers: what others push from then on makes it stale."""
        self._used = dict(self._seen)

    def on(self, message):
        """Take in a message; return those that follow from it.

        Raises
        ------
        HasLeft
            If the nodes take this client's pushes no more.
        """
        self.n_heard += 1
        if isinstance(message, Entered):
            return []  # once more
        return getattr(self, f"_on_{type(message).__name__.lower()}")(message)

    def retry(self):
        """Send everything again that has had no answer."""
        pushes = [self._push(shard, op) for shard, waiting in self._unacknowledged.items() for op, _ in waiting]
        return [*pushes, *self._pulls(self._asked), (CONTROL, AskDirectory(self.name))]

    def _on_ack(self, message):
        waiting = self._unacknowledged[message.shard]
        while waiting and waiting[0][0].sequence <= message.sequence:
            operation, seen = waiting.popleft()
            has_read = seen is not None and operation.update is not None
            if has_read and operation.sequence == message.sequence and message.n_pushes >= 0:
                n_pushes, sequence = seen
                between = (message.n_pushes - n_pushes) - (operation.sequence - sequence)  # of all, and its own
                self.stalenesses[between] = self.stalenesses.get(between, 0) + 1
        return []

    def _on_value(self, message):
        shard = message.shard
        if shard not in self._asked or message.request != self._request:
            return []
        what, value = self._asked.pop(shard), message.value
        if _is_kept(what):
            value = self.held[shard, what].value if value is None else value
            self.held[shard, what] = Held(message.epoch, message.version, value)
        self.answers[shard], self._seen[shard] = value, (message.n_pushes, message.sequence)
        return []

    def _on_resting(self, message):
        for client, (number, clock) in sorted(message.clients.items()):
            if self._asked and number > self.n_meetings and clock < self._least_clock:
                self.waits_for = client
        return []

    def _on_refuse(self, message):
        if message.has_left:
            # Nothing will be answered any more, and nobody is to wait for it.
            self._asked = {}
            for waiting in self._unacknowledged.values():
                waiting.clear()
            raise HasLeft(f"The parameter server holds {self.name} to be gone; its pushes are refused.")
        if message.epoch < self.directory.epochs[message.shard]:
            return []  # the node is behind, and asks
        return [(CONTROL, AskDirectory(self.name))]

    def _on_directory(self, directory):
        if directory.number <= self.directory.number:
            return []
        changed = [s for s, epoch in directory.epochs.items() if epoch != self.directory.epochs[s]]
        self.directory = directory
        pushes = [self._push(shard, op) for shard in changed for op, _ in self._unacknowledged[shard]]
        return [*pushes, *self._pulls(shard for shard in changed if shard in self._asked)]

    def _push(self, shard, operation):
        return self.directory.chains[shard][0], Push(shard, self.directory.epochs[shard], operation)

    def _pulls(self, shards):
        messages, directory = [], self.directory
        for shard in shards:
            if shard in self._asked:
                what = self._asked[shard]
                held = self.held.get((shard, what)) if _is_kept(what) and self.caches else None
                version = held.version if held is not None and held.epoch == directory.epochs[shard] else -1
                pull = Pull(
                    shard, directory.epochs[shard], self.name, self._request, self._least_clock,
                    self._pushed[shard], self._asked[shard], version,
                )  # fmt: skip
                chain = directory.chains[shard]
                messages.append((self.near if self.near in chain else chain[0], pull))
        return messages


def _is_kept(what):
    """Tell whether what was asked for is kept: not rows of many keys."""
    return what is None or isinstance(what, str)
