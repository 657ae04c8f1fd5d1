"""Chunks kept in files of scratch space and mapped into memory for as long as they are read."""

import contextlib
import math
import os
import pickle
import tempfile
import weakref

import numpy as np
from scipy import sparse

from daskdml.utils.memory import RowsFile, mapped


class MappedChunk:
    """A chunk whose arrays are files; ``open`` maps them read-only.

    Parameters
    ----------
    chunk : Chunk
        Dense X, CSR (three files), tuples of panels; other tables are pickled into one file and read whole by ``open``.
        Arrays that map a file already stay where they are.
    folder : str or None
        Where the files go; None is the folder of the Dask worker this code runs on.

    Notes
    -----
    The files are deleted when nothing refers to them any more, and when the interpreter exits. A pickle holds the
    *contents*: wherever it is loaded the files are written anew, by the first ``open``. So a handle may move between
    workers, or be computed again after a death, without anybody keeping track of files.
    """

    def __init__(self, chunk, folder=None):
        self._type, self._length, self.nbytes = type(chunk), len(chunk), chunk.nbytes
        self._held = chunk
        self._write(folder)

    def __len__(self):
        return self._length

    def open(self):
        """Return the chunk as read-only views of its files."""
        if self._held is not None:
            self._write(None)
        return self._type(*[None if part is None else part.open() for part in self._parts])

    def with_targets(self, fn):
        """Return the handle of the chunk with ``fn(y)`` for y, sharing the files of X."""
        y = unmapped(fn(self.open().y))
        other = object.__new__(MappedChunk)
        other.__dict__.update(self.__dict__)
        other._parts = [self._parts[0], _store(y, self._folder), self._parts[2]]
        return other

    @classmethod
    def with_rows(cls, chunk, n_columns, dtype, fill, folder=None):
        """Return the handle of a chunk with other X; y and weights stay in memory.

        Parameters
        ----------
        chunk : Chunk
        n_columns : int
        dtype : numpy dtype
        fill : callable of a `RowsFile`
            Writes all rows of X.
        folder : str or None
        """
        X = _ArrayFile.filled((len(chunk), n_columns), dtype, fill, folder or worker_folder())
        return cls(type(chunk)(X, _Held.of(chunk.y), _Held.of(chunk.weight)), folder)

    @classmethod
    def with_parts(cls, chunk, n_columns, dtype, parts, folder=None):
        """Return the same of CSR, of which ``parts`` are the rows, one after the other."""
        X = _CsrFiles.appended((len(chunk), n_columns), dtype, parts, folder or worker_folder())
        return cls(type(chunk)(X, _Held.of(chunk.y), _Held.of(chunk.weight)), folder)

    def _write(self, folder):
        self._folder = folder or worker_folder()
        parts = (self._held.X, self._held.y, self._held.weight)
        self._parts = [None if part is None else _store(part, self._folder) for part in parts]
        self._held = None

    def __sizeof__(self):
        if self._held is not None:
            return self.nbytes
        return 500 + sum(part.nbytes for part in self._parts if isinstance(part, _Held))

    def __reduce__(self):
        return _unpickled, (self.open() if self._held is None else self._held,)


def _unpickled(chunk):
    """Return a handle whose files will be written where it is first opened."""
    handle = object.__new__(MappedChunk)
    handle._type, handle._length, handle.nbytes = type(chunk), len(chunk), chunk.nbytes
    handle._held = chunk
    return handle


def worker_folder():
    """Return the folder for mapped chunks of the Dask worker that runs this task."""
    from distributed import get_worker

    folder = os.path.join(get_worker().local_directory, "daskdml")
    os.makedirs(folder, exist_ok=True)
    return folder


def maps_file(array):
    """Tell whether an array is a view of a file mapped by `numpy.memmap`."""
    return _memmap_below(array) is not None


def unmapped(array):
    """Return a target or weights as they are, or in memory where they map a file: it may go away with its handle."""
    return np.array(array) if isinstance(array, np.ndarray) and maps_file(array) else array


def resident_bytes(chunk):
    """Count the bytes of a chunk that are not views of a mapped file."""
    X = chunk.X
    if isinstance(X, np.ndarray) and maps_file(X):
        return chunk.nbytes - X.nbytes
    return chunk.nbytes


class _Held:
    """A target or weights in memory."""

    def __init__(self, array):
        self.array, self.nbytes = unmapped(array), array.nbytes

    @classmethod
    def of(cls, array):
        return array if array is None else cls(array)

    def open(self):
        return self.array


