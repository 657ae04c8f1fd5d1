"""All-reduce through rank 0, a tree of one level: for very few ranks."""

from daskdml.comm import tree

needs_exact = False


def allreduce(rank, size, x, combine):
    """Combine the values of all ranks at rank 0, in the order of ranks, and hand the result to everyone.

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
    Rank 0 sends and receives ``(size - 1) n`` values, every other rank ``n``.
    """
    return (yield from tree.allreduce(rank, size, x, combine, fan_in=max(size - 1, 1)))


def allgather(rank, size, x):
    """Collect a value of any length from each rank; returns them in the order of ranks, the same bits everywhere.

    Rank 0 gives every other rank the packets of all but its own: it sends ``(size - 1) ** 2`` of them.
    """
    return (yield from tree.allgather(rank, size, x, fan_in=max(size - 1, 1)))


def bytes_sent(rank, size, n_bytes):
    """Return the bytes that a rank sends for a value of ``n_bytes``."""
    return (size - 1) * n_bytes if rank == 0 else n_bytes


def seconds(size, n_bytes, latency, bandwidth):
    """Predict the seconds of one all-reduce: rank 0 takes in, and gives out, one message after the other."""
    return 2 * (size - 1) * (latency + n_bytes / bandwidth)
