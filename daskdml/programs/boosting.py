"""Boosting as a program: a superstep is an iteration, the state its trees."""

import functools

from daskdml.runtime.spmd import Program
from daskdml.runtime.threads import for_each
from daskdml.trees import Boosting, BoostingState


class BoostingProgram(Program):
    """Boost trees on all ranks' rows.

    Parameters
    ----------
    boosting : Boosting
    state : BoostingState
        To begin with.
    """

    shares_threads = True
    evenness = 1.1  # bins are small, and a rank that has more rows than the others holds up each round

    def __init__(self, boosting: Boosting, state: BoostingState):
        self.boosting, self.state = boosting, state

    def init(self, meta):
        return self.state

    def local(self, blocks):
        n = self.n_threads
        return self.boosting.shards(blocks, n, functools.partial(for_each, n_threads=n))

    def rebuild(self, state, local):
        self.boosting.predict(local, state)
        return local

    def step(self, state, local, comm):
        return self.boosting.iterate(state, local, comm)

    def done(self, state):
        return self.boosting.is_done(state)
