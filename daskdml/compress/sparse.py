"""A few of the numbers: the largest, or some drawn at random."""

import math
import numbers

import numpy as np

from daskdml.compress.codec import Codec
from daskdml.compress.qsgd import Draws
from daskdml.utils.params import Interval
from daskdml.utils.random import row_hash

STREAM = 32
_RATIO = {"ratio": [Interval(numbers.Real, 0, 1, "right")]}


class TopK(Codec):
    """Send the largest numbers, and where they are.

    Parameters
    ----------
    ratio : float, default 0.01
        Share of the numbers that is sent, at least one. Of equal ones the first are.

    Notes
    -----
    Meant for error feedback. The dtype's bytes a number that is sent, and two more for its distance from the one
    before, or four where one is 65,536 or more. Every rank gets the packets of all others: with float32, P ranks and
    1 % a ring without compression sends ``133 / P`` times as much. A. F. Aji, K. Heafield, "Sparse communication for
    distributed gradient descent", 2017.

    Examples
    --------
    >>> codec = TopK(ratio=0.4)
    >>> codec.decode(codec.encode(np.array([0.1, -3.0, 0.2, 1.0, 0.0]))[0])
    array([ 0., -3.,  0.,  1.,  0.])
    """

    name = "top_k"
    reduce_kind = "gather"
    _constraints = _RATIO

    def __init__(self, ratio=0.01):
        self.ratio = ratio

    def finer(self):
        """Return a codec that sends four times as many, or None from an eighth on.

        Returns
        -------
        Codec or None
        """
        return TopK(4 * self.ratio) if self.ratio < 0.125 else None

    def _encode(self, x, state):
        flat = x.reshape(-1)
        places = _largest(np.abs(flat), _count(self.ratio, flat.size))
        gaps = np.diff(places, prepend=0)
        narrow = np.uint16 if gaps.max(initial=0) < 1 << 16 else np.uint32 if flat.size < 1 << 32 else np.uint64
        return (gaps.astype(narrow), flat[places]), state

    def _decode(self, arrays, shape):
        gaps, values = arrays
        x = np.zeros(int(np.prod(shape)), values.dtype)
        x[np.cumsum(gaps, dtype=np.int64)] = values
        return x


class RandomK(Codec):
    """Send numbers that are drawn at random, the same on all ranks: nobody has to say where they are.

    One number is drawn from each of k equal parts of the array.

    Parameters
    ----------
    ratio : float, default 0.01
        Share of the numbers that is sent, at least one.

    Notes
    -----
    Meant for error feedback, and without momentum: with momentum 0.9 a network on digits diverged (accuracy 0.30 of
    0.97, the mean of three seeds of ``python -m benchmarks codecs --full``). What is sent is linear in x, so that ranks
    add up codes: ``1 / ratio`` times fewer bytes for any number of ranks. S. U. Stich, J.-B. Cordonnier, M. Jaggi,
    "Sparsified SGD with memory", 2018.

    Examples
    --------
    >>> codec = RandomK(ratio=0.5)
    >>> int(codec.decode(codec.encode(np.ones(10))[0]).sum())
    5
    """

    name = "random_k"
    reduce_kind = "linear"
    _constraints = _RATIO

    def __init__(self, ratio=0.01):
        self.ratio = ratio

    def finer(self):
        """Return a codec that sends four times as many, or None from an eighth on.

        Returns
        -------
        Codec or None
        """
        return RandomK(4 * self.ratio) if self.ratio < 0.125 else None

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
        return Draws(seed)

    def _encode(self, x, state):
        values = x.reshape(-1)[self._places(x.size, state)]
        return (values, np.array([state.seed % 2**64, state.step], np.uint64)), state.next()

    def _decode(self, arrays, shape):
        values, (seed, step) = arrays
        x = np.zeros(int(np.prod(shape)), values.dtype)
        x[self._places(x.size, Draws(int(seed), int(step)))] = values
        return x

    def rounds(self, x, state):
        """Add up the arrays of all ranks by adding up codes; see `daskdml.compress`.

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
        places = self._places(x.size, state)
        total, own = (np.zeros(x.size, x.dtype) for _ in range(2))
        own[places] = x.reshape(-1)[places]
        # A number more says whether all of x are finite: most of them nobody sees.
        is_strange = x.dtype.type(0 if np.isfinite(x).all() else np.nan)
        *sums, strange = yield np.append(own[places], is_strange)
        total[places] = sums
        if strange != strange:
            total[:] = np.nan
        return total.reshape(x.shape), own.reshape(x.shape), state.next()

    def _places(self, n, state):
        k = _count(self.ratio, n)
        edges = n * np.arange(k + 1) // max(k, 1)
        draws = row_hash(state.seed, STREAM, state.step * (n + 1) + np.arange(k))
        return edges[:-1] + (draws % np.maximum(np.diff(edges), 1).astype(np.uint64)).astype(np.int64)


def _count(ratio, n):
    return min(n, max(1, math.ceil(ratio * n)))


def _largest(sizes, k):
    """Return the places of the k largest numbers, ascending; of equal ones the first, and none that is zero."""
    if k == 0:
        return np.empty(0, np.int64)
    limit = np.partition(sizes, sizes.size - k)[sizes.size - k]
    chosen = sizes > limit
    if limit > 0:
        equal = np.flatnonzero(sizes == limit)
        chosen[equal[: k - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)
