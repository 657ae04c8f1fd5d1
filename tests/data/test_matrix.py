"""as_matrix against NumPy's own conversion, and what it promises not to copy."""

import dask.array as da
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

from daskdml.data import as_matrix, check_finite

X = np.random.default_rng(0).normal(size=(12, 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", "CF")
def test_float_arrays_pass_through(dtype, order):
    A = np.array(X, dtype=dtype, order=order)
    assert as_matrix(A) is A
    assert np.shares_memory(as_matrix(A[2:7]), A)
    A.flags.writeable = False
    assert as_matrix(A) is A


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64, bool, np.float16, np.longdouble, ">f8", ">f4", object])
def test_other_numbers_become_native_floats(dtype):
    A = (X > 0).astype(dtype)
    out = as_matrix(A)
    assert out.dtype == (np.float32 if dtype == ">f4" else np.float64) and out.dtype.isnative
    np.testing.assert_array_equal(out, (X > 0).astype(float))


@pytest.mark.parametrize(
    "view",
    [
        X[::2],
        X[:, ::2],
        X[::-1],
        X[:, ::-1],
        np.asfortranarray(X)[:, ::-1],
        np.asfortranarray(X)[::2],
        np.broadcast_to(X[:, :1], (12, 4)),
        X.ravel().view(np.uint8)[:-1].copy()[:0].reshape(0, 4),
    ],
)
def test_other_strides_are_copied_to_unit_stride(view):
    out = as_matrix(view)
    np.testing.assert_array_equal(out, view)
    assert out.flags.c_contiguous or (out.strides[0] == out.itemsize and out.strides[1] >= out.itemsize * len(out))


def test_memory_map_is_not_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(as_matrix(mapped), mapped)


