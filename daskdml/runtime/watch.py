"""Which workers of a cluster are there: one that is silent for too long is taken out, or everyone would wait for it."""

import functools
import math
import threading
import time
import warnings
from concurrent.futures import Future

from daskdml.utils.config import get_config

from .memory import format_bytes

LOOK_SECONDS = 0.2
MOST_BETWEEN_LOOKS = 1.0  # seconds of silence that one look adds at most
PAUSED_SECONDS = 10.0  # that a worker is paused before it is spoken of: most go on when they have written to disk


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
    made its workers silent. A scheduler that refuses to run functions tells only who is there, which is warned of.
    """

    def __init__(self, client, timeout):
        self.client, self.timeout = client, timeout
        self._seen, self._looked_at, self._told = frozenset(), -math.inf, set()
        self._heard, self._silent, self._memory, self._paused = {}, {}, {}, {}

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

    def memory(self, address):
        """Return the bytes that the process of a worker took when it was heard last; 0 where nobody knows."""
        return self._memory.get(address, 0)

    def _look(self, seconds):
        try:
            found = self._ask(_heard())
        except (ValueError, AttributeError) as error:
            # Dask's option ``blocked-handlers``, or a version whose scheduler keeps these things elsewhere.
            warnings.warn(
                f"The scheduler does not tell how its workers are, so those that stop, or are full, are not noticed: "
                f"{error}",
                RuntimeWarning,
                stacklevel=2,
            )
            self._seen = frozenset(self._ask_for(self.client.nthreads))
            return
        heard, self._memory, is_paused = ({a: facts[k] for a, facts in found.items()} for k in range(3))
        is_silent = {address: self._heard.get(address) == at for address, at in heard.items()}
        self._silent, self._paused = _last(self._silent, is_silent, seconds), _last(self._paused, is_paused, seconds)
        self._heard = heard
        for address, paused in self._paused.items():
            if paused > PAUSED_SECONDS and address not in self._told:
                self._told.add(address)
                warnings.warn(_full(address, self._memory[address]), RuntimeWarning, stacklevel=2)
        gone = [address for address, silent in self._silent.items() if silent > self.timeout]
        if gone:
            self._ask(_remove(), addresses=gone)
        self._seen = frozenset(heard) - frozenset(gone)

    def _ask(self, function, **arguments):
        return self._ask_for(functools.partial(self.client.run_on_scheduler, function, **arguments))

    def _ask_for(self, question):
        check_scheduler(self.client)
        try:
            return question()
        except OSError as error:
            raise SchedulerLost(_words(self.client)) from error


def check_scheduler(client, error=None):
    """Raise `SchedulerLost` if there is no connection to the scheduler."""
    if client.status != "running":
        raise SchedulerLost(_words(client)) from error


def patiently(client, ask, watch=None, on_look=None, *, asks_again=False):
    """Return ``ask()``, a question to workers; those that are silent meanwhile are taken out: they never answer.

    Parameters
    ----------
    client : distributed.Client
    ask : callable
        May be called again, if a worker has gone.
    watch : Watch, optional
    on_look : callable of a set of addresses, optional
        Told which workers are there, now and then while the answer does not come; may raise.
    asks_again : bool, default False
        Whether to ask anew as soon as a worker goes, while the first answer is still to come: to connect to one that
        has gone is tried for half a minute.
    """
    watch = watch or Watch(client, get_config()["timeout"])
    while True:
        before = present = watch.present()
        answer = Future()
        threading.Thread(target=_answer, args=(ask, answer), daemon=True).start()
        while not answer.done() and not (asks_again and before - present):
            try:
                answer.exception(timeout=LOOK_SECONDS)
            except TimeoutError:
                present = watch.present()
                if on_look is not None:
                    on_look(present)
        if not answer.done() or (isinstance(answer.exception(), OSError) and watch.present(now=True) != before):
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


def _last(before, holds, seconds):
    """Return for how many seconds something has held of each worker."""
    return {address: before.get(address, 0.0) + seconds if held else 0.0 for address, held in holds.items()}


def _full(address, n_bytes):
    return (
        f"The worker {address} is paused by Dask, because its process takes {format_bytes(n_bytes)}, most of its "
        "memory limit: what it has to do waits until it has less. Give the workers more memory, or let go of what else "
        "they hold."
    )


def _heard():
    """Return what tells when each worker was heard last, its memory, whether it is paused; any scheduler can run it."""

    def heard(dask_scheduler):
        return {
            address: (worker.last_seen, worker.metrics.get("memory", 0), worker.status.name == "paused")
            for address, worker in dask_scheduler.workers.items()
        }

    return heard


def _remove():
    """Return what takes workers out of the cluster."""

    async def remove(dask_scheduler, addresses):
        from time import time

        for address in addresses:
            if address in dask_scheduler.workers:
                await dask_scheduler.remove_worker(address, stimulus_id=f"daskdml-silent-{time()}")

    return remove
