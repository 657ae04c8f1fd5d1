"""Waits for tasks that are pinned to workers, and cleans up after errors, interrupts and deaths."""

import math
import time
from contextlib import contextmanager, suppress

from .watch import check_scheduler, patiently

CHECK_SECONDS = 0.5
ALLOWED_DEATHS = 3  # in one pass; rows that kill a worker would kill the next one as well


class WorkerLost(Exception):
    """A worker that tasks are pinned to has gone."""

    def __init__(self, addresses):
        super().__init__(", ".join(sorted(addresses)))


@contextmanager
def cancelling(client):
    """Cancel the futures put into the list on any error or Ctrl-C, and say in a sentence what became of workers."""
    import distributed

    started = []
    try:
        yield started
    except BaseException as error:
        with suppress(Exception):  # the cluster may be gone; the error at hand says more
            client.cancel(started, force=True)
        if isinstance(error, (OSError, distributed.CancelledError)):
            check_scheduler(client, error)
        if isinstance(error, distributed.KilledWorker):
            raise too_many_deaths(error.last_worker.address, error.allowed_failures + 1) from error
        if isinstance(error, distributed.CancelledError):
            raise RuntimeError(
                "The cluster lost part of the data and has no recipe to make it again (scattered data, or a restarted "
                "scheduler); pass a collection that reads its source."
            ) from error
        raise


def wait_for(watch, futures, pinned, at_most=math.inf):
    """Wait until all futures are done, one has failed, or ``at_most`` seconds have passed.

    Parameters
    ----------
    watch : Watch
    futures : list of Future
    pinned : set of str
        Addresses of the workers that tasks may run on only.
    at_most : float, default infinity
        Seconds.

    Raises
    ------
    WorkerLost
        If one of those workers goes while we wait: Dask would wait for ever for it to come back.
    """
    from distributed import TimeoutError, wait

    end = time.monotonic() + at_most
    while True:
        left = end - time.monotonic()
        try:
            wait(futures, timeout=max(min(CHECK_SECONDS, left), 0))
            return
        except TimeoutError as error:
            _forget(error)
            if left <= 0 or any(future.status == "error" for future in futures):
                return
            gone = pinned - watch.present()
            if gone:
                raise WorkerLost(gone) from None


def _forget(error):
    """Break the circle of an error of Dask's and the frames that it came through, which hold the futures.

    They would be wanted until Python's collector comes. Of a worker that dies meanwhile tasks are cancelled, and for
    one that another depends on, which nobody wants but by this one, the scheduler fails and drops the connection.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def gather(client, watch, futures, pinned=frozenset()):
    """Return the results of futures.

    Parameters
    ----------
    client : distributed.Client
    watch : Watch
    futures : list of Future
    pinned : set of str
        Addresses of the workers that their tasks may run on only.

    Raises
    ------
    WorkerLost
        If one of those workers goes before its result is here: nobody makes it again.
    """

    def on_look(present):
        if pinned - present:
            raise WorkerLost(pinned - present)

    return patiently(client, lambda: client.gather(futures), watch, on_look)


def raise_first(futures):
    """Raise the error of the first future that failed."""
    for future in futures:
        if future.status == "error":
            future.result()


def too_many_deaths(address, n_deaths=ALLOWED_DEATHS + 1):
    """Return the error that says that one worker after the other died of the same work."""
    return RuntimeError(
        f"Workers died {n_deaths} times in one pass over the data, the last one at {address}, most likely "
        "because they ran out of memory; give the workers more memory, make the chunks smaller, or use "
        'daskdml.config_context(memory="stream").'
    )
