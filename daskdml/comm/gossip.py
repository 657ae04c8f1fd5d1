"""Gossip: each rank averages with its two neighbours on a ring; nobody adds up over all."""

import numpy as np

from daskdml.comm.moves import Open, Recv, Send


def gossip(rank, size, x):
    """Return the mean of this rank's array and its neighbours': a step of mixing, not an all-reduce.

        x_r <- (x_{r-1} + x_r + x_{r+1}) / 3

    The mean over ranks stays, and the deviation from it shrinks by ``(1 + 2 cos(2 pi / P)) / 3`` a step, the second
    eigenvalue of the ring's weights.

    Parameters
    ----------
    rank, size : int
    x : ndarray of float

    Yields
    ------
    moves
        See `daskdml.comm.moves`.

    Returns
    -------
    ndarray
        Another one on every rank.

    Notes
    -----
    A rank sends its array twice, however many there are. L. Xiao, S. Boyd, "Fast linear iterations for distributed
    averaging", 2004.
    """
    if size == 1:
        return x
    neighbours = sorted({(rank - 1) % size, (rank + 1) % size})
    for other in neighbours:
        yield Send(other, x)
    total = np.array(x)
    for other in neighbours:
        total += yield Open((yield Recv(other)))
    return total / (len(neighbours) + 1)


def rate(size):
    """Return by how much the deviation from the mean shrinks in a step: the second largest eigenvalue's size."""
    if size <= 3:
        return 0.0
    angles = 2.0 * np.pi * np.arange(1, size) / size
    return float(np.abs((1.0 + 2.0 * np.cos(angles)) / 3.0).max())
