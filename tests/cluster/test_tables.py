"""Tables on real worker processes: killed at any instant, what was acknowledged is there once, on every replica."""

import collections
import os
import pathlib
import random
import signal
import sys
import threading
import time

import cloudpickle
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, Nanny, get_worker, wait

import daskdml
from daskdml import DenseTable, SparseTable, config_context
from daskdml.comm.parameter_server import place
from daskdml.runtime.checkpoint import digest_of
from daskdml.runtime.spmd.dask_comm import post_of
from daskdml.runtime.tables import saving
from daskdml.strategies import ASP, BSP, SSP
from tests.table_programs import Descent

pytestmark = pytest.mark.cluster
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

CONSISTENCIES = [BSP(), SSP(2), ASP()]
RECOVERY_SECONDS = 5.0


def rows():
    X = np.random.default_rng(0).normal(size=(12_000, 3))
    y = X @ [1.0, -2.0, 3.0]
    return da.from_array(X, chunks=(1000, 3)), da.from_array(y, chunks=1000)


class Naming(daskdml.Program):
    """Each push is an integer of its own, counted by key; what is acknowledged is written to a file by then."""

    n_steps = 100

    def __init__(self, folder, consistency):
        self.folder, self.consistency = str(folder), consistency

    def tables(self, meta):
        return {"counts": SparseTable(1, "float64"), "sum": DenseTable(10_000, "float64")}

    def init(self, meta):
        return 0, None

    def step(self, state, blocks, comm):
        key, tables = (comm.generation * 100 + comm.rank) * 1000 + state[0], comm.tables
        tables["sum"].get()
        tables["counts"].add_rows([key], [[1.0]])
        tables["sum"].add(np.full(10_000, 1.0))
        tables.push()
        tables.settle()
        with open(os.path.join(self.folder, f"{os.getpid()}"), "a") as file:
            file.write(f"{key} {time.time()}\n")
        if state[0] + 1 < self.n_steps:
            return state[0] + 1, None
        comm.barrier()
        keys = np.arange(10 * 100 * 1000)
        counts, total = tables["counts"].get_rows(keys)[:, 0], tables["sum"].get()
        comm.barrier()  # nobody pushes any more: replicas have the same
        digests = comm.allreduce_values({block.index: _digests() for block in blocks}, lambda a, b: {**a, **b})
        return self.n_steps, (keys[counts > 0], counts[counts > 0], total, digests)

    def done(self, state):
        return state[0] >= self.n_steps


def _digests():
    """Return the hash of each replica on this worker."""
    (host,) = post_of(get_worker()).hosts.values()
    replicas = host.node.replicas
    return {f"{shard} {host.name}": digest_of(replica.store.state()) for shard, replica in replicas.items()}


@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_all_find_the_least_squares(cluster_client, consistency):
    with config_context(runtime="spmd"):
        _, w = daskdml.run(Descent(consistency), *rows())
    np.testing.assert_allclose(w, [1.0, -2.0, 3.0], atol=1e-8)


def kill_some(tmp_path, seed, consistency, how):
    """Run `Naming` on four workers, one of which is killed, or stopped and let go on; return what it found."""
    draw = random.Random(seed)
    with LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        pids = sorted(client.run(os.getpid).values())
        victim = draw.choice(pids)

        def strike():
            while len(list(tmp_path.iterdir())) < 3 and not is_over.wait(0.005):
                pass
            time.sleep(draw.uniform(0.0, 1.0))
            os.kill(victim, how)
            if how == signal.SIGSTOP:
                time.sleep(3.0)
                os.kill(victim, signal.SIGCONT)

        thread, is_over = threading.Thread(target=strike), threading.Event()
        thread.start()
        try:
            with config_context(runtime="spmd"):
                return daskdml.run(Naming(tmp_path, consistency), *rows())[1]
        finally:
            is_over.set()
            thread.join()


