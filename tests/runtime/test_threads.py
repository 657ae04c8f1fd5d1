"""The thread pool: order, errors, interrupts, fork, concurrent and nested use."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from daskdml.runtime import threads
from daskdml.runtime.blas import one_blas_thread
from daskdml.runtime.threads import for_each


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("n_items", [0, 1, 2, 100])
def test_every_item_is_done_once(n_items, n_threads):
    done = []
    for_each(n_items, done.append, n_threads)
    assert sorted(done) == list(range(n_items))


def test_items_are_taken_in_order():
    started = []
    lock = threading.Lock()

    def work(i):
        with lock:
            started.append(i)
        time.sleep(0.001)

    for_each(50, work, 3)
    assert max(abs(i - k) for k, i in enumerate(started)) <= 3


def test_all_threads_take_part():
    barrier = threading.Barrier(3, timeout=10)
    for_each(3, lambda i: barrier.wait(), 3)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_stops_the_others_and_is_raised_once(n_threads):
    done = []

    def work(i):
        if i == 5:
            raise KeyError("five")
        time.sleep(0.002)
        done.append(i)

    with pytest.raises(KeyError, match="five"):
        for_each(1000, work, n_threads)
    n_done = len(done)
    assert n_done < 20
    time.sleep(0.02)
    assert len(done) == n_done, "a thread went on after the error was raised"


def test_a_nested_call_does_not_deadlock():
    done = []
    for_each(4, lambda i: for_each(4, lambda k: done.append((i, k)), 3), 3)
    assert len(set(done)) == 16


def test_concurrent_callers_share_the_pool():
    results = {}

    def caller(name):
        for n_threads in (2, 3, 2, 4):
            found = [0] * 200
            for_each(200, lambda i: found.__setitem__(i, i), n_threads)
            results.setdefault(name, []).append(found == list(range(200)))

    callers = [threading.Thread(target=caller, args=(k,)) for k in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(20)
    assert all(all(results[k]) and len(results[k]) == 4 for k in range(6))


def test_the_pool_persists_and_is_replaced_when_the_number_of_threads_changes():
    for_each(10, lambda i: None, 3)
    first = threads._pool
    for_each(10, lambda i: None, 3)
    assert threads._pool is first
    for_each(10, lambda i: None, 4)
    assert threads._pool is not first
    deadline = time.time() + 10
    while sum(thread.name.startswith("daskdml-") for thread in threading.enumerate()) > 3 and time.time() < deadline:
        time.sleep(0.01)
    assert sum(thread.name.startswith("daskdml-") for thread in threading.enumerate()) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_pool():
    for_each(10, lambda i: None, 3)
    child = os.fork()
    if child == 0:
        barrier = threading.Barrier(3, timeout=10)
        try:
            for_each(3, lambda i: barrier.wait(), 3)
            with one_blas_thread():
                os._exit(0)
        finally:
            os._exit(1)
    deadline = time.time() + 20
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.time() < deadline:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_ctrl_c_leaves_no_task_running():
    program = """
        import time
        from daskdml.runtime.threads import for_each
        done = []
        def work(i):
            print("started\\n", end="", flush=True)
            time.sleep(0.05)
            done.append(i)
        try:
            for_each(10_000, work, 3)
        except KeyboardInterrupt:
            n_done = len(done)
            time.sleep(0.2)
            print("interrupted", len(done) == n_done, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out.splitlines()[-1] == "interrupted True"


def test_blas_is_limited_until_the_last_user_leaves():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def blas_threads():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before
