"""Targets: read, summarised and encoded as np.unique would, without its sort."""

import functools
import itertools
import operator
import time

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

from daskdml.data import Block, TargetSummary, as_target, as_vector, as_weight, encode_classes, target_summary

RNG = np.random.default_rng(0)
TEN = RNG.integers(0, 10, 400)

LABELS = {
    "int64": TEN,
    "two": TEN % 2,
    "two far apart": np.where(TEN > 5, -(2**62), 2**62),
    "one": np.full(400, 7),
    "int8": (TEN - 5).astype(np.int8),
    "int8 full range": RNG.integers(-128, 128, 400).astype(np.int8),
    "uint8": (TEN * 25).astype(np.uint8),
    "uint64": TEN.astype(np.uint64) + np.uint64(2**63),
    "spread": TEN * 10**12,
    "bool": TEN > 4,
    "float": TEN.astype(float),
    "float32 two": (TEN % 2).astype(np.float32) * 2 - 1,
    "unicode": np.array([f"class {i}" for i in TEN]),
    "object": np.array([f"class {i}" for i in TEN], dtype=object),
    "bytes": np.array([b"%d" % i for i in TEN]),
}


def summarise(y, weight=None, kind="classes", cut=64):
    """Summarise block by block and add up."""
    starts = range(0, len(y), cut)
    blocks = [
        Block(None, y[s : s + cut], None if weight is None else weight[s : s + cut], i, s) for i, s in enumerate(starts)
    ]
    return functools.reduce(operator.add, [target_summary(block, kind) for block in blocks])


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cut", [1, 64, 400])
def test_classes_are_those_of_unique(y, weighted, cut):
    weight = RNG.integers(0, 5, len(y)).astype(float) if weighted else None
    found = summarise(y, weight, cut=cut).check()
    classes, counts = np.unique(y, return_counts=True)
    assert found.classes.dtype == y.dtype
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.weights, counts if weight is None else [weight[y == c].sum() for c in classes])
    assert found.n_rows == len(y) and found.weight == (len(y) if weight is None else weight.sum())


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_codes_are_positions(y):
    classes, codes = np.unique(y, return_inverse=True)
    found = encode_classes(classes, y)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_array_equal(encode_classes(classes, y[:, None]), codes)
    assert encode_classes(classes, y[:0]).shape == (0,)


@pytest.mark.parametrize(
    "classes, y",
    [
        (np.arange(3), np.array([0, 3])),
        (np.arange(3), np.array([-1, 2])),
        (np.array([0, 2, 5]), np.array([2, 1])),
        (np.array([0, 2]), np.array([0, 1])),
        (np.array([0.0, 1.5, 3.0]), np.array([1.0])),
        (np.array(["a", "b"]), np.array(["a", "c"])),
        (np.array([0, 1]), np.array(["0"])),
        (np.array([1, 2, 3]), np.array([300], dtype=np.int16)),
        (np.array([300, 301, 302]), np.array([44], dtype=np.uint8)),
    ],
)
def test_unseen_labels(classes, y):
    unseen = next(label for label in y.tolist() if label not in classes.tolist())
    with pytest.raises(ValueError, match=f"y contains the label {unseen!r}, which is none of the .* classes"):
        encode_classes(classes, y)


@pytest.mark.parametrize("widths", itertools.permutations([np.int8, np.int64, np.uint16], 2))
@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2], [0, 100, 90]])
def test_mixed_widths(widths, labels):
    classes, y = np.unique(labels).astype(widths[0]), np.array(labels * 3, dtype=widths[1])
    np.testing.assert_array_equal(encode_classes(classes, y), np.unique(y, return_inverse=True)[1])


