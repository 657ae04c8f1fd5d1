"""Small Dask input beside a cluster: fetched into this process, unless asked otherwise."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml import config_context
from daskdml.linear_model import LogisticRegression, Ridge
from daskdml.preprocessing import StandardScaler
from daskdml.runtime import memory

pytestmark = pytest.mark.cluster
N = 4_000


@pytest.fixture(autouse=True)
def rows_enough_for_a_cluster(monkeypatch):
    """Leave the threshold as it is shipped."""


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 5))
    return X, (X @ rng.normal(size=5) + rng.normal(size=N) > 0).astype(int)


def lazy(X, kind):
    if kind == "frame":
        return dd.from_pandas(pd.DataFrame(X, columns=list("abcde")), npartitions=4)
    array = da.from_array(X, chunks=(700, -1))
    if kind == "unknown":
        array = array[da.from_array(np.ones(len(X), dtype=bool), chunks=700)]
    return array.map_blocks(sparse.csr_matrix) if kind == "sparse" else array


@pytest.mark.parametrize("kind", ["array", "unknown", "frame", "sparse", "persisted"])
def test_is_fetched_and_has_the_bits_of_the_cluster(cluster_client, rows, kind):
    X, y = rows
    Xd = lazy(X, kind)
    Xd = Xd.persist() if kind == "persisted" else Xd
    here = LogisticRegression().fit(Xd, y)
    assert here.fit_report_.where.startswith("in this process (small, fetched from the cluster): ")
    assert here.fit_report_.bytes_moved > 0
    with config_context(runtime="tasks"):
        there = LogisticRegression().fit(Xd, y)
    assert there.fit_report_.where.startswith("2 workers")
    assert (here.coef_ == there.coef_).all() and (here.intercept_ == there.intercept_).all()


@pytest.mark.parametrize("option", [{"runtime": "tasks"}, {"memory": "mmap"}, {"memory": "stream"}])
def test_what_was_asked_for_is_done(cluster_client, rows, option):
    with config_context(**option):
        model = Ridge().fit(lazy(rows[0], "array"), rows[1])
    assert model.fit_report_.where.startswith("2 workers")


def test_what_is_walked_once_stays(cluster_client, rows, monkeypatch):
    """A transformer brings no row into the client, however few they are."""
    import distributed

    monkeypatch.setattr(distributed.Client, "gather", _refuse_rows(distributed.Client.gather))
    StandardScaler().fit(lazy(rows[0], "array"))


def _refuse_rows(gather):
    def gathered(client, *args, **kwargs):
        values = gather(client, *args, **kwargs)
        found = values if isinstance(values, (list, tuple)) else [values]
        assert not any(hasattr(value, "X") for value in found)
        return values

    return gathered


def test_large_stays_on_the_cluster(cluster_client, rows, monkeypatch):
    monkeypatch.setattr(memory, "SMALL_BYTES", rows[0].nbytes // 2)
    for kind in ("array", "frame"):
        assert Ridge().fit(lazy(rows[0], kind), rows[1]).fit_report_.where.startswith("2 workers")


def test_chunks_of_very_different_sizes(cluster_client, rows):
    X, y = rows
    one = LogisticRegression().fit(da.from_array(X, chunks=((N - 300,) + (1,) * 300, -1)), y)
    assert one.fit_report_.where.startswith("in this process (small")
    np.testing.assert_allclose(one.coef_, LogisticRegression().fit(X, y).coef_, rtol=1e-9)


@pytest.mark.parametrize("runtime", ["auto", "tasks"])
def test_unknown_chunks_of_other_rows_are_cut_anew(cluster_client, rows, runtime):
    X, y = rows
    other = (500,) * 4 + (1000, 1000)
    kept = np.random.default_rng(1).random(N) < 0.5
    Xd = da.from_array(X, chunks=(700, -1))[da.from_array(kept, chunks=700)]
    yd = da.from_array(y, chunks=(other,))[da.from_array(kept, chunks=(other,))]
    with config_context(runtime=runtime):
        ours = LogisticRegression().fit(Xd, yd)
    np.testing.assert_allclose(ours.coef_, LogisticRegression().fit(X[kept], y[kept]).coef_, rtol=1e-9)


def test_a_chunk_far_larger_than_those_that_were_measured_is_left_where_it_is(cluster_client, rows, monkeypatch):
    """The size of tables is estimated from three chunks: were a fourth huge, the client would drown."""
    X, y = rows
    frame = pd.DataFrame(np.repeat(X, 10, axis=0), columns=list("abcde"))
    # Partitions 0, 2 and 4 of 5 are measured; the rows are in partition 1.
    Xd = dd.from_pandas(frame, npartitions=1)
    few = [dd.from_pandas(frame.iloc[k * 10 : k * 10 + 10], npartitions=1) for k in range(4)]
    Xd = dd.concat([few[0], Xd, *few[1:]], interleave_partitions=False)
    assert Xd.npartitions == 5
    yd = np.r_[y[:10], np.repeat(y, 10), y[:30]]
    monkeypatch.setattr(memory, "SMALL_BYTES", 10_000)
    model = Ridge().fit(Xd, yd)
    assert model.fit_report_.where.startswith("2 workers")


def test_an_asynchronous_client_is_a_sentence(cluster):
    import asyncio

    from distributed import Client

    async def fit():
        async with Client(cluster.scheduler_address, asynchronous=True):
            X = da.from_array(np.ones((10, 2)), chunks=5)
            with pytest.raises(ValueError, match="distributed.Client is asynchronous"):
                Ridge().fit(X, da.from_array(np.arange(10.0), chunks=5))

    asyncio.run(fit())
