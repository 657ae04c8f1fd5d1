"""Trees are those of a plain best-first grower, however leaves are speculated on and rows are cut; leaf quantiles."""

import functools
import heapq
import itertools
import math
import threading
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from daskdml.data import Block
from daskdml.ensemble import HistGradientBoostingRegressor
from daskdml.kernels import growing
from daskdml.kernels.splitting import MIN_CATEGORY_SUPPORT
from daskdml.runtime.spmd import Meta, Program, run_threads
from daskdml.trees import grower
from daskdml.trees.grower import Grower, Settings, Steps
from daskdml.trees.leaf_quantiles import leaf_quantiles
from daskdml.trees.shards import NODES, Shard, Shards, cut

MISSING = 255
ALONE = SimpleNamespace(size=1, rank=0)
EPSILON = Fraction(1e-15)


class Table:
    """Rows of few bins, their gradients and hessians, and the integers that stand for them.

    Parameters
    ----------
    seed, n : int
    n_bins : tuple of int
        Of each feature.
    missing, categorical : tuple of int
        Features that miss values; features of categories.
    times : int
        How often a row counts at most; 1 for once.
    has_hessian : bool
    bits : int
    draws : dict
        share and is_stochastic, as `Grower.grow` takes them.
    """

    key = 5

    def __init__(
        self, seed, n=700, n_bins=(6, 5, 9), missing=(1,), categorical=(), times=1, has_hessian=True, bits=15, **draws
    ):
        rng = np.random.default_rng(seed)
        self.n, self.p, self.has_hessian, self.draws = n, len(n_bins), has_hessian, {"is_stochastic": False, **draws}
        self.bins = np.column_stack([rng.integers(n_bins[f], size=n) for f in range(self.p)]).astype(np.uint8)
        self.facts = np.array([(b, f in missing, f in categorical, 0) for f, b in enumerate(n_bins)], np.int64)
        raw = np.sin(self.bins[:, 0] * 1.7) + self.bins[:, self.p // 2] * (self.bins[:, -1] % 3) / 4
        raw += rng.normal(size=n)
        for f in missing:
            self.bins[rng.random(n) < 0.15, f] = MISSING
        self.g = raw.astype(np.float32)
        self.h = rng.uniform(0.2, 1.0, n if has_hessian else 0).astype(np.float32)
        self.times = rng.integers(0, times + 1, n).astype(np.uint8) if times > 1 else None
        largest = float(np.abs(self.g).max()), float(self.h.max(initial=0.0))
        self.steps = Steps.of(largest, n * times, bits, times, not has_hessian)
        # What entries hold has tests of its own.
        entries = np.empty(n, np.uint64)
        times = np.empty(0, np.uint8) if self.times is None else self.times
        draws = self.draws.get("share", 1.0), self.draws["is_stochastic"]
        growing.fill_entries(self.g, self.h, times, 0, self.key, self.steps.scales, *draws, entries)
        m, low = (entries >> np.uint64(60)).astype(np.int64), entries.astype(np.uint32)
        self.counted = np.array([m * (low.view(np.int32) >> 16), m * (low & np.uint32(0xFFFF)), m])

    def shards(self, edges, n_threads=1, for_each=None):
        """Return the rows cut at some edges."""
        rows = np.zeros((self.n, -(-self.p // 4) * 4), np.uint8)
        rows[:, : self.p] = self.bins
        made = []
        for a, b in itertools.pairwise(edges):
            times = None if self.times is None else self.times[a:b]
            y = np.zeros(b - a)
            shard = Shard(rows[a:b].copy(), self.p, y, None, times, a, np.zeros(b - a), self.has_hessian)
            shard.gradient[0] = self.g[a:b]
            shard.hessian[0] = self.h[a:b]
            made.append(shard)
        return Shards(made, self.p, n_threads, for_each or in_turn)


def in_turn(n_items, work):
    for i in range(n_items):
        work(i)


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
        monkeypatch.setattr(grower, "SPECULATION", speculation)
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
        monkeypatch.setattr(grower, "SPECULATION", speculation)
        grown = Grower(table.shards([0, table.n]), ALONE, table.facts, settings)
        growth = grown.grow(0, table.key, table.steps, **table.draws)
        trees.append(growth.tree(np.zeros(20), table.steps, [np.arange(5)] * 7, 1.0))
    for other in trees[1:]:
        for ours, theirs in zip(trees[0], other):
            np.testing.assert_array_equal(ours, theirs)
    assert {sum(row) for row in tried} == {math.ceil(share * 7)}
    assert len(set(tried)) > 10 and np.any(tried, axis=0).all()


# Ranks ----------------------------------------------------------------------------------------------------------------


class OnRanks(Program):
    """Calls ``body(shards, comm)`` once, on ranks that hold a few of the pieces between edges each."""

    def __init__(self, table, body):
        self.table, self.body = table, body

    def init(self, meta):
        return False

    def step(self, state, local, comm):
        edges = [local[0].start, *(block.start + len(block.X) for block in local)]
        self.body(self.table.shards(edges), comm)
        return True

    def done(self, state):
        return state


def on_ranks(table, edges, n_ranks, body):
    """Run a body on threads; what it raises is raised here."""
    pieces = enumerate(itertools.pairwise(edges))
    blocks = [Block(np.empty((b - a, table.p)), None, None, i, a) for i, (a, b) in pieces]
    assert run_threads(OnRanks(table, body), blocks, Meta(table.n, table.p, len(blocks)), n_ranks).state


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


# Quantiles ------------------------------------------------------------------------------------------------------------


def residuals(seed, dtype=np.float64, times=1, weight=None):
    """Return a table whose rows have targets, raw predictions and weights, and the function that divides its root."""
    table = Table(seed, n=900, n_bins=(4, 5, 6), missing=(), times=times)
    rng = np.random.default_rng(seed + 100)
    table.y = np.where(rng.random(table.n) < 0.3, np.round(rng.normal(size=table.n), 1), rng.normal(size=table.n) * 50)
    table.y = table.y.astype(dtype)
    table.raw, table.weight = np.round(rng.normal(size=table.n), 1), weight
    table.raw[:3] = [1e300, -1e300, 0.0]
    whole = table.shards

    def shards(edges, *options):
        made = whole(edges, *options)
        for shard, a, b in zip(made, edges, edges[1:]):
            shard.y, shard.raw = table.y[a:b], table.raw[a:b].copy()
            shard.weight = np.empty(0) if weight is None else weight[a:b]
        return made

    table.shards = shards
    return table


def leaves_of(table, shards):
    """Divide the root in three, unevenly; return the leaves."""
    goes_right = np.ones((1, 256), np.uint8)
    goes_right[0, :1] = 0
    shards.root(0, table.key, table.steps.scales, table.steps.most, is_stochastic=False)[:] = 0
    for split in ([0, 0, 1, 2], [2, 2, 3, 4]):
        shards.split(np.array([split]), goes_right, np.array([-1]), table.steps.most)
    return np.array([4, 1, 3])


def rows_of(table):
    """Return the rows of the leaves of `leaves_of`."""
    first, last = table.bins[:, 0] == 0, table.bins[:, 2] == 0
    return [np.flatnonzero(own) for own in (~first & ~last, first, ~first & last)]


def weighted_quantile(values, weight, quantile):
    """Return the least value with at least that share of the weight at or below it."""
    total, up_to = sum(map(Fraction, weight)), Fraction(0)
    for value, w in sorted(zip(values, weight)):
        up_to += Fraction(w)
        if up_to >= Fraction(quantile) * total and w > 0:
            return value


QUANTILES = [0.5, 0.1, 0.25, 0.9371, 1e-9, 1 - 1e-9]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("times", [1, 15])
def test_quantiles_of_leaves_are_numpys(times, dtype):
    """Of residuals, each as often as its row counts."""
    table = residuals(0, dtype, times)
    for edges in ([0, 900], [0, 1, 500, 500, 900]):
        shards = table.shards(edges)
        leaves = leaves_of(table, shards)
        for quantile in QUANTILES:
            found = leaf_quantiles(shards, ALONE, leaves, quantile, True)
            for value, rows in zip(found, rows_of(table), strict=True):
                values = np.repeat(table.y[rows] - table.raw[rows], table.counted[2, rows])
                # NumPy goes to the nearer end, so that the last bits may differ where the ends are far apart.
                assert value == pytest.approx(np.quantile(values, quantile), rel=1e-14, abs=1e-14)


@pytest.mark.parametrize(
    "unit",
    [1.0, 1e-280, 1e280, 1e-300],
)
def test_weighted_quantiles_of_leaves(unit):
    weight = np.random.default_rng(3).exponential(size=900) * 10.0 ** np.random.default_rng(4).integers(-3, 3, 900)
    table = residuals(1, weight=weight * unit)
    # A row of no weight counts 0 times.
    table.times = (np.random.default_rng(5).random(900) < 0.9).astype(np.uint8)
    table.weight[table.times == 0] = 0.0
    for edges in ([0, 900], [0, 1, 500, 500, 900]):
        shards = table.shards(edges)
        leaves = leaves_of(table, shards)
        for quantile in QUANTILES:
            found = leaf_quantiles(shards, ALONE, leaves, quantile, False)
            for value, rows in zip(found, rows_of(table), strict=True):
                values = (table.y[rows] - table.raw[rows]).tolist()
                assert value == weighted_quantile(values, table.weight[rows].tolist(), quantile)


@pytest.mark.parametrize("light", [1e-30, 5e-324])
def test_quantiles_of_rows_that_weigh_next_to_nothing(light):
    """Beside others they round to no weight at all; in a leaf of their own they are all there is."""
    table = residuals(1, weight=np.ones(900))
    own = rows_of(table)[1]
    table.weight[own] = light
    shards = table.shards([0, 500, 900])
    leaves = leaves_of(table, shards)
    for quantile in QUANTILES:
        found = leaf_quantiles(shards, ALONE, leaves, quantile, False)
        for value, rows in zip(found, rows_of(table), strict=True):
            values = (table.y[rows] - table.raw[rows]).tolist()
            assert value == weighted_quantile(values, table.weight[rows].tolist(), quantile)


def test_quantiles_of_equal_weights():
    """Where a share falls on a row, in floats, that row counts."""
    table = residuals(2, weight=np.full(900, 0.5))
    shards = table.shards([0, 900])
    shards.root(0, table.key, table.steps.scales, table.steps.most, is_stochastic=False)[:] = 0
    values = np.sort(table.y - table.raw)
    for k in (225, 450, 675):
        assert leaf_quantiles(shards, ALONE, np.zeros(1, np.int64), k / 900, False)[0] == values[k - 1]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_quantiles_on_ranks(is_weighted):
    """The same bits, where one rank has no rows of a leaf too."""
    weight = np.random.default_rng(3).exponential(size=900) if is_weighted else None
    table = residuals(3, weight=weight)

    def find(shards, comm):
        leaves = leaves_of(table, shards)
        return leaf_quantiles(shards, comm, leaves, 0.3, not is_weighted)

    alone = find(table.shards([0, 900]), ALONE)

    def compare(shards, comm):
        assert find(shards, comm).tobytes() == alone.tobytes()

    for n_ranks in (2, 4):
        on_ranks(table, [0, 1, 2, 899, 900], n_ranks, compare)


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
