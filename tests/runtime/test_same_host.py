"""Packets through shared memory: the same as over the comm, in their order, and nobody else's."""

import asyncio
import os
import random
import struct
import threading
import time

import numpy as np
import pytest

from daskdml.runtime.spmd import dask_comm, same_host
from daskdml.runtime.spmd.dask_comm import Wire
from daskdml.runtime.spmd.program import Comm, GroupChanged, Meta
from daskdml.runtime.spmd.same_host import RING_BYTES, Incoming, Outgoing, may_share

from .posts import until, worker

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "mkfifo") and hasattr(os, "posix_fallocate")), reason="needs named pipes and memory set aside"
)


def pair():
    outgoing = Outgoing()
    incoming = Incoming(outgoing.name)
    outgoing.begin()
    return outgoing, incoming


def frames_of(rng, n_bytes):
    return [memoryview(rng.integers(0, 256, n, dtype=np.uint8)) for n in n_bytes]


def test_what_is_put_comes_out_in_its_order_until_the_ring_is_full():
    rng, (outgoing, incoming) = np.random.default_rng(0), pair()
    waiting, n_put, n_full = [], 0, 0
    for _ in range(3000):
        if rng.random() < 0.55:
            frames = frames_of(rng, rng.integers(0, 200_000, rng.integers(0, 4)))
            what = {"what": f"call {n_put}", "arrays": [["<f8", [3]]], "header": [1.5, None, True, "é"]}
            if outgoing.put(n_put, what, frames):
                waiting.append((n_put, what, [bytes(frame) for frame in frames]))
                n_put += 1
            else:
                n_full += 1
        elif waiting:
            number, what, frames = waiting.pop(0)
            assert incoming.next_number() == number
            found = incoming.take()
            assert found[0] == what and [bytes(frame) for frame in found[1]] == frames
        else:
            assert incoming.next_number() is None
    assert n_put > 1000 and n_full > 10  # went around many times, and was full


