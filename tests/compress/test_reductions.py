"""Arrays of several ranks added up through codecs: the same bits everywhere, and bytes counted where they are sent."""

import numpy as np
import pytest

from daskdml.compress import FP16, QSGD, ErrorFeedback, Identity, OneBit, PowerSGD, RandomK, SignificantRows, TopK
from daskdml.runtime.spmd import Program
from daskdml.runtime.spmd.threads import run_threads
from daskdml.testing import SimulatedCluster

from .test_codecs import add_up

CODECS = [
    Identity(), FP16(), QSGD(), QSGD(bits=4), OneBit(), TopK(0.05), RandomK(0.1), PowerSGD(2),
    *map(ErrorFeedback, (QSGD(), OneBit(), TopK(0.05), RandomK(0.1), PowerSGD(2))),
]  # fmt: skip
SHAPE, STEPS = (40, 12), 6


def array_of(rank, step, shape=SHAPE, dtype=np.float32):
    return np.random.default_rng([rank, step]).normal(size=shape).astype(dtype)


class AddUp(Program):
    """Each step adds up an array of each rank; the state has a hash of every rank's sums, and the bytes sent."""

    def __init__(self, codec, shape=SHAPE, n_steps=STEPS, topology=None):
        self.codec, self.shape, self.n_steps, self.topology = codec, shape, n_steps, topology

    def fingerprint(self):
        return str(self.codec)

    def init(self, meta):
        return ()

    def local(self, blocks):
        return {"codec": None}

    def step(self, state, local, comm):
        before = comm.bytes_sent
        total, local["codec"] = comm.allreduce_codes(
            array_of(comm.rank, len(state), self.shape), self.codec, local["codec"], self.topology
        )
        sent, size = comm.bytes_sent - before, comm.size
        same = comm.allgather(np.frombuffer(total.tobytes(), np.uint8))
        assert all((one == same[0]).all() for one in same)
        most = float(comm.allreduce(np.array([sent], np.float64), operation="max")[0])
        return (*state, (total, most, size))

    def done(self, state):
        return len(state) == self.n_steps


