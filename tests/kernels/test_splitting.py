"""The best split, against all splits there are, in fractions."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest

from daskdml.kernels import splitting
from daskdml.trees.growth import Steps

N_BINS, MISSING = 256, 255
EPSILON = Fraction(1e-15)  # beside l2 in each denominator
INF = float("inf")


class Feature(NamedTuple):
    """Sums of a feature's bins, (gradient, hessian, count) each, and of its missing values."""

    bins: list
    missing: tuple = (0, 0, 0)
    has_missing: bool = False
    is_categorical: bool = False
    sense: int = 0


class Limits(NamedTuple):
    g_step: float = 2.0**-6
    h_step: float = 2.0**-7
    l2: float = 0.0
    least: int = 1
    least_h: float = 0.0


class Split(NamedTuple):
    """A way to divide a leaf; ``left`` the bins that go left, ``sums`` those of the left child."""

    gain: object
    feature: int
    left: frozenset
    sums: tuple


def add_up(parts):
    return tuple(map(sum, zip((0, 0, 0), *parts)))


def value_of(sums, limits, lower=-INF, upper=INF):
    g, h, _ = sums
    value = -g * Fraction(limits.g_step) / (h * Fraction(limits.h_step) + Fraction(limits.l2) + EPSILON)
    return Fraction(min(max(value, lower), upper))


def lefts_of(feature, total, limits):
    """Return the sets of bins that may go left, those first that win against equal ones."""
    known = range(len(feature.bins))
    sums = {**dict(enumerate(feature.bins)), MISSING: feature.missing}
    if not feature.is_categorical:
        n = len(feature.bins)
        right = [frozenset(range(b + 1)) for b in range(n - 1 + feature.has_missing)]
        return right + [frozenset([*range(b + 1), MISSING]) for b in reversed(range(n - 1)) if feature.has_missing]
    support = Fraction(splitting.MIN_CATEGORY_SUPPORT)
    enough = [b for b in [*known, *[MISSING] * feature.has_missing] if sums[b][1] * total[2] >= support * total[1] > 0]
    rank = {b: sums[b][0] * Fraction(limits.g_step) / (sums[b][1] * Fraction(limits.h_step) + support) for b in enough}
    order, half = sorted(enough, key=rank.get), (len(enough) + 1) // 2
    if len(order) < 2:
        return []
    return [frozenset(order[:n]) for n in range(1, half + 1)] + [frozenset(order[-n:]) for n in range(1, half)]


def splits_of(features, total, limits, allowed=None, state=None):
    """Return all splits that are allowed, in the order in which the first of equal ones wins."""
    value, lower, upper = state or (value_of(total, limits), -INF, INF)
    g_step, found = Fraction(limits.g_step), []
    for f, feature in enumerate(features):
        if allowed is not None and not allowed[f]:
            continue
        for left in lefts_of(feature, total, limits):
            sums = add_up([feature.missing if b == MISSING else feature.bins[b] for b in left])
            rest = tuple(a - b for a, b in zip(total, sums))
            too_few = min(sums[2], rest[2]) < limits.least
            if too_few or min(sums[1], rest[1]) * Fraction(limits.h_step) < Fraction(limits.least_h):
                continue
            values = value_of(sums, limits, lower, upper), value_of(rest, limits, lower, upper)
            if (values[0] - values[1]) * feature.sense > 0:
                continue
            gain = Fraction(value) * total[0] - values[0] * sums[0] - values[1] * rest[0]
            if gain > 0:
                found.append(Split(gain * g_step, f, left, sums))
    return found