def test_chunks_of_mixed_types_merge():
    parts = [np.array([1, 2], dtype=np.int8), np.array([3, 1]), np.array([2.0])]
    found = functools.reduce(operator.add, [target_summary(Block(None, y, None, 0, 0), "classes") for y in parts])
    assert found.classes.tolist() == [1, 2, 3] and found.counts.tolist() == [2, 2, 1]
    texts = [np.array(["a"]), np.array(["long", "a"]), np.array(["b"], dtype=object)]
    found = functools.reduce(operator.add, [target_summary(Block(None, y, None, 0, 0), "classes") for y in texts])
    assert found.classes.tolist() == ["a", "b", "long"] and found.counts.tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="y mixes numbers and strings"):
        (target_summary(Block(None, parts[0], None, 0, 0), "classes") + found).check()


def test_empty_is_neutral():
    some = target_summary(Block(None, TEN, None, 0, 0), "classes")
    for empty in (TargetSummary(), target_summary(Block(None, TEN[:0], None, 1, 0), "classes")):
        for total in (some + empty, empty + some):
            assert total.classes.tolist() == some.classes.tolist() and total.n_rows == some.n_rows


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_values(shape, weighted):
    y = RNG.normal(size=(300, *shape))
    weight = RNG.random(300) if weighted else None
    found = summarise(y, weight, "values").check()
    np.testing.assert_array_equal(found.low, y.min(axis=0))
    np.testing.assert_array_equal(found.high, y.max(axis=0))
    np.testing.assert_allclose(found.total, y.sum(axis=0) if weight is None else weight @ y)
    assert found.classes is None


BAD = [
    ([1.0, np.nan], None, "classes", r"Input y contains NaN. It is at row 101, in block 3"),
    ([1.0, np.nan], None, "values", r"Input y contains NaN. It is at row 101, in block 3"),
    ([np.inf, 1.0], None, "values", r"Input y contains infinity or a value too large for dtype\('float64'\).*row 100"),
    ([0.5, 1.0, 2.0], None, "classes", "Unknown label type: continuous"),
    ([0.5, 1.0], None, "classes", "Unknown label type: continuous"),
    ([0.5], None, "classes", "Unknown label type: continuous"),
    (["a", None], None, "classes", "Input y contains NaN. It is at row 101"),
    (np.array(["a", {}], dtype=object), None, "classes", "Unknown label type: unknown"),
    (["a", "b"], None, "values", "y must hold numbers for a regression"),
    ([[1, 2], [3, 4]], None, "classes", r"y should be a 1d array, got an array of shape \(2, 2\) instead."),
    ([0, 1], [1.0, -2.0], "classes", r"Negative values in data passed to `sample_weight`: -2.0 at row 101, in block 3"),
    ([0, 1], [1.0, np.nan], "values", "Input sample_weight contains NaN. It is at row 101, in block 3"),
    ([0, 1], [np.inf, 1.0], "none", "Input sample_weight contains infinity .* row 100"),
    ([0, 1], [0.0, 0.0], "classes", "Sample weights must contain at least one non-zero number."),
]


@pytest.mark.parametrize("y, weight, kind, message", BAD)
def test_faults(y, weight, kind, message):
    y = as_target(y)
    block = Block(None, y, None if weight is None else np.array(weight), 3, 100)
    with pytest.raises(ValueError, match=message):
        target_summary(block, kind).check()


def test_first_fault_in_row_order_wins():
    bad = [target_summary(Block(None, np.array([np.nan]), None, i, 10 * i), "values") for i in (5, 2, 7)]
    good = target_summary(Block(None, np.array([1.0]), None, 1, 10), "values")
    for order in itertools.permutations([*bad, good]):
        with pytest.raises(ValueError, match="row 20, in block 2"):
            functools.reduce(operator.add, order).check()


