"""What a rank runs: a program of supersteps, and the communicator that its steps call."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from daskdml.comm import collectives
from daskdml.comm.blocks import allreduce_blocks
from daskdml.comm.endpoint import Endpoint
from daskdml.comm.moves import Pass, Recv, Send


class GroupChanged(Exception):
    """The group of ranks is no more what it was: this generation is over, and the last finished step stands."""


class Meta(NamedTuple):
    """What every rank knows of all rows.

    Attributes
    ----------
    n_samples, n_features, n_blocks : int
    """

    n_samples: int
    n_features: int
    n_blocks: int


class Program:
    """A loop of supersteps that all ranks run on their own rows; subclass it and write `init`, `step` and `done`.

    State is replicated: a pure function of the state before and of reduced data, with the same bits on every rank.
    ``step`` must not change it in place, for a step that a death interrupts is done again from the same state. What
    belongs to rows lives in ``local``, which `rebuild` can make again anywhere.
    """

    def init(self, meta):
        """Return the first state, the same on every rank.

        Parameters
        ----------
        meta : Meta
        """
        raise NotImplementedError

    def local(self, blocks):
        """Return what a rank keeps of its rows; by default the blocks themselves.

        Parameters
        ----------
        blocks : list of daskdml.data.Block
            This rank's, in ascending order of ``block.index``.
        """
        return blocks

    def rebuild(self, state, local):
        """Return ``local`` with what depends on the state, for a group that begins at that state."""
        return local

    def step(self, state, local, comm):
        """Return the next state.

        Parameters
        ----------
        state : object
        local : object
        comm : Comm
        """
        raise NotImplementedError

    def done(self, state):
        """Tell whether the state is final."""
        raise NotImplementedError


class Comm:
    """The calls of a rank to its group; each blocks until its part is done.

    Attributes
    ----------
    rank, size : int
    generation : int
        Counts the groups of one run: a new one is formed after each death, join or pause.
    meta : Meta
    bytes_sent : int
    rounds : int
        Collectives so far.

    Notes
    -----
    Every call raises `GroupChanged` once the group has changed. All ranks must make the same calls in the same order.
    """

    def __init__(self, rank, size, generation, meta, transport, *, topology="auto", latency=1e-3, bandwidth=3e8):
        self.rank, self.size, self.generation, self.meta = rank, size, generation, meta
        self.bytes_sent = self.rounds = 0
        self._transport, self._endpoint = transport, Endpoint()
        self._topology, self._latency, self._bandwidth = topology, latency, bandwidth

    def allreduce(self, x, operation="sum"):
        """Return the arrays of all ranks combined entry by entry; the bits depend on the number of ranks."""
        x = np.asarray(x)
        topology = self._topology
        if topology == "auto":
            topology = collectives.choose_topology(self.size, x.nbytes, self._latency, self._bandwidth)
        return self._call(collectives.allreduce, x, topology=topology, operation=operation)

    def allreduce_blocks(self, values):
        """Return the sum of one vector per block, folded along the tree over block numbers: bits of the blocks alone.

        Parameters
        ----------
        values : dict of int to ndarray
            By ``block.index``, for each block of this rank, which has at least one; float64, of one shape.
        """
        first = next(iter(values.values()))
        flat = {index: np.ravel(value) for index, value in values.items()}
        return self._call(allreduce_blocks, flat, self.meta.n_blocks, first.size).reshape(first.shape)

    def reduce_scatter(self, x, operation="sum"):
        """Return this rank's slice of the combined vectors."""
        return self._call(collectives.reduce_scatter, x, operation=operation)

    def allgather(self, x):
        """Return the list of all ranks' arrays, of any length each."""
        return self._call(collectives.allgather, x)

    def broadcast(self, x, root=0):
        """Return the array of rank ``root``."""
        return self._call(collectives.broadcast, x, root)

    def barrier(self):
        """Wait until all ranks have come here."""
        self._call(collectives.barrier)

    def vote(self, flag):
        """Tell whether any rank said yes."""
        return self._call(collectives.vote, flag)

    def _call(self, collective, *args, **kwargs):
        self.rounds += 1
        moves, answer = collective(self.rank, self.size, *args, **kwargs), None
        while True:
            try:
                move = moves.send(answer)
            except StopIteration as end:
                return end.value
            answer = self._carry_out(move)

    def _carry_out(self, move):
        if isinstance(move, Recv):
            return self._transport.receive(move.source)
        answer = self._endpoint(move)
        if not isinstance(move, (Send, Pass)):
            return answer
        self.bytes_sent += answer.nbytes
        self._transport.send(move.to, answer)
        return None


class Station:
    """Packets that have arrived at one worker for its ranks of one run, by generation and source.

    A generation that is over is refused, whoever still sends in its name: a rank that hung and was taken for dead may
    wake up at any time. One that has not begun here yet is kept, for others may have begun it.
    """

    def __init__(self):
        self.retired = 0
        self._packets, self._expected = {}, {}

    def put(self, generation, source, number, packet):
        """Keep a packet; return whether it was wanted. One that came before (a retransmission) is not."""
        key = generation, source
        if generation <= self.retired or number != self._expected.get(key, 0):
            return False
        self._expected[key] = number + 1
        self._packets.setdefault(key, deque()).append(packet)
        return True

    def has(self, generation, source):
        """Tell whether a packet waits."""
        return bool(self._packets.get((generation, source)))

    def take(self, generation, source):
        """Return the packet that waits longest."""
        return self._packets[generation, source].popleft()

    def retire(self, generation):
        """Refuse a generation, and all before it, from now on."""
        self.retired = max(self.retired, generation)
        for table in (self._packets, self._expected):
            for key in [key for key in table if key[0] <= self.retired]:
                del table[key]


class Outcome(NamedTuple):
    """How a rank ended.

    Attributes
    ----------
    kind : {"done", "aborted", "failed"}
    step : int
        Steps that are finished.
    state : object
        After them.
    error : Exception or None
    """

    kind: str
    step: int
    state: Any
    error: Any = None


def run_rank(program, blocks, comm, step, state, on_step=None):
    """Run a program from a finished step on, until it is done or the group changes.

    Parameters
    ----------
    program : Program
    blocks : list of Block
    comm : Comm
    step : int
    state : object
    on_step : callable of (step, state), optional

    Returns
    -------
    Outcome
    """
    try:
        local = program.rebuild(state, program.local(blocks))
        while not program.done(state):
            state = program.step(state, local, comm)
            step += 1
            if on_step is not None:
                on_step(step, state)
    except GroupChanged:
        return Outcome("aborted", step, state)
    except Exception as error:
        return Outcome("failed", step, state, error)
    return Outcome("done", step, state)
