"""Shards lie evenly, and few of them move when nodes come and go."""

import math

import pytest

from daskdml.comm.parameter_server import Control, Node, place
from daskdml.comm.parameter_server.placement import loads

from .histories import Named


@pytest.mark.parametrize("n_nodes", [1, 2, 3, 5, 8, 64])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_node_holds_its_share(n_nodes, length):
    n_shards, nodes = 8 * n_nodes, [f"tcp://10.0.0.{i}:4000" for i in range(n_nodes)]
    chains = place(n_shards, nodes, length)
    heads, held = loads(chains, nodes)
    assert all(len(set(chain)) == len(chain) == min(length, n_nodes) for chain in chains.values())
    assert max(heads.values()) == 8
    assert max(held.values()) <= 8 * min(length, n_nodes) + 1
    assert place(n_shards, reversed(nodes), length) == chains


def settle(control, nodes, messages):
    """Deliver messages until there are none."""
    messages = list(messages)
    while messages:
        to, message = messages.pop(0)
        if to == "control":
            messages += control.on(message)
        elif to in nodes:
            messages += nodes[to].on(message)
    assert control.is_settled


@pytest.mark.parametrize("n_nodes", [2, 3, 8, 20])
def test_few_shards_move(n_nodes):
    """One that comes takes its share, one that goes leaves its share to the others, and nothing else moves."""
    names = [f"node {i}" for i in range(n_nodes + 1)]
    nodes = {name: Node(name, lambda shard: Named()) for name in names}
    n_shards = 8 * n_nodes
    control = Control(n_shards, names[:-1])
    settle(control, nodes, control.begin())
    before = {shard: set(chain) for shard, chain in control.directory.chains.items()}
    settle(control, nodes, control.joined(names[-1]))
    after = control.directory.chains
    moved = sum(len(set(after[shard]) - before[shard]) for shard in after)
    share = 2 * n_shards / (n_nodes + 1)
    heads, held = loads(after, names)
    assert moved <= 1.25 * share and max(held.values()) <= math.ceil(share) + 1
    assert max(heads.values()) - min(heads.values()) <= 2
    settle(control, nodes, control.lost(names[0]))
    again = control.directory.chains
    moved = sum(len(set(again[shard]) - set(after[shard])) for shard in again)
    assert moved <= held[names[0]] + 2 and all(len(chain) == 2 for chain in again.values())


def test_a_chain_is_turned_only_while_it_is_quiet():
    """One that comes last is nobody's head at first; it becomes one without a shard on its way."""
    nodes = {name: Node(name, lambda shard: Named()) for name in "abc"}
    control = Control(6, "ab")
    settle(control, nodes, control.begin())
    settle(control, nodes, control.joined("c"))
    heads, _ = loads(control.directory.chains, "abc")
    assert heads == {"a": 2, "b": 2, "c": 2}