def find(leaves, limits, features=None, allowed=None, states=None):
    """Run the kernel on leaves, each a list of features; return gains, found and left_bins."""
    p, m = len(leaves[0]), len(leaves)
    totals = np.array([total_of(leaf) for leaf in leaves], np.int64)
    # Bins of all features behind each other, those of missing values last.
    sums = np.array([sum(([*feature.bins, feature.missing] for feature in leaf), []) for leaf in leaves], np.int64)
    first = np.cumsum([0, *(len(f.bins) + 1 for f in leaves[0])]).tolist()
    facts = [(len(f.bins), f.has_missing, f.is_categorical, f.sense, at) for f, at in zip(leaves[0], first)]
    if states is None:
        states = [(float(value_of(total, limits)), -INF, INF) for total in totals.tolist()]
    gains, found = np.full(m, 77.0), np.full((m, 6), 77)
    left_bins = np.full((m, N_BINS), 77, np.uint8)
    # Places in another order than the leaves.
    splitting.find_splits(
        np.ascontiguousarray(sums[::-1].transpose(0, 2, 1)), np.arange(m)[::-1].copy(), features or (0, p),
        np.array(facts, np.int64), totals, np.array(states, float),
        np.zeros((0, 0), np.uint8) if allowed is None else np.array(allowed, np.uint8),
        np.array(limits, float), gains, found, left_bins,
    )  # fmt: skip
    return gains, found, left_bins


def total_of(leaf):
    return add_up([*leaf[0].bins, leaf[0].missing])


def left_of(leaf, found, left_bins):
    """Return the bins that go left as the kernel says it."""
    _, b, missing_left = found[:3].tolist()
    if b < 0:
        assert np.isin(left_bins, (0, 1)).all()
        return frozenset(np.flatnonzero(left_bins).tolist())
    return frozenset([*range(b + 1), *[MISSING] * (missing_left and leaf[found[0]].has_missing)])


def check(leaves, limits, allowed=None, states=None):
    """Compare with all splits; return how many leaves have one."""
    gains, found, left_bins = find(leaves, limits, None, allowed, states)
    n_split = 0
    for s, leaf in enumerate(leaves):
        total = total_of(leaf)
        may = splits_of(leaf, total, limits, allowed and allowed[s], states and states[s])
        # What floats cannot tell apart: sums of such terms, rounded.
        noise = 1e-11 * max([abs(split.gain) for split in may], default=0) + 1e-13
        best = max([split.gain for split in may], default=0)
        assert gains[s] == pytest.approx(float(best), rel=1e-9, abs=float(noise))
        if best <= noise:
            continue
        n_split += 1
        near = [split for split in may if split.gain >= best - noise]
        f, _, missing_left, *sums = found[s].tolist()
        choice = (f, left_of(leaf, found[s], left_bins[s]), tuple(sums))
        assert choice in [split[1:] for split in near]
        # Halves that change places add up in another order, and floats may then differ.
        if all(split.sums == near[0].sums for split in near):
            assert choice == near[0][1:]
        if not leaf[f].has_missing:
            assert missing_left == (2 * sums[2] > total[2])
        elif leaf[f].is_categorical:
            assert missing_left == (MISSING in choice[1])
    return n_split


class Leaves:
    """Random leaves: the same rows by each of several features.

    Parameters
    ----------
    seed : int
    facts : list of (n_bins, has_missing, is_categorical, sense)
    """

    def __init__(self, seed, facts):
        self.rng, self.facts = np.random.default_rng(seed), facts

    def make(self, n_rows, spread=2000, is_constant=False):
        rng = self.rng
        g = rng.integers(-spread, spread + 1, n_rows)
        h = np.ones(n_rows, np.int64) if is_constant else rng.integers(0, 3000, n_rows)
        leaf = []
        for n_bins, has_missing, is_categorical, sense in self.facts:
            where = rng.integers(n_bins + has_missing, size=n_rows)
            # Some bins hold most rows, so that others have few and some none.
            where = np.where(rng.random(n_rows) < 0.5, where, where // 3 * 3)
            parts = [tuple(int(x[where == b].sum()) for x in (g, h, np.ones_like(g))) for b in range(n_bins + 1)]
            missing = parts[n_bins] if has_missing else (0, 0, 0)
            leaf.append(Feature(parts[:n_bins], missing, bool(has_missing), bool(is_categorical), sense))
        return leaf

    def many(self, sizes, **options):
        return [self.make(n, **options) for n in sizes]


NUMBERS = [(7, 0, 0, 0), (5, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0), (2, 1, 0, 0), (20, 0, 0, 0)]
SENSES = [(7, 0, 0, 1), (5, 1, 0, -1), (6, 1, 0, 1), (6, 0, 0, 0), (9, 0, 0, -1)]
CATEGORIES = [(7, 0, 1, 0), (5, 1, 1, 0), (1, 1, 1, 0), (12, 1, 1, 0), (4, 0, 0, 0), (0, 1, 1, 0)]
SIZES = [2, 3, 10, 40, 40, 100, 100, 300, 1000]


@pytest.mark.parametrize("facts", [NUMBERS, SENSES, CATEGORIES], ids=["numbers", "senses", "categories"])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(), Limits(l2=30.0), Limits(least=15), Limits(least_h=60.0), Limits(2.0**-11, 2.0**-12, 0.1, 5, 1e-3),
        Limits(h_step=1.0),
    ],
    ids=["none", "l2", "least count", "least hessian", "all", "large hessians"],
)  # fmt: skip
def test_best_of_all_splits(facts, limits):
    assert check(Leaves(0, facts).many(SIZES), limits) > 2


