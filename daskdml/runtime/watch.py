"""Which workers of a cluster are there: one that is silent for too long is taken out, or everyone would wait for it."""

import math
import threading
import time
from concurrent.futures import Future

from daskdml.utils.config import get_config

LOOK_SECONDS = 0.2
MOST_BETWEEN_LOOKS = 1.0  # seconds of silence that one look adds at most


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

    Notes
    -----
    Silence is what was seen of it from here, look by look: a computer that slept, or a scheduler that was busy, has not
    made its workers silent.
    """

    def __init__(self, client, timeout):
        self.client, self.timeout = client, timeout
        self._seen, self._looked_at = frozenset(), -math.inf
        self._heard, self._silent = {}, {}

    def present(self, *, now=False):
        """Return the addresses of the workers that are there.

        Raises
        ------
        SchedulerLost
            If the scheduler is gone.
        """
        since = time.monotonic() - self._looked_at
        if now or since >= LOOK_SECONDS:
            self._look(min(since, MOST_BETWEEN_LOOKS))
            self._looked_at = time.monotonic()
        return self._seen

    def _look(self, seconds):
        heard = self._ask(_heard())
        self._silent = {
            address: self._silent.get(address, 0.0) + seconds if self._heard.get(address) == at else 0.0
            for address, at in heard.items()
        }
        self._heard = heard
        gone = [address for address, silent in self._silent.items() if silent > self.timeout]
        if gone:
            self._ask(_remove(), addresses=gone)
        self._seen = frozenset(heard) - frozenset(gone)

    def _ask(self, function, **arguments):
        check_scheduler(self.client)
        try:
            return self.client.run_on_scheduler(function, **arguments)
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


def _heard():
    """Return what tells when each worker was heard last; a local function travels by value, to any scheduler."""

    def heard(dask_scheduler):
        return {address: worker.last_seen for address, worker in dask_scheduler.workers.items()}

    return heard


def _remove():
    """Return what takes workers out of the cluster."""

    async def remove(dask_scheduler, addresses):
        from time import time

        for address in addresses:
            if address in dask_scheduler.workers:
                await dask_scheduler.remove_worker(address, stimulus_id=f"daskdml-silent-{time()}")

    return remove
