"""Partitioned.from_any: the same rows in the same order from every kind of input, and nothing read to make it."""

import itertools
import time

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

from daskdml.data import Chunk, Partitioned

N = 23
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.arange(N)
W = np.arange(1.0, N + 1)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(paid=Y, w=W)
COLUMNS = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


def dense(A):
    if isinstance(A, tuple):
        return np.hstack([dense(panel) for panel in A])
    return A.toarray() if sp.issparse(A) else np.asarray(A)


def check(data, y=Y, weight=W):
    """Compute the chunks and compare their rows with the definition."""
    chunks = dask.compute(*data.chunks) if data.is_lazy else data.chunks
    assert len(chunks) == data.n_chunks == len(data.chunks)
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    if data.known_lengths is not None:
        assert tuple(map(len, chunks)) == data.known_lengths
    np.testing.assert_allclose(np.vstack([dense(chunk.X) for chunk in chunks]), X, rtol=1e-6)
    for name, expected in (("y", y), ("weight", weight)):
        parts = [getattr(chunk, name) for chunk in chunks]
        if expected is None:
            assert parts == [None] * len(chunks)
        else:
            np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert all(chunk.weight is None or chunk.weight.dtype == np.float64 for chunk in chunks)
    assert data.n_features == 3
    return chunks


def unknown(array):
    return array[da.from_array(np.ones(N, dtype=bool), chunks=array.chunks[0])]


def csr(chunks):
    return da.from_array(X, chunks=chunks).map_blocks(sp.csr_matrix, dtype=float, meta=sp.csr_matrix((0, 0)))


@pytest.fixture
def parquet(tmp_path):
    dd.from_pandas(FRAME, npartitions=4).to_parquet(tmp_path)
    return dd.read_parquet(tmp_path)


MEMORY = {
    "C": X,
    "F": np.asfortranarray(X),
    "list": X.tolist(),
    "pandas": FRAME[COLUMNS],
    "polars": pl.from_pandas(FRAME[COLUMNS]),
    "csr": sp.csr_matrix(X),
    "csc": sp.csc_array(X),
}


