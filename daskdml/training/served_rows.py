"""Training row by row with a parameter server: of very many coefficients a rank reads and pushes those it has rows for.

Rows of a batch are split over the ranks. A rank reads the coefficients of the features that its rows store, takes
scikit-learn's step for each row, as `daskdml.training.sequential` does, and pushes by how much each coefficient has
moved. Steps of all ranks count for rates and penalties as if they were taken by turns: step i of the m that a rank has
in a batch of n is step ``i n / m`` of it. What L2 takes from all coefficients in n steps follows from their numbers
alone, and is one factor of the whole table (`daskdml.runtime.tables.rows`); L1 is taken from a coefficient when a row
stores it, as by scikit-learn, by whoever has the row.

What ranks that have seen the same columns have moved them by is added up as far as one after the other would have moved
them: `daskdml.kernels.numbered_rows.shares_of_sum`.
"""

import functools
import logging
import time

import numpy as np

from daskdml.kernels import numbered_rows, sequential
from daskdml.kernels.numbered_rows import Change, moved_rows
from daskdml.kernels.sequential import SparseRows, State
from daskdml.training.gathering import room_of
from daskdml.training.guard import strategy_at, watch
from daskdml.training.parts import result_name
from daskdml.training.sequential import SequentialTraining, Streams, flat
from daskdml.training.served import COEFFICIENTS, INTERCEPTS, AtServer
from daskdml.utils.memory import Pages

MOST_BATCHES = 16  # of a superstep: they are pushed a second time after a death, at most
MOST_DECAY = 700.0  # as a power of e: all that is left is zero
CURVATURE = {
    "log_loss": 0.25, "squared_hinge": 2.0, "modified_huber": 2.0, "squared_epsilon_insensitive": 2.0,
}  # fmt: skip  # of others 1: theirs, or steps that are as long as what is missing
_log = logging.getLogger("daskdml.ranks")
SLAB = 4096  # batches that are looked at together
STATE = "state"
NOT_FINITE = "not finite"
MAPPED_BYTES = 1 << 24


def rows_name(part):
    """Return the name under which a part of the coefficients is put down between two epochs."""
    return f"rows-{part}"


class ServedRowsTraining(SequentialTraining):
    """What is trained where coefficients are with a parameter server; the same on every rank."""

    is_served = depends_on_ranks = keeps_parts = True
    n_held, growth = 0, 1.0

    def n_merged(self, epoch):
        """Return that a push is of one batch."""
        return 1

    def epoch_of(self, state):
        """Return how many epochs were before."""
        return state.epoch

    def batches_per_step(self):
        """Return the batches of a superstep."""
        return MOST_BATCHES

    def saved(self, shelf):
        """Return the newest state of which all coefficients are on a shelf, and the names of their parts, or None.

        Parameters
        ----------
        shelf : daskdml.runtime.shelf.Shelf
        """
        versions = shelf.versions()
        for version in reversed(versions.get(STATE, ())):
            state = shelf.get(STATE, version)
            parts = [rows_name(part) for part in range(state.shared["parts"])]
            if all(version in versions.get(part, ()) for part in parts):
                return state, parts
        return None, None

    @property
    def decays(self):
        """Whether a penalty shrinks all coefficients at every step."""
        return self.settings[0].penalty in ("l2", "elasticnet") and self._l2 > 0

    @property
    def has_l1(self):
        """Whether coefficients are moved towards zero when a row stores them."""
        return self.settings[0].penalty in ("l1", "elasticnet")

    @property
    def _l1_share(self):
        return {"l1": 1.0, "elasticnet": self.settings[0].l1_ratio}.get(self.settings[0].penalty, 0.0)

    @property
    def _l2(self):
        return self.settings[0].alpha * (1.0 - self._l1_share)

    def results(self, state):
        """Return the names of the parts of the coefficients."""
        if state.stopped_because == NOT_FINITE:
            return ()
        return [result_name(part) for part in range(state.shared["parts"])]

    def replica(self, blocks, n_threads, each):
        """Return what a rank holds."""
        return ServedStream(self, blocks, n_threads, each)

    def judged(self, state, values, replica, comm):
        """Return the mean for each: the models share what decays, and stop together; or get less stale."""
        if self.strategy.guard and comm.size > 1:
            state, _ = watch(self, state, replica, self.n_features, goes_back=False)
        values = np.full(len(values), values.mean())
        return state._replace(scores=(*state.scores, float(values[0]))) if self.scores else state, values

    def rates(self, eta, t):
        """Return the rates of steps.

        Parameters
        ----------
        eta : float
            Where they do not follow from t.
        t : ndarray of float64
            One more than the rows before each.
        """
        one = self.settings[0]
        if one.learning_rate == "optimal":
            return 1.0 / (one.alpha * (sequential.optimal_init(one) + t - 1.0))
        return one.eta0 / t**one.power_t if one.learning_rate == "invscaling" else np.full(len(t), eta)

    def decay(self, rates):
        """Return the logarithm of what L2 leaves of a coefficient after steps of some rates."""
        if not self.decays:
            return 0.0
        with np.errstate(divide="ignore"):
            return float(np.maximum(np.log(np.maximum(1.0 - self._l2 * rates, 0.0)), -MOST_DECAY).sum())

    def shrinkage(self, rates):
        """Return what L1 takes from a coefficient in steps of some rates."""
        return self.settings[0].alpha * self._l1_share * float(rates.sum())


