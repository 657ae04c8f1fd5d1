"""Programs that share tables: what they find, and what they may count on."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import daskdml
from daskdml import DenseTable, Program, SparseTable, config_context
from daskdml.comm.parameter_server import HasLeft, Leave
from daskdml.runtime.placing import assign
from daskdml.runtime.spmd import simulate
from daskdml.runtime.tables.network import Inbox, Network, Service
from daskdml.runtime.tables.session import take_part
from daskdml.strategies import ASP, BSP, SSP
from daskdml.testing import SimulatedCluster
from tests.table_programs import Descent

ALONE = SimpleNamespace(check=lambda: None)
CONSISTENCIES = [None, BSP(), SSP(0), SSP(3), ASP()]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 3))
    return X, X @ [1.0, -2.0, 3.0]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_all_find_the_least_squares(rows, consistency, n_threads):
    with config_context(n_threads=n_threads):
        _, w = daskdml.run(Descent(consistency), *rows)
    np.testing.assert_allclose(w, [1.0, -2.0, 3.0], atol=1e-8)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_in_step_is_gradient_descent(rows, n_threads):
    """Clock by clock the sum over ranks, to rounding, and the same bits again."""
    X, y = rows
    program, w = Descent(BSP()), np.zeros(3)
    program.n_steps = 7
    for _ in range(7):
        w -= 0.5 * X.T @ (X @ w - y) / len(X)
    with config_context(n_threads=n_threads):
        found = [daskdml.run(program, X, y)[1] for _ in range(2)]
    np.testing.assert_allclose(found[0], w, rtol=1e-12)
    assert found[0].tobytes() == found[1].tobytes()


IN_STEP = Service(staleness=0, is_collective=True, replicas=0, n_shards=None, caches=True)


class Counting(Program):
    """Counts which keys its rows have, row by row of a sparse table."""

    def tables(self, meta):
        return {"counts": SparseTable(2, "float64")}

    def init(self, meta):
        return None

    def step(self, state, blocks, comm):
        counts = comm.tables["counts"]
        for block in blocks:
            keys = block.X[:, 0].astype(np.int64)
            counts.add_rows(keys, np.column_stack([np.ones(len(keys)), block.y]))
        comm.tables.push()
        comm.barrier()
        return counts.get_rows(np.arange(-1, 40)), counts.get_rows([]), counts.get_rows([7, 7])

    def done(self, state):
        return state is not None


@pytest.mark.parametrize("n_threads", [1, 3])
def test_rows_are_added_up_by_their_keys(n_threads):
    rng = np.random.default_rng(0)
    keys, y = rng.integers(0, 39, 100_000), rng.integers(0, 9, 100_000).astype(float)
    with config_context(n_threads=n_threads):
        rows, none, twice = daskdml.run(Counting(), keys[:, None].astype(float), y)
    np.testing.assert_array_equal(rows[1:40, 0], np.bincount(keys, minlength=39))
    np.testing.assert_array_equal(rows[1:40, 1], np.bincount(keys, y, minlength=39))
    assert not rows[[0, 40]].any() and none.shape == (0, 2)
    np.testing.assert_array_equal(twice, rows[[8, 8]])


@pytest.mark.parametrize("staleness", [0, 2])
def test_nobody_is_further_ahead_than_is_allowed(staleness):
    """One rank sleeps between its clocks; the others, who do not, are never more than so many before it."""
    network = Network({"w": DenseTable(10)}, 3, Service(staleness, staleness == 0, 0, None, True))
    ranks, leads, failures = [network.tables(r, ALONE) for r in range(3)], [], []

    def work(rank):
        try:
            for _ in range(12):
                ranks[rank]["w"].get()
                leads.append(ranks[rank].clock - min(one.clock for one in ranks))
                time.sleep(0.01 if rank == 0 else 0.0)
                ranks[rank]["w"].add(np.ones(10))
                ranks[rank].push()
            ranks[rank].leave()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(r,)) for r in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and max(leads) == staleness


@pytest.mark.parametrize("consistency", [SSP(0), SSP(3), ASP()], ids=str)
def test_every_push_counts_once(consistency):
    """Powers of a base tell which pushes of which rank are in the sum: all of them, each once."""

    class Named(Program):
        def __init__(self):
            self.consistency = consistency

        def tables(self, meta):
            return {"w": DenseTable((30, 8), "float64")}

        def init(self, meta):
            return 0, None

        def step(self, state, blocks, comm):
            own = np.zeros((30, 8))
            own[state[0], comm.rank] = 2.0**state[0]
            comm.tables["w"].add(own)
            comm.tables.push()
            if state[0] + 1 < 30:
                return state[0] + 1, None
            comm.barrier()
            return 30, (comm.size, comm.tables["w"].get())

        def done(self, state):
            return state[0] == 30

    with config_context(n_threads=4):
        _, (size, found) = daskdml.run(Named(), np.zeros((400_000, 3)))
    assert size > 1
    np.testing.assert_array_equal(found[:, :size], np.repeat(2.0 ** np.arange(30)[:, None], size, axis=1))


def test_a_rank_that_fails_ends_the_others():
    class Failing(Descent):
        def step(self, state, blocks, comm):
            if comm.rank == 1 and state[0] == 3:
                raise ZeroDivisionError("here")
            return super().step(state, blocks, comm)

    with config_context(n_threads=3), pytest.raises(ZeroDivisionError, match="here"):
        daskdml.run(Failing(BSP()), np.ones((400_000, 3)), np.ones(400_000))


@pytest.mark.parametrize("name, value, words", [
    ("consistency", "SSP", r"BSP\(\), SSP\(staleness\), ASP\(\), got 'SSP'"), ("consistency", SSP, "got <class"),
    ("consistency", SSP(-1), "staleness"), ("replicas", 1.5, "replicas must be an int of at least 0, got 1.5"),
    ("tables", lambda meta: [DenseTable(3)], "must return a dict of DenseTable and SparseTable"),
    ("tables", lambda meta: {"w": np.zeros(3)}, "must return a dict of DenseTable and SparseTable"),
    ("tables", lambda meta: {"w": DenseTable(3, start=lambda a, b: np.zeros(9))}, r"start\(0, 1\) must return 1"),
])  # fmt: skip
@pytest.mark.parametrize("size", [None, 2])
def test_wrong_programs_are_refused(name, value, words, size):
    program = Descent()
    setattr(program, name, value)
    with pytest.raises(ValueError, match=words):
        daskdml.run(program, np.ones((10, 3)), np.ones(10), cluster=size and SimulatedCluster(size, rows_per_block=5))


def test_one_that_was_held_to_be_dead_enters_anew():
    """Its old client is refused for good: nobody waits for what that had pushed."""
    network = Network({"w": DenseTable(10)}, 2, Service(3, False, 0, None, True))
    first = network.tables(0, ALONE)
    network.carry([("control", Leave("rank 0"))])
    first["w"].add(np.ones(10))
    with pytest.raises(HasLeft, match="pushes are refused"):
        first.push()
    assert first.client.n_unacknowledged == 0 and first.client.is_answered
    wire, name = first.wire, "rank 0 again"
    wire.clients = {"rank 0": first.client}
    network.inboxes["rank 0"] = Inbox(lambda message, post: None)
    network.inboxes[name] = Inbox(lambda message, post: [post(*one) for one in wire.clients[name].on(message)])
    service = Service(3, False, 0, None, True)
    again = take_part(wire, name, SimpleNamespace(barrier=lambda: None, generation=1), network.layout, service)
    again["w"].add(np.ones(10))
    again.push()
    again.settle()
    assert again["w"].get().tolist() == [1.0] * 10


@pytest.mark.parametrize("call, error, words", [
    (lambda t: t["v"], ValueError, "no table 'v'; this program has w, rows"),
    (lambda t: t["w"].add(np.ones(3)), ValueError, r"has shape \(10,\), got an update of \(3,\)"),
    (lambda t: t["rows"].add_rows([1, 2], np.ones(2)), ValueError, r"rows of shape \(2, 1\) for 2 keys"),
    (lambda t: t["rows"].get_rows([1.5]), ValueError, "whole numbers of one dimension, got float64"),
])  # fmt: skip
def test_wrong_calls_are_refused(call, error, words):
    tables = Network({"w": DenseTable(10), "rows": SparseTable()}, 1, IN_STEP).tables(0, ALONE)
    with pytest.raises(error, match=words):
        call(tables)


# On workers in virtual time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_workers_in_virtual_time_find_the_same(rows, consistency, size):
    X, y = (part[:5000] for part in rows)
    _, w = SimulatedCluster(size, rows_per_block=256).run(Descent(consistency), X, y)
    np.testing.assert_allclose(w, [1.0, -2.0, 3.0], atol=1e-8)


@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
@pytest.mark.parametrize("faults", [
    {"kills": [(0.05, 2)]}, {"kills": [(0.05, 0), (1.5, 1)]}, {"suspects": [(0.06, 1)]}, {"joins": [(0.05, 7)]},
    {"kills": [(0.05, 3)], "joins": [(0.4, 8)], "suspects": [(1.8, 2)]},
], ids=str)  # fmt: skip
def test_workers_die_and_come(rows, faults, consistency):
    X, y = (part[:5000] for part in rows)
    cluster = SimulatedCluster(5, rows_per_block=256, seed=3, **faults)
    _, w = cluster.run(Descent(consistency), X, y)
    np.testing.assert_allclose(w, [1.0, -2.0, 3.0], atol=1e-6)
    assert cluster.report.generations > 1


@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_a_worker_whose_rows_all_move_away_is_not_waited_for(rows, consistency, monkeypatch):
    """One of eight threads joins two of one thread each, with three blocks: one of these has none left."""

    def assign_to_threads(held, lost, threads, sizes):
        return assign(held, lost, {name: 8 if name == 9 else 1 for name in threads}, sizes)

    monkeypatch.setattr(simulate, "assign", assign_to_threads)
    X, y = (part[:3000] for part in rows)
    cluster = SimulatedCluster(2, rows_per_block=1000, joins=[(0.05, 9)])
    _, w = cluster.run(Descent(consistency), X, y)
    np.testing.assert_allclose(w, [1.0, -2.0, 3.0], atol=1e-6)
    assert cluster.report.generations == 2


def test_shards_that_are_lost_are_missed_in_words(rows):
    X, y = (part[:5000] for part in rows)
    cluster = SimulatedCluster(4, rows_per_block=256, kills=[(0.06, 0), (0.06, 1), (0.06, 2)])
    with pytest.raises(RuntimeError, match="shards of the parameter server are gone"):
        cluster.run(Descent(), X, y)


def test_a_history_is_a_function_of_its_seed(rows):
    X, y = (part[:5000] for part in rows)
    found = []
    for seed in (0, 0, 1):
        cluster = SimulatedCluster(4, rows_per_block=256, seed=seed, kills=[(0.05, 2)])
        _, w = cluster.run(Descent(SSP(2)), X, y)
        found.append((w.tobytes(), cluster.report.trace))
    assert found[0] == found[1] and found[0][1] != found[2][1]


def test_slow_batches_are_not_waited_for():
    """A twentieth of the clocks takes ten times as long: in step all wait for the slowest of them, each time."""

    class Waits(Program):
        tells_work = True

        def __init__(self, consistency):
            self.consistency = consistency

        def tables(self, meta):
            return {"w": DenseTable(10)}

        def init(self, meta):
            return 0

        def step(self, state, blocks, comm):
            comm.tables["w"].get()
            comm.worked(lambda: 100_000)
            comm.tables["w"].add(np.ones(10))
            comm.tables.push()
            return state + 1

        def done(self, state):
            return state == 100

    seconds = []
    for consistency in (BSP(), SSP(3), ASP()):
        cluster = SimulatedCluster(8, rows_per_block=256, hiccups=(0.05, 10.0), seconds_per_row=1e-7)
        cluster.run(Waits(consistency), np.zeros((5000, 1)))
        seconds.append(cluster.report.seconds)
    assert seconds[1] < 0.75 * seconds[0] and seconds[2] < 0.55 * seconds[0]
