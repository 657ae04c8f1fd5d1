"""Training by batches: what happens in a step, and at the end of an epoch."""

import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.training.account import Account
from daskdml.training.device import DeviceReplica
from daskdml.training.drift import drift, drift_of_batches
from daskdml.training.guard import strategy_at, watch
from daskdml.training.parts import result_name
from daskdml.training.replica import Replica
from daskdml.training.served import ServedReplica
from daskdml.training.sharded import ShardedReplica

STEP_FLOPS = 1e10  # of a step: 0.1 s, which a death costs; copies of the state, and the report of a step, cost 1 %
DEVICE_FACTOR = 64  # times that on a device: blocks are as many times larger there
MOST_SHARDED = 64  # batches of a superstep where each takes several collectives: a tenth of a second
MOST_SERVED = 16  # batches of which gradients are pushed a second time after a death, at most
SMALLEST_RATE = 1e-6
FAILURES = ("not finite", "no score")


class Training(NamedTuple):
    """What is trained, and how; the same on every rank.

    Attributes
    ----------
    objective : daskdml.objectives.network.Network
    schedule : Schedule
    transform : daskdml.solvers.descent transform
    strategy : daskdml.strategies
    max_epochs : int
    tol : float
    patience : float
        Epochs that may be no better.
    rates : Rates
    kind : {"classes", "labels", "values"}
        What is scored: how many classes are right, rows of labels of which all are, or R².
    scores : bool
        Whether rows that are not trained on are scored after each epoch.
    is_judged_by_score : bool
        Whether an epoch is judged by that score instead of its loss.
    given : Piece or None
        Such rows, where they are not held out.
    center : ndarray or float
        About the mean of y, that sums of squares are taken around.
    growth : float
        Times the rows of a step that one of the next epoch has.
    first : TrainingState or None
        To begin with, where the strategy cuts the model into shards: a group may have to begin anew.
    begin : list of ndarray or None
        Parameters and moments to begin with, of all shards, None for zeros; None for all draws them.
    save_every : float
        Seconds at least between two versions of shards in a folder of the user's.
    is_on_device : bool
        Whether rows are arrays of cupy.
    is_incremental : bool
        Whether this is a call of ``partial_fit``: what grows with epochs goes on from call to call.
    """

    objective: Any
    schedule: Any
    transform: Any
    strategy: Any
    max_epochs: int
    tol: float
    patience: float
    rates: Any
    kind: str = "classes"
    scores: bool = False
    is_judged_by_score: bool = False
    given: Any = None
    center: Any = 0.0
    growth: float = 1.0
    first: Any = None
    begin: Any = None
    save_every: float = 0.0
    is_on_device: bool = False
    is_incremental: bool = False

    @property
    def keeps_parts(self):
        """Whether the model is cut into shards, which are on no rank all together."""
        return self.is_sharded

    def replica(self, blocks, n_threads, each):
        """Return what a rank holds."""
        kind = DeviceReplica if self.is_on_device else Replica
        if self.is_sharded or self.is_served:
            kind = ShardedReplica if self.is_sharded else ServedReplica
        return kind(self, blocks, n_threads, each)

    @property
    def is_sharded(self):
        """Whether the model is cut into shards, which are on no rank all together."""
        return self.strategy.is_sharded

    @property
    def is_served(self):
        """Whether the parameters are with a parameter server between two epochs' ends."""
        return self.strategy.is_served

    def results(self, state):
        """Return the names of what makes up the result beside the state: the shards of the model, if it has some."""
        if not self.strategy.is_sharded or state.stopped_because in FAILURES:
            return ()
        return [result_name(k) for k in range(self.objective.in_shards(self.strategy.n_shards).n_shards)]

    def is_done(self, state):
        """Tell whether the training is over."""
        return bool(state.stopped_because) or state.epoch >= self.max_epochs

    @property
    def depends_on_ranks(self):
        """Whether batches are cut for the ranks that there are in the beginning."""
        return self.strategy.spreads

    def at_whole_epochs(self, state):
        """Return the state at the beginning of its epoch, where what came since then is with a server and not in it."""
        return state._replace(batch=0)

    def epoch_of(self, state):
        """Return how many epochs were before: of calls of partial_fit, an epoch each, all of them."""
        return state.age if self.is_incremental else state.epoch

    def n_merged(self, epoch):
        """Return the batches of one step in an epoch, beside what the strategy accumulates."""
        most = self.schedule.n_batches
        if self.growth == 1 or most == 1:
            return 1
        return int(min(self.growth ** min(epoch, 1 + np.log(most) / np.log(self.growth)), most))

    def _batches_per_step(self, state, strategy):
        """Batches of a superstep, in whole updates."""
        schedule, each = self.schedule, strategy.batches_per_update * self.n_merged(self.epoch_of(state))
        flops = 6.0 * self.objective.n_decayed * schedule.n_micro * schedule.micro_rows * each
        most = STEP_FLOPS * (DEVICE_FACTOR if self.is_on_device else 1)
        most_batches = MOST_SHARDED if self.is_sharded else MOST_SERVED if self.is_served else 4096
        return each * int(np.clip(most / flops, 1, most_batches))

    def step(self, state, replica, comm):
        """Go on by some batches; at the end of an epoch judge it."""
        replica.account = replica.account or Account(comm)
        replica.account.begin()
        strategy = strategy_at(self.strategy, (state.shared or {}).get("level", 0), self.objective.n_decayed)
        if replica.meet(comm):
            state = replica.restore(state, comm)
            if strategy.remembers and state.n_steps and state.n_ranks > 1:  # of one rank nobody remembers anything
                state = state._replace(n_lost=state.n_lost + 1)
            if (strategy.is_local and comm.size > 1) or strategy.is_served:
                replica.weigh(comm)
            if strategy.is_served:
                replica.find_tables(comm)
            if not (state.epoch or state.batch):
                state = state._replace(shared={**(state.shared or {}), **self._drift(strategy, replica, comm)})
        replica.account.assign("rows")
        first = state.batch
        stop = min(first + self._batches_per_step(state, strategy), self.schedule.n_batches)
        replica.open(state, first, stop)
        strategy.advance(replica, comm, first, stop)
        state = replica.close(state, stop)
        # One rank leaves nothing out, and a strategy that cannot be loosened neither.
        is_watched = strategy.guard and comm.size > 1 and bool(strategy.loosened(self.objective.n_decayed))
        if not np.isfinite(state.loss_sum).all() and not (is_watched and state.epoch):
            return state._replace(stopped_because="not finite")
        replica.account.assign("steps")
        if stop == self.schedule.n_batches:
            state = self._end_epoch(state, replica, comm, is_watched)
            replica.account.assign("scores")
        state = replica.account.close(state, replica.take_seconds())
        replica.save(state, comm, self.is_done(state))
        return state

    def _drift(self, strategy, replica, comm):
        """Look whether rows lie so that ranks, or batches, would learn different things; by the names of what does."""
        found = {}
        if strategy.is_local and comm.size > 1:
            found["ranks differ"] = drift(self, replica, comm)
        # Rows in a random order need no look, and rows that the user wants in their own order are to be so.
        if self.schedule.is_shuffled and not self.schedule.is_mixed and not self.is_sharded:
            found["batches differ"] = drift_of_batches(self, replica, comm)
        return found

    def _end_epoch(self, state, replica, comm, is_watched):
        losses, n_rows = state.loss_sum.tolist()
        loss = losses / n_rows if n_rows else 0.0
        state = state._replace(
            epoch=state.epoch + 1, batch=0, age=state.age + 1, n_seen=state.n_seen + self.schedule.n_trained,
            loss_sum=np.zeros(2), losses=(*state.losses, loss),
        )  # fmt: skip
        if is_watched:
            state, goes_on = watch(self, state, replica, self.objective.n_decayed)
            if goes_on:  # what was not scored has no score
                return state._replace(scores=(*state.scores, np.nan)) if self.scores else state
        if not replica.is_finite(comm):
            return state._replace(stopped_because="not finite")
        if self.scores:
            started, spent = time.perf_counter(), sum(comm.seconds.values())
            found = replica.score(comm)
            replica.charge("score", started + sum(comm.seconds.values()) - spent)
            state = state._replace(scores=(*state.scores, found))
            if np.isnan(found):
                return state._replace(stopped_because="no score")
        if self.is_judged_by_score:
            is_better = found >= state.best_score + self.tol
            if found > state.best_score:
                state = state._replace(best_score=found, best_theta=state.theta)
                replica.mark_best()
        else:
            is_better = loss <= state.best_loss - self.tol
            state = state._replace(best_loss=min(loss, state.best_loss))
        state = state._replace(n_idle=0 if is_better else state.n_idle + 1, rate=self.rates.after_epoch(state))
        if state.n_idle > self.patience:
            rate = self.rates.when_idle(state.rate)
            if rate is None:
                return state._replace(stopped_because="no improvement")
            state = state._replace(rate=rate, n_idle=0)
        return state


