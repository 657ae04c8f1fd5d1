"""The cost model against its own formula, worked out by hand, and against what must hold of any model."""

import math

import pytest

from daskdml.comm import blocks
from daskdml.runtime import costs
from daskdml.runtime.costs import Load, choose, predict

LOAD = Load(
    n_rounds=6, n_passes=4, data_bytes=1_000_000_000, partial_bytes=400, pass_seconds=2.0, n_blocks=240,
    solve_seconds=0.5, pilot_passes=0.1, pilot_bytes=3_000_000, read_seconds=8.0,
)  # fmt: skip


def test_one_thread_takes_what_it_was_timed_at():
    found = predict(LOAD, "threads")
    assert found.seconds == pytest.approx(costs.FIT_SECONDS + 8 + 0.5 + 6 * costs.ROUND_SECONDS["threads"] + 4 * 2)
    assert (found.rounds, found.passes, found.bytes_sent) == (6, 4.1, 0)
    assert found.memory == 1_000_000_000 + 400 + 3_000_000


def test_threads_add_the_share_they_were_measured_to_add():
    alone, together = (predict(LOAD._replace(read_seconds=0.0), "threads", 1, n, thread_share=0.8) for n in (1, 2))
    assert alone.seconds - together.seconds == pytest.approx(4 * (2 - 2 / 1.8))


@pytest.mark.parametrize("partial_bytes", [400, 8_000_000])
def test_spmd_reduces_as_ranks_do(partial_bytes):
    load = LOAD._replace(partial_bytes=partial_bytes)
    branches = max(1.0, math.log2(load.n_blocks) / 2)
    fast = predict(load, "spmd", 8, latency=0.0, bandwidth=math.inf).seconds
    slow = predict(load, "spmd", 8, latency=1e-2, bandwidth=1e8)
    reduction = 4 * blocks.seconds(8, partial_bytes, branches, 1e-2, 1e8)
    assert slow.seconds - fast == pytest.approx(reduction + 3e6 / 1e8)
    assert slow.bytes_sent == round(4 * blocks.bytes_sent(8, partial_bytes, branches) + 3_000_000 / 8)


def test_tasks_pay_for_each_round():
    more = predict(LOAD._replace(n_rounds=16), "tasks", 4).seconds - predict(LOAD, "tasks", 4).seconds
    assert more == pytest.approx(10 * costs.ROUND_SECONDS["tasks"])


@pytest.mark.parametrize("runtime", ["tasks", "spmd"])
def test_workers_share_rows_and_their_time(runtime):
    one, four = (predict(LOAD, runtime, n) for n in (1, 4))
    # The rounds, the solution and the messages stay.
    assert one.seconds - four.seconds == pytest.approx(0.75 * (8 + 4 * 2), rel=0.02)
    assert one.memory - four.memory == 750_000_000


def test_what_every_worker_keeps_is_not_shared_and_what_they_meet_for_travels():
    kept = {"kept_bytes": 400, "each_bytes": 900, "thread_bytes": 100, "met_bytes": 600_000_000}
    load = LOAD._replace(pilot_bytes=0, read_seconds=0.0, **kept)
    one, four = (predict(load, "spmd", n, bandwidth=1e8) for n in (1, 4))
    assert (one.memory, four.memory) == (400 + 1000 + 400, 100 + 1000 + 400)
    assert four.bytes_sent - predict(load._replace(met_bytes=0), "spmd", 4, bandwidth=1e8).bytes_sent == 450_000_000
    without = predict(load._replace(met_bytes=0), "spmd", 4, bandwidth=1e8)
    assert four.seconds - without.seconds == pytest.approx(4.5)
    assert [predict(load, "spmd", 4, memory_limit=limit).fits for limit in (1100, 1099)] == [True, False]
    assert predict(load._replace(kept_bytes=0), "threads", memory_limit=999).seconds == math.inf


