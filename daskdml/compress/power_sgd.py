"""A matrix of low rank."""

import numbers
from typing import Any, NamedTuple

import numpy as np

from daskdml.compress.codec import Codec, largest_of
from daskdml.utils.params import Interval
from daskdml.utils.random import uniform

STREAM = 33


class Basis(NamedTuple):
    """Where power iteration is.

    Attributes
    ----------
    seed : int
    Q : ndarray of shape (n_columns, rank), or None
        Of the last array.
    """

    seed: int
    Q: Any = None


class PowerSGD(Codec):
    """Send a matrix as two narrow ones, by a step of power iteration that goes on from array to array.

        P = orthonormal columns of (M Q),   Q' = M' P,   decode = P Q'

    with Q from the last array, at first from the seed. Arrays of one dimension, and such that are not larger than
    their factors, are sent as they are.

    Parameters
    ----------
    rank : int, default 2

    Notes
    -----
    Meant for error feedback, and for plain momentum: in front of Adam it cost up to 0.4 points of accuracy (means of
    three seeds of ``python -m benchmarks codecs --full``). M Q and M' P are linear in M, so that ranks add up factors,
    in two all-reduces: ``rank (rows + columns)`` numbers for any number of ranks. From the same sums each rank computes
    P and P Q' itself: ranks on processors of different types may get other last bits. T. Vogels, S. P. Karimireddy,
    M. Jaggi, "PowerSGD: Practical low-rank gradient compression for distributed optimization", 2019.

    Examples
    --------
    >>> M = np.outer(np.arange(1.0, 5.0), np.arange(5.0))
    >>> packet, _ = PowerSGD(rank=1).encode(M)
    >>> bool(np.allclose(PowerSGD(rank=1).decode(packet), M)), packet.nbytes
    (True, 80)
    """

    name = "power_sgd"
    reduce_kind = "linear"
    by_layer = True
    _constraints = {"rank": [Interval(numbers.Integral, 1, None)]}

    def __init__(self, rank=2):
        self.rank = rank

    def finer(self):
        """Return a codec of twice the rank, or None from eight on.

        Returns
        -------
        Codec or None
        """
        return PowerSGD(2 * self.rank) if self.rank < 8 else None

    def start(self, seed=0):
        """Check the parameters; return the state before the first array.

        Parameters
        ----------
        seed : int, default 0
            See `Codec.start`.

        Returns
        -------
        state : object
        """
        super().start(seed)
        return Basis(seed)

    def _encode(self, x, state):
        if not self._pays(x.shape):
            return (x,), state
        largest = largest_of(x) or 1.0
        matrix = (x / x.dtype.type(largest)).reshape(len(x), -1)
        P = orthonormal(matrix @ self._basis(matrix, state))
        Q = matrix.T @ P
        return (P, Q, np.array([largest])), self._next(state, Q)

    def _decode(self, arrays, shape):
        if len(arrays) == 1:
            return arrays[0]
        P, Q, largest = arrays
        return (P @ Q.T) * largest[0]

    def rounds(self, x, state):
        """Add up the arrays of all ranks by adding up factors; see `daskdml.compress`.

        Parameters
        ----------
        x : ndarray of float
        state : object

        Returns
        -------
        total, own : ndarray
            What all ranks sent, and what this one did.
        state : object

        Yields
        ------
        ndarray
            Is to be sent back as its sum over all ranks.
        """
        if not self._pays(x.shape):
            return (yield x), x, state
        matrix = x.reshape(len(x), -1)
        P = orthonormal((yield matrix @ self._basis(matrix, state)))
        part = matrix.T @ P
        Q = yield part
        return (P @ Q.T).reshape(x.shape), (P @ part.T).reshape(x.shape), self._next(state, Q)

    def _basis(self, matrix, state):
        """Return the columns that power iteration goes on from, of numbers of one at most."""
        shape = matrix.shape[1], self.rank
        drawn = 2.0 * uniform(state.seed, STREAM, np.arange(shape[0] * shape[1])).reshape(shape) - 1.0
        if state.Q is None:
            return drawn.astype(matrix.dtype)
        # A column of zeros, after a matrix of a lower rank, would find nothing any more.
        sizes = np.abs(state.Q).max(axis=0)
        return np.where(sizes > 0, state.Q / np.where(sizes > 0, sizes, 1), drawn).astype(matrix.dtype)

    def _next(self, state, Q):
        return Basis(state.seed, Q) if np.isfinite(Q).all() else state

    def _pays(self, shape):
        if len(shape) < 2:
            return False
        rows, columns = shape[0], int(np.prod(shape[1:]))
        return self.rank * (rows + columns) < rows * columns


def orthonormal(P):
    """Return orthonormal columns that span those of P, and others where these are fewer."""
    return np.linalg.qr(P)[0] if np.isfinite(P).all() else np.full_like(P, np.nan)
