"""Raw values from trees: the arrays that `daskdml.kernels.traverse` walks, and the model that holds them."""

import heapq

import numpy as np

from daskdml.kernels import leaf_bits, traverse
from daskdml.trees.binning import round_down
from daskdml.trees.tree import MISSING

_CSR_BYTES = 16_000_000  # of dense rows made of a sparse block at once
# Bytes of thresholds of trees that go by bits to the last node; of larger ones only the top does. One core of Zen 4,
# 255 leaves, float32: 8.6 nanoseconds a row and tree all by bits, 12 with only the top, 26 by steps.
_WHOLE = 1024
_READ = (np.dtype(np.float32), np.dtype(np.float64))
_ALL = 2**leaf_bits.PIECE - 1


class Ensemble:
    """Sum the values of trees: ``raw[i, k] = baseline[k] + sum_t trees[t][k].value[leaf of row i]``.

    Additions are done in float64, in the order baseline, iteration 0, iteration 1 and so on: a row gets the same bits
    in any batch, layout and thread.

    Parameters
    ----------
    trees : sequence of tuples of `daskdml.trees.tree.Tree`
        One tuple an iteration, one tree an output.
    n_outputs : int
    baseline : ndarray of shape (n_outputs,)
    code_bins : sequence of ndarray of int or None, or None
        For each feature that holds categories the bin of each code, at most 256; bins outside 0 to 254 are unknown.
        A value that is no code (NaN, negative, no integer, too large) or of an unknown one is missing.

    Examples
    --------
    One split, ``x <= 0.5``, whose left side gets -1 and right side 1; missing values go left.

    >>> from daskdml.trees.tree import Tree
    >>> tree = Tree(
    ...     feature=np.array([0, -1, -1]), bin=np.zeros(3, np.uint8), threshold=np.array([0.5, np.inf, np.inf]),
    ...     left=np.array([1, 1, 2]), missing_left=np.array([True, False, False]), categories=np.full(3, -1),
    ...     left_bins=np.zeros((0, 256), bool), value=np.array([0.0, -1, 1]), gain=np.array([1.0, 0, 0]),
    ...     count=np.array([4, 2, 2]), hessian=np.array([4.0, 2, 2]),
    ... )
    >>> model = Ensemble([(tree,), (tree,)], 1, np.array([0.25]))
    >>> model.raw(np.array([[0.0], [1.0], [np.nan]]))
    array([-1.75,  2.25, -1.75])
    >>> model.leaves(np.array([[0.0], [1.0]]))
    array([[1, 1],
           [2, 2]], dtype=int32)
    """

    def __init__(self, trees, n_outputs, baseline, code_bins=None):
        self.trees = tuple(tuple(iteration) for iteration in trees)
        self.n_outputs = int(n_outputs)
        self.baseline = np.array(baseline, dtype=np.float64).reshape(self.n_outputs)
        self.code_bins = code_bins
        self._plans = {}
        self._n_features = None

    def __getstate__(self):
        # Plans are twice as large as the trees, and made in milliseconds.
        return {**self.__dict__, "_plans": {}}

    def __repr__(self):
        return f"Ensemble({len(self.trees)} iterations, {self.n_outputs} outputs)"

    @property
    def n_trees(self):
        """Trees of all iterations and outputs."""
        return len(self.trees) * self.n_outputs

    @property
    def features(self):
        """Features that the trees read, ascending, an ndarray of int64."""
        found = np.unique(np.concatenate([[-1], *(tree.feature for iteration in self.trees for tree in iteration)]))
        return found[1:].astype(np.int64)

    def raw(self, X):
        """Return the raw values of rows.

        One thread; 100 trees of 31 leaves take 0.15 microseconds a row of 28 float32 values, or 5 for a single row.

        Parameters
        ----------
        X : ndarray of shape (n, p), any layout, or scipy CSR matrix
            float32 and float64 are read where they are; other dtypes are converted.

        Returns
        -------
        ndarray of shape (n,) for one output, else (n, n_outputs), float64
        """
        out = np.empty((X.shape[0], self.n_outputs))
        out[:] = self.baseline
        if self.trees:
            self._each_slab(traverse.add_trees, X, 0, self.n_trees, out)
        return out[:, 0] if self.n_outputs == 1 else out

    def staged_raw(self, X):
        """Yield the raw values after each iteration.

        Parameters
        ----------
        X : ndarray or scipy CSR matrix
            See `raw`.

        Yields
        ------
        ndarray of shape (n,) for one output, else (n, n_outputs), float64
        """
        out = np.empty((X.shape[0], self.n_outputs))
        out[:] = self.baseline
        for first in range(0, self.n_trees, self.n_outputs):
            self._each_slab(traverse.add_trees, X, first, first + self.n_outputs, out)
            yield out[:, 0].copy() if self.n_outputs == 1 else out.copy()

    def leaves(self, X):
        """Return which leaf of each tree a row ends in.

        Parameters
        ----------
        X : ndarray or scipy CSR matrix
            See `raw`.

        Returns
        -------
        ndarray of shape (n, n_trees), int32
            Places in the arrays of the tree; the outputs of an iteration stand side by side.
        """
        out = np.empty((X.shape[0], self.n_trees), dtype=np.int32)
        if out.size:
            self._each_slab(traverse.find_leaves, X, 0, self.n_trees, out)
        return out

    def add_binned(self, bins, raw, first=0):
        """Add iterations ``first`` and later to raw values of rows that are given as bins.

        Parameters
        ----------
        bins : ndarray of shape (n, >= n_features), uint8
        raw : ndarray of shape (n,) or (n, n_outputs), float64, C order
            Changed in place.
        first : int

        Raises
        ------
        ValueError
            If ``raw`` cannot be changed in place or has another shape.
        """
        shape = (bins.shape[0], self.n_outputs)
        fits = raw.shape == shape or (raw.shape == shape[:1] and self.n_outputs == 1)
        if not fits or raw.dtype != np.float64 or not raw.flags.c_contiguous:
            found = f"raw is {raw.dtype} of shape {raw.shape}"
            raise ValueError(f"{found}; it must be float64 of shape {shape}, in C order.")
        if bins.dtype != np.uint8:
            raise ValueError(f"bins are {bins.dtype}; they must be uint8.")
        if first >= len(self.trees) or not raw.size:
            return
        # Laid out alone: while a model grows, its earlier trees are not wanted again.
        plan = self._plans.get((bins.dtype, first))
        if plan is None:
            trees = [tree for iteration in self.trees[first:] for tree in iteration]
            plan = self._plans[bins.dtype, first] = lay_out_trees(trees, bins.dtype)
        self._check_width(bins)
        traverse.add_trees(bins, plan, 0, len(plan.trees), raw.reshape(shape))

    def _each_slab(self, kernel, X, first, last, out):
        if hasattr(X, "indptr"):
            rows = max(1, _CSR_BYTES // max(1, X.shape[1] * X.dtype.itemsize))
            for start in range(0, X.shape[0], rows):
                dense = X[start : start + rows].toarray()
                self._each_slab(kernel, dense, first, last, out[start : start + rows])
            return
        if X.dtype not in self._plans or not X.flags.aligned:
            if X.dtype not in _READ or not X.flags.aligned:
                X = np.array(X, dtype=np.float32 if X.dtype in (np.float16, np.float32) else np.float64)
            if X.dtype not in self._plans:
                trees = [tree for iteration in self.trees for tree in iteration]
                # Two threads may do it twice, with equal results.
                self._plans[X.dtype] = lay_out_trees(trees, X.dtype, self.code_bins)
        self._check_width(X)
        kernel(X, self._plans[X.dtype], first, last, out)

    def _check_width(self, X):
        if self._n_features is None:
            self._n_features = 1 + max(int(tree.feature.max()) for iteration in self.trees for tree in iteration)
        # The kernel does not look where its columns end.
        if X.shape[1] < self._n_features:
            raise ValueError(f"X has {X.shape[1]} features, but the trees read {self._n_features}.")


def lay_out_trees(trees, dtype, code_bins=None):
    """Lay trees out for rows of one dtype.

    Parameters
    ----------
    trees : list of `daskdml.trees.tree.Tree`
    dtype : float32 or float64 for values, uint8 for bins
    code_bins : sequence
        See `Ensemble`; for values only.

    Returns
    -------
    daskdml.kernels.traverse.Plan

    Raises
    ------
    ValueError
        If a split is by categories and the codes of its feature are not given.
    """
    n_nodes = [tree.n_nodes for tree in trees]
    roots = np.cumsum([0, *n_nodes[:-1]])
    first_sets = np.cumsum([0, *(len(tree.left_bins) for tree in trees[:-1])])
    feature = _join(trees, "feature")
    inner = feature >= 0
    by_set = inner & (_join(trees, "categories") >= 0)
    columns, coded = np.unique(feature[inner & ~by_set]), np.unique(feature[by_set])
    missing_left = _join(trees, "missing_left").astype(bool)
    nodes = np.zeros(len(feature), dtype=traverse.node_type(dtype))
    bins = dtype == np.uint8
    nodes["threshold"] = _join(trees, "bin") if bins else round_down(_join(trees, "threshold"), dtype)
    place = np.where(by_set, np.searchsorted(coded, feature), np.searchsorted(columns, feature))
    nodes["column"] = np.where(inner, place, 0)
    nodes["child"] = np.where(inner, _join(trees, "left") + np.repeat(roots, n_nodes), -1)
    rule = np.where(missing_left, leaf_bits.NAN_LEFT, leaf_bits.NAN_RIGHT)
    nodes["rule"] = np.where(by_set, _join(trees, "categories") + np.repeat(first_sets, n_nodes), rule)
    # Bit 0 is missing, bit b + 1 is bin b.
    sets = np.roll(_join(trees, "left_bins").astype(bool), 1, axis=1)
    sets[nodes["rule"][by_set], 0] = missing_left[by_set]
    words = np.packbits(sets, axis=1, bitorder="little").view("<u4").astype(np.uint32)
    n_words = 1 + max(np.flatnonzero(words.any(axis=0)), default=0)
    tables = np.zeros((len(coded), 256), dtype=np.uint8)
    if not bins:
        for row, column in enumerate(coded):
            tables[row] = _code_table(code_bins, column)
    cuts = _Cuts(_WHOLE // nodes["threshold"].itemsize)
    for tree, root in zip(trees, roots.tolist()):
        cuts.cut(tree, root, nodes["rule"][root : root + tree.n_nodes])
    values = _join(trees, "value").astype(np.float64)
    tests = np.zeros(len(cuts.tests), dtype=leaf_bits.test_type(dtype))
    nodes_of_tests = np.array([node for node, _ in cuts.tests], dtype=np.int64)
    tests["mask"] = [mask for _, mask in cuts.tests]
    for name in ("threshold", "column", "rule"):
        tests[name] = nodes[name][nodes_of_tests]
    exits = np.array(cuts.exits, dtype=np.int32)
    return traverse.Plan(
        columns=columns.astype(np.int32), coded=coded.astype(np.int32), tables=tables, sets=words[:, :n_words].copy(),
        nodes=nodes, values=values, trees=np.array(cuts.trees, dtype=np.int32), tests=tests,
        pieces=np.array(cuts.pieces, dtype=np.int32).reshape(-1, 6), exits=exits, exit_values=values[exits],
    )  # fmt: skip


def _join(trees, name):
    return np.concatenate([getattr(tree, name) for tree in trees])


def known_codes(bins):
    """Return the codes that have a bin, and these bins, of an array of the bins of codes 0, 1 and so on."""
    bins = np.asarray(bins, dtype=np.int64)
    codes = np.flatnonzero((bins >= 0) & (bins < MISSING))
    return codes, bins[codes]


def _code_table(code_bins, column):
    """Return ``bin + 1`` of 256 codes, 0 for those unknown."""
    if code_bins is None or code_bins[column] is None:
        raise ValueError(f"Feature {column} is split by categories; give the bins of its codes in code_bins.")
    codes, bins = known_codes(code_bins[column])
    if max(codes, default=0) > 255:
        raise ValueError(f"Feature {column} has the code {max(codes)}; codes are at most 255.")
    table = np.zeros(256, dtype=np.uint8)
    table[codes] = bins + 1
    return table


class _Cuts:
    """Trees cut into pieces for `daskdml.kernels.leaf_bits.narrow`; see `daskdml.kernels.traverse.Plan`."""

    def __init__(self, whole_nodes):
        self.whole_nodes = whole_nodes
        self.tests, self.pieces, self.exits, self.trees = [], [], [], []

    def cut(self, tree, root, rules):
        left, rules, count = tree.left.tolist(), rules.tolist(), np.maximum(tree.count, 1).tolist()
        tops = _tops(left) if len(left) <= 2 * self.whole_nodes else None
        exit_0, first_piece = len(self.exits), len(self.pieces)
        self.exits.append(root)
        entries = [0]  # nodes at which pieces may begin, by the numbers of the exits that lead there
        for number, top in enumerate(entries):
            if left[top] == top or (tops is None and number):
                continue
            inside = _grow(left, count, top) if tops is None else _fill(left, tops, top)
            found, exits = _ask(left, rules, inside, top)
            bounds = [len(self.tests)]
            for tests in found:
                self.tests.extend((root + node, mask) for node, mask in tests)
                bounds.append(len(self.tests))
            self.pieces.append((number, len(entries), *bounds))
            entries.extend(exits)
            self.exits.extend(root + node for node in exits)
        self.trees.append((root, first_piece, len(self.pieces), exit_0, tops is None))


def _tops(left):
    """Return the nodes at which to cut a tree into few pieces: where two sides fill more than a word, the larger."""
    tops, n_exits = {0}, [1] * len(left)
    for node in range(len(left) - 1, -1, -1):  # children stand behind their parents
        if left[node] != node:
            larger, smaller = sorted((left[node], left[node] + 1), key=n_exits.__getitem__, reverse=True)
            n_exits[node] = n_exits[larger] + n_exits[smaller]
            if n_exits[node] > leaf_bits.PIECE:
                tops.add(larger)
                n_exits[node] = 1 + n_exits[smaller]
    return tops


def _fill(left, tops, top):
    """Return the nodes of a piece: those below its top, down to the tops of other pieces."""
    inside, todo = {top}, [top]
    for node in todo:
        for child in (left[node], left[node] + 1):
            if left[child] != child and child not in tops:
                inside.add(child)
                todo.append(child)
    return inside


def _grow(left, count, top):
    """Return the nodes of a piece: from its top, those where most rows come, until the exits fill a word."""
    inside = set()
    open_nodes = [(-count[top], top)]
    while open_nodes and len(inside) + 1 < leaf_bits.PIECE:
        node = heapq.heappop(open_nodes)[1]
        inside.add(node)
        for child in (left[node], left[node] + 1):
            if left[child] != child:
                heapq.heappush(open_nodes, (-count[child], child))
    return inside


def _ask(left, rules, inside, top):
    """Return the tests of a piece, (node, mask) by kind, and its exits from left to right."""
    found, exits = ([], [], []), []
    n_bits = leaf_bits.PIECE
    # A node is met before its left side, where its exits begin, and again between its sides.
    todo = [(top, None)]
    while todo:
        node, begin = todo.pop()
        if node not in inside:
            exits.append(node)
        elif begin is None:
            todo += [(left[node] + 1, None), (node, len(exits)), (left[node], None)]
        else:
            ruled_out = (1 << n_bits - begin) - (1 << n_bits - len(exits))
            kind = 2 if rules[node] >= 0 else 0 if rules[node] == leaf_bits.NAN_LEFT else 1
            found[kind].append((node, _ALL ^ ruled_out))
    return found, exits