@pytest.mark.parametrize("facts", [NUMBERS, SENSES, CATEGORIES], ids=["numbers", "senses", "categories"])
def test_hessians_of_one(facts):
    leaves = Leaves(1, facts).many(SIZES, is_constant=True)
    assert check(leaves, Limits(h_step=1.0, least=3, least_h=1e-3)) > 2


@pytest.mark.parametrize("facts", [NUMBERS, SENSES, CATEGORIES], ids=["numbers", "senses", "categories"])
def test_bounds_of_children(facts):
    """Values are clipped: gains are those of the clipped values, from the leaf's clipped value."""
    limits, rng, n_split = Limits(l2=1.0), np.random.default_rng(2), 0
    for seed in range(4):
        leaves = Leaves(seed, facts).many(SIZES)
        states = []
        for leaf in leaves:
            value = float(value_of(total_of(leaf), limits))
            wide = rng.exponential(1.0, 2) * [[0.1], [1.0], [INF]][rng.integers(3)]
            lower, upper = value - wide[0], value + wide[1] if rng.random() < 0.5 else INF
            states.append((min(max(value, lower), upper), lower, upper))
        n_split += check(leaves, limits, states=states)
    assert n_split > 8


def test_allowed_features():
    rng = np.random.default_rng(0)
    leaves = Leaves(3, NUMBERS).many(SIZES)
    allowed = (rng.random((len(SIZES), len(NUMBERS))) < 0.4).tolist()
    allowed[-1] = [False] * len(NUMBERS)
    assert check(leaves, Limits(), allowed=allowed) > 2


def test_a_range_of_features():
    """The best of two ranges is the best of all; numbers of features count from the first of all."""
    leaves, limits = Leaves(4, NUMBERS + CATEGORIES).many(SIZES), Limits()
    whole = find(leaves, limits)
    parts = [find(leaves, limits, features) for features in ((0, 5), (5, len(leaves[0])), (3, 3))]
    assert not parts[2][0].any()
    for s in range(len(leaves)):
        better = parts[int(parts[1][0][s] > parts[0][0][s])]
        assert better[0][s] == whole[0][s]
        if whole[0][s] > 0:
            np.testing.assert_array_equal(better[1][s], whole[1][s])


def test_nothing_to_split():
    """One bin, no rows on one side, equal gradients."""
    alone = [Feature([(50, 40, 10)])]
    empty = [Feature([(0, 0, 0), (50, 40, 10), (0, 0, 0)])]
    even = [Feature([(64, 32, 8), (64, 32, 8), (128, 64, 16)])]
    for leaf in (alone, empty, even):
        gains, _, _ = find([leaf], Limits())
        assert gains[0] == pytest.approx(0.0, abs=1e-12)


# Ties -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sense", [0, 1])
def test_the_lowest_feature_wins(sense):
    bins = [(500, 40, 10), (-300, 50, 12), (-400, 30, 9)]
    for leaf in (
        [Feature(bins, sense=sense)] * 3,
        # The same two halves by other bins.
        [Feature([bins[0], add_up(bins[1:])], sense=sense), Feature(bins, sense=sense)],
        [Feature(bins, sense=sense), Feature([bins[0], add_up(bins[1:])], sense=sense)],
    ):
        _, found, _ = find([leaf], Limits())
        assert found[0].tolist() == [0, 0, False, 500, 40, 10]


