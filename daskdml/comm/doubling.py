"""All-reduce by recursive doubling: the fewest message times, for values that are sent exactly."""

from daskdml.comm.moves import Bundle, Open, Pass, Recv, Seal, Send, open_all

# Every rank combines for itself. That gives equal bits only if what was sent is what was held.
needs_exact = True


def allreduce(rank, size, x, combine):
    """Exchange values with the rank whose number differs in bit 0, then 1, ...; after log2(size) rounds all have all.

    Ranks beyond the largest power of two give their value to one within before, and get the result after.

    Parameters
    ----------
    rank, size : int
    x : ndarray of shape (n,)
    combine : callable of two arrays, returns a new one
        Commutative to the bit, as the addition of floating point numbers is.

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
    A rank sends ``n log2(size)`` values. R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective
    communication operations in MPICH", 2005, section 4.4.
    """
    within = 1 << (size.bit_length() - 1)
    if rank >= within:
        yield Send(rank - within, x)
        return (yield Open((yield Recv(rank - within))))
    if rank + within < size:
        x = combine(x, (yield Open((yield Recv(rank + within)))))
    step = 1
    while step < within:
        yield Send(rank ^ step, x)
        x = combine(x, (yield Open((yield Recv(rank ^ step)))))
        step *= 2
    if rank + within < size:
        yield Send(rank + within, x)
        return x.copy()  # what is on its way is not the caller's to change
    return x


def allgather(rank, size, x):
    """Collect a value of any length from each rank; returns them in the order of ranks, the same bits everywhere.

    A rank has the packets of the 1, 2, 4, ... ranks from itself on, and hands them to the rank that is as many before
    it. J. Bruck et al., "Efficient algorithms for all-to-all communications in multiport message-passing systems",
    1997. It sends ``size - 1`` packets in ``log2(size)`` messages.
    """
    held, step = [(yield Seal(x))], 1
    while step < size:
        yield Pass((rank - step) % size, Bundle(tuple(held[: size - step])))
        held += (yield Recv((rank + step) % size)).packets
        step *= 2
    return (yield from open_all([held[(k - rank) % size] for k in range(size)]))


def bytes_sent(rank, size, n_bytes):
    """Return the bytes that a rank sends for a value of ``n_bytes``."""
    within = 1 << (size.bit_length() - 1)
    rounds = 1 if rank >= within else (within.bit_length() - 1) + (rank + within < size)
    return rounds * n_bytes


def seconds(size, n_bytes, latency, bandwidth):
    """Predict the seconds of one all-reduce."""
    within = 1 << (size.bit_length() - 1)
    rounds = within.bit_length() - 1 + 2 * (within < size)
    return rounds * (latency + n_bytes / bandwidth)
