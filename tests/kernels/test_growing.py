"""Entries, histograms, divided leaves and sums of leaves, gradients and losses, against Python's integers."""

import math
from fractions import Fraction

import numpy as np
import pytest

from daskdml.kernels import growing, loss_rows
from daskdml.losses import Absolute, Gamma, Logistic, Multinomial, Pinball, Poisson, Squared
from daskdml.trees.growth import Steps

from .histograms import Rows, Stored, fields, random_entries, unpack

N_BINS, MISSING = 256, 255
LOSSES = [Squared(), Absolute(), Pinball(0.3), Poisson(), Gamma(), Logistic(), Multinomial(4)]
kinds = pytest.mark.parametrize("kind", [Rows, Stored], ids=["dense", "stored"])
by_name = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def fill(gradient, hessian=(), times=(), first_row=0, key=7, scales=(1.0, 1.0), share=1.0, is_stochastic=False):
    gradient, hessian = np.array(gradient, np.float32), np.array(hessian, np.float32)
    entries = np.empty(len(gradient), np.uint64)
    growing.fill_entries(
        gradient, hessian, np.array(times, np.uint8), first_row, key, scales, share, is_stochastic, entries
    )
    return entries


# Entries --------------------------------------------------------------------------------------------------------------


def test_fields_of_entries():
    """Gradients of both signs up to the ends of 16 bits, rounded to the nearest; how often each row counts."""
    rng = np.random.default_rng(0)
    ends = [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 0.49999997, -0.50000006, 16384.0, -16384.0, 1e-40, -1e-40]
    g = np.concatenate([ends, rng.normal(size=88) * 3000]).astype(np.float32)
    h = np.concatenate([[0.0, 1e-40, 0.5, 32768.0, 32767.5], rng.uniform(0, 30000, 95)]).astype(np.float32)
    times = np.concatenate([[0, 15], rng.integers(0, 16, 98)])
    expected = [
        (m, i, math.floor(Fraction(a) + Fraction(1, 2)), math.floor(Fraction(b) + Fraction(1, 2)))
        for i, (m, a, b) in enumerate(zip(times.tolist(), g.tolist(), h.tolist()))
    ]
    assert [unpack(entry) for entry in fill(g, h, times).tolist()] == expected
    np.testing.assert_array_equal(fill(g / 8, h / 4, times, scales=(8.0, 4.0)), fill(g, h, times))


def test_rows_count_once_and_hessians_are_one_where_none_is_given():
    assert [unpack(entry) for entry in fill([-3.0, 5.0]).tolist()] == [(1, 0, -3, 1), (1, 1, 5, 1)]
    assert fill([], []).size == 0


def test_stochastic_rounding_is_unbiased():
    """Up with the probability of the fraction, gradient and hessian each by draws of their own."""
    n = 40_000
    for a, b in ((0.25, 100.75), (-7.125, 0.0625), (-0.001, 3.5)):
        _, _, g, h = fields(fill(np.full(n, a), np.full(n, b), is_stochastic=True))
        ups = g - math.floor(a), h - math.floor(b)
        for up, x in zip(ups, (a, b)):
            share = x - math.floor(x)
            assert np.isin(up, (0, 1)).all()
            assert abs(up.mean() - share) < 5 * math.sqrt(share * (1 - share) / n)
        assert abs(np.corrcoef(ups)[0, 1]) < 5 / math.sqrt(n)


def test_whole_numbers_are_not_rounded():
    g, h = np.arange(-500, 500), np.arange(1000)
    found = fields(fill(g, h, is_stochastic=True))
    np.testing.assert_array_equal(found[2:], [g, h])


def test_draws_hang_on_the_number_of_the_row():
    """Wherever a shard begins; beyond 32 bits too. Other keys draw otherwise."""
    rng = np.random.default_rng(0)
    g, h, times = rng.normal(size=3000) * 100, rng.uniform(0, 100, 3000), rng.integers(0, 16, 3000)
    for first in (0, 5, 2**40):
        whole = fields(fill(g, h, times, first, share=0.6, is_stochastic=True))
        for a, b in ((0, 1), (1, 17), (17, 3000), (2999, 3000)):
            part = fields(fill(g[a:b], h[a:b], times[a:b], first + a, share=0.6, is_stochastic=True))
            np.testing.assert_array_equal(part[[0, 2, 3]], whole[[0, 2, 3], a:b])
            np.testing.assert_array_equal(part[1], np.arange(b - a))
    for first, key in ((2**40, 8), (2**40 + 1, 7), (0, 7)):
        other = fields(fill(g, h, times, first, key, share=0.6, is_stochastic=True))
        assert all(0.2 < (other[k] != whole[k]).mean() < 0.8 for k in (0, 2, 3))


