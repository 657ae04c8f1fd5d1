"""A grown tree as plain arrays: what a fit keeps, sends and predicts by."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.utils.portable import portable

MISSING = 255  # the bin of NaN, whatever the number of bins


@portable
class Tree(NamedTuple):
    """One tree; node 0 is the root, and the right child of a node stands behind its left child.

    Attributes
    ----------
    feature : ndarray of int32, shape (n_nodes,)
        -1 for leaves.
    bin : ndarray of uint8, shape (n_nodes,)
        Rows whose bin is at most this one go left.
    threshold : ndarray of float64, shape (n_nodes,)
        The same of values: x <= threshold goes left. ``inf`` where all but missing values go left.
    left : ndarray of int32, shape (n_nodes,)
        The left child; ``left + 1`` is the right one. A leaf has itself.
    missing_left : ndarray of bool, shape (n_nodes,)
        Where NaN goes, and categories that the fit did not see.
    categories : ndarray of int32, shape (n_nodes,)
        Which row of ``left_bins`` decides instead of the threshold; -1 for numbers.
    left_bins : ndarray of bool, shape (n_categorical_splits, 256)
        Which bins go left.
    value : ndarray of float64, shape (n_nodes,) or (n_nodes, n_values)
        Of leaves, and what a node would have said as a leaf; shrunk by the learning rate.
    gain : ndarray of float64, shape (n_nodes,)
        By which a split lowers the loss; 0 for leaves.
    count : ndarray of int64, shape (n_nodes,)
        Rows that came here in the fit; integer weights count.
    hessian : ndarray of float64, shape (n_nodes,)
        Sum over these rows; in forests of the weights.
    impurity : ndarray of float64, shape (n_nodes,), or None
        Of the targets of these rows, in forests.
    """

    feature: Any
    bin: Any
    threshold: Any
    left: Any
    missing_left: Any
    categories: Any
    left_bins: Any
    value: Any
    gain: Any
    count: Any
    hessian: Any
    impurity: Any = None

    @property
    def n_nodes(self):
        """Nodes of the tree, leaves included."""
        return len(self.feature)

    @property
    def is_leaf(self):
        """Which nodes are leaves, an ndarray of bool."""
        return self.feature < 0

    @property
    def n_leaves(self):
        """Leaves of the tree."""
        return int(np.count_nonzero(self.feature < 0))

    @property
    def depths(self):
        """Steps from the root to each node, an ndarray of int."""
        depth = np.zeros(self.n_nodes, dtype=np.int64)
        for node in np.flatnonzero(self.feature >= 0):  # children stand behind their parents
            depth[self.left[node] : self.left[node] + 2] = depth[node] + 1
        return depth

    @property
    def preorder(self):
        """The number that scikit-learn gives each node, left subtrees first, an ndarray of int64."""
        order, todo = np.empty(self.n_nodes, np.int64), [0]
        left, is_leaf, count = self.left.tolist(), self.is_leaf.tolist(), 0
        while todo:
            node = todo.pop()
            order[node] = count
            count += 1
            if not is_leaf[node]:
                todo += [left[node] + 1, left[node]]
        return order

    def values(self, n_values):
        """Return what each node says, ndarray (n_nodes, n_values): of two only the second one's share is kept."""
        if n_values == 2 and self.value.ndim == 1:
            return np.column_stack([1 - self.value, self.value])
        return self.value.reshape(self.n_nodes, n_values)
