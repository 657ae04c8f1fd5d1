"""Tables of a program between two processes: put down shard by shard, with the state that belongs to them."""

import logging
import math
import uuid
from typing import Any, NamedTuple

import numpy as np

from daskdml.runtime.shelf import Shelf

_STATE = "state-"
_log = logging.getLogger("daskdml.ranks")


# Runs that share a folder put down under names of their own: shards of two are never one version.


def state_name(run):
    """Return the name under which a run puts down its state."""
    return f"{_STATE}{run}"


def shard_name(shard, run):
    """Return the name under which a run puts down a shard."""
    return f"tables-{shard}-{run}"


class Saving(NamedTuple):
    """Where tables are put down, how often, and what was there before.

    Attributes
    ----------
    folder : str
        Of a shelf that all see.
    every : float
        Seconds.
    run : str
        What tells it apart from others that put down the same program in the same folder.
    version : int or None
        The step that tables begin at; None if they begin as the program says.
    run_then : str or None
        That has put down this version.
    n_shards, least_part : int or None
        How they were cut then; see `daskdml.runtime.tables.spec.Layout`.
    """

    folder: str
    every: float
    run: str
    version: Any = None
    run_then: Any = None
    n_shards: Any = None
    least_part: Any = None

    def check_seen(self):
        """Refuse a folder that this worker does not see.

        Raises
        ------
        ValueError
        """
        shelf = Shelf(self.folder, is_shared=True)
        if shelf.SEEN not in shelf.versions():
            raise ValueError(
                f"The checkpoint folder {self.folder} is not seen by all workers, which read their shards there: name "
                "a folder or URL that all of them and this process share."
            )

    def fill(self, store, shard):
        """Let the store of a shard hold what was put down.

        Raises
        ------
        ValueError
            If it is not there any more, or damaged.
        """
        found = Shelf(self.folder, is_shared=True).get(shard_name(shard, self.run_then), self.version)
        if found is None:
            raise ValueError(f"Shard {shard} is not in the folder {self.folder} any more; use resume=False.")
        store.restore(found)


def _described(tables):
    """Return what must be the same of tables for shards of them to be gone on from, by their names."""
    found = {}
    for name, table in tables.items():
        kind, rule = type(table).__name__, getattr(table, "rule", None)
        own = vars(table)
        size = ", ".join(f"{key} {own[key]}" for key in ("shape", "n_rows", "width", "n_decaying") if key in own)
        found[name] = f"{kind} of {size}, {np.dtype(table.dtype).name}, {_described_rule(rule)}"
    return found


def _described_rule(rule):
    """Return what gives moments their meaning: names and flags of a rule. Numbers, such as a rate, may differ."""
    if rule is None:
        return "no rule"
    words = [f"{key} {value}" for key, value in sorted(vars(rule).items()) if isinstance(value, (str, bool))]
    return f"{type(rule).__name__} with {', '.join([*words, f'{rule.n_moments} moments'])}"


def begin_on(shelf, every, tables):
    """Return what a program is to save by, and the step and the state that it goes on from, or None for both.

    Parameters
    ----------
    shelf : Shelf
    every : float
        Seconds between two versions.
    tables : dict
        Of the program, by their names.

    Raises
    ------
    ValueError
        If the newest version is of other tables.
    """
    versions, whole, begin = shelf.versions(), (), (None, None)
    states = [(step, name) for name, steps in versions.items() if name.startswith(_STATE) for step in steps]
    for step, name in sorted(states):
        found = shelf.get(name, step)
        if found is None:
            continue  # another run has a newer one
        state, n_shards, least_part, described = found
        run = name.removeprefix(_STATE)
        names = [shard_name(shard, run) for shard in range(n_shards)]
        if all(step in versions.get(name, ()) for name in names):
            whole, begin, shards, known = (step, run, n_shards, least_part), (step, state), names, described
    if whole:
        for name in shards:  # a damaged one is a sentence here, and trouble on a worker
            shelf.get(name, whole[0])
        if known != _described(tables):
            raise ValueError(
                f"The checkpoint in {shelf.folder} is of the tables {known}, and the program asks for "
                f"{_described(tables)}: ask for the same, or use resume=False to begin anew."
            )
    # What others had begun to put down after that does not belong to what comes now.
    for name in versions:
        if name != shelf.SEEN:
            shelf.drop(name, whole[0] if whole else -1)
    return Saving(shelf.folder, every, uuid.uuid4().hex, *whole), *begin


