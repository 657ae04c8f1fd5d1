"""Packets over the workers' own Dask comms: the one file that uses names which distributed does not document.

A comm that is opened to a worker's listener has the cluster's addresses, TLS and authentication, and needs no port of
its own. Packets are structure and raw array bytes; nothing of them is pickled or unpickled.

Checked with distributed 2025.1 to 2026.8. `missing_names` looks for each of the names used here.
"""

import asyncio
import ctypes
import inspect
import logging
import threading
from collections import deque
from contextlib import suppress

import psutil

from daskdml.runtime.mapped import worker_folder
from daskdml.runtime.memory import SHARE, process_limit
from daskdml.runtime.shelf import Shelf
from daskdml.runtime.spmd.program import GroupChanged, Labelled, Station
from daskdml.runtime.spmd.same_host import Incoming, Outgoing, machine_of, may_share
from daskdml.utils.portable import Parcel, from_frames, pack, to_frames, unpack

OPERATION, TABLES = "daskdml_packets", "daskdml_tables"
RANK_PREFIX = "daskdml-rank-"
# Of what may wait for the ranks of one run on a worker, and with it of one packet.
MAILBOX_SHARE = 0.5
MAILBOX_BYTES = 8 << 30  # where a worker has no limit
MOST_WAITING = 64  # runs whose packets are kept on a worker where none of their ranks has begun
SHARE_AFTER = 8  # packets to a worker of the same machine: a ring of shared memory is worth its making
REMEMBERED = 1000  # runs of which a worker knows what is over
MOST_SHELVES = 8  # runs whose shelves a worker keeps: a client that dies does not say that its run is over
GONE = ("cancelled", "released", "forgotten")
NAMES = ("handlers", "loop", "connection_args", "memory_manager")  # of a Worker

_posts: dict = {}
_log = logging.getLogger(__name__)


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
    except (ImportError, TypeError, ValueError) as error:
        lacking.append(str(error))
    if worker is not None:
        lacking += [f"Worker.{name}" for name in NAMES if not hasattr(worker, name)]
        if not isinstance(getattr(worker, "handlers", None), dict):
            lacking.append("Worker.handlers as a dict")
    return ", ".join(lacking)


def open_post(worker):
    """Let a worker take in packets; returns its `Post`."""
    post = _posts.get(worker.address)
    if post is None or post.worker is not worker:
        post = _posts[worker.address] = Post(worker)
        worker.handlers[OPERATION], worker.handlers[TABLES] = post.take_in, post.take_tables
    return post


def close_post(worker):
    """Undo `open_post`; ranks that are there end."""
    post = _posts.get(worker.address)
    if post is not None and post.worker is worker:
        for operation in (OPERATION, TABLES):
            worker.handlers.pop(operation, None)
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

    Parameters
    ----------
    over : int, default 0
        Generations that are over already.

    Attributes
    ----------
    station : Station
    changed : threading.Condition
        Held by whoever looks at packets; see `tell`.
    rings : dict of (generation, source) to daskdml.runtime.spmd.same_host.Incoming
        Of ranks on the same machine.
    over : int
        Generations up to this one have lost a member.
    latest : tuple (generation, step, state) or None
        The last step that a rank of this worker has finished.
    """

    def __init__(self, over=0):
        self.station, self.changed = Station(), threading.Condition()
        self.over, self.latest, self.n_users, self.rings = over, None, 0, {}
        self.station.retire(over)

    def tell(self):
        """Let ranks that wait look again: a packet came, or a generation ended. Called with ``changed`` held."""
        self.changed.notify_all()
        for ring in self.rings.values():
            ring.wake()

    def drain(self, generation, source, whole=True):
        """Take the packets out of a ring whose turn it is, or only until one waits; return whether one does.

        Called with ``changed`` held.
        """
        ring, station = self.rings.get((generation, source)), self.station
        while ring is not None and (whole or not station.has(generation, source)):
            number = ring.next_number()
            if number is None or number > station.expects(generation, source):
                break
            described, frames = ring.take()
            station.put(generation, source, number, _read(described, frames))
        return station.has(generation, source)

    def end(self, generation):
        """Make calls of ranks up to this generation raise `GroupChanged`."""
        with self.changed:
            self.over = max(self.over, generation)
            self.tell()


class Turn:
    """Held by the one rank of a worker that computes: first come, first served.

    One that waits for a packet lets go of it. So ranks of many fits take turns instead of fighting for the cores.
    """

    def __init__(self):
        self._changed, self._queue = threading.Condition(), deque()

    def take(self, is_over):
        """Wait for it; return whether it was got, which it was not if ``is_over()`` came first."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket or is_over())
            if self._queue[0] is ticket:
                return True
            self._queue.remove(ticket)
            return False

    def give(self):
        """Let the next one have it."""
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()

    def look(self):
        """Let those that wait see whether they still want it."""
        with self._changed:
            self._changed.notify_all()


