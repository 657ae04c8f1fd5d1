"""Trees are those of a plain best-first grower, however leaves are speculated on and rows are cut."""

import functools
import heapq
import itertools
import math
import threading
from fractions import Fraction

import numpy as np
import pytest

from daskdml.ensemble import HistGradientBoostingRegressor
from daskdml.kernels import growing
from daskdml.kernels.splitting import MIN_CATEGORY_SUPPORT
from daskdml.trees import grower
from daskdml.trees.grower import Grower
from daskdml.trees.growth import Settings
from daskdml.trees.shards import NODES, cut

from .tables import ALONE, MISSING, Table, on_ranks

EPSILON = Fraction(1e-15)


def at_once(n_items, work):
    """Run all items in threads of their own."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n_items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# One leaf at a time ---------------------------------------------------------------------------------------------------


class Plain:
    """A node of the plain grower: its rows, and the best way to divide them."""

    def __init__(self, table, settings, rows, depth=0, bounds=(-math.inf, math.inf), features=None):
        self.table, self.settings, self.rows, self.depth, self.bounds = table, settings, rows, depth, bounds
        self.groups = settings.interaction_cst if features is None else features
        self.totals = tuple(table.counted[:, rows].sum(axis=1).tolist())
        self.children, self.feature, self.left, self.gain, self.is_clear = None, -1, None, 0, True
        self.value = self.value_of(self.totals)
        if depth != settings.max_depth:
            self.find()

    def value_of(self, totals):
        """Return -G / (H + l2) between the bounds."""
        g, h = (Fraction(total) / Fraction(scale) for total, scale in zip(totals, self.table.steps.scales))
        value = -g / (h + Fraction(self.settings.l2_regularization) + EPSILON)
        return Fraction(min(max(value, self.bounds[0]), self.bounds[1]))

    def lefts(self, f):
        """Return the sets of bins that a feature may send left; the first wins against equal ones."""
        n_bins, has_missing, is_categorical, _ = self.table.facts[f].tolist()
        if not is_categorical:
            right = [set(range(b + 1)) for b in range(n_bins - 1 + has_missing)]
            return right + [{*range(b + 1), MISSING} for b in reversed(range(n_bins - 1)) if has_missing]
        rank, (_, h, count) = {}, self.totals
        scales = [Fraction(scale) for scale in self.table.steps.scales]
        for b in [*range(n_bins), *[MISSING] * has_missing]:
            g_own, h_own, _ = self.sums(self.table.bins[self.rows, f] == b)
            if h_own * count >= MIN_CATEGORY_SUPPORT * h:
                rank[b] = (g_own / scales[0]) / (h_own / scales[1] + Fraction(MIN_CATEGORY_SUPPORT))
        order, half = sorted(rank, key=rank.get), (len(rank) + 1) // 2
        both = [order[:n] for n in range(1, half + 1)] + [order[-n:] for n in range(1, half)]
        return list(map(set, both)) if len(order) > 1 else []

    def sums(self, own):
        return tuple(self.table.counted[:, self.rows[own]].sum(axis=1).tolist())

    def find(self):
        """Try all there is; remember whether two splits that divide the rows otherwise gain the same."""
        settings, g_scale, tried = self.settings, Fraction(self.table.steps.scales[0]), []
        allowed = range(self.table.p) if self.groups is None else sorted({f for group in self.groups for f in group})
        for f in allowed:
            for left in self.lefts(f):
                own = np.isin(self.table.bins[self.rows, f], list(left))
                sums = self.sums(own)
                rest = tuple(a - b for a, b in zip(self.totals, sums))
                if min(sums[2], rest[2]) < settings.min_samples_leaf:
                    continue
                if min(sums[1], rest[1]) / self.table.steps.scales[1] < settings.least_hessian:
                    continue
                values = self.value_of(sums), self.value_of(rest)
                sense = 0 if settings.monotonic_cst is None else settings.monotonic_cst[f]
                if (values[0] - values[1]) * sense > 0:
                    continue
                gain = (self.value * self.totals[0] - values[0] * sums[0] - values[1] * rest[0]) / g_scale
                if gain > self.gain:
                    self.gain, self.feature, self.left, self.own, best = gain, f, left, own, sums
                tried.append((gain, sums))
        if self.gain > 0:
            near = [sums for gain, sums in tried if gain > self.gain * (1 - Fraction(1, 10**9))]
            self.is_clear = all(sums == best for sums in near)

    def divide(self):
        """Return the children."""
        # Halves that change places gain the same but for rounding: these tests have no data with such a choice.
        assert self.is_clear
        bounds, groups = [self.bounds, self.bounds], self.groups
        sides = [self.rows[self.own], self.rows[~self.own]]
        if self.settings.monotonic_cst is not None and (sense := self.settings.monotonic_cst[self.feature]):
            ends = [self.value_of(self.table.counted[:, rows].sum(axis=1).tolist()) for rows in sides]
            middle = sum(ends) / 2
            bounds = [(self.bounds[0], middle), (middle, self.bounds[1])][::sense]
        if groups is not None:
            groups = [group for group in groups if self.feature in group]
        make = functools.partial(Plain, self.table, self.settings, depth=self.depth + 1, features=groups)
        self.children = [make(rows, bounds=ends) for rows, ends in zip(sides, bounds)]
        return self.children


def grow_plainly(table, settings):
    """Return the nodes in the order of the tree: children of the leaf divided first stand first."""
    nodes = [Plain(table, settings, np.arange(table.n))]
    if settings.max_leaf_nodes is None:
        stack = nodes[:]
        while stack:
            node = stack.pop()
            if node.gain > 0:
                nodes += node.divide()
                stack += node.children[::-1]
        return nodes
    heap, counter = [(-nodes[0].gain, 0, nodes[0])], itertools.count(1)
    while heap and len(nodes) < 2 * settings.max_leaf_nodes - 1:
        node = heapq.heappop(heap)[2]
        if node.gain > 0:
            nodes += node.divide()
            for child in node.children:
                heapq.heappush(heap, (-child.gain, next(counter), child))
    return nodes


def same_tree(table, settings, growth, nodes):
    """Compare a `Growth` with the nodes of the plain grower; return its tree."""
    leaves = [node for node in nodes if node.children is None]
    values = np.arange(1.0, len(leaves) + 1)
    thresholds = [np.arange(n - 1) + 0.5 for n in table.facts[:, 0]]
    tree = growth.tree(values, table.steps, thresholds, settings.learning_rate)
    splits = [node for node in nodes if node.children is not None]
    assert tree.feature.tolist() == [-1 if node.children is None else node.feature for node in nodes]
    assert tree.count.tolist() == [node.totals[2] for node in nodes]
    assert tree.hessian.tolist() == [node.totals[1] / table.steps.scales[1] for node in nodes]
    place = {id(node): i for i, node in enumerate(nodes)}
    assert tree.left.tolist() == [place[id(node.children[0] if node.children else node)] for node in nodes]
    assert tree.value[tree.is_leaf].tolist() == values.tolist()
    for i in np.flatnonzero(~tree.is_leaf):
        node, left = nodes[i], set(np.arange(tree.bin[i] + 1).tolist())
        n_bins, has_missing, is_categorical, _ = table.facts[tree.feature[i]]
        if is_categorical:
            left = set(np.flatnonzero(tree.left_bins[tree.categories[i]]).tolist())
        elif has_missing and tree.missing_left[i]:
            left.add(MISSING)
        assert left == node.left and (tree.categories[i] < 0) == (not is_categorical)
        most_go_left = 2 * node.children[0].totals[2] > node.totals[2]
        assert tree.missing_left[i] == (MISSING in node.left if has_missing else most_go_left)
        if not is_categorical:
            ends = thresholds[tree.feature[i]]
            assert tree.threshold[i] == (ends[tree.bin[i]] if tree.bin[i] < len(ends) else np.inf)
    np.testing.assert_allclose(tree.gain[~tree.is_leaf], [float(node.gain) for node in splits], rtol=1e-9)
    own = [settings.learning_rate * float(node.value) for node in splits]
    np.testing.assert_allclose(tree.value[~tree.is_leaf], own, rtol=1e-9)
    low, high = growth.bounds()
    np.testing.assert_allclose(low, [float(node.bounds[0]) for node in leaves], rtol=1e-9)
    np.testing.assert_allclose(high, [float(node.bounds[1]) for node in leaves], rtol=1e-9)
    assert growth.is_stump == (len(nodes) == 1)
    return tree


def check_leaves(table, shards, growth, nodes):
    """Compare what leaves add up to, and which rows they reach."""
    leaves = [node for node in nodes if node.children is None]
    sums = shards.sum_leaves(0, growth.leaves, table.steps.leaf_scales)
    g_scale, h_scale = map(Fraction, table.steps.leaf_scales)
    for node, found in zip(leaves, sums.tolist(), strict=True):
        rows = [(i, int(table.counted[2, i])) for i in node.rows]
        h = [m * round(Fraction(float(table.h[i])) * h_scale) if table.has_hessian else m for i, m in rows]
        assert found == [sum(m * round(Fraction(float(table.g[i])) * g_scale) for i, m in rows), sum(h)]
    shards.add_leaves(0, growth.leaves, np.arange(1.0, len(leaves) + 1))
    expected = np.zeros(table.n)
    for value, node in enumerate(leaves, 1):
        expected[node.rows] = value
    np.testing.assert_array_equal(np.concatenate([shard.raw for shard in shards]), expected)


def check(table, settings, nodes, monkeypatch, speculations=(1, 2, 4, 8), edges=None):
    """Grow by each number of leaves a round, twice by the same `Grower`, and compare with the plain grower's nodes."""
    for speculation in speculations:
        monkeypatch.setattr(Grower, "_most_at_once", lambda self, k, n=speculation: n)
        shards = table.shards(edges or [0, table.n])
        grown = Grower(shards, ALONE, table.facts, settings)
        for _ in range(2):
            growth = grown.grow(0, table.key, table.steps, **table.draws)
            same_tree(table, settings, growth, nodes)
        n_divided = grown.take_splits()
        assert n_divided >= len(nodes) - 1 and grown.take_splits() == 0
        if speculation == 1:
            assert n_divided == len(nodes) - 1  # twice a tree, of which half the nodes but one are divided
    check_leaves(table, shards, growth, nodes)


