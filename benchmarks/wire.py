"""What processes of a Dask cluster spend on their messages: seconds of packing and sending, bytes, and CPU seconds.

Every message of a TCP comm is packed and written by ``TCP.write``, and unpacked by ``from_frames``; a client packs a
graph before that, and the scheduler unpacks it after. These are timed where they are called, in each process, so that
what stands beside a task's arguments counts too: keys, functions, heartbeats, what the scheduler says about states.
"""

import time
from typing import NamedTuple

_SEEN = {"seconds": 0.0, "sent": 0, "received": 0}


class Totals(NamedTuple):
    """Of one process since it began to count.

    Attributes
    ----------
    seconds : float
        Wall seconds of packing, of handing over to the socket, and of unpacking; not of reading from the socket.
    sent, received : int
        Bytes, of all comms.
    cpu : float
        CPU seconds of all threads.
    """

    seconds: float
    sent: int
    received: int
    cpu: float

    def since(self, other):
        """Return what came since other totals."""
        return Totals(*(now - before for now, before in zip(self, other)))


def watch():
    """Begin to count in this process; again it does nothing."""
    import distributed.client
    import distributed.scheduler
    from distributed.comm import tcp

    if not hasattr(tcp.TCP.write, "is_watched"):
        tcp.TCP.write = _written(tcp.TCP.write)
        tcp.from_frames = _unpacked(tcp.from_frames)
        distributed.client.serialize = _timed(distributed.client.serialize)
        distributed.scheduler.deserialize = _timed(distributed.scheduler.deserialize)


def totals():
    """Return the `Totals` of this process."""
    return Totals(_SEEN["seconds"], _SEEN["sent"], _SEEN["received"], time.process_time())


def _written(write):
    async def wrapped(self, *args, **kwargs):
        start = time.perf_counter()
        n_bytes = await write(self, *args, **kwargs)
        _SEEN["seconds"] += time.perf_counter() - start
        _SEEN["sent"] += n_bytes
        return n_bytes

    wrapped.is_watched = True
    return wrapped


def _unpacked(from_frames):
    async def wrapped(frames, *args, **kwargs):
        start = time.perf_counter()
        n_bytes = sum(memoryview(frame).nbytes for frame in frames)
        found = await from_frames(frames, *args, **kwargs)
        _SEEN["seconds"] += time.perf_counter() - start
        _SEEN["received"] += n_bytes
        return found

    return wrapped


def _timed(fn):
    def wrapped(*args, **kwargs):
        start = time.perf_counter()
        found = fn(*args, **kwargs)
        _SEEN["seconds"] += time.perf_counter() - start
        return found

    return wrapped
