"""What one rank does where the model is cut into shards: its shards' part of every product, and their steps.

Ranks stand in groups. The ranks of a group hold all shards between them, each some that follow each other, and work on
the same rows; groups work on different micro-batches of each batch, and add up gradients shard by shard. Rows travel to
the group that needs them; where the first layer is cut by features and there is one group, columns travel instead,
once. Every sum goes along a fixed tree over shards or over micro-batches, so that bits depend on the number of shards,
not on ranks or groups.
"""

import functools
import itertools
import time

import numpy as np

from daskdml.training.meeting import receive_piece, send_piece
from daskdml.training.parts import restore, save
from daskdml.training.replica import Replica
from daskdml.training.rows import HeldRows, Piece
from daskdml.training.scoring import ROWS, finish, given_rows, n_sums, sums_of
from daskdml.utils.fold import Fold, add_in_place

WINDOW_BYTES = 1 << 25  # of rows that are brought at a time


class Grid:
    """Who holds which shards.

    Parameters
    ----------
    size, rank : int
    n_groups, n_shards : int
    """

    def __init__(self, size, rank, n_groups, n_shards):
        self.rank, self.n_groups, self.n_shards = rank, n_groups, n_shards
        edges = [size * g // n_groups for g in range(n_groups + 1)]
        self.groups = [range(a, b) for a, b in itertools.pairwise(edges)]
        self.group = next(g for g, members in enumerate(self.groups) if rank in members)
        self._owners = [
            {k: members[m] for m in range(len(members)) for k in self._span(m, len(members))}
            for members in self.groups
        ]  # fmt: skip

    def _span(self, member, n_members):
        return range(self.n_shards * member // n_members, self.n_shards * (member + 1) // n_members)

    @property
    def members(self):
        """The ranks of this one's group."""
        return self.groups[self.group]

    @property
    def is_first(self):
        """Whether this rank is the first of its group."""
        return self.rank == self.members[0]

    def owners(self, shard):
        """Return the rank of each group that holds a shard."""
        return [owners[shard] for owners in self._owners]

    def shards_of(self, rank):
        """Return the shards of a rank, in ascending order."""
        group = next(g for g, members in enumerate(self.groups) if rank in members)
        return [k for k, owner in self._owners[group].items() if owner == rank]


class ShardedReplica(Replica):
    """The rows of a rank, its shards, and a copy of the parameters that belong to none.

    Attributes
    ----------
    theta, moments : ndarray, list of ndarray
        Of the common parameters.
    shards : dict of int to list of ndarray
        Parameters and moments of each shard of this rank.
    best : dict of int to ndarray
        Parameters of the best epoch, where epochs are judged by a score.
    """

    def __init__(self, training, blocks, n_threads, each):
        super().__init__(training, blocks, n_threads, each)
        self.sharded = training.objective.in_shards(training.strategy.n_shards)
        self.shards, self.best = {}, {}
        self._window, self._has_all_rows = (0, 0), False
        self._norms, self._sums = [], []
        self.saved_at, self.saving_seconds = None, 0.0

    def meet(self, comm):
        is_now = super().meet(comm)
        if is_now:
            n_groups = self.training.strategy.n_groups(comm.size, self.sharded.n_shards)
            self.grid = Grid(comm.size, comm.rank, n_groups, self.sharded.n_shards)
            self._owner = np.zeros(self.training.schedule.n_units, np.int64)
            for rank, units in enumerate(comm.allgather(self.units)):
                self._owner[units] = rank
            self._has_all_rows, self.saved_at = comm.size == 1, comm.clock()
            if self.sharded.by_inputs[0] and self.grid.n_groups == 1 and comm.size > 1:
                self._split_columns(comm)
        return is_now

    def restore(self, state, comm):
        return restore(self, state, comm)

    def save(self, state, comm, is_last):
        started = time.perf_counter()
        save(self, state, comm, is_last)
        self.charge("save", started)

    # Rows -------------------------------------------------------------------------------------------------------------

    def _features_of(self, rank):
        """Return the features that a rank needs of rows."""
        n, own = self.training.objective.sizes[0], self.grid.shards_of(rank)
        if not self.sharded.by_inputs[0]:
            return slice(0, n)
        return slice(self.sharded.cut(0, own[0]).start, self.sharded.cut(0, own[-1]).stop)

    def _split_columns(self, comm):
        """Let every rank hold its features of all rows instead of all features of its rows."""
        held = []
        for to in range(comm.size):
            columns = self._features_of(to)
            parts = [piece._replace(X=_columns(piece.X, columns)) for piece in self.rows.pieces]
            if to == comm.rank:
                held += parts
                continue
            comm.send(to, np.array([part.start for part in parts], np.int64))
            for part in parts:
                send_piece(part, to, comm)
        self.rows = None  # the rows with all their features go before others' come
        for source in range(comm.size):
            if source != comm.rank:
                held += [receive_piece(start, source, comm) for start in comm.receive(source).tolist()]
        self.rows, self._has_all_rows = HeldRows(held), True
        self._owner[:] = comm.rank

    def plan(self, age, first, stop):
        self._age, self._window = age, (first, first)

    def _bring(self, comm, begin, stop, step):
        """Bring the rows of some batches to the groups that need them."""
        schedule, grid, row_bytes = self.training.schedule, self.grid, 4 * self.training.objective.sizes[0]
        batch_bytes = max(schedule.n_micro * schedule.micro_rows * step * row_bytes, 1)
        end = min(begin + step * max(WINDOW_BYTES // batch_bytes, 1), stop)
        batches, _, units, places = schedule.slices(self._age, begin, end)
        sizes, owner = schedule.slice_sizes(units, places), self._owner[units]
        group, self._updates = np.empty(len(units), np.int64), {}
        edges = np.searchsorted(batches, np.arange(begin, end + 1))
        for first in range(begin, end, step):
            a, b = edges[first - begin], edges[min(first + step, end) - begin]
            # As in `Replica.gradients`, so that most rows are where they are needed.
            place = np.argsort(np.argsort(units[a:b], kind="stable"))
            group[a:b] = place * grid.n_groups // (b - a)
            self._updates[first] = a + np.argsort(place)
        own, here = owner == comm.rank, None
        for g, members in enumerate(grid.groups):
            mine = np.flatnonzero(own & (group == g))
            if len(mine) == 0:
                continue
            selection = self.select(schedule.rows_of(self._age, units[mine], places[mine])[0])
            piece = Piece(0, selection.X(), selection.y, selection.weight)
            if self._has_all_rows:
                here = piece
                continue
            for to in members:
                part = piece._replace(X=_columns(piece.X, self._features_of(to)))
                if to == comm.rank:
                    here = part
                else:
                    send_piece(part, to, comm)
        self._slices = {}
        for source in range(comm.size):
            mine = np.flatnonzero((owner == source) & (group == grid.group))
            if len(mine):
                piece = here if source == comm.rank else receive_piece(0, source, comm)
                cuts = np.concatenate([[0], np.cumsum(sizes[mine])])
                self._slices.update({i: piece.rows(a, b) for i, a, b in zip(mine.tolist(), cuts, cuts[1:])})
        self._window = begin, end

    # Steps ------------------------------------------------------------------------------------------------------------

    def step_along(self, comm, begin, end, stop, step):
        """Take the step of some batches.

        Parameters
        ----------
        comm : Comm
        begin, end : int
            These batches.
        stop : int
            Batches up to this one will follow: their rows may be brought now.
        step : int
            Batches of a step; the last one may have fewer.
        """
        started, spent = time.perf_counter(), sum(comm.seconds.values())
        if not self._window[0] <= begin < self._window[1]:
            self._bring(comm, begin, stop, step)
        comm.check()
        slices = self._updates[begin]
        places, parts = [], []
        for place, i in enumerate(slices.tolist()):
            if i in self._slices:
                places.append(place)
                parts.append(self._slices[i])
        rows = self._rows([part.X for part in parts], {k: arrays[0] for k, arrays in self.shards.items()}, self.theta)
        comm.worked(lambda: rows.n / len(self.grid.members))
        add_up, found, slopes = functools.partial(self._add_up, comm), None, None
        fold = Fold(len(slices))
        if parts:
            found = self.sharded.forward(rows, add_up)
            delta, sums = self._losses(rows, parts, found.raw)
            slopes = self.sharded.backward(rows, found, delta, add_up)
            for m, place in enumerate(places if self.grid.is_first else ()):
                self.sharded.common_gradient(slopes, m, sums[m])
                fold.add(place, sums[m])
        like = np.empty(self.sharded.n_common + 3)
        total = fold.result() if comm.size == 1 else comm.allreduce_blocks(fold, n_blocks=len(slices), like=like)
        value, weight, n_rows = total[-3:].tolist()
        if weight > 0:
            self.n_updates += 1
            self._sums.append((value, weight, n_rows))
            progress = self._epoch + begin / self.training.schedule.n_batches
            rate = self.rate * self.training.rates.factor(end - begin, progress)
            gradient = total[:-3].astype(self.training.objective.dtype)
            move = self.training.transform.step
            move(self.theta, gradient, self.moments, rate, self.n_updates, (0, 0.0, 1.0 / weight), _one_by_one)
            self._step_shards(comm, rows, found, slopes, places, len(slices), rate, weight)
        self.charge("compute", started + sum(comm.seconds.values()) - spent)

    def _rows(self, X, flats, common):
        return self.sharded.rows(flats, common, X, self.each, self._features_of(self.grid.rank).start)

    def _losses(self, rows, parts, raw):
        """Return the slopes of losses, and for each micro-batch room for a gradient with loss, weight, rows behind."""
        objective = self.training.objective
        delta, sums = np.empty_like(raw), np.zeros((len(parts), self.sharded.n_common + 3))

        def work(m):
            y, weight, span = parts[m].y, parts[m].weight, rows.spans[m]
            with np.errstate(over="ignore", invalid="ignore"):
                value = objective.output(raw[span], y, weight, delta[span])
            sums[m, -3:] = (
                objective.scikit_learn_loss(value, y, weight), objective.weight_of(y, weight), len(y)
            )  # fmt: skip

        self.each(len(parts), work)
        return delta, sums

    def _add_up(self, comm, fold):
        """Return the sum over shards of arrays that the ranks of this group have."""
        members = self.grid.members
        if len(members) == 1:
            return fold.result()
        like = next(iter(fold.nodes.values()))
        return comm.allreduce_blocks(fold, n_blocks=fold.n_blocks, like=like, members=members)

    def _step_shards(self, comm, rows, found, slopes, places, n_slices, rate, weight):
        """Step all shards of this rank, as many at a time as there are threads: a gradient is as large as its shard."""
        objective, own = self.training.objective, rows.shards
        norms = np.zeros(self.sharded.n_shards)
        self._norms.append(norms)

        def add_micro_batches(j, wave, folds):
            k, fold = wave[j], Fold(n_slices, add_in_place)
            for m, place in enumerate(places):
                out = np.empty(self.sharded.n_params_of(k), objective.dtype)
                self.sharded.gradient(rows, found, slopes, k, m, out)
                fold.add(place, out)
            folds[k] = fold

        def move(j, wave, totals):
            k = wave[j]
            theta, *moments = self.shards[k]
            n = self.sharded.n_decayed_of(k)
            norms[k] = objective.penalty(theta[:n], weight)
            decay = n, objective.alpha, 1.0 / weight
            self.training.transform.step(theta, totals[k], moments, rate, self.n_updates, decay, _one_by_one)

        for first in range(0, len(own), self.n_threads):
            wave, folds = own[first : first + self.n_threads], {}
            self.each(len(wave), functools.partial(add_micro_batches, wave=wave, folds=folds))
            totals = {k: self._sum_over_groups(comm, k, folds[k]) for k in wave}
            self.each(len(wave), functools.partial(move, wave=wave, totals=totals))

    def _sum_over_groups(self, comm, shard, fold):
        owners = self.grid.owners(shard)
        if len(owners) == 1:
            return fold.result()
        like = np.empty(self.sharded.n_params_of(shard), self.training.objective.dtype)
        return comm.allreduce_blocks(fold, n_blocks=fold.n_blocks, like=like, members=owners)

    def settle(self, comm):
        """Add up the losses of the steps since the last time: penalties are known shard by shard."""
        if not self._sums:
            return
        norms = np.array(self._norms)
        if self.grid.group != 0:
            norms[:] = 0
        if comm.size > 1:
            norms = comm.allreduce(norms)
        for (value, weight, n_rows), norm in zip(self._sums, norms.sum(axis=1).tolist()):
            self.loss_sum = self.loss_sum + ((value + norm) / weight * n_rows, n_rows)
        self._norms, self._sums = [], []

    # The end of an epoch ----------------------------------------------------------------------------------------------

    def is_finite(self, comm):
        is_bad = not all(np.isfinite(arrays[0]).all() for arrays in self.shards.values())
        is_bad = is_bad or not np.isfinite(self.theta).all()
        return not (comm.vote(is_bad) if comm.size > 1 else is_bad)

    def mark_best(self):
        self.best = {k: arrays[0].copy() for k, arrays in self.shards.items()}

    def score(self, comm):
        training = self.training
        given, schedule = training.given, training.schedule
        if given is not None:
            n = -(-len(given.y) // ROWS)
            parts = (given_rows(given, i) for i in range(n))
        else:
            first, stop = schedule.unit_spans(np.arange(schedule.n_units))
            units = np.flatnonzero(stop > first).tolist()
            n, parts = len(units), (self._held_out(unit, comm) for unit in units)
        total = Fold(n)
        learnt = functools.partial(self._learnt, n_updates=self.n_updates)
        flats, common = {k: learnt(*arrays) for k, arrays in self.shards.items()}, learnt(self.theta, *self.moments)
        for i, (X, y, weight) in enumerate(parts):
            found = np.zeros(n_sums(training))
            if len(y):
                columns = self._features_of(self.grid.rank)
                # Rows that lie here may have lost the features of other ranks already.
                X = X if X.shape[1] == _length(columns) else _columns(X, columns)
                rows = self._rows([X], flats, common)
                raw = self.sharded.forward(rows, functools.partial(self._add_up, comm)).raw
                found = sums_of(training, raw, y, weight)
            total.add(i, found)
        total = total.result()
        # One rank's for all: another processor might round otherwise, and judge otherwise.
        return finish(training, total if comm.size == 1 else comm.broadcast(total))

    def _learnt(self, theta, *moments, n_updates):
        return self.training.transform.learnt(theta, moments, n_updates)

    def _held_out(self, unit, comm):
        """Return the rows of a unit that are held out, on every rank."""
        rows, owner = self.training.schedule.held_rows(unit), int(self._owner[unit])
        piece = None
        if self._has_all_rows or owner == comm.rank:
            selection = self.select(rows) if len(rows) else None
            piece = Piece(0, None, np.empty(0), None)
            if selection is not None:
                piece = Piece(0, selection.X(), selection.y, selection.weight)
        if not self._has_all_rows and len(rows):
            if owner == comm.rank:
                for to in range(comm.size):
                    if to != comm.rank:
                        send_piece(piece, to, comm)
            else:
                piece = receive_piece(0, owner, comm)
        return (None, np.empty(0), None) if piece is None or piece.X is None else (piece.X, piece.y, piece.weight)


def _columns(X, columns):
    """Return some columns of rows, in memory of their own unless they are all."""
    if _length(columns) == X.shape[1]:
        return X
    part = X[:, columns]
    return part if hasattr(part, "indptr") else np.ascontiguousarray(part)


def _length(part):
    return part.stop - part.start


def _one_by_one(n_items, work):
    for i in range(n_items):
        work(i)
