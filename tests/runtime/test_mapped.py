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