def test_lists_masked_arrays_and_forced_dtype():
    np.testing.assert_array_equal(as_matrix([[1, 2], [3, 4]]), [[1.0, 2.0], [3.0, 4.0]])
    masked = np.ma.masked_array(X, mask=X > 1)
    np.testing.assert_array_equal(as_matrix(masked), np.where(X > 1, np.nan, X))
    assert as_matrix(X, dtype=np.float32).dtype == np.float32
    assert as_matrix(X.astype(np.float32), dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_homogeneous_frames_are_views(dtype):
    frame = pd.DataFrame(X.astype(dtype))
    out = as_matrix(frame)
    assert out.dtype == dtype and np.shares_memory(out, frame.to_numpy())
    np.testing.assert_array_equal(out, X.astype(dtype))


def test_mixed_frame():
    frame = pd.DataFrame({"f": [1.5, np.nan], "g": np.array([1, 2], "f4"), "i": [1, 2], "b": [True, False]})
    expected = np.array([[1.5, 1, 1, 1], [np.nan, 2, 2, 0]])
    np.testing.assert_array_equal(as_matrix(frame), expected)
    np.testing.assert_array_equal(as_matrix(frame.iloc[:0]), expected[:0])


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_nullable_frame(backend):
    frame = pd.DataFrame({"f": [1.5, None], "i": [1, None], "b": [True, None]}).convert_dtypes(dtype_backend=backend)
    np.testing.assert_array_equal(as_matrix(frame), [[1.5, 1, 1], [np.nan, np.nan, np.nan]])
    single = pd.DataFrame({"a": [1.5, 2.5]}).astype("Float32" if backend == "numpy_nullable" else "float[pyarrow]")
    assert as_matrix(single).dtype == np.float32


def test_sparse_frame_becomes_csr():
    dense = np.where(X > 0, X, 0)
    frame = pd.DataFrame(dense).astype(pd.SparseDtype(float, 0.0))
    out = as_matrix(frame)
    assert sp.issparse(out) and out.format == "csr"
    np.testing.assert_array_equal(out.toarray(), dense)
    frame[0] = dense[:, 0]
    np.testing.assert_array_equal(as_matrix(frame), dense)


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_narwhals_frames(make):
    table = {"f": [1.5, None], "i": [1, None], "b": [True, False]}
    np.testing.assert_array_equal(as_matrix(make(table)), [[1.5, 1, 1], [np.nan, np.nan, 0]])
    assert as_matrix(pl.DataFrame({"a": [1.0]}, schema={"a": pl.Float32})).dtype == np.float32
    one = as_matrix(pl.DataFrame({"a": [1.0, 2.0]}))
    np.testing.assert_array_equal(one, [[1.0], [2.0]])


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("flavour", ["matrix", "array"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_sparse(layout, flavour, dtype):
    dense = (np.where(X > 0, X, 0) * 10).astype(dtype)
    A = getattr(sp, f"{layout}_{flavour}")(dense)
    out = as_matrix(A)
    assert type(out) is getattr(sp, f"csr_{flavour}")
    assert out.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_array_equal(out.toarray(), dense)
    if layout == "csr":
        assert np.shares_memory(out.indices, A.indices)
        assert (out is A) == (dtype != np.int64)
    if layout == "csc":
        assert as_matrix(A, allow_csc=True).format == "csc"


@pytest.mark.parametrize(
    "bad, message",
    [
        (X + 1j, "Complex data not supported"),
        (sp.csr_matrix(X + 1j), "Complex data not supported"),
        (pd.DataFrame(X + 1j), "Complex data not supported"),
        (X[0], r"Expected 2D array, got 1D array instead:\narray=[\s\S]*Reshape your data either using"),
        (np.float64(1), "Expected 2D array, got scalar array instead"),
        (X[None], "Found array with dim 3, while dim <= 2 is required"),
        (pd.Series([1.0]), "Expected a 2-dimensional container"),
        (pl.Series([1.0]), "Expected a 2-dimensional container"),
        (np.array([["a"]]), "TableEncoder"),
        (np.array([["a"]], dtype=object), "TableEncoder"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "TableEncoder"),
        (pd.DataFrame({"ok": [1.0], "s": ["a"]}), r"'s' \((object|str)\); encode them first .*TableEncoder"),
        (pd.DataFrame({"c": pd.Categorical(["a"])}), r"'c' \(category\).*TableEncoder"),
        (pd.DataFrame({"c": pd.Categorical([1])}), "TableEncoder"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "TableEncoder"),
        (pd.DataFrame({f"c{i}": ["a"] for i in range(8)}), "and 3 more"),
        (pl.DataFrame({"s": ["a"], "n": [1.0]}), r"'s' \(String\).*TableEncoder"),
        (pl.DataFrame({"s": ["a"]}, schema={"s": pl.Categorical}), "TableEncoder"),
    ],
)
def test_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        as_matrix(bad)


def test_refused_types():
    # scikit-learn's check_estimator looks for float()'s own words.
    with pytest.raises(TypeError, match="argument must be .* string.* number"):
        as_matrix(np.array([[1.0, {"foo": "bar"}]], dtype=object))
    with pytest.raises(TypeError, match="np.matrix is not supported"):
        as_matrix(np.asmatrix(X))
    with pytest.raises(TypeError, match="one chunk in memory"):
        as_matrix(da.ones((2, 2)))


@pytest.mark.parametrize("make", [np.array, sp.csr_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite(make, dtype):
    big = np.full((3, 2), np.finfo(dtype).max, dtype=dtype)  # finite, though its sum is not
    check_finite(make(big))
    as_matrix(make(big), ensure_finite=True)
    infinite = f"contains infinity .* dtype\\('{np.dtype(dtype)}'\\)"
    for bad, text in ((np.nan, "Input X contains NaN."), (np.inf, infinite)):
        big[1, 1] = bad
        with pytest.raises(ValueError, match=text):
            as_matrix(make(big), ensure_finite=True)


class DeviceArray:
    """Stands in for a cupy array: looks like one by its module, and must not be brought to the host."""

    __module__ = "cupy.core"

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def astype(self, dtype, copy=True):
        return self if self.dtype == dtype and not copy else DeviceArray(self.values.astype(dtype))

    def __array__(self, *args, **kwargs):
        raise TypeError("brought to the host")


def test_device_arrays_stay_on_the_device():
    single = DeviceArray(X.astype(np.float32))
    assert as_matrix(single) is single
    assert as_matrix(DeviceArray(X.astype(int))).dtype == np.float64
    with pytest.raises(ValueError, match="Complex data not supported"):
        as_matrix(DeviceArray(X + 1j))


@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_at_odd_addresses_are_moved_and_keep_their_order(order):
    """NumPy multiplies them 40 times slower, and with other last bits."""
    X = np.asarray(np.arange(12.0).reshape(4, 3), order=order)
    odd = np.frombuffer(b"x" + X.tobytes(order), dtype=np.uint8)[1:].view(np.float64).reshape(X.shape, order=order)
    assert not odd.flags.aligned
    found = as_matrix(odd)
    assert found.flags.aligned and found.strides == X.strides and (found == X).all()
    rows = as_matrix(sp.csr_array(X))
    rows.data = np.frombuffer(b"x" + rows.data.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    assert as_matrix(rows).data.flags.aligned
