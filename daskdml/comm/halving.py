"""All-reduce by recursive halving: the fewest bytes per rank in the fewest messages, for powers of two."""

import numpy as np

from daskdml.comm.doubling import allgather  # noqa: F401  the same way back
from daskdml.comm.moves import Bundle, Open, Pass, Recv, Seal, Send, open_all
from daskdml.comm.ring import bounds

needs_exact = False


def allreduce(rank, size, x, combine):
    """Halve what a rank is to reduce until that is a slice of its own, then double what it has until that is all.

    Parameters
    ----------
    rank, size : int
        Ranks beyond the largest power of two give their value to one within before, and get the result after.
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
    Of a power of two a rank sends ``2 n (size - 1) / size`` values in ``2 log2(size)`` messages; beside one beyond it
    ``n`` more. R. Rabenseifner, "Optimization of collective reduction operations", 2004.
    """
    within, at = _within(size), bounds(len(x), _within(size))
    if rank >= within:
        yield Send(rank - within, x)
        return np.concatenate((yield from open_all((yield Recv(rank - within)).packets)))
    if rank + within < size:
        x = combine(x, (yield Open((yield Recv(rank + within)))))
    first, half = 0, within // 2
    while half:
        middle = at[first + half] - at[first]
        parts, is_upper = (x[:middle], x[middle:]), bool(rank & half)
        yield Send(rank ^ half, parts[not is_upper])
        x = combine(parts[is_upper], (yield Open((yield Recv(rank ^ half)))))
        first, half = first + half * is_upper, half // 2
    packets, step = [(yield Seal(x))], 1
    while step < within:
        yield Pass(rank ^ step, Bundle(tuple(packets)))
        found = list((yield Recv(rank ^ step)).packets)
        packets = found + packets if rank & step else packets + found
        step *= 2
    if rank + within < size:
        yield Pass(rank + within, Bundle(tuple(packets)))
    return np.concatenate((yield from open_all(packets)))


def _within(size):
    return 1 << (size.bit_length() - 1)


def bytes_sent(rank, size, n_bytes):
    """Return the bytes that a rank sends for a value of ``n_bytes``, up to one number per message."""
    within = _within(size)
    if rank >= within:
        return n_bytes
    return 2 * (within - 1) * n_bytes / within + (rank + within < size) * n_bytes


def seconds(size, n_bytes, latency, bandwidth):
    """Predict the seconds of one all-reduce."""
    within = _within(size)
    messages = 2 * (within.bit_length() - 1) + 2 * (within < size)
    return messages * latency + (2 * (within - 1) / within + 2 * (within < size)) * n_bytes / bandwidth
