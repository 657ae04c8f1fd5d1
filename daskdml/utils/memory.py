"""Arrays that begin where they should, and such whose memory is used again once nobody refers to them."""

import math
import weakref

import numpy as np

LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 24  # smaller ones cost little, larger ones are too much to hold on to
MOST_HELD = 8
_LINE = 64


def empty_rows(n, n_columns, dtype):
    """Return an array that begins where a line of the cache does: rows of 32 bytes never lie in two of them."""
    n_bytes = n * n_columns * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(n, n_columns)


class _Lease:
    """What all arrays over some memory refer to: when it goes, they have gone."""

    def __init__(self, memory):
        self.memory, self.__array_interface__ = memory, memory.__array_interface__


class Recycled:
    """Makes arrays as ``np.empty`` does, in memory of earlier ones that are gone.

    Dask's nannies have workers give memory back to the system at once (``MALLOC_TRIM_THRESHOLD_``), so that each array
    of more than 128 KiB costs its page faults again: 0.1 ms for 344 kB, three times what it takes to fill it.

    Notes
    -----
    Only one thread may ask for arrays; they may go in any. Counting references instead would depend on the version of
    Python, which from 3.14 on borrows some of them.

    Examples
    --------
    >>> recycled = Recycled()
    >>> first = recycled.empty((100, 1000), np.float64)
    >>> where = first.ctypes.data
    >>> recycled.empty((100, 1000), np.float64).ctypes.data == where
    False
    >>> del first
    >>> any(recycled.empty((99, 1000), np.int64).ctypes.data == where for _ in range(2))
    True
    """

    def __init__(self):
        self._free, self._leases = [], {}

    def empty(self, shape, dtype):
        """Return an array that is not filled, in C order."""
        dtype = np.dtype(dtype)
        n_bytes = dtype.itemsize * (math.prod(shape) if isinstance(shape, tuple) else shape)
        if not LEAST_BYTES <= n_bytes <= MOST_BYTES:
            return np.empty(shape, dtype)
        memory = self._take(n_bytes)
        lease = _Lease(memory)
        self._leases[weakref.ref(lease, self._give_back)] = memory
        return np.asarray(lease)[:n_bytes].view(dtype).reshape(shape)

    def copy(self, x):
        """Return a copy of an array, in C order."""
        copied = self.empty(x.shape, x.dtype)
        copied[...] = x
        return copied

    def _take(self, n_bytes):
        free = self._free
        while free:
            try:
                memory = free.pop()  # the last that was used is in the cache
            except IndexError:
                break
            if memory.nbytes >= n_bytes:
                return memory
        return np.empty(n_bytes, np.uint8)

    def _give_back(self, lease):
        memory = self._leases.pop(lease)
        if len(self._free) < MOST_HELD:
            self._free.append(memory)