def test_share_of_rows():
    """The others count 0 times; who takes part says nothing about how gradients are rounded."""
    n = 40_000
    times = np.arange(n) % 15 + 1
    for share in (0.5, 0.03, 0.99):
        m, _, g, h = fields(fill(np.full(n, 0.5), np.full(n, 0.5), times, share=share, is_stochastic=True))
        kept = m > 0
        np.testing.assert_array_equal(m[kept], times[kept])
        assert abs(kept.mean() - share) < 5 * math.sqrt(share * (1 - share) / n)
        for up in (g, h):
            assert abs(np.corrcoef(kept, up)[0, 1]) < 5 / math.sqrt(n)
    assert (fields(fill(np.zeros(n), times=times))[0] == times).all()
    # How gradients are rounded says nothing about who takes part.
    drawn = [fields(fill(np.zeros(n), share=0.5, is_stochastic=way))[0] for way in (False, True)]
    np.testing.assert_array_equal(*drawn)


# Histograms -----------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("p", [1, 4, 5, 9])
def test_histogram_of_a_range(kind, p):
    bins = np.random.default_rng(1).integers(0, 256, (2000, p))
    rows = kind(bins)
    entries = rows.entries()
    for start, stop in ((0, 2000), (3, 18), (1000, 1000), (0, 16), (500, 1700)):
        found = rows.add(entries, start, stop, 100)
        np.testing.assert_array_equal(found, rows.histogram(entries[start:stop]))
    twice = rows.add(entries, 0, 700, 546, rows.add(entries, 700, 2000, 546))
    np.testing.assert_array_equal(twice, rows.histogram(entries))


BITS = (12, 15)
# Largest numbers that are scaled to the most that the bits hold, and by rounding to one more.
LARGEST = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


@kinds
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("times", [1, 2, 7, 15])
@pytest.mark.parametrize("is_constant", [False, True])
def test_packed_fields_hold_the_most_entries(kind, bits, times, is_constant):
    """All in one bin, all with the largest gradient, hessian and count: at flushes, one before, and one after."""
    steps = Steps.of((LARGEST, LARGEST), 10**6, bits, times, is_constant)
    n = 2 * steps.most + 1
    rows = kind(np.full((n, 4), 254))
    for signs in (np.ones(n), -np.ones(n), np.where(np.arange(n) < steps.most // 2, -1, 1)):
        hessian = [] if is_constant else np.full(n, LARGEST)
        entries = fill(LARGEST * signs, hessian, np.full(n, times), scales=steps.scales)
        g, h = 2 ** (bits - 1), 1 if is_constant else 2**bits
        assert unpack(int(entries[0])) == (times, 0, int(signs[0]) * g, h)
        for stop in (steps.most - 1, steps.most, steps.most + 1, n):
            expected = np.array([times * g * int(signs[:stop].sum()), times * h * stop, times * stop])
            found = rows.add(entries, 0, stop, steps.most).reshape(3, 4, N_BINS)
            np.testing.assert_array_equal(found[:, :, 254], np.repeat(expected[:, None], 4, axis=1))
            assert not found[:, :, :254].any() and not found[:, :, 255].any()


def test_a_field_is_not_left_half_empty():
    """One entry more than the most could overflow some field, or count more than 8,191."""
    for bits in BITS:
        for times in range(1, 16):
            for is_constant in (False, True):
                most = Steps.of((1.0, 1.0), 10**6, bits, times, is_constant).most + 1
                # Rounding up makes the largest gradient 2**(bits - 1) and the largest hessian 2**bits.
                g, h = 2 ** (bits - 1), 1 if is_constant else 2**bits
                assert most * times > 8191 or max(g, h) * most * times >= 2**25
                assert (most - 1) * times <= 8191 and max(g, h) * (most - 1) * times < 2**25


def test_steps_are_powers_of_two_that_the_entries_hold():
    for largest in (1e-30, 0.3, 0.5, 1.0, 1.0000001, 3.7, 1e30):
        for bits in BITS:
            steps = Steps.of((largest, largest), 1000, bits)
            for scale, end in zip(steps.scales, (2 ** (bits - 1), 2**bits)):
                assert math.frexp(scale)[0] == 0.5
                assert end / 2 <= Fraction(largest) * Fraction(scale) <= end
            for scale in steps.leaf_scales:
                assert math.frexp(scale)[0] == 0.5
                assert 2**59 < Fraction(largest) * Fraction(scale) * 1024 and largest * scale * 1000 < 2**62
    assert Steps.of((0.0, 0.0), 10, 12).scales == (2.0**11, 2.0**12)


# Leaves ---------------------------------------------------------------------------------------------------------------


def check_division(rows, entries, segments, splits, goes_right, adds, most=100):
    """Compare with lists divided one row after the other."""
    found = rows.divide(entries, segments, splits, goes_right, adds, most)
    expected, places = entries.copy(), segments.copy()
    for s, (feature, node, left, right) in enumerate(splits):
        start, stop = segments[node]
        own = entries[start:stop].tolist()
        is_right = [bool(goes_right[s, rows.rows[unpack(entry)[1], feature]]) for entry in own]
        sides = [[entry for entry, right in zip(own, is_right) if right == side] for side in (False, True)]
        expected[start:stop] = sides[0] + sides[1]
        places[left], places[right] = (start, start + len(sides[0])), (start + len(sides[0]), stop)
        sums = rows.histogram(np.array(sides[adds[s]], np.uint64)) if adds[s] >= 0 else rows.zeros()
        np.testing.assert_array_equal(found[2][s], sums)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], places)