@pytest.mark.parametrize("sense", [0, 1])
@pytest.mark.parametrize("n_empty", [1, 2, 7, 30])
def test_the_lowest_bin_wins(n_empty, sense):
    """Wherever the empty bins lie, in vector code and in what is left over."""
    for n_before in range(1, 60):
        bins = [(70, 40, 5)] * n_before + [(0, 0, 0)] * n_empty + [(-110, 45, 5)] * 3
        _, found, _ = find([[Feature(bins, sense=sense)]], Limits())
        assert found[0, 1] == n_before - 1


@pytest.mark.parametrize("state", [None, (-1e9, INF)], ids=["free", "bounded"])
def test_the_lowest_feature_wins_against_exchanged_halves(state):
    rng, lowest = np.random.default_rng(0), []
    for _ in range(100):
        bins = [(*row, 20) for row in np.transpose([rng.integers(-5000, 5000, 2), rng.integers(1, 5000, 2)]).tolist()]
        leaf, limits = [Feature(bins), Feature(bins[::-1])], Limits(2.0**-11, 2.0**-12)
        states = None if state is None else [(float(value_of(total_of(leaf), limits)), *state)]
        _, found, _ = find([leaf], limits, states=states)
        lowest.append(found[0, 0])
    assert not any(lowest)


def test_missing_values_go_right_if_all_gains_the_same():
    """Where none are missing in the leaf."""
    leaf = [Feature([(70, 40, 5), (-110, 45, 5)], has_missing=True)]
    _, found, _ = find([leaf], Limits())
    assert found[0].tolist() == [0, 0, 0, 70, 40, 5]


def test_missing_values_alone():
    """All others against them: they go right, and the last bin left."""
    leaf = [Feature([(70, 40, 5), (60, 40, 5)], missing=(-200, 90, 20), has_missing=True)]
    _, found, _ = find([leaf], Limits())
    assert found[0].tolist() == [0, 1, 0, 130, 80, 10]


# Categories -----------------------------------------------------------------------------------------------------------


def test_categories_of_few_rows_go_right():
    """Support counts rows at the leaf's mean hessian: ten are enough, fewer are not, whatever their gradients."""
    for count, is_used in ((9, False), (10, True), (11, True)):
        leaf = [Feature([(90, 20, 20), (900, count, count), (-200, 30, 30)], is_categorical=True)]
        _, found, left_bins = find([leaf], Limits(h_step=1.0, least=1))
        assert found[0, 1] == -1
        left = set(np.flatnonzero(left_bins[0]).tolist())
        # The highest alone stands against the two lowest; of two, the lowest goes left.
        assert left == ({0, 2} if is_used else {2})


def test_no_more_than_half_of_the_categories_go_left():
    """So those of few rows stand with the others even where they would gain more with the lowest: as scikit-learn's."""
    for n in (1, 2, 3):
        bins = [(-500, 30, 30)] * n + [(400, 30, 30)] * n + [(-300, 9, 9)]
        _, _, left_bins = find([[Feature(bins, is_categorical=True)]], Limits(h_step=1.0))
        assert np.flatnonzero(left_bins[0]).tolist() == list(range(n))


def test_one_category_with_support_is_no_split():
    leaf = [Feature([(90, 20, 20), (900, 9, 9), (-200, 3, 3)], is_categorical=True)]
    gains, _, _ = find([leaf], Limits(h_step=1.0))
    assert gains[0] == 0


def test_missing_values_are_a_category():
    leaf = [Feature([(90, 20, 20), (95, 20, 20)], (-500, 30, 30), has_missing=True, is_categorical=True)]
    _, found, left_bins = find([leaf], Limits(h_step=1.0))
    assert found[0].tolist() == [0, -1, 1, -500, 30, 30]
    assert np.flatnonzero(left_bins[0]).tolist() == [MISSING]


