"""A cluster in virtual time: real programs and the shipped driver, on workers that are slow, deaf, late and mortal.

Each rank is a thread, but only one runs at a time: whoever waits hands the baton to the clock, which gives it to the
next one in virtual time. So a run is a function of its seed, and hundreds of workers cost no more than their messages.
"""

import functools
import hashlib
import heapq
import itertools
import random
import threading
from collections import Counter
from numbers import Integral
from typing import NamedTuple

import numpy as np

from daskdml.comm.parameter_server import ShardsLost
from daskdml.data import Partitioned
from daskdml.runtime.local import simulation
from daskdml.runtime.placing import assign
from daskdml.runtime.shelf import MemoryShelf, hand_over, newest
from daskdml.runtime.spmd import driver as say
from daskdml.runtime.spmd.driver import Driver
from daskdml.runtime.spmd.program import Comm, GroupChanged, Meta, Station, Unwind, run_rank
from daskdml.runtime.spmd.simulated_tables import SimulatedTables
from daskdml.runtime.tables.network import checked_tables
from daskdml.utils.config import config_context, get_config

RETRANSMIT_SECONDS = 0.2
START_SECONDS = 0.02
READ_SECONDS_PER_ROW = 1e-6


class _Died(Unwind):
    """Unwinds the rank of a worker that was killed."""


class SimulationReport(NamedTuple):
    """What a simulated run came to.

    Attributes
    ----------
    seconds : float
        Virtual.
    steps, rounds, generations, messages, refused : int
        ``rounds`` are collectives of the rank that made most; ``refused`` messages came twice, or from a generation
        that was over.
    bytes_sent : dict of worker to int
    trace : str
        Hash of every message and its time: equal seeds, equal traces.
    """

    seconds: float
    steps: int
    rounds: int
    generations: int
    messages: int
    refused: int
    bytes_sent: dict
    trace: str