class _ArrayFile:
    """One array in a file of its own, or in a file of the user's."""

    def __init__(self, array, folder):
        self.dtype, self.shape = array.dtype, array.shape
        source = _memmap_below(array)
        self.order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        if source is not None and (array.flags.c_contiguous or array.flags.f_contiguous):
            skipped = array.__array_interface__["data"][0] - source.__array_interface__["data"][0]
            self.path, self.offset = os.fspath(source.filename), source.offset + skipped
            return
        handle, self.path = self._make(folder)
        self.offset = 0
        with os.fdopen(handle, "wb") as file:
            np.asarray(array, order=self.order).ravel(order="K").tofile(file)

    @classmethod
    def filled(cls, shape, dtype, fill, folder):
        """Return a file of what ``fill`` writes; see `MappedChunk.with_rows`."""
        self = cls.new(dtype, folder, shape)
        with open(self.path, "r+b") as file:
            fill(RowsFile(file, shape, dtype))
        return self

    @classmethod
    def new(cls, dtype, folder, shape=(0,)):
        """Return an empty file."""
        self = object.__new__(cls)
        self.dtype, self.shape, self.order, self.offset = np.dtype(dtype), shape, "C", 0
        handle, self.path = self._make(folder)
        os.close(handle)
        return self

    def _make(self, folder):
        handle, path = tempfile.mkstemp(suffix=".bin", prefix="daskdml-", dir=folder)
        self._finalizer = weakref.finalize(self, _remove, path, os.getpid())
        return handle, path

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.dtype.itemsize

    def open(self):
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype, order=self.order)
        return mapped(self.path, self.dtype, self.shape, self.offset, self.order).view(np.ndarray)


class _CsrFiles:
    """A CSR matrix in three files."""

    def __init__(self, X, folder):
        self.type, self.shape, self.nbytes = type(X), X.shape, X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
        self.arrays = [_ArrayFile(array, folder) for array in (X.data, X.indices, X.indptr)]

    @classmethod
    def appended(cls, shape, dtype, parts, folder):
        """Return the files of CSR matrices on top of each other, of which one at a time is in memory."""
        self = object.__new__(cls)
        self.type, self.shape = sparse.csr_matrix, shape
        files = [_ArrayFile.new(kind, folder) for kind in (dtype, np.int32)]
        ends = [np.zeros(1, np.int64)]
        with contextlib.ExitStack() as stack:
            data, indices = (stack.enter_context(open(file.path, "wb")) for file in files)
            for part in parts:
                np.ascontiguousarray(part.data, dtype).tofile(data)
                np.ascontiguousarray(part.indices, np.int32).tofile(indices)
                ends.append(part.indptr[1:].astype(np.int64) + ends[-1][-1])
        indptr = np.concatenate(ends)
        for file in files:
            file.shape = (int(indptr[-1]),)
        self.arrays = [*files, _Held(indptr)]
        self.nbytes = sum(array.nbytes for array in self.arrays)
        return self

    def open(self):
        data, indices, indptr = (array.open() for array in self.arrays)
        X = self.type(self.shape, dtype=data.dtype)
        X.data, X.indices, X.indptr = data, indices, indptr  # its constructor would read or copy the index arrays
        return X


class _Panels:
    """The column panels of X, each in its own files."""

    def __init__(self, panels, folder):
        self.panels = [_store(panel, folder) for panel in panels]

    def open(self):
        return tuple(panel.open() for panel in self.panels)


class _PickleFile:
    """A table of any other kind, pickled."""

    def __init__(self, table, folder):
        handle, self.path = tempfile.mkstemp(suffix=".pickle", prefix="daskdml-", dir=folder)
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())
        with os.fdopen(handle, "wb") as file:
            pickle.dump(table, file, protocol=5)

    def open(self):
        with open(self.path, "rb") as file:
            return pickle.load(file)


def _store(part, folder):
    if isinstance(part, (_ArrayFile, _CsrFiles, _Held)):
        return part
    if isinstance(part, tuple):
        return _Panels(part, folder)
    if hasattr(part, "indptr"):
        return _CsrFiles(part, folder)
    if isinstance(part, np.ndarray) and part.dtype != object:
        return _ArrayFile(part, folder)
    return _PickleFile(part, folder)


def _memmap_below(array):
    """Return the `numpy.memmap` that owns the mapping an array is a view of, or None."""
    found = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.filename is not None:
            found = array
        array = array.base
    return found


def _remove(path, pid):
    if os.getpid() != pid:  # a forked child must not delete the files of its parent
        return
    try:
        os.unlink(path)
    except OSError:  # gone with the worker's folder, or still mapped on Windows
        pass
