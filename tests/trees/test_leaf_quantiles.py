"""Quantiles of leaves are NumPy's, or the definition's where rows have weights, wherever the rows are."""

from fractions import Fraction

import numpy as np
import pytest

from daskdml.trees.leaf_quantiles import leaf_quantiles

from .tables import ALONE, Table, on_ranks


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
