"""Programs on the workers of a Dask cluster: carries out what the driver says, and tells it what happens."""

import functools
import logging
import math
import pickle
import queue
import sys
import threading
import time
import uuid
import warnings
from contextlib import suppress
from types import SimpleNamespace

from distributed import CancelledError, KilledWorker

from daskdml.comm.parameter_server import NodeFailed, ShardsLost
from daskdml.runtime.memory import format_bytes
from daskdml.runtime.placing import UNEVEN, NoRoom
from daskdml.runtime.replacing import itself
from daskdml.runtime.shelf import hand_over, newest
from daskdml.runtime.spmd import driver as say
from daskdml.runtime.spmd.dask_comm import RANK_PREFIX
from daskdml.runtime.spmd.driver import Driver
from daskdml.runtime.spmd.hosting import TablesOfRun
from daskdml.runtime.spmd.program import Outcome
from daskdml.runtime.spmd.ranks import (
    Group,
    Ranks,
    drop_parts,
    end_generation,
    latest_step,
    pause_generation,
    read_part,
    run_task,
    what_is_missing,
)
from daskdml.runtime.tables.network import checked_tables
from daskdml.runtime.watch import check_scheduler, patiently

TICK_SECONDS = 0.05
BROADCAST_BYTES = 1 << 20
PINNED_SHARE = 0.6  # of a worker's memory, beyond which Dask begins to write to disk what is pinned
PAUSED_SHARE = 0.8  # of it, taken by all that its process holds, beyond which Dask starts no task there
WAIT_FOR_ROOM = 30.0  # seconds for a replacement, where those that are left may not hold the rows
WAIT_FOR_WORKER = 60.0

_log = logging.getLogger("daskdml.ranks")
_links: dict = {}
_plugged: dict = {}
_warned: set = set()


class RanksImpossible(RuntimeError):
    """This version of distributed lacks what ranks need to talk to each other."""


def prepare(client):
    """Let the workers have ranks.

    Raises
    ------
    RanksImpossible
        If their version of distributed lacks something.
    """
    addresses = frozenset(client.nthreads())
    known, missing = _plugged.get(client.id, (None, ""))
    if known != addresses:
        patiently(client, lambda: client.register_plugin(Ranks()))
        answers = patiently(client, lambda: client.run(what_is_missing, on_error="return"), asks_again=True)
        missing = ", ".join(sorted({text for text in answers.values() if isinstance(text, str)} - {""}))
        _plugged[client.id] = addresses, missing
    if missing:
        raise RanksImpossible(f"This version of distributed lacks {missing}.")


