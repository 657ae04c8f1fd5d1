"""Kinds of input: recognised, sliced as views, counted."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

from daskdml.data import Partitioned, as_matrix, as_target, as_vector, feature_names, is_dask, is_frame
from daskdml.data.kinds import n_bytes, n_rows, slice_rows, take_rows

FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
ARRAY = FRAME.to_numpy()


@pytest.mark.parametrize(
    "X, dask, frame",
    [
        (ARRAY, False, False),
        (ARRAY.tolist(), False, False),
        (sp.csr_matrix(ARRAY), False, False),
        (FRAME, False, True),
        (FRAME["a"], False, False),
        (pl.DataFrame({"a": [1]}), False, True),
        (pl.Series("a", [1]), False, False),
        (pa.table({"a": [1]}), False, True),
        (da.from_array(ARRAY), True, False),
        (dd.from_pandas(FRAME, npartitions=1), True, True),
        (dd.from_pandas(FRAME, npartitions=1)["a"], True, False),
        (None, False, False),
    ],
)
def test_is_dask_and_is_frame(X, dask, frame):
    assert is_dask(X) is dask
    assert is_frame(X) is frame


@pytest.mark.parametrize(
    "X", [FRAME, pl.from_pandas(FRAME), pa.Table.from_pandas(FRAME), dd.from_pandas(FRAME, npartitions=1)]
)
def test_feature_names(X):
    assert feature_names(X).tolist() == ["a", "b"]
    assert feature_names(X).dtype == object


def test_names_that_are_no_strings():
    assert feature_names(pd.DataFrame(ARRAY)) is None
    assert feature_names(ARRAY) is None
    with pytest.raises(TypeError, match="Feature names are only supported if all input features have string names"):
        feature_names(pd.DataFrame(ARRAY, columns=["a", 1]))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_csr_slices_are_views(kind, index):
    dense = np.where(np.arange(60).reshape(12, 5) % 3 == 0, np.arange(60.0).reshape(12, 5), 0)
    X = kind(dense)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    part = slice_rows(X, 3, 9)
    assert type(part) is kind and part.shape == (6, 5)
    assert np.shares_memory(part.data, X.data) and np.shares_memory(part.indices, X.indices)
    np.testing.assert_array_equal(part.toarray(), dense[3:9])
    part.check_format(full_check=True)
    np.testing.assert_array_equal(take_rows(X, np.array([7, 0])).toarray(), dense[[7, 0]])


def test_rows_of_every_kind():
    whole = np.arange(12.0).reshape(6, 2)
    frame = pd.DataFrame(whole, index=list("uvwxyz"))
    for X in (whole, frame, pl.DataFrame(whole), (whole[:, :1], whole[:, 1:])):
        part, taken = slice_rows(X, 1, 4), take_rows(X, np.array([5, 2]))
        joined, gathered = (np.hstack(Z) if isinstance(Z, tuple) else np.asarray(Z) for Z in (part, taken))
        np.testing.assert_array_equal(joined, whole[1:4])
        np.testing.assert_array_equal(gathered, whole[[5, 2]])
        assert n_rows(X) == 6 and n_rows(part) == 3
    assert slice_rows(frame, 1, 4).index.tolist() == ["v", "w", "x"]
    assert take_rows(np.asfortranarray(whole), np.array([1, 3])).flags.c_contiguous


def test_bytes():
    X = sp.csr_matrix(np.eye(4))
    assert n_bytes(X) == X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    assert n_bytes((np.ones((4, 2)), np.ones((4, 1)))) == 96
    assert n_bytes(None) == 0
    assert n_bytes(FRAME) >= 32 and n_bytes(pl.DataFrame({"a": [1.0] * 100})) == 800


@pytest.mark.parametrize(
    "read",
    [
        as_matrix,
        Partitioned.from_any,
        lambda y: Partitioned.from_any(ARRAY, y),
        lambda weight: Partitioned.from_any(ARRAY, weight=weight),
        as_target,
        as_vector,
    ],
)
def test_collections_that_are_no_tables_are_refused(read):
    with pytest.raises(TypeError, match="Expected a Dask array or DataFrame, got Bag"):
        read(db.from_sequence([1, 2]))
    with pytest.raises(TypeError, match="Expected a Dask array or DataFrame, got Delayed"):
        read(dask.delayed(ARRAY))
    with pytest.raises(TypeError, match=r"collect\(\)"):
        read(pl.DataFrame({"a": [1]}).lazy())