class Rates(NamedTuple):
    """How the learning rate goes on, as scikit-learn has it.

    Attributes
    ----------
    first : float
    kind : {"constant", "invscaling", "adaptive"}
    power : float
    scaling : {"linear", "sqrt"} or None
        What a step of several batches makes of the rate.
    warm_up : float
        Epochs in which the rate goes up to that: from what it is for one batch, without scaling from zero.
    n_accumulated : float
        Batches, as the user has them, that one of the schedule is made of.
    """

    first: float
    kind: str = "constant"
    power: float = 0.5
    scaling: Any = None
    warm_up: float = 0.0
    n_accumulated: float = 1.0

    def after_epoch(self, state):
        """Return the rate after an epoch."""
        return self.first / (state.n_seen + 1) ** self.power if self.kind == "invscaling" else state.rate

    def factor(self, n_batches, progress):
        """Return the factor of the rate for a step of so many batches of the schedule, after so many epochs."""
        if self.scaling is None and not self.warm_up:
            return 1.0
        n = float(n_batches * self.n_accumulated)
        factor = {"linear": n, "sqrt": float(np.sqrt(n)), None: 1.0}[self.scaling]
        if progress < self.warm_up:
            begin = 0.0 if self.scaling is None else 1.0
            # The first step must be one, though nothing is over yet.
            share = max(progress / self.warm_up, 0.01)
            return begin + (factor - begin) * share
        return factor

    def when_idle(self, rate):
        """Return the rate to go on with where epochs get no better, or None to stop."""
        return rate / 5.0 if self.kind == "adaptive" and rate > SMALLEST_RATE else None
