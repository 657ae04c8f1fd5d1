"""What boosting will do, for its plan: a few trees grown on the rows looked at."""

import time

import numpy as np

from daskdml.fitting import Expected
from daskdml.programs.timing import TREES, GrowTrees
from daskdml.trees import Boosting, bytes_per_row
from daskdml.trees.binning import find_bins, sample_rows
from daskdml.trees.grower import LEAVES_A_ROUND

# Of several ranks: leaves divided, those in vain too, for each that is needed (measured: 10 rounds and 33 splits for 31
# leaves); the roots and the leaves are two more rounds.
IN_VAIN = 1.1
WORK = 200  # of a value, in multiplications: tells how many rows are timed on several threads
DRIVER_ROUNDS = 8  # times that the driver waits: y, classes, the sample, bins, facts of rows, the ranks and their end


def _itself(block):
    return block


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
    kept = bins.kept_as(encode, sample.layout)
    work = GrowTrees(boosting, kept.fn)
    blocks = run.map(_itself)
    work(blocks[0])  # loads kernels
    # Together: a histogram of a leaf costs as much as two thousand rows, which a fit pays once for many blocks.
    grown = work.on(blocks)
    row_seconds = grown.row_seconds / grown.n_rows / TREES * n_iter + grown.bin_seconds / grown.n_rows
    splits = max(grown.n_leaves - loss.n_outputs, 1)  # of all trees of an iteration
    n_reductions = IN_VAIN * splits / LEAVES_A_ROUND + 2 * loss.n_outputs
    return Expected(
        DRIVER_ROUNDS, n_iter, work, WORK * p, n * row_seconds / n_iter,
        round(IN_VAIN * splits / n_reductions * 3 * 4 * bins.first[-1]), min(n, most), 1.0,
        solve_seconds=threshold_seconds + n_iter * grown.tree_seconds / TREES,
        kept_row_bytes=bytes_per_row(p, loss.n_outputs, False, kept.n_stored),
        least_row_bytes=bytes_per_row(p, loss.n_outputs, False, kept.n_stored, in_files=True),
        n_reductions=n_reductions, runtimes=("threads", "spmd"),
    )  # fmt: skip
