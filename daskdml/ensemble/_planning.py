"""What boosting will do, for its plan: a few trees grown on the rows looked at."""

import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.fitting import Expected
from daskdml.kernels.growing import N_BINS
from daskdml.runtime.spmd import Comm, Meta
from daskdml.trees import BinRows, Boosting, BoostingState, bytes_per_row
from daskdml.trees.binning import find_bins, sample_rows
from daskdml.trees.grower import SPECULATION

TREES = 2  # grown on the rows: the first leaves most to be gained, the others are like the second
# Of several ranks: rounds of SPECULATION leaves that are not full, and leaves divided in vain, for each that is not
# (measured: 14 rounds and 45 splits for 31 leaves); the roots and the leaves are two more rounds.
NOT_FULL, IN_VAIN = 1.9, 1.5
WORK = 200  # of a value, in multiplications: tells how many rows are timed on several threads
DRIVER_ROUNDS = 8  # times that the driver waits: y, classes, the sample, bins, facts of rows, the ranks and their end


class Grown(NamedTuple):
    """What trees on some rows took.

    Attributes
    ----------
    n_rows, n_leaves : int
    bin_seconds, row_seconds, tree_seconds : float
        Of making bins; of what takes longer the more rows there are; of the rest.
    """

    n_rows: int
    n_leaves: int
    bin_seconds: float
    row_seconds: float
    tree_seconds: float


class GrowTrees(NamedTuple):
    """The function of a block that grows trees on its rows and returns a `Grown`.

    Attributes
    ----------
    boosting : Boosting
    encode : callable
        Makes a matrix of rows.
    """

    boosting: Any
    encode: Any

    def __call__(self, block):
        return self.on([block])

    def on(self, blocks):
        """Grow trees on the rows of several blocks together."""
        started, boosting, n = time.perf_counter(), self.boosting, sum(block.n_rows for block in blocks)
        bin_rows, p = BinRows(boosting.bins, self.encode), len(boosting.bins.thresholds)
        # Without weights: these would have to be told apart as a fit does, and change little.
        binned = [block._replace(X=bin_rows(block.X), weight=None) for block in blocks]
        bin_seconds = time.perf_counter() - started
        shards = boosting.shards(binned, 1, _one_by_one)
        state = BoostingState(np.zeros(boosting.loss.n_outputs))
        boosting.predict(shards, state)
        comm, leaves = Comm(0, 1, 1, Meta(n, p, len(blocks)), None), 0
        for _ in range(TREES):
            state = boosting.iterate(state, shards, comm)
            leaves = sum(tree.n_leaves for tree in state.trees[-1])
        tree_seconds = state.seconds.get("split", 0.0)
        return Grown(n, leaves, bin_seconds, sum(state.seconds.values()) - tree_seconds, tree_seconds)


def _itself(block):
    return block


def _one_by_one(n_items, work):
    for i in range(n_items):
        work(i)


def expect_boosting(plan, loss, settings, max_bins, n_iter, coding, encode, seed):
    """Say what a fit is expected to do.

    Parameters
    ----------
    plan : Planning
        Whose targets are what the loss takes.
    loss, settings : see `daskdml.trees.Boosting`
    max_bins, n_iter : int
    coding : Coding or None
    encode : callable
        Makes a matrix of rows.
    seed : int

    Returns
    -------
    Expected
    """
    sample = plan.sample
    p, n, run = sample.n_features, sample.n_samples, sample.run
    is_categorical, codes = (np.zeros(p, bool), None) if coding is None else (coding.is_categorical, coding.codes)
    started = time.perf_counter()
    bins = find_bins(run, max_bins, is_categorical, encode, seed, categories=codes)
    most = sample_rows(p, sample.dtype)
    threshold_seconds = (time.perf_counter() - started) * min(n, most) / min(run.n_samples, most)
    boosting = Boosting(loss, settings, bins, np.ones(p, bool), run.n_samples, TREES, seed)
    work = GrowTrees(boosting, encode)
    blocks = run.map(_itself)
    work(blocks[0])  # loads kernels
    # Together: a histogram of a leaf costs as much as two thousand rows, which a fit pays once for many blocks.
    grown = work.on(blocks)
    row_seconds = grown.row_seconds / grown.n_rows / TREES * n_iter + grown.bin_seconds / grown.n_rows
    splits = max(grown.n_leaves - loss.n_outputs, 1)  # of all trees of an iteration
    n_reductions = NOT_FULL * splits / SPECULATION + 2 * loss.n_outputs
    return Expected(
        DRIVER_ROUNDS, n_iter, work, WORK * p, n * row_seconds / n_iter,
        round(IN_VAIN * splits / n_reductions * 3 * 4 * N_BINS * p), min(n, most), 1.0,
        solve_seconds=threshold_seconds + n_iter * grown.tree_seconds / TREES,
        kept_row_bytes=bytes_per_row(p, loss.n_outputs, by_columns=False), n_reductions=n_reductions,
        runtimes=("threads", "spmd"),
    )  # fmt: skip
