"""What one rank does: gradients of its share of a batch, and the step that all ranks take alike."""

import functools
import queue
import time

import numpy as np

from daskdml.training.meeting import meet
from daskdml.training.moving import are_uneven, move, new_owners
from daskdml.training.rows import HeldRows, pieces_of
from daskdml.training.scoring import score
from daskdml.utils.fold import Fold

EXTRAS = 3  # behind a gradient: sum of losses, of weights, and rows


class Replica:
    """The rows of a rank, and its copy of the parameters while a step is under way.

    Parameters
    ----------
    training : Training
    blocks : list of Block
    n_threads : int
    each : callable of (n_items, work)
        Calls ``work(i)`` for each, on all threads.

    Attributes
    ----------
    theta : ndarray of shape (n_params,)
    moments : list of ndarray
    memory : dict
        What a strategy remembers of this rank from update to update; a new group begins without.
    shared : dict
        What it remembers on all ranks alike: part of the state.
    n_merged : int
        Batches of one step, beside what a strategy accumulates.
    own_loss : float
        Of losses that no other rank knows of yet.
    account : Account or None
        Of its supersteps.
    row_weight : float
        That a row has in the mean, of all ranks; see `weigh`.
    """

    def __init__(self, training, blocks, n_threads, each):
        self.training, self.each, self.n_threads = training, each, n_threads
        self.rows, self.memory, self.shared, self.own_loss = None, {}, {}, 0.0
        self._pieces = pieces_of(blocks)
        self.theta, self.moments, self.account, self.row_weight = None, None, None, 1.0
        self._spare, self._work = queue.SimpleQueue(), queue.SimpleQueue()
        self._seconds = {}

    def meet(self, comm):
        """Bring units together, once; return whether it was now."""
        is_now = self.rows is None
        if is_now:
            schedule = self.training.schedule
            self.rows, self.units = meet(self._pieces, schedule, comm, self.hold)
            self._pieces, self._is_alone = None, comm.size == 1
            self._owns = np.zeros(schedule.n_units, bool)
            self._owns[self.units] = True
        return is_now

    def forget(self):
        """Forget all that a strategy remembers of this rank."""
        self.memory.clear()

    def move(self, comm, rows, seconds):
        """Give rows to other ranks, or take some, if they took ranks very different times; return how many moved.

        No rank takes more than it has room for, and who gives has no more room than before: what is cut off a chunk
        stays in the memory that Dask has the chunk in.

        Parameters
        ----------
        comm : Comm
        rows, seconds : float
            That this rank has worked on not long ago, and that it took; zeros if it had none.
        """
        schedule, owners = self.training.schedule, np.full(self.training.schedule.n_units, -1)
        first, stop = schedule.unit_spans(np.arange(schedule.n_units))
        held = float((stop - first)[self.units].sum())
        n_bytes = sum(array.nbytes for piece in self.rows.pieces for array in piece.arrays if array is not None)
        worked = np.array(comm.allgather(np.array([rows, seconds, held, n_bytes, comm.room()])))
        speed, has_worked = np.ones(comm.size), (worked[:, 0] > 0) & (worked[:, 1] > 0)
        speed[has_worked] = worked[has_worked, 0] / worked[has_worked, 1]
        speed[~has_worked] = np.median(speed[has_worked]) if has_worked.any() else 1.0
        if not are_uneven(worked[:, 2], speed):
            return 0
        for rank, units in enumerate(comm.allgather(self.units)):
            owners[units] = rank
        row_bytes = max(worked[:, 3].sum() / max(worked[:, 2].sum(), 1.0), 1.0)
        found = new_owners(owners, stop - first, speed, worked[:, 2] + worked[:, 4] / row_bytes)
        self.rows = self.hold(move(self.rows.pieces, schedule, owners, found, comm))
        self.units = np.flatnonzero(found == comm.rank)
        self._owns = found == comm.rank
        return int((stop - first)[found != owners].sum())

    def weigh(self, comm):
        """Learn what rows of all ranks weigh: penalties count as much as losses of a batch of all, not of own rows."""
        y, weight = self.rows.y, self.rows.weight
        own = [float(self.training.objective.weight_of(y, weight)), len(y)] if y is not None else [0.0, 0.0]
        total, n_rows = comm.allreduce(np.array(own))
        self.row_weight = total / n_rows

    def owns(self, units):
        """Tell which units this rank has."""
        return self._owns[units]

    def hold(self, pieces):
        """Return what rows of pieces can be taken from."""
        return HeldRows(pieces)

    def restore(self, state, comm):
        """Return the state that a new group begins with."""
        return state

    def save(self, state, comm, is_last):
        """Keep what is not in the state, after a step."""

    def is_finite(self, comm):
        """Tell whether all parameters are."""
        return np.isfinite(self.theta).all()

    def score(self, comm):
        """Return the score of the rows that are not trained on."""
        learnt = self.training.transform.learnt(self.theta, self.moments, self.n_updates)
        return score(self.training, self, learnt, comm)

    def raw(self, theta, X):
        """Return raw predictions, in memory."""
        return self.training.objective.raw(theta, X)

    def mark_best(self):
        """Keep what is not in the state of the best epoch so far."""

    def open(self, state, first, stop):
        """Take over a state and prepare the rows of some batches."""
        self.load(state.theta, state.moments)
        self.rate, self.n_updates, self.loss_sum = state.rate, state.n_updates, state.loss_sum
        self.shared, self.own_loss = state.shared or {}, 0.0
        self._epoch = self.training.epoch_of(state)
        self.n_merged = self.training.n_merged(self._epoch)
        self.plan(state.age, first, stop)

    def load(self, theta, moments):
        """Take over parameters and moments of a state."""
        if self.theta is None:
            self.theta, self.moments = theta.copy(), [moment.copy() for moment in moments]
        else:
            np.copyto(self.theta, theta)
            for own, moment in zip(self.moments, moments):
                np.copyto(own, moment)

    def copies(self):
        """Return copies of parameters and moments, in memory."""
        return self.theta.copy(), *(moment.copy() for moment in self.moments)

    def packed(self):
        """Return a copy of parameters and moments behind each other, in memory."""
        return np.concatenate([self.theta, *self.moments])

    def unpack(self, packed):
        """Take over parameters and moments that `packed` has put behind each other."""
        for i, part in enumerate((self.theta, *self.moments)):
            part[:] = packed[i * len(part) : (i + 1) * len(part)]

    def plan(self, age, first, stop):
        """Prepare the rows of some batches of an epoch."""
        self._first = first
        schedule = self.training.schedule
        batches, _, units, places = schedule.slices(age, first, stop)
        self._batch_rows = np.bincount(batches - first, schedule.slice_sizes(units, places), stop - first)
        own, edges = self.owns(units), np.searchsorted(batches, np.arange(first, stop + 1))
        self._numbers, self._slice_units = np.flatnonzero(own), units  # of own slices among all; of all
        rows, row_edges = schedule.rows_of(age, units[own], places[own])
        # Of batches among all slices and among own ones, of own slices among rows: lists, for each step looks there.
        self._edges, self._row_edges = edges.tolist(), row_edges.tolist()
        self._own_edges = np.searchsorted(self._numbers, edges).tolist()
        self._selection = self.select(rows) if len(rows) else None

    def select(self, rows):
        """Return a `Selection` of rows by their numbers in the order that strata are cut from."""
        return self.rows.select(self._order[rows] if self._is_alone and self.training.schedule.is_mixed else rows)

    @functools.cached_property
    def _order(self):
        """Which rows stand where in the order that strata are cut from; kept, for each epoch asks for all."""
        n = self.training.schedule.n_samples
        return self.training.schedule.mix(np.arange(n), backwards=True).astype(np.uint32 if n < 2**32 else np.int64)

    def close(self, state, batch):
        """Return the state after some batches."""
        theta, *moments = self.copies()
        return state._replace(
            theta=theta, moments=tuple(moments), batch=batch, n_updates=self.n_updates, loss_sum=self.loss_sum,
            shared=self.shared,
        )  # fmt: skip

    def gradients(self, first, stop):
        """Return the `Fold` of this rank's micro-batches of some batches: gradients, and `EXTRAS` behind them."""
        started = time.perf_counter()
        (begin, end), (a, b) = self._between(self._edges, first, stop), self._between(self._own_edges, first, stop)
        fold = Fold(end - begin, self._add)
        # Of several batches by units, which a rank holds side by side: few branches of the tree are left to be sent.
        place = self._numbers[a:b] - begin
        if stop - first > 1:
            place = np.argsort(np.argsort(self._slice_units[begin:end], kind="stable"))[place]

        def work(i):
            fold.add(int(place[i]), self._micro_batch(a + i))

        self.each(b - a, work)
        self.charge("compute", started)
        return fold

    def _between(self, edges, first, stop):
        return edges[first - self._first], edges[stop - self._first]

    def rows_of(self, first, stop):
        """Return where the rows of some batches that this rank has begin and end in the selection."""
        a, b = self._between(self._own_edges, first, stop)
        return self._row_edges[a], self._row_edges[b]

    def n_rows(self, first, stop):
        """Return how many rows of some batches this rank has."""
        begin, end = self.rows_of(first, stop)
        return end - begin

    @property
    def most_rows(self):
        """Rows of which one gradient is computed at once."""
        return self.training.schedule.micro_rows

    def _micro_batch(self, i, end=None):
        """Return the gradient of own slice ``i``, or of those from there to before ``end``."""
        objective, n_rows = self.training.objective, self.most_rows
        try:
            work = self._work.get_nowait()
        except queue.Empty:
            X = None if self.rows.is_sparse else np.empty((n_rows, self.rows.n_features), self.rows.dtype)
            work = objective.workspace(n_rows), X
        out, (workspace, X) = self.spare(), work
        first, stop = self._row_edges[i], self._row_edges[i + 1 if end is None else end]
        selection, d = self._selection, objective.n_params
        X = selection.X(first, stop, X)
        y = selection.y[first:stop]
        weight = None if selection.weight is None else selection.weight[first:stop]
        value = objective.gradient(self.theta, X, y, weight, out, workspace)
        out[d:] = objective.scikit_learn_loss(value, y, weight), objective.weight_of(y, weight), len(y)
        self._work.put(work)
        return out

    @functools.cached_property
    def like(self):
        """An array of the shape and dtype of a gradient and what stands behind it."""
        return np.empty(self.training.objective.n_params + EXTRAS, self.training.objective.dtype)

    @property
    def n_decayed(self):
        """Coefficients, which stand first in theta."""
        return self.training.objective.n_decayed

    @functools.cached_property
    def layers(self):
        """Where the coefficients of each layer stand in theta, and their shapes."""
        edges = np.cumsum([0, *(int(np.prod(shape)) for shape in self.training.objective.shapes)])
        return [
            (slice(int(a), int(b)), shape) for a, b, shape in zip(edges, edges[1:], self.training.objective.shapes)
        ]  # fmt: skip

    def sum_of(self, fold):
        """Return the sum of what a fold has so far: this rank's part, zeros where it has none."""
        parts = [fold.nodes[node] for node in sorted(fold.nodes)]
        if not parts:
            return np.zeros_like(self.like)
        return functools.reduce(self._add, parts)

    def spare(self):
        """Return an array for a gradient and what stands behind it."""
        try:
            return self._spare.get_nowait()
        except queue.Empty:
            return np.empty_like(self.like)

    def _add(self, left, right):
        """Add up into whichever array is this rank's own; those that came from other ranks are read-only."""
        if not left.flags.writeable:
            out = right if right.flags.writeable else None
            return np.add(left, right, out=out)
        np.add(left, right, out=left)
        if right.flags.writeable:
            self._give_back(right)
        return left

    def _give_back(self, array):
        """Keep an array for another gradient; no more than may be needed, for sums of all ranks are given back too."""
        if array.flags.writeable and self._spare.qsize() < 2 * self.n_threads + 8:
            self._spare.put(array)

    def update(self, total, first, stop, is_own=False):
        """Step along a gradient.

        Parameters
        ----------
        total : ndarray of shape (n_params + EXTRAS,)
            Summed over some batches.
        first, stop : int
            These batches.
        is_own : bool, default False
            Whether only some ranks' rows are in it: it stands for that of all then, whose mean it is an estimate of.
        """
        started, objective = time.perf_counter(), self.training.objective
        d, weight = objective.n_params, float(total[-2])
        if weight > 0:
            batch_weight = self._weight_of(first, stop) if is_own else weight
            self._count_loss(total, batch_weight, is_own)
            self.n_updates += 1
            if is_own:
                total[:d] *= batch_weight / weight
            decay = objective.n_decayed, objective.alpha, 1.0 / batch_weight
            rate = self._rate_of(first, stop)
            self.training.transform.step(
                self.theta, total[:d], self.moments, rate, self.n_updates, decay, self.each
            )
        self._give_back(total)
        self.charge("update", started)

    def _count_loss(self, total, batch_weight, is_own):
        """Add up the loss of what stands behind a gradient of some weight, with the penalty of a batch."""
        objective = self.training.objective
        value, weight, n_rows = total[objective.n_params :].astype(np.float64).tolist()
        norm = objective.penalty(self.theta[: objective.n_decayed], batch_weight)
        counted = weight if is_own else n_rows
        self.loss_sum = self.loss_sum + ((value / weight + norm / batch_weight) * counted, counted)

    def _rate_of(self, first, stop):
        """Return the rate of the step of some batches."""
        progress = self._epoch + first / self.training.schedule.n_batches
        return self.rate * self.training.rates.factor(stop - first, progress)

    def _weight_of(self, first, stop):
        """Return what some batches weigh at all ranks: their rows, times what a row weighs."""
        return self.row_weight * float(self._batch_rows[first - self._first : stop - self._first].sum())

    def charge(self, phase, started):
        """Add the seconds since ``started`` to a phase."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - started

    def take_seconds(self):
        """Return the seconds of all phases since the last call."""
        found, self._seconds = self._seconds, {}
        return found
