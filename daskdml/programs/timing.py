"""What plans time, here and on workers: trees grown on the rows looked at."""

import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.runtime.spmd import Comm, Meta
from daskdml.trees import BoostingState, WholeRows

TREES = 2  # grown on the rows: of boosting the first leaves most to be gained, the others are like the second


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
    bin_rows : callable
        Of rows; see `daskdml.trees.binning.Bins.kept_as`.
    """

    boosting: Any
    bin_rows: Any

    def __call__(self, block):
        return self.on([block])

    def on(self, blocks):
        """Grow trees on the rows of several blocks together."""
        started, boosting, n = time.perf_counter(), self.boosting, sum(block.n_rows for block in blocks)
        bin_rows, p = self.bin_rows, len(boosting.bins.thresholds)
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


def _one_by_one(n_items, work):
    for i in range(n_items):
        work(i)


class GrownWhole(NamedTuple):
    """What trees on some rows took.

    Attributes
    ----------
    n_rows, n_nodes : int
    bin_seconds, tree_seconds : float
    """

    n_rows: int
    n_nodes: int
    bin_seconds: float
    tree_seconds: float


class GrowForest(NamedTuple):
    """The function of a block that grows trees on its rows and returns what they took.

    Attributes
    ----------
    forest : Forest
    bin_rows : callable
        Makes bins of rows.
    """

    forest: Any
    bin_rows: Any

    def __call__(self, block):
        return self.on([block])

    def on(self, blocks):
        """Grow trees on the rows of several blocks together."""
        started, forest, n = time.perf_counter(), self.forest, sum(block.n_rows for block in blocks)
        # Without weights: these would have to be told apart as a fit does, and change little.
        rows, at = WholeRows(n, len(forest.bins.thresholds), forest.recipe.n_classes > 0, False), 0
        for block in blocks:
            rows.put(at, self.bin_rows(block.X), block.y, None)
            at += block.n_rows
        binned = time.perf_counter()
        trees = [forest.grow(number, rows) for number in range(TREES)]
        n_nodes = sum(tree.n_nodes for tree in trees)
        return GrownWhole(n, n_nodes, binned - started, time.perf_counter() - binned)
