"""Chunk and Block: the rows of one Dask partition, and the fixed-size row blocks it is cut into.

Conventions. ``n`` rows, ``p`` features; y has shape (n,) or (n, k), weight shape (n,), either may be None. X is a
matrix as `as_matrix` returns it, a tuple of column panels of the same rows, or a table left as it came.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from daskdml.data.kinds import aligned, n_bytes, n_rows, slice_rows, take_rows

BLOCK_BYTES = 4 << 20
DENSE_STEP = 256
SPARSE_LEAST = 16384
# On a GPU a launch costs as long as reading 10 MB: blocks are cut larger.
DEVICE_FACTOR = 64


class UnevenChunks(ValueError):
    """X and y, or weights, have chunks of other rows where nobody knew their lengths."""


class Block(NamedTuple):
    """One row block: what a block function receives.

    Parameters
    ----------
    X : ndarray, csr_matrix, csr_array, tuple of those, or a table
        Dense blocks of C-ordered input are C-contiguous; blocks of F-ordered input have unit stride down the columns,
        but a longer stride along the rows. May be read-only.
    y : ndarray or None
    weight : ndarray of float64, shape (n,), or None
    index : int
        Position in the fixed order of folding.
    start : int
        Global number of the block's first row.
    """

    X: Any
    y: Any
    weight: Any
    index: int
    start: int

    @property
    def n_rows(self):
        """Rows of the block."""
        return n_rows(self.X)


@dataclass(frozen=True, eq=False)
class Chunk:
    """The aligned rows of one Dask chunk, or all of an in-memory input.

    Parameters
    ----------
    X : matrix, tuple of column panels, or table
    y : ndarray or None
    weight : ndarray of float64 or None

    Examples
    --------
    >>> chunk = Chunk(np.zeros((600, 2)), np.arange(600))
    >>> [(block.index, block.start, len(block.y)) for block in chunk.blocks(0, 0, 256)]
    [(0, 0, 256), (1, 256, 256), (2, 512, 88)]
    """

    X: Any
    y: Any = None
    weight: Any = None

    def __len__(self):
        return n_rows(self.X)

    def __setstate__(self, state):
        # Dask lays arrays anywhere into a message or a file of its own. From an address that is no multiple of their
        # item's size, sums take another way and have other last bits.
        self.__dict__.update({name: aligned(part) for name, part in state.items()})

    def __sizeof__(self):
        # Dask weighs results with sys.getsizeof; without this it would hold gigabytes to be 48 bytes and never spill.
        return self.nbytes

    @property
    def nbytes(self):
        """Bytes of X, y and weight."""
        return n_bytes(self.X) + n_bytes(self.y) + n_bytes(self.weight)

    def rows(self, start, stop):
        """Return rows ``start`` to ``stop`` as a Chunk of views."""
        return Chunk(*(slice_rows(part, start, stop) for part in (self.X, self.y, self.weight)))

    def take(self, rows):
        """Gather rows by their position in the chunk into a new Chunk.

        Parameters
        ----------
        rows : array of int, shape (m,)
        """
        return Chunk(*(take_rows(part, rows) for part in (self.X, self.y, self.weight)))

    def blocks(self, first_index, first_row, rows_per_block):
        """Cut the chunk into row blocks, as views.

        Parameters
        ----------
        first_index : int
            Index of the chunk's first block in the fold order: the blocks of all chunks before it.
        first_row : int
            Global number of the chunk's first row.
        rows_per_block : int

        Returns
        -------
        list of Block
            `count_blocks` of them; the last may be shorter. No rows, no blocks.
        """
        out = []
        for i in range(count_blocks(len(self), rows_per_block)):
            start = i * rows_per_block
            stop = min(start + rows_per_block, len(self))
            parts = (slice_rows(part, start, stop) for part in (self.X, self.y, self.weight))
            out.append(Block(*parts, first_index + i, first_row + start))
        return out


def count_blocks(n, rows_per_block):
    """Return how many blocks n rows of one chunk make."""
    return -(-int(n) // rows_per_block)


def rows_per_block(n_features, dtype=np.float64, layout="dense"):
    """Return the rows of a block, which depend on the shape and type of a row alone.

    Never on threads, workers or chunks: the blocks, and with them the order of summation, are the same everywhere.

    Parameters
    ----------
    n_features : int
    dtype : numpy dtype, default float64
    layout : {"dense", "csr", "frame", "device"}, default "dense"

    Returns
    -------
    int
        About 4 MiB of rows, a multiple of 256, for dense rows and frames (256 MiB on a device); a power of two near
        ``n_features / 2``, at least 16384, for CSR, so that a block's gradient costs less than its rows.

    Examples
    --------
    >>> rows_per_block(50, np.float32), rows_per_block(100_000, layout="csr")
    (20736, 65536)
    """
    n_features = max(int(n_features or 1), 1)
    if layout == "csr":
        return max(SPARSE_LEAST, 1 << round(math.log2(max(n_features / 2, 1))))
    row = n_features * np.dtype(dtype or np.float64).itemsize
    block = BLOCK_BYTES * (DEVICE_FACTOR if layout == "device" else 1)
    return max(block // row // DENSE_STEP, 1) * DENSE_STEP
