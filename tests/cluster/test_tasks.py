"""Runs on a cluster: the same bits as in process, lineage, counters, what transits, what stays where."""

import functools
import gc
import os
import sys
import time

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml import config_context, runtime
from daskdml.data import Partitioned
from daskdml.runtime import tasks

from ..runtime import blocks

pytestmark = pytest.mark.cluster
for _module in (blocks, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(_module)  # workers cannot import the tests

MODES = ("pinned", "mmap", "stream")
N, P = 5000, 300


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P)) * 10.0 ** rng.integers(-3, 4, size=P)
    return X, np.arange(N)


def lazy(X, y, chunks=(1300, 1, 2500, 1199)):
    return da.from_array(X, chunks=(chunks, P)), da.from_array(y, chunks=1000)


def results(data, **options):
    with config_context(**options), runtime.open(data) as run:
        return run.map(blocks.rows_and_start), run.map_reduce(blocks.column_sums).tobytes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["lazy", "persisted", "in memory"])
def test_same_bits_as_in_process(cluster_client, rows, mode, kind):
    reference = results(Partitioned.from_any(*(rows if kind == "in memory" else lazy(*rows))), runtime="threads")
    collections = rows if kind == "in memory" else lazy(*rows)
    if kind == "persisted":
        collections = cluster_client.persist(list(collections))
    data = Partitioned.from_any(*collections)
    with config_context(memory=mode, runtime="tasks"), runtime.open(data) as run:
        assert run.where == f"2 workers, {run.n_blocks} blocks, 12 MB, {mode}" and run.n_workers == 2
        assert run.map(blocks.rows_and_start) == reference[0]
        assert run.map_reduce(blocks.column_sums).tobytes() == reference[1]
        assert run.passes == 2


def test_one_of_a_kind_is_told_so(cluster_client):
    frame = dd.from_pandas(pd.DataFrame({"a": np.arange(9.0)}), npartitions=1)
    with runtime.open(Partitioned.from_any(da.ones((9, 2), chunks=9))) as run:
        assert run.where == "2 workers, 1 block, 144 B, pinned"
    with runtime.open(Partitioned.from_any(frame), passes="one") as run:
        assert run.where == "2 workers, 1 chunk, stream"


def test_same_bits_on_one_worker(cluster, cluster_client, rows):
    from distributed import Client, LocalCluster

    reference = results(Partitioned.from_any(*lazy(*rows)))
    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None) as one, Client(one):
        assert results(Partitioned.from_any(*lazy(*rows))) == reference


@pytest.mark.parametrize("mode", MODES)
def test_unknown_chunk_sizes_and_empty_chunks(cluster_client, rows, mode):
    frame = pd.DataFrame(rows[0][:, :3], columns=list("abc")).assign(y=rows[1])
    table = dd.from_pandas(frame, npartitions=4)
    data = Partitioned.from_any(table[["a", "b", "c"]][table.y >= 1500], table["y"][table.y >= 1500])
    with config_context(memory=mode), runtime.open(data) as run:
        assert run.lengths == (0, 1000, 1250, 1250)
        sums = run.map_reduce(blocks.column_sums)
        np.testing.assert_allclose(sums, frame[frame.y >= 1500].to_numpy().sum(axis=0))
        assert run.rows_read == 3500 * (2 if mode == "stream" else 1)


def test_one_pass_over_unknown_sizes_is_one_pass(cluster_client, rows):
    X, y = rows
    X, y = lazy(X, y)
    y = y.rechunk(X.chunks[:1])
    X, y = X[y >= 0], y[y >= 0]
    data = Partitioned.from_any(X, y)
    assert data.known_lengths is None
    with runtime.open(data, passes="one") as run:
        assert run.mode == "stream" and run.where.startswith("2 workers, 4 chunks")
        sums = run.map_reduce(blocks.column_sums)
        assert run.passes == 1
    assert sums.tobytes() == results(Partitioned.from_any(X, y), runtime="threads")[1]


def test_one_pass_over_unknown_sizes_folds_on_the_workers(cluster_client, rows):
    """What comes to the client is one sum, however many blocks there are."""
    X = da.from_array(rows[0], chunks=(1250, -1))
    data = Partitioned.from_any(X[X[:, 0] > -np.inf])
    data.rows_per_block = 25
    with runtime.open(data, passes="one") as run:
        found = run.map_reduce(blocks.long_sums)
        assert run.passes == 1 and run.n_blocks == 200
        # Each of the four chunks leaves at most 2 log2(200) nodes, which are merged by groups on their way.
        assert run.bytes_moved < 60 * found.nbytes
    with config_context(runtime="threads"), runtime.open(data, passes="one") as run:
        assert run.map_reduce(blocks.long_sums).tobytes() == found.tobytes()


