"""Training by batches as a program: a superstep is some batches, the state parameters and moments."""

import functools
from dataclasses import astuple

from daskdml.runtime.checkpoint import digest_of
from daskdml.runtime.spmd import Program
from daskdml.runtime.threads import for_each
from daskdml.training import COEFFICIENTS, INTERCEPTS, Descent, Gathering, Training, TrainingState, in_shards

MOST_FOLLOWED = 1 << 24  # bytes of a state that is brought here every two seconds to show how far it is


def train(run, training, state, what, begun, follow=None):
    """Train on the rows of a run; return the last state, with all parameters wherever they were.

    Parameters
    ----------
    run : Run
    training : Training or SequentialTraining
    state : TrainingState or SequentialState
        To begin with; of a model in shards without parameters, if they are to be drawn.
    what : str
        What it computes, for the fingerprint of checkpoints.
    begun : tuple
        What else it begins with, for that too: see `digest_of`.
    follow : callable of (step, state), optional
        Is told now and then how far it is, unless the state is large.
    """
    schedule, is_cut = training.schedule, training.depends_on_ranks
    # A checkpoint is gone on from on other ranks too, with batches cut as they were.
    what += digest_of((*begun, state, astuple(schedule.cut_as((0, 0, 0)) if is_cut else schedule)))
    if is_cut:
        state = state._replace(cut=schedule.cut)
    if not training.is_sharded:
        is_small = sum(array.nbytes for array in (state.theta, *getattr(state, "moments", ()))) <= MOST_FOLLOWED
        return run.run_saved(TrainingProgram(training, state), what, follow if is_small else None)
    training, state = in_shards(training, state)
    gathering = Gathering(training)
    return gathering.whole(run.run_saved(TrainingProgram(training, state, gathering.take), what, follow))


class TrainingProgram(Program):
    """Train on all ranks' rows.

    Parameters
    ----------
    training : Training
    state : TrainingState
        To begin with.
    take_shard : callable of (name, value), optional
        Is given the shards of the model in the end, where it is cut into some; see `daskdml.training.parts`.
    """

    shares_threads = tells_work = holds_tables = True
    evenness = 1.1  # a rank that has more rows than the others holds up each batch

    def __init__(self, training: Training, state: TrainingState, take_shard=None):
        self.training, self.state, self.take_shard = training, state, take_shard
        if training.is_served:
            server = training.strategy
            self.consistency, self.replicas, self.caches = server.consistency, server.replicas, server.cache
            self.shards = None if server.shards == "auto" else server.shards
            self.may_tighten = server.guard
            if server.record or server.replay is not None:
                self.scripts = {} if server.replay is None else server.replay["shards"]

    def init(self, meta):
        return self.state

    def tables(self, meta):
        if not self.training.is_served:
            return {}
        from daskdml.runtime.tables.spec import DenseTable  # not before somebody has a parameter server

        transform, objective, state = self.training.transform, self.training.objective, self.state
        n, found = objective.n_decayed, {}
        codecs = self.training.strategy.compression, None
        for name, part, codec in zip((COEFFICIENTS, INTERCEPTS), (slice(0, n), slice(n, None)), codecs):
            found[name] = DenseTable(
                len(state.theta[part]), state.theta.dtype, state.theta[part],
                Descent(transform, objective.alpha, is_decayed=name == COEFFICIENTS),
                moments=[moment[part] for moment in state.moments], n_updates=state.n_updates, compression=codec,
            )  # fmt: skip
        return found

    def resume(self, state):
        if self.training.depends_on_ranks:
            self.training = self.training._replace(schedule=self.training.schedule.cut_as(state.cut))
        self.state = self.training.at_whole_epochs(state) if self.training.is_served else state
        return self.state

    @property
    def keeps_parts(self):
        """Whether the model is cut into shards, which are on no rank all together."""
        return self.training.is_sharded

    def __getstate__(self):
        return {**vars(self), "take_shard": None}  # the workers have nobody to give them to

    def parts(self, state):
        return self.training.results(state)

    def take(self, name, value):
        self.take_shard(name, value)

    def local(self, blocks):
        n = self.n_threads
        return self.training.replica(blocks, n, functools.partial(for_each, n_threads=n))

    def step(self, state, local, comm):
        return self.training.step(state, local, comm)

    def run(self, step, state, local, comm, commit):
        while not self.done(state):
            state = self.step(state, local, comm)
            # Where a group has gone back to an older version of its shards, this is not one more than the step before.
            commit(state.n_steps, state)
        return state

    def done(self, state):
        return self.training.is_done(state)
