"""Tables of a program between two processes: put down shard by shard, with the state that belongs to them."""

import logging
from typing import Any, NamedTuple

import numpy as np

from daskdml.runtime.shelf import Shelf

STATE = "state"
_log = logging.getLogger("daskdml.ranks")


def shard_name(shard):
    """Return the name under which a shard is put down."""
    return f"tables-{shard}"


class Saving(NamedTuple):
    """Where tables are put down, how often, and what was there before.

    Attributes
    ----------
    folder : str
        Of a shelf that all see.
    every : float
        Seconds.
    version : int or None
        The step that tables begin at; None if they begin as the program says.
    n_shards, least_part : int or None
        How they were cut then; see `daskdml.runtime.tables.spec.Layout`.
    """

    folder: str
    every: float
    version: Any = None
    n_shards: Any = None
    least_part: Any = None

    def fill(self, store, shard):
        """Let the store of a shard hold what was put down."""
        store.restore(Shelf(self.folder, is_shared=True).get(shard_name(shard), self.version))


def begin_on(shelf, every):
    """Return what a program is to save by, and the step and the state that it goes on from, or None for both.

    Parameters
    ----------
    shelf : Shelf
    every : float
        Seconds between two versions.
    """
    versions, whole = shelf.versions(), None
    for step in versions.get(STATE, ()):
        state, n_shards, least_part = shelf.get(STATE, step)
        if all(step in versions.get(shard_name(shard), ()) for shard in range(n_shards)):
            whole = step, state, n_shards, least_part
    # What others had begun to put down after that does not belong to what comes now.
    for name in versions:
        if name != shelf.SEEN:
            shelf.drop(name, -1 if whole is None else whole[0])
    if whole is None:
        return Saving(shelf.folder, every), None, None
    step, state, n_shards, least_part = whole
    return Saving(shelf.folder, every, step, n_shards, least_part), step, state


class Saver:
    """Lets the ranks of a group meet now and then after a step, and put down all shards if it is time.

    At the first step of a group, and then when half of the time that is left seems to be over: rank 0 tells all.

    Parameters
    ----------
    saving : Saving
    step : int
        That the group begins after.
    comm : Comm

    Raises
    ------
    ValueError
        If not all workers see the folder.
    """

    def __init__(self, saving, step, comm):
        self._shelf, self._every, self._comm = Shelf(saving.folder, is_shared=True), saving.every, comm
        self._shelf.refuse_unseen(comm)
        self._newest = max(self._shelf.versions().get(STATE, [-1]))
        self._met = self._saved = comm.clock()
        self._met_after, self._next = step, step + 1

    def after(self, step, state):
        """Meet the others, if that was agreed upon for this step."""
        if step < self._next:
            return
        comm, now = self._comm, self._comm.clock()
        pace, is_time = (now - self._met) / (step - self._met_after), now - self._saved >= self._every
        left = self._every if is_time else self._every - (now - self._saved)
        wait = max(int(min(left / max(2 * pace, 1e-9), 1e9)), 1)
        is_time, wait = comm.broadcast(np.array([is_time and step > self._newest, wait])).tolist()
        if is_time:
            self._put(step, state)
            self._saved, self._newest = comm.clock(), step
        self._met, self._met_after, self._next = comm.clock(), step, step + int(wait)

    def _put(self, step, state):
        """Put down all shards, and then the state, which says that they are there."""
        comm, tables, shelf, faults = self._comm, self._comm.tables, self._shelf, []
        tables.settle()
        comm.barrier()
        for shard, held in tables.held_shards(comm):
            if held is None:
                faults.append("ranks have pushed different numbers of times, and BSP() waits for all")
            else:
                faults += shelf.faults_of(shelf.put, shard_name(shard), step, held)
        is_whole = not comm.vote(bool(faults))
        if is_whole and comm.rank == 0:
            faults += shelf.faults_of(shelf.put, STATE, step, (state, tables.layout.n_shards, tables.layout.least_part))
        if not is_whole or faults:
            where = faults or "on another worker"
            _log.warning("tables could not be put down after step %d, the last version stays: %s", step, where)
        elif comm.rank == 0:
            shelf.faults_of(shelf.drop_below, step)