class Post:
    """Where packets for the ranks of one worker arrive, and from where theirs leave.

    Attributes
    ----------
    turn : Turn
    """

    def __init__(self, worker):
        self.worker, self.turn = worker, Turn()
        limit = worker.memory_manager.memory_limit
        self.most_bytes = int(limit * MAILBOX_SHARE) if limit else MAILBOX_BYTES
        self._desks, self._over, self._paused = {}, {}, deque(maxlen=REMEMBERED)
        self._shelves, self.hosts = {}, {}
        self._wires, self._lock = set(), threading.Lock()

    def desk(self, run):
        """Return the desk of a run, and count who uses it; `leave` is the other half."""
        with self._lock:
            if run not in self._desks:
                self._desks[run] = Desk(self._over.get(run, 0))
            desk = self._desks[run]
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

    def shelf(self, run, url=None):
        """Return the shelf of a run, in a folder of this worker unless a URL is given."""
        with self._lock:
            if run not in self._shelves:
                self._shelves[run] = Shelf.of_process(worker_folder()) if url is None else Shelf(url, is_shared=True)
                idle = [name for name in self._shelves if name != run and name not in self._desks]
                for name in idle[: len(self._shelves) - MOST_SHELVES]:
                    del self._shelves[name]
            return self._shelves[run]

    def known_shelf(self, run):
        """Return the shelf of a run, None if it has none here."""
        return self._shelves.get(run)

    def drop_shelf(self, run):
        """Let go of the shelf of a run that is over."""
        with self._lock:
            self._shelves.pop(run, None)

    def enter(self, wire):
        """Count a rank that begins; returns its desk."""
        with self._lock:
            self._wires.add(wire)
        return self.desk(wire.run)

    def exit(self, wire):
        """Count a rank that has ended: what still comes for its generation is refused."""
        self.end(wire.run, wire.generation)
        desk = self.known(wire.run)
        with desk.changed:
            desk.station.retire(wire.generation)
        with self._lock:
            self._wires.discard(wire)
        self.leave(wire.run)

    def end(self, run, generation):
        """Make calls of ranks up to this generation raise `GroupChanged`, also of those that have yet to begin."""
        with self._lock:
            # To the end of the dict, which forgets at its beginning.
            self._over[run] = max(self._over.pop(run, 0), generation)
            while len(self._over) > REMEMBERED:
                del self._over[next(iter(self._over))]
            desk = self._desks.get(run)
        if desk is not None:
            desk.end(generation)
        if run in self.hosts:
            self.hosts[run].wake()
        self.turn.look()

    def pause(self, run, generation):
        """Make ranks of a generation raise `GroupChanged` when a step has ended, also those that have yet to begin."""
        self._paused.append((run, generation))

    def is_paused(self, run, generation):
        """Tell whether `pause` was called."""
        return (run, generation) in self._paused

    def interrupt(self, run, generation):
        """Stop ranks that were ended and still compute, see `Wire.interrupt`."""
        for wire in list(self._wires):
            if wire.run == run and wire.generation <= generation:
                wire.interrupt()

    def close(self):
        """End all ranks of the worker."""
        for run in list(self._desks):
            self.end(run, 2**62)

    async def take_tables(self, comm, run=None):
        """Take in messages of a parameter server until their stream ends: another handler on the worker's listener."""
        comm.deserialize = False  # else Dask would unpickle what peers ask it to
        try:
            while True:
                message = await comm.read()
                frames = message["frames"].frames
                bundle = _read(message, frames).packet
                if run in self.hosts:
                    self.hosts[run].take(bundle, _n_bytes(message, frames))
        except OSError:
            pass  # a worker that died: the control is told so
        except Exception as error:
            _log.warning("Messages of tables from %s are refused: %s", comm.peer_address, error)
        finally:
            comm.abort()

    async def take_in(self, comm, run=None, generation=None, source=None):
        """Take in the packets of one rank until its stream ends: the handler on the worker's listener."""
        # Else Dask would unpickle what peers ask it to.
        comm.deserialize = False
        desk, has_ended, key = self.desk(run), False, (generation, source)
        try:
            while not has_ended:
                message = await comm.read()
                if message == "end":
                    with desk.changed:
                        desk.drain(*key)
                    has_ended = True
                elif "ring" in message:
                    answer = self._share(desk, key, message["ring"])
                    with suppress(OSError):  # who asks may have ended; what it sent before is still to be read
                        await comm.write(answer)
                else:
                    self._put(desk, key, message)
        except OSError:
            pass  # a peer that died or was ended: this group is no more
        except Exception as error:
            _log.warning("Packets of rank %s, generation %s, from %s are refused: %s",
                         source, generation, comm.peer_address, error)  # fmt: skip
        finally:
            if not has_ended:
                self.end(run, generation)
            with desk.changed:
                desk.tell()
                desk.rings.pop(key, None)
            self.leave(run)
            comm.abort()

    def _share(self, desk, key, name):
        """Open the ring that a rank offers; return whether that could be done."""
        try:
            ring = Incoming(name)
        except (OSError, ValueError, TypeError):
            return False
        with desk.changed:
            desk.rings[key] = ring
            desk.tell()
        return True

    def _put(self, desk, key, message):
        packet = _read(message, message["frames"].frames)
        with desk.changed:
            if desk.station.n_bytes + packet.nbytes > self.most_bytes:
                raise ValueError(f"More than {self.most_bytes} bytes wait for this worker's ranks.")
            # What was sent before it may stand in a ring.
            desk.drain(*key)
            desk.station.put(*key, message["number"], packet)
            desk.tell()


