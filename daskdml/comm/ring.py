"""All-reduce around a ring: the fewest bytes per rank, for long values."""

import numpy as np

from daskdml.comm.moves import Open, Pass, Recv, Seal, Send, open_all

needs_exact = False


def bounds(n, size):
    """Return ``size + 1`` positions that cut n values into slices of nearly equal length."""
    return [n * k // size for k in range(size + 1)]


def allreduce(rank, size, x, combine):
    """Reduce each slice on its way around the ring, then send the reduced slices around.

    Parameters
    ----------
    rank, size : int
    x : ndarray of shape (n,)
    combine : callable of two arrays, returns a new one

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
    A rank sends ``2 n (size - 1) / size`` values in ``2 (size - 1)`` messages. P. Patarasuk, X. Yuan, "Bandwidth
    optimal all-reduce algorithms for clusters of workstations", 2009.
    """
    own = yield from reduce_scatter(rank, size, x, combine)
    slices = yield from allgather(rank, size, own)
    return np.concatenate(slices)


def reduce_scatter(rank, size, x, combine):
    """Reduce the slice ``bounds(n, size)[rank : rank + 2]`` of everyone's x; returns that slice.

    Slice k sets out from rank k + 1 and is combined with each rank's own in the order of the ring.
    """
    at = bounds(len(x), size)

    def slice_of(k):
        return x[at[k % size] : at[k % size + 1]]

    held = slice_of(rank - 1)
    for step in range(1, size):
        yield Send((rank + 1) % size, held)
        held = combine((yield Open((yield Recv((rank - 1) % size)))), slice_of(rank - 1 - step))
    return held if size > 1 else x


def allgather(rank, size, x):
    """Collect a value of any length from each rank; returns them in the order of ranks, the same bits everywhere."""
    packets = [None] * size
    packets[rank] = yield Seal(x)
    for step in range(size - 1):
        yield Pass((rank + 1) % size, packets[(rank - step) % size])
        packets[(rank - step - 1) % size] = yield Recv((rank - 1) % size)
    return (yield from open_all(packets))


def bytes_sent(rank, size, n_bytes):
    """Return the bytes that a rank sends for a value of ``n_bytes``, up to one number per message."""
    return 2 * (size - 1) * n_bytes / size


def seconds(size, n_bytes, latency, bandwidth):
    """Predict the seconds of one all-reduce."""
    return 2 * (size - 1) * (latency + n_bytes / size / bandwidth)
