"""Memory that is used again is never memory that somebody still refers to."""

import gc
import queue
import threading

import numpy as np
import pytest

from daskdml.utils.memory import LEAST_BYTES, MOST_BYTES, MOST_HELD, Recycled, empty_rows

N = LEAST_BYTES  # items, of 8 bytes


def where(array):
    return array.ctypes.data


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a, lambda a: a[5:], lambda a: a.reshape(2, -1).T, lambda a: a.view(np.uint8)[3:7],
        lambda a: a.data, lambda a: a[1:].data[4:6], lambda a: np.frombuffer(a.data, np.uint8)[9:],
    ],
)  # fmt: skip
def test_memory_is_not_used_again_while_any_view_of_it_lives(view):
    recycled = Recycled()
    array = recycled.empty(N, np.float64)
    start, kept = where(array), view(array)
    del array
    other = recycled.empty(N, np.float64)
    assert where(other) != start
    del kept
    assert where(recycled.empty(N, np.float64)) == start


def test_arrays_of_any_shape_and_type_share_it():
    recycled = Recycled()
    start = where(recycled.empty((N, 2), np.float64))
    for shape, dtype in (((3, N), np.uint32), (N, bool), ((N,), np.complex128), ((2, 3, N // 8), np.int16)):
        found = recycled.empty(shape, dtype)
        assert where(found) == start and found.dtype == dtype
        assert found.shape == (shape if isinstance(shape, tuple) else (shape,)) and found.flags.c_contiguous
        assert found.flags.writeable
        del found


def test_small_and_huge_arrays_are_not_held():
    recycled = Recycled()
    for n in (1, LEAST_BYTES - 1, MOST_BYTES + 1):
        recycled.empty(n, np.uint8)
    assert not recycled._free and not recycled._leases
    assert recycled.empty((), np.float64).shape == ()


def test_what_is_held_is_bounded():
    recycled = Recycled()
    arrays = [recycled.empty(N + i, np.float64) for i in range(3 * MOST_HELD)]
    assert len({where(array) for array in arrays}) == len(arrays)
    arrays.clear()
    assert len(recycled._free) == MOST_HELD and not recycled._leases


def test_arrays_outlive_what_made_them():
    recycled = Recycled()
    array = recycled.empty(N, np.float64)
    array[:] = 7
    del recycled
    gc.collect()
    assert (array == 7).all()


def test_arrays_may_go_in_other_threads():
    recycled, waiting = Recycled(), queue.Queue(4)

    def check():
        while (item := waiting.get()) is not None:
            number, array = item
            found.append((array == number).all())
            del item, array

    found, thread = [], threading.Thread(target=check)
    thread.start()
    for number in range(500):
        array = recycled.empty(N + number % 3, np.float64)
        array[:] = number
        waiting.put((number, array))
    waiting.put(None)
    thread.join()
    assert len(found) == 500 and all(found)


def test_copies_are_copies():
    recycled, x = Recycled(), np.arange(2.0 * N).reshape(2, N).T
    copied = recycled.copy(x)
    x[0, 0] = -1
    assert copied.flags.c_contiguous and copied[0, 0] == 0 and (copied[1:] == x[1:]).all()


@pytest.mark.parametrize("n, p", [(0, 4), (1, 1), (7, 32), (1000, 48)])
def test_rows_begin_at_a_line_of_the_cache(n, p):
    rows = empty_rows(n, p, np.uint8)
    assert rows.shape == (n, p) and (n == 0 or where(rows) % 64 == 0)
