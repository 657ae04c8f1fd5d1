"""Chunks of which functions make other chunks: what stands in recipes and runs on the workers. Imports no Dask."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from daskdml.utils.memory import empty_rows

from .mapped import MappedChunk


def with_targets(chunk, fn):
    """Return the chunk with ``fn(y)`` for y, sharing X."""
    if isinstance(chunk, MappedChunk):
        return chunk.with_targets(fn)
    return type(chunk)(chunk.X, fn(chunk.y), chunk.weight)


class ReplaceRows(NamedTuple):
    """Make X of a chunk anew, block by block: ``fn(X)`` of some rows is an ndarray (n, n_columns) of dtype, or CSR.

    Attributes
    ----------
    fn : callable of rows of X
    n_columns : int
    dtype : numpy dtype
    rows_per_block : int
    layout : str
        "csr" where ``fn`` returns that, else "dense".
    target_functions : tuple of callables
        Applied to y first.
    to_files : bool
        Whether the new chunk is a `MappedChunk`.
    folder : str or None
        See `MappedChunk`.
    """

    fn: Any
    n_columns: int
    dtype: Any
    rows_per_block: int
    layout: str = "dense"
    target_functions: tuple = ()
    to_files: bool = False
    folder: Any = None

    def __call__(self, chunk, each=None):
        """Return the new chunk; ``each(n_items, work)`` may call ``work(i)`` for all items on several threads."""
        if isinstance(chunk, MappedChunk):
            chunk = chunk.open()
        for fn in self.target_functions:
            chunk = with_targets(chunk, fn)
        blocks, each = chunk.blocks(0, 0, self.rows_per_block), each or _one_by_one
        if self.layout == "csr" and self.to_files:
            parts = (self.fn(block.X) for block in blocks)
            return MappedChunk.with_parts(chunk, self.n_columns, self.dtype, parts, self.folder)
        if self.layout == "csr":
            out = [None] * len(blocks)
            each(len(blocks), lambda i: out.__setitem__(i, self.fn(blocks[i].X)))
            return type(chunk)(_stacked(out, self.n_columns, self.dtype), chunk.y, chunk.weight)

        def fill(out):
            each(len(blocks), lambda i: out.write(blocks[i].start, self.fn(blocks[i].X)))

        if self.to_files:
            return MappedChunk.with_rows(chunk, self.n_columns, self.dtype, fill, self.folder)
        out = empty_rows(len(chunk), self.n_columns, self.dtype)
        fill(_Rows(out))
        return type(chunk)(out, chunk.y, chunk.weight)


class _Rows(NamedTuple):
    """Rows in memory that are written to as those of a `daskdml.utils.memory.RowsFile`."""

    rows: Any

    def write(self, start, rows):
        self.rows[start : start + len(rows)] = rows


def _one_by_one(n_items, work):
    for i in range(n_items):
        work(i)


def _stacked(parts, n_columns, dtype):
    """Put CSR matrices on top of each other, letting go of each: SciPy keeps all, and reads their columns once more."""
    n_rows, nnz = (sum(counts) for counts in zip((0, 0), *((part.shape[0], part.nnz) for part in parts)))
    out = sparse.csr_matrix((n_rows, n_columns), dtype=dtype)
    out.data, out.indices, out.indptr = np.empty(nnz, dtype), np.empty(nnz, np.int32), np.zeros(n_rows + 1, np.int64)
    row = end = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        out.data[end : end + part.nnz], out.indices[end : end + part.nnz] = part.data, part.indices
        out.indptr[row + 1 : row + 1 + part.shape[0]] = part.indptr[1:] + end
        row, end = row + part.shape[0], end + part.nnz
    out.has_canonical_format = True
    return out


def itself(value):
    return value


def apply_steps(chunk, steps):
    """Apply functions of a chunk one after the other."""
    for step in steps:
        chunk = step(chunk)
    return chunk