class SimulatedCluster:
    """Run programs on workers that exist in virtual time only.

    Parameters
    ----------
    n_workers : int
        Named 0, 1, ...
    latency : float or (float, float), default (2e-4, 1e-3)
        Seconds of an empty message, drawn between the two.
    bandwidth : float, default 3e8
        Bytes per second of a worker's way out.
    loss : float, default 0.0
        Probability that a message is lost and sent again 0.2 s later; it may then arrive twice.
    stragglers : dict of int to float, optional
        Times that a worker is slower.
    kills : sequence of (float, int)
        Virtual second and worker: it dies, and the driver hears of it up to half a second later.
    suspects : sequence of (float, int)
        Second and worker: the driver gives it up although it lives on, and goes on sending.
    joins : sequence of (float, int)
        Second and worker that comes.
    seconds_per_row : float, default 1e-7
        Of a superstep; of each batch of programs that train by batches.
    hiccups : (float, float), default (0.0, 1.0)
        Share of the pieces of work that take longer, and how many times.
    workers_per_host : int, default 1
        On one machine, in the order of their names, for programs that ask (``comm.hosts``); ways are the same.
    save_every : int, default 5
        Steps between the states that rank 0 sends to the driver.
    rows_per_block : int, optional
        Instead of the number that follows from the columns: few rows then make enough blocks for many workers.
    seed : int, default 0
        Of everything that is drawn.

    Attributes
    ----------
    report : SimulationReport
        Of the last run; None after a fit that made one pass, in this process.

    Notes
    -----
    Runs the driver, the programs and the collectives of a real cluster; only the clock, the network and death are made
    up. Costs the wall time of all ranks' computations, one after the other, about 0.1 ms a message, and a thread and a
    copy of what it reduces per rank.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.runtime.spmd import Program
    >>> class Mean(Program):
    ...     def init(self, meta):
    ...         return None
    ...     def step(self, state, local, comm):
    ...         return comm.allreduce_blocks({b.index: b.X.sum(axis=0) for b in local}) / comm.meta.n_samples
    ...     def done(self, state):
    ...         return state is not None
    >>> cluster = SimulatedCluster(3, kills=[(0.021, 1)], rows_per_block=256)
    >>> cluster.run(Mean(), np.ones((10_000, 2)))
    array([1., 1.])
    >>> cluster.report.generations
    2

    Estimators fit there as well:

    >>> from daskdml.linear_model import Ridge
    >>> X = np.random.default_rng(0).normal(size=(10_000, 2))
    >>> model = SimulatedCluster(20, rows_per_block=256).fit(Ridge(alpha=0.0), X, X @ [1.0, 2.0])
    >>> model.coef_.round(6)
    array([1., 2.])
    """

    def __init__(
        self, n_workers, *, latency=(2e-4, 1e-3), bandwidth=3e8, loss=0.0, stragglers=None, kills=(), suspects=(),
        joins=(), seconds_per_row=1e-7, hiccups=(0.0, 1.0), workers_per_host=1, save_every=5, rows_per_block=None,
        seed=0,
    ):  # fmt: skip
        if not isinstance(n_workers, Integral):
            raise ValueError(f"n_workers must be an int of at least 1, got {n_workers!r}.")
        low, high = np.broadcast_to(latency, 2).tolist()
        for name, value, is_right, allowed in (
            ("n_workers", n_workers, n_workers >= 1, "at least 1"),
            ("latency", latency, 0 <= low <= high, "seconds of at least 0, one number or (least, most)"),
            ("bandwidth", bandwidth, bandwidth > 0, "above 0"),
            ("loss", loss, 0 <= loss < 1, "at least 0 and below 1"),
            ("seconds_per_row", seconds_per_row, seconds_per_row >= 0, "at least 0"),
            ("hiccups", hiccups, 0 <= hiccups[0] <= 1 and hiccups[1] >= 1, "(a share, times of at least 1)"),
            ("workers_per_host", workers_per_host, workers_per_host >= 1, "at least 1"),
            ("save_every", save_every, save_every >= 1, "at least 1"),
            ("rows_per_block", rows_per_block, rows_per_block is None or rows_per_block >= 1, "None or at least 1"),
        ):
            if not is_right:
                raise ValueError(f"{name} must be {allowed}, got {value!r}.")
        self.n_workers, self.bandwidth, self.loss, self.rows_per_block = n_workers, bandwidth, loss, rows_per_block
        self.latency = low, high
        self.stragglers = stragglers or {}
        self.kills, self.suspects, self.joins = tuple(kills), tuple(suspects), tuple(joins)
        self.seconds_per_row, self.save_every, self.seed = seconds_per_row, save_every, seed
        self.hiccups, self.workers_per_host = tuple(hiccups), workers_per_host
        self.report = None

    def run(self, program, X, y=None, sample_weight=None):
        """Run a program to its end and return its last state.

        Parameters
        ----------
        program : Program
        X, y, sample_weight : any input in memory

        Returns
        -------
        object

        Raises
        ------
        RuntimeError
            If no worker can go on: all wait for each other, or all are dead and none will join.
        Exception
            What the program raised.
        """
        data = Partitioned.from_any(X, y, sample_weight)
        (chunk,) = data.chunks
        blocks = chunk.blocks(0, 0, self.rows_per_block or data.rows_per_block)
        return self.run_blocks(program, blocks, Meta(len(chunk), data.n_features, len(blocks)))

    def fit(self, estimator, X, y=None, **params):
        """Fit an estimator there and return it.

        Parameters
        ----------
        estimator : estimator of daskdml
            One whose fit makes many passes; the others are fitted in this process.
        X : any input, shape (n_samples, n_features)
            Dask collections are read into this process first.
        y : any input, shape (n_samples,), optional
        **params
            Of its ``fit``, such as ``sample_weight``.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            If the option ``memory`` asks for rows that are files, or read again: ranks here hold theirs.
        """
        memory = get_config()["memory"]
        if memory not in ("auto", "pinned"):
            raise ValueError(
                f"On a simulated cluster rows are held in memory; got memory={memory!r}, use memory='auto' or 'pinned'."
            )
        self.report = None
        token = simulation.set(self)
        try:
            with config_context(runtime="threads", memory="pinned"):
                return estimator.fit(X, y, **params)
        finally:
            simulation.reset(token)

    def run_blocks(self, program, blocks, meta, step=0, state=None, on_saved=None, shelf=None):
        """Run a program on blocks of rows that are cut already; see `run`.

        Parameters
        ----------
        program : Program
        blocks : list of daskdml.data.Block
        meta : Meta
        step : int, default 0
            Steps that are finished.
        state : object, optional
            After them.
        on_saved : callable of (step, state), optional
            Given the states that come to the driver.
        shelf : Shelf, optional
            That all workers see; each has one of its own otherwise, which dies with it.

        Returns
        -------
        object
        """
        run_ = _Simulation(self, program, blocks, meta, step, program.init(meta) if state is None else state)
        run_.on_saved, run_.shelf = on_saved, shelf
        try:
            state = run_.run()
            own = [worker.shelf for worker in run_.workers.values() if not worker.is_dead]
            shelves = own if shelf is None else [shelf]
            hand_over(program, state, [functools.partial(newest, kept) for kept in shelves])
            return state
        finally:
            self.report = run_.report()
            run_.close()


