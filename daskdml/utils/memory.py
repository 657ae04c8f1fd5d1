"""Arrays that begin where they should, and such whose memory is used again once nobody refers to them."""

import math
import sys

import numpy as np

LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 24  # smaller ones cost little, larger ones are too much to hold on to
MOST_HELD = 8
_LINE = 64
_UNUSED = 3  # references to memory that nobody uses: of the list, of the loop's name and of the argument


def empty_rows(n, n_columns, dtype):
    """Return an array that begins where a line of the cache does: rows of 32 bytes never lie in two of them."""
    n_bytes = n * n_columns * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(n, n_columns)


class Recycled:
    """Makes arrays as ``np.empty`` does, in memory of earlier ones that are gone.

    Dask's nannies have workers give memory back to the system at once (``MALLOC_TRIM_THRESHOLD_``), so that each array
    of more than 128 KiB costs its page faults again: 0.1 ms for 344 kB, three times what it takes to fill it.

    Notes
    -----
    Not for several threads at once.

    Examples
    --------
    >>> recycled = Recycled()
    >>> first = recycled.empty((100, 1000), np.float64)
    >>> where = first.ctypes.data
    >>> recycled.empty((100, 1000), np.float64).ctypes.data == where
    False
    >>> del first
    >>> recycled.empty((99, 1000), np.int64).ctypes.data == where
    True
    """

    def __init__(self):
        self._held = []

    def empty(self, shape, dtype):
        """Return an array that is not filled, in C order."""
        dtype = np.dtype(dtype)
        n_bytes = dtype.itemsize * (math.prod(shape) if isinstance(shape, tuple) else shape)
        if not LEAST_BYTES <= n_bytes <= MOST_BYTES:
            return np.empty(shape, dtype)
        for memory in self._held:
            # Every view of it, and every view of those, refers to it.
            if memory.nbytes >= n_bytes and sys.getrefcount(memory) == _UNUSED:
                break
        else:
            memory = np.empty(n_bytes, np.uint8)
            self._held = [*self._held[1 - MOST_HELD :], memory]
        return memory[:n_bytes].view(dtype).reshape(shape)

    def copy(self, x):
        """Return a copy of an array, in C order."""
        copied = self.empty(x.shape, x.dtype)
        copied[...] = x
        return copied
