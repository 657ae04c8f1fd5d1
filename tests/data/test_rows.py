"""apply_rows: the function itself in memory, lazily chunk by chunk on Dask, and never tried on made-up rows."""

import functools

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from daskdml.data import apply_rows, rows

X = np.random.default_rng(0).normal(size=(23, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "c"], index=np.arange(100, 123))


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


def total(chunk):
    assert chunk.shape[0] > 0  # empty chunks are not shown to models
    return np.asarray(chunk.sum(axis=1)).ravel()


def twice(chunk):
    return chunk * 2


def pair(chunk):
    sums = total(chunk)
    return np.stack([sums, -sums], axis=1)


def labels(chunk, names):
    return names[(total(chunk) > 0).astype(int)]


def never(chunk):
    raise AssertionError("computed")


def csr_chunks(chunks=(7, 3)):
    return da.from_array(X, chunks=chunks).map_blocks(sp.csr_matrix, dtype=float, meta=sp.csr_matrix((0, 0)))


def unknown(array):
    return array[da.from_array(np.ones(len(X), dtype=bool), chunks=array.chunks[0])]


ARRAYS = {
    "dense": da.from_array(X, chunks=(7, 3)),
    "columns": da.from_array(X, chunks=(7, 2)),
    "one row and none": da.from_array(X, chunks=((1, 0, 22), 3)),
    "unknown": unknown(da.from_array(X, chunks=(7, 3))),
    "unknown columns": unknown(da.from_array(X, chunks=(7, 2))),
    "csr": csr_chunks(),
    "csr columns": csr_chunks((7, 2)),
}


def test_in_memory_is_the_function_itself():
    for table in (X, FRAME, sp.csr_matrix(X)):
        seen = []
        assert apply_rows(seen.append, table) is None
        assert len(seen) == 1 and seen[0] is table


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays(array):
    vector = apply_rows(total, array)
    assert isinstance(vector, da.Array) and vector.dtype == float
    np.testing.assert_equal(vector.chunks, (array.chunks[0],))
    np.testing.assert_allclose(vector.compute(), X.sum(axis=1))
    matrix = apply_rows(pair, array, kind="matrix", columns=["p", "q"])
    np.testing.assert_equal(matrix.chunks, (array.chunks[0], (2,)))
    np.testing.assert_allclose(matrix.compute(), pair(X))
    same = apply_rows(twice, array, kind="same")
    assert sp.issparse(same._meta) == sp.issparse(array._meta)
    out = same.compute()
    np.testing.assert_allclose(out.toarray() if sp.issparse(out) else out, 2 * X)


def total_of(columns):
    return total


def add(names, sums):
    assert len(sums) > 0
    return sums if names is None else names[(sums > 0).astype(int)]


PANELS = {
    "dense": da.from_array(X, chunks=(7, 2)),
    "one row and none": da.from_array(X, chunks=((1, 0, 22), 1)),
    "unknown": unknown(da.from_array(X, chunks=(7, 2))),
    "csr": csr_chunks((7, (1, 2))),
}


