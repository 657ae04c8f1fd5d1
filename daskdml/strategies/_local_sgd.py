"""Ranks take steps of their own, and meet now and then."""

import functools
import numbers
import warnings

import numpy as np
from sklearn.base import BaseEstimator, clone

from daskdml.strategies._groups import GROUPS, group_of
from daskdml.utils.params import Interval, Options, check_params

ROUNDS = 8  # of gossip between two averages of all, at least


class OuterStep(BaseEstimator):
    """What is done with the mean of all ranks' parameters: a step towards it, with momentum.

        v <- momentum v + (mean - theta),   theta <- theta + rate v

    Parameters
    ----------
    rate : float, default 1.0
    momentum : float, default 0.0
        With rate 1 and momentum 0 the mean itself is taken.

    Notes
    -----
    S. Reddi et al., "Adaptive federated optimization", 2020 (FedAvgM); momentum 0.5 to 0.9 helps where ranks see
    different data.

    Examples
    --------
    >>> OuterStep(momentum=0.5)
    OuterStep(momentum=0.5)
    """

    _constraints = {
        "rate": [Interval(numbers.Real, 0, None, "neither")], "momentum": [Interval(numbers.Real, 0, 1, "left")],
    }  # fmt: skip

    def __init__(self, rate=1.0, momentum=0.0):
        self.rate = rate
        self.momentum = momentum


