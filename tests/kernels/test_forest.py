"""Trees grown by the kernel are those that plain Python grows from the definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest

from daskdml.kernels import forest
from daskdml.kernels import forest_splits as splits

NOTHING = np.empty(0, np.int64)
CRITERIA = {"gini": splits.GINI, "entropy": splits.ENTROPY, "squared": splits.SQUARED, "poisson": splits.POISSON}


def rows(n, p, n_bins, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, n_bins, (n, p)).astype(np.uint8)
    bins[rng.random((n, p)) < missing] = splits.MISSING
    y = rng.normal(size=n) + (bins[:, 0] > n_bins // 2) + 0.5 * (bins[:, 1] % 3)
    return bins, y, rng.integers(1, 4, n)


def grown(bins, y, times, criterion, n_classes=0, **given):
    n, p = bins.shape
    options = {"max_depth": -1, "least_split": 2, "least_leaf": 1, "max_leaves": -1, "is_random": 0, "tries": p}
    options.update({"least_weight": 0.0, "least_decrease": -np.inf, "senses": NOTHING, "key": 3, **given})
    by_class = n_classes > 0
    chosen, a, b = np.empty(n, np.uint32), np.empty(n, np.int64), np.empty(n, np.int64)
    labels, values = (y.astype(np.int64), np.empty(0)) if by_class else (NOTHING, y)
    m = forest.choose_rows(0, 1, np.empty(0, np.uint64), labels, times.astype(float), n, 1.0, chosen, a, b)
    assert m == np.count_nonzero(times)
    counts = options["least_leaf"] > 1
    return forest.grow(
        np.ascontiguousarray(bins.T), np.full(p, splits.MISSING), np.tile(np.arange(256.0), (p, 1)), options["senses"],
        chosen[:m], a[:m], b[:m], values, options["key"],
        [CRITERIA[criterion], n_classes or 2, options["tries"], options["max_depth"], options["least_split"],
         options["least_leaf"], options["max_leaves"], options["is_random"], counts, True],
        [1.0, 1.0, options["least_weight"], options["least_decrease"]],
    )  # fmt: skip


def impurity(y, w, criterion, n_classes):
    """Weight times impurity, from the definitions."""
    total = w.sum()
    if n_classes:
        shares = [w[y == c].sum() / total for c in range(n_classes)]
        if criterion == "gini":
            return total * (1 - sum(share**2 for share in shares))
        return -total * sum(share * math.log2(share) for share in shares if share > 0)
    mean = (w * y).sum() / total
    if criterion == "squared":
        return (w * (y - mean) ** 2).sum()
    return (w * np.array([v * math.log(v / mean) if v > 0 else 0.0 for v in y])).sum()


def oracle(bins, y, w, criterion, n_classes, least=1):
    """Gain of every split of some rows: a dict of (feature, last bin to the left, whether missing go left)."""
    whole, found = impurity(y, w, criterion, n_classes), {}
    for f in range(bins.shape[1]):
        column = bins[:, f]
        present = np.unique(column[column != splits.MISSING])
        has_missing = bool((column == splits.MISSING).any())
        for left_missing in (0, 1)[: 1 + has_missing]:
            for bin in present:
                left = (column <= bin) & (column != splits.MISSING)
                if left_missing:
                    left |= column == splits.MISSING
                if min(left.sum(), (~left).sum()) < least:
                    continue
                parts = [impurity(y[s], w[s], criterion, n_classes) for s in (left, ~left)]
                if criterion == "poisson" and min((w * y)[left].sum(), (w * y)[~left].sum()) <= 0:
                    continue
                found[f, int(bin), left_missing] = whole - sum(parts)
    return found


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("least", [1, 7])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_split_is_the_best(criterion, least, missing):
    """No other split of a node gains more; the gain, the sums and the rows are the definition's."""
    bins, y, times = rows(400, 4, 9, missing=missing)
    n_classes = 3 if criterion in ("gini", "entropy") else 0
    if n_classes:
        y = np.digitize(y, [0.3, 1.2])
    elif criterion == "poisson":
        y = np.round(np.exp(y)).astype(float)
    nodes, facts, sums = grown(bins, y, times, criterion, n_classes, max_depth=4, least_leaf=least)
    at = {0: np.arange(len(y))}
    for i, node in enumerate(nodes):
        own = at[i]
        assert node[splits.STOP] - node[splits.START] == len(own)
        f = node[splits.FEATURE]
        if n_classes:
            expected = [times[own][y[own] == c].sum() for c in range(3)]
            assert sums[i].tolist() == expected
        else:
            assert sums[i, 1] == times[own].sum()
            np.testing.assert_allclose(facts[i, splits.VALUE], np.average(y[own], weights=times[own]), atol=1e-12)
            np.testing.assert_allclose(
                facts[i, splits.IMPURITY] * times[own].sum(), impurity(y[own], times[own], criterion, 0),
                rtol=1e-7, atol=1e-7,
            )  # fmt: skip
        gains = oracle(bins[own], y[own], times[own], criterion, n_classes, least)
        is_pure = len(np.unique(y[own])) == 1
        if f < 0:
            assert is_pure or node[splits.DEPTH] == 4 or len(own) < 2 * least or not gains
            continue
        key = (f, node[splits.BIN], node[splits.MISSING_LEFT] if (bins[own, f] == splits.MISSING).any() else 0)
        assert gains[key] == pytest.approx(max(gains.values()), rel=1e-6, abs=1e-6)
        assert facts[i, splits.GAIN] == pytest.approx(gains[key], rel=1e-5, abs=1e-5)
        column = bins[own, f]
        left = np.where(column == splits.MISSING, node[splits.MISSING_LEFT] == 1, column <= node[splits.BIN])
        at[node[splits.LEFT]], at[node[splits.LEFT] + 1] = own[left], own[~left]
        above = column[(column > node[splits.BIN]) & (column != splits.MISSING)]
        assert node[splits.NEXT] == (above.min() if len(above) else -1)