@pytest.mark.parametrize("first", ["category", "number"])
def test_a_category_and_a_number_that_gain_the_same(first):
    bins = [(-500, 40, 40), (300, 50, 50)]
    leaf = [Feature(bins, is_categorical=True), Feature(bins)][:: 1 if first == "category" else -1]
    _, found, _ = find([leaf], Limits(h_step=1.0))
    assert found[0, :2].tolist() == [0, -1 if first == "category" else 0]


def test_shrunk_means_order_categories():
    """By g / (h + 10), not by g / h: a category of few rows comes nearer to the middle."""
    # Means 5, 4 and 3.5; shrunk 2.5, 3.8 and 3.4. To divide the third from the others would gain most.
    leaf = [Feature([(50, 10, 10), (800, 200, 200), (1400, 400, 400)], is_categorical=True)]
    _, found, left_bins = find([leaf], Limits(1.0, 1.0))
    assert np.flatnonzero(left_bins[0]).tolist() == [0, 2]
    assert found[0].tolist() == [0, -1, 1, 1450, 410, 410]  # values missing later go where most rows do


# settle ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [(0, 1000), (200, 777), (200, 200)])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_settle(bins, n_threads):
    """Parts of threads add up; the other child is the parent without them, in the parent's place or in its own."""
    rng = np.random.default_rng(0)
    width, end = 1000, 2**40
    parts = rng.integers(-end, end, (n_threads, 5, 3, width))
    sums = rng.integers(-end, end, (8, 3, width))
    # No second child; one in a place of its own; one in its parent's place; nothing.
    children = np.array([(0, -1, -1), (1, 2, 3), (4, 5, 5), (-1, -1, -1), (6, -1, -1)])
    given = parts.copy()
    added, expected = parts.sum(axis=0), sums.copy()
    for s, own, other, parent in ((0, 0, -1, -1), (1, 1, 2, 3), (2, 4, 5, 5), (4, 6, -1, -1)):
        expected[own] = added[s]
        if other >= 0:
            expected[other] = sums[parent] - added[s]
    own = slice(*bins)
    expected[..., : own.start], expected[..., own.stop :] = sums[..., : own.start], sums[..., own.stop :]
    splitting.settle(parts, children, sums, bins)
    np.testing.assert_array_equal(sums, expected)
    given[:, [0, 1, 2, 4], :, own] = 0
    np.testing.assert_array_equal(parts, given)


@pytest.mark.parametrize("bits", [12, 15])
def test_sums_that_travel(bits):
    """As many rows as 32 bits hold, all with the largest numbers of either sign, in histograms of three ranks; in 64
    bits more."""
    most = Steps.of((1.0, 1.0), 10**9, bits).most_narrow
    for n_rows, dtype in ((most, np.uint32), (most + 1, np.int64), (10**9, np.int64)):
        shares = [n_rows - 2 * (n_rows // 3), n_rows // 3, n_rows // 3]
        for sign in (1, -1):
            # Of the first child in one bin; of the second, whose histogram is not sent, in another.
            own = [(sign * n * 2 ** (bits - 1), n * 2**bits, n) for n in shares]
            total = np.zeros((1, 3, 2), dtype)
            for sums in own:
                parts = np.zeros((2, 2, 3, 2), np.int64)  # of two threads, each half
                for plane, value in enumerate(sums):
                    parts[:, 1, plane, 0] = value // 2, value - value // 2
                out = np.empty((1, 3, 2), dtype)
                splitting.take_sums(parts, np.array([1]), out)
                assert not parts.any()
                total += out
            places = np.zeros((3, 3, 2), np.int64)
            whole = [sum(values) for values in zip(*own)]
            places[2, :, 0], places[2, :, 1] = whole, (5, 6, 7)  # the parent
            splitting.settle_sums(total, np.array([(-1, -1, -1), (0, 1, 2)]), places, (0, 2))
            assert places[0].T.tolist() == [whole, [0, 0, 0]]
            assert places[1].T.tolist() == [[0, 0, 0], [5, 6, 7]]
    assert (most + 1) * 2**bits == 2**32
