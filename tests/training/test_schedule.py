"""Which rows form which batch: every row once an epoch, in batches that nothing but seed and epoch decide."""

import itertools

import numpy as np
import pytest
from numba import config

from daskdml.training.schedule import MICRO_ROWS, SLICES, Schedule, micro_batches

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of hashes, as plain Python

# Rows, micro-batches, rows of one: a row alone, fewer rows than a batch, whole units and strata, one row more or less.
SHAPES = [
    (1, 1, 1), (1, 1, 8), (2, 2, 1), (3, 2, 4), (7, 1, 8), (8, 1, 8), (9, 1, 8), (16, 1, 1), (17, 1, 1), (100, 1, 7),
    (128, 1, 8), (127, 1, 8), (129, 1, 8), (256, 2, 8), (257, 2, 8), (255, 2, 8), (1000, 3, 5), (1001, 4, 3),
    (5, 8, 1), (640, 5, 8), (1111, 7, 10),
]  # fmt: skip
if config.DISABLE_JIT:
    SHAPES = [shape for shape in SHAPES if shape[0] < 200]
shapes = pytest.mark.parametrize("n, n_micro, micro_rows", SHAPES)
shuffled = pytest.mark.parametrize("is_shuffled", [True, False], ids=["shuffled", "in order"])
held_shares = pytest.mark.parametrize("n_held", [0, 1, 5], ids=lambda n: f"{n} held")
EPOCHS = (0, 1, 7)


def batches_of(schedule, epoch, step=None):
    """Return the rows of each batch, and of each of its micro-batches; ``step`` batches are asked for at once."""
    found, n = [], schedule.n_batches
    for first in range(0, n, step or max(n, 1)):
        stop = min(first + (step or n), n)
        batches, micro, units, places = schedule.slices(epoch, first, stop)
        rows, edges = schedule.rows_of(epoch, units, places)
        assert edges[0] == 0 and edges[-1] == len(rows) and (np.diff(edges) > 0).all()
        for batch in range(first, stop):
            own = np.flatnonzero(batches == batch)
            found.append([(int(micro[i]), rows[edges[i] : edges[i + 1]]) for i in own])
    return found


def rows_in(batch):
    return np.concatenate([rows for _, rows in batch])


def held_of(schedule):
    return np.concatenate([schedule.held_rows(unit) for unit in range(schedule.n_units)])


