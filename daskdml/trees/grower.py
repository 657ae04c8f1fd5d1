"""Grows one tree, best leaf first, from histograms that all ranks add up.

A round expands the best leaves that are not expanded yet, whether or not the best-first order will come to them
(speculation). Once all leaves that the order meets are expanded, it stands: nodes that it does not meet are cut off
again. So the tree is exactly the one that expands one leaf at a time, after a third of the rounds. Which leaves the
order will come to is foretold by the tree before: hardly ever one that gains less than the least gain there.
"""

import heapq
import math
import time

import numpy as np

from daskdml.kernels import growing, splitting
from daskdml.trees.growth import Growth
from daskdml.trees.tree import MISSING
from daskdml.utils.memory import Recycled
from daskdml.utils.random import row_hash

N_BINS = growing.N_BINS
# Leaves a round at most, of several ranks, in the first tree and in later ones, and the share of the least gain of the
# tree before that a leaf must gain. 31 leaves take 10 rounds and 33 splits then, of which 30 are needed; with 4 of any
# gain 14 and 42, with a share of 1.0 12 and 31, of 0.8 9 and 36 (measured, 60 trees).
FIRST_SPECULATION, SPECULATION, LEAST_SHARE = 4, 8, 0.9
LEAVES_A_ROUND = 3  # in the mean
_EPSILON = 1e-15
_FEATURE_STREAM = 11


class _Node:
    """A leaf, or what was one.

    ``totals`` are integers (gradient, hessian, count); ``lower, upper`` bound the values of its children; ``place`` is
    that of its histogram; ``is_open`` while the sums of its children are on their way.
    """

    __slots__ = (
        "children", "depth", "found", "gain", "groups", "is_open", "key", "left_bins", "lower", "number", "place",
        "totals", "upper", "value",
    )  # fmt: skip

    def __init__(self, number, depth, totals, value, lower, upper, groups, key):
        self.number, self.depth, self.totals, self.value = number, depth, totals, value
        self.lower, self.upper, self.groups, self.key = lower, upper, groups, key
        self.gain, self.is_open = 0.0, False
        self.found = self.left_bins = self.place = self.children = None


