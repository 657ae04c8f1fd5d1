"""Lets a running task notice that nobody wants its result any more: Dask cannot interrupt a thread."""

from distributed import WorkerPlugin, get_worker

PREFIX = "daskdml-pass"
_unwanted = set()


class StopUnwanted(WorkerPlugin):
    """Writes down the keys of our tasks that are cancelled while they run."""

    name = "daskdml-stop"
    idempotent = True

    def transition(self, key, start, finish, **kwargs):
        if start == "executing" and finish in ("cancelled", "released", "forgotten") and str(key).startswith(PREFIX):
            _unwanted.add(key)


class Unwanted(Exception):
    """Ends a task that was cancelled; nobody sees it."""


class Wanted:
    """Raises `Unwanted` when called in a task that has been cancelled."""

    def __init__(self):
        self.key = get_worker().get_current_task()

    def __call__(self):
        if self.key in _unwanted:
            _unwanted.discard(self.key)
            raise Unwanted(self.key)