class Wire:
    """The transport of one rank to the others of its group.

    Parameters
    ----------
    post : Post
    run : str
    generation, rank : int
    group : list of str
        The worker of each rank.
    shelf : str or None
        The URL of the shelf that all workers see, None for one of this worker.

    Notes
    -----
    Belongs to the thread that makes it, which must close it.
    """

    def __init__(self, post, run, generation, rank, group, shelf=None):
        self._shelf = shelf
        self.post, self.run, self.generation, self.rank, self.group = post, run, generation, rank, group
        self._streams, self._numbers = {}, [0] * len(group)
        self._loop = post.worker.loop
        self._thread, self._gate = threading.get_ident(), threading.Lock()
        self._is_in_program = self._has_turn = False
        self.desk = post.enter(self)
        with self.desk.changed:
            self.desk.station.retire(generation - 1)

    @property
    def shelf(self):
        """What ranks of this run keep on this worker."""
        return self.post.shelf(self.run, self._shelf)

    @property
    def hosts(self):
        """The machine of each rank."""
        return [machine_of(address) for address in self.group]

    def room(self):
        """Return the bytes of rows that this worker may take: half of what Dask and the machine leave it."""
        limit, left = self.post.worker.memory_manager.memory_limit, process_limit()
        if limit:
            left = min(left, limit - psutil.Process().memory_info().rss)
        return SHARE * max(left, 0)

    def begin(self):
        """Wait for the turn to compute; raise `GroupChanged` if the group is over before it has begun."""
        self._take_turn()
        self.check()
        self.step_in()

    def send(self, to, packet):
        """Send a packet without waiting for anybody."""
        self.step_out()
        if packet.nbytes > self.post.most_bytes:
            raise ValueError(
                f"An array of {packet.nbytes:,} bytes is more than half of what the worker {self.post.worker.address} "
                "may hold; reduce it in parts, or give the workers more memory."
            )
        if to not in self._streams:
            self._streams[to] = _Stream(self, self.group[to])
        stream, number = self._streams[to], self._numbers[to]
        self._numbers[to] += 1
        described, frames = _describe(packet)
        if stream.ring is None or not stream.ring.put(number, described, frames):
            self._loop.add_callback(stream.put, _message(number, described, frames))
        if number == SHARE_AFTER and may_share(self.post.worker.address, self.group[to]):
            self._loop.add_callback(stream.put, "offer")
        self.step_in()

    def receive(self, source):
        """Wait for the next packet of a rank, and let other ranks of this worker compute meanwhile."""
        self.step_out()
        self.check()
        desk, key = self.desk, (self.generation, source)
        with desk.changed:
            has_come = desk.drain(*key, whole=False)
        if not has_come:
            self._give_turn()
            self._wait_for(key)
            self._take_turn()
        with desk.changed:
            self.check()
            packet = desk.station.take(*key)
        self.step_in()
        return packet

    def _wait_for(self, key):
        """Return when a packet waits, or the group is over."""
        desk, ring = self.desk, None
        while True:
            with desk.changed:
                if ring is None:
                    desk.changed.wait_for(lambda: self._is_over() or desk.station.has(*key) or key in desk.rings)
                if self._is_over() or desk.drain(*key, whole=False):
                    return
                ring = desk.rings.get(key)
            if ring is not None:
                ring.wait()

    def wait_until(self, changed, condition, seconds):
        """Wait until something is so that is told of on ``changed``, and let other ranks of this worker compute.

        Return whether it was so after so many seconds.
        """
        self.step_out()
        self.check()
        with changed:
            is_so = condition()
        if not is_so:
            self._give_turn()
            with changed:
                is_so = changed.wait_for(lambda: self._is_over() or condition(), seconds)
            self._take_turn()
        self.check()
        self.step_in()
        return is_so

    def check(self, at_boundary=False):
        """Raise `GroupChanged` if the group has changed, or is to change when a step has ended."""
        if self._is_over() or (at_boundary and self.post.is_paused(self.run, self.generation)):
            raise GroupChanged

    def interrupt(self):
        """Raise `GroupChanged` in the rank's thread if that runs the program's own code; called by another thread.

        A rank that is waiting notices by itself that its group is over. One that computes for long does not, and when
        its client has gone nobody would ever have the worker back. The exception comes between two bytecodes, as that
        of a Ctrl-C does; never inside this class, whose locks it could leave locked.
        """
        with self._gate:
            if self._is_in_program and self._is_over():
                self._is_in_program = False
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(GroupChanged)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

    def step_out(self):
        """Note that what follows is not the program's own code; an interrupt that is on its way arrives here."""
        with self._gate:
            self._is_in_program = False
        _come_here()

    def step_in(self):
        """Note that what follows is the program's own code again."""
        with self._gate:
            self._is_in_program = True

    def close(self, is_done):
        """Close the streams; those of a rank that is not done tell the others that the group has changed."""
        for stream in self._streams.values():
            self._loop.add_callback(stream.put, "end" if is_done else None)
        self._streams = {}  # which know this: memory they share would wait for the garbage collector
        self._give_turn()
        self.post.exit(self)

    def _is_over(self):
        return self.desk.over >= self.generation

    def _take_turn(self):
        self._has_turn = self.post.turn.take(self._is_over)
        if not self._has_turn:
            raise GroupChanged

    def _give_turn(self):
        if self._has_turn:
            self._has_turn = False
            self.post.turn.give()