def test_large_packets_are_left_to_the_comm():
    outgoing, incoming = pair()
    assert not outgoing.put(0, {}, [memoryview(bytes(RING_BYTES // 4))])
    assert incoming.next_number() is None
    assert outgoing.put(0, {}, [memoryview(bytes(RING_BYTES // 4 - 1000))])


def test_nothing_is_left_of_a_ring_that_both_have():
    outgoing, incoming = pair()
    assert not os.path.exists(os.path.join(same_host._folder(), outgoing.name))
    assert outgoing.put(0, {}, []) and incoming.next_number() == 0


def test_nothing_is_left_of_a_ring_that_nobody_opened():
    outgoing = Outgoing()
    path = os.path.join(same_host._folder(), outgoing.name)
    assert os.stat(path).st_mode & 0o777 == 0o700
    del outgoing
    assert not os.path.exists(path)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", f"daskdml-{'0' * 31}", f"daskdml-{'0' * 32}/..", "x" * 40])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no name of a ring"):
        Incoming(name)


def test_what_is_no_ring_is_refused():
    with pytest.raises(OSError):
        Incoming("daskdml-" + "0" * 32)
    outgoing = Outgoing()
    path = os.path.join(same_host._folder(), outgoing.name)
    os.truncate(os.path.join(path, "ring"), 100)
    with pytest.raises(ValueError, match="no ring"):
        Incoming(outgoing.name)
    os.unlink(os.path.join(path, "pipe"))
    os.truncate(os.path.join(path, "ring"), RING_BYTES + 64)
    open(os.path.join(path, "pipe"), "w").close()
    with pytest.raises(ValueError, match="no pipe"):
        Incoming(outgoing.name)


@pytest.mark.parametrize("note", [(0, 0, 0, 64), (0, 0, 128, 64), (0, RING_BYTES - 64, 64, 128), (0, 0, -64, 64)])
def test_notes_of_more_than_the_ring_has_are_refused(note):
    outgoing, incoming = pair()
    os.write(outgoing._pipe, struct.pack("<4q", *note))
    assert incoming.next_number() == 0
    with pytest.raises(ValueError):
        incoming.take()


def test_a_wait_ends_by_a_packet_a_wake_and_is_quiet_once_the_writer_has_gone():
    outgoing, incoming = pair()
    threading.Timer(0.05, outgoing.put, (0, {}, [])).start()
    incoming.wait()
    assert incoming.next_number() == 0
    incoming.take()
    outgoing.__del__()
    outgoing._pipe = None
    threading.Timer(0.3, incoming.wake).start()
    started, cpu = time.perf_counter(), time.thread_time()
    n_waits = 0
    while time.perf_counter() - started < 0.25:
        incoming.wait()
        n_waits += 1
    assert n_waits < 5 and time.thread_time() - cpu < 0.05


def test_addresses_that_may_share():
    assert may_share("tcp://127.0.0.1:1", "tcp://127.0.0.1:2") and may_share("tls://[::1]:1", "tls://[::1]:2")
    assert not may_share("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")
    assert not may_share("tcp://10.0.0.1:1", "tcp://10.0.0.2:1")
    assert not may_share("tcp://127.0.0.1:1", "tls://127.0.0.1:2")
    assert not may_share("inproc://10.0.0.1/1/1", "inproc://10.0.0.1/1/2")


def two_ranks(work, monkeypatch, refused=0.0):
    """Run ``work(k, comm)`` as two ranks; return what they returned, and how many packets the rings took."""
    put, drawn, taken = Outgoing.put, random.Random(0), []

    def sometimes(self, *args):
        done = drawn.random() >= refused and put(self, *args)
        taken.append(done)
        return done

    monkeypatch.setattr(Outgoing, "put", sometimes)

    async def main():
        async with worker() as one, worker() as two:
            group = [one.worker.address, two.worker.address]

            def rank(k):
                wire = Wire((one, two)[k], "r", 1, k, group)
                wire.begin()
                comm, is_done = Comm(k, 2, 1, Meta(2, 1, 2), wire), False
                try:
                    found = work(k, comm)
                    is_done = True
                    return found
                except GroupChanged:
                    return GroupChanged
                finally:
                    wire.close(is_done)

            found = await asyncio.gather(*(asyncio.to_thread(rank, k) for k in range(2)))
            await until(lambda: not any(post.known("r") for post in (one, two)))
            return found

    return asyncio.run(main()), sum(taken)


@pytest.mark.parametrize("refused", [0.0, 0.5])
def test_sums_are_the_same_whichever_way_packets_take(refused, monkeypatch):
    """Also where a ring is full or packets are too large for it, so that they change between the two ways."""
    sizes = np.random.default_rng(1).choice([0, 1, 100, 30_000, 200_000], 300)

    def work(k, comm):
        for i, n in enumerate(sizes):
            found = comm.allreduce(np.arange(n) + i * (k + 1.0))
            np.testing.assert_array_equal(found, 2 * np.arange(n) + 3.0 * i)
            assert comm.allreduce_values({k: {"rank": k}}, lambda a, b: {**a, "other": b["rank"]})["other"] == 1

    _, n_taken = two_ranks(work, monkeypatch, refused)
    assert n_taken > 200


def test_packets_that_nobody_fetches_yet_wait_in_their_order(monkeypatch):
    """One rank sends far more than a ring holds before the other looks."""

    def work(k, comm):
        for _ in range(20):
            comm.barrier()
        time.sleep(0.3)  # the rings are there
        if k == 0:
            for i in range(60):
                comm.send(1, np.full(25_000, i))
        else:
            time.sleep(0.5)
            for i in range(60):
                assert (comm.receive(0) == i).all()

    _, n_taken = two_ranks(work, monkeypatch)
    assert 20 < n_taken < 90


def test_a_rank_that_ends_wakes_one_that_waits_at_a_ring(monkeypatch):
    def work(k, comm):
        for _ in range(20):
            comm.barrier()
        time.sleep(0.3)
        comm.barrier()
        if k == 0:
            time.sleep(0.3)
            raise GroupChanged
        comm.receive(0)

    started = time.perf_counter()
    found, n_taken = two_ranks(work, monkeypatch)
    assert found == [GroupChanged, GroupChanged] and n_taken > 0 and time.perf_counter() - started < 5


def test_without_room_all_goes_on_over_the_comm(monkeypatch):
    def no_room(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(same_host.os, "posix_fallocate", no_room)
    found, n_taken = two_ranks(lambda k, comm: [comm.allreduce(np.ones(3))[0] for _ in range(50)], monkeypatch)
    assert found == [[2.0] * 50] * 2 and n_taken == 0
    assert dask_comm.SHARE_AFTER < 50
