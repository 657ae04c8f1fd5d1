"""Which workers of a cluster are there: one that is silent for too long is taken out, or everyone would wait for it."""

import threading
import time
from concurrent.futures import Future

from daskdml.utils.config import get_config

LOOK_SECONDS = 0.2


class SchedulerLost(RuntimeError):
    """The scheduler answers no more."""


class Watch:
    """Looks at the workers through the scheduler's eyes, at most every 0.2 seconds.

    Parameters
    ----------
    client : distributed.Client
    timeout : float
        Seconds of silence (no heartbeat) after which a worker is taken out of the cluster. A stopped process keeps its
        connections, and Dask itself waits five minutes for it.
    """

    def __init__(self, client, timeout):
        self.client, self.timeout = client, timeout
        self._seen, self._looked_at = frozenset(), 0.0

    def present(self, *, now=False):
        """Return the addresses of the workers that are there.

        Raises
        ------
        SchedulerLost
            If the scheduler is gone.
        """
        if now or time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._seen = frozenset(self._look())
            self._looked_at = time.monotonic()
        return self._seen

    def _look(self):
        check_scheduler(self.client)
        try:
            return self.client.run_on_scheduler(_look(), timeout=self.timeout)
        except OSError as error:
            raise SchedulerLost(_words(self.client)) from error


def check_scheduler(client, error=None):
    """Raise `SchedulerLost` if there is no connection to the scheduler."""
    if client.status != "running":
        raise SchedulerLost(_words(client)) from error


def patiently(client, ask):
    """Return ``ask()``, a question to workers; those that are silent meanwhile are taken out: they never answer.

    Parameters
    ----------
    client : distributed.Client
    ask : callable
        May be called again, if a worker has gone.
    """
    watch = Watch(client, get_config()["timeout"])
    while True:
        before, answer = watch.present(now=True), Future()
        threading.Thread(target=_answer, args=(ask, answer), daemon=True).start()
        while not answer.done():
            try:
                answer.exception(timeout=LOOK_SECONDS)
            except TimeoutError:
                watch.present()
        if isinstance(answer.exception(), OSError) and watch.present(now=True) != before:
            continue
        return answer.result()


def _answer(ask, answer):
    try:
        answer.set_result(ask())
    except BaseException as error:
        answer.set_exception(error)


def _words(client):
    return (
        f"The connection to the scheduler was lost (client {client.status}), and with it all that the workers held; "
        "start a cluster and fit again: with config_context(checkpoint=..., resume=True) from the last checkpoint."
    )


def _look():
    """Return the function that runs on the scheduler; a local one travels by value, to schedulers without daskdml."""

    async def look(dask_scheduler, timeout):
        from time import time

        silent = [a for a, worker in dask_scheduler.workers.items() if time() - worker.last_seen > timeout]
        for address in silent:
            await dask_scheduler.remove_worker(address, stimulus_id=f"daskdml-silent-{time()}")
        return list(dask_scheduler.workers)

    return look