class Line:
    """Messages of a parameter server to one worker, in their order: written by a task of the worker's event loop.

    Parameters
    ----------
    worker : distributed.Worker
        From which they go.
    run, address : str

    Attributes
    ----------
    is_broken : bool
        Whether nothing that is put arrives any more.
    """

    def __init__(self, worker, run, address):
        self.worker, self.run, self.address, self.queue, self.task = worker, run, address, asyncio.Queue(), None
        self._waiting, self.is_broken = deque(), False

    def put(self, bundle):
        """Send a list of (to, message) and return its bytes; waits for nobody, and may be called by any thread."""
        described, frames = _describe(Labelled("tables", bundle))
        # One queue for all threads: what the loop put past the callbacks of others would be dropped as out of turn by
        # the next replica, and asked for again a second later.
        self._waiting.append(_message(0, described, frames))
        if threading.get_ident() == self.worker.thread_id:  # the loop itself, which need not be woken
            self._flush()
        else:
            self.worker.loop.add_callback(self._flush)
        return _n_bytes(described, frames)

    def close(self):
        """Send nothing more."""
        self._waiting.append(None)
        self.worker.loop.add_callback(self._flush)

    def _flush(self):
        while self._waiting:
            self.queue.put_nowait(self._waiting.popleft())
        if self.task is None:
            self.task = asyncio.ensure_future(self._write())

    async def _write(self):
        from distributed.comm import connect

        comm = None
        try:
            comm = await connect(self.address, deserialize=False, **self.worker.connection_args)
            await comm.write({"op": TABLES, "reply": False, "run": self.run})
            while (message := await self.queue.get()) is not None:
                await comm.write(message)
        except Exception as error:
            # Whoever is there no more is missed by the control, and what was sent is sent again to another.
            _log.info("messages of tables to %s are lost: %r", self.address, error)
        finally:
            self.is_broken = True
            if comm is not None:
                with suppress(Exception):
                    await comm.close()


