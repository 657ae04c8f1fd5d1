"""Memory that is used again is never memory that somebody still refers to."""

import errno
import gc
import os
import queue
import subprocess
import sys
import threading

import numpy as np
import pytest

from daskdml.utils.memory import LEAST_BYTES, MOST_BYTES, MOST_HELD, Pages, Recycled, RowsFile, empty_rows

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


MB = 1 << 20


def resident():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Rss:"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_of_a_file_are_let_go_of_and_come_again(tmp_path):
    X = np.memmap(tmp_path / "X", np.uint8, "w+", shape=(64 * MB // 32, 32))
    X[:] = np.arange(len(X))[:, None] % 251
    half, before = X[: len(X) // 2], resident()
    with Pages(half):
        assert resident() > before - MB
    assert before - resident() == pytest.approx(32 * MB, abs=MB)  # those of the other half stay: others read them
    with Pages(X.view(np.ndarray)[7:]):
        pass
    assert before - resident() == pytest.approx(64 * MB, abs=MB)
    assert (X == np.arange(len(X))[:, None] % 251).all()


@pytest.mark.parametrize("view", [slice(3, 3), slice(0, 0), slice(100, 100), slice(5, 7)])
def test_pages_of_few_or_no_bytes(tmp_path, view):
    X = np.memmap(tmp_path / "X", np.uint8, "w+", shape=100)
    with Pages(X[view]) as pages:
        assert pages.are_mapped


def test_an_array_of_no_file_has_no_pages():
    with Pages(np.zeros(3)) as pages:
        assert not pages.are_mapped


def test_an_array_beside_a_file_is_one_too_and_leaves_no_name(tmp_path):
    pages = Pages(np.memmap(tmp_path / "X", np.uint8, "w+", shape=100))
    rows = np.random.default_rng(0).normal(size=(1000, 700)).astype(np.float32)

    def fill(file):
        for start in (300, 0, 999):  # in any order, of any strides
            file.write(start, rows[start : start + 300 if start < 900 else None])
        file.write(600, np.asfortranarray(rows[600:999]))
        file.write(5, rows[5:5])

    beside = pages.beside(rows.shape, np.float32, fill)
    assert Pages(beside).are_mapped and [path.name for path in tmp_path.iterdir()] == ["X"]
    with Pages(beside):
        pass
    assert (beside == rows).all() and pages.beside((0, 5), np.uint8, None).shape == (0, 5)


def test_a_full_disk_is_told_when_a_file_is_made(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with open(tmp_path / "X", "wb") as file:
        with pytest.raises(OSError, match=r"8,000,000 bytes .*No space left.* local_directory") as caught:
            RowsFile(file, (1000, 1000), np.float64)
    assert caught.value.errno == errno.ENOSPC


def test_rows_become_the_dtype_of_their_file_and_others_are_refused(tmp_path):
    with open(tmp_path / "X", "w+b") as file:
        rows = RowsFile(file, (4, 3), np.uint8)
        rows.write(0, np.arange(6).reshape(2, 3))
        rows.write(3, np.array([[7.0, 8.0]]), first=1)
        for shape, first in (((1, 4), 0), ((1, 3), 1), ((2, 2), 0)):
            with pytest.raises(ValueError, match="do not fit into rows of 3"):
                rows.write(0, np.zeros(shape, np.uint8), first)
    assert (np.fromfile(tmp_path / "X", np.uint8) == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 7, 8]).all()


def test_without_pwrite(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pwrite", raising=False)
    with open(tmp_path / "X", "w+b") as file:
        rows = RowsFile(file, (3, 2), np.uint8)
        rows.write(2, np.full((1, 2), 5))
        rows.write(0, np.full((2, 2), 3))
    assert (np.fromfile(tmp_path / "X", np.uint8) == [3, 3, 3, 3, 5, 5]).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets limits")
def test_more_files_than_a_process_may_open_at_first(tmp_path):
    program = """
import resource, sys
import numpy as np
from daskdml.utils.memory import mapped

np.zeros(100, np.uint8).tofile(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
arrays = [mapped(sys.argv[1], np.uint8, (100,)) for _ in range(200)]
assert not sum(array.sum() for array in arrays)
resource.setrlimit(resource.RLIMIT_NOFILE, (210, 210))
try:
    arrays += [mapped(sys.argv[1], np.uint8, (100,)) for _ in range(200)]
except OSError as error:
    print(error.errno)
"""
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path / "X")], capture_output=True, text=True)
    assert found.stdout.strip() == str(errno.EMFILE), found.stderr
