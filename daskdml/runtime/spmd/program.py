"""What a rank runs: a program of supersteps, and the communicator that its steps call."""

import copy
import functools
import math
import numbers
import time
from collections import Counter, deque
from typing import Any, NamedTuple

import numpy as np

from daskdml.comm import collectives, values
from daskdml.comm.blocks import allreduce_blocks
from daskdml.comm.endpoint import Endpoint
from daskdml.comm.gossip import gossip
from daskdml.comm.moves import Open, Pass, Recv, Send
from daskdml.utils.memory import Recycled

# Of a message between two processes of one machine through the workers' own connections; measured ones replace them.
LATENCY, BANDWIDTH = 5e-4, 3e8
FEWEST = "fewest"  # bytes of the rank that sends most: as good as a topology's name


class Unwind(BaseException):
    """This thread is to end without a word."""


class GroupChanged(BaseException):
    """The group of ranks is no more what it was: this generation is over, and the last finished step stands.

    No `Exception`: a program that catches errors of its own must not catch this.
    """


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

    Attributes
    ----------
    n_threads : int
        Threads that a step may use, set on each rank before the first one.
    shares_threads : bool, default False
        Whether steps use all threads of their process themselves: there is one rank for a process then, where
        otherwise each thread of this process is a rank.
    tells_work : bool, default False
        Whether steps say how many rows they have worked on, by ``comm.worked``: a simulated cluster lets time pass
        then, instead of after each step.
    keeps_parts : bool, default False
        Whether ranks hold parts of a state that no rank holds whole: they keep them on ``comm.shelf``, where the rank
        of the next group on this worker finds them, and see to it themselves that a death loses none.
    evenness : float or None, default None
        Times its share of the rows that a worker of a cluster may hold when a group is formed: chunks of workers that
        hold more are moved. None leaves them where they lie at first, and allows 1.3 later.
    consistency : BSP, SSP or ASP of daskdml.strategies, or None, default None
        What ranks see of each other's pushes to tables; None is ``BSP()``.
    replicas : int, default 1
        Copies of each shard of the tables on other workers, as many of which may die at once.
    shards : int or None, default None
        That tables are cut into; None is four for each worker that there is in the beginning. Workers that come later
        take over some: where there are no more shards than workers, they take nothing.
    scripts : dict of int to list, or None, default None
        For each shard of the tables, in which order pushes are to be taken in and reads answered: all that
        ``comm.tables.orders()`` of each rank has returned in an earlier run on as many ranks. An empty dict only has it
        written down.
    may_tighten : bool, default False
        Whether ranks may come to wait for each other more than ``consistency`` says: by
        ``comm.tables.client.staleness``.
    holds_tables : bool, default False
        Whether tables are begun from a state that was saved, and what is on ``comm.shelf``: checkpoints do not hold
        them then. Otherwise ranks meet now and then after a step, and shards are written to the checkpoint's folder.
    caches : bool, default True
        Whether what a rank has read of dense tables is kept, and sent again only when it has changed.
    reads_near : bool, default False
        Whether a rank reads shards that its own worker has copies of from there. After a worker has died or come, such
        a copy may not know yet that it is none any more: ``comm.tables.agree(comm)`` waits until it does, which those
        who read what others have pushed before a barrier must do.

    Examples
    --------
    >>> class Mean(Program):
    ...     def init(self, meta):
    ...         return None
    ...     def step(self, state, local, comm):
    ...         return comm.allreduce(sum(block.X.sum(axis=0) for block in local)) / comm.meta.n_samples
    ...     def done(self, state):
    ...         return state is not None
    >>> import daskdml
    >>> daskdml.run(Mean(), np.arange(10.0).reshape(5, 2))
    array([4., 5.])
    """

    n_threads = 1
    shares_threads = False
    tells_work = False
    keeps_parts = False
    evenness = None
    consistency = None
    replicas = 1
    shards = None
    caches = True
    scripts = None
    may_tighten = False
    holds_tables = False
    reads_near = False
    _saving = None  # a `daskdml.runtime.tables.saving.Saving`, during a run with checkpoints of its tables

    def served_by(self, server):
        """Have tables as a strategy says.

        Parameters
        ----------
        server : daskdml.strategies.ParameterServer
        """
        self.consistency, self.replicas, self.caches = server.consistency, server.replicas, server.cache
        self.shards = None if server.shards == "auto" else server.shards
        if server.record or server.replay is not None:
            self.scripts = {} if server.replay is None else server.replay["shards"]

    def tables(self, meta):
        """Return the tables that ranks share beside the state, by their names: none unless you say otherwise.

        Parameters
        ----------
        meta : Meta
            Rows, features and blocks in all.

        Returns
        -------
        dict of str to daskdml.DenseTable or daskdml.SparseTable
            Of a step, ``comm.tables[name]`` is a view of one, and ``comm.tables.push()`` sends what was added.

        Notes
        -----
        A push is applied once, whoever dies; a step is not. When the group changes, ranks go on from the last step that
        any of them has finished: what a rank had pushed in a step that is done again counts twice, and what it had yet
        to push in one that another had finished is not made up for. Steps along gradients bear that, counts do not.

        With ``config_context(checkpoint=...)`` ranks meet after a step when it is time, whatever the consistency, and
        put all shards down in the checkpoint's folder, which all workers must see: what is gone on from is of one time.
        The number of shards stays what it was then.
        """
        return {}

    def init(self, meta):
        """Return the first state, the same on every rank.

        Parameters
        ----------
        meta : Meta
            Rows, features and blocks in all.

        Returns
        -------
        object
            For checkpoints made of what `daskdml.utils.portable` lists: numbers, strings, arrays, tuples, dicts ...
        """
        raise NotImplementedError

    def resume(self, state):
        """Prepare to go on from a state that an earlier process has saved, before any rank is told of this program.

        Parameters
        ----------
        state : object

        Returns
        -------
        object
            The state to go on from.
        """
        return state

    def begin_on(self, shelf, step, state):
        """Prepare to go on from parts that ranks of an earlier process have left on a shelf which all see.

        Parameters
        ----------
        shelf : daskdml.runtime.shelf.Shelf
        step : int
            That is finished.
        state : object
            After it.

        Returns
        -------
        int, object
            Where to begin.
        """
        return step, state

    def fingerprint(self):
        """Return what tells this program from another one of its class: its attributes, unless you say otherwise.

        Returns
        -------
        object
            Of what `daskdml.utils.portable` lists. A checkpoint is gone on from if it is the same.
        """
        return {name: str(value) if name == "consistency" else value for name, value in vars(self).items()}

    def local(self, blocks):
        """Return what a rank keeps of its rows; by default the blocks themselves.

        Parameters
        ----------
        blocks : list of daskdml.data.Block
            This rank's, in ascending order of ``block.index``; each has ``X``, ``y``, ``weight``, ``index``, ``start``.
            Arrays are read-only: they are the user's own, or stay for the next group. Copy what is to be changed.

        Returns
        -------
        object
        """
        return blocks

    def rebuild(self, state, local):
        """Return ``local`` with what depends on the state, for a group that begins at that state.

        Parameters
        ----------
        state : object
        local : object
            What `local` returned.

        Returns
        -------
        object
        """
        return local

    def step(self, state, local, comm):
        """Return the next state.

        Parameters
        ----------
        state : object
        local : object
            What `rebuild` returned.
        comm : Comm
            Talks to the other ranks; all must make the same calls in the same order.

        Returns
        -------
        object
        """
        raise NotImplementedError

    def done(self, state):
        """Tell whether the state is final.

        Parameters
        ----------
        state : object

        Returns
        -------
        bool
        """
        raise NotImplementedError

    def parts(self, state):
        """Return the names of what makes up the result beside the last state: kept by ``comm.shelf.put``.

        Parameters
        ----------
        state : object
            The last one.

        Returns
        -------
        sequence of str
        """
        return ()

    def take(self, name, value):
        """Take over a part of the result, in the process that asked for it; one at a time.

        Parameters
        ----------
        name : str
        value : object
        """

    def run(self, step, state, local, comm, commit):
        """Go from a finished step on to the end: the loop of one rank.

        Parameters
        ----------
        step : int
            Steps that are finished.
        state : object
            After them.
        local : object
            What `rebuild` returned.
        comm : Comm
        commit : callable of (step, state)
            To be told of every step that is finished: the next group goes on from there.

        Returns
        -------
        object
            The last state.
        """
        while not self.done(state):
            state, step = self.step(state, local, comm), step + 1
            commit(step, state)
        return state


class Comm:
    """The calls of a rank to its group; each blocks until its part is done.

    Attributes
    ----------
    rank, size : int
    generation : int
        Counts the groups of one run: a new one is formed after each death, join or pause.
    meta : Meta
    latency, bandwidth : float
        Seconds of an empty message and bytes per second of a long one, by which topologies are chosen.
    bytes_sent, bytes_received : int
    rounds : int
        Collectives so far.
    seconds : dict
        In collectives so far: "encode" (making packets and arrays of them), "transfer" (handing them over), "wait".
    tables : daskdml.runtime.tables.session.Tables or None
        Those of a program that has some.

    Notes
    -----
    Every call raises `GroupChanged` once the group has changed. All ranks must make the same calls in the same order;
    a packet says which call it belongs to, and one of another call is an error. Ranks that each wait for a packet that
    nobody sends wait on, as in MPI; Ctrl-C ends them.
    """

    def __init__(
        self, rank, size, generation, meta, transport, *, topology="auto", latency=LATENCY, bandwidth=BANDWIDTH
    ):
        self.rank, self.size, self.generation, self.meta = rank, size, generation, meta
        self.bytes_sent = self.bytes_received = self.rounds = 0
        self.seconds = dict.fromkeys(("encode", "transfer", "wait"), 0.0)
        self._transport, self._endpoint, self._recycled = transport, Endpoint(), Recycled()
        self._topology, self.latency, self.bandwidth = topology, latency, bandwidth
        self._started, self._calls, self._everyone = None, Counter(), tuple(range(size))
        self.tables = None

    def allreduce(
        self, x, operation="sum", topology=None, compression=None, wait=True, copies=True, members=None
    ):  # fmt: skip
        """Return the arrays of all ranks combined entry by entry; the bits depend on the number of ranks.

        Parameters
        ----------
        x : ndarray
            Of the same shape and dtype on every rank.
        operation : {"sum", "max", "min"}, default "sum"
        topology : {"central", "tree", "doubling", "ring", "halving", "fewest"}, optional
            Instead of the one that is predicted to be the fastest for this many bytes. "fewest" is the fastest of those
            of which the rank that sends most sends the fewest bytes, which is taken with ``compression``.
        compression : codec of daskdml.compress, optional
            Makes what is sent, such as ``FP16()``. All ranks still get the same bits.
        wait : bool, default True
            False returns a `Started` at once, whose ``finish()`` returns the sum: what a rank computes before it asks
            for that hides the time on the way. It must ask before its next call.
        copies : bool, default True
            False for an array that nobody will write to again: ranks of one process may read it at any later time.
        members : sequence of int, optional
            Ranks, this one among them, that combine theirs alone, while the others do so in groups of their own.
        """
        members = range(self.size) if members is None else members
        x, endpoint = self._numbers(x, operation, copies), Endpoint(compression)
        topology, exact = topology or self._topology, compression is None or compression.exact
        if topology == "auto" and compression is not None:
            topology = FEWEST
        if topology in ("auto", FEWEST):
            links = len(members), x.nbytes, self.latency, self.bandwidth
            topology = collectives.choose_topology(*links, exact, saves_bytes=topology == FEWEST)
        if compression is not None and compression.reduce_kind != "sum":
            raise ValueError(
                f"{type(compression).__name__} cannot be added up on its way; use allreduce_codes, which returns the "
                "codec's next state beside the sum."
            )
        _checked(topology, exact)
        what = f"allreduce of {x.dtype} {x.shape}, {operation}, {topology}"
        options = {"topology": topology, "operation": operation, "empty": self._recycled.empty}
        started = self._start(what, collectives.allreduce, x, endpoint=endpoint, members=members, **options)
        return started.finish() if wait else started

    def allreduce_codes(self, x, codec, state=None, topology=None):
        """Return the sum of what a codec makes of the arrays of all ranks, and the codec's next state on this rank.

        Parameters
        ----------
        x : ndarray of float
            Of the same shape and dtype on every rank.
        codec : codec of daskdml.compress
            Of kind "sum" it is what `allreduce` takes, and its state never changes; of kind "gather" every rank gets
            the packets of all, decodes them, and adds up in the order of ranks; of kind "linear" codes are added up.
        state : object, optional
            What ``codec.start(seed)`` or the last call returned on this rank; None for the first array.
        topology : str, optional
            See `allreduce`. Of "gather" it says which way packets go, not what their sum is; left to the library it is
            "doubling".

        Returns
        -------
        total : ndarray
            The same bits on every rank; see the notes of `PowerSGD` for processors of different types.
        state : object
        """
        if state is None:
            state = codec.start(0 if codec.reduce_kind == "linear" else self.rank)
        if codec.reduce_kind == "sum":
            return self.allreduce(x, topology=topology, compression=codec), state
        if codec.reduce_kind == "gather":
            endpoint, x = Endpoint(codec, state), self._numbers(x, "sum", True)
            topology = topology or self._topology
            topology = "doubling" if topology == "auto" else _checked(topology)
            what = f"allreduce_codes of {x.dtype} {x.shape}, {codec.name}, {topology}"
            arrays = self._call(what, collectives.allgather, x, endpoint=endpoint, topology=topology)
            return functools.reduce(np.add, arrays), endpoint.state
        rounds, total = codec.rounds(x, state), None
        while True:
            try:
                part = rounds.send(total)
            except StopIteration as end:
                total, _, state = end.value
                return total, state
            total = self.allreduce(part, topology=topology or (FEWEST if self._topology == "auto" else self._topology))

    @property
    def shelf(self):
        """What ranks of this run keep on this worker from group to group; see `daskdml.runtime.shelf`."""
        return self._transport.shelf

    @property
    def hosts(self):
        """The machine of each rank, as a name: equal for those that are on one."""
        return self._transport.hosts

    def allreduce_blocks(self, values, n_blocks=None, like=None, members=None, topology=None):
        """Return the sum of one vector per block, folded along the tree over block numbers: bits of the blocks alone.

        Parameters
        ----------
        values : dict of int to ndarray, or Fold of them
            By ``block.index``, for each block of this rank; of floats, of one shape and dtype.
        n_blocks : int, optional
            Of all ranks, where they are not the blocks of rows: then a rank may have none.
        like : ndarray, optional
            An array of the shape and dtype, for ranks that may have none.
        members : sequence of int, optional
            Ranks, this one among them, that combine theirs alone, while the others do so in groups of their own.
        topology : {"central", "tree", "ring"}, optional
            Which way they go, whatever it is to the same bits: to rank 0 at once, up a tree of ranks, or each slice to
            the rank that folds it and from there around. None takes the last one for long arrays, and else the tree.
        """
        members = range(self.size) if members is None else members
        nodes = getattr(values, "nodes", values)
        if like is None:
            _refuse_none(nodes)
        arrays = {index: np.asarray(value) for index, value in nodes.items()}
        first = next(iter(arrays.values())) if like is None else like
        shapes = {array.shape for array in arrays.values()} | {first.shape}
        if len(shapes) > 1:
            found = " and ".join(map(str, sorted(shapes)))
            raise ValueError(f"allreduce_blocks takes arrays of one shape, got {found}.")
        flat = {index: array.ravel() for index, array in arrays.items()}
        if nodes is not values:
            flat, values.nodes = values, flat
        what = f"allreduce_blocks of {first.dtype} {first.shape}"
        n_blocks = self.meta.n_blocks if n_blocks is None else n_blocks
        ways = {
            None: {}, "central": {"sliced": False, "fan_in": max(len(members) - 1, 1)}, "tree": {"sliced": False},
            "ring": {"sliced": True},
        }  # fmt: skip
        if topology not in ways:
            raise ValueError(f"topology of sums over blocks must be one of central, tree, ring, got {topology!r}.")
        total = self._call(what, allreduce_blocks, flat, n_blocks, first.size, members=members, **ways[topology])
        return total.reshape(first.shape)

    def allreduce_values(self, own, combine):
        """Return values of any kind, one per block (or a `Fold` of them), combined along the tree over block numbers.

        Parameters
        ----------
        own : dict of int to object, or Fold
            By ``block.index``; what they may hold, `daskdml.utils.portable` says.
        combine : callable of two values
        """
        _refuse_none(getattr(own, "nodes", own))
        return self._call("allreduce_values", values.allreduce_values, own, self.meta.n_blocks, combine)

    def reduce_scatter(self, x, operation="sum", wait=True, copies=True):
        """Return this rank's slice of the combined vectors; for ``wait`` and ``copies`` see `allreduce`."""
        x = self._numbers(x, operation, copies)
        what = f"reduce_scatter of {x.dtype} {x.shape}, {operation}"
        started = self._start(what, collectives.reduce_scatter, x, operation=operation, empty=self._recycled.empty)
        return started.finish() if wait else started

    def allgather(self, x):
        """Return the list of all ranks' arrays, of any length each."""
        return self._call("allgather", collectives.allgather, np.array(x))

    def seconds_to_reduce(self, n_bytes):
        """Predict the seconds of an exact all-reduce of so many bytes, by its fastest topology."""
        links = self.size, n_bytes, self.latency, self.bandwidth
        return collectives.TOPOLOGIES[collectives.choose_topology(*links)].seconds(*links)

    def seconds_to_share(self, n_bytes):
        """Predict the seconds of a reduce-scatter of so many bytes, or of the all-gather that undoes it."""
        return (self.size - 1) * (self.latency + n_bytes / self.size / self.bandwidth)

    def broadcast(self, x, root=0, members=None):
        """Return the array of rank ``root``, one of the ``members`` if there are some; see `allreduce`."""
        self._check_rank(root)
        place = root if members is None else members.index(root)
        return self._call(f"broadcast from {root}", collectives.broadcast, np.array(x), place, members=members)

    def broadcast_value(self, value):
        """Return the value of rank 0, which may be of any kind that `daskdml.utils.portable` lists."""
        return self._call("broadcast_value", values.broadcast_value, value)

    def gather_values(self, value):
        """Return the list of all ranks' values on rank 0, None elsewhere."""
        return self._call("gather_values", values.gather_values, value)

    def send(self, to, x):
        """Send an array to one rank, without waiting for it."""
        self._check_rank(to)
        self._carry_out(Send(to, np.array(x)), self._endpoint, "send")

    def receive(self, source):
        """Wait for the next array that one rank has sent here."""
        self._check_rank(source)
        packet = self._carry_out(Recv(source), self._endpoint, "send")
        return _own(self._carry_out(Open(packet), self._endpoint, "send"))

    def check(self, at_boundary=False):
        """Raise `GroupChanged` if the group has changed: for long computations between two calls.

        Parameters
        ----------
        at_boundary : bool, default False
            Whether a step has just ended: a group that is to change at the next boundary has changed then.
        """
        self._transport.check(at_boundary)

    def is_pausing(self):
        """Tell whether the group is to change when the step has ended, as far as this rank knows."""
        self.check()
        try:
            self.check(at_boundary=True)
        except GroupChanged:
            return True
        return False

    def gossip(self, x):
        """Return the mean of this rank's array and its two neighbours'; see `daskdml.comm.gossip.gossip`."""
        return self._call(f"gossip of {x.dtype} {x.shape}", gossip, np.array(x))

    def clock(self):
        """Return the seconds of a clock that only goes forward; virtual ones in a simulated cluster."""
        clock = getattr(self._transport, "clock", None)
        return time.perf_counter() if clock is None else clock()

    def worked(self, n_rows):
        """Say that this rank has worked on so many rows; in a simulated cluster that takes its virtual time.

        Parameters
        ----------
        n_rows : callable
            Returns the number; not called elsewhere.
        """
        work = getattr(self._transport, "work", None)
        if work is not None:
            work(n_rows())

    def room(self):
        """Return the bytes of rows that this rank may take from others; ranks of one process have them already."""
        room = getattr(self._transport, "room", None)
        return math.inf if room is None else room()

    def barrier(self):
        """Wait until all ranks have come here."""
        self._call("barrier", collectives.barrier)

    def vote(self, flag):
        """Tell whether any rank said yes."""
        return self._call("vote", collectives.vote, flag)

    def finish(self):
        """Wait until the program has ended on all ranks: the first report is believed, so none may still fail."""
        self._call("the end of the program", collectives.barrier)

    def _numbers(self, x, operation, copies):
        """Return an array that can be reduced."""
        if operation not in collectives.OPERATIONS:
            raise ValueError(f"operation must be one of {', '.join(collectives.OPERATIONS)}, got {operation!r}.")
        x = np.asarray(x)
        if x.dtype.kind not in "biufc":
            raise TypeError(f"Reductions take numbers, got an array of {x.dtype}.")
        if x.dtype == bool and operation == "sum":
            return x.astype(np.int64)  # how many, as np.sum has it
        return self._recycled.copy(x) if copies else x

    def _check_rank(self, rank):
        if not (isinstance(rank, numbers.Integral) and 0 <= rank < self.size):
            raise ValueError(f"A rank of this group is an int from 0 to {self.size - 1}, got {rank!r}.")

    def _call(self, what, collective, *args, **kwargs):
        return self._start(what, collective, *args, **kwargs).finish()

    def _start(self, what, collective, *args, endpoint=None, members=None, **kwargs):
        """Begin a collective: all that this rank can do before something must have come from another."""
        if self._started is not None:
            raise RuntimeError(f"Ask for the result of {self._started.what} (its finish()) before the next call.")
        self.rounds += 1
        members = self._everyone if members is None else tuple(members)
        self._calls[members] += 1  # by members: ranks that are in several groups need not make equally many calls
        what = f"call {self._calls[members]}, {what}"
        moves = collective(members.index(self.rank), len(members), *args, **kwargs)
        moves = moves if len(members) == self.size else collectives.among(members, moves)
        self._started = Started(self, what, moves, endpoint)
        self._started.advance()
        return self._started

    def _carry_out(self, move, endpoint, what):
        started = time.perf_counter()
        if isinstance(move, Recv):
            found = self._transport.receive(move.source)
            self.seconds["wait"] += time.perf_counter() - started
            self.bytes_received += found.packet.nbytes
            if found.what != what:
                # Arrays of other shapes may well add up, to a wrong sum.
                raise RuntimeError(
                    f"Ranks are in different calls: rank {move.source} is in {found.what}, rank {self.rank} is in "
                    f"{what}; all ranks must make the same calls in the same order, with arrays of one shape."
                )
            return found.packet
        answer = endpoint(move)
        made = time.perf_counter()
        self.seconds["encode"] += made - started
        if not isinstance(move, (Send, Pass)):
            return answer
        self.bytes_sent += answer.nbytes
        self._transport.send(move.to, Labelled(what, answer))
        self.seconds["transfer"] += time.perf_counter() - made
        return None


