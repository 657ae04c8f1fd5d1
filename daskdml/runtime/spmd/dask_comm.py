"""Packets over the workers' own Dask comms: the one file that uses names which distributed does not document.

A comm that is opened to a worker's listener has the cluster's addresses, TLS and authentication, and needs no port of
its own. Packets are structure and raw array bytes; nothing of them is pickled or unpickled.

Checked with distributed 2025.1 to 2026.8. `missing_names` looks for each of the names used here.
"""

import asyncio
import inspect
import threading
from contextlib import suppress

from daskdml.runtime.spmd.program import GroupChanged, Station
from daskdml.utils.portable import Parcel, from_frames, pack, to_frames, unpack

OPERATION = "daskdml_packets"
RANK_PREFIX = "daskdml-rank-"
# Of what may wait for the ranks of one run on a worker, and with it of one packet.
MAILBOX_SHARE = 0.5
MAILBOX_BYTES = 8 << 30  # where a worker has no limit
MOST_WAITING = 64  # runs whose packets are kept on a worker where none of their ranks has begun
GONE = ("cancelled", "released", "forgotten")

_posts: dict = {}


def missing_names(worker=None):
    """Return what this version of distributed lacks of the names used here, in words; empty if it lacks none.

    Parameters
    ----------
    worker : distributed.Worker, optional
        Whose attributes to look at as well.
    """
    lacking = []
    try:
        from distributed.comm import connect
        from distributed.protocol.serialize import Serialized

        if "deserialize" not in inspect.signature(connect).parameters:
            lacking.append("distributed.comm.connect(deserialize=)")
        if not {"header", "frames"} <= set(inspect.signature(Serialized).parameters):
            lacking.append("distributed.protocol.serialize.Serialized(header, frames)")
    except ImportError as error:
        lacking.append(str(error))
    if worker is not None:
        lacking += [f"Worker.{name}" for name in ("handlers", "loop", "connection_args") if not hasattr(worker, name)]
        if not isinstance(getattr(worker, "handlers", None), dict):
            lacking.append("Worker.handlers as a dict")
    return ", ".join(lacking)


def open_post(worker):
    """Let a worker take in packets; returns its `Post`."""
    post = _posts.get(worker.address)
    if post is None or post.worker is not worker:
        post = _posts[worker.address] = Post(worker)
        worker.handlers[OPERATION] = post.take_in
    return post


def close_post(worker):
    """Undo `open_post`; ranks that are there end."""
    post = _posts.get(worker.address)
    if post is not None and post.worker is worker:
        worker.handlers.pop(OPERATION, None)
        post.close()
        del _posts[worker.address]


def post_of(worker):
    """Return the `Post` of a worker.

    Raises
    ------
    RuntimeError
        If this version of distributed lacks something.
    """
    if worker.address not in _posts:
        raise RuntimeError(
            f"Ranks cannot talk to each other on {worker.address}: this version of distributed lacks "
            f'{missing_names(worker) or "WorkerPlugin.setup"}; use config_context(runtime="tasks").'
        )
    return _posts[worker.address]


class Desk:
    """What belongs to one run on one worker.

    Attributes
    ----------
    station : Station
    changed : threading.Condition
        Notified whenever a packet came or a generation ended.
    over : int
        Generations up to this one have lost a member.
    is_unwanted : bool
        Whether nobody waits for the run any more.
    latest : tuple (generation, step, state) or None
        The last step that a rank of this worker has finished.
    """

    def __init__(self):
        self.station, self.changed = Station(), threading.Condition()
        self.over, self.is_unwanted, self.latest = 0, False, None
        self.n_users = 0

    def end(self, generation):
        """Make calls of ranks up to this generation raise `GroupChanged`."""
        with self.changed:
            self.over = max(self.over, generation)
            self.changed.notify_all()


