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


def check_foreseen(strategy):
    """Refuse strategies of which a plan cannot say what they send.

    Parameters
    ----------
    strategy : object of `daskdml.strategies`

    Raises
    ------
    ValueError
        With what to ask for instead.
    """
    what, instead = "", "strategy=None, which is what gradients cost that are sent as they are"
    if strategy.is_sharded:
        what, instead = "costs", "strategy=None, which is what a model that is not cut into shards costs"
    elif strategy.is_served:
        what = "sends"
    elif strategy.is_local:
        if getattr(strategy, "mixing", None) != "allreduce" or strategy.groups is not None:
            what, instead = "sends", "LocalSGD(mixing='allreduce') without groups"
    elif getattr(strategy, "topology", None) != "auto":
        what, instead = "sends", "topology='auto'"
    elif getattr(strategy.codec(1), "reduce_kind", None) == "gather":
        what = "sends, for every worker gets the packets of all others"
    if what:
        raise ValueError(f"plan cannot say yet what {strategy} {what}; ask with {instead}.")


def expect_training(plan, training, theta):
    """Say what training by batches is expected to do.

    Parameters
    ----------
    plan : Planning
        Whose rows are what the network takes.
    training : Training
    theta : ndarray of shape (n_params,)

    Returns
    -------
    Expected
    """
    network, schedule, transform, strategy = training[:4]
    sample, fn = plan.sample, GradientOfBatches(network, theta, schedule.micro_rows)
    fn(sample.run.map(_itself)[0])  # loads kernels
    row_seconds = _seconds_per_row(sample.run, fn)
    sums = _sums_of(strategy, network, theta, transform.n_moments)
    n_steps, n_exchanges = _per_epoch(training, 1), _per_epoch(training, strategy.batches_per_update)
    n_micro = schedule.n_micro * -(-schedule.n_batches / n_steps)
    step_seconds = _seconds_per_step(network, theta, transform)
    return Expected(
        DRIVER_ROUNDS, training.max_epochs, fn, 3 * network.n_decayed, sample.n_samples * row_seconds,
        round(sum(sums) / len(sums)), solve_seconds=training.max_epochs * n_steps * (step_seconds + AROUND_SECONDS),
        n_reductions=n_exchanges * len(sums), each_bytes=theta.nbytes * (2 + 2 * transform.n_moments),
        thread_bytes=2 * theta.nbytes,
        # A strategy that spreads has a part of every batch for each rank.
        n_tasks=round(n_micro * (schedule.micro_rows if strategy.spreads else 1)), runtimes=("threads", "spmd"),
    )  # fmt: skip


def _per_epoch(training, n_batches):
    """Return how many times so many batches an epoch is, those that grow with epochs as a mean."""
    n, most = training.schedule.n_batches, training.max_epochs
    epochs = range(most) if training.growth > 1 else range(1)
    return sum(-(-n // (n_batches * training.n_merged(epoch))) for epoch in epochs) / len(epochs)


def _sums_of(strategy, network, theta, n_moments):
    """Return the bytes of each sum over ranks that belongs to one exchange."""
    if strategy.is_local:
        return [theta.nbytes * (1 + n_moments)]
    codec = strategy.codec(network.n_decayed, theta.itemsize)
    if codec is None:
        return [theta.nbytes]
    layers, sums = network.coefs(theta) if codec.by_layer else [theta[: network.n_decayed]], []
    for layer in layers:
        if codec.reduce_kind == "sum":
            sums.append(codec.encode(layer, codec.start())[0].nbytes)
        else:
            sums += _sums_of_codes(codec.rounds(layer, codec.start()))
    return [*sums, theta.nbytes - network.n_decayed * theta.itemsize]  # intercepts are sent as they are


def _sums_of_codes(rounds):
    """Return the bytes of each sum that codes are added up in, by adding up those of one rank."""
    found, part = [], None
    while True:
        try:
            part = rounds.send(part)
        except StopIteration:
            return found
        found.append(part.nbytes)


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