@pytest.mark.parametrize("max_leaf_nodes", [2, 3, 4, 5, 9, 17, 31, 40])
def test_best_first(max_leaf_nodes, monkeypatch):
    table, settings = Table(2), Settings(max_leaf_nodes, min_samples_leaf=8)
    nodes = grow_plainly(table, settings)
    assert len(nodes) == 2 * max_leaf_nodes - 1
    check(table, settings, nodes, monkeypatch)


CASES = {
    "depth": (dict(seed=1), Settings(None, 4, min_samples_leaf=5)),
    "depth and leaves": (dict(seed=2), Settings(12, 4, min_samples_leaf=5)),
    "depth of one": (dict(seed=2), Settings(31, 1)),
    "no limit": (dict(seed=3), Settings(None, min_samples_leaf=30)),
    "large leaves": (dict(seed=4), Settings(31, min_samples_leaf=90)),
    "small leaves": (dict(seed=5), Settings(10, min_samples_leaf=1)),
    "least hessian": (dict(seed=5), Settings(31, min_samples_leaf=1, least_hessian=20.0)),
    "l2": (dict(seed=6), Settings(20, l2_regularization=25.0, min_samples_leaf=10, learning_rate=0.1)),
    "hessians of one": (dict(seed=8, has_hessian=False), Settings(20, min_samples_leaf=10)),
    "rows that count several times": (dict(seed=8, times=15), Settings(20, min_samples_leaf=60)),
    "12 bits": (dict(seed=9, bits=12), Settings(20, min_samples_leaf=10)),
    "drawn": (dict(seed=11, is_stochastic=True, share=0.7, times=3), Settings(20, min_samples_leaf=12)),
    "categories": (dict(seed=12, categorical=(0, 1)), Settings(20, min_samples_leaf=10)),
    "monotonic": (dict(seed=12), Settings(20, min_samples_leaf=15, monotonic_cst=np.array([0, 1, -1]))),
    "interactions": (
        dict(seed=13, n_bins=(6, 5, 9, 4)),
        Settings(20, min_samples_leaf=9, interaction_cst=((0, 1), (1, 2, 3), (0, 3))),
    ),
    "one feature": (dict(seed=14, n_bins=(40,), missing=(0,)), Settings(20, min_samples_leaf=10)),
}  # fmt: skip


