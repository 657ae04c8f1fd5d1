"""A shorter way for packets between two processes of one machine: a ring of shared memory, and a pipe that tells of it.

A packet over a Dask comm passes four threads, each of which must be woken up and get its interpreter: 0.5 ms and more
beside work on all cores. Here the rank that sends writes it, and the rank that waits is woken up by the kernel.

There is nothing to connect to from elsewhere: one side makes a folder that only its user may open, and says its name
over the Dask comm that the two have; the other opens what is in it, and it is deleted. Whoever cannot open it (another
machine, container or user) says so, and all goes on over the comm.
"""

import json
import mmap
import os
import re
import secrets
import select
import stat
import struct
import tempfile
from contextlib import suppress

import numpy as np

from daskdml.utils.memory import Recycled

RING_BYTES = 4 << 20
LEAST_SHARE = 4  # packets of more than a fourth of the ring take the comm, which has room for them
_HEAD_BYTES = 64  # before the ring: how many of its bytes were taken out
_NOTE = struct.Struct("<4q")  # number of the packet, where it begins, bytes of its header, bytes in all
_TAKEN = struct.Struct("<q")
_NAME = re.compile(r"daskdml-[0-9a-f]{32}\Z")


def may_share(mine, other):
    """Tell whether two workers, by their addresses, may be processes of one machine.

    Examples
    --------
    >>> may_share("tcp://10.0.0.1:4000", "tcp://10.0.0.1:4001"), may_share("tcp://10.0.0.1:4000", "tcp://10.0.0.2:4000")
    (True, False)
    """
    if not hasattr(os, "mkfifo") or not hasattr(os, "posix_fallocate") or mine.startswith("inproc"):
        return False
    return mine != other and machine_of(mine) == machine_of(other)


def machine_of(address):
    """Return the machine in the address of a worker.

    Examples
    --------
    >>> machine_of("tcp://10.0.0.1:4000")
    'tcp://10.0.0.1'
    """
    return address.rpartition(":")[0]