def test_one_pass_over_no_rows_is_a_sentence(cluster_client, rows):
    X = da.from_array(rows[0], chunks=(500, -1))
    with runtime.open(Partitioned.from_any(X[X[:, 0] > 1e9]), passes="one") as run:
        with pytest.raises(ValueError, match="0 sample"):
            run.map_reduce(blocks.column_sums)


@pytest.mark.parametrize("mode", MODES)
def test_transformed_targets_stay(cluster_client, rows, mode):
    X, y = rows
    with config_context(memory=mode), runtime.open(Partitioned.from_any(*lazy(X, y))) as run:
        run.transform_targets(blocks.parity)
        assert run.map_reduce(blocks.targets_only) == int((y % 2).sum())
        np.testing.assert_allclose(run.map_reduce(blocks.column_sums)[:-1], X.sum(axis=0))


@pytest.mark.parametrize("mode", MODES)
def test_the_pilot_is_that_of_the_process(cluster_client, rows, mode):
    with config_context(runtime="threads"), runtime.open(Partitioned.from_any(*rows)) as run:
        (expected,) = run.pilot(100, seed=3).map(lambda block: block)
    with config_context(memory=mode), runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        pilot = run.pilot(100, seed=3)
        (found,) = pilot.map(lambda block: block)
        assert run.rows_read == 100 + (N if mode == "stream" else 100)
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.X, expected.X)


