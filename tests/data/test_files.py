"""Whatever Dask reads can be fitted: files of every format give the coefficients of the rows in memory."""

import numpy as np
import pandas as pd
import pytest
from dask.callbacks import Callback

from daskdml.linear_model import LogisticRegression, Ridge

N, P = 300, 4
NAMES = [f"x{j}" for j in range(P)]


@pytest.fixture(scope="module")
def table():
    """Rows whose numbers text holds exactly, a target and labels; the index is 0, 1, 2, ..."""
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(N, P)) * 256) / 256
    y = np.round(X @ rng.normal(size=P) * 64 + rng.normal(size=N) * 64) / 64
    return pd.DataFrame(X, columns=NAMES).assign(y=y, label=np.where(y + rng.logistic(size=N) > 0, "yes", "no"))


def zarr_arrays(table, folder):
    pytest.importorskip("zarr")
    import dask.array as da

    for name, values in (("X", table[NAMES]), ("y", table["y"]), ("label", table["label"] == "yes")):
        da.from_array(values.to_numpy(), chunks=70).to_zarr(str(folder / f"{name}.zarr"))
    return tuple(da.from_zarr(str(folder / f"{name}.zarr")) for name in ("X", "y", "label"))


def hdf5_arrays(table, folder):
    h5py = pytest.importorskip("h5py")
    import dask.array as da

    with h5py.File(folder / "table.h5", "w") as file:
        file.create_dataset("X", data=table[NAMES].to_numpy(), chunks=(64, P))
        file["y"] = table["y"].to_numpy()
        file["label"] = (table["label"] == "yes").to_numpy()
    file = h5py.File(folder / "table.h5", "r")
    chunks = {"X": (64, P), "y": 90, "label": 64}
    return tuple(da.from_array(file[name], chunks=size) for name, size in chunks.items())


def orc_frame(table, folder):
    orc = pytest.importorskip("pyarrow.orc")
    import dask.dataframe as dd
    import pyarrow

    for i, start in enumerate(range(0, N, 110)):
        orc.write_table(pyarrow.Table.from_pandas(table.iloc[start : start + 110]), folder / f"{i}.orc")
    return dd.read_orc(f"{folder}/*.orc")


def parquet_frame(table, folder):
    import dask.dataframe as dd

    dd.from_pandas(table, npartitions=4).to_parquet(folder)
    return dd.read_parquet(folder)


def csv_frame(table, folder):
    import dask.dataframe as dd

    table.to_csv(folder / "table.csv", index=False)
    return dd.read_csv(folder / "table.csv", blocksize=4000)


def remote_csv_frame(table, folder):
    fsspec = pytest.importorskip("fsspec")
    import dask.dataframe as dd

    for i, start in enumerate(range(0, N, 110)):
        with fsspec.open(f"memory://{folder.name}/{i}.csv", "w") as file:
            table.iloc[start : start + 110].to_csv(file, index=False)
    return dd.read_csv(f"memory://{folder.name}/*.csv")


def remote_parquet_frame(table, folder):
    pytest.importorskip("fsspec")
    import dask.dataframe as dd

    dd.from_pandas(table, npartitions=4).to_parquet(f"memory://{folder.name}/table")
    return dd.read_parquet(f"memory://{folder.name}/table")


READERS = (
    zarr_arrays, hdf5_arrays, orc_frame, parquet_frame, csv_frame, remote_csv_frame, remote_parquet_frame,
)  # fmt: skip


@pytest.fixture(params=READERS, ids=lambda read: read.__name__)
def parts(request, table, tmp_path):
    """X, y and labels as Dask reads them."""
    found = request.param(table, tmp_path)
    return found if isinstance(found, tuple) else (found[NAMES], found["y"], found["label"])


def refuse(graph):
    raise AssertionError("something was computed")


def predicts_lazily(model, X, expected):
    with Callback(start=refuse):
        out = model.predict(X)
    assert out.npartitions == X.npartitions
    computed = np.asarray(out.compute())
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(computed, expected, rtol=1e-9, atol=1e-9)
    else:
        np.testing.assert_array_equal(computed, expected)


def test_regression_on_files_is_regression_on_rows(table, parts):
    X, y, _ = parts
    assert X.npartitions > 1
    model, expected = Ridge().fit(X, y), Ridge().fit(table[NAMES].to_numpy(), table["y"].to_numpy())
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-9)
    predicts_lazily(model, X, expected.predict(table[NAMES].to_numpy()))


def test_classification_on_files_is_classification_on_rows(table, parts):
    X, _, label = parts
    # Arrays of text have no one form in Zarr and HDF5: there labels are booleans.
    labels = (table["label"] == "yes").to_numpy() if label.dtype == bool else table["label"].to_numpy(dtype=object)
    expected = LogisticRegression().fit(table[NAMES].to_numpy(), labels)
    model = LogisticRegression().fit(X, label)
    assert list(model.classes_) == list(expected.classes_)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-9)
    predicts_lazily(model, X, expected.predict(table[NAMES].to_numpy()))