def _folder():
    """Return where rings are made: in memory, where the system has such a place."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()


class Outgoing:
    """The end of a ring that is written to.

    Attributes
    ----------
    name : str
        What the other side needs to know to open the ring.

    Raises
    ------
    OSError
        If there is no room for it.
    """

    def __init__(self):
        self.name = f"daskdml-{secrets.token_hex(16)}"
        self._path, self._pipe, self._written = os.path.join(_folder(), self.name), None, 0
        os.mkdir(self._path, 0o700)
        os.mkfifo(os.path.join(self._path, "pipe"), 0o600)
        file = os.open(os.path.join(self._path, "ring"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Now: memory that is missing later would end the process.
            os.posix_fallocate(file, 0, _HEAD_BYTES + RING_BYTES)
            self._ring = mmap.mmap(file, _HEAD_BYTES + RING_BYTES)
        finally:
            os.close(file)

    def begin(self):
        """Go on once the other side has opened the ring: nobody else can, from now on."""
        try:
            self._pipe = os.open(os.path.join(self._path, "pipe"), os.O_WRONLY | os.O_NONBLOCK)
        finally:
            _delete(self._path)

    def put(self, number, what, frames):
        """Write a packet; return whether there was room for it.

        Parameters
        ----------
        number : int
        what : object
            That JSON knows.
        frames : list of memoryviews of bytes
        """
        sizes = [frame.nbytes for frame in frames]
        header = json.dumps([what, sizes]).encode()
        header += b" " * (-len(header) % 64)
        n = len(header) + sum(size + -size % 64 for size in sizes)
        start = self._written % RING_BYTES
        # A packet is one piece: what is left at the end of the ring is passed over.
        passed = RING_BYTES - start if start + n > RING_BYTES else 0
        taken = _TAKEN.unpack_from(self._ring, 0)[0]
        if n > RING_BYTES // LEAST_SHARE or self._written + passed + n - taken > RING_BYTES:
            return False
        start = (start + passed) % RING_BYTES
        at = _HEAD_BYTES + start
        for part in (header, *frames):
            self._ring[at : at + len(part)] = part
            at += len(part) + -len(part) % 64
        try:
            # The system calls that write and read the note order what the two processes see of the ring.
            os.write(self._pipe, _NOTE.pack(number, self._written + passed, len(header), n))
        except OSError:  # full, or nobody reads any more: which the comm will say
            return False
        self._written += passed + n
        return True

    # Not by whoever ends a fit: another thread may be about to use the pipe, whose number is somebody else's then.
    def __del__(self):
        _delete(self._path)
        if self._pipe is not None:
            os.close(self._pipe)


class Incoming:
    """The end of a ring that is read.

    Parameters
    ----------
    name : str
        See `Outgoing`.

    Raises
    ------
    OSError, ValueError
        If it cannot be opened, or is no ring.
    """

    def __init__(self, name):
        self._note, self._pipe, self._wakes = None, None, ()
        if not _NAME.match(name):
            raise ValueError(f"This is no name of a ring: {name!r}.")
        path = os.path.join(_folder(), name)
        file = os.open(os.path.join(path, "ring"), os.O_RDWR | os.O_NOFOLLOW)
        try:
            found = os.fstat(file)
            if found.st_uid != os.geteuid() or found.st_size != _HEAD_BYTES + RING_BYTES:
                raise ValueError("This is no ring of this user.")
            self._ring = mmap.mmap(file, found.st_size)
        finally:
            os.close(file)
        self._bytes, self._recycled = np.frombuffer(self._ring, np.uint8), Recycled()
        self._pipe = os.open(os.path.join(path, "pipe"), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            raise ValueError("This is no pipe.")
        self._wakes = os.pipe()
        # Not select, which takes no descriptor beyond 1,023.
        self._poll, self._poll_wakes = select.poll(), select.poll()
        self._poll_wakes.register(self._wakes[0], select.POLLIN)
        for end in self._wakes:
            os.set_blocking(end, False)
        for end in (self._pipe, self._wakes[0]):
            self._poll.register(end, select.POLLIN)

    def next_number(self):
        """Return the number of the packet that waits longest, None if none waits."""
        if self._note is None:
            with suppress(BlockingIOError):
                note = os.read(self._pipe, _NOTE.size)
                self._note = _NOTE.unpack(note) if len(note) == _NOTE.size else None
        return None if self._note is None else self._note[0]

    def take(self):
        """Return the packet that waits longest, as (what, frames)."""
        (_, position, n_header, n), self._note = self._note, None
        start = position % RING_BYTES
        if not 0 < n_header <= n <= RING_BYTES - start:
            raise ValueError("A note of a ring is about more than the ring has.")
        start += _HEAD_BYTES
        # A copy, whose place in the ring is free then.
        held = self._recycled.empty(n, np.uint8)
        held[:] = self._bytes[start : start + n]
        held = held.data
        _TAKEN.pack_into(self._ring, 0, position + n)
        what, sizes = json.loads(bytes(held[:n_header]))
        frames, at = [], n_header
        for size in sizes:
            if at + size > n:
                raise ValueError("A packet of a ring is longer than its note says.")
            frames.append(held[at : at + size])
            at += size + -size % 64
        return what, frames

    def wait(self):
        """Wait for a packet, or for `wake`."""
        if self._note is not None:
            # It is not its turn: an earlier packet has to come over the comm, which calls `wake`.
            self._wait_for_wake()
            return
        for end, event in self._poll.poll():
            if end == self._pipe and not event & select.POLLIN:
                # The other side is gone. What that means its comm will say, not this.
                self._poll.unregister(end)
        self._drain_wakes()

    def wake(self):
        """Let `wait` return, once."""
        with suppress(BlockingIOError):
            os.write(self._wakes[1], b"w")

    def _wait_for_wake(self):
        self._poll_wakes.poll()
        self._drain_wakes()

    def _drain_wakes(self):
        with suppress(BlockingIOError):
            os.read(self._wakes[0], 1 << 12)

    def __del__(self):
        for end in (self._pipe, *self._wakes):
            if end is not None:
                os.close(end)


def _delete(path):
    for part in ("pipe", "ring"):
        with suppress(OSError):
            os.unlink(os.path.join(path, part))
    with suppress(OSError):
        os.rmdir(path)
