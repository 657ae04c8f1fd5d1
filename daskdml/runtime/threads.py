"""One pool of threads for all fits of this process; threads take items from a shared counter, in order."""

import itertools
import os
import queue
import threading

_pool = None
_pool_lock = threading.Lock()


def n_cores():
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(n_items, work, n_threads):
    """Call ``work(i)`` for i = 0 ... n_items - 1 on ``n_threads`` threads, the calling thread being one of them.

    Parameters
    ----------
    n_items : int
    work : callable of one int
    n_threads : int

    Raises
    ------
    BaseException
        The first one that ``work`` raised, or a KeyboardInterrupt of the calling thread. The other threads stop after
        the item they are at, and none is running when this function returns or raises.

    Notes
    -----
    With one thread or one item everything runs in the calling thread. Otherwise the overhead is one queue entry per
    helping thread. A helper that is busy elsewhere is not waited for, so a nested or concurrent call cannot deadlock.

    Examples
    --------
    >>> squares = [0] * 4
    >>> for_each(4, lambda i: squares.__setitem__(i, i * i), 2)
    >>> squares
    [0, 1, 4, 9]
    """
    n_threads = min(n_threads, n_items)
    if n_threads <= 1:
        for i in range(n_items):
            work(i)
        return
    job = _Job(n_items, work)
    tasks = _get_pool(n_threads - 1).tasks
    try:
        for _ in range(n_threads - 1):
            tasks.put(job)
        job.loop()
    except BaseException as error:  # a Ctrl-C between two lines of this function
        job.stop(error)
    job.wait()
    if job.error is not None:
        try:
            raise job.error
        finally:
            job.error = None  # the traceback holds this frame: break the cycle


class _Job:
    """Items still to be done, and the threads at them."""

    def __init__(self, n_items, work):
        self.n_items = n_items
        self.work = work
        self.take = itertools.count().__next__
        self.error = None
        self.closed = False
        self.active = 0
        self.changed = threading.Condition()

    def help(self):
        """Take part as a thread of the pool, unless the job is already over."""
        with self.changed:
            if self.closed:
                return
            self.active += 1
        self.loop()
        with self.changed:
            self.active -= 1
            self.changed.notify_all()

    def loop(self):
        try:
            while self.error is None:
                i = self.take()
                if i >= self.n_items:
                    return
                self.work(i)
        except BaseException as error:
            self.stop(error)

    def stop(self, error):
        with self.changed:
            if self.error is None:
                self.error = error

    def wait(self):
        """Admit no further thread and wait for those inside; a Ctrl-C here stops them at their next item."""
        while True:
            try:
                with self.changed:
                    self.closed = True
                    while self.active:
                        self.changed.wait()
                return
            except KeyboardInterrupt as error:
                self.stop(error)


class _Pool:
    def __init__(self, n_threads):
        self.n_threads = n_threads
        self.tasks = queue.SimpleQueue()
        for k in range(n_threads):
            threading.Thread(target=_serve, args=(self.tasks,), name=f"daskdml-{k}", daemon=True).start()

    def close(self):
        for _ in range(self.n_threads):
            self.tasks.put(None)


def _serve(tasks):
    while (job := tasks.get()) is not None:
        job.help()
        del job  # do not keep the last job's data alive while waiting for the next


def _get_pool(n_threads):
    global _pool
    with _pool_lock:
        if _pool is None or _pool.n_threads != n_threads:
            if _pool is not None:
                _pool.close()
            _pool = _Pool(n_threads)
        return _pool


def _forget_pool():
    """Start afresh after fork: threads do not survive it, and the lock may have been held by one of them."""
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
