"""What a program asks of its group: the calls, each carried out by a topology."""

import numpy as np

from daskdml.comm import central, doubling, halving, ring, tree
from daskdml.comm.moves import Seal

TOPOLOGIES = {"central": central, "tree": tree, "doubling": doubling, "ring": ring, "halving": halving}
OPERATIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def choose_topology(size, n_bytes, latency, bandwidth, exact=True, saves_bytes=False):
    """Return the name of the topology with the shortest predicted all-reduce.

    ``seconds = messages * latency + bytes / bandwidth``, counted along the longest chain of messages that wait for
    each other or for the rank that handles them (the alpha-beta model of R. W. Hockney, 1994).

    Parameters
    ----------
    size : int
        Ranks.
    n_bytes : int
        Of the value.
    latency : float
        Seconds of an empty message.
    bandwidth : float
        Bytes per second of a long one.
    exact : bool, default True
        Whether packets hold what was sent, which recursive doubling needs.
    saves_bytes : bool, default False
        Whether only those topologies are looked at of which the rank that sends most sends as little as of any.

    Returns
    -------
    {"central", "tree", "doubling", "ring", "halving"}

    Examples
    --------
    >>> choose_topology(16, 400, 1e-3, 3e8), choose_topology(16, 80_000_000, 1e-3, 3e8)
    ('doubling', 'halving')
    """
    fit = {name: topology for name, topology in TOPOLOGIES.items() if exact or not topology.needs_exact}
    if saves_bytes:
        most = {name: max(topology.bytes_sent(r, size, n_bytes) for r in range(size)) for name, topology in fit.items()}
        fit = {name: fit[name] for name in fit if most[name] <= 1.01 * min(most.values())}
    return min(fit, key=lambda name: fit[name].seconds(size, n_bytes, latency, bandwidth))


def allreduce(rank, size, x, *, topology="tree", operation="sum", empty=np.empty):
    """Combine the arrays of all ranks entry by entry; every rank gets the result.

    Parameters
    ----------
    rank, size : int
    x : ndarray
        The same shape and dtype on every rank.
    topology : {"central", "tree", "doubling", "ring", "halving"}, default "tree"
        See `choose_topology`.
    operation : {"sum", "max", "min"}, default "sum"
    empty : callable of (shape, dtype), default np.empty
        Makes the arrays of partial results.

    Yields
    ------
    moves
        See `daskdml.comm.moves`.

    Returns
    -------
    ndarray
        Of the shape of x; the same bits on every rank, for a given number of ranks.
    """
    total = yield from TOPOLOGIES[topology].allreduce(rank, size, x.reshape(-1), _combine(operation, empty))
    return total.reshape(x.shape)


def reduce_scatter(rank, size, x, *, operation="sum", empty=np.empty):
    """Combine the vectors of all ranks; rank k gets slice ``[n k // size, n (k + 1) // size)`` of the result."""
    return (yield from ring.reduce_scatter(rank, size, x, _combine(operation, empty)))


def _combine(operation, empty):
    operate = OPERATIONS[operation]
    return lambda a, b: operate(a, b, out=empty(a.shape, a.dtype))


def allgather(rank, size, x, topology="ring"):
    """Collect one array of any length from each rank; every rank gets the list, in the order of ranks.

    Bits do not depend on the topology, for packets travel as they are; "ring" and "doubling" send the fewest of them.
    """
    return (yield from TOPOLOGIES[topology].allgather(rank, size, x))


def broadcast(rank, size, x, root=0):
    """Give the array of rank ``root`` to every rank; the others' ``x`` is not read."""
    moved = (rank - root) % size
    packet = (yield Seal(x)) if moved == 0 else None
    return (yield from among([(r + root) % size for r in range(size)], tree.hand_down(moved, size, packet)))


def barrier(rank, size):
    """Wait until every rank has come here."""
    yield from allreduce(rank, size, np.empty(0))


def vote(rank, size, flag):
    """Return on every rank whether any of them said yes."""
    return bool((yield from allreduce(rank, size, np.array([flag], dtype=np.uint8), operation="max"))[0])


def among(members, moves):
    """Carry out moves among some of the ranks, that of rank k in the moves being ``members[k]``."""
    answer = None
    while True:
        try:
            move = moves.send(answer)
        except StopIteration as done:
            return done.value
        if hasattr(move, "to"):
            move = move._replace(to=members[move.to])
        elif hasattr(move, "source"):
            move = move._replace(source=members[move.source])
        answer = yield move