class Post:
    """Where packets for the ranks of one worker arrive, and from where theirs leave.

    Attributes
    ----------
    turn : threading.Semaphore
        Held by the rank that computes; one that waits for a packet lets go of it. Ranks of many fits on one worker so
        take turns instead of fighting for its cores.
    """

    def __init__(self, worker):
        self.worker, self.turn = worker, threading.Semaphore()
        limit = worker.memory_manager.memory_limit
        self.most_bytes = int(limit * MAILBOX_SHARE) if limit else MAILBOX_BYTES
        self._desks, self._lock = {}, threading.Lock()

    def desk(self, run):
        """Return the desk of a run, and count who uses it; `leave` is the other half."""
        with self._lock:
            desk = self._desks.setdefault(run, Desk())
            desk.n_users += 1
            return desk

    def leave(self, run):
        """Forget a run once nobody uses its desk, unless packets wait there for a rank that has yet to begin."""
        with self._lock:
            self._desks[run].n_users -= 1
            idle = [name for name, desk in self._desks.items() if not desk.n_users]
            waiting = [name for name in idle if not self._desks[name].station.is_empty]
            # A rank that never begins (its client died) must not keep packets for ever.
            for name in set(idle) - set(waiting[-MOST_WAITING:]):
                del self._desks[name]

    def known(self, run):
        """Return the desk of a run, None if it has none."""
        return self._desks.get(run)

    def close(self):
        """End all ranks of the worker."""
        for desk in list(self._desks.values()):
            desk.is_unwanted = True
            desk.end(2**62)

    async def take_in(self, comm, run=None, generation=None, source=None):
        """Take in the packets of one rank until its stream ends: the handler on the worker's listener."""
        # Else Dask would unpickle what peers ask it to.
        comm.deserialize = False
        desk, has_ended = self.desk(run), False
        try:
            while not has_ended:
                message = await comm.read()
                has_ended = message == "end"
                if not has_ended:
                    self._put(desk, generation, source, message)
        except (OSError, ValueError, TypeError, KeyError):
            pass  # a peer that died, or one that does not speak as we do: either way this group is no more
        finally:
            if not has_ended:
                desk.end(generation)
            self.leave(run)
            comm.abort()

    def _put(self, desk, generation, source, message):
        packet = _read(message)
        with desk.changed:
            if desk.station.n_bytes + packet.nbytes > self.most_bytes:
                raise ValueError(f"More than {self.most_bytes} bytes wait for this worker's ranks.")
            desk.station.put(generation, source, message["number"], packet)
            desk.changed.notify_all()


class Wire:
    """The transport of one rank to the others of its group.

    Parameters
    ----------
    post : Post
    desk : Desk
    run : str
    generation, rank : int
    group : list of str
        The worker of each rank.
    """

    def __init__(self, post, desk, run, generation, rank, group):
        self.post, self.desk = post, desk
        self.run, self.generation, self.rank, self.group = run, generation, rank, group
        self._streams, self._numbers = {}, [0] * len(group)
        self._loop = post.worker.loop

    def send(self, to, packet):
        """Send a packet without waiting for anybody."""
        if to not in self._streams:
            self._streams[to] = _Stream(self, self.group[to])
        number = self._numbers[to]
        self._numbers[to] += 1
        self._loop.add_callback(self._streams[to].put, _message(number, packet))

    def receive(self, source):
        """Wait for the next packet of a rank, and let other ranks of this worker compute meanwhile."""
        desk, key = self.desk, (self.generation, source)
        with desk.changed:
            self._check()
            if desk.station.has(*key):
                return desk.station.take(*key)
        self.post.turn.release()
        try:
            with desk.changed:
                desk.changed.wait_for(lambda: desk.over >= self.generation or desk.station.has(*key))
        finally:
            self.post.turn.acquire()
        with desk.changed:
            self._check()
            return desk.station.take(*key)

    def check(self):
        """Raise `GroupChanged` if the group has changed."""
        if self.desk.over >= self.generation:
            raise GroupChanged

    _check = check

    def close(self, is_done):
        """Close the streams; those of a rank that is not done tell the others that the group has changed."""
        for stream in self._streams.values():
            self._loop.add_callback(stream.put, "end" if is_done else None)


class _Stream:
    """The packets that go to one worker, in their order: written by a task of the worker's event loop."""

    def __init__(self, wire, address):
        self.wire, self.address, self.queue, self.task = wire, address, asyncio.Queue(), None

    def put(self, message):
        self.queue.put_nowait(message)
        if self.task is None:
            self.task = asyncio.ensure_future(self._write())

    async def _write(self):
        from distributed.comm import connect

        wire, comm = self.wire, None
        try:
            comm = await connect(self.address, deserialize=False, **wire.post.worker.connection_args)
            opening = {"op": OPERATION, "reply": False, "run": wire.run, "generation": wire.generation}
            await comm.write({**opening, "source": wire.rank})
            while (message := await self.queue.get()) is not None:
                await comm.write(message)
                if message == "end":
                    await comm.close()
                    return
        except OSError:
            wire.desk.end(wire.generation)
        finally:
            if comm is not None:
                with suppress(Exception):
                    comm.abort()


def _message(number, packet):
    from distributed.protocol.serialize import Serialized

    is_parcel = isinstance(packet, Parcel)
    header, arrays = packet if is_parcel else pack(packet)
    described, frames = to_frames(arrays)
    return {
        "number": number, "is_parcel": is_parcel, "header": header, "arrays": described,
        "frames": Serialized({}, frames),
    }  # fmt: skip


def _read(message):
    arrays = from_frames(message["arrays"], message["frames"].frames)
    parcel = Parcel(message["header"], arrays)
    return parcel if message["is_parcel"] else unpack(parcel)
