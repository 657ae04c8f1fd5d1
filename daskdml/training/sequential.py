"""Training row by row: streams of rows that each take a step a row, and are averaged now and then.

How many streams there are, and how many rows lie between two averages, follows from the numbers of rows and features
alone: the answer is the same for any number of ranks. Few rows are one stream, which is scikit-learn's algorithm.
"""

import bisect
import functools
import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import sequential
from daskdml.kernels.sequential import DenseRows, SparseRows, State
from daskdml.training.account import Account
from daskdml.training.replica import Replica
from daskdml.training.schedule import SLICES, Schedule
from daskdml.training.scoring import r2
from daskdml.training.training import SMALLEST_RATE
from daskdml.utils.portable import portable

ROWS = 4096  # between two averages, at least
MOST_STREAMS = 64
STEP_NUMBERS = 1e8  # numbers of X that are read in a superstep: some hundredths of a second


def streams_of(n_samples, n_features, is_sparse):
    """Return how many streams there are, and the rows of each between two averages.

    Examples
    --------
    >>> streams_of(50_000, 30, False), streams_of(1_000_000, 30, False), streams_of(10_000_000, 1_000_000, True)
    ((1, 4096), (15, 4096), (9, 65536))
    """
    # An average costs as much as some hundred rows for each thousand coefficients.
    rows = min(max(ROWS, 1 << int(np.ceil(np.log2(max(n_features / 16, 1))))), 1 << 16) if is_sparse else ROWS
    return int(min(MOST_STREAMS, max(1, n_samples // (SLICES * rows)))), rows


def schedule_of(n_samples, n_features, is_sparse, seed, *, is_shuffled, is_mixed, held_out):
    """Return the `Schedule` of the streams."""
    n_streams, rows = streams_of(n_samples, n_features, is_sparse)
    n_held = max(round(SLICES * rows * held_out / (1 - held_out)), 1) if held_out else 0
    return Schedule(n_samples, n_streams, rows, seed, is_shuffled, is_mixed and is_shuffled, n_held)


@portable
class SequentialState(NamedTuple):
    """A training between two averages, the same on every rank.

    Attributes
    ----------
    theta : ndarray of float64, shape (n_models, length)
        What `daskdml.kernels.sequential.State` consists of, behind each other: of models that are with a parameter
        server scalars alone.
    epoch, batch, age : int
        See `TrainingState`.
    sums : ndarray of float64, shape (n_models,)
        Of the objective in this epoch so far.
    losses : tuple of float
        Mean objective of all models, by epochs.
    best : ndarray of float64, shape (n_models,)
        Objective or score.
    n_idle, n_epochs : ndarray of int64, shape (n_models,)
    is_over : ndarray of bool, shape (n_models,)
    stopped_because : str
        Empty while it goes on.
    seconds, trace, n_rounds, bytes_sent, bytes_received, moved, n_ranks, n_steps
        See `TrainingState`.
    n_updates, scores, n_lost, shared, cut
        Likewise, of models that are with a parameter server; an update is the push of a batch.
    coef : object
        What such models begin with, (columns, rows of their coefficients); in the end all of them.
    """

    theta: Any
    best: Any
    n_idle: Any
    n_epochs: Any
    is_over: Any
    sums: Any
    epoch: int = 0
    batch: int = 0
    age: int = 0
    losses: tuple = ()
    stopped_because: str = ""
    seconds: Any = None
    trace: tuple = ()
    n_rounds: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    moved: Any = None
    n_ranks: int = 1
    n_steps: int = 0
    n_updates: int = 0
    scores: tuple = ()
    n_lost: int = 0
    shared: Any = None
    cut: tuple = ()
    coef: Any = None


class SequentialTraining(NamedTuple):
    """What is trained, and how; the same on every rank.

    Attributes
    ----------
    settings : tuple of daskdml.kernels.sequential.Settings
        One for each model.
    labels : tuple of int, or None
        The class that each model tells from all others; None where y are numbers.
    schedule : Schedule
    n_features, max_epochs : int
    tol : float
        May be minus infinity.
    patience : int
    scores : bool
        Whether models are judged by rows that are held out.
    center : float
        About the mean of y.
    strategy : daskdml.strategies.ParameterServer or None
        With whom the coefficients are; see `daskdml.training.served_rows`.
    dtype : dtype
        Of the coefficients there.
    save_every : float
        Seconds at least between two versions of them in a folder of the user's.
    """

    settings: tuple
    labels: Any
    schedule: Any
    n_features: int
    max_epochs: int
    tol: float
    patience: int
    scores: bool = False
    center: float = 0.0
    strategy: Any = None
    dtype: Any = np.dtype(np.float64)
    save_every: float = 0.0

    is_sharded = is_served = depends_on_ranks = keeps_parts = False

    @property
    def n_held(self):
        """Coefficients of a model that are in the state."""
        return self.n_features

    def results(self, state):
        """Return no names: all of the result is in the state."""
        return ()

    def replica(self, blocks, n_threads, each):
        """Return what a rank holds."""
        return Streams(self, blocks, n_threads, each)

    def batches_per_step(self):
        """Return the batches of a superstep."""
        numbers = self.schedule.n_micro * self.schedule.micro_rows * self.n_features * len(self.settings)
        return int(np.clip(STEP_NUMBERS / numbers, 1, 1024))

    def is_done(self, state):
        """Tell whether the training is over."""
        return bool(state.stopped_because) or state.epoch >= self.max_epochs

    def begin(self, states, age=0):
        """Return the state to begin with, from one `State` for each model."""
        k = len(states)
        for state, settings in zip(states, self.settings):
            sequential.begin(state, settings)
        best = np.full(k, -np.inf if self.scores else np.inf)
        theta = np.stack([flat(state) for state in states])
        return SequentialState(
            theta, best, np.zeros(k, np.int64), np.zeros(k, np.int64), np.zeros(k, bool), np.zeros(k), age=age
        )  # fmt: skip

    def states(self, theta):
        """Return the `State` of each model."""
        return [thick(part, settings, self.n_held) for part, settings in zip(theta, self.settings)]

    def targets(self, i, y):
        """Return y as model i sees it."""
        if self.labels is None:
            return np.asarray(y, np.float64)
        return np.where(y == self.labels[i], 1.0, 0.0 if self.settings[i].loss == "log_loss" else -1.0)

    def step(self, state, replica, comm):
        """Go on by some averages; at the end of an epoch judge it."""
        replica.account = replica.account or Account(comm)
        replica.account.begin()
        if replica.meet(comm):
            replica.begin(comm)
        replica.account.assign("rows")
        schedule, first = self.schedule, state.batch
        stop = min(first + self.batches_per_step(), schedule.n_batches)
        replica.open(state, first, stop)
        replica.train(first, stop, comm)
        state = replica.close(state, stop)
        replica.account.assign("steps")
        if stop == schedule.n_batches:
            state = self._end_epoch(state, replica, comm)
            replica.account.assign("scores")
        state = replica.account.close(state, replica.take_seconds())
        replica.save(state, comm, self.is_done(state))
        return state

    def _end_epoch(self, state, replica, comm):
        """Judge each model as scikit-learn does, which fits them one by one."""
        n, theta = self.schedule.n_trained, state.theta.copy()
        active = ~state.is_over
        sums, best, n_idle, n_epochs = (np.array(x) for x in (state.sums, state.best, state.n_idle, state.n_epochs))
        is_over = state.is_over.copy()
        n_epochs[active] += 1
        state = state._replace(
            epoch=state.epoch + 1, batch=0, age=state.age + 1, sums=np.zeros(len(sums)),
            losses=(*state.losses, float(sums[active].mean() / n)),
        )  # fmt: skip
        learnt = theta[:, : -sequential.N_SCALARS], theta[:, -sequential.N_SCALARS + sequential.INTERCEPT]
        if not all(np.isfinite(part).all() for part in learnt) or not replica.is_finite(comm):
            return state._replace(stopped_because="not finite")
        values = self._scores(replica, theta, comm) if self.scores else sums
        state, values = self.judged(state, values, replica, comm)
        for i in np.flatnonzero(active):
            if self.scores:
                is_idle = values[i] < best[i] + self.tol
                best[i] = max(best[i], values[i])
            else:
                is_idle = values[i] > best[i] - self.tol * n
                best[i] = min(best[i], values[i])
            n_idle[i] = n_idle[i] + 1 if is_idle and self.tol > -np.inf else 0
            if n_idle[i] < self.patience:
                continue
            model = thick(theta[i], self.settings[i], self.n_held)
            if self.settings[i].learning_rate == "adaptive" and model.eta > SMALLEST_RATE:
                model.eta /= 5.0
                theta[i], n_idle[i] = flat(model), 0
            else:
                is_over[i] = True
        why = "no improvement" if is_over.all() else ""
        return state._replace(
            theta=theta, best=best, n_idle=n_idle, n_epochs=n_epochs, is_over=is_over, stopped_because=why
        )  # fmt: skip

    def judged(self, state, values, replica, comm):
        """Return the state, and by what each model is judged: its own objective or score."""
        return state, values

    def _scores(self, replica, theta, comm):
        """Return accuracy (of a class against the others) or R² of each model on the rows held out."""
        schedule, k = self.schedule, len(self.settings)
        first, stop = schedule.unit_spans(np.arange(schedule.n_units))
        number, sums = np.cumsum(stop > first) - 1, {}
        raw_of = replica.predictor(self.states(theta))
        for unit in replica.units.tolist():
            rows, found = schedule.held_rows(unit), np.zeros((k, 4))
            if len(rows):
                selection = replica.select(rows)
                weight = np.ones(len(rows)) if selection.weight is None else selection.weight
                for i, raw in enumerate(raw_of(selection)):
                    y = self.targets(i, selection.y)
                    if self.labels is not None:
                        found[i, :2] = weight @ ((raw > 0) == (y > 0)), weight.sum()
                    else:
                        far = y - self.center
                        found[i] = weight.sum(), weight @ far, weight @ far**2, weight @ (y - raw) ** 2
            sums[int(number[unit])] = found
        total = comm.allreduce_blocks(sums, n_blocks=int(number[-1]) + 1, like=np.zeros((k, 4)))
        if not (total[:, 1 if self.labels is not None else 0] > 0).all():
            raise ValueError(
                "The sample weights for validation set are all zero, consider using a different random state."
            )
        if self.labels is not None:
            return total[:, 0] / total[:, 1]
        return r2(*total.T)


def flat(state):
    """Return a `State` as one vector."""
    return np.concatenate([state.coef, state.average_coef, state.q, state.scalars])


def thick(vector, settings, n_features):
    """Return the `State` of a vector: a copy, laid out for the kernel."""
    p = n_features
    a = p if settings.average else 0
    b = p if settings.penalty in ("l1", "elasticnet") else 0
    state = State.__new__(State)
    parts = np.split(vector, [p, p + a, p + a + b])
    state.__setstate__(dict(zip(("coef", "average_coef", "q", "scalars"), parts)))
    return state


def _count_all(model, before, settings, n_rows, n_streams):
    """Let a mean of streams count as many steps as all of them took, in its rates and its average.

    With the steps of one stream the rates would stay large, and the noise with them: of 1,000,000 x 30 rows in 15
    streams the log loss after an epoch was 0.477 instead of 0.416, of which 0.416 cannot be helped (measured).
    """
    if settings.average:
        # Within a stream the old average has lost too little weight: a of what lost A.
        seen = max(before.t - settings.average, 0.0)
        share = (seen + n_rows / n_streams) / (seen + n_rows) * n_streams
        for name in ("average_coef", "average_intercept"):
            old, new = getattr(before, name), getattr(model, name)
            setattr(model, name, old + share * (new - old))
    model.t = before.t + n_rows


class Streams(Replica):
    """The rows of a rank, and the models while a step is under way; see `Replica`."""

    @property
    def like(self):
        """An array of the shape of what a stream returns: its models, and behind them sums and rows."""
        return np.empty(self._n_models * (self._length + 1) + 1)

    @property
    def _n_models(self):
        return len(self.training.settings)

    def begin(self, comm):
        """Do what is to be done before the first step of a group: nothing."""

    def is_finite(self, comm):
        """Tell whether all coefficients are that are not in the state."""
        return True

    def predictor(self, models):
        """Return the function that gives raw predictions of a `Selection`, one array for each model."""
        for model in models:
            sequential.settle(model)

        def raw(X, model, settings):
            is_averaged = settings.average and settings.average <= model.t - 1
            coef = model.average_coef if is_averaged else model.coef
            return X @ coef + (model.average_intercept if is_averaged else model.intercept)

        def raws(selection):
            X = selection.X()
            return [raw(X, model, settings) for model, settings in zip(models, self.training.settings)]

        return raws

    def train(self, first, stop, comm):
        """Train on some batches."""
        for batch in range(first, stop):
            self.advance(batch, comm)

    def open(self, state, first, stop):
        """Take over a state and prepare the rows of some batches."""
        self._length = state.theta.shape[1]
        self._active = np.flatnonzero(~state.is_over)
        self.sums, self.models = state.sums.copy(), self.training.states(state.theta)
        self._age = state.age
        self.plan(state.age, first, stop)

    def close(self, state, batch):
        """Return the state after some batches."""
        return state._replace(theta=np.stack([flat(model) for model in self.models]), sums=self.sums, batch=batch)

    def advance(self, batch, comm):
        """Let every stream go on by a slice, and average them."""
        if self.training.schedule.n_micro == 1 and self._is_alone:
            started = time.perf_counter()
            comm.check()
            self.sums += self._descend(self._edges[batch - self._first], self.models)
            self.charge("compute", started)
            return
        if not self._age and not batch:
            return self._one_by_one(comm)
        fold = self.gradients(batch, batch + 1)
        comm.worked(functools.partial(self.n_rows, batch, batch + 1))
        comm.check()
        total = fold.result() if comm.size == 1 else comm.allreduce_blocks(fold, n_blocks=fold.n_blocks, like=self.like)
        k, n_streams = self._n_models, fold.n_blocks
        theta = total[: k * self._length].reshape(k, -1)
        before = self.models
        self.models = self.training.states(theta / total[-1] if n_streams > 1 else theta)
        if n_streams > 1:
            for i in self._active:
                _count_all(self.models[i], before[i], self.training.settings[i], total[-1], n_streams)
        self.sums += total[k * self._length : -1]

    def _one_by_one(self, comm):
        """Let the streams go on from each other in the very first batch: steps are large there, and so is their noise.

        An average over time would remember for long that all streams began with it.
        """
        begin, end = self._edges[:2]
        for number in range(begin, end):
            own = np.searchsorted(self._numbers, number)
            is_own = own < len(self._numbers) and self._numbers[own] == number
            started = time.perf_counter()
            sums = self._descend(own, self.models) if is_own else np.zeros(self._n_models)
            self.charge("compute", started)
            comm.worked(functools.partial(self._rows_of_slice, own if is_own else None))
            if comm.size > 1:
                vector = np.concatenate([*map(flat, self.models), sums])
                found = comm.allreduce_blocks({0: vector} if is_own else {}, n_blocks=1, like=vector)
                k = self._n_models
                self.models, sums = self.training.states(found[:-k].reshape(k, -1)), found[-k:]
            comm.check()
            self.sums += sums
        if self.training.schedule.n_micro > 1:  # as averages of streams are
            for model in self.models:
                sequential.settle(model)

    def _rows_of_slice(self, i):
        return 0 if i is None else self._row_edges[i + 1] - self._row_edges[i]

    def _micro_batch(self, i):
        """Return what a stream makes of its slice; a batch of one stream is not rounded by weights."""
        models = [
            thick(flat(model), settings, self.training.n_features)
            for model, settings in zip(self.models, self.training.settings)
        ]  # fmt: skip
        sums = self._descend(i, models)
        out, k = self.spare(), self._n_models
        n_rows = self._row_edges[i + 1] - self._row_edges[i]
        number = self._numbers[i]
        batch = bisect.bisect_right(self._edges, number) - 1
        is_single = self._edges[batch + 1] - self._edges[batch] == 1
        if self.training.schedule.n_micro > 1:
            for model in models:
                sequential.settle(model)
        factor = 1.0 if is_single else float(n_rows)
        out[: k * self._length] = factor * np.concatenate([flat(model) for model in models])
        out[k * self._length : -1] = sums
        out[-1] = factor
        return out

    def _descend(self, i, models):
        """Take a step for each row of slice i; return the sums of the objective of each model."""
        first, stop = self._row_edges[i : i + 2]
        return self._step(self._rows(first, stop), first, stop, models, self.training.settings)

    def _rows(self, first, stop):
        """Return some rows of the selection as kernels take them."""
        where = [part[first:stop] for part in self._selection.where]
        if not self.rows.is_sparse:
            return DenseRows(where[0], self.rows.dtype)
        if self.rows.pieces[0].X.indices.itemsize != 4:
            raise ValueError("A chunk holds 2**31 values or more; make the chunks smaller.")
        return SparseRows(*where, self.rows.dtype)

    def _step(self, rows, first, stop, models, settings):
        """Take a step for each of some rows of the selection; return the sums of the objective of each model."""
        selection, training, sums = self._selection, self.training, np.zeros(len(models))
        y, weight = selection.y[first:stop], None if selection.weight is None else selection.weight[first:stop]
        for k in self._active:
            model = models[k]
            model.loss_sum = model.objective_sum = 0.0
            sequential.descend(rows, training.targets(k, y), weight, model, settings[k])
            sums[k] = model.objective_sum
        return sums