@pytest.mark.parametrize("table", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("y", [Y, Y.tolist(), FRAME["paid"], pl.Series(Y), da.from_array(Y, chunks=5)])
def test_in_memory(table, y):
    data = Partitioned.from_any(table, y, W)
    (chunk,) = check(data)
    assert not data.is_lazy and data.known_lengths == (N,) and data.nbytes == chunk.nbytes
    assert data.dtype == np.float64 and data.column_blocks == (3,) and data.target_shape == ()
    assert data.layout == ("csr" if sp.issparse(table) else "dense")
    if table is X or sp.issparse(table) and table.format == "csr":
        assert chunk.X is table
    check(data.spread(3))
    check(Partitioned.from_any(table), y=None, weight=None)


ARRAYS = {
    "rows": da.from_array(X, chunks=(7, 3)),
    "columns": da.from_array(X, chunks=(7, 2)),
    "one row and none": da.from_array(X, chunks=((0, 1, 7, 7, 8, 0), 3)),
    "unknown": unknown(da.from_array(X, chunks=(7, 3))),
    "unknown columns": unknown(da.from_array(X, chunks=(7, 2))),
    "float32": da.from_array(X.astype(np.float32), chunks=(7, 3)),
    "csr": csr((7, 3)),
    "csr columns": csr((7, 2)),
    "unknown csr": unknown(csr((7, 3))),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("weight", [None, W, "dask"])
@pytest.mark.parametrize("kind", ["memory", "same chunks", "other chunks"])
def test_dask_arrays(array, weight, kind):
    is_unknown = np.isnan(array.shape[0])
    like = 7 if is_unknown else (array.chunks[0],)
    y = {"memory": Y, "same chunks": da.from_array(Y, chunks=like), "other chunks": da.from_array(Y, chunks=4)}[kind]
    weight = da.from_array(W, chunks=like) if isinstance(weight, str) else weight
    data = Partitioned.from_any(array, y, weight)
    chunks = check(data, weight=None if weight is None else W)
    assert data.is_lazy and data.n_chunks == array.numblocks[0]
    assert data.column_blocks == array.chunks[1] and sum(data.column_blocks) == 3
    for chunk in chunks:
        panels = chunk.X if isinstance(chunk.X, tuple) else (chunk.X,)
        assert tuple(panel.shape[1] for panel in panels) == array.chunks[1]
        assert all(panel.dtype == data.dtype for panel in panels)
        assert all(sp.issparse(panel) == (data.layout == "csr") for panel in panels)
    if data.layout == "dense" and data.known_lengths is not None:
        assert data.nbytes == sum(chunk.nbytes for chunk in chunks)
    same, beside, weighing = data.aligned
    assert same is array and beside.numblocks == (data.n_chunks,)
    assert (weighing is None) == (weight is None)


def test_dask_frames(parquet):
    memory = dd.from_pandas(FRAME, npartitions=4)
    for frame, other in itertools.product((memory, memory.clear_divisions(), parquet), repeat=2):
        data = Partitioned.from_any(frame[COLUMNS], other["paid"], other["w"])
        check(data)
        assert data.n_chunks == 4 and data.feature_names.tolist() == COLUMNS and data.dtype == np.float64
        check(Partitioned.from_any(frame[COLUMNS], other["paid"], W))
        check(Partitioned.from_any(frame[COLUMNS], Y, other["w"]))
    lengths = tuple(len(part) for part in dask.compute(*memory.to_delayed()))
    for frame in (memory, parquet):
        check(Partitioned.from_any(frame[COLUMNS]), y=None, weight=None)
        check(Partitioned.from_any(frame[COLUMNS], Y.tolist(), pd.Series(W)))
        check(Partitioned.from_any(frame[COLUMNS], da.from_array(Y, chunks=(lengths,)), frame["w"]))
        array = da.from_array(X, chunks=(lengths, 3))
        check(Partitioned.from_any(array, frame["paid"], frame["w"]))
        check(Partitioned.from_any(unknown(array), frame["paid"], frame["w"]))
        check(Partitioned.from_any(frame[COLUMNS].values, Y, W))


def test_part_of_a_parquet_table(tmp_path, parquet):
    # With few of many columns Dask merges small partitions, or not: rows must stay together either way.
    wide = FRAME.assign(**{f"more{i}": 0.0 for i in range(20)})
    dd.from_pandas(wide, npartitions=5).to_parquet(tmp_path / "wide")
    frame = dd.read_parquet(tmp_path / "wide")
    one = dd.from_pandas(FRAME, npartitions=5)
    for y, weight in itertools.product((frame["paid"], one["paid"], Y), (frame["w"], one["w"], W, None)):
        data = Partitioned.from_any(frame[COLUMNS], y, weight)
        check(data, weight=None if weight is None else W)
        assert data.n_chunks == 5


def test_one_frame_is_read_once(tmp_path):
    def load(i):
        (tmp_path / f"{i}-{len(list(tmp_path.iterdir()))}").touch()
        return FRAME.iloc[6 * i : 6 * i + 6]

    frame = dd.from_map(load, range(4), meta=FRAME.iloc[:0])
    for prepare in (lambda f: f, lambda f: f.assign(a=f.a * 1.0), lambda f: f[f.paid >= 0]):
        X_, y, w = prepare(frame)[COLUMNS], prepare(frame)["paid"], prepare(frame)["w"]
        check(Partitioned.from_any(X_, y, w))
        assert len(list(tmp_path.iterdir())) == 4
        for mark in tmp_path.iterdir():
            mark.unlink()


def test_divisions_align_a_target():
    frame = dd.from_pandas(FRAME, npartitions=4)
    other = dd.from_pandas(FRAME, npartitions=6)
    check(Partitioned.from_any(frame[COLUMNS], other["paid"], other["w"]))


@pytest.mark.parametrize("chunks", [(7, 2), (23, 1), (7, 3)])
def test_several_targets(chunks):
    two = np.stack([Y, -Y], axis=1)
    frame = dd.from_pandas(FRAME.assign(q=-Y), npartitions=4)
    for table, y in (
        (X, two),
        (X, pd.DataFrame(two)),
        (da.from_array(X, chunks=chunks), two),
        (da.from_array(X, chunks=chunks), da.from_array(two, chunks=(5, 1))),
        (unknown(da.from_array(X, chunks=chunks)), unknown(da.from_array(two, chunks=(chunks[0], 1)))),
        (frame[COLUMNS], frame[["paid", "q"]]),
        (frame[COLUMNS], two),
    ):
        data = Partitioned.from_any(table, y)
        assert data.target_shape == (2,)
        check(data, y=two, weight=None)


@pytest.mark.parametrize(
    "names", [np.array(["no", "yes"]), np.array(["no", "yes"], dtype=object), np.array([False, True])]
)
def test_labels_keep_their_type(names):
    y = names[Y % 2]
    for table in (X, da.from_array(X, chunks=(7, 3)), dd.from_pandas(FRAME, npartitions=4)[COLUMNS]):
        chunks = check(Partitioned.from_any(table, y), y=y, weight=None)
        assert all(chunk.y.dtype == y.dtype for chunk in chunks)


def test_tables_left_as_they_come():
    frame = dd.from_pandas(FRAME, npartitions=3)
    data = Partitioned.from_any(frame[COLUMNS], frame["paid"], matrix=False)
    chunks = check(data, weight=None)
    assert all(isinstance(chunk.X, pd.DataFrame) for chunk in chunks) and data.layout == "frame"
    text = pd.DataFrame({"s": ["a", "b"], "t": [1, 2]})
    for table in (text, pl.from_pandas(text)):
        (chunk,) = Partitioned.from_any(table, matrix=False).chunks
        assert chunk.X is table
    assert Partitioned.from_any(X.astype(int), matrix=False).chunks[0].X.dtype == int


@pytest.mark.parametrize(
    "one", [Y, FRAME["paid"], da.from_array(Y, chunks=7), dd.from_pandas(FRAME, npartitions=3)["paid"]]
)
def test_columns_as_x(one):
    data = Partitioned.from_any(one, W, matrix=False)
    chunks = dask.compute(*data.chunks) if data.is_lazy else data.chunks
    np.testing.assert_array_equal(np.concatenate([np.asarray(chunk.X) for chunk in chunks]), Y)
    np.testing.assert_array_equal(np.concatenate([chunk.y for chunk in chunks]), W)
    assert data.n_features is None


def never(*args):
    raise AssertionError("computed")


def test_nothing_is_read():
    lazy = dd.from_pandas(FRAME, npartitions=3).map_partitions(never, meta=FRAME.iloc[:0])
    array = da.from_array(X, chunks=(7, 2)).map_blocks(never, dtype=float, meta=np.empty((0, 0)))
    target = da.from_array(Y, chunks=5).map_blocks(never, dtype=int, meta=np.empty(0, dtype=int))
    for data in (
        Partitioned.from_any(lazy[COLUMNS], lazy["paid"], lazy["w"]),
        Partitioned.from_any(lazy[COLUMNS], lazy["paid"], matrix=False),
        Partitioned.from_any(array, target, W),
        Partitioned.from_any(array, Y),
        Partitioned.from_any(array[array[:, 0] > 0], lazy["paid"].repartition(npartitions=4)),
        Partitioned.from_any(array, target, 2.0),
        Partitioned.from_any(array[array[:, 0] > 0], None, 2.0),
        Partitioned.from_any(lazy[COLUMNS], lazy["paid"], 2.0),
    ):
        assert len(data.chunks) == data.n_chunks


def test_spread_keeps_the_blocks():
    big = np.random.default_rng(0).normal(size=(5000, 300))
    data = Partitioned.from_any(big, np.arange(5000))
    spread = data.spread(3)
    assert spread.is_lazy and spread.n_chunks == 3 and spread.rows_per_block == data.rows_per_block
    index, row, blocks = 0, 0, []
    for chunk in dask.compute(*spread.chunks):
        blocks += chunk.blocks(index, row, spread.rows_per_block)
        index, row = len(blocks), row + len(chunk)
    for ours, whole in zip(blocks, data.chunks[0].blocks(0, 0, data.rows_per_block), strict=True):
        assert ours[3:] == whole[3:]
        np.testing.assert_array_equal(ours.X, whole.X)
    assert data.spread(100_000).n_chunks == len(blocks)
    assert spread.spread(2) is spread


BAD = [
    ((X, Y[:8]), r"Found input variables with inconsistent numbers of samples: \[23, 8\]"),
    ((X, None, W[:8]), r"sample_weight.shape == \(8,\), expected \(23,\)!"),
    ((X, None, "2"), "sample_weight must be a number or hold one number for each row of X, got '2'"),
    ((X, None, np.array(2.0)), "sample_weight must be a number or hold one number for each row of X"),
    ((X, None, np.ones((N, 2))), "Sample weights must be 1D array or scalar"),
    ((X[:0], Y[:0]), r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required."),
    ((X[:, :0], Y), r"0 feature\(s\) \(shape=\(23, 0\)\) while a minimum of 1 is required."),
    ((X + 1j, Y), "Complex data not supported"),
    ((X, Y + 1j), "Complex data not supported"),
    ((X[0], Y), "Expected 2D array, got 1D array instead"),
    ((ARRAYS["rows"], Y[:8]), r"Found input variables with inconsistent numbers of samples: \[23, 8\]"),
    ((ARRAYS["rows"], da.ones(8)), r"Found input variables with inconsistent numbers of samples: \[23, 8\]$"),
    ((ARRAYS["rows"], da.ones(22, chunks=7)), r"samples: \[23, 22\]; .* is chunk 3: X has 2 rows, y has 1\."),
    ((ARRAYS["rows"], Y, da.ones(22, chunks=7)), "is chunk 3: X has 2 rows, sample_weight has 1"),
    ((ARRAYS["rows"], unknown(da.from_array(Y, chunks=7)).blocks[:1]), r"inconsistent numbers of samples: \[23, 7\]$"),
    ((ARRAYS["unknown"], da.ones(22, chunks=7)), "is chunk 3: X has 2 rows, y has 1"),
    ((ARRAYS["unknown"], Y[:8]), r"Found input variables with inconsistent numbers of samples: \[23, 8\]"),
    ((ARRAYS["rows"] + 1j, Y), "Complex data not supported"),
    ((ARRAYS["rows"], da.ones(N, chunks=7) * 1j), "Complex data not supported"),
    ((ARRAYS["rows"].astype("U"), Y), "TableEncoder"),
    ((ARRAYS["rows"][0], Y), "Expected 2D array, got 1D array instead"),
    ((da.ones((4, 4, 4)), Y[:4]), "Found array with dim 3"),
    ((da.ones((0, 3)), Y[:0]), r"0 sample\(s\) \(shape=\(0, 3\)\)"),
    ((ARRAYS["rows"], Y, da.ones((N, 2), chunks=7)), "Sample weights must be 1D array or scalar, got 2D array"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Partitioned.from_any(*arguments)


def test_refused_frames():
    frame = dd.from_pandas(FRAME.assign(s="a", c=pd.Categorical(["x"] * N)), npartitions=2)
    with pytest.raises(ValueError, match="'s' .*'c' .*TableEncoder"):
        Partitioned.from_any(frame[["a", "s", "c"]], frame["paid"])
    with pytest.raises(ValueError, match="Expected a 2-dimensional container"):
        Partitioned.from_any(frame["a"], frame["paid"])


def read(tables, tmp_path):
    """Return the tables as collections read from Parquet, whose lengths nobody knows."""
    out = []
    for i, table in enumerate(tables):
        table.to_frame().to_parquet(tmp_path / str(i))
        out.append(dd.read_parquet(tmp_path / str(i))[table.name])
    return out


def test_unknown_lengths_are_computed_to_align(tmp_path, parquet):
    series = dd.from_pandas(FRAME, npartitions=3)["paid"]
    (y,) = read([dd.from_pandas(FRAME, npartitions=3)["paid"]], tmp_path)
    other = dd.from_pandas(FRAME, npartitions=4).clear_divisions()["paid"].repartition(npartitions=2)
    weight = da.from_array(W, chunks=10)
    four = da.from_array(Y, chunks=((7, 6, 8, 2),))  # as many chunks as X, cut otherwise
    targets = (da.from_array(Y, chunks=5), four, unknown(da.from_array(Y, chunks=5)), series, y, other)
    tables = (ARRAYS["rows"], ARRAYS["columns"], ARRAYS["unknown"], ARRAYS["unknown columns"], parquet[COLUMNS])
    for table, target in itertools.product(tables, targets):
        data = Partitioned.from_any(table, target, weight)
        check(data)
        assert data.aligned[0] is table and data.known_lengths is not None
        check(Partitioned.from_any(table, weight=target), y=None, weight=Y)
    two = da.from_array(np.stack([Y, -Y], axis=1), chunks=(5, 1))
    check(Partitioned.from_any(parquet[COLUMNS], two), y=two.compute(), weight=None)


def test_only_unknown_lengths_are_computed(parquet):
    seen = []

    def watch(part, name):
        seen.append(name)
        return part

    X_ = ARRAYS["rows"].map_blocks(watch, "X", dtype=float, meta=np.empty((0, 0)))
    y = unknown(da.from_array(Y, chunks=7)).map_blocks(watch, "y", dtype=int, meta=np.empty(0, dtype=int))
    Partitioned.from_any(X_, y)
    assert set(seen) == {"y"} and len(seen) == 4
    seen.clear()
    columns = parquet[COLUMNS].map_partitions(watch, "X", meta=FRAME[COLUMNS].iloc[:0])
    Partitioned.from_any(columns, parquet["paid"].map_partitions(watch, "y", meta=FRAME["paid"].iloc[:0]))
    assert not seen


@pytest.mark.parametrize("number", [2, 0.5, np.float32(0.25), True])
def test_a_number_weighs_every_row(number, parquet):
    expected = np.full(N, float(number))
    tables = [*MEMORY.values(), *ARRAYS.values(), parquet[COLUMNS], dd.from_pandas(FRAME, npartitions=3)[COLUMNS]]
    for table in tables:
        check(Partitioned.from_any(table, Y, number), weight=expected)
        check(Partitioned.from_any(table, weight=number), y=None, weight=expected)


def test_lengths_are_compared_when_the_chunk_is_made():
    y = unknown(da.from_array(Y, chunks=((7, 6, 8, 2),)))
    data = Partitioned.from_any(ARRAYS["unknown"], y)
    data.chunks[0].compute()
    with pytest.raises(ValueError, match="Chunk 1: X has 7 rows, y has 6; pass collections whose chunks hold"):
        data.chunks[1].compute()
    frame = dd.from_pandas(FRAME, npartitions=4).clear_divisions()
    data = Partitioned.from_any(frame[COLUMNS], frame["paid"], frame["w"][frame["w"] != 20])
    with pytest.raises(ValueError, match="Chunk 3: X has 5 rows, sample_weight has 4"):
        dask.compute(*data.chunks)


def test_chunks_of_another_width_than_promised():
    narrow = ARRAYS["rows"].map_blocks(lambda part: part[:, :2], dtype=float, meta=np.empty((0, 3)))
    panels = ARRAYS["columns"].map_blocks(lambda part: part[:, :1], dtype=float, meta=np.empty((0, 3)))
    frame = dd.from_pandas(FRAME, npartitions=2)[COLUMNS]
    frame = frame.map_partitions(lambda part: part[["a", "b"]], meta=FRAME[COLUMNS].iloc[:0], enforce_metadata=False)
    for table, found in ((narrow, "2 columns .* promise 3"), (panels, "1 columns .* promise 2"), (frame, "2 columns")):
        for matrix in (True, False):
            with pytest.raises(ValueError, match="Chunk 0: X has " + found):
                Partitioned.from_any(table, matrix=matrix).chunks[0].compute()


def test_a_thousand_chunks_are_cheap():
    array, y = da.random.random((10_000, 3), chunks=(10, 3)), da.random.random(10_000, chunks=10)
    start = time.process_time()
    data = Partitioned.from_any(array, y)
    made = time.process_time() - start
    assert len(data.chunks) == 1000
    assert len({id(chunk.dask) for chunk in data.chunks}) == 1
    assert made < 0.2 and time.process_time() - start < 2


@pytest.mark.cluster
def test_chunks_on_workers(cluster_client, parquet):
    with dask.config.set(scheduler=None):
        for data in (
            Partitioned.from_any(X, Y, W).spread(2),
            Partitioned.from_any(parquet[COLUMNS], parquet["paid"], parquet["w"]),
            Partitioned.from_any(parquet[COLUMNS], Y, W),
            Partitioned.from_any(ARRAYS["columns"], da.from_array(Y, chunks=4), W),
        ):
            chunks = cluster_client.gather(cluster_client.compute(data.chunks))
            np.testing.assert_array_equal(np.vstack([dense(chunk.X) for chunk in chunks]), X)
            np.testing.assert_array_equal(np.concatenate([chunk.y for chunk in chunks]), Y)


@pytest.mark.parametrize("memory", ["auto", "pinned", "mmap"])
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_unknown_chunks_of_other_rows_are_cut_anew(memory, kind):
    """As many chunks, but other rows in them: found out when they are placed, and put right at the price of a read."""
    from daskdml import config_context, runtime

    rng = np.random.default_rng(0)
    X, kept = rng.normal(size=(4000, 3)), rng.random(4000) < 0.5
    y, weight = X[:, 0].copy(), np.arange(4000.0)
    Xd = da.from_array(X, chunks=(700, -1))[da.from_array(kept, chunks=700)]
    other = ((600,) * 5 + (1000,),)
    yd, wd = (da.from_array(part, chunks=other)[da.from_array(kept, chunks=other)] for part in (y, weight))
    if kind == "frame":
        Xd = dd.from_dask_array(Xd, columns=list("abc"))
    data = Partitioned.from_any(Xd, yd, wd)
    with config_context(memory=memory), runtime.open(data) as run:
        rows = run.map(lambda block: (block.X[:, 0], block.y, block.weight))
    first, targets, weights = (np.concatenate(parts) for parts in zip(*rows))
    np.testing.assert_array_equal(first, X[kept, 0])
    np.testing.assert_array_equal(targets, y[kept])
    np.testing.assert_array_equal(weights, weight[kept])