@pytest.mark.parametrize("n_bytes", [0, rows.SHARED_BYTES])
@pytest.mark.parametrize("array", PANELS.values(), ids=PANELS)
def test_panel_by_panel(array, n_bytes):
    def big_total_of(columns):
        return functools.partial(weighted, np.arange(3 + n_bytes // 8, dtype=float)[columns], np.ones(n_bytes))

    def weighted(w, ballast, panel):
        assert panel.shape == (panel.shape[0], len(w))
        return panel @ w

    one = apply_rows(never, array, by_panel=(big_total_of, functools.partial(add, None)))
    np.testing.assert_allclose(one.compute(), X @ np.arange(3.0), rtol=1e-12)
    assert one.chunks == array.chunks[:1] or np.isnan(one.shape[0])
    names = np.array(["no", "yes"], dtype=object)
    words = apply_rows(never, array, dtype=object, by_panel=(total_of, functools.partial(add, names)))
    assert words.dtype == object and words.compute().tolist() == labels(X, names).tolist()
    two = apply_rows(
        never, array, kind="matrix", columns=["p", "q"], by_panel=(lambda columns: pair, functools.partial(add, None))
    )
    assert two.chunks[1] == (2,)
    np.testing.assert_allclose(two.compute(), pair(X), rtol=1e-12)


def test_array_to_csr():
    out = apply_rows(sp.csr_matrix, ARRAYS["dense"], kind="matrix", columns=range(3), sparse=True)
    assert sp.issparse(out._meta)
    np.testing.assert_allclose(out.compute().toarray(), X)


@pytest.mark.parametrize("known", [True, False])
def test_frames(known):
    frame = dd.from_pandas(FRAME, npartitions=4)
    frame = frame if known else frame.clear_divisions()
    vector = apply_rows(total, frame, name="p")
    assert isinstance(vector, dd.Series) and vector.name == "p" and vector.divisions == frame.divisions
    pd.testing.assert_series_equal(vector.compute(), FRAME.sum(axis=1).rename("p"))
    matrix = apply_rows(pair, frame, kind="matrix", columns=["p", "q"], dtype=np.float64)
    assert matrix.divisions == frame.divisions
    pd.testing.assert_frame_equal(matrix.compute(), pd.DataFrame(pair(X), index=FRAME.index, columns=["p", "q"]))
    same = apply_rows(twice, frame, kind="same")
    pd.testing.assert_frame_equal(same.compute(), 2 * FRAME)
    joined = frame.assign(p=apply_rows(total, frame))
    np.testing.assert_allclose(joined.compute()["p"], X.sum(axis=1))


def test_frame_partitions_are_not_changed():
    frame = dd.from_pandas(FRAME, npartitions=2).persist()
    out = apply_rows(lambda part: part, frame, kind="same", columns=["x", "y", "z"])
    assert out.compute().columns.tolist() == ["x", "y", "z"]
    assert frame.compute().columns.tolist() == ["a", "b", "c"]


def test_empty_partition():
    numbered = FRAME.assign(a=np.arange(23.0))
    kept = dd.from_pandas(numbered, npartitions=3)
    kept = kept[kept.a > 15]
    expected = numbered[numbered.a > 15].sum(axis=1).rename("s")
    pd.testing.assert_series_equal(apply_rows(total, kept, name="s").compute(), expected)
    assert apply_rows(total, kept[kept.a > 1e9]).compute().shape == (0,)


def test_frame_to_csr():
    frame = dd.from_pandas(FRAME, npartitions=3)
    out = apply_rows(lambda part: sp.csr_matrix(part.to_numpy()), frame, kind="matrix", columns=range(3), sparse=True)
    assert isinstance(out, da.Array) and np.isnan(out.shape[0]) and out.shape[1] == 3
    np.testing.assert_allclose(out.compute().toarray(), X)


@pytest.mark.parametrize("names", [np.array(["no", "yes"]), np.array(["no", "yes"], dtype=object), np.array([3, 5])])
def test_labels(names):
    fn = functools.partial(labels, names=names)
    expected = fn(X).tolist()
    series = apply_rows(fn, dd.from_pandas(FRAME, npartitions=3), dtype=names.dtype)
    assert series.compute().tolist() == expected and series.compute().dtype == series.dtype
    array = apply_rows(fn, ARRAYS["dense"], dtype=names.dtype)
    assert array.compute().tolist() == expected and array.dtype == names.dtype


def test_dtype_per_column():
    frame = dd.from_pandas(FRAME, npartitions=2)
    dtypes = {"a": np.dtype("float32"), "b": np.dtype(float), "c": np.dtype(float)}
    out = apply_rows(lambda part: part.astype({"a": "float32"}), frame, kind="same", dtype=dtypes)
    assert dict(out.dtypes) == dtypes == dict(out.compute().dtypes)


@pytest.mark.parametrize("kind, columns", [("vector", None), ("matrix", ["p", "q"]), ("same", None)])
def test_nothing_is_computed(kind, columns):
    for collection in (*ARRAYS.values(), dd.from_pandas(FRAME, npartitions=2)):
        apply_rows(never, collection, kind=kind, columns=columns)


class Model:
    def __init__(self, bytes_):
        self.coef, self.ballast = np.ones(3), np.zeros(bytes_ // 8)

    def __call__(self, chunk):
        return np.asarray(chunk) @ self.coef


@pytest.mark.parametrize("npartitions", [1, 4])
def test_big_models_are_one_value_of_the_graph(npartitions):
    big = Model(rows.SHARED_BYTES)
    for collection in (
        da.from_array(X, chunks=(-(-23 // npartitions), 3)),
        dd.from_pandas(FRAME, npartitions=npartitions),
        dd.from_pandas(FRAME, npartitions=npartitions).clear_divisions(),
    ):
        lazy = apply_rows(big, collection)
        np.testing.assert_allclose(lazy.compute(), X.sum(axis=1))
        heavy = [task for task in dict(lazy.__dask_graph__()).values() if len(cloudpickle.dumps(task)) > 2**20]
        assert len(heavy) == 1


def test_wrong_kind():
    with pytest.raises(ValueError, match="'vector', 'matrix' or 'same', got 'rows'"):
        apply_rows(total, X, kind="rows")
    with pytest.raises(ValueError, match="pass columns="):
        apply_rows(total, X, kind="matrix")


def test_graphs_of_short_lived_frames_stay_apart():
    # Dask would name them by their addresses, and the second may get that of the first.
    frame = dd.from_pandas(FRAME, npartitions=2)
    keys = [key for name in "abc" for key in (frame[name] + 1).simplify().__dask_keys__()]
    for _ in range(50):
        graphs = [rows.stack_layer(name, {}, [(frame[name] + 1).simplify()]) for name in "abc"]
        layers = {layer for graph in graphs for layer in graph.layers}
        # Named by what they compute, which lives on: addresses collide once in a hundred times only.
        assert layers == {*"abc", *(key[0] for key in keys)}
        merged = {key: task for graph in graphs for key, task in graph.to_dict().items()}
        assert all(key in merged for key in keys)
