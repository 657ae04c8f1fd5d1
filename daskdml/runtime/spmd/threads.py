"""Ranks as threads of this process: sums cross no network, and nobody dies."""

import functools
import queue
import threading
import time

from daskdml.runtime.shelf import MemoryShelf, hand_over, newest
from daskdml.runtime.spmd import driver as say
from daskdml.runtime.spmd.driver import Driver
from daskdml.runtime.spmd.program import Comm, GroupChanged, Station, run_rank
from daskdml.runtime.tables.network import Network, checked_tables, service_of


def run_threads(
    program, blocks, meta, n_ranks, *, step=0, state=None, topology="tree", save_every=None, on_saved=None, shelf=None
):  # fmt: skip
    """Run a program on threads of this process.

    Parameters
    ----------
    program : Program
    blocks : list of Block
    meta : Meta
    n_ranks : int
        At most one per block is started; 1 is this very thread.
    step : int, default 0
        Steps that are finished.
    state : object, default None
        After them; None asks ``program.init``.
    topology : str, default "tree"
    save_every : float, optional
        Seconds between two calls of ``on_saved``.
    on_saved : callable of (step, state), optional
        Is given the state of rank 0.
    shelf : Shelf, optional
        That ranks keep parts of the state on; each has one in memory otherwise.

    Returns
    -------
    Finish
        The last step and state.

    Raises
    ------
    Exception
        What the program raised, on whichever rank.
    """
    n_ranks = max(min(n_ranks, len(blocks)), 1)
    shelves = [MemoryShelf(is_kept=False) if shelf is None else shelf for _ in range(n_ranks)]
    tables = checked_tables(program, meta)
    network = Network(tables, n_ranks, service_of(program)) if tables else None
    threads = _Threads(program, blocks, meta, topology, save_every, shelves, on_saved, network)
    driver = Driver(range(n_ranks), program.init(meta) if state is None else state, step)
    threads.carry_out(driver.begin())
    try:
        while threads.ended is None:
            event = threads.events.get()
            threads.carry_out(driver.on(event))
            if isinstance(event, say.Saved) and on_saved is not None:
                on_saved(event.step, event.state)
    finally:
        threads.close()
    if isinstance(threads.ended, say.Fail):
        raise threads.ended.error
    hand_over(program, threads.ended.state, [functools.partial(newest, shelf) for shelf in shelves])
    return threads.ended


class _Threads:
    """Carries out what the driver says, and the lock that all ranks share."""

    def __init__(self, program, blocks, meta, topology, save_every, shelves, on_saved, network):
        self.program, self.blocks, self.meta, self.topology = program, blocks, meta, topology
        self.save_every, self.shelves, self.on_saved, self.network = save_every, shelves, on_saved, network
        self.events, self.ended = queue.SimpleQueue(), None
        self.changed, self.is_over, self.stations, self.running = threading.Condition(), False, [], []

    def carry_out(self, actions):
        for action in actions:
            getattr(self, f"_{type(action).__name__.lower()}")(action)

    def _place(self, action):
        n, size = len(self.blocks), len(action.workers)
        self.events.put(say.Placed({r: range(r * n // size, (r + 1) * n // size) for r in action.workers}))

    def _start(self, action):
        size = len(action.owners)
        self.stations = [Station() for _ in range(size)]
        ranks = range(1, size) if size == 1 else range(size)
        self.running = [threading.Thread(target=self._run, args=(action, rank, size), daemon=True) for rank in ranks]
        for thread in self.running:
            thread.start()
        if size == 1:
            self._run(action, 0, 1)

    def _abort(self, action):
        with self.changed:
            self.is_over = True
            self.changed.notify_all()
        if self.network is not None:
            self.network.wake()

    def _finish(self, action):
        self.ended = action

    _fail = _finish

    def close(self):
        self._abort(None)
        for thread in self.running:
            thread.join()

    def _run(self, action, rank, size):
        comm = Comm(rank, size, action.generation, self.meta, _Wire(self, rank, size), topology=self.topology)
        saved_at = time.monotonic()

        def on_step(step, state):
            nonlocal saved_at
            if rank == 0 and self.save_every is not None and time.monotonic() - saved_at >= self.save_every:
                saved_at = time.monotonic()
                if size > 1:
                    self.events.put(say.Saved(action.generation, step, state))
                elif self.on_saved is not None:  # this thread takes in no events until the program has ended
                    self.on_saved(step, state)

        own = [self.blocks[i] for i in action.owners[rank]]
        share = None if self.network is None else functools.partial(self.network.tables, rank)
        outcome = run_rank(self.program, own, comm, action.step, action.state, on_step, share)
        self.events.put(say.Returned(action.generation, rank, outcome))


class _Wire:
    """The transport of one rank."""

    def __init__(self, threads, rank, size):
        self.threads, self.rank, self.sent, self.shelf = threads, rank, [0] * size, threads.shelves[rank]
        self.hosts = ["here"] * size

    def send(self, to, packet):
        threads = self.threads
        with threads.changed:
            threads.stations[to].put(1, self.rank, self.sent[to], packet)
            self.sent[to] += 1
            threads.changed.notify_all()

    def receive(self, source):
        threads, station = self.threads, self.threads.stations[self.rank]
        with threads.changed:
            threads.changed.wait_for(lambda: threads.is_over or station.has(1, source))
            self.check()
            return station.take(1, source)

    def check(self, at_boundary=False):
        if self.threads.is_over:
            raise GroupChanged