@kinds
@pytest.mark.parametrize("add", [-1, 0, 1])
def test_one_leaf_is_divided(kind, add):
    """In the order it was in, whatever lies around it; rows that count 0 times go along."""
    rng = np.random.default_rng(0)
    rows = kind(rng.integers(0, 256, (500, 6)))
    entries = rows.entries()
    for start, stop in ((0, 500), (100, 350), (7, 8), (20, 20)):
        segments = np.zeros((9, 2), np.int64)
        segments[4] = start, stop
        for share in (0.5, 0.0, 1.0, 0.1):
            check_division(rows, entries, segments, [(3, 4, 7, 5)], rng.random((1, 256)) < share, [add])


@kinds
def test_several_leaves_are_divided(kind):
    rng = np.random.default_rng(0)
    rows = kind(rng.integers(0, 256, (900, 5)))
    entries = rows.entries()
    segments = np.zeros((20, 2), np.int64)
    segments[[0, 1, 2, 3]] = (600, 900), (0, 250), (250, 251), (251, 600)
    splits = [(0, 3, 10, 11), (4, 0, 12, 13), (2, 2, 14, 15), (0, 1, 16, 17)]
    check_division(rows, entries, segments, splits, rng.random((4, 256)) < 0.4, [1, 0, -1, 1], most=37)


@kinds
@pytest.mark.parametrize("add", [0, 1])
def test_leaves_longer_than_a_block(kind, add):
    n = 2 * growing._BLOCK + 1000
    rng = np.random.default_rng(0)
    rows = kind(rng.integers(0, 4, (n, 1)))
    entries = rows.entries()
    goes_right = np.zeros((1, 256))
    goes_right[0, [1, 3]] = 1
    for stop in (growing._BLOCK + 5, growing._BLOCK + 6, n):
        segments = np.zeros((3, 2), np.int64)
        segments[0] = 5, stop
        check_division(rows, entries, segments, [(0, 0, 1, 2)], goes_right, [add], most=546)


@pytest.mark.parametrize("has_hessian", [False, True])
def test_sums_of_leaves(has_hessian):
    """Of gradients in steps much finer than those of entries, each as often as it counts; added to what is there."""
    n, scales = 400, (2.0**40, 2.0**37)
    rng = np.random.default_rng(0)
    g = (rng.normal(size=n) * 10.0 ** rng.integers(-8, 3, n)).astype(np.float32)
    h = rng.uniform(0, 3, n if has_hessian else 0).astype(np.float32)
    entries = random_entries(n)
    segments = np.array([(0, 400), (0, 3), (3, 3), (3, 250), (250, 400)], np.int64)
    leaves = np.array([4, 1, 2, 3])
    found = np.full((4, 2), 1000, np.int64)
    growing.sum_leaves(entries, segments, leaves, g, h, scales, found)
    for leaf, sums in zip(leaves, found.tolist()):
        expected = [1000, 1000]
        for entry in entries[slice(*segments[leaf])].tolist():
            times, row, _, _ = unpack(entry)
            expected[0] += times * round(Fraction(float(g[row])) * 2**40)
            expected[1] += times * (round(Fraction(float(h[row])) * 2**37) if has_hessian else 1)
        assert sums == expected


def test_sums_of_leaves_stay_below_64_bits():
    """As many rows as there may be, all with the largest gradient: as one row that stands for them."""
    for n_rows in (1, 1000, 2**20 - 1, 2**20, 10**9):
        for largest in (LARGEST, 1.0):
            g, h = (int(largest * scale) for scale in Steps.of((largest, largest), n_rows, 12).leaf_scales)
            assert g * n_rows < 2**63 and h * n_rows < 2**63


