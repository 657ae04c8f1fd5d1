"""Tables in shards against the arrays and dicts that they stand for."""

from types import SimpleNamespace

import numpy as np
import pytest

from daskdml.compress import FP16, OneBit, PowerSGD, TopK
from daskdml.runtime.tables.network import Service
from daskdml.runtime.tables.session import DenseView, SparseView
from daskdml.runtime.tables.spec import LEAST_PART, SLAB_ROWS, DenseTable, Layout, SparseTable, add_up
from daskdml.utils.memory import Recycled
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


@pytest.mark.parametrize("n_shards, n_parts", [(None, 1), (5, 5), (50, 30)])
def test_a_number_of_shards_that_is_given_is_kept_to(n_shards, n_parts):
    """As far as there are numbers; "so many for each worker" is kept from cutting short tables."""
    layout = Service(0, True, 1, n_shards, True).layout({"w": DenseTable(30)}, 8)
    assert layout.n_shards == (n_shards or 1) and len(layout.parts("w")) == n_parts


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
            stores[shard].apply([{"w": (update[a:b], ())} for update in updates])
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
        return {"w": (rng.normal(size=10).astype("f"), ()), "rows": (rng.permutation(40)[:9], rng.normal(size=(9, 2)))}

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


class Weighted:
    """A rule that is told a weight by each push: a step along the mean, which counts as so much of one."""

    n_moments, n_scalars = 1, 2

    def step(self, theta, update, moments, n_updates, scalars):
        weight, whole = scalars
        moments[0] += n_updates
        theta += update / weight
        return weight / whole


def test_scalars_are_added_up_and_shares_are_counted():
    start, moment = np.arange(4.0), np.ones(4)
    table = DenseTable(4, "float64", start, Weighted(), moments=[moment], n_updates=2)
    store = Layout({"w": table}, 1).store(0)
    for updates, share in (([1.0], 0.5), ([2.0, 3.0], 0.25)):
        store.apply([{"w": (np.full(4, u), np.array([u, u / share]))} for u in updates])
    np.testing.assert_allclose(store.read(None)["w"], start + 2)
    found = store.read({"w": "moments"})["w"]
    np.testing.assert_allclose(found["moments"], [np.full(4, 1 + 2.0 + 2.5)])
    assert found["n"] == store.state()["w"]["n"] == 2.75


@pytest.mark.parametrize("codec", [FP16(), TopK(0.25), OneBit()], ids=str)
def test_updates_are_sent_as_a_codec_makes_them(codec):
    """What it leaves out comes later, from the client that left it out; several are decoded before they are summed."""
    table = DenseTable(100, "float64", compression=codec)
    layout, rng = Layout({"w": table}, 1), np.random.default_rng(0)
    store, sums = layout.store(0), np.zeros(100)
    clients = [
        SimpleNamespace(
            client=SimpleNamespace(name=str(i)), layout=layout, _added={}, _codec_states={}, recycled=Recycled()
        ) for i in range(2)
    ]  # fmt: skip
    for _ in range(300):
        parts = []
        for client in clients:
            view, update = DenseView(client, "w"), rng.normal(size=100)
            view.add(update)
            sums += update
            ((_, (packet, _)),) = view._cut(client._added.pop("w"))
            assert packet.nbytes < 8 * 100
            parts.append({"w": (packet, ())})
        store.apply(parts)
    rest = sum(state.residual for c in clients for state in c._codec_states.values() if hasattr(state, "residual"))
    np.testing.assert_allclose(store.read(None)["w"] + rest, sums, atol=0.5 if codec.reduce_kind == "sum" else 1e-8)


def test_a_table_is_replaced_whole():
    layout = Layout({"w": DenseTable(10_000, "float64", rule=Halving())}, 3)
    stores = [layout.store(shard) for shard in range(3)]
    tables = SimpleNamespace(layout=layout, _added={}, recycled=Recycled())
    theta, moment = np.random.default_rng(0).normal(size=(2, 10_000))
    DenseView(tables, "w").put(theta, [moment], 7)
    for shard, part in DenseView(tables, "w")._cut(tables._added["w"]):
        stores[shard].apply([{"w": part}])
    for shard, a, b in layout.parts("w"):
        state = stores[shard].state()["w"]
        np.testing.assert_array_equal(state["theta"], theta[a:b])
        np.testing.assert_array_equal(state["moments"][0], moment[a:b])
        assert state["n"] == 7


def test_what_was_read_is_nobody_elses():
    store = Layout({"w": DenseTable(3)}, 1).store(0)
    read, state = store.read(None)["w"], store.state()["w"]["theta"]
    store.apply([{"w": (np.ones(3, "f"), ())}])
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


@pytest.mark.parametrize("n_shards", [8, 32])
@pytest.mark.parametrize("n_keys", [1 << 20, 1 << 40])
def test_frequent_keys_do_not_overload_a_shard(n_shards, n_keys):
    """Keys of Zipf(1.1), of which the first is every tenth: asked for once and added up before they are sent."""
    asked, sent, rng = np.zeros(n_shards), np.zeros(n_shards), np.random.default_rng(0)
    layout = Layout({"rows": SparseTable(2)}, n_shards)

    def pull(wanted):
        found = {}
        for shard, what in wanted.items():
            asked[shard] += len(what["rows"])
            found[shard] = {"rows": np.stack([what["rows"], what["rows"] % 7], axis=1).astype("f")}
        return found

    view = SparseView(SimpleNamespace(layout=layout, _added={}, _pull=pull), "rows")
    for _ in range(20):
        keys = rng.zipf(1.1, 20_000) % n_keys
        assert (keys == 1).mean() > 0.05
        rows = view.get_rows(keys)
        np.testing.assert_array_equal(rows, np.stack([keys, keys % 7], axis=1).astype("f"))
        view.add_rows(keys, np.ones((len(keys), 2)))
        for shard, (named, updates) in view._cut(view._tables._added.pop("rows")):
            sent[shard] += len(named)
            assert len(np.unique(named)) == len(named) and updates.shape == (len(named), 2)
    for load in (asked, sent):
        assert load.max() / load.mean() < 1.5


@pytest.mark.parametrize("make, words", [
    (lambda: DenseTable(-1), "shape must be an int or a tuple"), (lambda: DenseTable((2.5,)), "shape must be"),
    (lambda: DenseTable(3, "int64"), "one of float32, float64, got 'int64'"),
    (lambda: DenseTable(3, start=np.zeros(4)), "the table's shape"), (lambda: SparseTable(0), "width must be"),
    (lambda: SparseTable(1, "float16"), "one of float32, float64"), (lambda: SparseTable(1, rule=3), "rule must have"),
    (lambda: DenseTable(3, rule=Halving(), moments=[]), "as many as its rule has"),
    (lambda: DenseTable(3, moments=[np.zeros(3)]), "as many as its rule has"),
    (lambda: DenseTable(3, compression=PowerSGD()), "pushed to whenever one likes"),
])  # fmt: skip
def test_wrong_tables_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
