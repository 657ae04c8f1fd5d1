"""Deaths, memory kills and interrupts: the run finishes with the same bits, or says one sentence and leaves nothing."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cloudpickle
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context, runtime
from daskdml.data import Partitioned

from ..runtime import blocks

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
for _module in (blocks, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(_module)  # workers cannot import the tests

N, P = 24_000, 50


def collections():
    X = da.random.default_rng(0).random((N, P), chunks=(1000, P))
    return X, da.arange(N, chunks=1500)


def reference():
    with runtime.open(Partitioned.from_any(*collections())) as run:
        return run.map_reduce(blocks.column_sums).tobytes()


@pytest.mark.parametrize("mode", ["pinned", "mmap", "stream"])
@pytest.mark.parametrize("kind", ["lazy", "persisted", "in memory"])
def test_a_killed_worker_does_not_change_a_bit(kind, mode):
    expected = reference()
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        X, y = collections()
        if kind == "persisted":
            X, y = client.persist([X, y])
        if kind == "in memory":
            X, y = da.compute(X, y)
            with config_context(runtime="threads"), runtime.open(Partitioned.from_any(X, y)) as run:
                expected = run.map_reduce(blocks.column_sums).tobytes()
        pids = client.run(os.getpid)
        with config_context(memory=mode, runtime="tasks"), runtime.open(Partitioned.from_any(X, y)) as run:
            run.transform_targets(blocks.itself)
            victim = run.map(blocks.process_id)[0]
            killer = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
            killer.start()
            sums = run.map_reduce(blocks.slowly(2.4 / run.n_blocks))
            assert not killer.is_alive() and victim in pids.values()
            assert sums.tobytes() == expected
            assert run.map_reduce(blocks.column_sums).tobytes() == expected
            assert victim not in client.run(os.getpid).values()


def test_a_memory_kill_does_not_cascade(tmp_path):
    """One block takes all the memory of its worker, once: its nanny kills it, and only it."""
    expected = reference()
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, memory_limit="450MB", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        before = set(client.run(os.getpid).values())
        with config_context(memory="pinned"), runtime.open(Partitioned.from_any(*collections())) as run:
            sums = run.map_reduce(functools.partial(greedy_once, index=5, marker=str(tmp_path / "marker")))
            assert sums.tobytes() == expected and (tmp_path / "marker").exists()
            client.wait_for_workers(3, timeout=30)
            assert len(before - set(client.run(os.getpid).values())) == 1


def greedy_once(block, index, marker):
    if block.index == index and not os.path.exists(marker):
        open(marker, "w").close()
        hoard = []
        for _ in range(200):
            hoard.append(np.ones(2_000_000))  # 16 MB
            time.sleep(0.02)
    return blocks.column_sums(block)


@pytest.mark.parametrize("mode", ["pinned", "stream"])
def test_rows_that_kill_every_worker_are_a_sentence(mode):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with config_context(memory=mode), runtime.open(Partitioned.from_any(*collections())) as run:
            with pytest.raises(RuntimeError, match="Workers died 4 times in one pass.*give the workers more memory"):
                run.map_reduce(functools.partial(kill_on, index=3))


@pytest.mark.parametrize("mode", ["pinned", "mmap"])
def test_the_death_of_all_workers_at_once_is_survived(mode):
    expected = reference()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        with config_context(memory=mode), runtime.open(Partitioned.from_any(*collections())) as run:
            run.transform_targets(blocks.itself)
            killer = threading.Timer(0.5, kill_all, (client.run(os.getpid).values(),))
            killer.start()
            assert run.map_reduce(blocks.slowly(0.1)).tobytes() == expected
            assert not killer.is_alive()


def kill_all(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def kill_on(block, index):
    if block.index == index:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_scattered_data_that_are_lost_are_a_sentence():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        (future,) = client.scatter([np.ones((1000, P))])
        X = da.from_delayed(future, (1000, P), float)
        with config_context(memory="stream"), runtime.open(Partitioned.from_any(X)) as run:
            (pid,) = run.map(blocks.process_id)
            holder = next(address for address, found in client.run(os.getpid).items() if found == pid)
            assert client.who_has([future])[future.key] == (holder,)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(RuntimeError, match="lost part of the data"):
                while True:
                    run.map_reduce(blocks.gram)


PROGRAM = """
import os, sys, time
import dask.array as da
from distributed import Client, LocalCluster
from daskdml import config_context, runtime
from daskdml.data import Partitioned

def slow(block):
    time.sleep(0.2)
    return 1

def left(dask_scheduler):
    return [str(key) for key in dask_scheduler.tasks]

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        X = da.ones((24_000, 50), chunks=(200, 50))
        try:
            with config_context(memory=sys.argv[1]), runtime.open(Partitioned.from_any(X)) as run:
                print("started\\n", end="", flush=True)
                run.map_reduce(slow)
        except KeyboardInterrupt:
            deadline = time.time() + 10
            while (tasks := client.run_on_scheduler(left)) and time.time() < deadline:
                time.sleep(0.05)
            start = time.time()
            client.gather([client.submit(os.getpid, workers=[address], pure=False) for address in client.nthreads()])
            print("left", tasks, "busy", round(time.time() - start), flush=True)
"""


@pytest.mark.parametrize("mode", ["pinned", "mmap", "stream"])
def test_ctrl_c_leaves_no_task_behind(mode, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen([sys.executable, str(script), mode], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "left [] busy 0"
