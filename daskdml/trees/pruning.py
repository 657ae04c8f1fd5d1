"""Minimal cost-complexity pruning: nodes whose splits lower the impurity least become leaves again."""

import heapq

import numpy as np


def pruned(tree, alpha):
    """Return the smallest subtree whose total impurity of leaves plus ``alpha`` a leaf is least.

    Parameters
    ----------
    tree : daskdml.trees.Tree
        With impurities.
    alpha : float

    Returns
    -------
    Tree

    Notes
    -----
    The weakest link is cut again and again while it costs less than alpha (Breiman et al. 1984, section 3.3;
    scikit-learn's ``ccp_alpha``).
    """
    keep = np.ones(tree.n_nodes, bool)
    for node, weakest in _links(tree):
        if weakest > alpha:
            break
        keep[_below(tree, node)] = False
    return _kept(tree, keep)


def pruning_path(tree):
    """Return the effective alphas at which nodes become leaves, and the total impurity of leaves after each.

    Parameters
    ----------
    tree : daskdml.trees.Tree

    Returns
    -------
    alphas, impurities : ndarray of float64
    """
    impurity = tree.impurity * tree.hessian / tree.hessian[0]
    total = float(impurity[tree.is_leaf].sum())
    alphas, totals = [0.0], [total]
    alive = tree.is_leaf.copy()  # leaves of the subtree so far
    for node, weakest in _links(tree):
        inside = _below(tree, node)
        total += impurity[node] - impurity[inside][alive[inside]].sum()
        alive[inside], alive[node] = False, True
        alphas.append(weakest)
        totals.append(total)
    return np.array(alphas), np.array(totals)


def _links(tree):
    """Yield the inner nodes in the order in which they are cut, and the alpha of each."""
    impurity = (tree.impurity * tree.hessian / tree.hessian[0]).tolist()
    left, is_leaf = tree.left.tolist(), tree.is_leaf.tolist()
    n = tree.n_nodes
    parent, below, n_leaves = [-1] * n, list(impurity), [1] * n
    for node in range(n - 1, -1, -1):  # children stand behind their parents
        if not is_leaf[node]:
            l, r = left[node], left[node] + 1
            parent[l] = parent[r] = node
            below[node], n_leaves[node] = below[l] + below[r], n_leaves[l] + n_leaves[r]
    alpha = [(impurity[i] - below[i]) / (n_leaves[i] - 1) if n_leaves[i] > 1 else np.inf for i in range(n)]
    heap = [(alpha[i], i) for i in range(n) if n_leaves[i] > 1]
    heapq.heapify(heap)
    gone = [False] * n
    while heap:
        weakest, node = heapq.heappop(heap)
        if gone[node] or weakest != alpha[node]:
            continue  # cut off with a node above it, or its alpha has changed since
        yield node, weakest
        for inner in _below(tree, node).tolist():
            gone[inner] = True
        gone[node] = True
        less, fewer = impurity[node] - below[node], n_leaves[node] - 1
        above = parent[node]
        while above >= 0:
            below[above] += less
            n_leaves[above] -= fewer
            alpha[above] = (impurity[above] - below[above]) / (n_leaves[above] - 1) if n_leaves[above] > 1 else np.inf
            if n_leaves[above] > 1:
                heapq.heappush(heap, (alpha[above], above))
            above = parent[above]


def _below(tree, node):
    """Return the nodes of a subtree, its root left out."""
    found, todo = [], [node]
    while todo:
        top = todo.pop()
        if tree.feature[top] >= 0:
            found += [tree.left[top], tree.left[top] + 1]
            todo += found[-2:]
    return np.array(found, np.int64)


def _kept(tree, keep):
    """Return a tree without the nodes that are not kept; nodes that lose their children become leaves."""
    numbers = np.cumsum(keep) - 1
    inner = (tree.feature >= 0) & keep[np.where(tree.feature >= 0, tree.left, 0)]
    inner &= keep
    left = np.where(inner, numbers[np.where(inner, tree.left, 0)], numbers)
    changed = tree._replace(
        feature=np.where(inner, tree.feature, -1).astype(np.int32), left=left.astype(np.int32),
        threshold=np.where(inner, tree.threshold, np.inf), gain=np.where(inner, tree.gain, 0.0),
        missing_left=tree.missing_left & inner,
    )  # fmt: skip
    names = [name for name in tree._fields if name != "left_bins"]
    return changed._replace(**{name: getattr(changed, name)[keep] for name in names})
