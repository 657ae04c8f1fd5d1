"""Pieces of memory that lie anywhere, copied behind each other."""

import numpy as np
import pytest

from daskdml.kernels.copying import AHEAD, _copy, copy_pieces

BODIES = {"compiled": copy_pieces, "plain": lambda sources, n_bytes, out: _copy(sources, n_bytes, out.ctypes.data)}
bodies = pytest.mark.parametrize("copy", BODIES.values(), ids=BODIES)


def int64(values):
    return np.array(values, np.int64)


@bodies
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_rows_of_several_arrays(copy, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 200, (n, 5)).astype(dtype) for n in (1, 7, 100)]
    which = rng.integers(0, 3, 60)
    rows = np.array([rng.integers(len(arrays[i])) for i in which])
    step = arrays[0].strides[0]
    sources = int64([arrays[i].ctypes.data + step * row for i, row in zip(which, rows)])
    out = np.full((60, 5), 255, dtype)
    copy(sources, np.full(60, step), out)
    np.testing.assert_array_equal(out, np.stack([arrays[i][row] for i, row in zip(which, rows)]))


@bodies
def test_pieces_of_different_lengths_and_of_no_bytes(copy):
    """From any byte on; what stands behind the last piece stays as it was."""
    rng = np.random.default_rng(1)
    memory = rng.integers(0, 256, 5000).astype(np.uint8)
    lengths = np.concatenate([[0, 0, 1, 2, 3, 0, 7, 8, 9, 64, 65, 1000, 0, 1], rng.integers(0, 200, 40), [0]])
    starts = rng.integers(0, 4000, len(lengths))
    out = np.full(int(lengths.sum()) + 10, 77, np.uint8)
    copy(memory.ctypes.data + starts, lengths, out)
    expected = b"".join(memory[a : a + n].tobytes() for a, n in zip(starts, lengths))
    assert out.tobytes() == expected + bytes([77] * 10)


@bodies
@pytest.mark.parametrize("n", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD])
def test_any_number_of_pieces(copy, n):
    memory, out = np.arange(100, dtype=np.int16), np.full(n, -1, np.int16)
    rows = np.arange(n)[::-1] * 3
    copy(memory.ctypes.data + 2 * rows, np.full(n, 2), out)
    np.testing.assert_array_equal(out, memory[rows])


@bodies
def test_one_piece_may_be_taken_several_times(copy):
    memory, out = np.arange(4.0), np.empty((5, 2))
    copy(np.full(5, memory.ctypes.data + 8), np.full(5, 16), out)
    np.testing.assert_array_equal(out, [[1.0, 2.0]] * 5)


@bodies
def test_read_only_sources_and_lists_of_pieces(copy):
    memory = np.arange(12.0).reshape(4, 3)
    sources, lengths, out = memory.ctypes.data + 24 * int64([3, 0]), int64([24, 24]), np.empty((2, 3))
    for array in (memory, sources, lengths):
        array.flags.writeable = False
    copy(sources, lengths, out)
    np.testing.assert_array_equal(out, memory[[3, 0]])


@bodies
def test_sources_in_a_mapped_file(copy, tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 11)).astype(np.float32)
    X.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=X.shape)
    rows = np.random.default_rng(1).permutation(300)[:120]
    out = np.empty((120, 11), np.float32)
    copy(mapped.ctypes.data + 44 * rows, np.full(120, 44), out)
    np.testing.assert_array_equal(out, X[rows])


@bodies
def test_bits_are_kept(copy):
    """NaN with a payload, minus zero and the least number too."""
    memory = np.array([0x7FF8000000001234, 0xFFF0000000000001, 1 << 63, 1], np.uint64).view(np.float64)
    out = np.empty(4)
    copy(memory.ctypes.data + 8 * int64([3, 1, 0, 2]), np.full(4, 8), out)
    np.testing.assert_array_equal(out.view(np.uint64), memory.view(np.uint64)[[3, 1, 0, 2]])
