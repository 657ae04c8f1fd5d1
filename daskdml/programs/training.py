"""Training by batches as a program: a superstep is some batches, the state parameters and moments."""

import functools
from dataclasses import astuple

import numpy as np

from daskdml.runtime.checkpoint import digest_of
from daskdml.runtime.spmd import Program
from daskdml.runtime.threads import for_each
from daskdml.training import (
    COEFFICIENTS,
    INTERCEPTS,
    Descent,
    Gathering,
    RowGathering,
    Training,
    TrainingState,
    in_shards,
    is_result,
)
from daskdml.utils.config import get_config

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
    if training.keeps_parts and training.is_served:
        training = training._replace(save_every=get_config()["checkpoint_every"])
        gathering = RowGathering(training, _row_table(training).numbers_of)
        return gathering.whole(run.run_saved(TrainingProgram(training, state, gathering.take), what, follow))
    if not training.is_sharded:
        is_small = sum(array.nbytes for array in (state.theta, *getattr(state, "moments", ()))) <= MOST_FOLLOWED
        return run.run_saved(TrainingProgram(training, state), what, follow if is_small else None)
    training, state = in_shards(training, state)
    gathering = Gathering(training)
    return gathering.whole(run.run_saved(TrainingProgram(training, state, gathering.take), what, follow))


def _row_table(training, begin=None):
    """Return the table of coefficients by their columns, and behind them of what L1 has taken from each.

    Parameters
    ----------
    training : ServedRowsTraining
    begin : (ndarray of int32, ndarray of shape (n, n_models)), SavedRows or None
        Columns with coefficients other than zero, and these; or where they are.
    """
    from daskdml.runtime.tables.rows import RowTable

    k = len(training.settings)
    width = 2 * k if training.has_l1 else k
    if type(begin) is tuple:
        begin = begin[0], np.pad(begin[1], ((0, 0), (0, width - k)))
    return RowTable(training.n_features, width, training.dtype, n_decaying=k, start=begin)


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

    shares_threads = tells_work = holds_tables = reads_near = True
    evenness = 1.1  # a rank that has more rows than the others holds up each batch

    def __init__(self, training: Training, state: TrainingState, take_shard=None):
        self.training, self.state, self.take_shard, self.begin = training, state, take_shard, None
        if training.keeps_parts and training.is_served:
            self.state, self.begin = state._replace(coef=None), state.coef
        if training.is_served:
            self.served_by(training.strategy)
            self.may_tighten = training.strategy.guard

    def init(self, meta):
        return self.state

    def tables(self, meta):
        training, state = self.training, self.state
        if not training.is_served:
            return {}
        from daskdml.runtime.tables.spec import DenseTable  # not before somebody has a parameter server

        if training.keeps_parts:
            intercepts = np.array([model.intercept for model in training.states(state.theta)])
            table = _row_table(training, self.begin)
            return {COEFFICIENTS: table, INTERCEPTS: DenseTable(len(intercepts), "float64", intercepts)}
        n, found, codecs = training.objective.n_decayed, {}, (training.strategy.compression, None)
        for name, part, codec in zip((COEFFICIENTS, INTERCEPTS), (slice(0, n), slice(n, None)), codecs):
            found[name] = DenseTable(
                len(state.theta[part]), state.theta.dtype, state.theta[part],
                Descent(training.transform, training.objective.alpha, is_decayed=name == COEFFICIENTS),
                moments=[moment[part] for moment in state.moments], n_updates=state.n_updates, compression=codec,
            )  # fmt: skip
        return found

    def resume(self, state):
        if self.training.depends_on_ranks:
            self.training = self.training._replace(schedule=self.training.schedule.cut_as(state.cut))
        if self.training.is_served and self.training.keeps_parts:  # it is on a shelf; see `begin_on`
            return state
        self.state = self.training.at_whole_epochs(state) if self.training.is_served else state
        return self.state

    def begin_on(self, shelf, step, state):
        if not self.training.is_served:
            return step, state
        from daskdml.runtime.tables.rows import SavedRows

        found, names = self.training.saved(shelf)
        # What others had begun to put down after that, or had ended with, does not belong to what comes now.
        for name in shelf.versions():
            if name != shelf.SEEN:
                shelf.drop(name, -1 if is_result(name) or found is None else found.epoch)
        if found is None:  # of coefficients that nobody has put down there are none to go on from
            self.state = self.state._replace(cut=self.training.schedule.cut)
            return 0, self.state
        self.training = self.training._replace(schedule=self.training.schedule.cut_as(found.cut))
        self.state, self.begin = found, SavedRows(shelf.folder, names, found.epoch)
        return found.n_steps, found

    @property
    def keeps_parts(self):
        """Whether the model is on no rank all together."""
        return self.training.keeps_parts

    def __getstate__(self):
        # The workers have nobody to give parts to, and are told of tables otherwise.
        return {**vars(self), "take_shard": None, "begin": None}

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
