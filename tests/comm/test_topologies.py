"""All topologies keep the contract; the choice between them follows the predicted seconds."""

import numpy as np
import pytest

from daskdml.comm import TOPOLOGIES, allreduce, choose_topology, exchange
from daskdml.comm.moves import Pass, Recv, Send
from daskdml.testing import TopologyContract


class TestCentral(TopologyContract):
    def make(self):
        return TOPOLOGIES["central"]


class TestTree(TopologyContract):
    def make(self):
        return TOPOLOGIES["tree"]


class TestDoubling(TopologyContract):
    def make(self):
        return TOPOLOGIES["doubling"]


class TestRing(TopologyContract):
    def make(self):
        return TOPOLOGIES["ring"]


class TestHalving(TopologyContract):
    def make(self):
        return TOPOLOGIES["halving"]


@pytest.mark.slow
@pytest.mark.parametrize("contract", [TestCentral, TestTree, TestDoubling, TestRing, TestHalving])
def test_a_million_entries_on_every_number_of_ranks(contract, monkeypatch):
    monkeypatch.setattr(contract, "sizes_of_long", range(1, 18))
    contract().test_long_vectors()


@pytest.mark.parametrize("topology", ["ring", "halving"])
def test_rings_and_halves_send_the_least(topology):
    """2 (P - 1) / P of the vector, counted at the transport."""
    size, length = 8, 80_000
    _, sent = exchange([allreduce(r, size, np.ones(length), topology=topology) for r in range(size)])
    assert sent == [2 * 7 * length * 8 // 8] * size


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 16])
def test_bytes_are_those_that_are_foretold(topology, size):
    length = 16 * 13 * 15
    _, sent = exchange([allreduce(r, size, np.ones(length), topology=topology) for r in range(size)])
    foretold = [TOPOLOGIES[topology].bytes_sent(r, size, 8 * length) for r in range(size)]
    np.testing.assert_allclose(sent, foretold, rtol=0.02, atol=1)


def test_halves_take_few_messages():
    """2 log2(P), counted as moves."""

    def messages(moves):
        n, answer = 0, None
        while True:
            try:
                move = moves.send(answer)
            except StopIteration:
                return n
            n += isinstance(move, (Send, Pass))
            answer = yield move

    counts = []
    for rank in range(16):
        counting = messages(allreduce(rank, 16, np.ones(64), topology="halving"))
        counts.append(counting)
    results, _ = exchange(counts)
    assert results == [8] * 16


def test_short_values_take_few_messages_and_long_ones_few_bytes():
    assert choose_topology(2, 400, 1e-3, 3e8) in ("central", "tree", "doubling")
    assert choose_topology(64, 400, 1e-3, 3e8) == "doubling"
    assert choose_topology(64, 400, 1e-3, 3e8, exact=False) == "halving"
    assert choose_topology(64, 400_000_000, 1e-3, 3e8) == "halving"
    assert choose_topology(48, 400_000_000, 1e-3, 3e8) == "ring"


@pytest.mark.parametrize("size", range(1, 70))
@pytest.mark.parametrize("exact", [True, False])
def test_fewest_bytes_are_those_of_a_ring(size, exact):
    """Whatever the length; in fewer messages where ranks are a power of two."""
    for n_bytes in (40, 400_000):
        name = choose_topology(size, n_bytes, 1e-3, 3e8, exact, saves_bytes=True)
        most = max(TOPOLOGIES[name].bytes_sent(rank, size, n_bytes) for rank in range(size))
        assert most <= 1.01 * 2 * (size - 1) * n_bytes / size
        if size > 3:
            assert name == ("ring" if size & (size - 1) else "halving")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_shapes_are_kept(topology):
    values = np.arange(24.0).reshape(4, 2, 3)
    results, _ = exchange([allreduce(r, 4, values[r], topology=topology) for r in range(4)])
    np.testing.assert_array_equal(results[3], values.sum(axis=0))


def forgetful(rank, size, x, combine):
    """A mutant: the last rank's value is forgotten."""
    return (yield from TOPOLOGIES["tree"].allreduce(rank, size, x * (rank < size - 1 or size == 1), combine))


def keeping(rank, size, x, combine):
    """A mutant: rank 0 keeps its own value instead of opening the packet that it sealed."""
    total = yield from TOPOLOGIES["central"].allreduce(rank, size, x, combine)
    return total if rank else total * (1 + 1e-15)


@pytest.mark.parametrize("mutant", [forgetful, keeping])
def test_the_contract_catches(mutant):
    class Mutant(TopologyContract):
        def make(self):
            return type("Topology", (), {"allreduce": staticmethod(mutant), "needs_exact": False})

    with pytest.raises(AssertionError):
        Mutant().test_sums_are_right_and_replicas_equal()


def test_ranks_that_wait_for_each_other_are_named():
    def waits(other):
        yield Recv(other)

    with pytest.raises(RuntimeError, match="rank 0 waits for rank 1, rank 1 waits for rank 0"):
        exchange([waits(1), waits(0)])


def test_packets_nobody_wants_are_named():
    def sends():
        yield Send(1, np.ones(1))

    def sleeps():
        return
        yield

    with pytest.raises(RuntimeError, match="Packets that nobody received: 1 from rank 0 to rank 1"):
        exchange([sends(), sleeps()])


def test_what_is_no_move_is_refused():
    def shouts():
        yield "hello"

    with pytest.raises(TypeError, match="yields Send, Recv, Seal, Pass or Open; got 'hello'"):
        exchange([shouts()])