@pytest.mark.parametrize(
    "y, expected",
    [
        ([1, 2], np.array([1, 2])),
        (pd.Series([1, 2], dtype="Int64"), np.array([1, 2])),
        (pd.Series([1, None], dtype="Int64"), np.array([1, np.nan])),
        (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
        (pd.Series([1.5, 2.5], dtype="double[pyarrow]"), np.array([1.5, 2.5])),
        (pd.Series(["a", "b"], dtype="category"), np.array(["a", "b"], dtype=object)),
        (pd.Series(["a", "b"], dtype="string"), np.array(["a", "b"], dtype=object)),
        (pd.DataFrame({"u": [1, 2], "v": [3, 4]}), np.array([[1, 3], [2, 4]])),
        (pl.Series([1, 2]), np.array([1, 2])),
        (pl.DataFrame({"u": [1.0, 2.0]}), np.array([[1.0], [2.0]])),
        (np.array([1, 2], dtype=object), np.array([1, 2])),
        (np.array([1, 2.5], dtype=object), np.array([1, 2.5])),
        (np.array([True, False], dtype=object), np.array([True, False])),
    ],
)
def test_targets_of_every_kind(y, expected):
    found = as_target(y)
    assert isinstance(found, np.ndarray) and found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_refused_targets():
    with pytest.raises(ValueError, match="Complex data not supported"):
        as_target(np.array([1j]))
    with pytest.raises(TypeError, match="Sparse data was passed for y"):
        as_target(sp.csr_matrix([[1.0]]))
    with pytest.raises(ValueError, match=r"y should be a 1d array, got an array of shape \(1, 1, 1\)"):
        as_target(np.ones((1, 1, 1)))


def test_weights():
    weight = np.ones(3)
    assert as_weight(weight, 3) is weight
    assert as_weight(pd.Series([1, 2]), 2).dtype == np.float64
    for bad, message in (
        (np.ones((3, 2)), "Sample weights must be 1D array or scalar, got 2D array"),
        (np.ones(2), r"sample_weight.shape == \(2,\), expected \(3,\)!"),
        (np.array(["a", "b", "c"]), "Sample weights must be numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            as_weight(bad, 3)


def test_two_million_rows_are_fast():
    y = RNG.integers(0, 2, 2_000_000)
    block = Block(None, y, None, 0, 0)
    classes = np.array([0, 1])

    def best(fn):
        times = []
        for _ in range(5):
            start = time.process_time()
            fn()
            times.append(time.process_time() - start)
        return min(times)

    assert best(lambda: target_summary(block, "classes")) < 0.015
    assert best(lambda: encode_classes(classes, y)) < 0.010


COLUMN = TEN[:, None]
FRAME = pd.DataFrame({"y": TEN})


@pytest.mark.parametrize(
    "column",
    [
        COLUMN,
        COLUMN.tolist(),
        FRAME,
        FRAME.astype("Int64"),
        pl.DataFrame({"y": TEN}),
        pa.table({"y": TEN}),
        da.from_array(COLUMN, chunks=(70, 1)),
        dd.from_pandas(FRAME, npartitions=3),
    ],
    ids=lambda column: type(column).__module__,
)
def test_a_column_becomes_a_vector(column):
    vector = as_vector(column)
    assert vector is not column
    lazy = hasattr(column, "dask")
    assert hasattr(vector, "dask") == lazy
    np.testing.assert_array_equal(as_target(vector.compute() if lazy else vector), TEN)


@pytest.mark.parametrize("y", [TEN, TEN.tolist(), FRAME["y"], pl.Series(TEN), da.from_array(TEN), None], ids=type)
def test_what_is_no_table_is_left_alone(y):
    assert as_vector(y) is y


@pytest.mark.parametrize("n", [400, "n"])
def test_several_columns_are_no_vector(n):
    two = pd.DataFrame({"y": TEN, "z": TEN})
    tables = (two, two.to_numpy(), pl.from_pandas(two)) if n == 400 else (dd.from_pandas(two, npartitions=2),)
    for table in tables:
        with pytest.raises(ValueError) as error:
            as_vector(table)
        assert str(error.value) == f"y should be a 1d array, got an array of shape ({n}, 2) instead."
