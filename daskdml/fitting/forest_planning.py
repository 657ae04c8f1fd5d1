"""What trees of a forest will do, for their plan: a few of them grown on the rows looked at."""

import math
import time

import numpy as np

from daskdml.fitting.planning import Expected
from daskdml.programs.timing import TREES, GrowForest
from daskdml.trees import BinRows, Forest
from daskdml.trees.binning import find_bins, sample_rows

WORK = 1000  # of a value, in multiplications: tells how many rows are timed on several threads
DRIVER_ROUNDS = 8  # times that the driver waits: y, classes, the sample, bins, facts of rows, the ranks and their end
NODE_BYTES = 60  # of a tree on its way


def _itself(block):
    return block


def expect_forest(plan, recipe, max_bins, n_trees, seed, encode, row_bytes, thread_bytes):
    """Say what a fit is expected to do.

    Parameters
    ----------
    plan : Planning
        Whose targets are numbers, or numbers of classes.
    recipe : daskdml.trees.Recipe
        For as many rows as are looked at.
    max_bins, n_trees, seed : int
    encode : callable
        Makes a matrix of rows.
    row_bytes, thread_bytes : float
        That each worker needs of every row, and each of its threads beside that.

    Returns
    -------
    Expected
    """
    sample = plan.sample
    p, n, run = sample.n_features, sample.n_samples, sample.run
    started = time.perf_counter()
    bins = find_bins(run, max_bins, np.zeros(p, bool), encode, seed, keeps_values=True)
    most = sample_rows(p, sample.dtype)
    threshold_seconds = (time.perf_counter() - started) * min(n, most) / min(run.n_samples, most)
    work = GrowForest(Forest(recipe, bins, TREES, seed, run.n_samples), BinRows(bins, encode))
    blocks = run.map(_itself)
    work(blocks[0])  # loads kernels
    grown = work.on(blocks)
    more = deeper = n / grown.n_rows
    if recipe.max_depth is None and recipe.max_leaf_nodes is None:
        deeper *= math.log2(n + 1) / math.log2(grown.n_rows + 1)  # as high as leaves are many
    else:
        more = 1.0  # nodes
    tree_seconds, tree_bytes = deeper * grown.tree_seconds / TREES, more * NODE_BYTES * grown.n_nodes / TREES
    return Expected(
        DRIVER_ROUNDS, 1.0, work, WORK * p, n * grown.bin_seconds / grown.n_rows + n_trees * tree_seconds, 0,
        min(n, most), 1.0, solve_seconds=threshold_seconds, kept_row_bytes=0.0,
        each_bytes=round(n * row_bytes + n_trees * tree_bytes), thread_bytes=round(n * thread_bytes),
        met_bytes=round(n * (p + 8) + n_trees * tree_bytes),
        n_tasks=n_trees, runtimes=("threads", "spmd"),
    )  # fmt: skip