class Grower:
    """Grows the trees of one rank's group, one after the other.

    Parameters
    ----------
    shards : Shards
        Of this rank.
    comm : Comm
    facts : ndarray of int64, shape (p, 4)
        See `daskdml.kernels.splitting.find_splits`; column 3 is filled in here, and the places of bins.
    settings : Settings
    """

    def __init__(self, shards, comm, facts, settings):
        self.shards, self.comm, self.settings = shards, comm, settings
        p = self.n_features = len(facts)
        first = shards.first
        facts = np.column_stack([facts, first[:-1]])
        if settings.monotonic_cst is not None:
            facts[:, 3] = settings.monotonic_cst
        # Sums of features that nobody else has rows of need not travel.
        self._owned = shards.owned(comm)
        self._is_shared = comm.size > 1 and self._owned is None and _is_sharing_worth(comm, first)
        self._travels = comm.size > 1 and self._owned is None
        # Ranks that share the search have features of about as many bins each; the first has one at least.
        edges = _shares_of(first, comm.size) if self._is_shared else np.array([0, p])
        self._bins_of_rank = first[edges]
        rank = comm.rank if self._is_shared else 0
        self._own = slice(edges[rank], edges[rank + 1])
        self._facts_of_all, self._facts = facts, facts[self._own].copy()
        self._facts[:, 4] -= self._bins_of_rank[rank]
        self._ends = np.append(self._facts[:, 4], self._bins_of_rank[rank + 1] - self._bins_of_rank[rank])
        self._width = int(np.diff(self._bins_of_rank).max())
        self._sums, self._free = np.zeros((0, 3, self._width), np.int64), []
        self._n_splits, self._recycled, self._least_gains = 0, Recycled(), {}

    def grow(self, k, key, steps, share=1.0, is_stochastic=True):
        """Grow one tree on the gradients that the shards hold.

        Parameters
        ----------
        k : int
            Output that it is for.
        key : int
            Of everything that is drawn for it.
        steps : Steps
        share : float, default 1.0
            Of the rows that take part.
        is_stochastic : bool, default True
            See `daskdml.kernels.growing.fill_entries`.

        Returns
        -------
        Growth
            Not applied to the raw predictions yet.
        """
        started = time.perf_counter()
        settings, self._steps, self._least_gain = self.settings, steps, LEAST_SHARE * self._least_gains.get(k, 0.0)
        self._at_once = self._most_at_once(k)
        self._free = list(range(len(self._sums)))
        parts = self.shards.root(k, key, steps.scales, steps.most, share, is_stochastic)
        started = self.shards.clock("histogram", started)
        groups = None if settings.interaction_cst is None else tuple(range(len(settings.interaction_cst)))
        root = _Node(0, 0, None, 0.0, -np.inf, np.inf, groups, key)
        root.place = self._take_place()
        self._land(self._launch(parts, [root], np.array([[root.place, -1, -1]]), np.zeros(1, np.int64)))
        self._nodes, flight = [root], None
        while True:
            if flight is not None and self.shards.talks:  # a call at a time
                self._land(flight)
                flight = None
            need, order, is_last = self._choose(root)
            if not need and flight is None:
                break
            # Sums of one batch of leaves are on their way between ranks while the next one is divided.
            batch = self._expand(need, is_last) if need else None
            if flight is not None:
                self._land(flight)
            flight = None if batch is None else self._launch(*batch)
            if flight is not None and self.comm.size == 1:
                self._land(flight)
                flight = None
        self._least_gains[k] = min((node.gain for node in order), default=0.0)
        return self._finish(order, k)

    def take_splits(self):
        """Return how many leaves were divided since this was asked last, those cut off again included."""
        n, self._n_splits = self._n_splits, 0
        return n

    def _most_at_once(self, k):
        # Alone there is no round to save, and leaves divided in vain cost 14 % of the time on one thread, 5 on two.
        if self.comm.size == 1:
            return 1
        return SPECULATION if k in self._least_gains else FIRST_SPECULATION

    # The order of leaves ---------------------------------------------------------------------------------------------

    def _choose(self, root):
        """Return the leaves to expand next, the order so far, and whether nothing is asked of their children."""
        most = self.settings.max_leaf_nodes
        if most is None:
            return self._choose_any(root)
        heap, order, need = [(-root.gain, 0, root)] if root.gain > 0 else [], [], []
        n_open = before = 0  # open: expanded, but nobody knows the children yet
        counter = 1  # of equal gains the node that became a leaf first
        while heap and len(order) + n_open + len(need) < most - 1 and len(need) < self._at_once:
            _, _, node = heapq.heappop(heap)
            if node.is_open:
                n_open += 1
            elif node.children is None:
                if node.gain < self._least_gain:
                    if need or n_open:
                        break  # those whose sums are on their way may have better children
                    self._least_gain = LEAST_SHARE * node.gain  # it was foretold wrong
                if not need:
                    before = len(order)
                need.append(node)
            else:
                order.append(node)
                for child in node.children:
                    if child.gain > 0:
                        heapq.heappush(heap, (-child.gain, counter, child))
                    counter += 1
        # Only if all splits before it stand is the next one the last: others might be cut off otherwise.
        return need, order, len(need) == 1 and before + 1 == most - 1

    def _choose_any(self, root):
        """Without a limit every leaf is expanded: the newest first, so that few histograms are kept."""
        order, need = [], [node for node in self._nodes if node.children is None and node.gain > 0]
        if not need:
            stack = [root] if root.gain > 0 else []
            while stack:
                node = stack.pop()
                order.append(node)
                stack += [child for child in reversed(node.children) if child.gain > 0]
        return need[-4 * self._at_once :], order, False

    def _expand(self, need, is_last):
        """Divide leaves, and add up a child of each; return what `_launch` takes, or None."""
        started = time.perf_counter()
        m = len(need)
        splits, adds = np.empty((m, 4), np.int64), np.empty(m, np.int64)
        goes_right = np.empty((m, N_BINS), np.uint8)
        places, children = np.full((m, 3), -1, np.int64), []
        for s, node in enumerate(need):
            left, right = node.children = self._make_children(node)
            self._nodes += [left, right]
            splits[s] = node.found[0], node.number, left.number, right.number
            goes_right[s] = _table(node)
            can = [not is_last and self._may_split(child) for child in (left, right)]
            small = 0 if left.totals[2] <= right.totals[2] else 1
            adds[s] = small if any(can) else -1
            if any(can):
                own, other = (left, right) if small == 0 else (right, left)
                own.place, other.place = self._take_place(), node.place
                places[s] = own.place, other.place, node.place
                children += [child for child, may in zip((left, right), can) if may]
                node.is_open = True
            else:
                self._free.append(node.place)
            node.place = None
        self._n_splits += m
        parts = self.shards.split(splits, goes_right, adds, self._steps.most)
        self.shards.clock("histogram", started)
        return (parts, children, places, adds, need) if children else None

    def _make_children(self, node):
        settings = self.settings
        feature, _, _, g, h, c = node.found
        totals = (g, h, c), tuple(a - b for a, b in zip(node.totals, (g, h, c)))
        values = [self._value(t, node.lower, node.upper) for t in totals]
        bounds = [(node.lower, node.upper)] * 2
        sense = self._facts_of_all[feature, 3]
        if sense:
            middle = (values[0] + values[1]) / 2
            below, above = (node.lower, middle), (middle, node.upper)
            bounds = [below, above] if sense > 0 else [above, below]
        groups = node.groups
        if groups is not None:
            groups = tuple(i for i in groups if feature in settings.interaction_cst[i])
        first = len(self._nodes)
        # A node's draws hang on the way to it, not on when it was expanded.
        keys = row_hash(node.key, _FEATURE_STREAM, [0, 1]).tolist() if settings.max_features < 1 else (0, 0)
        return [
            _Node(first + i, node.depth + 1, totals[i], values[i], *bounds[i], groups, keys[i]) for i in range(2)
        ]

    def _value(self, totals, lower, upper):
        g, h = (total / scale for total, scale in zip(totals, self._steps.scales))
        return min(max(-g / (h + self.settings.l2_regularization + _EPSILON), lower), upper)

    def _may_split(self, node):
        settings = self.settings
        deep = settings.max_depth is not None and node.depth >= settings.max_depth
        return not deep and node.totals[2] >= 2 * settings.min_samples_leaf

    # Histograms ------------------------------------------------------------------------------------------------------

    def _take_place(self):
        if not self._free:
            n = max(8, 2 * len(self._sums))
            more = np.empty((n, 3, self._width), np.int64)
            more[: len(self._sums)] = self._sums
            self._free = list(range(len(self._sums), n))
            self._sums = more
        return self._free.pop()

    def _launch(self, parts, nodes, places, adds, parents=()):
        """Begin to add up histograms over ranks; return what `_land` takes."""
        if self._travels:
            started = time.perf_counter()
            parts = self._send(parts, np.flatnonzero(adds >= 0), nodes)
            self.shards.clock("reduce", started)
        return parts, nodes, places, adds, parents

    def _land(self, flight):
        """Take up histograms, and find the best splits of nodes."""
        parts, nodes, places, adds, parents = flight
        if self._travels:
            started = time.perf_counter()
            parts = self._receive(parts, np.count_nonzero(adds >= 0))
            self.shards.clock("reduce", started)
        self._settle(parts, nodes, places)
        for parent in parents:
            parent.is_open = False
            for child in parent.children:
                if child.gain <= 0 and child.place is not None:
                    self._free.append(child.place)
                    child.place = None

    def _settle(self, parts, nodes, places):
        """Take up histograms, of threads or of all ranks, and find the best splits of nodes."""
        comm = self.comm
        settle = splitting.settle_sums if self._travels else splitting.settle
        started = time.perf_counter()
        n_own = self._own.stop - self._own.start
        if nodes[0].totals is None:
            settle(parts, places, self._sums, (0, self._ends[-1]))
            self._take_totals(nodes[0])
            if not self._may_split(nodes[0]):
                return
            places = places[:0]
        totals = np.array([node.totals for node in nodes], np.int64)
        states = np.array([(node.value, node.lower, node.upper) for node in nodes])
        where = np.array([node.place for node in nodes], np.int64)
        allowed = self._allowed(nodes)
        settings, (g_scale, h_scale) = self.settings, self._steps.scales
        limits = np.array(
            [1 / g_scale, 1 / h_scale, settings.l2_regularization, settings.min_samples_leaf, settings.least_hessian]
        )
        has_categories = self._facts_of_all[:, 2].any()

        def work(start, stop):
            settle(parts, places, self._sums, (self._ends[start], self._ends[stop]))
            gains, found = np.zeros(len(nodes)), np.zeros((len(nodes), 6), np.int64)
            left_bins = np.zeros((len(nodes), N_BINS if has_categories else 0), np.uint8)
            splitting.find_splits(
                self._sums, where, (start, stop), self._facts, totals, states, allowed, limits, gains, found, left_bins
            )
            found[:, 0] += self._own.start
            return gains, found, left_bins

        candidates = []
        for start, stop in [(0, n_own)] if self._owned is None else self._owned:
            if stop > start:
                candidates += self.shards.over_features(start, stop, len(nodes), work)
        best = _best(candidates, len(nodes), has_categories)
        started = self.shards.clock("split", started)
        if self._is_shared or self._owned is not None:
            found = [_unpack(part, len(nodes)) for part in comm.allgather(_pack(best))]
            best = _best(found, len(nodes), has_categories)
            self.shards.clock("reduce", started)
        for i, node in enumerate(nodes):
            node.gain, node.found = float(best[0][i]), best[1][i].tolist()
            if has_categories:
                node.left_bins = best[2][i]

    def _send(self, parts, which, nodes):
        """Begin to add up, over ranks, the histograms that stand at some places."""
        comm, edges = self.comm, self._bins_of_rank
        # Sums of no more than a million rows fit 32 bits: half of what travels.
        n_rows = comm.meta.n_samples * 15 if nodes[0].totals is None else max(node.totals[2] for node in nodes)
        dtype = np.uint32 if n_rows <= self._steps.most_narrow else np.int64
        sums = self._recycled.empty((len(which), 3, edges[-1]), dtype)
        splitting.take_sums(parts, which, sums)
        if not self._is_shared:
            return comm.allreduce(sums, wait=False, copies=False)
        table = np.zeros((comm.size, len(which), 3, self._width), dtype)
        for part, start, stop in zip(table, edges[:-1], edges[1:]):
            part[:, :, : stop - start] = sums[:, :, start:stop]
        return comm.reduce_scatter(table.reshape(-1), wait=False, copies=False)

    def _receive(self, started, k):
        """Return the sums over ranks of this rank's features: of k histograms."""
        return started.finish().reshape(k, 3, self._width)

    def _take_totals(self, root):
        # Any feature's bins sum up to the totals; of shares rank 0 has at least one, which others may lack.
        feature = 0 if self._owned is None else self._owned[0][0]
        a, b = self._ends[feature : feature + 2][[0, -1]]
        totals = self._sums[root.place, :, a:b].sum(axis=1)
        if self._is_shared:
            totals = self.comm.broadcast(totals)
        root.totals = tuple(int(total) for total in totals)
        # Its loss counts in the gain; as a leaf it says nothing, as scikit-learn's.
        root.value = self._value(root.totals, -np.inf, np.inf)

    def _allowed(self, nodes):
        """Return which of this rank's features nodes may be split by, (0, 0) for all."""
        settings, p = self.settings, self.n_features
        if settings.interaction_cst is None and settings.max_features >= 1:
            return np.empty((0, 0), np.uint8)
        allowed = np.ones((len(nodes), p), np.uint8)
        for i, node in enumerate(nodes):
            if node.groups is not None:
                allowed[i] = 0
                for group in node.groups:
                    allowed[i, list(settings.interaction_cst[group])] = 1
            if settings.max_features < 1:
                may = np.flatnonzero(allowed[i])
                n = max(1, math.ceil(settings.max_features * len(may)))
                drawn = may[np.argsort(row_hash(node.key, _FEATURE_STREAM + 1, may), kind="stable")[:n]]
                allowed[i] = 0
                allowed[i, drawn] = 1
        return np.ascontiguousarray(allowed[:, self._own])

    # The end ---------------------------------------------------------------------------------------------------------

    def _finish(self, order, k):
        """Number the nodes of the tree, and give its leaves values from exact sums."""
        numbers, nodes = {0: 0}, [self._nodes[0]]
        for node in order:
            for child in node.children:
                numbers[child.number] = len(nodes)
                nodes.append(child)
        split = {node.number for node in order}
        leaves = np.array([node.number for node in nodes if node.number not in split], np.int64)
        started = time.perf_counter()
        self.shards.settle(leaves)
        self.shards.clock("partition", started)
        return Growth(nodes, numbers, split, leaves, k)