def test_the_leaf_that_gains_most_is_split_first():
    """The nodes of a tree with few leaves are those of the whole tree whose gains a greedy choice takes."""
    bins, y, times = rows(500, 4, 12)
    whole, facts, _ = grown(bins, y, times, "squared", max_depth=6)
    few, few_facts, _ = grown(bins, y, times, "squared", max_depth=6, max_leaves=9)
    open_nodes, taken = [0], []
    while len(taken) < 8:
        best = max((i for i in open_nodes if whole[i, splits.FEATURE] >= 0), key=lambda i: facts[i, splits.GAIN])
        open_nodes.remove(best)
        taken.append(facts[best, splits.GAIN])
        open_nodes += [whole[best, splits.LEFT], whole[best, splits.LEFT] + 1]
    inner = few[:, splits.FEATURE] >= 0
    assert inner.sum() == 8 and sorted(few_facts[inner, splits.GAIN]) == pytest.approx(sorted(taken))


def test_drawn_thresholds_are_even_between_the_ends():
    """Over many keys the bin that a root is split at follows the lengths between bins."""
    bins = np.repeat(np.arange(11, dtype=np.uint8), 5)[:, None]
    y = np.arange(55.0)
    drawn, found = [], np.zeros(11, int)
    for key in range(2000):
        nodes, facts, _ = grown(bins, y, np.ones(55), "squared", max_depth=1, is_random=1, key=key * 7919 + 1)
        drawn.append(facts[0, splits.THRESHOLD])
        assert nodes[0, splits.BIN] == int(drawn[-1])
        found[nodes[0, splits.BIN]] += 1
    assert found[10] == 0 and 0 <= min(drawn) and max(drawn) < 10
    # Chi-squared with 9 degrees of freedom: 27.9 is exceeded once in a thousand times.
    assert ((found[:10] - 200) ** 2 / 200).sum() < 27.9


def test_features_are_drawn_evenly():
    """Each of p features is the only one tried as often as the others."""
    rng = np.random.default_rng(0)
    bins = rng.integers(0, 5, (60, 6)).astype(np.uint8)
    found = np.zeros(6, int)
    for key in range(1800):
        nodes, _, _ = grown(bins, rng.normal(size=60), np.ones(60), "squared", max_depth=1, tries=1, key=key * 31 + 5)
        found[nodes[0, splits.FEATURE]] += 1
    assert ((found - 300) ** 2 / 300).sum() < 20.5  # 5 degrees of freedom, once in a thousand


def test_constant_features_are_passed_over():
    """A node tries more features where those it drew have one value, as scikit-learn's do."""
    bins = np.zeros((50, 8), np.uint8)
    bins[25:, 7] = 1
    for key in range(20):
        nodes, _, _ = grown(bins, np.arange(50.0), np.ones(50), "squared", max_depth=1, tries=1, key=key)
        assert nodes[0, splits.FEATURE] == 7