class _Worker:
    def __init__(self, name):
        self.name, self.is_dead, self.station, self.free_at, self.last_arrival = name, False, Station(), 0.0, {}
        self.shelf = MemoryShelf()


class _Rank:
    """A thread that runs only while it has the baton."""

    def __init__(self, worker, generation, body):
        self.worker, self.generation = worker, generation
        self.is_killed = self.is_aborted = self.is_paused = self.is_over = False
        self.waits_for = None
        self.condition = None
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(body,), daemon=True)
        self.thread.start()

    def _run(self, body):
        self.go.acquire()
        try:
            if not self.is_killed:
                body(self)
        except _Died:
            pass
        finally:
            self.is_over = True
            self.back.release()

    def resume(self):
        """Give it the baton and wait until it hands it back."""
        if not self.is_over:
            self.go.release()
            self.back.acquire()

    def pause(self):
        """Hand the baton back (called by the rank) until it is given again."""
        self.back.release()
        self.go.acquire()
        if self.is_killed:
            raise _Died

    def wait_for(self, what, condition):
        """Hand the baton back until a condition holds, or somebody looks at this rank for another reason."""
        self.waits_for, self.condition = what, condition
        self.pause()
        self.waits_for = self.condition = None

    def look(self):
        """Let the rank go on if what it waits for is so, or it is to stop."""
        if self.condition is not None and (self.is_aborted or self.condition()):
            self.resume()

    def kill(self):
        self.is_killed = True
        self.resume()