def units_by_definition(schedule):
    """Cut strata to units of ``unit_rows``: lists of rows by number of unit."""
    n, k, out = schedule.n_samples, schedule.n_strata, {}
    for stratum in range(k):
        rows = list(range(stratum * n // k, (stratum + 1) * n // k))
        for j in range(0, len(rows), schedule.unit_rows):
            out[stratum * schedule.units_per_stratum + j // schedule.unit_rows] = rows[j : j + schedule.unit_rows]
    return out


@shapes
@shuffled
@held_shares
def test_each_epoch_has_each_trained_row_once_and_no_held_one(n, n_micro, micro_rows, is_shuffled, n_held):
    schedule = Schedule(n, n_micro, micro_rows, 3, is_shuffled, False, n_held)
    held = held_of(schedule)
    assert len(np.unique(held)) == len(held) == n - schedule.n_trained
    for epoch in EPOCHS:
        batches = batches_of(schedule, epoch)
        assert len(batches) == schedule.n_batches and all(batches)
        rows = np.concatenate([rows_in(batch) for batch in batches]) if batches else np.empty(0, int)
        np.testing.assert_array_equal(np.sort(np.concatenate([rows, held])), np.arange(n))


def test_a_share_is_held_out_of_any_number_of_rows():
    """As estimators make schedules: rows, batch sizes and shares of all kinds."""
    for n, batch_size, share, is_shuffled in itertools.product(
        (1, 2, 10, 11, 100, 503), (1, 3, 10, 300), (0.0, 0.1, 0.5, 0.9), (True, False)
    ):
        schedule = Schedule.of(n, min(batch_size, n), 0, is_shuffled=is_shuffled, held_out=share)
        held, batches = held_of(schedule), batches_of(schedule, 2)
        rows = np.concatenate([rows_in(batch) for batch in batches]) if batches else np.empty(0, int)
        np.testing.assert_array_equal(np.sort(np.concatenate([rows, held])), np.arange(n))
        # Of each unit the share but for a row, and for what rounding the rows of a whole unit makes of the share.
        slack = n * abs(schedule.n_held / schedule.unit_rows - share)
        assert abs(len(held) - share * n) <= schedule.n_units + slack
        if share == 0:
            assert schedule.n_held == len(held) == 0


@shapes
@held_shares
def test_each_unit_holds_out_its_share_but_for_a_row(n, n_micro, micro_rows, n_held):
    schedule = Schedule(n, n_micro, micro_rows, 3, True, False, n_held)
    units = units_by_definition(schedule)
    for unit in range(schedule.n_units):
        rows, held = units.get(unit, []), schedule.held_rows(unit)
        assert set(held.tolist()) <= set(rows) and (np.diff(held) > 0).all()
        assert abs(len(held) - len(rows) * n_held / schedule.unit_rows) <= 1


def test_whole_units_hold_out_the_share_that_was_asked_for():
    for batch_size, share in itertools.product((1, 7, 200, 256, 5000), (0.01, 0.1, 0.25, 0.5, 0.9)):
        schedule = Schedule.of(10**6, batch_size, 0, held_out=share)
        assert schedule.unit_rows - schedule.n_held == SLICES * schedule.micro_rows
        assert abs(schedule.n_held - share * schedule.unit_rows) <= 1 or schedule.n_held == 1


def test_held_rows_are_spread_over_a_unit_and_other_seeds_hold_others():
    schedule = Schedule(4000, 1, 200, 3, n_held=800)
    held = schedule.held_rows(0)
    assert len(held) == 800 and np.abs(np.bincount(held // 400, minlength=10) - 80).max() < 40
    assert len(np.intersect1d(held, Schedule(4000, 1, 200, 4, n_held=800).held_rows(0))) < 300


@shapes
@held_shares
def test_batches_are_full_but_at_the_end_of_an_epoch(n, n_micro, micro_rows, n_held):
    """Strata differ by a row: the last two batches may be short, of each stratum the last slice."""
    schedule = Schedule(n, n_micro, micro_rows, 3, True, False, n_held)
    for epoch in EPOCHS:
        batches = batches_of(schedule, epoch)
        for batch in batches[:-2]:
            assert [(micro, len(rows)) for micro, rows in batch] == [(micro, micro_rows) for micro in range(n_micro)]
        sizes = [len(rows_in(batch)) for batch in batches]
        assert sizes == sorted(sizes, reverse=True)
        for stratum in range(n_micro):
            parts = [len(rows) for batch in batches for micro, rows in batch if micro == stratum]
            assert set(parts[:-1]) <= {micro_rows}


@pytest.mark.parametrize("batch_size", [1, 10, 32, 200, 256, 300, 1000])
def test_batches_have_as_many_rows_as_are_asked_for(batch_size):
    for is_shuffled in (True, False):
        schedule = Schedule.of(2500, batch_size, 5, is_shuffled=is_shuffled)
        sizes = [len(rows_in(batch)) for batch in batches_of(schedule, 1)]
        assert sum(sizes) == 2500 and set(sizes[:-2]) <= {batch_size}
        if 2500 % (schedule.n_micro * batch_size) == 0:
            assert set(sizes) == {batch_size}


@shapes
def test_without_shuffling_batches_are_the_rows_in_order(n, n_micro, micro_rows):
    schedule, size = Schedule(n, n_micro, micro_rows, 3, is_shuffled=False), n_micro * micro_rows
    for epoch in EPOCHS:
        batches = batches_of(schedule, epoch)
        expected = [list(range(first, min(first + size, n))) for first in range(0, n, size)]
        assert [rows_in(batch).tolist() for batch in batches] == expected
        for batch in batches:
            assert [micro for micro, _ in batch] == list(range(len(batch)))
            assert {len(rows) for _, rows in batch[:-1]} <= {micro_rows}


@shapes
@shuffled
@held_shares
def test_slices_are_of_their_stratum_and_unit(n, n_micro, micro_rows, is_shuffled, n_held):
    schedule = Schedule(n, n_micro, micro_rows, 3, is_shuffled, False, n_held)
    units = units_by_definition(schedule)
    _, micro, numbers, places = schedule.slices(4, 0, schedule.n_batches)
    rows, edges = schedule.rows_of(4, numbers, places)
    assert len(set(zip(numbers.tolist(), places.tolist()))) == len(numbers)
    for i, unit in enumerate(numbers):
        assert set(rows[edges[i] : edges[i + 1]].tolist()) <= set(units[unit])
        assert not is_shuffled or micro[i] == unit // schedule.units_per_stratum


@shapes
@shuffled
def test_batches_are_the_same_however_many_are_asked_for_at_once(n, n_micro, micro_rows, is_shuffled):
    schedule = Schedule(n, n_micro, micro_rows, 3, is_shuffled, False, 2)
    expected = batches_of(schedule, 1)
    for step in (1, 3):
        found = batches_of(schedule, 1, step)
        assert [[(micro, rows.tolist()) for micro, rows in batch] for batch in found] == [
            [(micro, rows.tolist()) for micro, rows in batch] for batch in expected
        ]


def test_seed_and_epoch_decide_the_batches():
    def order(seed, epoch):
        return np.concatenate([rows_in(batch) for batch in batches_of(Schedule(1000, 2, 10, seed), epoch)])

    kinds = list(itertools.product((0, 1, 2**40), (0, 1, 2, 500)))
    orders = {kind: order(*kind) for kind in kinds}
    for one in kinds:
        np.testing.assert_array_equal(order(*one), orders[one])
        for other in kinds:
            # Two random orders agree in a place or two; in their strata these could in four.
            assert one == other or (orders[one] == orders[other]).sum() < 25


def test_batches_draw_from_all_units():
    """Which slice of a stratum a batch takes is drawn: first batches do not come from first units."""
    schedule = Schedule(16 * 16 * 10, 1, 10, 3)
    firsts = [schedule.slices(epoch, 0, 1)[2][0] for epoch in range(300)]
    counts = np.bincount(firsts, minlength=schedule.n_units)
    assert schedule.n_units == 16 and counts.min() > 3 and counts.max() < 45


def test_rows_of_a_unit_are_dealt_anew_in_each_epoch():
    schedule = Schedule(160, 1, 10, 3)
    together = np.zeros((160, 160))
    for epoch in range(100):
        for batch in batches_of(schedule, epoch):
            together[np.ix_(rows_in(batch), rows_in(batch))] += 1
    apart = together[~np.eye(160, dtype=bool)]
    # Two rows share a batch with probability 9 / 159.
    assert np.diag(together).tolist() == [100] * 160 and abs(apart.mean() - 900 / 159) < 1e-9 and apart.max() < 25


@shapes
@shuffled
@held_shares
def test_units_by_their_definition(n, n_micro, micro_rows, is_shuffled, n_held):
    schedule = Schedule(n, n_micro, micro_rows, 3, is_shuffled, False, n_held)
    units = units_by_definition(schedule)
    assert set(units) <= set(range(schedule.n_units))
    first, stop = schedule.unit_spans(np.arange(schedule.n_units))
    for unit in range(schedule.n_units):
        rows = units.get(unit, [])
        assert list(range(first[unit], stop[unit])) == rows
        np.testing.assert_array_equal(schedule.unit_of(rows), np.full(len(rows), unit))
        one = schedule.unit_spans(unit)
        assert (one[0], one[1]) == (first[unit], stop[unit])
    assert sorted(row for rows in units.values() for row in rows) == list(range(n))


def test_units_of_a_number_of_rows_that_no_list_could_have():
    schedule = Schedule.of(10**13 + 7, 4096, 1)
    rows = np.array([0, 1, 10**12, 10**13 - 1, 10**13 + 6])
    first, stop = schedule.unit_spans(schedule.unit_of(rows))
    assert ((first <= rows) & (rows < stop)).all()


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_mixing_is_a_bijection_that_going_backwards_undoes(n):
    schedule = Schedule(n, 1, 8, 3, is_mixed=True)
    there = schedule.mix(np.arange(n))
    np.testing.assert_array_equal(np.sort(there), np.arange(n))
    np.testing.assert_array_equal(schedule.mix(there, backwards=True), np.arange(n))
    np.testing.assert_array_equal(schedule.mix(schedule.mix(np.arange(n), backwards=True)), np.arange(n))
    some = np.arange(n)[::-3].copy()
    np.testing.assert_array_equal(schedule.mix(some), there[some])
    if n == 1000:
        assert (there == np.arange(n)).sum() < 15
        assert (there == Schedule(n, 1, 8, 4, is_mixed=True).mix(np.arange(n))).sum() < 15


def test_without_mixing_rows_stay_where_they_are():
    for schedule in (Schedule(50, 1, 8, 3), Schedule.of(50, 8, 3, is_shuffled=False, is_mixed=True)):
        for backwards in (False, True):
            np.testing.assert_array_equal(schedule.mix([4, 0, 49], backwards), [4, 0, 49])


def test_micro_batches_divide_a_batch_that_has_a_divisor_near():
    for batch_size in range(1, 3000):
        n, wanted = micro_batches(batch_size), -(-batch_size // MICRO_ROWS)
        near = [k for k in range(max(wanted // 2, 1), 2 * wanted + 1) if batch_size % k == 0]
        assert 1 <= n <= batch_size
        if near:
            assert batch_size % n == 0 and abs(n - wanted) == min(abs(k - wanted) for k in near)


def test_at_least_so_many_micro_batches_as_are_asked_for():
    for batch_size, least in itertools.product((1, 2, 7, 32, 101, 200, 256, 4096), (1, 2, 3, 8, 64)):
        n = micro_batches(batch_size, least)
        assert min(least, batch_size) <= n <= batch_size
        assert n <= 2 * max(-(-batch_size // MICRO_ROWS), least)
