"""Tables in shards against the arrays and dicts that they stand for."""

import numpy as np
import pytest

from daskdml.runtime.tables.spec import LEAST_PART, SLAB_ROWS, DenseTable, Layout, SparseTable, add_up
from daskdml.utils.portable import pack, unpack


class Halving:
    """A rule with a moment: half of what was added before counts again."""

    n_moments = 1

    def step(self, theta, update, moments, n_updates):
        moments[0] *= 0.5
        moments[0] += update
        theta += moments[0] * n_updates


@pytest.mark.parametrize("n_shards", [1, 3, 8, 64])
@pytest.mark.parametrize("shape", [0, 5, (7, 3), 10 * LEAST_PART + 1])
def test_parts_of_a_dense_table_are_all_of_it(n_shards, shape):
    layout = Layout({"w": DenseTable(shape)}, n_shards)
    parts = layout.parts("w")
    assert sorted(b for _, _, b in parts)[-1] == layout.tables["w"].n_numbers
    assert [a for _, a, _ in parts][1:] == [b for _, _, b in parts][:-1] and parts[0][1] == 0
    assert len({shard for shard, _, _ in parts}) == len(parts) <= n_shards
    assert all(b - a >= min(LEAST_PART // 2, layout.tables["w"].n_numbers) for _, a, b in parts)


def test_short_tables_begin_on_different_shards():
    """Else the first shard would hold all of them."""
    layout = Layout({f"table {i}": DenseTable(50) for i in range(200)}, 16)
    first = [layout.parts(name)[0][0] for name in layout.tables]
    assert max(np.bincount(first, minlength=16)) < 3 * 200 / 16


@pytest.mark.parametrize("start", [None, np.arange(30_000.0), lambda a, b: np.arange(a, b) * 1.0], ids=["0", "a", "f"])
@pytest.mark.parametrize("rule", [None, Halving()], ids=["add", "halving"])
def test_a_dense_table_follows_its_rule(start, rule):
    layout = Layout({"w": DenseTable(30_000, "float64", start, rule)}, 5)
    stores = [layout.store(shard) for shard in range(5)]
    theta = np.zeros(30_000) if start is None else np.arange(30_000.0)
    moment, rng = np.zeros(30_000), np.random.default_rng(0)
    for n in range(1, 4):
        updates = [rng.normal(size=30_000) for _ in range(n)]
        for shard, a, b in layout.parts("w"):
            stores[shard].apply([{"w": update[a:b]} for update in updates])
        if rule is None:
            theta += sum(updates)
        else:
            moment = 0.5 * moment + sum(updates)
            theta += moment * n
    for shard, a, b in layout.parts("w"):
        np.testing.assert_allclose(stores[shard].read(None)["w"], theta[a:b])
        np.testing.assert_allclose(stores[shard].read({"w": None})["w"], theta[a:b])


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("rule", [None, Halving()], ids=["add", "halving"])
def test_a_sparse_table_follows_its_rule(width, rule):
    """Row by row, with the moments of the row; a row that is not added to stays as it is."""
    part = Layout({"w": SparseTable(width, "float64", rule)}, 4).store(0)
    known, moments, rng = {}, {}, np.random.default_rng(0)
    for n in range(1, 40):
        keys = rng.choice(4 * SLAB_ROWS if n % 10 == 0 else 50, 3000 if n % 10 == 0 else 20, replace=False)
        rows = rng.normal(size=(len(keys), width))
        part.apply([{"w": (keys, rows)}])
        for key, row in zip(keys.tolist(), rows):
            moments[key] = 0.5 * moments.get(key, 0.0) + row
            known[key] = known.get(key, 0.0) + (row if rule is None else moments[key] * n)
    wanted = np.array([*known, 10**12, -1])
    (rows,) = part.read({"w": wanted}).values()
    np.testing.assert_allclose(rows, [*known.values(), np.zeros(width), np.zeros(width)], rtol=1e-12, atol=1e-12)


def test_what_a_shard_holds_travels_and_goes_on_alike():
    layout = Layout({"w": DenseTable(10, rule=Halving()), "rows": SparseTable(2, rule=Halving())}, 1)
    store, rng = layout.store(0), np.random.default_rng(0)

    def update():
        return {"w": rng.normal(size=10).astype("f"), "rows": (rng.permutation(40)[:9], rng.normal(size=(9, 2)))}

    for _ in range(5):
        store.apply([update()])
    copy = layout.store(0)
    copy.restore(unpack(pack(store.state())))
    store.restore(store.state())
    for _ in range(3):
        updates = [update(), update()]
        store.apply(updates)
        copy.apply(updates)
    keys = np.arange(40)
    for what in (None, {"rows": keys}):
        for one, other in zip(store.read(what).values(), copy.read(what).values(), strict=True):
            assert one.tobytes() == other.tobytes()


def test_what_was_read_is_nobody_elses():
    store = Layout({"w": DenseTable(3)}, 1).store(0)
    read, state = store.read(None)["w"], store.state()["w"]["theta"]
    store.apply([{"w": np.ones(3, "f")}])
    assert read.tolist() == state.tolist() == [0, 0, 0]


def test_repeated_keys_are_added_up():
    rng = np.random.default_rng(0)
    updates = [(rng.integers(0, 30, 100), rng.normal(size=(100, 2))) for _ in range(3)]
    keys, rows = add_up(updates, SparseTable(2, "float64"))
    expected = {}
    for some, given in updates:
        for key, row in zip(some.tolist(), given):
            expected[key] = expected.get(key, 0.0) + row
    assert keys.tolist() == list(expected)
    np.testing.assert_allclose(rows, list(expected.values()))


@pytest.mark.parametrize("n_shards", [1, 7, 64])
def test_keys_are_spread_over_shards(n_shards):
    layout = Layout({}, n_shards)
    drawn = np.random.default_rng(0).integers(-(2**62), 2**62, 100_000)
    for keys in (np.arange(100_000), np.arange(100_000) << 20, drawn):
        counts = np.bincount(layout.shards_of(keys), minlength=n_shards)
        assert len(counts) == n_shards and counts.max() < 1.2 * len(keys) / n_shards


@pytest.mark.parametrize("make, words", [
    (lambda: DenseTable(-1), "shape must be an int or a tuple"), (lambda: DenseTable((2.5,)), "shape must be"),
    (lambda: DenseTable(3, "int64"), "one of float32, float64, got 'int64'"),
    (lambda: DenseTable(3, start=np.zeros(4)), "the table's shape"), (lambda: SparseTable(0), "width must be"),
    (lambda: SparseTable(1, "float16"), "one of float32, float64"), (lambda: SparseTable(1, rule=3), "rule must have"),
])  # fmt: skip
def test_wrong_tables_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
