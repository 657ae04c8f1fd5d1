"""Chunks kept in files of scratch space and mapped into memory for as long as they are read."""

import os
import pickle
import tempfile
import weakref

import numpy as np


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
        y = fn(self.open().y)
        if isinstance(y, np.ndarray) and maps_file(y):
            y = np.array(y)  # a view of the old file, which goes away with this handle
        other = object.__new__(MappedChunk)
        other.__dict__.update(self.__dict__)
        other._parts = [self._parts[0], _store(y, self._folder), self._parts[2]]
        return other

    def _write(self, folder):
        self._folder = folder or worker_folder()
        parts = (self._held.X, self._held.y, self._held.weight)
        self._parts = [None if part is None else _store(part, self._folder) for part in parts]
        self._held = None

    def __sizeof__(self):
        return 500 if self._held is None else self.nbytes

    def __reduce__(self):
        return _unpickled, (self._held or self.open(),)


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


def resident_bytes(chunk):
    """Count the bytes of a chunk that are not views of a mapped file."""
    X = chunk.X
    if isinstance(X, np.ndarray) and maps_file(X):
        return chunk.nbytes - X.nbytes
    return chunk.nbytes


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
        handle, self.path = tempfile.mkstemp(suffix=".bin", prefix="daskdml-", dir=folder)
        self.offset = 0
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())
        with os.fdopen(handle, "wb") as file:
            np.asarray(array, order=self.order).ravel(order="K").tofile(file)

    def open(self):
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype, order=self.order)
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)
        return mapped.view(np.ndarray)


class _CsrFiles:
    """A CSR matrix in three files."""

    def __init__(self, X, folder):
        self.type, self.shape = type(X), X.shape
        self.arrays = [_ArrayFile(array, folder) for array in (X.data, X.indices, X.indptr)]

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