def test_values_of_leaves_are_added():
    """To the raw predictions of their rows, those that count 0 times too, in any column; nowhere else."""
    n = 50
    entries = random_entries(n)
    segments = np.array([(0, 50), (0, 20), (20, 20), (20, 45), (45, 50)], np.int64)
    values = np.array([0.1, 9.0, -2.5])
    start = np.random.default_rng(0).normal(size=(n, 3))
    for raw, column in ((start.copy(), slice(None)), (np.asfortranarray(start), slice(None))):
        growing.add_leaves(entries, segments, np.array([3, 2, 1]), values, raw[column, 1])
        expected = start.copy()
        for (a, b), value in (((20, 45), 0.1), ((0, 20), -2.5)):
            for entry in entries[a:b].tolist():
                expected[unpack(entry)[1], 1] += value
        np.testing.assert_array_equal(raw, expected)


# Gradients and losses -------------------------------------------------------------------------------------------------


def targets_of(loss, n, seed=0):
    """Return raw predictions and targets of a loss."""
    rng = np.random.default_rng(seed)
    k = loss.n_outputs
    raw = 2 * rng.normal(size=n if k == 1 else (n, k))
    if k > 1:
        return raw, rng.integers(0, k, n).astype(np.float64)
    if loss.name == "logistic":
        return raw, rng.integers(0, 2, n).astype(np.float64)
    y = np.round(rng.normal(size=n), 1) if loss.y_domain[0] < 0 else np.round(rng.gamma(2.0, size=n) + 0.1, 1)
    raw[:5] = y[:5]  # at the kink, where there is one
    return raw, y


def gradients_of(loss, raw, y, weight):
    gradient, hessian = np.full((2, loss.n_outputs, len(raw)), 7, np.float32)
    largest = loss_rows.gradients(raw, y, np.empty(0) if weight is None else weight, loss, gradient, hessian)
    return gradient, hessian, largest


@by_name
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_gradients_are_those_of_the_loss(loss, dtype, is_weighted):
    n = 700
    raw, y = targets_of(loss, n)
    y = y.astype(dtype)
    weight = np.random.default_rng(1).uniform(0, 3, n) if is_weighted else None
    if is_weighted:
        weight[::50] = 0.0
    w = np.ones(n) if weight is None else weight
    _, g, h = loss.arrays(raw, y.astype(np.float64), w, 2)
    if loss.n_outputs > 1:
        # The second derivative for a class is w p (1 - p); arrays give w p.
        p = loss.arrays(raw, y.astype(np.float64), np.ones(n), 2)[2]
        h = h * (1 - p)
    gradient, hessian, largest = gradients_of(loss, raw, y, weight)
    for found, expected, most in zip((gradient, hessian), (g, h), largest):
        expected = expected.T if expected.ndim == 2 else expected[None]
        np.testing.assert_allclose(found, expected, rtol=2.0**-23, atol=1e-12)
        assert most == pytest.approx(np.abs(expected).max(), rel=1e-12)


@pytest.mark.parametrize("loss", [Squared(), Logistic(), Multinomial(4)], ids=lambda loss: loss.name)
def test_no_hessians_are_written_where_they_have_no_rows(loss):
    raw, y = targets_of(loss, 700)
    gradient, behind = np.empty((loss.n_outputs, 700), np.float32), np.full(10_000, 7, np.float32)
    # What has no rows stands at the head of an array that shows what is written behind its end.
    largest = loss_rows.gradients(raw, y, np.empty(0), loss, gradient, behind[:0].reshape(loss.n_outputs, 0))
    np.testing.assert_array_equal(gradient, gradients_of(loss, raw, y, None)[0])
    assert (behind == 7).all() and largest[1] == 0


@by_name
def test_gradients_do_not_hang_on_where_a_shard_begins(loss):
    """Bit for bit."""
    raw, y = targets_of(loss, 1100)
    weight = np.random.default_rng(1).uniform(0, 3, 1100)
    for w in (None, weight):
        whole = gradients_of(loss, raw, y, w)
        for a, b in ((0, 1), (1, 1100), (3, 260), (255, 513), (256, 800), (300, 300), (1099, 1100)):
            part = gradients_of(loss, raw[a:b].copy(), y[a:b].copy(), None if w is None else w[a:b].copy())
            for found, expected in zip(part[:2], whole[:2]):
                assert found.tobytes() == np.ascontiguousarray(expected[:, a:b]).tobytes()


@by_name
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_are_those_of_each_row(loss, dtype):
    raw, y = targets_of(loss, 600)
    y = y.astype(dtype)
    expected = [loss.arrays(raw[i : i + 1], y[i : i + 1].astype(float), np.ones(1), 0)[0] for i in range(600)]
    np.testing.assert_allclose(loss_rows.losses(raw, y, loss), expected, rtol=1e-12, atol=1e-14)
    for a, b in ((0, 0), (1, 600), (255, 257), (256, 599)):
        part = loss_rows.losses(raw[a:b].copy(), y[a:b].copy(), loss)
        assert part.tobytes() == loss_rows.losses(raw, y, loss)[a:b].tobytes()
