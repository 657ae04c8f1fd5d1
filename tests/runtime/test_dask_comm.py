"""Packets between workers: nothing is unpickled, what does not fit is refused, what is over stays over."""

import asyncio
import contextlib
import os
import pathlib
import pickle
import random
import sys
import threading
import time
from types import SimpleNamespace

import cloudpickle
import distributed.protocol.pickle
import numpy as np
import pytest
from distributed.comm import connect
from distributed.protocol import to_serialize

from daskdml.runtime.spmd import dask_comm
from daskdml.runtime.spmd.dask_comm import Turn, Wire, missing_names
from daskdml.runtime.spmd.program import Comm, GroupChanged, Labelled, Meta

from .posts import until, worker

OPENING = {"op": dask_comm.OPERATION, "reply": False, "run": "r", "generation": 1, "source": 0}


async def deliver(post, *messages, **opening):
    """Send messages as another worker would; wait until the handler has ended."""
    comm = await connect(post.worker.address)
    await comm.write({**OPENING, **opening})
    for message in messages:
        await comm.write(message)
    with contextlib.suppress(OSError):
        await comm.read()


def packet(x, number=0):
    return dask_comm._message(number, *dask_comm._describe(Labelled("call 1", np.asarray(x))))


def refuse(*args, **kwargs):
    raise AssertionError("something was unpickled")


def test_ranks_exchange_arrays_and_nothing_is_unpickled(monkeypatch):
    async def main():
        async with worker() as one, worker() as two:
            for module in (pickle, cloudpickle, distributed.protocol.pickle):
                monkeypatch.setattr(module, "loads", refuse)
            group = [one.worker.address, two.worker.address]

            def rank(k):
                wire = Wire((one, two)[k], "r", 1, k, group)
                wire.begin()
                comm, outcome = Comm(k, 2, 1, Meta(2, 1, 2), wire), None
                try:
                    sums = [comm.allreduce(np.arange(n) * (k + 1.0)) for n in (1, 3, 100_000)]
                    outcome = sums, comm.allreduce_values({k: {"rank": k}}, lambda a, b: {**a, "other": b["rank"]})
                    return outcome
                finally:
                    wire.close(is_done=outcome is not None)

            return await asyncio.gather(*(asyncio.to_thread(rank, k) for k in range(2)))

    for sums, values in asyncio.run(main()):
        assert values == {"rank": 0, "other": 1}
        for n, x in zip((1, 3, 100_000), sums):
            np.testing.assert_array_equal(x, np.arange(n) * 3.0)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def broken(tmp_path):
    good = packet(np.zeros(3))
    return {
        "objects": {**good, "arrays": [["|O", [3]]]},
        "records": {**good, "arrays": [["V8", [3]]]},
        "too few bytes": {**good, "arrays": [["<f8", [4]]]},
        "too many bytes": {**good, "arrays": [["<f8", [2]]]},
        "negative": {**good, "arrays": [["<f8", [-1, -3]]]},
        "more arrays than frames": {**good, "arrays": [["<f8", [3]]] * 2},
        "pickled": {**good, "frames": to_serialize(Evil(str(tmp_path / "evil")))},
        "no packet": "hello",
        "no fields": {"number": 0},
        "unknown class": {**good, "is_parcel": False, "header": ["record", "os:system", []]},
        "too large": packet(np.zeros(1000)),
    }


@pytest.mark.parametrize("kind", list(broken(pathlib.Path())))
def test_what_does_not_fit_is_refused_and_ends_the_group(kind, tmp_path):
    async def main():
        async with worker(memory_limit=4000) as post:
            await deliver(post, broken(tmp_path)[kind])
            assert not (tmp_path / "evil").exists()
            assert post.known("r") is None and post._over == {"r": 1}
            with pytest.raises(GroupChanged):
                Wire(post, "r", 1, 1, []).begin()

    asyncio.run(main())


def test_packets_that_wait_are_bounded():
    async def main():
        async with worker(memory_limit=4000) as post:
            await deliver(post, *(packet(np.zeros(100), k) for k in range(3)))
            assert post._over == {"r": 1}  # the third would have been too much

    asyncio.run(main())


def test_a_generation_that_is_over_is_refused_and_a_later_one_kept():
    async def main():
        async with worker() as post:
            post.end("r", 2)
            await deliver(post, packet(np.zeros(3)), "end", generation=2)
            assert post.known("r") is None
            await deliver(post, packet(np.zeros(3)), "end", generation=3)
            assert post.known("r").station.has(3, 0) and not post.known("r").station.has(2, 0)

    asyncio.run(main())


def test_a_packet_that_comes_twice_counts_once():
    async def main():
        async with worker() as post:
            await deliver(post, packet([1.0]), packet([1.0]), packet([2.0], 1), "end")
            station = post.known("r").station
            assert [station.take(1, 0).packet[0] for _ in range(2)] == [1.0, 2.0] and station.is_empty

    asyncio.run(main())