class Started:
    """A collective on its way.

    Attributes
    ----------
    what : str
    """

    def __init__(self, comm, what, moves, endpoint):
        self.what = what
        self._comm, self._moves, self._endpoint = comm, moves, endpoint or comm._endpoint
        self._waits_for = self._answer = self._value = None
        self._is_over = False

    def advance(self, may_wait=False):
        """Carry out moves up to the first one that waits for another rank, or all of them."""
        while not self._is_over:
            move, self._waits_for = self._waits_for, None
            if move is None:
                try:
                    move = self._moves.send(self._answer)
                except StopIteration as end:
                    self._value, self._is_over = _own(end.value), True
                    return
            if isinstance(move, Recv) and not may_wait:
                self._waits_for = move
                return
            self._answer = self._comm._carry_out(move, self._endpoint, self.what)

    def finish(self):
        """Return the result; waits for it."""
        self.advance(may_wait=True)
        self._comm._started = None
        return self._value


def _checked(topology, exact=True):
    """Return the name of a topology; refuse what is none, or needs packets that hold what was sent."""
    fit = [name for name, kind in collectives.TOPOLOGIES.items() if exact or not kind.needs_exact]
    if topology not in fit:
        raise ValueError(
            f"topology must be one of {', '.join(fit)}{'' if exact else ' with a lossy codec'}, got {topology!r}."
        )
    return topology


