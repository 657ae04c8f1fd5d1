"""What training a network will do, for its plan: gradients of batches of the rows looked at."""

import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.fitting import Expected
from daskdml.neural_network._lbfgs import GradientOfRows

DRIVER_ROUNDS = 4  # times that the driver waits: y, classes, the ranks and their end
STEPS = 5  # timed, of the parameters
AROUND_SECONDS = 8e-5  # of a step, beside gradients and the step of the parameters itself (measured)


class GradientOfBatches(NamedTuple):
    """The function of a block that computes gradients of its rows, a micro-batch at a time.

    Attributes
    ----------
    network : Network
    theta : ndarray of shape (n_params,)
    n_rows : int
        Of a micro-batch.
    """

    network: Any
    theta: Any
    n_rows: int

    def __call__(self, block):
        network, total = self.network, None
        work = network.workspace(min(block.n_rows, self.n_rows))
        for start in range(0, block.n_rows, self.n_rows):
            rows = slice(start, min(start + self.n_rows, block.n_rows))
            out = np.empty(network.n_params, network.dtype)
            network.gradient(self.theta, block.X[rows], block.y[rows], None, out, work)
            total = out if total is None else np.add(total, out, out=total)
        return total


def expect_training(plan, network, theta, schedule, transform, n_epochs, accumulate):
    """Say what training by batches is expected to do.

    Parameters
    ----------
    plan : Planning
        Whose rows are what the network takes.
    network : Network
    theta : ndarray of shape (n_params,)
    schedule : Schedule
    transform : see `daskdml.solvers.descent`
    n_epochs : int
        At most.
    accumulate : int
        Batches of a step.

    Returns
    -------
    Expected
    """
    sample, fn = plan.sample, GradientOfBatches(network, theta, schedule.micro_rows)
    fn(sample.run.map(_itself)[0])  # loads kernels
    row_seconds = _seconds_per_row(sample.run, fn)
    n_steps = -(-schedule.n_batches // accumulate)
    step_seconds = _seconds_per_step(network, theta, transform)
    beside = theta.nbytes * (2 + 2 * transform.n_moments)
    return Expected(
        DRIVER_ROUNDS, n_epochs, fn, 3 * network.n_decayed, sample.n_samples * row_seconds, theta.nbytes,
        solve_seconds=n_epochs * n_steps * (step_seconds + AROUND_SECONDS), n_reductions=n_steps, each_bytes=beside,
        thread_bytes=2 * theta.nbytes, n_tasks=schedule.n_micro * accumulate, runtimes=("threads", "spmd"),
    )  # fmt: skip


def expect_lbfgs(plan, network, theta, max_iter):
    """Say what L-BFGS is expected to do: a pass for each step, and one more now and then."""
    sample, fn = plan.sample, GradientOfRows(network, theta)
    fn(sample.run.map(_itself)[0])
    return Expected(
        DRIVER_ROUNDS + 1.1 * max_iter, 1.1 * max_iter, fn, 3 * network.n_decayed,
        sample.n_samples * _seconds_per_row(sample.run, fn), 8 * network.n_params,
    )  # fmt: skip


def _itself(block):
    return block


def _seconds_per_row(run, fn):
    blocks = run.map(_itself)
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        for block in blocks:
            fn(block)
        taken.append(time.perf_counter() - started)
    return min(taken) / sum(block.n_rows for block in blocks)


def _seconds_per_step(network, theta, transform):
    """Return the seconds of a step of the parameters, which no thread helps with."""
    moments, theta = [np.zeros_like(theta) for _ in range(transform.n_moments)], theta.copy()
    decay = network.n_decayed, 0.0, 1.0

    def each(n_items, work):
        for i in range(n_items):
            work(i)

    transform.step(theta, theta, moments, 0.0, 1, decay, each)
    started = time.perf_counter()
    for _ in range(STEPS):
        transform.step(theta, theta, moments, 0.0, 1, decay, each)
    return (time.perf_counter() - started) / STEPS