@pytest.mark.parametrize("mode", MODES)
def test_sparse_chunks(cluster_client, mode):
    X = sparse.random(60_000, 40, density=0.05, format="csr", random_state=0, dtype=np.float32)
    pieces = [dask.delayed(X[a : a + 20_000]) for a in range(0, 60_000, 20_000)]
    arrays = [da.from_delayed(p, (20_000, 40), meta=sparse.csr_matrix((0, 0), dtype=np.float32)) for p in pieces]
    with config_context(memory=mode), runtime.open(Partitioned.from_any(da.concatenate(arrays))) as run:
        found = run.map_reduce(lambda block: np.asarray(block.X.sum(axis=0)).ravel())
    np.testing.assert_allclose(found, X.toarray().sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_error_in_a_block_comes_out_as_it_is_and_leaves_nothing(cluster_client, rows, mode):
    with pytest.raises(KeyError, match="the blocks did it"):
        with config_context(memory=mode), runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
            run.map_reduce(functools.partial(blocks.fail_on, index=2))
    no_tasks_left(cluster_client)


@pytest.mark.parametrize("mode", MODES)
def test_closing_lets_go_of_everything(cluster_client, rows, mode):
    with config_context(memory=mode), runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        run.map_reduce(blocks.column_sums)
        run.transform_targets(blocks.parity)
        if mode == "mmap":
            assert mapped_files(cluster_client) > 0
    no_tasks_left(cluster_client)
    deadline = time.time() + 10
    while mapped_files(cluster_client) and time.time() < deadline:
        cluster_client.run(gc.collect)
        time.sleep(0.05)
    assert mapped_files(cluster_client) == 0


def no_tasks_left(client):
    deadline = time.time() + 10
    def tasks(dask_scheduler):
        return list(dask_scheduler.tasks)

    while (left := client.run_on_scheduler(tasks)) and time.time() < deadline:
        time.sleep(0.05)
    assert left == []


def test_what_was_waited_for_is_let_go_at_once(cluster_client, rows, monkeypatch):
    """Not when Python's collector comes: tasks that are still wanted keep others, which the scheduler fails to cancel
    once a worker has died."""
    monkeypatch.setattr("daskdml.runtime.waiting.CHECK_SECONDS", 0.02)

    def passes(dask_scheduler):
        return [key for key in map(str, dask_scheduler.tasks) if "pass" in key or "merge" in key]

    gc.collect()
    gc.disable()
    try:
        with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
            run.map_reduce(blocks.slowly(0.2))
            deadline = time.time() + 5
            while (left := cluster_client.run_on_scheduler(passes)) and time.time() < deadline:
                time.sleep(0.05)
            assert left == []
    finally:
        gc.enable()


def mapped_files(client):
    def count(dask_worker):
        import os

        folder = os.path.join(dask_worker.local_directory, "daskdml")
        return len(os.listdir(folder)) if os.path.isdir(folder) else 0

    return sum(client.run(count).values())


def test_chunks_are_placed_as_contiguous_ranges(cluster_client, rows):
    X, y = lazy(*rows, chunks=(500,) * 10)
    with config_context(memory="pinned"), runtime.open(Partitioned.from_any(X, y)) as run:
        places = run.map(where_am_i)
    assert len(set(places)) == 2 and sum(a != b for a, b in zip(places, places[1:])) == 1


def where_am_i(block):
    from distributed import get_worker

    return get_worker().address


def test_persisted_chunks_stay_where_they_are(cluster_client, rows):
    X, y = lazy(*rows, chunks=(500,) * 10)
    first = min(cluster_client.nthreads())
    X = cluster_client.persist(X, workers=[first])
    with runtime.open(Partitioned.from_any(X, y)) as run:
        assert set(run.map(where_am_i)) == {first}


def test_a_big_function_travels_as_a_task_of_its_own(cluster_client, rows):
    big = np.arange(1_000_000.0)
    with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        total = run.map_reduce(functools.partial(add_last, big=big))
        assert total == 999_999 * run.n_blocks
        assert run.bytes_moved > big.nbytes


def add_last(block, big):
    return big[-1]


def test_what_transits_is_counted(cluster_client, rows):
    with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        before = run.bytes_moved
        run.map_reduce(blocks.gram)
        moved = run.bytes_moved - before
    # Two workers send their partial sums, at most 2 log2(n_blocks) each, and one result goes to the client.
    assert 3 * P * P * 8 <= moved <= 13 * P * P * 8


def test_kernels_are_warmed_once_per_worker(cluster_client, rows):
    def warm():
        time.sleep(0.05)

    with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        run.warm(warm)
        first = run.timings["compile"]
        assert first >= 0.05
        run.warm(warm)
        assert run.timings["compile"] - first < first + 0.05


def test_a_worker_slow_to_compile_is_not_waited_for(cluster_client, rows, monkeypatch):
    monkeypatch.setattr(tasks, "WARM_SECONDS", 0.2)
    here = os.getpid()

    def warm():
        time.sleep(0 if os.getpid() == here else 2)

    with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        run.warm(warm)
        assert 0.2 <= run.timings["compile"] < 1.5
        assert run.map_reduce(blocks.gram).shape == (P, P)


def test_rows_that_the_workers_have_no_room_for_are_not_made(cluster_client, rows):
    limit = sum(worker["memory_limit"] for worker in cluster_client.scheduler_info()["workers"].values())
    with runtime.open(Partitioned.from_any(*lazy(*rows))) as run:
        with pytest.raises(ValueError, match="5,000 rows .* but 2 workers may hold .*; .* or add workers"):
            run.replace_rows(blocks.column_sums, limit // N + 1, np.uint8)
        run.check_room(limit // N)


def test_in_memory_input_stays_in_process(cluster_client, rows):
    said = []
    with runtime.open(Partitioned.from_any(*rows), announce=said.append) as run:
        assert run.n_workers == 1 and said == ["in this process (in-memory input): 12 MB"]
    with config_context(runtime="threads"), runtime.open(Partitioned.from_any(*lazy(*rows)), announce=said.append):
        assert said[-1] == 'in this process (runtime="threads"): 12 MB'


def test_persisted_input_cannot_be_read_in_process(cluster_client, rows):
    X, y = cluster_client.persist(list(lazy(*rows)))
    with config_context(runtime="threads"), pytest.raises(ValueError, match="held by the workers of a cluster"):
        with runtime.open(Partitioned.from_any(X, y)):
            pass


def test_a_fit_inside_a_task_stays_in_process(cluster_client, rows):
    def fit(X, y):
        data = Partitioned.from_any(da.from_array(X, chunks=(1000, P)), da.from_array(y, chunks=1000))
        with runtime.open(data) as run:
            return run.where, run.map_reduce(blocks.column_sums)

    where, sums = cluster_client.submit(fit, *rows).result()
    assert where == "in this process (inside a Dask task): 12 MB"
    np.testing.assert_allclose(sums[:-1], rows[0].sum(axis=0))

    def refuse(X):
        with config_context(runtime="tasks"), runtime.open(Partitioned.from_any(X)):
            pass

    with pytest.raises(ValueError, match="inside a Dask task stays in process"):
        cluster_client.submit(refuse, rows[0]).result()


def test_two_fits_at_once(cluster_client, rows):
    import threading

    reference = results(Partitioned.from_any(*lazy(*rows)), runtime="threads")
    found = {}

    def fit(mode):
        found[mode] = results(Partitioned.from_any(*lazy(*rows)), memory=mode)

    fits = [threading.Thread(target=fit, args=(mode,)) for mode in MODES]
    for thread in fits:
        thread.start()
    for thread in fits:
        thread.join(60)
    assert [found[mode] for mode in MODES] == [reference] * 3


def test_wrong_chunk_lengths_raise_when_the_run_opens(cluster_client, rows):
    frame = pd.DataFrame(rows[0][:, :3], columns=list("abc"))
    X, y = dd.from_pandas(frame, npartitions=4), dd.from_pandas(pd.Series(rows[1]), npartitions=4)
    with pytest.raises(ValueError, match="rows, y has"):
        with config_context(memory="pinned"), runtime.open(Partitioned.from_any(X[X.a > 0], y)):
            pass
    no_tasks_left(cluster_client)