def _refuse_none(values):
    if not values:
        raise ValueError("Reductions over blocks take a value for each block of this rank, which has at least one.")


def _read_only(block):
    """Return a block whose arrays cannot be written to: they are the user's own, or are held for the next group."""
    return block._replace(X=_locked(block.X), y=_locked(block.y), weight=_locked(block.weight))


def _locked(part):
    if isinstance(part, tuple):
        return tuple(map(_locked, part))
    if isinstance(part, np.ndarray):
        part = part.view()
        part.flags.writeable = False
    elif hasattr(part, "indptr"):
        part = copy.copy(part)
        part.data = _locked(part.data)
    return part


def _own(value):
    """Return an array that may be written to: what arrives is read-only, for other ranks may hold the same memory."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return value.copy()
    return [_own(member) for member in value] if isinstance(value, list) else value


class Labelled(NamedTuple):
    """A packet and the call that it was sent in."""

    what: str
    packet: Any

    @property
    def nbytes(self):
        """Bytes of the packet."""
        return self.packet.nbytes


class Station:
    """Packets that have arrived at one worker for its ranks of one run, by generation and source.

    A generation that is over is refused, whoever still sends in its name: a rank that hung and was taken for dead may
    wake up at any time. One that has not begun here yet is kept, for others may have begun it.

    Attributes
    ----------
    n_bytes : int
        Of the packets that wait.
    """

    def __init__(self):
        self.retired = self.n_bytes = 0
        self._packets, self._expected = {}, {}

    def put(self, generation, source, number, packet):
        """Keep a packet; return whether it was wanted. One that came before (a retransmission) is not."""
        key = generation, source
        if generation <= self.retired or number != self._expected.get(key, 0):
            return False
        self._expected[key] = number + 1
        self._packets.setdefault(key, deque()).append(packet)
        self.n_bytes += packet.nbytes
        return True

    def expects(self, generation, source):
        """Return the number of the packet that is to come next."""
        return self._expected.get((generation, source), 0)

    @property
    def is_empty(self):
        """Whether no packet waits."""
        return not any(self._packets.values())

    def has(self, generation, source):
        """Tell whether a packet waits."""
        return bool(self._packets.get((generation, source)))

    def take(self, generation, source):
        """Return the packet that waits longest."""
        packet = self._packets[generation, source].popleft()
        self.n_bytes -= packet.nbytes
        return packet

    def retire(self, generation):
        """Refuse a generation, and all before it, from now on."""
        self.retired = max(self.retired, generation)
        for table in (self._packets, self._expected):
            for key in [key for key in table if key[0] <= self.retired]:
                del table[key]
        self.n_bytes = sum(packet.nbytes for packets in self._packets.values() for packet in packets)


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


def run_rank(program, blocks, comm, step, state, on_step=None, share=None):
    """Run a program from a finished step on, until it is done or the group changes.

    Parameters
    ----------
    program : Program
    blocks : list of Block
    comm : Comm
    step : int
    state : object
    on_step : callable of (step, state), optional
    share : callable of Comm, optional
        Returns the tables that this rank shares with others.

    Returns
    -------
    Outcome
    """
    committed, saver = [step, state], None

    def commit(step, state):
        committed[:] = step, state
        if on_step is not None:
            on_step(step, state)
        if saver is not None and not program.done(state):  # else it comes to `end`
            saver.after(step, state)
        comm.check(at_boundary=True)

    try:
        local = program.local([_read_only(block) for block in blocks])
        if share is not None:
            # Before any shard is read from there: a node that fails would be waited for.
            if program.keeps_parts:  # else there is no shelf, and to ask for one would make it
                comm.shelf.refuse_unseen(comm)
            if program._saving is not None:
                from daskdml.runtime.tables.saving import Saver

                is_collective = program.consistency is None or program.consistency.is_collective
                saver = Saver(program._saving, step, comm, is_collective)
            comm.tables = share(comm)
            if saver is not None:
                saver.begin()
        final = program.run(step, state, program.rebuild(state, local), comm, commit)
        if comm.tables is not None:
            comm.tables.leave()  # first: others may wait for its clock before they come to a meeting
        if saver is not None:
            saver.end()
        comm.finish()
    except GroupChanged:
        return Outcome("aborted", *committed)
    except Unwind:
        raise
    except BaseException as error:  # of any kind: a rank that says nothing would be waited for
        return Outcome("failed", *committed, error)
    return Outcome("done", committed[0], final)