def _come_here():
    """Do nothing: Python looks for exceptions from other threads when a function begins."""


class _Stream:
    """The packets that go to one worker, in their order: written by a task of the worker's event loop.

    Attributes
    ----------
    ring : daskdml.runtime.spmd.same_host.Outgoing or None
        What the rank may write to itself, once the other side has it.
    """

    def __init__(self, wire, address):
        self.wire, self.address, self.queue, self.task = wire, address, asyncio.Queue(), None
        self.ring = self._offering = None

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
                if message == "offer":
                    await self._offer(comm)
                    continue
                await comm.write(message)
                if message == "end":
                    await comm.close()
                    return
        except Exception as error:
            if not isinstance(error, OSError):
                _log.warning("Packets to %s could not be sent: %r", self.address, error)
            wire.post.end(wire.run, wire.generation)
        finally:
            if self._offering is not None:
                self._offering.cancel()
            if comm is not None:
                with suppress(Exception):
                    comm.abort()

    async def _offer(self, comm):
        """Offer a ring; without one all goes on as before."""
        try:
            ring = Outgoing()
        except OSError as error:
            _log.debug("No memory is shared with %s: %r", self.address, error)
            return
        await comm.write({"ring": ring.name})
        self._offering = asyncio.ensure_future(self._begin(comm, ring))

    async def _begin(self, comm, ring):
        """Wait for the answer, while packets take the comm."""
        with suppress(OSError):
            if await comm.read() is True:
                ring.begin()
                self.ring = ring


def _describe(labelled):
    """Return what stands in a packet, as JSON and msgpack know it, and its frames."""
    what, packet = labelled
    is_parcel = isinstance(packet, Parcel)
    # Not copied again: `Comm` and the codecs made it for this.
    header, arrays = packet if is_parcel else pack(packet, copies=False)
    described, frames = to_frames(arrays)
    return {"what": what, "is_parcel": is_parcel, "header": header, "arrays": described}, frames


def _n_bytes(described, frames):
    return len(described["header"]) + sum(memoryview(frame).nbytes for frame in frames)


def _message(number, described, frames):
    from distributed.protocol.serialize import Serialized

    return {"number": number, **described, "frames": Serialized({}, frames)}


def _read(described, frames):
    parcel = Parcel(described["header"], from_frames(described["arrays"], frames))
    return Labelled(described["what"], parcel if described["is_parcel"] else unpack(parcel))