def can_have_ranks(client):
    """Tell whether the workers can have ranks; warn if they cannot, once per cluster."""
    try:
        prepare(client)
    except RanksImpossible as error:
        if client.scheduler.address not in _warned:
            _warned.add(client.scheduler.address)
            warnings.warn(
                f"Fits use tasks instead of ranks that talk to each other, which is slower: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        return False
    return True


class ClusterRanks:
    """One run of a program on the workers that hold the chunks.

    Parameters
    ----------
    client : distributed.Client
    placed : Placed
    meta : Meta
    positions : list of tuple
        What ``Chunk.blocks`` needs to number the blocks of each chunk.
    lengths : list of int
        Rows of the chunks.
    row_bytes : float
        That a row takes in a worker's memory; 0 where rows are files.
    save_every : float
        Seconds between two states that are brought here.
    on_saved : callable of (step, state), optional
        Is given those states.
    topology : str, default "auto"
    takes_joins : bool, default True
    shelf : Shelf, optional
        Seen by all workers and by this process, for parts of the state that ranks keep.

    Attributes
    ----------
    driver : Driver
    recoveries : list of float
        Seconds from the end of each group, but the last, to the start of the next.

    Notes
    -----
    The logger "daskdml.ranks" says the same at level INFO.
    """

    def __init__(
        self, client, placed, meta, positions, lengths, row_bytes, *, save_every=30.0, on_saved=None, topology="auto",
        takes_joins=True, shelf=None,
    ):  # fmt: skip
        self.client, self.placed, self.meta = client, placed, meta
        self.positions, self.lengths, self.row_bytes = positions, lengths, row_bytes
        self.save_every, self.on_saved = save_every, on_saved
        self.topology, self.takes_joins, self.shelf = topology, takes_joins, shelf
        self.run_id = uuid.uuid4().hex
        self.driver, self.recoveries, self._ended_at, self._tables = None, [], None, None
        self._events = queue.SimpleQueue()
        self._futures, self._addresses, self._ended, self._saving = [], {}, None, None
        self._scheduler = None

    def run(self, program, step=0, state=None):
        """Run a program to its end; return its last state.

        Parameters
        ----------
        program : Program
            Picklable.
        step : int
            Steps that are finished.
        state : object
            After them.

        Raises
        ------
        RuntimeError
            If workers die again and again at one step, none is left for a minute, what is left cannot hold the rows, or
            the scheduler is gone.
        Exception
            What the program raised, at once.
        """
        self._program, self._evenness = _pickled(program), program.evenness
        prepare(self.client)
        self._scheduler = self.client.scheduler.address
        self.driver = Driver(
            self.placed.watch.present(now=True), state, step, takes_joins=self.takes_joins,
            most_ranks=sum(position is not None for position in self.positions),
        )  # fmt: skip
        self._alone_since = self._saved_at = time.monotonic()
        try:
            tables = checked_tables(program, self.meta)
            if tables:
                self._tables = TablesOfRun(
                    self.client, self.run_id, tables, program, self.driver.workers, _pickled, self._events.put
                )
            self._carry_out(self.driver.begin())
            while self._ended is None:
                self._wait()
            if isinstance(self._ended, say.Finish):
                hand_over(program, self._ended.state, self._shelves())
        except (OSError, CancelledError) as error:
            check_scheduler(self.client, error)
            raise
        finally:
            self._let_go()
            if self._tables is not None:
                self._tables.close(self.placed.watch.present(now=True))
            if program.keeps_parts:
                there = sorted(self.placed.watch.present(now=True))
                threading.Thread(target=self._call_on, args=(drop_parts, there), daemon=True).start()
        if isinstance(self._ended, say.Fail):
            raise self._ended.error
        return self._ended.state

    # Events ----------------------------------------------------------------------------------------------------------

    def _wait(self):
        with suppress(queue.Empty):
            self._tell(self._events.get(timeout=TICK_SECONDS))
        if self._tables is not None:
            self._tables.remind()
        present = self.placed.watch.present()
        for address in sorted(self.driver.workers - present):
            self._tell(say.Lost(address))
        for address in sorted(present - self.driver.workers):
            self._tell(say.Joined(address))
        now = time.monotonic()
        self._alone_since = now if present else self._alone_since
        if now - self._alone_since > WAIT_FOR_WORKER:
            raise RuntimeError(
                f"The cluster has had no worker for {WAIT_FOR_WORKER:.0f} seconds, at step {self.driver.step}; start "
                "some, and go on from a checkpoint with config_context(checkpoint=..., resume=True)."
            )
        # Who asks a worker that has died is told so after half a minute: another thread asks another worker.
        is_saving = self._saving is not None and self._saving.asked in (None, *present)
        if now - self._saved_at > self.save_every and not is_saving:
            self._saved_at, self._saving = now, SimpleNamespace(asked=None)
            threading.Thread(target=self._save, args=(self._saving,), daemon=True).start()

    def _tell(self, event):
        if self._tables is not None:
            try:
                self._tell_tables(event)
            except (ShardsLost, NodeFailed) as error:
                self._carry_out([say.Abort(self.driver.generation), say.Fail(error)])
        if self._ended is None and not isinstance(event, list):
            self._carry_out(self.driver.on(event))
            if isinstance(event, say.Saved) and self.on_saved is not None:
                self.on_saved(self.driver.step, self.driver.state)

    def _tell_tables(self, event):
        if isinstance(event, list):  # messages to the control of tables
            self._tables.on(event)
        elif isinstance(event, say.Joined):
            self._tables.joined(event.worker)
        elif isinstance(event, say.Lost):
            self._tables.lost(event.worker)

    def _save(self, saving):
        """Bring the newest state here; in a thread of its own, for a stopped worker never answers."""
        try:
            for address in self._present():
                saving.asked = address
                found = self.client.run(latest_step, self.run_id, workers=[address], on_error="ignore").get(address)
                if found is not None:
                    self._events.put(say.Saved(*found))
                    return
        except Exception:
            # No state this time: the fit goes on without, and tries again.
            _log.info("no state could be brought from %s", saving.asked, exc_info=True)
        finally:
            if self._saving is saving:
                self._saving = None

    # Actions ---------------------------------------------------------------------------------------------------------

    def _carry_out(self, actions):
        for action in actions:
            getattr(self, f"_{type(action).__name__.lower()}")(action)

    def _place(self, action):
        self._drop_futures()
        until = time.monotonic() + WAIT_FOR_ROOM
        while True:
            try:
                if not self.driver.generation and self._evenness is None:
                    owners = self.placed.held()
                else:
                    owners = self.placed.settle(self.lengths, self._most_rows, self._evenness or UNEVEN)
                break
            except NoRoom as error:
                self.placed.watch.present()  # what workers take may be less by now
                if time.monotonic() > until:
                    raise RuntimeError(_no_room(error, self.row_bytes)) from None
                time.sleep(TICK_SECONDS)
        # Chunks without rows, and workers without blocks, take no part.
        blocks = {a: [i for i in numbers if self.positions[i] is not None] for a, numbers in owners.items()}
        self._events.put(say.Placed({address: numbers for address, numbers in blocks.items() if numbers}))

    def _most_rows(self, address, worker, n_rows):
        """Return how many rows a worker may hold that has so many now: beside what else its process holds."""
        if not self.row_bytes:
            return math.inf
        free = PAUSED_SHARE * worker.memory_limit - self.placed.watch.memory(address)
        return min(PINNED_SHARE * worker.memory_limit / self.row_bytes, n_rows + free / self.row_bytes)

    def _present(self):
        """Return the workers of the newest group that are still there: others would never answer."""
        return [address for address in self._addresses if address in self.driver.workers]

    def _start(self, action):
        # A group's ranks follow the rows, so that neighbours in the tree of blocks are neighbours among ranks.
        addresses = sorted(action.owners, key=lambda a: action.owners[a][0])
        link = _links.get(self._scheduler, (None, None))
        shelf = None if self.shelf is None else self.shelf.folder
        group = Group(self.run_id, action.generation, addresses, self.meta, self.topology, *link, shelf)
        program, group = self._sent(self._program), pickle.dumps(group)
        start = self._sent(_pickled((action.step, action.state)))
        self._addresses = {address: rank for rank, address in enumerate(addresses)}
        if self._tables is not None:
            self._tables.begin_group(addresses)
        after = ""
        if self._ended_at is not None:
            self.recoveries.append(time.monotonic() - self._ended_at)
            self._ended_at, after = None, f", {self.recoveries[-1]:.2f} s after the last one"
        _log.info("group %d of %d ranks begins at step %d%s", action.generation, len(addresses), action.step, after)
        for rank, address in enumerate(addresses):
            numbers = action.owners[address]
            chunks, positions = [self.placed.futures[i] for i in numbers], [self.positions[i] for i in numbers]
            future = self.client.submit(
                run_task, program, group, start, chunks, positions, rank, workers=[address], allow_other_workers=False,
                key=f"{RANK_PREFIX}{self.run_id}-{action.generation}-{rank}", retries=0, pure=False,
            )  # fmt: skip
            self._futures.append(future)
            future.add_done_callback(self._returns(action.generation, address))

    def _sent(self, payload):
        if len(payload) <= BROADCAST_BYTES:
            return payload
        return self.client.submit(itself, payload, key=f"daskdml-broadcast-{uuid.uuid4().hex}")

    def _returns(self, generation, address):
        """Return what brings the report of a rank here when its task has ended.

        Each by a thread of its own: the report of a worker that dies right now never comes, and Dask calls back in one
        thread, where all others would wait behind it.
        """
        return lambda future: threading.Thread(
            target=self._collect, args=(generation, address, future), daemon=True
        ).start()

    def _collect(self, generation, address, future):
        try:
            report = future.result()
        except (CancelledError, KilledWorker):
            outcome = Outcome("aborted", -1, None)
        except Exception as error:
            # The watch sees whether its worker has gone; if not, this rank has come back with nothing.
            outcome = Outcome("aborted", -1, None)
            if future.status == "error":
                outcome = Outcome("failed", -1, None, error)
            elif not isinstance(error, OSError):
                outcome = Outcome("failed", -1, None, _not_brought(error))
        else:
            outcome = report.outcome
            if report.latency is not None:
                _links[self._scheduler] = report.latency, report.bandwidth
        self._events.put(say.Returned(generation, address, outcome))

    def _abort(self, action):
        """Call the ranks of a group back; in a thread, for a stopped worker never answers."""
        self._ended_at = self._ended_at or time.monotonic()
        self._tell_ranks(end_generation, action.generation)

    def _pause(self, action):
        """Let the ranks of a group come back when their step has ended."""
        self._tell_ranks(pause_generation, action.generation)

    def _tell_ranks(self, function, generation):
        present = self.placed.watch.present(now=True)
        there = [address for address in self._present() if address in present]
        threading.Thread(target=self._call_on, args=(function, there, generation), daemon=True).start()

    def _call_on(self, function, addresses, *args):
        with suppress(Exception):  # a worker that has died
            self.client.run(function, self.run_id, *args, workers=addresses, on_error="ignore")

    def _shelves(self):
        """Return what reads a part from the shelf of each worker."""
        if self.shelf is not None:
            return [functools.partial(newest, self.shelf)]

        def read(name, address):
            return self.client.run(read_part, self.run_id, name, workers=[address], on_error="ignore").get(address)

        return [functools.partial(read, address=address) for address in sorted(self.placed.watch.present(now=True))]

    def _finish(self, action):
        self._ended = action

    _fail = _finish

    def _drop_futures(self):
        if self._futures:
            self.client.cancel(self._futures, force=True)
        self._futures = []

    def _let_go(self):
        with suppress(Exception):  # the scheduler may be gone
            self._drop_futures()


def _pickled(value):
    """Return a program or a state as bytes; classes of a module that was made at run time go by value."""
    try:
        return _by_value(value, sys.modules.get(type(value).__module__))
    except Exception as error:
        raise TypeError(
            f"A {type(value).__module__}.{type(value).__qualname__} cannot be pickled, so the workers cannot have it: "
            f"{error}; leave out locks, open files and connections, or make them in `local`."
        ) from error


def _by_value(value, module):
    import cloudpickle

    is_made = module is not None and module.__spec__ is None and not hasattr(module, "__file__")
    if not is_made or module.__name__ == "__main__":
        return cloudpickle.dumps(value, protocol=5)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(value, protocol=5)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _not_brought(error):
    *_, why = str(error).strip().splitlines() or [repr(error)]  # Dask hands a whole traceback on
    failed = RuntimeError(
        f"The last state of the program could not be brought to this process: {why}; leave out what cannot be "
        "pickled, such as locks and open files, and classes that this process cannot import."
    )
    failed.__cause__ = error
    return failed


def _no_room(error, row_bytes):
    return (
        f"{error.n_workers} workers are left, which may not hold {format_bytes(error.total * row_bytes)} of rows in "
        "memory beside what they hold already, and "
        f"no other came within {WAIT_FOR_ROOM:.0f} seconds; add workers, or read the rows again in every pass with "
        'config_context(memory="mmap") or config_context(memory="stream").'
    )
