"""Arrays that begin where they should, that map files, and whose memory is used again once nobody refers to them."""

import contextlib
import errno
import math
import mmap
import os
import tempfile
import threading
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


def bytes_of_row(n_columns, dtype, n_stored=None):
    """Return the bytes of a row in memory or a file, dense or CSR with so many values.

    Examples
    --------
    >>> bytes_of_row(28, np.uint8), bytes_of_row(28, np.uint16, 7.0)
    (28, 50)
    """
    size = np.dtype(dtype).itemsize
    return n_columns * size if n_stored is None else math.ceil(n_stored * (size + 4)) + 8


class RowsFile:
    """Writes rows of an array into an open file, from any thread.

    In large pieces, and not through a mapping: the system keeps such a file in large pages, of which a thousand small
    ones come back at once (to let go of the pages of 28 MB and read them took 0.8 ms and not 2.4).

    Parameters
    ----------
    file : binary file
        Room for all of it is reserved: a full disk would show later, as a signal that kills.
    shape : tuple of two ints
    dtype : numpy dtype

    Raises
    ------
    OSError
        If the disk has no room.
    """

    def __init__(self, file, shape, dtype):
        self._file, self._dtype, self._width, self._lock = file, np.dtype(dtype), shape[1], threading.Lock()
        n_bytes = shape[0] * shape[1] * self._dtype.itemsize
        try:
            self._reserve(n_bytes)
        except OSError as error:
            raise OSError(
                error.errno,
                f"A file of {n_bytes:,} bytes for rows that memory has no room for cannot be made ({error.strerror}); "
                "make room in the scratch space, or name another folder: config_context(scratch_dir=...) in process, "
                "the option local_directory of Dask workers",
            ) from error

    def _reserve(self, n_bytes):
        if hasattr(os, "posix_fallocate") and n_bytes:
            try:
                return os.posix_fallocate(self._file.fileno(), 0, n_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that reserves nothing
                    raise
        self._file.truncate(n_bytes)

    def write(self, start, rows, first=0):
        """Write rows from one on, an ndarray; parts of rows, from column ``first`` on, one row at a time."""
        if rows.shape[1] + first > self._width or (len(rows) > 1 and rows.shape[1] != self._width):
            raise ValueError(f"Rows of shape {rows.shape} at column {first} do not fit into rows of {self._width}.")
        left = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8)
        at = (start * self._width + first) * self._dtype.itemsize
        while len(left):
            n = self._put(left, at)
            left, at = left[n:], at + n

    def _put(self, data, at):
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), data, at)
        with self._lock:  # Windows has none
            self._file.seek(at)
            return self._file.write(data)


def mapped(path_or_file, dtype, shape, offset=0, order="C"):
    """Return the read-only view of a file; where this process may open no more files, it asks for more."""
    try:
        return np.memmap(path_or_file, dtype, "r", offset, shape, order)
    except OSError as error:
        if error.errno != errno.EMFILE or not _may_open_more():
            raise
    return np.memmap(path_or_file, dtype, "r", offset, shape, order)


def _may_open_more():
    """Let this process open as many files as the system allows it to; return whether these are more than before."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    with contextlib.suppress(ValueError, OSError):  # macOS names no limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return True
    return False


class Pages:
    """The pages of the file that an array maps, if it maps one: they are let go of once they have been read.

    Mapped pages count as memory of a process while they are there, and Dask's nanny kills a worker that has too many of
    them, although the system could have them back at any time.

    Parameters
    ----------
    array : ndarray

    Examples
    --------
    >>> import tempfile
    >>> X = np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=(1000, 28))
    >>> with Pages(X):
    ...     int(X.sum())
    0
    """

    def __init__(self, array):
        self._mapping, self._folder, owner = None, None, array
        while owner is not None and self._mapping is None:
            if isinstance(owner, np.memmap) and owner.filename is not None:
                self._folder = os.path.dirname(os.path.abspath(owner.filename))
            owner = getattr(owner, "base", None)
            self._mapping = owner if isinstance(owner, mmap.mmap) else None
        if self._mapping is not None:
            # Whole pages of this array: other threads read others of the file.
            start = array.ctypes.data - np.frombuffer(self._mapping, np.uint8).ctypes.data
            first, stop = -(-start // mmap.PAGESIZE), (start + array.nbytes) // mmap.PAGESIZE
            self._range = first * mmap.PAGESIZE, max(stop - first, 0) * mmap.PAGESIZE

    @property
    def are_mapped(self):
        """Whether there are any."""
        return self._mapping is not None

    def beside(self, shape, dtype, fill):
        """Return an array in a file without a name, where the other one's is.

        Parameters
        ----------
        shape : tuple of int
        dtype : numpy dtype
        fill : callable of a `RowsFile`
            Writes all rows.
        """
        if 0 in shape:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            fill(RowsFile(file, shape, dtype))
            file.flush()
            return mapped(file, dtype, shape)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._mapping is not None and self._range[1] and hasattr(mmap, "MADV_DONTNEED"):  # Windows has none
            # They stay in the system's cache while nobody else needs the room.
            self._mapping.madvise(mmap.MADV_DONTNEED, *self._range)


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

    def __init__(self, most_held=MOST_HELD):
        self._free, self._leases, self._most_held = [], {}, most_held

    def empty(self, shape, dtype):
        """Return an array that is not filled, in C order."""
        dtype = np.dtype(dtype)
        n_bytes = int(dtype.itemsize) * int(math.prod(shape) if isinstance(shape, tuple) else shape)
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
        # The smallest that is large enough, the last of them, for it is in the cache. Other threads add to the end.
        sizes = [memory.nbytes for memory in free]
        fitting = [(size, -i) for i, size in enumerate(sizes) if size >= n_bytes]
        if fitting:
            return free.pop(-min(fitting)[1])
        if len(free) == self._most_held:  # of sizes that nobody asks for any more
            free.pop(0)
        step = 1 << max(n_bytes.bit_length() - 4, 12)  # the next one may be a little longer
        return np.empty(-(-n_bytes // step) * step, np.uint8)

    def _give_back(self, lease):
        memory = self._leases.pop(lease)
        if len(self._free) < self._most_held:
            self._free.append(memory)