def test_what_may_be_files_needs_less_memory_and_more_time():
    load = LOAD._replace(kept_bytes=4_000_000_000, least_bytes=1_000_000_000, read_seconds=0.0)
    limits = (4e9 / 0.9 + 1, 4e9 / 0.9 - 1, 1e9 / 0.9 + 1, 1e9 / 0.9 - 1)  # in this process nine tenths of it
    fits, files, least, refused = (predict(load, "threads", memory_limit=limit) for limit in limits)
    assert fits.fits and not fits.in_files and not files.fits and files.in_files and files == least
    assert fits.memory - files.memory == 3_000_000_000
    assert files.seconds - fits.seconds == pytest.approx(costs.FILES * 8, rel=0.01)
    assert refused.seconds == math.inf and not refused.in_files
    here = predict(load._replace(held_by="process"), "threads", memory_limit=2e9)
    assert here.memory - files.memory == load.data_bytes
    assert predict(load, "spmd", 1, memory_limit=4e9 / 0.7 - 1).in_files


def test_no_more_blocks_are_computed_at_once_than_there_are():
    load = LOAD._replace(n_blocks=2, read_seconds=0.0)
    assert predict(load, "spmd", 8).seconds == pytest.approx(predict(load, "spmd", 2).seconds, rel=0.01)


def test_rows_that_do_not_fit_are_read_in_every_pass():
    kept, again = (predict(LOAD, "threads", memory_limit=limit) for limit in (4e9, 1e9))
    assert kept.fits and not again.fits
    assert again.seconds - kept.seconds == pytest.approx(3 * 8)
    assert again.memory < 10_000_000
    assert predict(LOAD, "tasks", 4, memory_limit=1e9).fits


def test_rows_move_to_where_they_are_computed():
    seconds = {
        (held_by, runtime): predict(LOAD._replace(held_by=held_by, read_seconds=0.0), runtime, 2).seconds
        for held_by in ("process", "source", "workers")
        for runtime in ("threads", "tasks")
    }
    assert seconds["process", "threads"] == seconds["source", "threads"]
    assert seconds["workers", "threads"] - seconds["process", "threads"] == pytest.approx(1e9 / costs.BANDWIDTH)
    assert seconds["workers", "tasks"] == seconds["source", "tasks"]
    assert seconds["process", "tasks"] - seconds["workers", "tasks"] == pytest.approx(1e9 / costs.SENDING)


def test_rows_in_this_process_fit_into_it():
    assert predict(LOAD._replace(held_by="process"), "threads", memory_limit=1e6).fits


def test_a_pass_that_was_not_timed_walks_at_a_usual_pace():
    untimed = predict(LOAD._replace(pass_seconds=math.nan), "threads").seconds
    timed = predict(LOAD._replace(pass_seconds=1e9 / costs.PASS_BYTES), "threads").seconds
    assert untimed == timed


def chosen(data_bytes, n_workers=8, **options):
    return choose(n_rounds=6, n_passes=4, data_bytes=data_bytes, n_params=51, n_workers=n_workers, **options)


def test_choice():
    assert chosen(40e6) == "threads"
    assert chosen(400e9) == "spmd"
    assert chosen(400e9, possible=("threads", "tasks")) == "tasks"
    assert chosen(400e9, n_workers=0) == "threads"
    # Many threads here are as good as as many workers.
    assert chosen(100e9, n_workers=2, n_threads=32) == "threads"
    assert chosen(100e9, n_workers=2, n_threads=32, threads_per_worker=32) == "spmd"


def test_choice_keeps_rows_in_memory():
    assert chosen(40e6, memory=10e6) == "spmd"
    assert chosen(40e6, memory=10e6, worker_memory=1e6) == "threads"  # nowhere: then the quickest


def test_choice_goes_by_the_network_at_hand():
    assert chosen(20e9, held_by="workers", latency=5.0, possible=("threads", "spmd"), bandwidth=1e12) == "threads"
    assert chosen(20e9, held_by="workers", possible=("threads", "spmd"), bandwidth=1e12) == "spmd"


def test_choice_is_the_least_predicted():
    load = Load(6, 4, 2_000_000_000, 8 * 51)
    by_seconds = min(costs.RUNTIMES, key=lambda name: predict(load, name, 1 if name == "threads" else 8).seconds)
    assert chosen(2_000_000_000) == by_seconds
