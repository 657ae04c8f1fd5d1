"""Which nodes hold which shard: consistent hashing with bounded loads, so that few shards move when nodes change.

D. Karger et al., "Consistent hashing and random trees", 1997; with a limit on what a node may hold, V. Mirrokni,
M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads", 2018. A node's wish for a shard is a hash of both
names (highest random weight: D. Thaler, C. Ravishankar, 1998), which needs no ring and no virtual nodes.
"""

import hashlib
import math
from collections import Counter


def wish(shard, node):
    """Return how much a node wants a shard: a hash of both, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{shard}\0{node}".encode(), digest_size=8).digest(), "big")


def place(n_shards, nodes, length):
    """Return the chain of each shard.

    Parameters
    ----------
    n_shards : int
    nodes : iterable of str
    length : int
        Nodes that hold a shard; all of them where there are fewer.

    Returns
    -------
    dict of int to tuple of str
        Head first. Every node is head of at most ``ceil(n_shards / n_nodes)`` shards.

    Examples
    --------
    >>> chains = place(4, ["a", "b"], 2)
    >>> sorted(chain[0] for chain in chains.values()), chains[0]
    (['a', 'a', 'b', 'b'], ('b', 'a'))
    """
    nodes = sorted(nodes)
    length = min(length, len(nodes))
    chains, heads = {}, Counter()
    most_heads = math.ceil(n_shards / len(nodes))
    for shard in range(n_shards):
        wanting = sorted(nodes, key=lambda node: -wish(shard, node))
        head = next(node for node in wanting if heads[node] < most_heads)
        heads[head] += 1
        chains[shard] = (head, *[node for node in wanting if node != head][: length - 1])
    _, held = loads(chains, nodes)
    while move := shard_to_move(chains, held):
        shard, full, empty = move
        chains[shard] = tuple(empty if node == full else node for node in chains[shard])
        held[full] -= 1
        held[empty] += 1
    return chains


def loads(chains, nodes):
    """Return how many shards each node is head of, and how many it holds."""
    heads, held = ({node: 0 for node in nodes} for _ in range(2))
    for chain in chains.values():
        heads[chain[0]] += 1
        for node in chain:
            held[node] += 1
    return heads, held


def recruit_for(shard, chain, held):
    """Return the node that is to join a chain: of those that hold least, the one that wants the shard most."""
    others = [node for node in held if node not in chain]
    least = min((held[node] for node in others), default=0)
    return max((node for node in others if held[node] == least), key=lambda node: wish(shard, node), default=None)


def shard_to_move(chains, held):
    """Return (shard, from, to) of a move that evens out what nodes hold, None if they differ by one at most.

    Of a shard that the node is not head of, if there is one.
    """
    if not held or max(held.values()) - min(held.values()) <= 1:
        return None
    full, empty = max(held, key=lambda n: (held[n], n)), min(held, key=lambda n: (held[n], n))
    movable = [shard for shard, chain in chains.items() if full in chain and empty not in chain]
    shard = max(movable, key=lambda shard: (chains[shard][0] != full, wish(shard, empty)))
    return shard, full, empty


def shard_to_turn(chains, heads):
    """Return (shard, new head) of a chain to be turned so that heads are evener, None if there is none."""
    options = [
        (heads[chain[0]] - heads[node], wish(shard, node), shard, node)
        for shard, chain in chains.items()
        for node in chain[1:]
        if heads[chain[0]] - heads[node] > 1
    ]
    return max(options)[2:] if options else None