def by_definition(codec, n_ranks, n_steps=STEPS, shape=SHAPE):
    """What ranks that encode by themselves send, added up."""
    states, sums = [codec.start(rank if codec.reduce_kind == "gather" else 0) for rank in range(n_ranks)], []
    for step in range(n_steps):
        total = 0.0
        for rank in range(n_ranks):
            packet, states[rank] = codec.encode(array_of(rank, step, shape), states[rank])
            total = total + codec.decode(packet).astype(np.float64)
        sums.append(total)
    return sums


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("n_ranks", [1, 2, 5])
def test_simulated_ranks(codec, n_ranks):
    cluster = SimulatedCluster(n_ranks, rows_per_block=1)
    found = cluster.run(AddUp(codec), np.zeros((n_ranks, 1)))
    exact = [sum(array_of(rank, step).astype(np.float64) for rank in range(n_ranks)) for step in range(STEPS)]
    if codec.reduce_kind == "gather" or n_ranks == 1:
        exact = by_definition(codec, n_ranks)
    elif codec.reduce_kind == "linear":
        states, exact = [codec.start()] * n_ranks, []
        for step in range(STEPS):
            totals, _, states = add_up(codec, [array_of(rank, step) for rank in range(n_ranks)], states)
            exact.append(totals[0])
    for (total, _, size), expected in zip(found, exact, strict=True):
        assert size == n_ranks and total.dtype == np.float32
        tolerance = 2e-3 if codec.reduce_kind == "sum" and not codec.exact else 1e-5
        np.testing.assert_allclose(total, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_threads_give_what_simulated_ranks_give(codec):
    """The same code on another transport: to the bit."""
    from daskdml.data import Chunk
    from daskdml.runtime.spmd.program import Meta

    blocks = Chunk(np.zeros((3, 1))).blocks(0, 0, 1)
    program = AddUp(codec, topology="tree")
    found = run_threads(program, blocks, Meta(3, 1, 3), 3).state
    expected = SimulatedCluster(3, rows_per_block=1).run(program, np.zeros((3, 1)))
    for (total, most, _), (other, other_most, _) in zip(found, expected, strict=True):
        assert total.tobytes() == other.tobytes() and most == other_most


@pytest.mark.parametrize(
    "codec, n_ranks, least",
    [
        (FP16(), 2, 1.95), (FP16(), 8, 1.95),
        (PowerSGD(2), 2, 40), (PowerSGD(2), 8, 40),
        (TopK(0.01), 8, 12), (OneBit(), 8, 7),
        (QSGD(), 2, 3.8),
    ],
    ids=str,
)  # fmt: skip
def test_bytes_of_a_layer_against_a_ring_without_compression(codec, n_ranks, least):
    """784 x 128 float32, counted where they are sent, of the rank that sends most; codes that add up go round too."""
    shape = 784, 128
    cluster = SimulatedCluster(n_ranks, rows_per_block=1)
    ((_, most, _),) = cluster.run(AddUp(codec, shape, 1, "ring"), np.zeros((n_ranks, 1)))
    ring = 2 * (n_ranks - 1) / n_ranks * shape[0] * shape[1] * 4
    assert ring / most >= least


@pytest.mark.parametrize("codec", [QSGD(), TopK(), RandomK(), PowerSGD()], ids=str)
def test_codes_that_cannot_be_added_up_on_their_way(codec):
    class Wrong(AddUp):
        def step(self, state, local, comm):
            comm.allreduce(array_of(0, 0), compression=self.codec)

    with pytest.raises(ValueError, match="cannot be added up on its way; use allreduce_codes"):
        SimulatedCluster(2, rows_per_block=1).run(Wrong(codec), np.zeros((2, 1)))


def sizes_below(n_ranks):
    """Ranks of the subtree of each rank, itself among them: rank r reports to (r - 1) // 2."""
    sizes = [1] * n_ranks
    for rank in range(n_ranks - 1, 0, -1):
        sizes[(rank - 1) // 2] += sizes[rank]
    return sizes


def most_packets(n_ranks, topology):
    """Packets that the rank sends which sends most."""
    if topology == "central":
        return (n_ranks - 1) ** 2
    if topology in ("ring", "doubling", "halving", None):
        return n_ranks - 1
    below, sent = sizes_below(n_ranks), [0] * n_ranks
    for rank in range(1, n_ranks):
        sent[rank] += below[rank]
        sent[(rank - 1) // 2] += n_ranks - below[rank]
    return max(sent)


@pytest.mark.parametrize("n_ranks", range(1, 10))
def test_packets_of_all_take_the_way_that_is_asked_for(n_ranks):
    """The same bits by every way, and other bytes of the rank that sends most: a packet has 24 numbers and places."""
    for codec in (ErrorFeedback(TopK(0.05)), QSGD(), OneBit(), SignificantRows()):
        found = {
            topology: SimulatedCluster(n_ranks, rows_per_block=1).run(
                AddUp(codec, n_steps=2, topology=topology), np.zeros((n_ranks, 1))
            )
            for topology in (None, "central", "tree", "doubling", "ring", "halving")
        }  # fmt: skip
        for topology, states in found.items():
            for (total, most, _), (expected, _, _) in zip(states, found["ring"], strict=True):
                assert total.tobytes() == expected.tobytes()
                if codec.name == "top_k":
                    assert most == most_packets(n_ranks, topology) * 24 * 6


def test_ways_that_there_are_not():
    class Wrong(AddUp):
        def step(self, state, local, comm):
            if self.codec is None:
                return comm.allreduce_blocks({comm.rank: np.ones(3)}, topology=self.topology)
            return comm.allreduce_codes(array_of(0, 0), self.codec, topology=self.topology)

    for codec, topology, names in (
        (TopK(), "star", "central, tree, doubling, ring, halving"),
        (FP16(), "doubling", "central, tree, ring, halving with a lossy codec"),
        (None, "doubling", "central, tree, ring"),
    ):
        with pytest.raises(ValueError, match=f"must be one of {names}, got '{topology}'"):
            SimulatedCluster(2, rows_per_block=1).run(Wrong(codec, topology=topology), np.zeros((2, 1)))


class SumOfBlocks(Program):
    """Add up one array per block along the tree over blocks; the state has the sum and the bytes of each rank."""

    def __init__(self, length, topology):
        self.length, self.topology = length, topology

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        before, n_blocks = comm.bytes_sent, 11
        own = {b: array_of(b, 0, (self.length,)) for b in range(n_blocks) if b * comm.size // n_blocks == comm.rank}
        total = comm.allreduce_blocks(own, n_blocks, np.empty(self.length, np.float32), topology=self.topology)
        sent = comm.allgather(np.array([comm.bytes_sent - before]))
        same = comm.allgather(np.frombuffer(total.tobytes(), np.uint8))
        assert all((one == same[0]).all() for one in same)
        return total, [int(one[0]) for one in sent]

    def done(self, state):
        return state is not None


@pytest.mark.parametrize("length", [1000, 70_000])
@pytest.mark.parametrize("n_ranks", range(1, 10))
def test_exact_sums_take_the_way_that_is_asked_for(n_ranks, length):
    """To the bits of the tree over blocks; 70,000 numbers are cut into slices unless somebody says otherwise."""
    found = {
        topology: SimulatedCluster(n_ranks, rows_per_block=1).run(SumOfBlocks(length, topology), np.zeros((n_ranks, 1)))
        for topology in (None, "central", "tree", "ring")
    }
    expected = SimulatedCluster(1, rows_per_block=1).run(SumOfBlocks(length, None), np.zeros((1, 1)))[0]
    sent = {topology: one[1] for topology, one in found.items()}
    assert all(total.tobytes() == expected.tobytes() for total, _ in found.values())
    if n_ranks == 2:  # each gives the other all that it has: two vectors, and where they stand in the tree over blocks
        assert sent[None] == [8 * length + 32] * 2
    else:
        assert sent[None] == sent["ring" if length * 8 >= 1 << 18 else "tree"]
    assert sent["central"][0] == (n_ranks - 1) * length * 4
    assert sent["tree"][0] == min(n_ranks - 1, 2) * length * 4
    if n_ranks > 3:
        assert sent["central"][0] > sent["tree"][0]
        assert max(sent["ring"]) < max(max(sent["tree"]), max(sent["central"]))
