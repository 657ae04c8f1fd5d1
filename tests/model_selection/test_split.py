"""train_test_split: sizes and errors are scikit-learn's; the rows are the same for every kind of input and chunking."""

import subprocess
import sys

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.model_selection import train_test_split as theirs

from daskdml.model_selection import _draw, train_test_split
from daskdml.utils.random import row_hash

N = 1003


@pytest.fixture
def X():
    return np.arange(3.0 * N).reshape(N, 3)


@pytest.fixture
def y():
    return np.random.default_rng(0).choice(list("abc"), N, p=[0.7, 0.2, 0.1])


def computed(parts):
    return [np.asarray(part) for part in dask.compute(*parts)]


def assert_same(parts, expected):
    assert len(parts) == len(expected)
    for part, known in zip(computed(parts), expected):
        np.testing.assert_array_equal(part, known)


# Sizes and errors: scikit-learn's.


@pytest.mark.parametrize("n", [2, 5, 10, 97])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"test_size": 0.3},
        {"train_size": 0.3},
        {"test_size": 1},
        {"train_size": 1},
        {"test_size": 0.3, "train_size": 0.5},
        {"test_size": 0.9, "train_size": 0.9},
        {"test_size": 3, "train_size": 4},
        {"test_size": 50, "train_size": 60},
        {"test_size": 0.999},
        {"test_size": 1000},
        {"train_size": 97},
        {"test_size": 3, "train_size": 0.99},
        {"test_size": 1.5},
        {"test_size": 0},
        {"test_size": -0.1},
        {"train_size": "half"},
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_sizes(n, sizes, shuffle):
    try:
        expected = theirs(np.arange(n), shuffle=shuffle, random_state=0, **sizes)
    except ValueError as error:
        with pytest.raises(ValueError) as caught:
            train_test_split(np.arange(n), shuffle=shuffle, **sizes)
        assert str(caught.value).split(" Got ")[0] == str(error).split(" Got ")[0]
        return
    for values in (np.arange(n), da.arange(n, chunks=4)):
        train, test = train_test_split(values, shuffle=shuffle, random_state=0, **sizes)
        assert (len(train), len(test)) == tuple(map(len, expected))
        train, test = computed([train, test])
        assert not set(train) & set(test) and set(train) | set(test) <= set(range(n))
        if not shuffle:
            np.testing.assert_array_equal(train, expected[0])
            np.testing.assert_array_equal(test, expected[1])


@pytest.mark.parametrize("counts", [(70, 20, 10), (501, 301, 201), (11, 7, 5)])
@pytest.mark.parametrize("sizes", [{"test_size": 0.3}, {"test_size": 5, "train_size": 7}, {"test_size": 0.5}])
def test_strata_sizes(counts, sizes):
    """Largest remainder leaves nothing to choose but ties, which scikit-learn breaks by chance."""
    strata = np.repeat(np.arange(len(counts)), counts)
    expected = [
        {tuple(np.bincount(part, minlength=3)) for part in parts}
        for parts in zip(*(theirs(strata, stratify=strata, random_state=seed, **sizes) for seed in range(20)))
    ]
    for part, allowed in zip(train_test_split(strata, stratify=strata, random_state=0, **sizes), expected):
        assert tuple(np.bincount(part, minlength=3)) in allowed


def test_strata_errors_are_theirs():
    cases = [([0, 1, 1, 1], {}), ([0, 0, 1, 1, 2, 2], {"test_size": 2}), ([0, 0, 1, 1, 2, 2], {"train_size": 2})]
    for strata, sizes in cases:
        with pytest.raises(ValueError) as expected:
            theirs(np.arange(len(strata)), stratify=strata, **sizes)
        for values in (np.array(strata), da.from_array(np.array(strata), chunks=2)):
            with pytest.raises(ValueError) as got:
                train_test_split(values, stratify=values, **sizes)
            assert str(got.value)[:24] == str(expected.value)[:24]


