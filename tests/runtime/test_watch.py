"""Questions to workers: a silent one is taken out meanwhile, one that has gone is not asked again."""

import threading

import pytest

from daskdml.runtime import watch as watch_module
from daskdml.runtime.watch import SchedulerLost, Watch, patiently


class Client:
    """A scheduler that has these workers; ``silent`` ones go at the third look."""

    status, deaf, full = "running", (), ()

    def __init__(self, workers, silent=()):
        self.workers, self.silent, self.looks, self.gone = set(workers), set(silent), 0, threading.Event()

    def run_on_scheduler(self, function, addresses=None):
        if addresses is not None:
            self.workers -= set(addresses)
            return None
        self.looks += 1
        if self.looks == 3 and self.silent:
            self.workers -= self.silent
            self.gone.set()
        return {
            worker: (0 if worker in self.deaf else self.looks, 100_000_000, worker in self.full)
            for worker in sorted(self.workers)
        }


def test_an_answer_is_handed_on():
    assert patiently(Client("ab"), lambda: 3) == 3


def test_a_worker_that_never_answers_is_taken_out_and_the_others_asked_again():
    client, asked = Client("ab", silent="b"), []

    def ask():
        asked.append(sorted(client.workers))
        if "b" in client.workers:
            client.gone.wait()
            raise OSError("closed")
        return "fine"

    assert patiently(client, ask) == "fine" and asked == [["a", "b"], ["a"]]


def test_nobody_waits_for_a_worker_that_has_gone():
    """To connect to one is tried for half a minute."""
    client, asked, never = Client("ab", silent="b"), [], threading.Event()

    def ask():
        asked.append(sorted(client.workers))
        return "fine" if "b" not in client.workers else never.wait(20)  # False, if nobody asks again

    assert patiently(client, ask, asks_again=True) == "fine" and asked == [["a", "b"], ["a"]]
    never.set()


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError("wrong"), TimeoutError("wrong")])
def test_an_error_that_is_no_death_is_raised(error):
    def ask():
        raise error

    with pytest.raises(type(error), match="wrong"):
        patiently(Client("ab"), ask)


def test_a_lost_scheduler_ends_the_waiting():
    client, never = Client("a"), threading.Event()
    client.status = "connecting"
    with pytest.raises(SchedulerLost, match="client connecting"):
        patiently(client, never.wait)


def test_looks_are_not_repeated_at_once():
    client = Client("ab")
    watch = Watch(client, 60)
    assert watch.present() == watch.present() == {"a", "b"} and client.looks == 1
    assert watch.present(now=True) == {"a", "b"} and client.looks == 2


def test_a_worker_without_heartbeats_is_taken_out_after_the_timeout(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(watch_module.time, "monotonic", lambda: clock[0])
    client = Client("abc")
    client.deaf = "b"
    watch = Watch(client, 3)
    while "b" in watch.present(now=True):
        clock[0] += 0.5
    assert 3 < clock[0] <= 4.5 and client.workers == {"a", "c"}


def test_a_worker_that_stays_paused_is_spoken_of_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(watch_module.time, "monotonic", lambda: clock[0])
    client = Client("ab")
    watch = Watch(client, 3)
    for client.full in ("b", "", "b"):  # eight seconds each: the first pause ends by itself
        for _ in range(16):
            clock[0] += 0.5
            assert watch.present() == {"a", "b"}
    assert watch.memory("b") == 100_000_000 and watch.memory("unknown") == 0
    with pytest.warns(RuntimeWarning, match="The worker b is paused by Dask, because its process takes 100 MB") as told:
        for _ in range(16):
            clock[0] += 0.5
            watch.present()
    assert len(told) == 1


def test_a_scheduler_that_runs_no_functions_still_tells_who_is_there():
    class Strict(Client):
        def run_on_scheduler(self, function):
            raise ValueError("The 'run_function' handler has been explicitly disallowed in Scheduler")

        def nthreads(self):
            return dict.fromkeys(self.workers, 1)

    with pytest.warns(RuntimeWarning, match="does not tell how its workers are.*disallowed"):
        assert Watch(Strict("ab"), 3).present() == {"a", "b"}


def test_a_computer_that_slept_has_not_made_its_workers_silent(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(watch_module.time, "monotonic", lambda: clock[0])
    client = Client("ab")
    client.deaf = "ab"
    watch = Watch(client, 3)
    watch.present()
    clock[0] += 10_000
    assert watch.present() == {"a", "b"} == client.workers
