"""Training by batches as a program: a superstep is some batches, the state parameters and moments."""

import functools

from daskdml.runtime.spmd import Program
from daskdml.runtime.threads import for_each
from daskdml.training import Training, TrainingState


class TrainingProgram(Program):
    """Train on all ranks' rows.

    Parameters
    ----------
    training : Training
    state : TrainingState
        To begin with.
    """

    shares_threads = tells_work = True
    evenness = 1.1  # a rank that has more rows than the others holds up each batch

    def __init__(self, training: Training, state: TrainingState):
        self.training, self.state = training, state

    def init(self, meta):
        return self.state

    def local(self, blocks):
        n = self.n_threads
        return self.training.replica(blocks, n, functools.partial(for_each, n_threads=n))

    def step(self, state, local, comm):
        return self.training.step(state, local, comm)

    def done(self, state):
        return self.training.is_done(state)
