"""Nodes of a tree as scikit-learn holds them."""

import numpy as np


def sklearn_nodes(tree, n_features, n_classes):
    """Return scikit-learn's ``tree_`` of a tree.

    Parameters
    ----------
    tree : daskdml.trees.Tree
    n_features : int
    n_classes : int
        1 for numbers.

    Returns
    -------
    sklearn.tree._tree.Tree
    """
    from sklearn.tree import DecisionTreeRegressor

    # The class has no public name; what unpickling calls fills it.
    empty = DecisionTreeRegressor().fit([[0.0]], [0.0]).tree_
    kind, dtype = type(empty), empty.__getstate__()["nodes"].dtype
    order, is_leaf = tree.preorder, tree.is_leaf
    nodes = np.zeros(tree.n_nodes, dtype)
    nodes["left_child"][order] = np.where(is_leaf, -1, order[tree.left])
    nodes["right_child"][order] = np.where(is_leaf, -1, order[np.where(is_leaf, 0, tree.left + 1)])
    nodes["feature"][order] = np.where(is_leaf, -2, tree.feature)
    nodes["threshold"][order] = np.where(is_leaf, -2.0, tree.threshold)
    for name, values in (
        ("impurity", tree.impurity), ("n_node_samples", tree.count), ("weighted_n_node_samples", tree.hessian),
        ("missing_go_to_left", tree.missing_left),
    ):  # fmt: skip
        nodes[name][order] = values
    values = np.empty((tree.n_nodes, 1, n_classes))
    values[order, 0] = tree.values(n_classes)
    twin = kind(n_features, np.array([n_classes], np.intp), 1)
    state = {"max_depth": int(tree.depths.max()), "node_count": tree.n_nodes, "nodes": nodes, "values": values}
    twin.__setstate__(state)
    return twin