class _Simulation:
    def __init__(self, cluster, program, blocks, meta, step, state):
        self.cluster, self.program, self.blocks, self.meta = cluster, program, blocks, meta
        self.random = random.Random(cluster.seed)
        self.now, self.queue, self.order = 0.0, [], itertools.count()
        self.workers = {name: _Worker(name) for name in range(cluster.n_workers)}
        self.ranks, self.ended = [], None
        self.driver = Driver(
            self.workers, state, step, allowed_deaths=len(cluster.kills) + 3, most_ranks=len(blocks)
        )  # fmt: skip
        self.messages = self.refused = 0
        self.rounds = Counter()
        self.bytes_sent, self.owners, self.server_arrivals = {}, [None] * len(blocks), {}
        self.trace = hashlib.sha256()
        tables = checked_tables(program, meta)
        self.server = SimulatedTables(self, tables, program) if tables else None

    def run(self):
        for second, name in self.cluster.kills:
            self.at(second, self.kill, name)
        for second, name in self.cluster.suspects:
            self.at(second, self.tell, say.Lost(name))
        for second, name in self.cluster.joins:
            self.at(second, self.join, name)
        self.carry_out(self.driver.begin())
        while self.ended is None:
            if not self.queue:
                waiting = [f"worker {r.worker.name} for rank {r.waits_for}" for r in self.ranks if not r.is_over]
                raise RuntimeError(f"Nobody can go on at {self.now:.3f} s; waiting: {', '.join(waiting) or 'none'}.")
            self.now, _, call, args = heapq.heappop(self.queue)
            call(*args)
        if isinstance(self.ended, say.Fail):
            raise self.ended.error
        return self.ended.state

    def report(self):
        step = self.ended.step if isinstance(self.ended, say.Finish) else self.driver.step
        return SimulationReport(
            self.now, step, sum(self.rounds.values()), self.driver.generation, self.messages, self.refused,
            dict(self.bytes_sent), self.trace.hexdigest(),
        )  # fmt: skip

    def close(self):
        for rank in self.ranks:
            rank.kill()

    # The clock -------------------------------------------------------------------------------------------------------

    def at(self, second, call, *args):
        heapq.heappush(self.queue, (second, next(self.order), call, args))

    def soon(self, call, *args):
        self.at(self.now + self.random.uniform(*self.cluster.latency), call, *args)

    def mark(self, *what):
        self.trace.update(repr((self.now, *what)).encode())

    # What happens to workers -----------------------------------------------------------------------------------------

    def kill(self, name):
        worker = self.workers.get(name)
        if worker is None or worker.is_dead:
            return
        worker.is_dead = True
        self.mark("kill", name)
        for rank in self.ranks:
            if rank.worker is worker:
                rank.kill()
        self.at(self.now + self.random.uniform(0.0, 0.5), self.tell, say.Lost(name))

    def join(self, name):
        if name not in self.workers:
            self.workers[name] = _Worker(name)
            if self.server is not None:
                self.server.joined(self.workers[name])
            self.tell(say.Joined(name))

    # What the driver says --------------------------------------------------------------------------------------------

    def tell(self, event):
        self.mark(type(event).__name__, event[0] if event else None)
        if self.server is not None and isinstance(event, say.Lost):
            try:
                self.server.lost(self.workers[event.worker])
            except ShardsLost as error:
                self.ended = say.Fail(error)
                return
        self.carry_out(self.driver.on(event))
        if isinstance(event, say.Saved) and self.on_saved is not None:
            self.on_saved(self.driver.step, self.driver.state)

    def carry_out(self, actions):
        for action in actions:
            getattr(self, f"_{type(action).__name__.lower()}")(action)

    def _place(self, action):
        names = action.workers
        held = {name: [i for i, owner in enumerate(self.owners) if owner == name] for name in names}
        lost = [i for i, owner in enumerate(self.owners) if owner not in held]
        homes, moves = assign(held, lost, dict.fromkeys(names, 1), [block.n_rows for block in self.blocks])
        for name, numbers in (*homes.items(), *moves.items()):
            for i in numbers:
                self.owners[i] = name
        owners = {name: [i for i, owner in enumerate(self.owners) if owner == name] for name in names}
        seconds = READ_SECONDS_PER_ROW * self.meta.n_samples / len(names)
        self.at(self.now + seconds, self.tell, say.Placed(owners))

    def _start(self, action):
        names = list(action.owners)
        if self.server is not None:
            self.server.begin_group([self.workers[name] for name in names])
        for rank in range(len(names)):
            second = self.now + START_SECONDS * self.random.uniform(0.5, 2.0)
            self.at(second, self.start_rank, action, rank, names)

    def _abort(self, action):
        for rank in self.ranks:
            if rank.generation == action.generation and not rank.is_over:
                self.soon(self.abort_rank, rank)
        # Ranks that have not begun yet must not begin.
        self.aborted = action.generation

    def _pause(self, action):
        for rank in self.ranks:
            if rank.generation == action.generation and not rank.is_over:
                self.soon(setattr, rank, "is_paused", True)

    aborted, on_saved, shelf = 0, None, None

    def _finish(self, action):
        self.ended = action

    _fail = _finish

    # Ranks -----------------------------------------------------------------------------------------------------------

    def start_rank(self, action, number, names):
        worker = self.workers[names[number]]
        if worker.is_dead:
            return
        step, state = action.step, action.state
        own = [self.blocks[i] for i in action.owners[worker.name]]
        worker.station.retire(action.generation - 1)

        def body(rank):
            wire = _Wire(self, rank, [self.workers[name] for name in names])
            low, high = self.cluster.latency
            comm = Comm(
                number, len(names), action.generation, self.meta, wire, latency=(low + high) / 2,
                bandwidth=self.cluster.bandwidth,
            )  # fmt: skip
            cost = self.cluster.seconds_per_row * sum(block.n_rows for block in own)

            def on_step(step, state):
                if number == 0 and step % self.cluster.save_every == 0:
                    self.soon(self.arrive, worker, say.Saved(action.generation, step, state))
                if not self.program.tells_work:
                    rank_work(self, rank, cost)

            rank_work(self, rank, cost)
            share = None if self.server is None else functools.partial(self.server.tables, rank, number)
            outcome = run_rank(self.program, own, comm, step, state, on_step, share)
            self.rounds[action.generation] = max(self.rounds[action.generation], comm.rounds)
            worker.station.retire(action.generation)
            self.soon(self.arrive, worker, say.Returned(action.generation, worker.name, outcome))

        rank = _Rank(worker, action.generation, body)
        rank.is_aborted = action.generation <= self.aborted
        self.ranks = [r for r in self.ranks if not r.is_over]
        self.ranks.append(rank)
        rank.resume()

    def arrive(self, worker, event):
        """Bring a worker's report to the driver, unless it died before the last byte had left."""
        if not worker.is_dead:
            self.tell(event)

    def abort_rank(self, rank):
        rank.is_aborted = True
        if rank.waits_for is not None:
            rank.resume()

    def send_bundle(self, source, to, bundle, n_bytes, arrive):
        """Bring a bundle of messages of a parameter server from a worker to one, None being beside the driver."""
        leaves = self.now
        if source is not None:
            if source.is_dead:
                return
            if source is not to:
                leaves = source.free_at = max(self.now, source.free_at) + n_bytes / self.cluster.bandwidth
                self.bytes_sent[source.name] = self.bytes_sent.get(source.name, 0) + n_bytes
        self.messages += 1
        last = self.server_arrivals.setdefault((source and source.name, to and to.name), 0.0)
        arrives = max(leaves + (0.0 if source is to else self.random.uniform(*self.cluster.latency)), last)
        self.server_arrivals[source and source.name, to and to.name] = arrives

        def bring():
            if to is None or not to.is_dead:
                self.mark("bundle", to and to.name, len(bundle), n_bytes)
                arrive(to, bundle)

        self.at(arrives, bring)

    def deliver(self, worker, generation, source, number, packet):
        self.mark("message", worker.name, generation, source, number, packet.nbytes)
        if not worker.station.put(generation, source, number, packet):
            self.refused += 1
            return
        for rank in self.ranks:
            if rank.worker is worker and rank.waits_for == source and rank.generation == generation:
                rank.resume()
                return