@functools.cache
def case(name):
    """Return the table and the settings of a case, and the nodes of the plain grower."""
    options, settings = CASES[name]
    table = Table(**options)
    return table, settings, grow_plainly(table, settings)


@pytest.mark.parametrize("name", CASES)
def test_settings(name, monkeypatch):
    assert len(case(name)[2]) > 1
    check(*case(name), monkeypatch)


@pytest.mark.parametrize("edges", [[0, 1, 350, 350, 700], [0, 699, 700], list(range(0, 701, 50))], ids=str)
def test_shards(edges, monkeypatch):
    """However rows are cut: draws hang on the number of the row."""
    check(*case("drawn"), monkeypatch, (4,), edges)


def test_threads():
    table, settings, nodes = case("categories")
    shards = table.shards(range(0, 701, 50), 3, at_once)
    grown = Grower(shards, ALONE, table.facts, settings)
    for _ in range(3):
        growth = grown.grow(0, table.key, table.steps, **table.draws)
        same_tree(table, settings, growth, nodes)
    check_leaves(table, shards, growth, nodes)


def test_more_leaves_than_places_at_first(monkeypatch):
    """Places of segments and histograms grow with the tree, those of leaves that are cut off again too."""
    table = Table(15, n=3000, n_bins=(30, 30, 30, 20), missing=())
    for settings in (Settings(130, min_samples_leaf=8), Settings(None, 8, min_samples_leaf=8)):
        nodes = grow_plainly(table, settings)
        assert len(nodes) > 2 * NODES
        check(table, settings, nodes, monkeypatch, (4, 8))


