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
    """

    fn: Any
    n_columns: int
    dtype: Any
    rows_per_block: int
    layout: str = "dense"
    target_functions: tuple = ()

    def __call__(self, chunk, each=None):
        """Return the new chunk; ``each(n_items, work)`` may call ``work(i)`` for all items on several threads."""
        if isinstance(chunk, MappedChunk):
            chunk = chunk.open()
        for fn in self.target_functions:
            chunk = with_targets(chunk, fn)
        is_sparse, blocks = self.layout == "csr", chunk.blocks(0, 0, self.rows_per_block)
        out = [None] * len(blocks) if is_sparse else empty_rows(len(chunk), self.n_columns, self.dtype)

        def work(i):
            rows = self.fn(blocks[i].X)
            if is_sparse:
                out[i] = rows
            else:
                out[blocks[i].start : blocks[i].start + blocks[i].n_rows] = rows

        if each is None:
            for i in range(len(blocks)):
                work(i)
        else:
            each(len(blocks), work)
        if is_sparse:
            out = _stacked(out, self.n_columns, self.dtype)
        return type(chunk)(out, chunk.y, chunk.weight)


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
