"""Chunks of which functions make other chunks: what stands in recipes and runs on the workers. Imports no Dask."""

from typing import Any, NamedTuple

from daskdml.utils.memory import empty_rows

from .mapped import MappedChunk


def with_targets(chunk, fn):
    """Return the chunk with ``fn(y)`` for y, sharing X."""
    if isinstance(chunk, MappedChunk):
        return chunk.with_targets(fn)
    return type(chunk)(chunk.X, fn(chunk.y), chunk.weight)


class ReplaceRows(NamedTuple):
    """Make X of a chunk anew, block by block: ``fn(X)`` of some rows is an ndarray (n, n_columns) of dtype.

    Attributes
    ----------
    fn : callable of rows of X
    n_columns : int
    dtype : numpy dtype
    rows_per_block : int
    target_functions : tuple of callables
        Applied to y first.
    """

    fn: Any
    n_columns: int
    dtype: Any
    rows_per_block: int
    target_functions: tuple = ()

    def __call__(self, chunk, each=None):
        """Return the new chunk; ``each(n_items, work)`` may call ``work(i)`` for all items on several threads."""
        if isinstance(chunk, MappedChunk):
            chunk = chunk.open()
        for fn in self.target_functions:
            chunk = with_targets(chunk, fn)
        out = empty_rows(len(chunk), self.n_columns, self.dtype)
        blocks = chunk.blocks(0, 0, self.rows_per_block)

        def work(i):
            out[blocks[i].start : blocks[i].start + blocks[i].n_rows] = self.fn(blocks[i].X)

        if each is None:
            for i in range(len(blocks)):
                work(i)
        else:
            each(len(blocks), work)
        return type(chunk)(out, chunk.y, chunk.weight)


def itself(value):
    return value


def apply_steps(chunk, steps):
    """Apply functions of a chunk one after the other."""
    for step in steps:
        chunk = step(chunk)
    return chunk