@pytest.mark.parametrize("why", ["too few rows", "no gain", "depth"])
def test_stumps(why):
    table = Table(0, n=39 if why == "too few rows" else 100)
    if why == "no gain":
        table.bins[:] = 0
        table.facts[:] = [1, 0, 0, 0]
    settings = Settings(31, 0 if why == "depth" else None, min_samples_leaf=20)
    shards = table.shards([0, table.n])
    growth = Grower(shards, ALONE, table.facts, settings).grow(0, table.key, table.steps, **table.draws)
    tree = same_tree(table, settings, growth, [Plain(table, settings, np.arange(table.n))])
    assert tree.feature.tolist() == [-1] and tree.count.tolist() == [table.n]
    check_leaves(table, shards, growth, [Plain(table, settings, np.arange(table.n))])


def test_rows_without_weight_go_along():
    """They count nowhere, and reach the leaf that their bins lead to."""
    table = Table(16, times=2)
    assert (table.counted[2] == 0).sum() > 50
    settings = Settings(8, min_samples_leaf=20)
    nodes, shards = grow_plainly(table, settings), table.shards([0, table.n])
    growth = Grower(shards, ALONE, table.facts, settings).grow(0, table.key, table.steps, **table.draws)
    check_leaves(table, shards, growth, nodes)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_drawn_features(share, monkeypatch):
    """As many as the share of the features, drawn anew for each node, whatever the speculation."""
    table = Table(17, n_bins=(6,) * 7, missing=())
    settings = Settings(20, min_samples_leaf=10, max_features=share)
    trees, tried = [], []
    original = Grower._allowed

    def allowed(self, nodes):
        found = original(self, nodes)
        tried.extend(map(tuple, found.tolist()))
        return found

    monkeypatch.setattr(Grower, "_allowed", allowed)
    for speculation in (1, 4, 8):
        monkeypatch.setattr(Grower, "_most_at_once", lambda self, k, n=speculation: n)
        grown = Grower(table.shards([0, table.n]), ALONE, table.facts, settings)
        growth = grown.grow(0, table.key, table.steps, **table.draws)
        trees.append(growth.tree(np.zeros(20), table.steps, [np.arange(5)] * 7, 1.0))
    for other in trees[1:]:
        for ours, theirs in zip(trees[0], other):
            np.testing.assert_array_equal(ours, theirs)
    assert {sum(row) for row in tried} == {math.ceil(share * 7)}
    assert len(set(tried)) > 10 and np.any(tried, axis=0).all()