def _shares_of(first, size):
    """Return where the features of each rank begin and end: of about as many bins each, at least one for the first."""
    wanted = first[-1] * np.arange(size + 1) / size
    above = np.searchsorted(first, wanted)
    below = np.maximum(above - 1, 0)
    edges = np.where(wanted - first[below] < first[above] - wanted, below, above)
    return np.concatenate([[0], np.maximum(edges[1:], 1)])


def _is_sharing_worth(comm, first):
    """Tell whether ranks should each sum up and search some of the features, instead of all ranks all of them.

    By the predicted seconds of a round: a slice of the sums and the best splits around the ring, or whole sums.
    """
    of_one = 12 * LEAVES_A_ROUND  # bytes
    padded = comm.size * int(np.diff(first[_shares_of(first, comm.size)]).max())
    shared = comm.seconds_to_share(of_one * padded) + comm.seconds_to_share(0)
    return shared < comm.seconds_to_reduce(of_one * int(first[-1]))


def _table(node):
    """Return for each bin whether its rows go right."""
    _, b, missing_left, *_ = node.found
    if b < 0:
        return 1 - node.left_bins
    table = np.ones(N_BINS, np.uint8)
    table[: b + 1] = 0
    table[MISSING] = not missing_left
    return table


def _best(candidates, m, has_categories):
    """Return the best of several finds for each node; of equal gains that of the lowest feature."""
    gains, found = np.zeros(m), np.zeros((m, 6), np.int64)
    left_bins = np.zeros((m, N_BINS if has_categories else 0), np.uint8)
    for candidate in candidates:
        is_lower = (candidate[0] == gains) & (candidate[1][:, 0] < found[:, 0])
        better = (candidate[0] > gains) | ((gains > 0) & is_lower)
        gains[better], found[better], left_bins[better] = (part[better] for part in candidate)
    return gains, found, left_bins


def _pack(best):
    gains, found, left_bins = best
    return np.concatenate([gains.view(np.int64), found.ravel(), left_bins.ravel().view(np.int64)])


def _unpack(packed, m):
    gains, found, left_bins = packed[:m].view(np.float64), packed[m : 7 * m].reshape(m, 6), packed[7 * m :]
    return gains, found, left_bins.view(np.uint8).reshape(m, -1)