def test_other_errors(X, y):
    with pytest.raises(ValueError, match="At least one array"):
        train_test_split()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        train_test_split(X, y[:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        train_test_split(da.from_array(X), y[:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        train_test_split(da.from_array(X), da.from_array(y[:-1]))
    with pytest.raises(ValueError, match="not implemented for shuffle=False"):
        train_test_split(X, y, shuffle=False, stratify=y)
    with pytest.raises(ValueError, match="stratify contains NaN"):
        train_test_split(X, stratify=np.full(N, np.nan))
    with pytest.raises(ValueError, match="cannot be sorted"):
        train_test_split(X, stratify=np.array([None, "a", *y[2:]], dtype=object))
    with pytest.raises(ValueError, match="random_state must be"):
        train_test_split(X, random_state="today")


# Which rows.


def test_rows_are_those_of_smallest_hash():
    train, test = train_test_split(np.arange(N), test_size=100, train_size=200, random_state=7)
    order = np.argsort(row_hash(7, _draw.SPLIT_STREAM, np.arange(N)))
    np.testing.assert_array_equal(train, np.sort(order[:200]))
    np.testing.assert_array_equal(test, np.sort(order[200:300]))


def test_seeds():
    splits = [train_test_split(np.arange(N), random_state=seed)[1] for seed in (0, 0, 1)]
    assert (splits[0] == splits[1]).all() and (splits[0] != splits[2]).any()
    overlap = len(np.intersect1d(splits[0], splits[2]))  # hypergeometric: mean 251^2 / 1003, deviation 6.9
    assert abs(overlap - 251**2 / N) < 35
    fresh = [train_test_split(np.arange(N))[1] for _ in range(2)]
    assert (fresh[0] != fresh[1]).any()
    for random_state in (np.random.RandomState, np.random.default_rng):
        a, b = (train_test_split(np.arange(N), random_state=random_state(3))[1] for _ in range(2))
        np.testing.assert_array_equal(a, b)


def test_a_window_that_misses_its_rank_is_widened(monkeypatch, X, y):
    expected = train_test_split(X, y, stratify=y, random_state=0)
    window = _draw._window
    monkeypatch.setattr(_draw, "_window", lambda count, rank, width: window(count, rank, width / 1000))
    assert_same(train_test_split(da.from_array(X, chunks=(100, 3)), y, stratify=y, random_state=0), expected)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("chunks", [(N, 3), (100, 3), (9, 3), ((1, 2, 0, 1000), (2, 1))])
def test_chunking_changes_nothing(X, y, chunks, stratified):
    expected = train_test_split(X, y, stratify=y if stratified else None, random_state=3)
    lazy_X, lazy_y = da.from_array(X, chunks=chunks), da.from_array(y, chunks=217)
    for strata in (y, lazy_y, pd.Series(y), y.tolist()) if stratified else (None,):
        parts = train_test_split(lazy_X, lazy_y, X, y, stratify=strata, random_state=3)
        assert all(isinstance(part, da.Array) for part in parts[:4])
        assert all(isinstance(part, np.ndarray) for part in parts[4:])
        assert [part.shape for part in parts[:4]] == [part.shape for part in expected]
        assert parts[0].chunks[1] == lazy_X.chunks[1]
        assert_same(parts, [*expected, *expected])
        for part in parts[:4]:
            lengths = tuple(len(part.blocks[i].compute()) for i in range(min(part.numblocks[0], 4)))
            assert lengths == part.chunks[0][:4]


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("source", ["parquet", "divisions", "no divisions"])
def test_frames_keep_their_index_and_stay_aligned(X, y, source, stratified, tmp_path):
    table = pd.DataFrame(X, columns=list("pqr"), index=np.arange(N) * 2).assign(paid=y, unused="some long string")
    table = table.rename_axis("row")
    frame = dd.from_pandas(table, npartitions=10, sort=source != "no divisions")
    if source == "parquet":
        frame.to_parquet(tmp_path)
        frame = dd.read_parquet(tmp_path)
    features, target = frame[["p", "q", "r"]], frame["paid"]
    expected = train_test_split(X, y, stratify=y if stratified else None, random_state=3)
    parts = train_test_split(features, target, stratify=target if stratified else None, random_state=3)
    assert [type(part) for part in parts] == [dd.DataFrame] * 2 + [dd.Series] * 2
    assert all(part.npartitions == 10 and part.divisions == frame.divisions for part in parts)
    assert_same(parts, expected)
    for part, rows in zip(parts, expected[:2] * 2):
        assert part.compute().index.tolist() == (rows[:, 0] // 3 * 2).astype(int).tolist() or part.ndim == 1
    pd.testing.assert_index_equal(parts[0].compute().index, parts[2].compute().index)
    together = dd.map_partitions(
        lambda a, b: len(a) == len(b), parts[0], parts[2], align_dataframes=False, meta=(None, bool)
    )
    assert together.compute().all()
    pd.testing.assert_frame_equal(parts[0].compute(), features.compute().loc[parts[0].compute().index])


def test_frames_beside_other_kinds(X, y):
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("pqr")).assign(paid=y), npartitions=7, sort=False)
    expected = train_test_split(X, y, stratify=y, random_state=3)
    unknown = frame["paid"].to_dask_array()
    for strata in (y, unknown, frame["paid"]):
        parts = train_test_split(frame[["p", "q", "r"]], unknown, X, stratify=strata, random_state=3)
        assert_same(parts, [*expected, *expected[:2]])
        assert parts[2].shape == expected[2].shape


def test_several_columns_of_strata(X):
    strata = np.stack([np.arange(N) % 2, np.arange(N) % 3], axis=1)
    train, test = train_test_split(strata, stratify=strata, random_state=0)
    assert set(np.unique(test, axis=0, return_counts=True)[1]) <= {41, 42}
    lazy = da.from_array(strata, chunks=(100, 1))
    assert_same(train_test_split(lazy, stratify=lazy, random_state=0), [train, test])


def test_chunks_that_disagree_say_so():
    values = pd.Series(np.arange(10))
    a, b = (dd.concat([dd.from_pandas(part) for part in (values[:k], values[k:])]) for k in (4, 5))
    a, b = (one.clear_divisions() for one in (a, b))
    parts = train_test_split(a, b, random_state=0)
    with pytest.raises(ValueError, match=r"Chunk \d has \d rows in one collection and \d in another"):
        dask.compute(*parts)


def test_strata_chunked_otherwise():
    values, strata = np.arange(60), np.arange(60) % 3
    expected = train_test_split(values, stratify=strata, random_state=0)
    lazy = dd.from_pandas(pd.Series(values), npartitions=4).clear_divisions()
    for labels in (
        dd.from_pandas(pd.Series(strata), npartitions=3).clear_divisions(),
        da.from_array(strata, chunks=25),
        da.from_array(strata, chunks=25)[da.ones(60, chunks=25, dtype=bool)],
    ):
        assert_same(train_test_split(lazy, stratify=labels, random_state=0), expected)


# Kinds in memory, laziness, clusters.


@pytest.mark.parametrize("kind", ["list", "tuple", "pandas", "series", "polars", "csr", "csc", "csr_array"])
def test_kinds_in_memory(X, kind):
    rows = np.arange(N)
    make, read = {
        "list": (lambda: rows.tolist(), np.asarray),
        "tuple": (lambda: tuple(rows), np.asarray),
        "pandas": (lambda: pd.DataFrame({"row": rows}, index=rows[::-1]), lambda part: part["row"].to_numpy()),
        "series": (lambda: pd.Series(rows, index=rows[::-1]), lambda part: part.to_numpy()),
        "polars": (lambda: pytest.importorskip("polars").DataFrame({"row": rows}), lambda part: part["row"].to_numpy()),
        "csr": (lambda: sp.csr_matrix(rows[:, None]), lambda part: part.toarray()[:, 0]),
        "csc": (lambda: sp.csc_matrix(rows[:, None]), lambda part: part.toarray()[:, 0]),
        "csr_array": (lambda: sp.csr_array(rows[:, None]), lambda part: part.toarray()[:, 0]),
    }[kind]
    table = make()
    parts = train_test_split(table, random_state=0)
    for part, expected in zip(parts, train_test_split(rows, random_state=0)):
        np.testing.assert_array_equal(read(part), expected)
        assert isinstance(part, list if kind == "tuple" else sp.csr_matrix if kind == "csc" else type(table))
    if kind == "pandas":
        np.testing.assert_array_equal(parts[0].index, rows[::-1][parts[0]["row"]])


def test_sparse_chunks(X):
    lazy = da.from_array(X, chunks=(100, 3)).map_blocks(sp.csr_matrix, meta=sp.csr_matrix((0, 3)))
    for part, expected in zip(train_test_split(lazy, random_state=0), train_test_split(X, random_state=0)):
        blocks = dask.compute(*part.to_delayed().ravel())
        np.testing.assert_array_equal(sp.vstack(blocks).toarray(), expected)


def test_no_row_of_X_is_read(X, y):
    def broken(block):
        raise AssertionError("X was read")

    lazy = da.from_array(X, chunks=(100, 3)).map_blocks(broken, dtype=float)
    for strata in (None, y, da.from_array(y, chunks=50)):
        parts = train_test_split(lazy, stratify=strata)
        assert [part.shape for part in parts] == [(752, 3), (251, 3)]
    frame = dd.from_pandas(pd.DataFrame(X), npartitions=3, sort=False)
    target = dd.from_pandas(pd.Series(y), npartitions=3, sort=False)
    frame = frame.map_partitions(broken, meta=frame.head(0), enforce_metadata=False)
    train_test_split(frame, target, stratify=target)
    train_test_split(frame, target)


def test_memory_never_meets_dask():
    code = (
        "import sys, numpy as np; from daskdml.model_selection import train_test_split as split;"
        "split(np.arange(9), stratify=np.arange(9) % 2); assert not {'dask', 'distributed'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.cluster
def test_on_a_cluster(cluster_client, X, y, tmp_path):
    expected = train_test_split(X, y, stratify=y, random_state=3)
    parts = train_test_split(da.from_array(X, chunks=(99, 2)), y, stratify=da.from_array(y, chunks=50), random_state=3)
    assert_same(parts, expected)
    table = pd.DataFrame(X, columns=list("pqr")).assign(paid=y)
    dd.from_pandas(table, npartitions=10).to_parquet(tmp_path)
    for frame in (dd.read_parquet(tmp_path), dd.read_parquet(tmp_path).persist()):
        parts = train_test_split(frame[["p", "q", "r"]], frame["paid"], stratify=frame["paid"], random_state=3)
        assert_same(parts, expected)
