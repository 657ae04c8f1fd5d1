"""Where chunks are made again and which ones move: within limits, evenly, neighbours together."""

import math
import random
from types import SimpleNamespace

import pytest

from daskdml.runtime.cluster_check import Worker
from daskdml.runtime.mapped import MappedChunk
from daskdml.runtime.placing import UNEVEN, NoRoom, _keeps_in_memory, assign
from daskdml.runtime.replacing import ReplaceRows, itself
from daskdml.runtime.spmd.cluster import ClusterRanks, _no_room


def after(held, homes, moves):
    """What each worker holds in the end."""
    moved = {i for numbers in moves.values() for i in numbers}
    found = {a: [i for i in numbers if i not in moved] for a, numbers in held.items()}
    for plan in (homes, moves):
        for address, numbers in plan.items():
            found[address] = sorted(found[address] + numbers)
    return found


def n_ranges(numbers):
    return sum(i - 1 not in numbers for i in numbers)


def test_a_replacement_gets_what_was_lost_in_one_range():
    held = {"a": [0, 1, 2, 3], "b": [], "c": [8, 9, 10, 11]}
    assert assign(held, [4, 5, 6, 7], dict.fromkeys("abc", 1), [10] * 12) == ({"b": [4, 5, 6, 7]}, {})


def test_survivors_share_what_was_lost_evenly():
    held = {"a": [0, 1, 2, 3], "c": [8, 9, 10, 11]}
    homes, moves = assign(held, [4, 5, 6, 7], dict.fromkeys("ac", 1), [10] * 12)
    assert sorted(map(len, after(held, homes, moves).values())) == [6, 6] and not moves


def test_a_worker_that_joins_gets_its_share():
    held = {"a": list(range(12)), "b": list(range(12, 24)), "c": []}
    found = after(held, *assign(held, [], dict.fromkeys("abc", 1), [10] * 24))
    assert max(map(len, found.values())) <= UNEVEN * 8 and sum(map(n_ranges, found.values())) <= 5


def test_what_is_even_enough_stays():
    held = {"a": list(range(10)), "b": list(range(10, 18))}
    assert assign(held, [], {"a": 1, "b": 1}, [10] * 18) == ({}, {})


def test_shares_follow_threads():
    homes, _ = assign({"a": [], "b": []}, list(range(12)), {"a": 1, "b": 3}, [10] * 12)
    assert {a: len(numbers) for a, numbers in homes.items()} == {"a": 3, "b": 9}


def test_nobody_is_filled_beyond_his_limit():
    held = {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}
    homes, moves = assign(held, list(range(8, 12)), {"a": 1, "b": 1}, [10] * 12, {"a": 45, "b": 100})
    assert after(held, homes, moves) == {"a": [0, 1, 2, 3], "b": list(range(4, 12))}


def test_no_room_is_said():
    held = {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}
    with pytest.raises(NoRoom) as caught:
        assign(held, [8, 9, 10, 11], {"a": 1, "b": 1}, [10 << 20] * 12, {"a": 50 << 20, "b": 50 << 20})
    assert _no_room(caught.value, 1) == (
        "2 workers are left, which may not hold 126 MB of rows in memory beside what they hold already, and no other "
        'came within 30 seconds; add workers, or read the rows again in every pass with config_context(memory="mmap") '
        'or config_context(memory="stream").'
    )


@pytest.mark.parametrize(
    ("taken", "most"),
    [(0, 60), (300, 60), (740, 16), (800, 10), (900, 0)],
)
def test_what_else_a_worker_holds_counts(taken, most):
    """At most 60 % of the limit is rows, and with all that its process holds besides never more than 80 %."""
    watch = SimpleNamespace(memory={"a": taken}.get)
    ranks = ClusterRanks(None, SimpleNamespace(watch=watch), None, [], [], 10.0)
    assert ranks._most_rows("a", Worker(1, 1000), 10) == most
    assert ClusterRanks(None, None, None, [], [], 0.0)._most_rows("a", Worker(1, 1000), 10) == math.inf  # files


@pytest.mark.parametrize("seed", range(300))
def test_any_plan_keeps_what_it_promises(seed):
    """Every chunk once, no limit passed, no worker made fuller by a move than the one it came from."""
    draw = random.Random(seed)
    n, names = draw.randrange(1, 60), [f"w{k}" for k in range(draw.randrange(1, 9))]
    sizes = [draw.choice([0, 1, 10, 10, 10, 40]) for _ in range(n)]
    threads = {name: draw.randrange(1, 5) for name in names}
    held, lost = {name: [] for name in names}, []
    for i in range(n):
        draw.choice([*held.values(), lost]).append(i)
    limits = None
    if draw.random() < 0.5:
        limits = {a: sum(sizes[i] for i in held[a]) + draw.randrange(100) for a in names}
    try:
        homes, moves = assign(held, list(lost), threads, sizes, limits)
    except NoRoom:
        assert limits is not None
        return
    found = after(held, homes, moves)
    assert sorted(i for numbers in found.values() for i in numbers) == list(range(n))
    load = {a: sum(sizes[i] for i in numbers) for a, numbers in found.items()}
    before = {a: sum(sizes[i] for i in numbers) for a, numbers in held.items()}
    for a in names:
        assert limits is None or load[a] <= limits[a]
        share = sum(sizes) * threads[a] / sum(threads.values())
        # Above its share by more than a chunk only what was so before, or where others have no room.
        if limits is None and load[a] > before[a]:
            assert load[a] <= max(UNEVEN * share, share + 40)


@pytest.mark.parametrize(
    "steps, is_moved",
    [
        ((itself,), True),
        ((MappedChunk,), False),
        ((itself, "targets"), True),
        ((MappedChunk, "targets"), False),
        ((MappedChunk, "targets", ReplaceRows(None, 1, None, 1)), True),
        ((itself, ReplaceRows(None, 1, None, 1, to_files=True)), False),
        ((itself, ReplaceRows(None, 1, None, 1, to_files=True), "targets"), False),
    ],
)
def test_what_lies_in_memory_is_moved_and_files_are_made_again(steps, is_moved):
    assert _keeps_in_memory(steps) == is_moved
