"""Chunks in files: what comes out is what went in, files are few and go away, a pickle carries contents."""

import copy
import gc
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml.data import Chunk
from daskdml.runtime.mapped import MappedChunk, maps_file, resident_bytes


def parts():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(50, 4)).astype(np.float32)
    return {
        "C": dense,
        "F": np.asfortranarray(dense),
        "rows of F": np.asfortranarray(dense)[10:40],
        "csr_matrix": sparse.random(50, 30, 0.1, format="csr", random_state=0),
        "csr_array": sparse.csr_array(sparse.random(50, 30, 0.1, format="csr", random_state=0)),
        "panels": (dense[:, :3], dense[:, 3:].astype(float)),
        "frame": pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}),
        "no rows": np.empty((0, 4)),
    }


def files(folder):
    return list(folder.iterdir())


def same(a, b):
    if isinstance(a, tuple):
        return all(map(same, a, b))
    if sparse.issparse(a):
        return type(a) is type(b) and a.dtype == b.dtype and (a != b).nnz == 0
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    return a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("kind", parts())
def test_what_comes_out_is_what_went_in(kind, tmp_path):
    X = parts()[kind]
    n = len(Chunk(X))
    chunk = Chunk(X, np.array([f"label {i % 3}" for i in range(n)], dtype=object), np.arange(n) / 7)
    handle = MappedChunk(chunk, str(tmp_path))
    found = handle.open()
    assert isinstance(found, Chunk) and len(handle) == len(found) == n and handle.nbytes == chunk.nbytes
    assert same(X, found.X) and same(chunk.y, found.y) and same(chunk.weight, found.weight)
    if isinstance(X, np.ndarray) and n:
        assert maps_file(found.X) and not found.X.flags.writeable
        assert found.X.flags.f_contiguous == X.flags.f_contiguous
        assert resident_bytes(found) == chunk.nbytes - X.nbytes
    del handle, found
    gc.collect()
    assert files(tmp_path) == []


def test_new_targets_share_the_files_of_x(tmp_path):
    handle = MappedChunk(Chunk(np.ones((100, 50)), np.arange(100)), str(tmp_path))
    (before,) = [file.stat().st_ino for file in files(tmp_path) if file.stat().st_size == 100 * 50 * 8]
    other = handle.with_targets(lambda y: (y % 2).astype(np.float32))
    assert len(files(tmp_path)) == 3
    del handle
    gc.collect()
    assert sorted(file.stat().st_size for file in files(tmp_path)) == [400, 40_000]
    assert before in [file.stat().st_ino for file in files(tmp_path)]
    assert other.open().y.sum() == 50 and other.open().X.sum() == 5000
    same = other.with_targets(lambda y: y)
    del other
    gc.collect()
    assert same.open().y.sum() == 50


def test_a_pickle_carries_the_contents(tmp_path, monkeypatch):
    import daskdml.runtime.mapped as mapped

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    handle = MappedChunk(Chunk(np.arange(2000.0).reshape(500, 4)), str(source))
    assert sys.getsizeof(handle) < 1000
    data = pickle.dumps(handle)
    assert len(data) > 16_000
    del handle
    gc.collect()
    assert files(source) == []
    moved = pickle.loads(data)
    assert files(target) == [] and len(moved) == 500 and sys.getsizeof(moved) >= 16_000
    monkeypatch.setattr(mapped, "worker_folder", lambda: str(target))
    again = copy.deepcopy(moved)
    assert moved.open().X[-1, -1] == again.open().X[-1, -1] == 1999
    assert len(files(target)) == 2 and sys.getsizeof(moved) < 1000


def test_arrays_that_map_a_file_already_stay_there(tmp_path):
    np.save(tmp_path / "X.npy", np.arange(600.0).reshape(200, 3))
    whole = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert maps_file(whole[50:70]) and maps_file(np.asarray(whole)) and not maps_file(np.array(whole))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    handle = MappedChunk(Chunk(np.asarray(whole[50:150])), str(scratch))
    assert files(scratch) == []
    np.testing.assert_array_equal(handle.open().X, whole[50:150])
    del handle
    gc.collect()
    assert (tmp_path / "X.npy").exists()


def test_rows_that_are_written_block_by_block(tmp_path):
    """From any thread, in any order; y stays in memory, and where it maps a file it is copied."""
    given = MappedChunk(Chunk(np.zeros((50, 3)), np.arange(50.0)), str(tmp_path)).open()
    X = np.random.default_rng(0).integers(0, 255, (50, 8)).astype(np.uint8)

    def fill(file):
        for start in (40, 0, 20):
            file.write(start, X[start : start + 20])

    handle = MappedChunk.with_rows(given, 8, np.uint8, fill, str(tmp_path))
    chunk = handle.with_targets(np.negative).open()
    assert (chunk.X == X).all() and maps_file(chunk.X) and (chunk.y == -np.arange(50.0)).all()
    assert not maps_file(handle.open().y) and sys.getsizeof(handle) < 1500
    assert (pickle.loads(pickle.dumps(handle))._held.X == X).all()


@pytest.mark.parametrize("n_parts", [0, 1, 4])
def test_csr_rows_that_are_appended_part_by_part(n_parts, tmp_path):
    whole = sparse.random(400, 30, 0.1, format="csr", random_state=0)
    whole = sparse.vstack([whole[:100], sparse.csr_matrix((200, 30)), whole[300:]], format="csr")
    edges = np.linspace(0, 400 if n_parts else 0, n_parts + 1).astype(int)
    whole = whole[: edges[-1]]
    given = Chunk(whole, np.arange(float(edges[-1])), np.ones(edges[-1]))
    parts = (whole[a:b] for a, b in zip(edges[:-1], edges[1:]))
    handle = MappedChunk.with_parts(given, 30, np.float64, parts, str(tmp_path))
    for chunk in (handle.open(), pickle.loads(pickle.dumps(handle))._held):
        assert chunk.X.shape == whole.shape and (chunk.X != whole).nnz == 0 and chunk.X.indptr[0] == 0
        assert (chunk.y == given.y).all() and (chunk.weight == 1).all()
    assert handle.nbytes == whole.nnz * 12 + (edges[-1] + 1) * 8 + given.y.nbytes + given.weight.nbytes