class LocalSGD(BaseEstimator):
    """Let every rank take steps along its own gradients, and average parameters every few steps.

        theta_r <- step(theta_r, gradient of rank r's rows of the batch)      ``steps`` times
        theta <- sum_r n_r theta_r / sum_r n_r                            n_r: weight of its rows since then

    Parameters
    ----------
    steps : int, default 8
        Batches between two averages. 1 without momentum is all-reduce.
    outer : OuterStep or None, default None
        What is done with the mean; None takes it.
    mixing : {"allreduce", "gossip"}, default "allreduce"
        "gossip" averages with two neighbours instead of all ranks, see `daskdml.comm.gossip`; all meet at the end of a
        superstep (some tenths of a second, and every epoch).
    groups : int, "host" or None, default None
        Ranks in so many groups, or in one for each machine: inside a group gradients are added up before every step,
        and the groups average every ``steps``.
    guard : bool, default False
        As in `AllReduce`; with half the steps from then on.

    Notes
    -----
    Parameters and moments are averaged: ``2 (P - 1) / P`` times their bytes every ``steps`` batches, instead of a
    gradient in each. The answer depends on the number of ranks. Rows that lie sorted make ranks learn different things:
    labels and features are compared between ranks first, and a difference is warned of. With Adam's moments averaged
    the log loss was 0.02 to 0.07 higher after as many epochs, though accuracy lower by no more than 0.1 points (means
    of three seeds of ``python -m benchmarks codecs --full``): use ``solver="sgd"``. S. U. Stich, "Local SGD converges
    fast and communicates little", 2019.

    Examples
    --------
    >>> LocalSGD(steps=4, outer=OuterStep(momentum=0.5)).get_params()["outer__momentum"]
    0.5
    """

    _constraints = {
        "steps": [Interval(numbers.Integral, 1, None)], "outer": [OuterStep, None],
        "mixing": [Options({"allreduce", "gossip"})], "groups": GROUPS,
        "guard": ["boolean"],
    }  # fmt: skip

    is_local = spreads = True
    is_sharded = is_served = remembers = False
    accumulate = parts_per_rank = 1

    def __init__(self, steps=8, *, outer=None, mixing="allreduce", groups=None, guard=False):
        self.steps = steps
        self.outer = outer
        self.mixing = mixing
        self.groups = groups
        self.guard = guard

    @property
    def sends_gradients(self):
        """Whether ranks add up gradients, those of a group."""
        return self.groups is not None

    def manner(self, n_ranks):
        """Say in a few words how many ranks do what.

        Parameters
        ----------
        n_ranks : int

        Returns
        -------
        str
        """
        return f"{n_ranks} replicas with steps of their own"

    def loosened(self, n_numbers):
        """Return a strategy that averages twice as often, or None where that is in every step.

        Parameters
        ----------
        n_numbers : int
            Coefficients of the model.

        Returns
        -------
        LocalSGD or None
        """
        return None if self.steps == 1 else clone(self).set_params(steps=self.steps // 2)

    def check(self, estimator):
        """Refuse what cannot be right, and warn of what is known to cost accuracy.

        Parameters
        ----------
        estimator : estimator
            That it is the strategy of.
        """
        check_params(self, self._constraints)
        if self.outer is not None:
            check_params(self.outer, self.outer._constraints)
            if self.mixing == "gossip":
                raise ValueError("An outer step needs the mean of all ranks, which mixing='gossip' never has.")
        if self.mixing == "gossip" and self.groups is not None:
            raise ValueError("Groups average among each other, and mixing='gossip' has none; leave out one of the two.")
        if getattr(estimator, "solver", "sgd") == "adam" and self.steps > 1:
            warnings.warn(
                "LocalSGD with solver='adam' averages moments that belong to different gradients: after as many "
                "epochs the log loss was 0.02 to 0.07 higher, though accuracy lower by no more than 0.1 points (means "
                "of three seeds of `python -m benchmarks codecs --full`); use solver='sgd'.",
                stacklevel=5,
            )  # fmt: skip

    @property
    def batches_per_update(self):
        """Batches between two averages of all ranks at least: a superstep ends with one."""
        return self.steps * (ROUNDS if self.mixing == "gossip" else 1)

    def advance(self, replica, comm, first, stop):
        """Train on some batches.

        Parameters
        ----------
        replica : daskdml.training.replica.Replica
        comm : daskdml.runtime.spmd.Comm
        first, stop : int
            Batches ``first`` to ``stop - 1`` of the epoch.
        """
        group = group_of(comm, self.groups)
        merged = replica.n_merged
        for begin in range(first, stop, self.steps * merged):
            end = min(begin + self.steps * merged, stop)
            before = replica.packed() if self.outer is not None else None
            loss_sum, n_updates, weight = replica.loss_sum, replica.n_updates, 0.0
            for batch in range(begin, end, merged):
                last = min(batch + merged, end)
                own = replica.sum_of(replica.gradients(batch, last))
                comm.worked(functools.partial(replica.n_rows, batch, last))
                comm.check()
                if group is not None:
                    own = comm.allreduce(own, members=group)
                weight += float(own[-2]) / (1 if group is None else len(group))
                replica.update(own, batch, last, is_own=comm.size > 1)
            own_loss = replica.loss_sum - loss_sum
            if group is not None:  # all of a group have counted the same rows
                own_loss = own_loss / len(group)
            replica.loss_sum, replica.n_updates = loss_sum, n_updates - (begin - end) // merged
            if self.mixing == "gossip" and end < stop:
                self._mix_with_neighbours(replica, comm)
                replica.own_loss = replica.own_loss + own_loss
            else:
                own_loss, replica.own_loss = own_loss + replica.own_loss, 0.0
                self._average(replica, comm, weight, own_loss)
            if before is not None:
                self._step_outside(replica, before)

    def _average(self, replica, comm, weight, own_loss):
        """Let all ranks have the mean of parameters and moments, and the sum of losses."""
        if comm.size == 1:
            replica.loss_sum = replica.loss_sum + own_loss
            return
        counts = comm.allreduce(np.array([weight, *own_loss]))
        replica.loss_sum = replica.loss_sum + counts[1:]
        share = weight / counts[0] if counts[0] > 0 else 1 / comm.size
        # In float64: shares of float32 add up to 1 and a bit, which all parameters would be multiplied by each time.
        packed = replica.packed()
        np.multiply(packed, np.float64(share), out=packed, casting="same_kind")
        replica.unpack(comm.allreduce(packed))

    def _mix_with_neighbours(self, replica, comm):
        replica.unpack(comm.gossip(replica.packed()))

    def _step_outside(self, replica, before):
        outer, packed, d = self.outer, replica.packed(), len(replica.theta)
        velocity = replica.shared.get("velocity")
        step = packed[:d] - before[:d]
        if velocity is not None:
            step += packed.dtype.type(outer.momentum) * velocity
        if outer.momentum:
            replica.shared = {**replica.shared, "velocity": step}
        np.add(before[:d], packed.dtype.type(outer.rate) * step, out=packed[:d])
        replica.unpack(packed)
