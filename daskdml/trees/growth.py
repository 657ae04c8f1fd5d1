"""What a tree is grown by, and what has grown."""

import math
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import growing
from daskdml.trees.tree import Tree

LEAST_HESSIAN = 1e-3  # scikit-learn's, of each child
LEAF_BITS = 61  # of the sums of leaves


class Settings(NamedTuple):
    """How trees are grown; scikit-learn's names where it has them.

    Attributes
    ----------
    max_leaf_nodes, max_depth : int or None
    min_samples_leaf : int
    l2_regularization, learning_rate : float
    max_features : float
        Share of the features that are tried at each node.
    monotonic_cst : ndarray of int, shape (p,), or None
    interaction_cst : tuple of tuple of int, or None
    least_hessian : float
    """

    max_leaf_nodes: Any = 31
    max_depth: Any = None
    min_samples_leaf: int = 20
    l2_regularization: float = 0.0
    learning_rate: float = 1.0
    max_features: float = 1.0
    monotonic_cst: Any = None
    interaction_cst: Any = None
    least_hessian: float = LEAST_HESSIAN


class Steps(NamedTuple):
    """Of the integers that stand for gradients and hessians.

    Attributes
    ----------
    scales : tuple of two floats
        Steps per unit in histograms.
    leaf_scales : tuple of two floats
        In the sums of leaves.
    most : int
        Entries that a packed histogram holds.
    most_narrow : int
        Rows, as often as they count, whose sums are below 2**32.
    """

    scales: tuple
    leaf_scales: tuple
    most: int
    most_narrow: int

    @classmethod
    def of(cls, largest, n_rows, bits, most_times=1, is_constant=False):
        """Choose steps for gradients and hessians up to ``largest``, a pair.

        Powers of two, so that no step is rounded: ``bits`` bits for the hessian, and as many, with the sign, for the
        gradient. ``n_rows`` counts rows as often as they count, ``most_times`` at most each.
        """
        exponents = [math.frexp(value)[1] if value > 0 else 0 for value in largest]
        g, h = (2.0 ** min(max(-e, -900), 900) for e in exponents)
        room = 2.0 ** (LEAF_BITS - max(n_rows, 1).bit_length())
        scales = g * 2 ** (bits - 1), 1.0 if is_constant else h * 2**bits
        # A sum of that many numbers of 2**bits, each taken so many times, must stay below its field's end.
        largest_number = 2 ** (bits - 1) if is_constant else 2**bits
        most = ((1 << growing.FIELD_BITS) - 1) // (largest_number * most_times)
        leaf_scales = g * room, 1.0 if is_constant else h * room
        return cls(scales, leaf_scales, min(most, growing.COUNT_MOST // most_times), (1 << (32 - bits)) - 1)


class Growth:
    """A tree that has been grown: its nodes, in the order in which the tree has them.

    Attributes
    ----------
    leaves : ndarray of int64
        Numbers that the shards know leaves by.
    """

    def __init__(self, nodes, numbers, split, leaves, k):
        self._nodes, self._numbers, self._split, self.leaves, self.k = nodes, numbers, split, leaves, k

    @property
    def is_stump(self):
        """Whether the root is a leaf."""
        return len(self._nodes) == 1

    def bounds(self):
        """Return lower and upper bounds of the leaves' values."""
        leaves = [node for node in self._nodes if node.number not in self._split]
        return np.array([node.lower for node in leaves]), np.array([node.upper for node in leaves])

    def monotone(self, values, senses):
        """Return the values of leaves, clipped so that they keep monotonic constraints.

        Where the sides of a constrained split meet, from the root down, lies the middle of the means of what is below
        each side: as bounds of Newton steps are found, for values that are no such steps.

        Parameters
        ----------
        values : ndarray of float64
        senses : ndarray of int, shape (p,)
            -1, 0 or 1.
        """
        nodes, n = self._nodes, len(self._nodes)
        is_leaf = np.array([node.number not in self._split for node in nodes])
        leaves, means, low, high = np.flatnonzero(is_leaf), np.zeros(n), np.full(n, -np.inf), np.full(n, np.inf)
        means[leaves] = values
        inner = [(i, *(self._numbers[child.number] for child in nodes[i].children)) for i in np.flatnonzero(~is_leaf)]
        for i, left, right in reversed(inner):  # children stand behind their parents
            of_left, of_both = nodes[left].totals[2], nodes[i].totals[2]
            means[i] = means[right] + (means[left] - means[right]) * (of_left / of_both)
        for i, left, right in inner:
            low[[left, right]], high[[left, right]] = low[i], high[i]
            sense = senses[nodes[i].found[0]]
            if sense:
                below, above = (left, right) if sense > 0 else (right, left)
                high[below] = low[above] = min(max((means[left] + means[right]) / 2, low[i]), high[i])
        return np.clip(values, low[leaves], high[leaves])

    def tree(self, values, steps, thresholds, learning_rate):
        """Return the `Tree`.

        Parameters
        ----------
        values : ndarray of float64
            Of the leaves, shrunk.
        steps : Steps
        thresholds : list of ndarray
            Of each feature, by bin.
        learning_rate : float
        """
        nodes, n = self._nodes, len(self._nodes)
        is_split = np.array([node.number in self._split for node in nodes])
        feature, bins = np.full(n, -1, np.int32), np.zeros(n, np.uint8)
        threshold, left = np.full(n, np.inf), np.arange(n, dtype=np.int32)
        missing_left, categories = np.zeros(n, bool), np.full(n, -1, np.int32)
        value = np.array([learning_rate * node.value for node in nodes])
        value[~is_split] = values
        left_bins = []
        for i in np.flatnonzero(is_split):
            node = nodes[i]
            f, b, goes_left = node.found[:3]
            feature[i], missing_left[i] = f, goes_left
            left[i] = self._numbers[node.children[0].number]
            if b < 0:
                categories[i] = len(left_bins)
                left_bins.append(node.left_bins.astype(bool))
            else:
                bins[i] = b
                threshold[i] = thresholds[f][b] if b < len(thresholds[f]) else np.inf
        return Tree(
            feature, bins, threshold, left, missing_left, categories,
            np.array(left_bins, bool).reshape(len(left_bins), growing.N_BINS), value,
            np.where(is_split, [node.gain for node in nodes], 0.0),
            np.array([node.totals[2] for node in nodes], np.int64),
            np.array([node.totals[1] / steps.scales[1] for node in nodes]),
        )  # fmt: skip
