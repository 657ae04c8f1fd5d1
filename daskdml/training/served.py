"""What a rank does whose parameters are with a parameter server: reads them, and pushes gradients of its rows."""

import functools
import time

import numpy as np

from daskdml.training.replica import Replica
from daskdml.utils.batches import MICRO_ROWS
from daskdml.utils.fold import Fold

ROUNDING = 1e-6  # of sums of shares
COEFFICIENTS, INTERCEPTS = "coefficients", "intercepts"  # names of the tables: only the first decay
GONE_BACK = "gone back"  # of what a state shares: the tables hold more than it does


class Descent:
    """What a table of parameters does with gradients that are pushed to it: steps of a transform.

    Of a push, or of all pushes of a clock together, with W the weight of the rows in it and B that of the batch::

        step along (gradient + strength W / B theta) / W,   a share W / B of a step

    Parameters
    ----------
    transform : daskdml.solvers.descent transform
    strength : float
        Of the penalty that decays.
    is_decayed : bool

    Attributes
    ----------
    n_moments, n_scalars : int
        Scalars are W, the rate, B, and 1: sums over the pushes of a clock.
    """

    n_scalars = 4

    def __init__(self, transform, strength, is_decayed):
        self.transform, self.strength, self.is_decayed = transform, strength, is_decayed

    @property
    def n_moments(self):
        """Those of the transform."""
        return self.transform.n_moments

    def step(self, theta, update, moments, n_updates, scalars):
        """Step; return how much of an update it was."""
        weight, rates, batch_weight, n_pushes = np.asarray(scalars).tolist()
        if not weight > 0:
            return 0.0
        share = weight / batch_weight
        decay = len(theta) if self.is_decayed else 0, self.strength * share, 1.0 / weight
        n = n_updates + share
        self.transform.step(theta, update, moments, rates / n_pushes, n, decay, _in_turn, share)
        return share


def _in_turn(n_items, work):
    for i in range(n_items):
        work(i)


class AtServer:
    """Mixin: a rank of a training whose parameters are with a parameter server.

    Attributes
    ----------
    pushes_all : bool
        Whether what this rank pushes, or its group, is of all rows: nobody else does.
    """

    def find_tables(self, comm):
        """Learn where the tables are; refuse to do again what another fit has done.

        Raises
        ------
        ValueError
            For an order of other batches or ranks: shards would wait for those that never come.
        """
        self._tables, replay = comm.tables, self.training.strategy.replay
        self._group = self.training.strategy.group(comm)
        self._is_leader = self._group is None or comm.rank == self._group[0]
        self.pushes_all = comm.size == len(self._group or [comm.rank])
        if not self._is_leader:  # it has no clock of its own that others would wait for
            self._tables.leave()
        if replay is not None and comm.generation == 1 and replay["of"] != self._recorded_of(comm):
            raise ValueError(
                f"replay is the order of a fit of {replay['of']}, and this is one of {self._recorded_of(comm)}: give "
                "the same rows, batches and number of workers."
            )

    def note_work(self, comm, n_rows, started):
        """Remember the time that rows took; let it pass where a clock is simulated."""
        comm.worked(n_rows)
        comm.check()
        self.memory["worked"] = self.memory.get("worked", np.zeros(2)) + (n_rows(), comm.clock() - started)

    def tally(self, comm, moves_rows, records):
        """Tell all how stale what each has pushed was; move rows away from ranks that took longer than others.

        Parameters
        ----------
        comm : Comm
        moves_rows : bool
        records : bool
            Whether to tell all in which order shards have done what since they met last.
        """
        n_lags = self._tables.take_stalenesses(comm)
        known = np.asarray(self.shared.get("staleness", ()), np.int64)
        length = max(len(n_lags), len(known))
        self.shared = {**self.shared, "staleness": sum(np.pad(a, (0, length - len(a))) for a in (n_lags, known))}
        if records:
            self.shared = {**self.shared, "order": self._recorded(comm)}
        worked = self.memory.pop("worked", np.zeros(2))
        if not worked[0]:  # all its rows are elsewhere: it is as fast as it was
            worked = self.memory.get("pace", worked)
        self.memory["pace"] = worked
        if moves_rows and comm.size > 1:
            moved = self.move(comm, *worked)
            self.shared = {**self.shared, "rows moved": self.shared.get("rows moved", 0) + moved}

    def _recorded(self, comm):
        """Return what it belongs to, and what all shards have done, as `Tables.take_orders`; or None."""
        if comm.generation > 1:
            return None
        before = self.shared["order"][1:] if "order" in self.shared else ()
        return self._recorded_of(comm), np.concatenate([*before, self._tables.take_orders(comm)])

    def _recorded_of(self, comm):
        """Return what an order belongs to."""
        training, strategy = self.training, self.training.strategy
        return {
            "ranks": comm.size, "shards": self._tables.layout.n_shards, "rows": training.schedule.n_samples,
            "batches": training.schedule.n_batches, "cut": list(training.schedule.cut), "growth": training.growth,
            **strategy.recorded(comm, training.keeps_parts),
        }  # fmt: skip


