"""The rows that a rank holds while it trains: any of them can be put together to a batch."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from daskdml.kernels.copying import copy_pieces
from daskdml.kernels.device import module_of


class Piece(NamedTuple):
    """Rows that follow each other.

    Attributes
    ----------
    start : int
        Number of the first one.
    X : ndarray of shape (n, p), C-contiguous, or CSR
    y : ndarray of shape (n,) or (n, k)
    weight : ndarray of float64, shape (n,), or None
    """

    start: int
    X: Any
    y: Any
    weight: Any

    @property
    def arrays(self):
        """What it consists of, as arrays alone."""
        X = (self.X.data, self.X.indices, self.X.indptr) if hasattr(self.X, "indptr") else (self.X,)
        return (*X, self.y, self.weight)

    def rows(self, first, stop):
        """Return some of the rows, by their numbers."""
        part = slice(first - self.start, stop - self.start)
        return Piece(first, _rows(self.X, part), self.y[part], None if self.weight is None else self.weight[part])


def _rows(X, part):
    """Return some rows, as a view: of CSR too, where SciPy's slices and its constructor copy what is stored."""
    if not hasattr(X, "indptr"):
        return X[part]
    edges = X.indptr[part.start : part.stop + 1]
    stored = slice(*edges[[0, -1]].tolist())
    rows = type(X)((len(edges) - 1, X.shape[1]), dtype=X.dtype)
    rows.data, rows.indices, rows.indptr = X.data[stored], X.indices[stored], edges - edges[0]
    return rows


class HeldRows:
    """Pieces of rows, of which any rows can be taken.

    Parameters
    ----------
    pieces : list of Piece
        Without overlap.

    Notes
    -----
    X stays where it is: rows are copied into batches from their addresses, whichever piece they are of, and from files
    that are mapped too. y and weights are put together.
    """

    def __init__(self, pieces):
        self.pieces = pieces = sorted((piece for piece in pieces if piece.X.shape[0]), key=lambda piece: piece.start)
        self._starts = np.array([piece.start for piece in pieces], np.int64)
        self._first = np.cumsum([0, *(piece.X.shape[0] for piece in pieces)])[:-1]
        self.y = np.concatenate([piece.y for piece in pieces]) if pieces else None
        self.weight = None
        if pieces and pieces[0].weight is not None:
            self.weight = np.concatenate([piece.weight for piece in pieces])
        if not pieces:
            return
        X = pieces[0].X
        if len({piece.X.dtype for piece in pieces}) > 1:
            raise ValueError("The chunks of X have different dtypes; give all the same.")
        self.n_features, self.dtype, self.is_sparse = X.shape[1], X.dtype, hasattr(X, "indptr")
        self._locate()

    def _locate(self):
        """Note where the rows of X are."""
        pieces = self.pieces
        if self.is_sparse:
            self._values, self._columns = (np.array([a.ctypes.data for a in arrays], np.int64) for arrays in (
                [piece.X.data for piece in pieces], [piece.X.indices for piece in pieces]))  # fmt: skip
            self._begins = np.concatenate([piece.X.indptr[:-1] for piece in pieces]).astype(np.int64)
            self._counts = np.concatenate([np.diff(piece.X.indptr) for piece in pieces]).astype(np.int64)
            if len({piece.X.indices.dtype for piece in pieces}) > 1:
                raise ValueError("The column numbers of CSR chunks have different dtypes; give all the same.")
        else:
            self._addresses = np.array([piece.X.ctypes.data for piece in pieces], np.int64)

    def select(self, rows):
        """Return a `Selection` of rows by their numbers, in that order.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            All of them held here.
        """
        rows = rows.astype(np.int64, copy=False)
        # Of one piece, as most often, there is nothing to look up.
        piece = 0 if len(self.pieces) == 1 else np.searchsorted(self._starts, rows, side="right") - 1
        at = rows - self._starts[piece]
        place = self._first[piece] + at
        weight = None if self.weight is None else self.weight[place]
        return self._selection(piece, at, place, self.y[place], weight)

    def _selection(self, piece, at, place, y, weight):
        """Return a `Selection` of rows by their pieces, and their places there and among all."""
        if self.is_sparse:
            begins, item = self._begins[place], self.dtype.itemsize
            width = self.pieces[0].X.indices.dtype.itemsize
            where = self._values[piece] + begins * item, self._columns[piece] + begins * width, self._counts[place]
        else:
            step = self.n_features * self.dtype.itemsize
            where = self._addresses[piece] + at * step, np.full(len(place), step)
        return Selection(self, where, y, weight)


class Selection(NamedTuple):
    """Rows that are to be copied together.

    Attributes
    ----------
    held : HeldRows
    where : tuple of ndarray
    y, weight : ndarray
    """

    held: Any
    where: tuple
    y: Any
    weight: Any

    def X(self, first=0, stop=None, out=None):
        """Copy some of the rows into the first rows of ``out``, or a new array, and return them; CSR a new matrix."""
        stop = len(self.y) if stop is None else stop
        part = tuple(array[first:stop] for array in self.where)
        if not self.held.is_sparse:
            if out is None:
                out = np.empty((stop - first, self.held.n_features), self.held.dtype)
            out = out[: stop - first]
            copy_pieces(*part, out)
            return out
        values, columns, counts = part
        n, like = int(counts.sum()), self.held.pieces[0].X
        data, indices = np.empty(n, self.held.dtype), np.empty(n, like.indices.dtype)
        copy_pieces(values, counts * data.itemsize, data)
        copy_pieces(columns, counts * indices.itemsize, indices)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(indices.dtype)
        return sparse.csr_array((data, indices, indptr), shape=(stop - first, self.held.n_features))


def pieces_of(blocks):
    """Return the blocks of a rank as pieces."""
    return [Piece(block.start, block.X, block.y, block.weight) for block in blocks]


def as_trained(X, dtype):
    """Return rows as they are held: C-contiguous, of one dtype, column numbers of CSR as int32 where they fit.

    Parameters
    ----------
    X : ndarray, cupy array or CSR of floats
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If a finite value is too large for the dtype.
    """
    with np.errstate(over="ignore"):
        made = X if X.dtype == dtype else X.astype(dtype)
    if made is not X:
        before, after = (part.data if hasattr(part, "indptr") else part for part in (X, made))
        xp = module_of(after)
        if (xp.isinf(after) & xp.isfinite(before)).any():
            raise ValueError(
                f"Input X contains a value too large for {np.dtype(dtype).name}; divide the column by its size, or "
                "train with dtype='float64'."
            )
    if not hasattr(made, "indptr"):
        return module_of(made).ascontiguousarray(made)
    if max(made.shape[1], made.nnz) < 2**31 and made.indices.dtype != np.int32:
        # Both: SciPy makes the wider of the two of them all.
        parts = made.data, made.indices.astype(np.int32), made.indptr.astype(np.int32)
        made = sparse.csr_array(parts, shape=made.shape)
    return made
