"""Chunks are cut into blocks that depend on rows alone, and that are views."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from daskdml.data import Block, Chunk, count_blocks, rows_per_block

RNG = np.random.default_rng(0)


def panels(X):
    return (X[:, :2], X[:, 2:])


KINDS = {
    "C": np.asarray,
    "F": np.asfortranarray,
    "csr": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "panels": panels,
    "frame": pd.DataFrame,
}


def dense(X):
    if isinstance(X, tuple):
        return np.hstack(X)
    return X.toarray() if sp.issparse(X) else np.asarray(X)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1000])
def test_blocks_are_the_chunk(make, n):
    X, y, weight = RNG.normal(size=(n, 5)), np.arange(n), RNG.random(n)
    chunk = Chunk(make(X), y, weight)
    blocks = chunk.blocks(7, 10_000, 256)
    assert len(chunk) == n and len(blocks) == count_blocks(n, 256)
    assert [b.index for b in blocks] == list(range(7, 7 + len(blocks)))
    assert [b.start for b in blocks] == [10_000 + 256 * i for i in range(len(blocks))]
    assert [b.n_rows for b in blocks] == [min(256, n - 256 * i) for i in range(len(blocks))]
    if n:
        np.testing.assert_array_equal(np.vstack([dense(b.X) for b in blocks]), X)
        np.testing.assert_array_equal(np.concatenate([b.y for b in blocks]), y)
        np.testing.assert_array_equal(np.concatenate([b.weight for b in blocks]), weight)


def test_blocks_are_views():
    X, y = RNG.normal(size=(600, 4)), np.arange(600)
    for A in (X, np.asfortranarray(X)):
        for block in Chunk(A, y).blocks(0, 0, 256):
            assert np.shares_memory(block.X, A) and np.shares_memory(block.y, y)
            assert block.weight is None
            assert block.X.strides[0 if A is not X else 1] == 8


def test_take_gathers_rows():
    X, y, rows = RNG.normal(size=(50, 5)), np.arange(50), np.array([3, 49, 0])
    for make in KINDS.values():
        taken = Chunk(make(X), y, None).take(rows)
        np.testing.assert_array_equal(dense(taken.X), X[rows])
        assert taken.y.tolist() == [3, 49, 0] and taken.weight is None
    assert len(Chunk(X, y).take(rows[:0])) == 0


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_pickle_and_size(make):
    chunk = Chunk(make(RNG.normal(size=(400, 5))), np.arange(400))
    again = pickle.loads(pickle.dumps(chunk))
    np.testing.assert_array_equal(dense(again.X), dense(chunk.X))
    # Dask decides what to spill by this number.
    assert sys.getsizeof(chunk) >= chunk.nbytes >= 400 * 8
    part = pickle.dumps(chunk.blocks(0, 0, 256)[1])
    assert len(part) < 0.6 * len(pickle.dumps(chunk)) + 1000
    assert isinstance(pickle.loads(part), Block)


@pytest.mark.parametrize("n_features", [1, 3, 50, 1000, 100_000, 10_000_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_per_dense_block(n_features, dtype):
    rows, row = rows_per_block(n_features, dtype), n_features * np.dtype(dtype).itemsize
    assert rows % 256 == 0 and rows >= 256
    assert rows == 256 or rows * row <= 4 << 20 < (rows + 256) * row


@pytest.mark.parametrize("n_features", [1, 100, 32_768, 100_000, 1_000_000])
def test_rows_per_sparse_block(n_features):
    rows = rows_per_block(n_features, layout="csr")
    assert rows & (rows - 1) == 0 and rows >= 16384
    assert rows == 16384 or 0.7 < rows / (n_features / 2) < 1.42


@pytest.mark.parametrize("kind", ["C", "F", "csr", "panels"])
def test_a_chunk_that_travelled_is_aligned_wherever_its_bytes_were_put(kind):
    """Or products would have other last bits on the worker that it was sent to."""
    X = KINDS[kind](RNG.normal(size=(300, 4)))
    chunk, buffers = Chunk(X, RNG.normal(size=300)), []
    data = pickle.dumps(chunk, protocol=5, buffer_callback=buffers.append)
    shifted = [memoryview(bytearray(1) + bytearray(buffer.raw()))[1:] for buffer in buffers]
    assert not np.frombuffer(shifted[-1], np.uint8).view(float).flags.aligned
    found = pickle.loads(data, buffers=shifted)
    arrays = [found.y, *(found.X if kind == "panels" else [found.X.data] if kind == "csr" else [found.X])]
    assert all(array.flags.aligned for array in arrays if isinstance(array, np.ndarray))
    np.testing.assert_array_equal(dense(found.X), dense(X))
    if kind in "CF":
        assert found.X.strides == X.strides
