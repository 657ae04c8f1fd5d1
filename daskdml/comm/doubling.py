"""All-reduce by recursive doubling: the fewest message times, for values that are sent exactly."""

from daskdml.comm.moves import Open, Recv, Send

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