class Saver:
    """Lets the ranks of a group meet now and then after a step, and put down all shards if it is time.

    At the first step of a group, and then when half of the time that is left seems to be over, but after no more than
    twice as many steps as before: rank 0 tells all. It is time after ``saving.every`` seconds, and at once in a group
    that follows another, for shards may have lost a copy, and groups may end sooner than that, again and again. A rank
    that has ended comes to each meeting, until all have.

    Parameters
    ----------
    saving : Saving
    step : int
        That the group begins after.
    comm : Comm
    is_collective : bool
        Whether pushes wait for others of their clock.

    Raises
    ------
    ValueError
        If not all workers of the first group see the folder.
    """

    def __init__(self, saving, step, comm, is_collective):
        self._shelf, self._every, self._comm = Shelf(saving.folder, is_shared=True), saving.every, comm
        self._run = saving.run
        self._is_collective, self._met = is_collective, comm.clock()
        self._saved = self._met if comm.generation == 1 else -math.inf
        self._met_after, self._next, self._first_clock, self._has_warned = step, step + 1, None, False
        if comm.generation == 1:  # later a file system's hiccup must not end the run, nor a worker that sees nothing
            self._shelf.refuse_unseen(comm)

    def begin(self):
        """Remember where this rank's clock begins."""
        self._first_clock = self._comm.tables.clock

    def after(self, step, state):
        """Meet the others, if that was agreed upon for this step."""
        if step < self._next:
            return
        why_not, any_done, _ = self._meet(is_done=False)
        if any_done:  # of ranks that are not at one step nothing can be put down any more
            self._next = math.inf
            _log.warning("tables are not put down any more, from step %d on: some ranks have ended", step)
            return
        comm, now = self._comm, self._comm.clock()
        n_steps, is_time = step - self._met_after, now - self._saved >= self._every
        pace, left = (now - self._met) / n_steps, self._every - (0.0 if is_time else now - self._saved)
        wait = max(int(min(left / max(2 * pace, 1e-9), 2 * n_steps)), 1)
        is_time, wait = comm.broadcast(np.array([is_time, wait])).tolist()
        if is_time and not why_not:
            self._put(step, state)
            self._saved, self._has_warned = comm.clock(), False
        elif is_time:
            wait = 1  # until it can be
            if comm.rank == 0 and not self._has_warned:
                self._has_warned = True
                _log.warning("tables are not put down after step %d: %s", step, why_not)
        self._met, self._met_after, self._next = comm.clock(), step, step + int(wait)

    def end(self):
        """Come to the meeting of others that have steps to do, and wait until all have ended."""
        while not self._meet(is_done=True)[2]:
            pass

    def _meet(self, is_done):
        """Return why nothing can be put down now, and whether any and all ranks have ended."""
        tables = self._comm.tables
        clock = tables.clock - self._first_clock
        own = [is_done, -int(is_done), tables.has_added, clock, -clock]
        tables.begin_meeting()
        try:
            any_done, none_done, has_added, most, least = self._comm.allreduce(np.array(own, np.int64), "max").tolist()
        except RuntimeError as error:
            raise RuntimeError(
                f"{error} (Ranks meet after a step to put tables down, as config_context(checkpoint=...) asks: a step "
                "must receive what is sent to it and finish the sums that it begins, and all ranks must make the calls "
                "that combine their arrays in the same steps.)"
            ) from error
        tables.end_meeting()
        why_not = "something was added and not pushed yet" if has_added else ""
        if self._is_collective and most != -least:
            why_not = "ranks have pushed different numbers of times, and BSP() waits for all"
        return why_not, bool(any_done), none_done == -1

    def _put(self, step, state):
        """Put down all shards, and then the state, which says that they are there."""
        comm, tables, shelf, faults = self._comm, self._comm.tables, self._shelf, []
        tables.settle()
        comm.barrier()
        tables.agree(comm)
        for shard, held in tables.held_shards(comm):
            faults += shelf.faults_of(shelf.put, shard_name(shard, self._run), step, held)
        is_whole = not comm.vote(bool(faults))
        if is_whole and comm.rank == 0:
            layout = tables.layout
            whole = state, layout.n_shards, layout.least_part, _described(layout.tables)
            faults += shelf.faults_of(shelf.put, state_name(self._run), step, whole)
        if not is_whole or faults:
            where = faults or "on another worker"
            _log.warning("tables could not be put down after step %d, the last version stays: %s", step, where)
            if comm.rank == 0:  # what has room on a full disk would be missing to the next version
                shelf.faults_of(self._drop, step)
        elif comm.rank == 0:
            shelf.faults_of(shelf.drop_below, step)

    def _drop(self, step):
        """Let go of a version that is not whole, of this run alone."""
        for name in self._shelf.versions():
            if name.endswith(self._run):
                self._shelf.drop(name, step - 1)