def rank_work(simulation, rank, seconds):
    """Let a rank compute: virtual seconds, more of them for a straggler."""
    factor = simulation.cluster.stragglers.get(rank.worker.name, 1.0) * simulation.random.uniform(1.0, 1.2)
    share, times = simulation.cluster.hiccups
    if share and simulation.random.random() < share:
        factor *= times
    simulation.at(simulation.now + seconds * factor, rank.resume)
    rank.pause()


class _Wire:
    """The transport of a rank: messages take their virtual time, in order between two workers."""

    def __init__(self, simulation, rank, group):
        self.simulation, self.rank, self.group, self.sent = simulation, rank, group, {}
        self.shelf = rank.worker.shelf if simulation.shelf is None else simulation.shelf
        self.hosts = [str(worker.name // simulation.cluster.workers_per_host) for worker in group]

    def send(self, to, packet):
        sim, here, there = self.simulation, self.rank.worker, self.group[to]
        number = self.sent.get(to, 0)
        self.sent[to] = number + 1
        leaves = max(sim.now, here.free_at) + packet.nbytes / sim.cluster.bandwidth
        here.free_at = leaves
        arrives, copies = leaves + sim.random.uniform(*sim.cluster.latency), 1
        while sim.random.random() < sim.cluster.loss:
            arrives, copies = arrives + RETRANSMIT_SECONDS, copies + (sim.random.random() < 0.5)
        arrives = max(arrives, here.last_arrival.get(there.name, 0.0))
        here.last_arrival[there.name] = arrives
        sim.messages += 1
        sim.bytes_sent[here.name] = sim.bytes_sent.get(here.name, 0) + packet.nbytes
        source = self.group.index(here)
        for _ in range(copies):
            sim.at(arrives, sim.deliver, there, self.rank.generation, source, number, packet)

    def receive(self, source):
        rank = self.rank
        while True:
            self.check()
            if rank.worker.station.has(rank.generation, source):
                return rank.worker.station.take(rank.generation, source)
            rank.waits_for = source
            rank.pause()
            rank.waits_for = None

    def clock(self):
        return self.simulation.now

    def work(self, n_rows):
        rank_work(self.simulation, self.rank, self.simulation.cluster.seconds_per_row * n_rows)
        self.check()

    def check(self, at_boundary=False):
        if self.rank.is_aborted or (at_boundary and self.rank.is_paused):
            raise GroupChanged