def test_a_rank_that_begins_after_its_group_was_called_back_ends_at_once():
    async def main():
        async with worker() as post:
            post.end("r", 1)  # the driver's word comes before the rank's task
            wire = Wire(post, "r", 1, 0, [])
            with pytest.raises(GroupChanged):
                wire.begin()
            wire.close(is_done=False)
            later = Wire(post, "r", 2, 0, [])
            later.begin()
            later.close(is_done=True)

    asyncio.run(main())


def test_a_peer_that_breaks_off_ends_the_group_even_where_no_rank_has_begun():
    async def main():
        async with worker() as post:
            comm = await connect(post.worker.address)
            await comm.write(OPENING)
            await until(lambda: post.known("r") is not None)
            comm.abort()
            await until(lambda: post._over == {"r": 1} and post.known("r") is None)

    asyncio.run(main())


def test_a_peer_that_cannot_be_reached_ends_the_group():
    async def main():
        async with worker() as post:
            wire = Wire(post, "r", 1, 0, [post.worker.address, "nonsense://nowhere:1"])
            wire.begin()
            wire.send(1, Labelled("call 1", np.zeros(1)))
            with pytest.raises(GroupChanged):
                await asyncio.to_thread(wire.receive, 1)
            wire.close(is_done=False)

    asyncio.run(main())


def test_what_is_over_is_remembered_of_the_newest_runs_only():
    async def main():
        async with worker() as post:
            for k in range(dask_comm.REMEMBERED + 10):
                post.end(f"run {k}", 1)
                post.end("run 0", k)
            assert len(post._over) == dask_comm.REMEMBERED and "run 0" in post._over and "run 1" not in post._over

    asyncio.run(main())


# Turns and interrupts ------------------------------------------------------------------------------------------------


def test_turns_are_taken_in_the_order_of_asking():
    turn, order = Turn(), []
    assert turn.take(lambda: False)

    def wait(k):
        assert turn.take(lambda: False)
        order.append(k)
        turn.give()

    threads = []
    for k in range(5):
        threads.append(threading.Thread(target=wait, args=(k,)))
        threads[-1].start()
        while len(turn._queue) < k + 2:
            time.sleep(0.001)
    turn.give()
    for thread in threads:
        thread.join()
    assert order == list(range(5)) and not turn._queue


def test_who_no_longer_wants_the_turn_does_not_get_it():
    turn, over, answers = Turn(), [], []
    assert turn.take(lambda: False)
    thread = threading.Thread(target=lambda: answers.append(turn.take(lambda: bool(over))))
    thread.start()
    over.append(True)
    turn.look()
    thread.join()
    turn.give()
    assert answers == [False] and not turn._queue


@pytest.mark.parametrize("seed", range(3))
def test_an_interrupt_at_any_instant_ends_the_rank_and_leaves_no_lock(seed):
    """A rank that computes in Python, sends and looks: it ends wherever it is, and all locks are free."""
    draw = random.Random(seed)
    outcomes = []

    def rank(post, begun):
        wire, outcome = Wire(post, "r", 1, 0, [post.worker.address]), None
        try:
            wire.begin()
            begun.set()
            while True:
                for _ in range(draw.randrange(1, 50)):
                    pass
                wire.send(0, Labelled("call 1", np.zeros(1)))
                sum(range(100))
                if draw.random() < 0.5:
                    wire.receive(0)
        except GroupChanged:
            outcome = "changed"
        finally:
            wire.close(is_done=False)
        outcomes.append(outcome)

    async def main():
        for _ in range(20):
            async with worker() as post:
                begun = threading.Event()
                thread = threading.Thread(target=rank, args=(post, begun))
                thread.start()
                await until(begun.is_set)
                await asyncio.sleep(draw.uniform(0, 0.01))
                with post._lock:  # over without being told, as a rank that computes is
                    desk = post._desks["r"]
                desk.over = 1
                while thread.is_alive():
                    post.interrupt("r", 1)
                    await asyncio.sleep(0.001)
                for lock in (post._lock, desk.changed, post.turn._changed):
                    assert lock.acquire(timeout=1)
                    lock.release()
                assert not post._wires and not post.turn._queue

    asyncio.run(asyncio.wait_for(main(), 60))
    assert outcomes == ["changed"] * 20


def test_a_rank_in_a_group_that_stands_is_not_interrupted():
    async def main():
        async with worker() as post:
            wire = Wire(post, "r", 1, 0, [])
            wire.begin()
            post.interrupt("r", 1)  # nobody has ended it
            assert sum(range(1000)) == 499_500
            wire.step_out()
            wire.close(is_done=True)

    asyncio.run(main())


# Names that distributed does not document ----------------------------------------------------------------------------


def test_a_distributed_that_lacks_names_is_no_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed.comm", None)
    assert "distributed.comm" in missing_names()
    monkeypatch.undo()
    assert missing_names() == ""
    assert missing_names(SimpleNamespace(loop=None)) == (
        "Worker.handlers, Worker.connection_args, Worker.memory_manager, Worker.handlers as a dict"
    )


def test_ranks_without_names_are_a_sentence():
    with pytest.raises(RuntimeError, match='this version of distributed lacks Worker.handlers.*runtime="tasks"'):
        dask_comm.post_of(SimpleNamespace(address=f"tcp://nowhere:{os.getpid()}"))