class Touched:
    """The features that the rows of a rank in one batch store.

    Parameters
    ----------
    rows : SparseRows
    view : daskdml.runtime.tables.rows.RowView
    n_expected, empty
        See `daskdml.kernels.numbered_rows.number_columns`.

    Attributes
    ----------
    rows : SparseRows
        The same, with the numbers of these features for columns.
    numbers : ndarray of int32
    n_features : int
    dealt : daskdml.runtime.tables.rows.Dealt
    """

    def __init__(self, rows, view, n_expected, empty):
        self.numbers, columns = numbered_rows.number_columns(rows.columns, rows.counts, n_expected, empty)
        ends = np.cumsum(rows.counts)
        self.rows = rows._replace(columns=self.numbers.ctypes.data + 4 * (ends - rows.counts))
        self.n_features, self.dealt = len(columns), view.deal(columns)


class ServedStream(AtServer, Streams):
    """The rows of a rank, and where their coefficients are; see `Replica`."""

    def begin(self, comm):
        """Find the tables, and learn how rows are dealt to the batches of an epoch."""
        self.find_tables(comm)
        self._saved_at, self._n_expected = comm.clock(), 0
        self._view = self._tables[COEFFICIENTS]
        schedule, sizes = self.training.schedule, []
        for first in range(0, schedule.n_batches, SLAB):
            stop = min(first + SLAB, schedule.n_batches)
            batches, _, units, places = schedule.slices(0, first, stop)
            sizes.append(np.bincount(batches - first, schedule.slice_sizes(units, places), stop - first))
        # Short slices are the last ones of their strata in any epoch: its batches are as long as the first one's.
        self._ends = np.cumsum([0, *np.concatenate(sizes).astype(np.int64)])
        self._t = None

    def forget(self):
        """Forget nothing: all that moves is sent."""

    def open(self, state, first, stop):
        """Take over a state and prepare the rows of some batches."""
        super().open(state, first, stop)
        self.shared, self._epoch = state.shared or {}, state.epoch
        for model, norms in zip(self.models, self.memory.get("norms", ())):
            model.squared_norm, model.absolute_norm = norms
        if self._t != self.models[0].t or first == 0:
            self._t = self.models[0].t
            self._tell_time()

    def _tell_time(self):
        """Note the log scale of the table, and what L1 has taken, before each batch of the epoch and after it."""
        training, model = self.training, self.models[0]
        scales, shrinkages = [self.shared.get("log scale", 0.0)], [model.u]
        for begin, end in zip(self._ends, self._ends[1:]):
            scale = shrinkage = 0.0
            if training.decays or training.has_l1:
                rates = training.rates(model.eta, model.t + np.arange(begin, end))
                scale, shrinkage = training.decay(rates), training.shrinkage(rates)
            scales.append(scales[-1] + scale)
            shrinkages.append(shrinkages[-1] + shrinkage)
        self._scales, self._shrinkages = scales, shrinkages

    def train(self, first, stop, comm):
        """Train on some batches; at the end of an epoch meet the others."""
        training = self.training
        self._strategy = strategy = strategy_at(training.strategy, self.shared.get("level", 0), training.n_features)
        self._tables.client.staleness = strategy.bound
        asked = None
        for batch in range(first, stop):
            touched = self._ask(batch) if asked is None else asked
            found, asked = self._answers(), None
            if strategy.asks_ahead(True) and comm.size > 1 and batch + 1 < stop and self._tables.may_ask_ahead:
                asked = self._ask(batch + 1, ahead=1)
            self._take_steps(batch, touched, found, comm)
        if stop == training.schedule.n_batches:
            self._meet_again(comm, strategy)

    def _ask(self, batch, ahead=0):
        """Ask for the coefficients of the features that this rank's rows of a batch store."""
        started = time.perf_counter()
        first, stop = self.rows_of(batch, batch + 1)
        nothing = np.empty(0, np.int64)
        rows = self._rows(first, stop) if stop > first else SparseRows(nothing, nothing, nothing, self.training.dtype)
        touched = Touched(rows, self._view, self._n_expected, self._tables.recycled.empty)
        self._n_expected = touched.n_features
        self.charge("encode", started)
        self._tables.ask(self._wanted(touched, self._scales[batch]), ahead)
        return touched

    def _wanted(self, touched, scale):
        wanted = self._view.wanted(touched.dealt, scale)
        for shard, _, _ in self._tables.layout.parts(INTERCEPTS):
            wanted.setdefault(shard, {})[INTERCEPTS] = None
        return wanted

    def _answers(self):
        started = time.perf_counter()
        found = self._tables.answers()
        self.charge("wait", started)
        return found

    def _models_of(self, touched, found):
        """Return rows of the table as they were read, and models of these features alone."""
        rows, empty = self._view.rows_of(touched.dealt, found), self._tables.recycled.empty
        intercepts = [found[shard][INTERCEPTS] for shard, _, _ in self._tables.layout.parts(INTERCEPTS)]
        k, models = self._n_models, []
        for i, (model, intercept) in enumerate(zip(self.models, np.concatenate(intercepts))):
            coef, q = empty(len(rows), np.float64), np.empty(0)
            coef[:] = rows[:, i]
            if rows.shape[1] > k:
                # Others may have taken a little more already than has come up by this rank's clock.
                np.clip(rows[:, k + i], -model.u, model.u, out=rows[:, k + i])
                q = rows[:, k + i].astype(np.float64)
            models.append(State(coef, np.empty(0), q, model.scalars.copy()))
            models[-1].intercept = float(intercept)
        return rows, models

    def _take_steps(self, batch, touched, found, comm):
        """Take a step for each row of a batch that this rank has; push what has come of it."""
        started = comm.clock()
        first, stop = self.rows_of(batch, batch + 1)
        if stop > first:
            computing = time.perf_counter()
            moved, intercepts = self._moved(batch, first, stop, touched, found, comm)
            self.charge("compute", computing)
        self.note_work(comm, functools.partial(self.n_rows, batch, batch + 1), started)
        pushing = time.perf_counter()
        if stop > first:
            most = self._shrinkages[batch + 1] if self.training.has_l1 and comm.size > 1 else -1.0
            self._view.add(touched.dealt, moved, self._scales[batch + 1], most)
            self._tables[INTERCEPTS].add(intercepts)
        self._tables.push()
        self.charge("transfer", pushing)

    def _moved(self, batch, first, stop, touched, found, comm):
        """Take a step for each row; return by how much coefficients, in their order of shards, and intercepts moved."""
        training, empty = self.training, self._tables.recycled.empty
        t, stride = self._t + self._ends[batch], float(self._ends[batch + 1] - self._ends[batch]) / (stop - first)
        for model in self.models:
            model.u, model.t = self._shrinkages[batch], t
        rows, models = self._models_of(touched, found)
        before = np.array([model.intercept for model in models])
        settings = [one._replace(stride=stride) for one in training.settings]
        sums = self._step(touched.rows, first, stop, models, settings)
        rates = training.rates(self.models[0].eta, t + stride * np.arange(stop - first))
        shares, share_of_intercepts = self._shares(touched, first, stop, rates, stride, comm)
        own, of_all = training.decay(rates), self._scales[batch + 1] - self._scales[batch]
        changes = [Change(one.wscale, own, of_all, stride, training.shrinkage(rates)) for one in models]
        moved = moved_rows(
            rows, touched.dealt.where, shares, models, changes, training.has_l1, comm.size == 1, empty
        )  # fmt: skip
        intercepts = (np.array([model.intercept for model in models]) - before) * share_of_intercepts
        for model, now in zip(self.models, models):
            model.squared_norm, model.absolute_norm = now.squared_norm, now.absolute_norm
        memory = self.memory
        memory["norms"] = [(model.squared_norm, model.absolute_norm) for model in models]
        memory["sums"] = memory.get("sums", 0.0) + np.array([*sums, stop - first, touched.n_features])
        memory["finite"] = memory.get("finite", True) and bool(np.isfinite(moved.sum() + intercepts.sum()))
        return moved, intercepts

    def _shares(self, touched, first, stop, rates, stride, comm):
        """Return which share of what this rank has moved coefficients by it is to add, and of intercepts."""
        if comm.size == 1:
            return np.empty(0), 1.0
        settings, selection = self.training.settings, self._selection
        strengths = rates * CURVATURE.get(settings[0].loss, 1.0)
        if selection.weight is not None:
            strengths = strengths * selection.weight[first:stop]
        strengths = strengths * max(max(one.weight_pos, one.weight_neg) for one in settings)
        # As many rows of others as there are for each of its own; of two batches where what is read is older.
        is_ahead = self._strategy.asks_ahead(True) and self._tables.may_ask_ahead
        n_others = (stride - 1.0) * (2 if is_ahead else 1)
        return numbered_rows.shares_of_sum(
            touched.rows, touched.numbers, touched.n_features, strengths, n_others, self._tables.recycled.empty
        )

    def _meet_again(self, comm, strategy):
        """Wait for the pushes of all; have the same objective and intercepts as all."""
        self._tables.settle()
        total = comm.allreduce(np.array(self.memory.pop("sums", np.zeros(self._n_models + 2))))  # also a barrier
        self._tables.agree(comm)
        n_rows, n_read = total[-2:].tolist()
        # Where a death has lost some, as much as all the others say.
        self.sums = total[:-2] * (self.training.schedule.n_trained / max(n_rows, 1.0))
        intercepts = self._tables[INTERCEPTS].get()
        for model, intercept in zip(self.models, intercepts):
            model.t, model.u, model.intercept = self._t + self._ends[-1], self._shrinkages[-1], intercept
        n_read += self.shared.get("coefficients read", 0)
        self.shared = {**self.shared, "log scale": self._scales[-1], "coefficients read": n_read}
        self.tally(comm, strategy.moves_rows and self._epoch + 1 < self.training.max_epochs, strategy.record)
        comm.barrier()  # nobody pushes on before all have read

    def close(self, state, batch):
        """Return the state after some batches; within an epoch what is learnt is with the server, and not in it."""
        if batch == self.training.schedule.n_batches:
            parts = self._tables.layout.n_parts(COEFFICIENTS)
            theta = np.stack([flat(model) for model in self.models])
            shared = {**self.shared, "parts": parts}
            n_updates = state.n_updates + batch
            return state._replace(theta=theta, sums=self.sums, batch=batch, shared=shared, n_updates=n_updates)
        return state._replace(batch=batch)

    def is_finite(self, comm):
        """Tell whether all that any rank has pushed is."""
        return not comm.vote(not self.memory.get("finite", True))

    def predictor(self, models):
        """Return the function that gives raw predictions of a `Selection`, one array for each model."""

        def raws(selection):
            self._tables.client.staleness = None
            rows = SparseRows(*selection.where, self.rows.dtype)
            touched = Touched(rows, self._view, 0, self._tables.recycled.empty)
            self._tables.ask(self._wanted(touched, self._scales[-1]))
            _, local = self._models_of(touched, self._tables.answers())
            X = selection.X()
            X = type(X)((X.data, touched.numbers, X.indptr), shape=(X.shape[0], max(touched.n_features, 1)))
            return [X @ np.resize(model.coef, X.shape[1]) + model.intercept for model in local]

        return raws

    def save(self, state, comm, is_last):
        """Keep the coefficients where the caller finds them in the end, or another process before that."""
        shelf = comm.shelf
        if is_last:
            if state.stopped_because != NOT_FINITE:
                self._hand_over(comm)
            return
        # At the end of an epoch alone all coefficients are of one time: everybody has met.
        if not shelf.is_shared or state.batch:
            return
        is_time = comm.clock() - self._saved_at >= self.training.save_every
        if not comm.broadcast(np.array([is_time or comm.is_pausing()]))[0]:
            return
        faults = []
        for part, held in self._parts(comm, copies=False).items():
            faults += shelf.faults_of(shelf.put, rows_name(part), state.epoch, held.state())
        # The state last, which says that all is there.
        is_whole = not comm.vote(bool(faults))
        if is_whole and comm.rank == 0:
            faults += shelf.faults_of(shelf.put, STATE, state.epoch, state)
        if not is_whole or faults:
            where = faults or "on another worker"
            _log.warning("coefficients could not be put down, the last version stays: %s", where)
        elif comm.rank == 0:
            shelf.faults_of(shelf.drop_below, state.epoch)
        self._saved_at = comm.clock()

    def _hand_over(self, comm):
        """Let the caller have the coefficients."""
        shelf, n_parts, faults = comm.shelf, self._tables.layout.n_parts(COEFFICIENTS), []
        # Copies too: if a worker dies now, another has its parts.
        for part, held in self._parts(comm, copies=not shelf.is_shared).items():
            held.rescale(self._scales[-1])
            if shelf.is_shared:
                faults += shelf.faults_of(shelf.put, result_name(part), self._epoch + 1, (n_parts, held.rows))
            else:
                shelf.lend(result_name(part), (n_parts, held.rows))
        if comm.vote(bool(faults)):
            where = faults[0] if faults else "on another worker"
            raise OSError(f"The model could not be put down: {where}; make room.")

    def _parts(self, comm, copies):
        """Return the parts that this rank is to put down, all of them together or with copies more than that."""
        own, n_parts = self._view.held(copies), self._tables.layout.n_parts(COEFFICIENTS)
        is_held = np.zeros(n_parts)
        is_held[list(own)] = 1.0
        for part in np.flatnonzero(comm.allreduce(is_held) == 0).tolist():  # on workers that have no rank
            if part % comm.size == comm.rank:
                own[part] = self._view.copy_of(part, self._scales[-1])
        return own


class RowGathering:
    """Puts the coefficients together in the process that asked for them, as their parts come.

    Parameters
    ----------
    training : ServedRowsTraining
    numbers_of : callable of (part, n_parts)
        Returns the columns of a part, in its order; those above the last one are none.

    Attributes
    ----------
    coef : ndarray of float64, shape (n_models, n_features)
        A file without a name is mapped where they are many: its pages need not be in memory.
    """

    def __init__(self, training, numbers_of):
        self._numbers_of, k, n = numbers_of, len(training.settings), training.n_features
        self.coef = room_of(k * n, np.dtype(np.float64), MAPPED_BYTES).reshape(k, n)

    def take(self, name, value):
        """Take in a part."""
        n_parts, rows = value
        columns = self._numbers_of(int(name.rpartition("-")[2]), n_parts)
        is_one = columns < self.coef.shape[1]
        if not is_one.all():
            columns, rows = columns[is_one], rows[is_one]
        for coef, values in zip(self.coef, rows.T):
            with Pages(coef):
                coef[columns] = values

    def whole(self, state):
        """Return a state with all coefficients."""
        return state._replace(coef=self.coef)
