"""All-reduce along a tree of ranks: few message times for short values, whatever the number of ranks."""

from daskdml.comm.moves import Open, Pass, Recv, Seal, Send, open_all

FAN_IN = 2
needs_exact = False


def parent(rank, fan_in=FAN_IN):
    """Return the rank that a rank reports to; rank 0 reports to nobody."""
    return (rank - 1) // fan_in


def children(rank, size, fan_in=FAN_IN):
    """Return the ranks that report to a rank."""
    return range(min(fan_in * rank + 1, size), min(fan_in * (rank + 1) + 1, size))


def allreduce(rank, size, x, combine, fan_in=FAN_IN):
    """Combine values from the leaves to rank 0 and hand the result down again.

    Parameters
    ----------
    rank, size : int
    x : ndarray of shape (n,)
    combine : callable of two arrays, returns a new one
    fan_in : int, default 2
        Ranks that report to one rank.

    Yields
    ------
    moves
        See `daskdml.comm.moves`.

    Returns
    -------
    ndarray of shape (n,)
        The same bits on every rank.

    Notes
    -----
    A rank sends ``n`` values up and ``fan_in n`` down at most; the depth is ``log(size) / log(fan_in)``.
    """
    for child in children(rank, size, fan_in):
        x = combine(x, (yield Open((yield Recv(child)))))
    packet = None
    if rank:
        yield Send(parent(rank, fan_in), x)
    else:
        packet = yield Seal(x)
    return (yield from hand_down(rank, size, packet, fan_in))


def hand_down(rank, size, packet, fan_in=FAN_IN):
    """Pass the packet of rank 0 down the tree; every rank opens it and returns the value."""
    return (yield Open((yield from pass_down(rank, size, packet, fan_in))))


def pass_down(rank, size, packet, fan_in=FAN_IN):
    """Pass the packet of rank 0 down the tree; every rank returns it."""
    if rank:
        packet = yield Recv(parent(rank, fan_in))
    for child in children(rank, size, fan_in):
        yield Pass(child, packet)
    return packet


def subtree(rank, size, fan_in=FAN_IN):
    """Return a rank and all those below it."""
    found = [rank]
    for member in found:
        found += children(member, size, fan_in)
    return found


def allgather(rank, size, x, fan_in=FAN_IN):
    """Collect a value of any length from each rank; returns them in the order of ranks, the same bits everywhere.

    Packets go up the tree as they are, and down to whoever has not seen them: some ``fan_in size`` from a rank.
    """
    own, packets = subtree(rank, size, fan_in), [None] * size
    packets[rank] = yield Seal(x)
    for child in children(rank, size, fan_in):
        for source in subtree(child, size, fan_in):
            packets[source] = yield Recv(child)
    if rank:
        above = parent(rank, fan_in)
        for source in own:
            yield Pass(above, packets[source])
        for source in _without(own, size):
            packets[source] = yield Recv(above)
    for child in children(rank, size, fan_in):
        for source in _without(subtree(child, size, fan_in), size):
            yield Pass(child, packets[source])
    return (yield from open_all(packets))


def _without(ranks, size):
    return sorted(set(range(size)).difference(ranks))


def bytes_sent(rank, size, n_bytes):
    """Return the bytes that a rank sends for a value of ``n_bytes``."""
    return ((rank > 0) + len(children(rank, size))) * n_bytes


def seconds(size, n_bytes, latency, bandwidth):
    """Predict the seconds of one all-reduce: at each level a rank takes in, and gives out, a message of each child."""
    return 2 * depth(size) * min(FAN_IN, size - 1) * (latency + n_bytes / bandwidth)


def depth(size, fan_in=FAN_IN):
    """Return the number of steps from the last rank to rank 0."""
    steps, rank = 0, size - 1
    while rank > 0:
        steps, rank = steps + 1, parent(rank, fan_in)
    return steps