# Ranks ----------------------------------------------------------------------------------------------------------------


# Each rank adds up and searches some features, or all ranks all of them.
@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("name", ["drawn", "categories", "one feature", "no limit", "depth and leaves"])
@pytest.mark.parametrize("n_ranks", [2, 5])
def test_ranks(n_ranks, name, is_shared, monkeypatch):
    """With more ranks than features too."""
    monkeypatch.setattr(grower, "_is_sharing_worth", lambda *_: is_shared)
    table, settings, nodes = case(name)

    def grow(shards, comm):
        assert comm.size == n_ranks
        grown = Grower(shards, comm, table.facts, settings)
        for _ in range(2):
            growth = grown.grow(0, table.key, table.steps, **table.draws)
            same_tree(table, settings, growth, nodes)

    on_ranks(table, [0, 10, 20, 20, 500, 650, 700], n_ranks, grow)


@pytest.mark.parametrize("is_narrow", [True, False])
def test_sums_of_many_rows_travel_in_64_bits(is_narrow, monkeypatch):
    """Of the root, of which nobody knows yet how often rows count, by 15 times the rows; of others by their counts."""
    table, settings, nodes = case("drawn")
    table.steps = table.steps._replace(most_narrow=15 * table.n - (not is_narrow))
    take, sent = grower.splitting.take_sums, []
    monkeypatch.setattr(grower.splitting, "take_sums", lambda *args: sent.append(args[2].dtype) or take(*args))

    def grow(shards, comm):
        growth = Grower(shards, comm, table.facts, settings).grow(0, table.key, table.steps, **table.draws)
        same_tree(table, settings, growth, nodes)

    on_ranks(table, [0, 350, 700], 2, grow)
    assert set(sent[:2]) == {np.dtype(np.uint32 if is_narrow else np.int64)} and np.dtype(np.uint32) in sent


@pytest.mark.parametrize("least", [0.0, 1e-3, 3.0, 30.0, np.inf])
def test_what_was_foretold_changes_no_tree(least):
    """Leaves that are expected to gain too little are expanded when nothing else is left."""
    table, settings, nodes = case("drawn")

    def grow(shards, comm):
        grown = Grower(shards, comm, table.facts, settings)
        grown._least_gains[0] = least
        same_tree(table, settings, grown.grow(0, table.key, table.steps, **table.draws), nodes)
        expected = min(float(node.gain) for node in nodes if node.children is not None)
        assert grown._least_gains[0] == pytest.approx(expected, rel=1e-9)

    on_ranks(table, [0, 10, 20, 20, 500, 650, 700], 2, grow)


# Ends of what numbers hold --------------------------------------------------------------------------------------------


def test_rows_are_cut_into_shards_of_about_equal_size():
    for n_rows, n_threads in ((0, 4), (1, 1), (65_535, 4), (65_536, 4), (10**6, 3), (10**7, 1), (2**29, 1)):
        edges = cut(n_rows, n_threads)
        sizes = np.diff(edges)
        assert edges[0] == 0 and edges[-1] == n_rows and sizes.max() - sizes.min() <= 1
        assert sizes.max() <= growing.MOST_ROWS
        assert len(sizes) == 1 or sizes.min() >= 32_768


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e38, 1e40])
def test_targets_of_any_size(scale):
    """What cannot be fitted is refused in a sentence; what is fitted is fitted well."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 10, (500, 2)).astype(float)
    y = X[:, 0] - 5.0
    model = HistGradientBoostingRegressor(max_iter=50)
    try:
        model.fit(X, y * scale)
    except ValueError as error:
        assert "too large" in str(error)
    else:
        np.testing.assert_allclose(model.predict(X) / scale, y, atol=0.1)
