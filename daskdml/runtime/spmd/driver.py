"""The one that forms groups: told what happened, it says what to do; it waits for nothing and sends nothing itself.

A *generation* is one group of ranks and its attempt to finish the program. It ends when the program is done, or when
the group changes: a member died or hangs, or a worker joined. Ranks then come back with the last step they finished.
Any state that any rank finished is right, for state is a pure function of reduced data and all ranks of a step hold the
same bits; the most advanced one loses least. The next generation begins there, and what still comes from the one
before is refused by its number. So each step counts once, whoever dies when.

The cluster and the simulator both drive this driver: there is no second one.
"""

import math
from typing import Any, NamedTuple

ALLOWED_DEATHS = 3  # of groups that die at one and the same step; rows that kill a worker kill the next one as well


# Events --------------------------------------------------------------------------------------------------------------


class Joined(NamedTuple):
    """A worker has come."""

    worker: Any


class Lost(NamedTuple):
    """A worker has gone, or answers no more; what it still sends is of no interest."""

    worker: Any


class Placed(NamedTuple):
    """All blocks are held by workers again: ``owners`` has the block numbers of each."""

    owners: dict


class Returned(NamedTuple):
    """A rank has ended."""

    generation: int
    worker: Any
    outcome: Any


class Saved(NamedTuple):
    """A rank that goes on has sent the state after a step, lest all ranks die at once."""

    generation: int
    step: int
    state: Any


# Actions -------------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Make every block be held by one of these workers; answer with `Placed`."""

    workers: tuple


class Start(NamedTuple):
    """Start one rank on each worker, in this order, from this step."""

    generation: int
    owners: dict
    step: int
    state: Any


class Abort(NamedTuple):
    """Make the ranks of a generation come back."""

    generation: int


class Pause(NamedTuple):
    """Make the ranks of a generation come back when the step that they are in has ended."""

    generation: int


class Finish(NamedTuple):
    """The program is done."""

    step: int
    state: Any


class Fail(NamedTuple):
    """The program cannot be finished."""

    error: Exception


class Driver:
    """Form generations of ranks until the program is done.

    Parameters
    ----------
    workers : iterable
        That are there at the beginning; sortable names.
    state : object
        The first state.
    step : int, default 0
        Steps that are finished in it.
    allowed_deaths : int, default 3
        Of groups at one and the same step, before the rows themselves are held to be what kills; and groups in a row
        that may end at one step though nobody died or came, before the workers are held to be cut off.
    takes_joins : bool, default True
        Whether a worker that joins becomes a rank, at the price of forming a new group when the step has ended.
    most_ranks : float, default infinity
        How many can hold rows: one that joins a group of so many changes nothing.

    Attributes
    ----------
    generation : int
        Groups so far.
    step, state : int, object
        The most advanced ones known here.
    """

    def __init__(self, workers, state, step=0, *, allowed_deaths=ALLOWED_DEATHS, takes_joins=True, most_ranks=math.inf):
        self.workers = set(workers)
        self.step, self.state = step, state
        self.allowed_deaths, self.takes_joins, self.most_ranks = allowed_deaths, takes_joins, most_ranks
        self.generation = 0
        self._phase, self._owners, self._running = "placing", {}, set()
        self._deaths, self._died_at = 0, -1
        self._fruitless, self._begun_at, self._has_cause = 0, -1, True
        self._n_asked = 0  # Place actions that are not answered yet

    def begin(self):
        """Return the first actions."""
        return self._place()

    def on(self, event):
        """Take in an event; return the list of actions that follow from it."""
        if self._phase == "over":
            return []
        return getattr(self, f"_on_{type(event).__name__.lower()}")(event)

    def _on_joined(self, event):
        if event.worker in self.workers:
            return []
        self.workers.add(event.worker)
        self._has_cause = True
        if self._phase == "running":
            # At a boundary: workers that come faster than steps end must not keep every step from ending.
            is_useful = self.takes_joins and len(self._owners) < self.most_ranks
            return [Pause(self.generation)] if is_useful else []
        return self._place() if self._phase == "placing" else []

    def _on_lost(self, event):
        if event.worker not in self.workers:
            return []
        self.workers.discard(event.worker)
        self._has_cause = True
        if self._phase == "placing":
            return self._place()
        was_rank = event.worker in self._running
        self._running.discard(event.worker)
        if not was_rank and event.worker not in self._owners:
            return []
        if self._phase == "running":
            self._count_death()
            if self._deaths > self.allowed_deaths:
                return self._fail(_too_many(self._deaths, self.step + 1, event.worker))
            return self._drain()
        return self._next_if_empty()

    def _on_placed(self, event):
        self._n_asked -= 1
        if self._phase != "placing" or self._n_asked:
            return []  # someone came or was lost meanwhile: only the answer to the last Place counts
        if not set(event.owners) <= self.workers:
            return self._place()  # on someone who came and went unseen
        self._owners = {worker: event.owners[worker] for worker in sorted(event.owners) if event.owners[worker]}
        self._fruitless = self._fruitless + 1 if not self._has_cause and self.step == self._begun_at else 0
        if self._fruitless > self.allowed_deaths:
            return self._fail(_no_contact(self._fruitless, self.step + 1))
        self._begun_at, self._has_cause = self.step, False
        self.generation += 1
        self._running, self._phase = set(self._owners), "running"
        return [Start(self.generation, self._owners, self.step, self.state)]

    def _on_returned(self, event):
        if event.generation != self.generation or event.worker not in self._running:
            return []
        self._running.discard(event.worker)
        outcome = event.outcome
        if outcome.kind == "failed":
            return self._fail(outcome.error)
        if outcome.kind == "done":
            self._phase = "over"
            return [Finish(outcome.step, outcome.state)]
        self._advance(outcome.step, outcome.state)
        return self._drain() if self._phase == "running" else self._next_if_empty()

    def _on_saved(self, event):
        if event.generation == self.generation:
            self._advance(event.step, event.state)
        return []

    def _advance(self, step, state):
        if step > self.step:
            self.step, self.state = step, state

    def _count_death(self):
        self._deaths = self._deaths + 1 if self._died_at == self.step else 1
        self._died_at = self.step

    def _place(self):
        self._phase = "placing"
        if not self.workers:
            return []
        self._n_asked += 1
        return [Place(tuple(sorted(self.workers)))]

    def _drain(self):
        """End the generation: ranks that are still there come back."""
        self._phase = "draining"
        return [Abort(self.generation), *self._next_if_empty()]

    def _next_if_empty(self):
        return self._place() if not self._running else []

    def _fail(self, error):
        self._phase = "over"
        return [Abort(self.generation), Fail(error)]


def _no_contact(times, step):
    return RuntimeError(
        f"The workers lost contact with each other {times} times in step {step}, although the scheduler reaches all of "
        'them; let them connect to each other, or use config_context(runtime="tasks").'
    )


def _too_many(deaths, step, worker):
    return RuntimeError(
        f"Workers died {deaths} times in step {step}, the last one at {worker}, most likely because they ran out of "
        "memory; give the workers more memory or make the chunks smaller."
    )