def check_counts(tmp_path, found):
    keys, counts, total, digests = found
    log = [line.split() for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    acknowledged = {int(key) for key, _ in log}
    assert len({key // 100_000 for key in acknowledged}) > 1  # there was a second group
    assert acknowledged <= set(keys.tolist()) and set(counts.tolist()) == {1.0}
    # A push that its worker died in may have come to some shards, and not to others.
    assert total.min() >= len(acknowledged) and total.max() <= len(keys) + 1
    by_shard = collections.defaultdict(list)
    for name, digest in digests.items():
        by_shard[name.split()[0]].append(digest)
    assert all(len(set(same)) == 1 for same in by_shard.values())
    assert max(map(len, by_shard.values())) == 2
    times = sorted(float(second) for _, second in log)
    assert max(np.diff(times)) < RECOVERY_SECONDS


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_worker_is_killed_at_any_instant(tmp_path, seed):
    check_counts(tmp_path, kill_some(tmp_path, seed, CONSISTENCIES[seed % 3], signal.SIGKILL))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_stands_still_and_goes_on(tmp_path, seed):
    """Those that wait for it wait; nothing that it does afterwards is lost, or counts twice."""
    keys, counts, total, _ = kill_some(tmp_path, seed, CONSISTENCIES[seed], signal.SIGSTOP)
    log = [line.split()[0] for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert set(map(int, log)) <= set(keys.tolist()) and set(counts.tolist()) == {1.0}
    assert total.min() >= len(log)


class Summing(daskdml.Program):
    """Adds whole numbers, a step at a time; says where it is, and where it has begun."""

    n_steps, ends_at, goes_on = 60, None, False

    def __init__(self, folder, consistency):
        self.folder, self.consistency = str(folder), consistency

    def fingerprint(self):
        return self.folder

    def tables(self, meta):
        return {"dense": DenseTable(40_000, "float64"), "sparse": SparseTable(1, "float64")}

    def init(self, meta):
        return 0, None

    def resume(self, state):
        pathlib.Path(self.folder, "resumed").write_text(str(state[0]))
        return state

    def step(self, state, blocks, comm):
        if state[0] == self.ends_at and not self.goes_on:
            raise InterruptedError
        n, dense, sparse = sum(len(block.X) for block in blocks), comm.tables["dense"], comm.tables["sparse"]
        dense.get()
        dense.add(np.full(40_000, float(n)))
        sparse.add_rows([block.start for block in blocks], [[float(state[0] + 1)]] * len(blocks))
        comm.tables.push()
        time.sleep(0.02)
        if comm.rank == 0:
            pathlib.Path(self.folder, "step").write_text(str(state[0]))
        if state[0] + 1 < self.n_steps:
            return state[0] + 1, None
        comm.tables.settle()
        comm.barrier()
        return self.n_steps, (dense.get(), sparse.get_rows(np.arange(12_000))[:, 0])

    def done(self, state):
        return state[0] == self.n_steps


@pytest.mark.slow
def test_a_shard_that_cannot_be_read_again_holds_up_nobody(tmp_path, monkeypatch):
    """A damaged file: the worker that was to hold it says so, and the others do not wait for it."""
    folder, (X, y) = tmp_path / "checkpoints", rows()
    first, again = Summing(tmp_path, SSP(2)), Summing(tmp_path, SSP(2))
    first.ends_at = again.ends_at = 10
    with (
        config_context(runtime="threads", n_threads=2, checkpoint=str(folder), checkpoint_every=1e-9),
        pytest.raises(InterruptedError),
    ):
        daskdml.run(first, X, y)
    begin_on, again.goes_on = saving.begin_on, True

    def begin(shelf, *args):
        found = begin_on(shelf, *args)
        for path in folder.glob("*.parts/tables-0-*@*"):
            path.write_bytes(b"daskdml checkpoint 1\nxxxx")
        return found

    monkeypatch.setattr(saving, "begin_on", begin)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster),
        config_context(runtime="spmd", checkpoint=str(folder), resume=True),
        pytest.raises(RuntimeError, match="could not be held by the worker.*is damaged"),
    ):  # fmt: skip
        daskdml.run(again, X, y)


@pytest.mark.slow
def test_a_worker_without_a_rank_says_what_it_cannot_hold(tmp_path, monkeypatch):
    """All rows are with one worker, and the files of the other one's shards are damaged."""
    folder, (X, y) = tmp_path / "checkpoints", rows()
    first, again = Summing(tmp_path, SSP(2)), Summing(tmp_path, SSP(2))
    first.ends_at = again.ends_at = 10
    first.replicas = again.replicas = 0
    with (
        config_context(runtime="threads", n_threads=2, checkpoint=str(folder), checkpoint_every=1e-9),
        pytest.raises(InterruptedError),
    ):
        daskdml.run(first, X, y)
    begin_on, again.goes_on = saving.begin_on, True

    def begin(shelf, *args):
        found = begin_on(shelf, *args)
        for shard, (node,) in place(found[0].n_shards, [f"node at {address}" for address in addresses], 1).items():
            for path in folder.glob(f"*.parts/tables-{shard}-*@*") if node.endswith(addresses[1]) else ():
                path.write_bytes(b"daskdml checkpoint 1\nxxxx")
        return found

    monkeypatch.setattr(saving, "begin_on", begin)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client,
        config_context(runtime="spmd", checkpoint=str(folder), resume=True),
        pytest.raises(RuntimeError, match="could not be held by the worker.*is damaged"),
    ):  # fmt: skip
        addresses = sorted(client.nthreads())
        X, y = client.persist([X, y], workers=[addresses[0]])
        wait([X, y])
        daskdml.run(again, X, y)


@pytest.mark.slow
@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_a_worker_whose_rows_all_move_away_is_not_waited_for(tmp_path, consistency):
    """One of far more threads joins; what the old workers' clients had pushed counts."""
    X, y = (part[:3000] for part in rows())
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def join():
            while len(list(tmp_path.iterdir())) < 2 and not is_over.wait(0.005):
                pass
            cluster.worker_spec["many"] = {"cls": Nanny, "options": {"nthreads": 8}}
            cluster.sync(cluster._correct_state)

        thread, is_over = threading.Thread(target=join), threading.Event()
        thread.start()
        program = Naming(tmp_path, consistency)
        program.n_steps = 400
        try:
            with config_context(runtime="spmd"):
                found = daskdml.run(program, X, y)[1]
        finally:
            is_over.set()
            thread.join()
        assert len(client.nthreads()) == 3
    check_counts(tmp_path, found)


@pytest.mark.slow
@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
def test_two_neighbours_die_and_a_checkpoint_is_gone_on_from(tmp_path, consistency):
    """An error that says so; and from shards that were put down no count is lost or doubled, on other workers."""
    folder, at = tmp_path / "checkpoints", tmp_path / "step"
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        pids = sorted(client.run(os.getpid).values())

        def strike():
            while not (at.exists() and int(at.read_text() or 0) >= 20):
                time.sleep(0.005)
            for pid in pids[:2]:
                os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        with (
            config_context(runtime="spmd", checkpoint=str(folder), checkpoint_every=0.1),
            pytest.raises(RuntimeError, match="Go on from a checkpoint.*replicas = 2"),
        ):
            daskdml.run(Summing(tmp_path, consistency), *rows())
        thread.join()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster),
        config_context(runtime="spmd", checkpoint=str(folder), resume=True),
    ):  # fmt: skip
        dense, sparse = daskdml.run(Summing(tmp_path, consistency), *rows())[1]
    assert int((tmp_path / "resumed").read_text()) >= 1
    assert set(dense.tolist()) == {60 * 12_000.0}
    assert set(sparse[sparse > 0].tolist()) == {60 * 61 / 2} and (sparse > 0).sum() >= 12
    assert os.listdir(folder) == []
