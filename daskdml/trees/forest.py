"""Trees of a forest: each grown whole by one thread, on all rows of all ranks.

The bins of a row are a byte a feature, so the rows of all ranks fit where their values do not: every rank is given
them once, and trees are shared out. A tree hangs on its number, the seed and the rows, not on who grows it.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import binning, forest, traverse
from daskdml.kernels import forest_splits as splits
from daskdml.trees.predictor import Ensemble, lay_out_trees
from daskdml.trees.pruning import pruned
from daskdml.trees.tree import MISSING, Tree
from daskdml.utils.portable import portable
from daskdml.utils.random import row_hash

TREES_PER_THREAD = 4  # a step: its threads seldom wait for each other, and a death costs few trees
CRITERIA = {
    "gini": splits.GINI, "entropy": splits.ENTROPY, "log_loss": splits.ENTROPY, "squared_error": splits.SQUARED,
    # Of one node it ranks splits as squared_error does: W_left W_right (mean_left - mean_right)^2, by other factors.
    "friedman_mse": splits.SQUARED, "poisson": splits.POISSON,
}  # fmt: skip
_TREE_STREAM = 31
_SUM_BITS = 61
_MOST_TIMES = 20  # that a row is drawn: more has a chance of 2e-20 a row
_SLAB = 4096  # rows whose leaves are looked up at once
_NO_LABELS, _NO_VALUES, _NO_CHANCES = np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint64)


class Recipe(NamedTuple):
    """How trees are grown; scikit-learn's names where it has them.

    Attributes
    ----------
    criterion : str
    n_classes : int
        0 for numbers.
    max_features : int
    max_depth, max_leaf_nodes : int or None
    min_samples_split, min_samples_leaf : int
    min_weight_fraction_leaf, min_impurity_decrease, ccp_alpha : float
    is_random : bool
        Whether thresholds are drawn.
    monotonic_cst : ndarray of int, shape (p,), or None
    draws : float or None
        How often a row is drawn for a tree, on average; None for each row once.
    is_balanced : bool
        Whether classes weigh the same in each tree.
    class_weight : ndarray of shape (n_classes,), or None
    """

    criterion: str
    n_classes: int
    max_features: int
    max_depth: Any = None
    max_leaf_nodes: Any = None
    min_samples_split: int = 2
    min_samples_leaf: int = 1
    min_weight_fraction_leaf: float = 0.0
    min_impurity_decrease: float = 0.0
    ccp_alpha: float = 0.0
    is_random: bool = False
    monotonic_cst: Any = None
    draws: Any = None
    is_balanced: bool = False
    class_weight: Any = None


class WholeRows:
    """The rows of all ranks, by features.

    Parameters
    ----------
    n_rows, n_features : int
    by_class : bool
    has_weight : bool
    """

    def __init__(self, n_rows, n_features, by_class, has_weight):
        self.columns = np.empty((n_features, n_rows), np.uint8)
        self.label = np.empty(n_rows, np.int64) if by_class else _NO_LABELS
        self.value = _NO_VALUES if by_class else np.empty(n_rows)
        self.weight = np.empty(n_rows) if has_weight else _NO_VALUES

    def __len__(self):
        return self.columns.shape[1]

    def put(self, start, bins, y, weight):
        """Write rows from number ``start`` on.

        Parameters
        ----------
        start : int
        bins : ndarray of uint8, shape (n, at least p), C order
        y : ndarray of shape (n,)
        weight : ndarray of shape (n,) or None
        """
        stop = start + len(bins)
        columns = np.empty((len(self.columns), len(bins)), np.uint8)
        binning.transpose(bins, columns)
        self.columns[:, start:stop] = columns
        (self.label if self.label.size else self.value)[start:stop] = y
        if self.weight.size:
            self.weight[start:stop] = 1.0 if weight is None else weight

    def take(self, start, stop):
        """Return rows as `put` takes them, for another rank: columns, y, weight."""
        y = self.label if self.label.size else self.value
        return self.columns[:, start:stop], y[start:stop], self.weight[start:stop]


@portable
class ForestState(NamedTuple):
    """What a forest has come to.

    Attributes
    ----------
    trees : tuple of Tree
    oob : tuple of two ndarrays, or None
        Of each row: the mean of the trees that did not see it, (n, n_values), nan where there is none; and y.
    seconds : dict of str to float
        What phases have taken on the rank that says so.
    n_rounds, bytes_sent : int
    """

    trees: tuple = ()
    oob: Any = None
    seconds: Any = None
    n_rounds: int = 0
    bytes_sent: int = 0


class Forest(NamedTuple):
    """What is grown.

    Attributes
    ----------
    recipe : Recipe
    bins : daskdml.trees.binning.Bins
    n_trees : int
    seed : int
    n_counted : int
        Rows, as often as they count where weights are whole.
    most_weight : float
        The largest weight of a row.
    is_whole : bool
        Whether weights are small whole numbers.
    wants_oob : bool
    """

    recipe: Recipe
    bins: Any
    n_trees: int
    seed: int
    n_counted: int
    most_weight: float = 1.0
    is_whole: bool = True
    wants_oob: bool = False

    def is_done(self, state):
        """Tell whether the forest is grown."""
        return len(state.trees) >= self.n_trees and (state.oob is not None or not self.wants_oob)

    def key(self, number):
        """Return what everything drawn for a tree hangs on."""
        return int(row_hash(self.seed, _TREE_STREAM, [number])[0])

    @property
    def chances(self):
        """Of a row to be drawn at most 0, 1, ... times, in units of 2**-53: the Poisson distribution's."""
        if self.recipe.draws is None:
            return _NO_CHANCES
        rate = self.recipe.draws
        parts = [math.exp(-rate) * rate**k / math.factorial(k) for k in range(_MOST_TIMES)]
        return np.minimum(np.cumsum(parts) * 2.0**53, 2.0**53).astype(np.uint64)

    def times(self, number, n_rows):
        """Return how often a tree of that number sees each of so many rows, ndarray of int64."""
        return forest.draws(0, n_rows, self.key(number), self.chances)

    def _scale(self, most_weight, is_whole):
        """Return steps per unit of weight: one, or a power of two that no sum overflows."""
        room = _SUM_BITS - max(self.n_counted, 1).bit_length() - (0 if self.recipe.draws is None else 3)
        return 1.0 if is_whole else math.ldexp(1.0, min(room - math.frexp(most_weight)[1], 1000))

    def grow(self, number, rows, took=None):
        """Return the tree of a number.

        Parameters
        ----------
        number : int
        rows : WholeRows
        took : ndarray of int64, shape (2,), optional
            See `daskdml.kernels.forest.grow`.

        Returns
        -------
        Tree
        """
        recipe, key, n, chances = self.recipe, self.key(number), len(rows), self.chances
        weight, most, is_whole = self._row_weights(rows, key, chances)
        scale = self._scale(most, is_whole)
        chosen, a, b = np.empty(n, np.uint32), np.empty(n, np.int64), np.empty(n, np.int64)
        m = forest.choose_rows(0, key, chances, rows.label, weight, n, scale, chosen, a, b)
        if m == 0:  # of few rows a tree may draw none: it has one of them, which its key chooses, instead
            m = forest.choose_rows(0, key, _NO_CHANCES, rows.label, weight, n, scale, chosen, a, b)
            one = key % m
            chosen[0], a[0], b[0], m = chosen[one], a[one], b[one], 1
        n_channels = recipe.n_classes or 2
        none = (-1 if limit is None else limit for limit in (recipe.max_depth, recipe.max_leaf_nodes))
        max_depth, max_leaves = none
        ints = [
            CRITERIA[recipe.criterion], n_channels, recipe.max_features, max_depth, recipe.min_samples_split,
            recipe.min_samples_leaf, max_leaves, recipe.is_random, recipe.min_samples_leaf > 1, is_whole,
        ]  # fmt: skip
        floats = [
            1 / scale, 1 / scale, recipe.min_weight_fraction_leaf, recipe.min_impurity_decrease or -np.inf
        ]  # fmt: skip
        senses = _NO_LABELS if recipe.monotonic_cst is None else recipe.monotonic_cst
        points = _points(self.bins) if recipe.is_random else np.empty((len(rows.columns), 0))
        nodes, facts, sums = forest.grow(
            rows.columns, self.bins.n_bins, points, senses, chosen[:m], a[:m], b[:m], rows.value, key, ints, floats,
            took,
        )  # fmt: skip
        return self._tree(nodes, facts, sums, scale)

    def _row_weights(self, rows, key, chances):
        """Return the weights of rows, (0,) for ones, the largest of them, and whether all are small whole numbers."""
        recipe, weight = self.recipe, rows.weight
        by_class = recipe.class_weight
        if recipe.is_balanced:
            times = forest.draws(0, len(rows), key, chances).astype(np.float64)
            of_class = np.bincount(rows.label, times * weight if weight.size else times, recipe.n_classes)
            by_class = of_class.sum() / (recipe.n_classes * np.maximum(of_class, 1e-300))
            by_class[of_class == 0] = 1.0
        if by_class is None:
            return weight, self.most_weight, self.is_whole
        factor = np.asarray(by_class, np.float64)[rows.label]
        return (factor * weight if weight.size else factor), self.most_weight * float(np.max(by_class)), False

    def _tree(self, nodes, facts, sums, scale):
        recipe, n = self.recipe, len(nodes)
        feature = nodes[:, splits.FEATURE].astype(np.int32)
        inner = feature >= 0
        bins, threshold = self._thresholds(nodes, facts)
        if recipe.n_classes:
            weight = sums.sum(axis=1) / scale
            share = sums / sums.sum(axis=1, keepdims=True)
            if recipe.criterion == "gini":
                impurity = 1 - (share**2).sum(axis=1)
            else:
                impurity = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=1)
            value = share[:, -1] if recipe.n_classes <= 2 else share
        else:
            weight, value, impurity = sums[:, 1] / scale, facts[:, splits.VALUE], facts[:, splits.IMPURITY]
        if recipe.monotonic_cst is not None:
            value = np.clip(value, facts[:, splits.LOWER], facts[:, splits.UPPER])
        tree = Tree(
            feature, bins, threshold, np.where(inner, nodes[:, splits.LEFT], np.arange(n)).astype(np.int32),
            inner & (nodes[:, splits.MISSING_LEFT] == 1), np.full(n, -1, np.int32), np.zeros((0, splits.N_BINS), bool),
            np.ascontiguousarray(value), np.where(inner, facts[:, splits.GAIN], 0.0),
            nodes[:, splits.STOP] - nodes[:, splits.START], weight, impurity,
        )  # fmt: skip
        return pruned(tree, recipe.ccp_alpha) if recipe.ccp_alpha > 0 else tree

    def _thresholds(self, nodes, facts):
        """Return bin and threshold of each node: midway between the values of its own rows, where these are known."""
        n, all_bins = len(nodes), self.bins
        bins, threshold = np.zeros(n, np.uint8), np.full(n, np.inf)
        feature = nodes[:, splits.FEATURE]
        for f in np.unique(feature[feature >= 0]):
            own = np.flatnonzero(feature == f)
            last, after = nodes[own, splits.BIN], nodes[own, splits.NEXT]
            edges, values = np.append(all_bins.thresholds[f], np.inf), all_bins.values[f]
            only_missing = after < 0
            drawn = facts[own, splits.THRESHOLD]
            if values is not None:
                below, above = values[last], values[np.where(only_missing, last, after)]
                middle = below / 2 + above / 2  # as scikit-learn
                middle = np.where((middle == above) | ~np.isfinite(middle), below, middle)
                middle = np.where(np.isnan(drawn), middle, drawn)
                bins[own], threshold[own] = np.searchsorted(values, middle, side="right") - 1, middle
            else:
                between = np.where(np.isnan(drawn), (last + after - 1) // 2, last)
                between = np.clip(between, 0, len(edges) - 1)
                bins[own], threshold[own] = between, edges[between]
            bins[own[only_missing]], threshold[own[only_missing]] = MISSING - 1, np.inf
        return bins, threshold

    def out_of_bag(self, trees, plans, rows, start, stop):
        """Return the means of what trees say of the rows that they did not see.

        Parameters
        ----------
        trees : sequence of Tree
        plans : list
            Of each tree; see `lay_out_binned`.
        rows : WholeRows
        start, stop : int
            Rows to look at.

        Returns
        -------
        ndarray of float64, shape (stop - start, n_values)
            nan where every tree saw the row.
        """
        chances = self.chances
        bins = rows.columns[:, start:stop].T
        n_values = max(self.recipe.n_classes, 1)
        sums, times = np.zeros((stop - start, n_values)), np.zeros(stop - start, np.int64)
        for number, (tree, plan) in enumerate(zip(trees, plans)):
            leaves = np.empty((stop - start, 1), np.int32)
            traverse.find_leaves(bins, plan, 0, 1, leaves)
            unseen = forest.draws(start, stop - start, self.key(number), chances) == 0
            # The only row of a tree may be one that it did not draw.
            unseen &= tree.count[0] > 1
            sums[unseen] += tree.values(n_values)[leaves[unseen, 0]]
            times += unseen
        return sums / np.where(times == 0, np.nan, times)[:, None]


def _points(bins):
    """Return what stands for the values of each bin, ascending: the values, or the upper edges."""
    table = np.zeros((len(bins.thresholds), splits.N_BINS))
    for f, (edges, values) in enumerate(zip(bins.thresholds, bins.values)):
        points = values
        if values is None:
            width = edges[-1] - edges[-2] if len(edges) > 1 else 1.0
            points = np.append(edges, edges[-1] + width if len(edges) else 0.0)
        table[f, : len(points)] = points
        table[f, len(points) :] = points[-1] if len(points) else 0.0
    return table


def lay_out_binned(tree):
    """Return a tree as it is walked with bins, for `Forest.out_of_bag`."""
    return lay_out_trees([_one_value(tree)], np.dtype(np.uint8))


def _one_value(tree):
    return tree if tree.value.ndim == 1 else tree._replace(value=np.zeros(len(tree.value)))


class MeanOfTrees:
    """The mean of what trees say of a row.

    Parameters
    ----------
    trees : sequence of Tree
    n_values : int
        Columns of what is said: classes, or 1.

    Attributes
    ----------
    twins : list or None
        The trees as scikit-learn's, once somebody has asked for them; not saved.
    """

    def __init__(self, trees, n_values):
        self.trees, self.n_values, self.twins = tuple(trees), n_values, None
        self._ensemble = Ensemble([(_one_value(tree),) for tree in self.trees], 1, np.zeros(1))

    def __getstate__(self):
        return {**vars(self), "twins": None}

    @functools.cached_property
    def preorders(self):
        """Of each tree the numbers that scikit-learn gives its nodes."""
        return [tree.preorder for tree in self.trees]

    def mean(self, X):
        """Return the means, ndarray of float64 of shape (n, n_values); one thread.

        Parameters
        ----------
        X : ndarray of shape (n, p) or CSR matrix
        """
        if self.n_values <= 2:
            second = self._ensemble.raw(X) / len(self.trees)
            return second[:, None] if self.n_values == 1 else np.column_stack([1 - second, second])
        out = np.zeros((X.shape[0], self.n_values))
        for start in range(0, X.shape[0], _SLAB):
            leaves = self.leaves(X[start : start + _SLAB])
            for t, tree in enumerate(self.trees):
                out[start : start + _SLAB] += tree.value[leaves[:, t]]
        return out / len(self.trees)

    def leaves(self, X):
        """Return which leaf of each tree a row ends in, ndarray of int32 of shape (n, n_trees)."""
        return self._ensemble.leaves(X)

    def importances(self, n_features):
        """Return the mean over trees of the share of each feature in what splits lower the impurity by."""
        total, n_trees = np.zeros(n_features), 0
        for tree in self.trees:
            inner = ~tree.is_leaf
            own = np.bincount(tree.feature[inner], tree.gain[inner], n_features)
            if tree.n_nodes > 1:  # as scikit-learn: a tree without a split has no say
                n_trees += 1
                total += own / own.sum() if own.sum() > 0 else own
        return total / total.sum() if n_trees and total.sum() > 0 else total
