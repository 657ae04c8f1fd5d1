"""Tables of numbered rows: each row has one place, and what decays is what was said to."""

import numpy as np
import pytest

from daskdml.runtime.tables.rows import LARGE, MOST_GROWTH, RowPart, RowTable, SavedRows
from daskdml.runtime.tables.spec import DenseTable, Layout


@pytest.mark.parametrize("n_rows", [1, 2, 97, 1000, LARGE, LARGE + 513, 2 * LARGE - 1])
@pytest.mark.parametrize("n_shards", [1, 3, 8])
def test_every_row_has_one_place(n_rows, n_shards):
    table = RowTable(n_rows)
    layout = Layout({"rows": table, "other": DenseTable(3)}, n_shards)
    n_parts = layout.n_parts("rows")
    numbers = [table.numbers_of(part, n_parts) for part in range(n_parts)]
    assert sorted(n for n in np.concatenate(numbers).tolist() if n < n_rows) == list(range(n_rows))
    keys = np.unique(np.random.default_rng(0).integers(0, n_rows, 500)).astype(np.int32)
    where, places, edges = table.deal(keys, n_parts)
    order = np.argsort(where)
    for part in range(n_parts):
        own = slice(edges[part], edges[part + 1])
        np.testing.assert_array_equal(numbers[part][places[own]], keys[order[own]])
    stores = [layout.store(shard) for shard in range(n_shards)]
    held = {shard: len(store.parts["rows"].rows) for shard, store in enumerate(stores) if "rows" in store.parts}
    assert held == {layout.shard_of_part("rows", part): len(numbers[part]) for part in range(n_parts)}


def test_frequent_rows_that_follow_each_other_lie_on_different_shards():
    """The most frequent 2,000 of Zipf's law with 1.1, and those that a batch of 20,000 draws."""
    table, rng = RowTable(10_000_000), np.random.default_rng(0)
    u = rng.random(20_000)
    drawn = np.minimum((1e7**-0.1 * u + (1 - u)) ** -10.0, 1e7).astype(np.int64) - 1
    edges = table.deal(np.unique(drawn).astype(np.int32), 32)[2]
    assert np.diff(edges).max() / np.diff(edges).mean() < 1.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_decays_is_multiplied_when_it_is_read(dtype):
    """Against an array that is multiplied at every step; long enough for a part to be multiplied out."""
    table, rng = RowTable(40, 3, dtype, n_decaying=2), np.random.default_rng(0)
    part, expected, scale, n_scaled = RowPart(table, 0, 1), np.zeros((40, 3)), 0.0, 0
    for _ in range(120):
        places, added = rng.permutation(40)[:9].astype(np.int32), rng.normal(size=(9, 3)).astype(dtype)
        left = rng.uniform(0.3, 1.0)
        scale += np.log(left)
        expected[:, :2] *= left
        expected[places] += added
        before = part.log_scale
        part.apply([(places, added, scale, -1.0)])
        n_scaled += part.log_scale != before
        np.testing.assert_allclose(part.read((places, scale)), expected[places], rtol=1e-4, atol=1e-6)
    assert scale < -2 * MOST_GROWTH and n_scaled >= 2
    copied = RowPart(table, 0, 1)
    copied.restore(part.state())
    copied.rescale(scale)
    all_places = np.arange(40, dtype=np.int32)
    for one in (part, copied):
        np.testing.assert_allclose(one.read((all_places, scale)), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(copied.rows[:, :2], expected[:, :2], rtol=1e-4, atol=1e-6)


def test_a_push_that_is_far_behind_leaves_nothing():
    """Neither a number that is none, as zero over zero is, nor anything of the reader's own time."""
    part, place = RowPart(RowTable(1, 2, n_decaying=1), 0, 1), np.zeros(1, np.int32)
    part.apply([(place, np.array([[2.0, -0.1, 0.0]]), -2000.0, 9.0)])
    part.apply([(place, np.array([[5.0, -0.1, 0.0]]), 0.0, 9.0)])
    np.testing.assert_allclose(part.read((place, 0.0)), [[2.0, -0.1]], rtol=1e-12)


def test_parts_that_will_be_restored_read_nothing():
    gone = RowTable(5, start=SavedRows("/nowhere/at/all", ["rows-0"], 3))
    Layout({"rows": gone}, 1).empty_store(0)
    with pytest.raises(ValueError, match=r"Part 0 of 1 has rows \(5, 1\), and got \(4, 1\)"):
        RowPart(gone, 0, 1, is_empty=True).restore({"rows": np.zeros((4, 1))})


def test_rows_to_begin_with_are_on_their_shards():
    start = np.array([3, 17, 5], np.int32), np.array([[1.0], [2.0], [3.0]])
    layout = Layout({"rows": RowTable(20, start=start)}, 4, least_part=1)
    found = np.zeros(20)
    for part in range(4):
        rows = layout.store(layout.shard_of_part("rows", part)).parts["rows"].rows[:, 0]
        found[layout.tables["rows"].numbers_of(part, 4)] = rows
    assert {n: found[n] for n in np.flatnonzero(found).tolist()} == {3: 1.0, 17: 2.0, 5: 3.0}


@pytest.mark.parametrize("n_rows", [0, -1, 2**31, 2.5, "many"])
def test_refused(n_rows):
    with pytest.raises(ValueError, match="n_rows must be an int from 1"):
        RowTable(n_rows)