def test_rows_are_drawn_by_their_numbers():
    """How often rows count follows the Poisson distribution, and does not hang on where a range begins."""
    rate = 1.0
    parts = [math.exp(-rate) / math.factorial(k) for k in range(20)]
    chances = (np.cumsum(parts) * 2.0**53).astype(np.uint64)
    times = forest.draws(0, 100_000, 99, chances)
    np.testing.assert_array_equal(forest.draws(40_000, 1000, 99, chances), times[40_000:41_000])
    counts = np.bincount(times, minlength=8)[:8]
    expected = 100_000 * np.array(parts[:8])
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 7 degrees of freedom, once in a thousand
    assert abs(np.corrcoef(times, forest.draws(0, 100_000, 100, chances))[0, 1]) < 0.02


def test_sums_are_exact():
    """Sums of weights are those of Python's integers, in leaves too."""
    bins, y, times = rows(3000, 3, 200)
    weight = times * 0.37
    for labels, values in (((y > 0).astype(np.int64), np.empty(0)), (NOTHING, y)):
        chosen, a, b = np.empty(3000, np.uint32), np.empty(3000, np.int64), np.empty(3000, np.int64)
        m = forest.choose_rows(0, 1, np.empty(0, np.uint64), labels, weight, 3000, 2.0**41, chosen, a, b)
        criterion = splits.GINI if len(labels) else splits.SQUARED
        nodes, _, sums = forest.grow(
            np.ascontiguousarray(bins.T), np.full(3, 200), np.zeros((3, 256)), NOTHING, chosen[:m], a[:m], b[:m],
            values, 3, [criterion, 2, 3, 6, 2, 1, -1, 0, 0, 0], [2.0**-41, 2.0**-41, 0.0, -np.inf],
        )  # fmt: skip
        counted = [round(Fraction(float(v)) * 2**41) for v in weight]
        leaves = nodes[:, splits.FEATURE] < 0
        if len(labels):
            expected = [sum(w for w, c in zip(counted, labels) if c == k) for k in (0, 1)]
            assert sums[0].tolist() == sums[leaves].sum(axis=0).tolist() == expected
        else:
            assert sums[0, 1] == sums[leaves, 1].sum() == sum(counted)


@pytest.mark.parametrize(("is_whole", "size"), [(True, 1.0), (False, 1.0), (False, 2.0**50), (False, 2.0**-50)])
def test_outliers_do_not_hide_the_others(is_whole, size):
    """Beside a target of 1e20 the other rows are divided as well as without it, whatever the size of weights."""
    bins, y, _ = rows(300, 3, 20)
    both, targets = np.vstack([bins, np.full(3, 30, np.uint8)]), np.append(y, 1e20)
    scale = 1.0 if is_whole else 2.0**45 / size
    chosen, a, b = np.empty(301, np.uint32), np.empty(301, np.int64), np.empty(301, np.int64)
    forest.choose_rows(0, 1, np.empty(0, np.uint64), NOTHING, np.full(301, size), 301, scale, chosen, a, b)
    nodes, _, _ = forest.grow(
        np.ascontiguousarray(both.T), np.full(3, 40), np.zeros((3, 256)), NOTHING, chosen, a, b, targets, 3,
        [splits.SQUARED, 2, 3, 4, 2, 1, -1, 0, 0, is_whole], [1.0, 1 / scale, 0.0, -np.inf],
    )  # fmt: skip
    assert nodes[0, splits.BIN] == 19 and nodes[2, splits.STOP] - nodes[2, splits.START] == 1
    gains = oracle(bins, y, np.ones(300), "squared", 0)
    assert gains[nodes[1, splits.FEATURE], nodes[1, splits.BIN], 0] == pytest.approx(max(gains.values()))


@pytest.mark.parametrize("sense", [-1, 1])
@pytest.mark.parametrize("by_class", [False, True])
def test_constraints_bound_values(sense, by_class):
    """All leaves left of a constrained split lie on one side of all leaves right of it."""
    bins, y, times = rows(600, 3, 20)
    senses = np.array([sense, 0, 0])
    if by_class:
        y = (y > 0.8).astype(int)
    nodes, facts, sums = grown(bins, y, times, "gini" if by_class else "squared", 2 * by_class, senses=senses)
    value = sums[:, 1] / sums.sum(axis=1) if by_class else facts[:, splits.VALUE]
    value = np.clip(value, facts[:, splits.LOWER], facts[:, splits.UPPER])

    def leaves(i):
        l = nodes[i, splits.LEFT]
        return [value[i]] if nodes[i, splits.FEATURE] < 0 else leaves(l) + leaves(l + 1)

    checked = 0
    for node in nodes:
        if node[splits.FEATURE] == 0:
            left, right = leaves(node[splits.LEFT]), leaves(node[splits.LEFT] + 1)
            assert max(np.multiply(sense, left)) <= min(np.multiply(sense, right)) + 1e-12
            checked += 1
    assert checked > 3
