"""Gossip: the mean stays, and what ranks differ by shrinks at the rate of the ring's second eigenvalue."""

import numpy as np
import pytest

from daskdml.comm import exchange, gossip
from daskdml.comm.gossip import rate


def steps(values, n_steps=1):
    """Return the arrays of all ranks after some steps."""
    for _ in range(n_steps):
        values = exchange([gossip(rank, len(values), x) for rank, x in enumerate(values)])[0]
    return values


def weights(size):
    """Return the matrix of the step, as its definition has it."""
    W = np.zeros((size, size))
    for rank in range(size):
        members = {rank, (rank - 1) % size, (rank + 1) % size}
        W[rank, list(members)] = 1 / len(members)
    return W


@pytest.mark.parametrize("size", range(1, 18))
def test_a_step_is_a_mean_with_the_neighbours(size):
    values = list(np.random.default_rng(size).normal(size=(size, 5)))
    np.testing.assert_allclose(np.array(steps(values)), weights(size) @ values, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 17])
def test_the_mean_stays_and_the_rest_shrinks(size):
    """By the second largest eigenvalue, in size, of the weights; in one direction at just that rate."""
    values, vectors = np.linalg.eigh(weights(size))
    order = np.argsort(np.abs(values))
    assert rate(size) == pytest.approx(abs(values[order[-2]]), abs=1e-12)
    start = list(np.random.default_rng(0).normal(size=(size, 1000)))
    mean, away = np.mean(start, axis=0), np.linalg.norm(start - np.mean(start, axis=0))
    for k in range(1, 6):
        now = np.array(steps(start, k))
        np.testing.assert_allclose(now.mean(axis=0), mean, atol=1e-12)
        assert np.linalg.norm(now - mean) <= rate(size) ** k * away + 1e-9
    slowest = list(vectors[:, order[-2]][:, None])
    if rate(size) > 1e-9:
        assert np.linalg.norm(steps(slowest, 3)) == pytest.approx(rate(size) ** 3, rel=1e-9)


def test_ranks_of_a_group_sum_alone():
    """``members`` of an all-reduce: groups at the same time, of any ranks, by every topology."""
    from daskdml.runtime.spmd import Program
    from daskdml.testing import SimulatedCluster

    class Groups(Program):
        def __init__(self, topology):
            self.topology = topology

        def init(self, meta):
            return None

        def step(self, state, local, comm):
            members = [0, 3, 4] if comm.rank in (0, 3, 4) else [1, 2]
            x = np.full(40, 10.0**comm.rank)
            total = comm.allreduce(x, topology=self.topology, members=members)
            return comm.allgather(total)

        def done(self, state):
            return state is not None

    for topology in ("central", "tree", "ring", "doubling", "halving"):
        found = SimulatedCluster(5, rows_per_block=1).run(Groups(topology), np.zeros((5, 1)))
        assert [set(part.tolist()) for part in found] == [{11001.0}, {110.0}, {110.0}, {11001.0}, {11001.0}]