class ServedReplica(AtServer, Replica):
    """The rows of a rank, and the parameters as it has read them last, or the first rank of its group has."""

    def fetch(self, comm, staleness, asks=False):
        """Read the parameters that all have pushed to, but for the last clocks of others.

        Parameters
        ----------
        comm : Comm
        staleness : int or None
            Clocks; None promises nothing.
        asks : bool, default False
            Whether to ask for the next ones, which come while a gradient is computed.
        """
        started = time.perf_counter()
        if self._is_leader:
            self._tables.client.staleness = staleness
            found, n = self._tables.get_dense(), self.n_decayed
            self.theta[:n], self.theta[n:] = found[COEFFICIENTS], found[INTERCEPTS]
            if asks:
                self._tables.ask_dense()
            self.charge("wait", started)
        self._share(comm, self.theta)

    def _share(self, comm, array):
        """Let all ranks of a group have what the first one has."""
        if self._group is not None:
            array[:] = comm.broadcast(array, self._group[0], self._group)

    def forget(self):
        """Forget what was not sent, and all that a strategy remembers of this rank."""
        super().forget()
        self._tables.forget()

    @property
    def most_rows(self):
        """Rows of which one gradient is computed at once."""
        return max(super().most_rows, MICRO_ROWS)

    def work(self, comm, first, stop):
        """Return the sum of gradients of this rank's rows of some batches, and what stands behind it."""
        started = comm.clock()
        own = self.sum_of(self.gradients(first, stop) if comm.size == 1 else self._gradients_of_runs(first, stop))
        self.note_work(comm, functools.partial(self.n_rows, first, stop), started)
        return own

    def _gradients_of_runs(self, first, stop):
        """Return the `Fold` of this rank's rows of some batches, several micro-batches at once: its sum is its own."""
        started, (a, b) = time.perf_counter(), self._between(self._own_edges, first, stop)
        edges = [a]
        for i in range(a + 1, b):
            if self._row_edges[i + 1] - self._row_edges[edges[-1]] > self.most_rows:
                edges.append(i)
        edges.append(b)
        n_runs = len(edges) - 1 if b > a else 0
        fold = Fold(n_runs, self._add)
        self.each(n_runs, lambda k: fold.add(k, self._micro_batch(edges[k], edges[k + 1])))
        self.charge("compute", started)
        return fold

    def push(self, comm, own, first, stop, is_whole):
        """Push the gradient of this rank's rows of some batches, or of its group's; complete a clock.

        Parameters
        ----------
        comm : Comm
        own : ndarray of shape (n_params + EXTRAS,)
        first, stop : int
            These batches.
        is_whole : bool
            Whether the server waits for the pushes of all ranks, and steps along their sum.
        """
        if self._group is not None:
            own = comm.allreduce(own, members=self._group)
        if not self._is_leader:
            return self._give_back(own)
        started = time.perf_counter()
        n, weight = self.n_decayed, float(own[-2])
        batch_weight = weight if self.pushes_all else self._weight_of(first, stop)
        if weight > 0:
            self._count_loss(own, batch_weight, is_own=not self.pushes_all)
        scalars = weight, self._rate_of(first, stop), weight if is_whole else batch_weight, 1.0
        self._tables[COEFFICIENTS].add(own[:n], scalars)
        self._tables[INTERCEPTS].add(own[n : self.training.objective.n_params], scalars)
        self._tables.push()
        self.charge("transfer", started)
        return self._give_back(own)

    def meet_again(self, comm, moves_rows, records):
        """Wait for the pushes of all; have the same parameters, moments and losses as all.

        Parameters
        ----------
        comm : Comm
        moves_rows : bool
            Whether ranks that took much longer than others give them some of their rows.
        records : bool
            Whether to tell all in which order shards have done what since they met last.
        """
        self._tables.settle()
        losses = np.array(self.memory.pop("losses", np.zeros(2))) + self.loss_sum
        self.loss_sum = comm.allreduce(losses)  # also a barrier: all that was pushed is there
        self._tables.agree(comm)
        # In step what was acknowledged counts when all have pushed, and those who do not push are known to have left.
        self.fetch(comm, 0 if self.training.strategy._rule.is_collective else None)
        n, n_updates = self.n_decayed, np.zeros(1)
        if self._is_leader:
            (first, n_first), (last, n_last) = (self._tables[name].get_moments() for name in (COEFFICIENTS, INTERCEPTS))
            for own, *parts in zip(self.moments, first, last):
                own[:n], own[n:] = parts
            n_updates[0] = min(n_first, n_last)
        for shared in (*self.moments, n_updates):
            self._share(comm, shared)
        # What a death has lost some shards may have: as many as all of them.
        self.n_updates = int(n_updates[0] + ROUNDING)
        self.tally(comm, moves_rows and self._epoch + 1 < self.training.max_epochs, records)
        comm.barrier()  # nobody pushes on before all have read

    def close(self, state, batch):
        """Return the state after some batches; within an epoch what is learnt is with the server, and not in it."""
        if batch == self.training.schedule.n_batches:
            return super().close(state, batch)
        self.memory["losses"] = self.memory.get("losses", np.zeros(2)) + self.loss_sum
        return state._replace(batch=batch, shared=self.shared)

    def begin_epoch(self, comm):
        """Let the tables hold what the state does, if an epoch was to count for nothing."""
        if GONE_BACK not in self.shared:
            return
        if comm.rank == 0:
            n = self.n_decayed
            for name, part in ((COEFFICIENTS, slice(0, n)), (INTERCEPTS, slice(n, None))):
                self._tables[name].put(self.theta[part], [moment[part] for moment in self.moments], self.n_updates)
        if self._is_leader:
            self._tables.push()
            self._tables.settle()
        comm.barrier()
        self.shared = {key: value for key, value in self.shared.items() if key != GONE_BACK}
