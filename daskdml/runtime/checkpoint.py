"""How far a fit is, in one file at any URL: structure as JSON, arrays as raw bytes, no pickle."""

import hashlib
import itertools
import json
import os
import struct
import uuid
import warnings
import zlib
from contextlib import suppress

import numpy as np

from daskdml.kernels.device import on_host
from daskdml.utils.portable import Parcel, from_frames, pack, to_frames, unpack

MAGIC = b"daskdml checkpoint 1\n"


class Checkpoint:
    """Reads and writes the checkpoint of one fit.

    Parameters
    ----------
    url : str or path-like
        A file, as a path or any URL that fsspec knows (``"s3://bucket/fit.ckpt"``).
    fingerprint : dict of str to str
        What a checkpoint must agree with to be gone on from: of the data, and of what is computed on them.

    Notes
    -----
    Written whole or not at all: a local one to a file beside it, which then takes its name; elsewhere as the file
    system has it, which for object stores is the same. Closed by a checksum.
    """

    @classmethod
    def of_fit(cls, folder, fingerprint):
        """Return the checkpoint of one fit in a folder, where each fit has its own file: its name tells them apart."""
        name = hashlib.blake2b(json.dumps(sorted(fingerprint.items())).encode(), digest_size=10).hexdigest()
        return cls(f"{str(folder).rstrip('/')}/{name}.checkpoint", fingerprint)

    def __init__(self, url, fingerprint):
        import fsspec

        self.url, self.fingerprint = str(url), fingerprint
        self._fs, self._path = fsspec.core.url_to_fs(self.url)

    @property
    def absolute_url(self):
        """The same for processes with another working folder."""
        return self._fs.unstrip_protocol(self._path)

    def write(self, step, state, outlives=True):
        """Write the state after a step.

        Parameters
        ----------
        step : int
        state : object
        outlives : bool, default True
            Whether the file is to outlive the machine's death, which takes a disk its time.

        Raises
        ------
        TypeError
            If the state holds what no checkpoint can, see `daskdml.utils.portable`.
        """
        parcel = pack(state, copies=False)
        described, frames = to_frames(parcel.arrays)
        facts = {
            "fingerprint": self.fingerprint, "step": step, "state": parcel.header, "arrays": described,
            "frames": [frame.nbytes for frame in frames],
        }  # fmt: skip
        header = json.dumps(facts).encode()
        header = struct.pack("<Q", len(header)) + header
        check = zlib.crc32(header)
        for frame in frames:
            check = zlib.crc32(frame, check)
        content = [MAGIC, header, *frames, struct.pack("<I", check)]
        self._fs.makedirs(self._path.rpartition("/")[0], exist_ok=True)
        if "file" not in self._fs.protocol:
            with self._fs.open(self._path, "wb") as file:
                file.writelines(content)
            return
        # Not fsspec's own transaction, which writes to the temporary folder and copies from there.
        beside = f"{self._path}.{uuid.uuid4().hex}.part"
        try:
            with open(beside, "wb") as file:
                file.writelines(content)
                file.flush()
                if outlives:
                    os.fsync(file.fileno())
            os.replace(beside, self._path)
        except BaseException:  # half a file on a disk that is full
            with suppress(OSError):
                os.remove(beside)
            raise

    def write_or_warn(self, step, state):
        """Write the state after a step; a file system that fails must not end the fit that it is to save.

        Raises
        ------
        TypeError
            If the state holds what no checkpoint can.
        """
        try:
            self.write(step, state)
        except TypeError:
            raise
        except Exception as error:  # those of stores behind URLs are of many kinds
            warnings.warn(f"The checkpoint {self.url} could not be written ({error}); the fit goes on.", stacklevel=2)

    def read(self):
        """Return (step, state) of what was written, None if there is no such file.

        Raises
        ------
        ValueError
            If it belongs to other data or another fit, is damaged, or is no checkpoint.
        """
        try:
            with self._fs.open(self._path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        if not content.startswith(MAGIC):
            raise ValueError(f"{self.url} is no checkpoint of this version of daskdml; name another file.")
        body, check = memoryview(content)[len(MAGIC) : -4], content[-4:]
        if len(body) < 8 or struct.pack("<I", zlib.crc32(body)) != check:
            raise ValueError(f"The checkpoint {self.url} is damaged (its checksum differs); fit with resume=False.")
        (length,), body = struct.unpack("<Q", body[:8]), body[8:]
        facts = json.loads(bytes(body[:length]))
        self._compare(facts["fingerprint"])
        edges = itertools.accumulate(facts["frames"], initial=length)
        frames = [body[a:b] for a, b in itertools.pairwise(edges)]
        arrays = from_frames(facts["arrays"], frames)
        return facts["step"], unpack(Parcel(facts["state"], arrays))

    def remove_or_warn(self):
        """Remove the file: the fit has ended well, and what it found is not lost where the file system fails."""
        try:
            if self._fs.exists(self._path):
                self._fs.rm(self._path)
        except FileNotFoundError:
            pass  # an equal fit has removed it
        except Exception as error:
            warnings.warn(
                f"The fit has ended, but its checkpoint {self.url} could not be removed ({error}).", stacklevel=2
            )

    def _compare(self, found):
        differing = [name for name in {**self.fingerprint, **found} if self.fingerprint.get(name) != found.get(name)]
        if differing:
            one = differing[0]
            raise ValueError(
                f"The checkpoint {self.url} belongs to another fit: its {one} is {found.get(one)}, here it is "
                f"{self.fingerprint.get(one)}. Use resume=False to begin anew, or another file."
            )


def digest_of(value):
    """Return a hash of a value that `daskdml.utils.portable` can pack, as text.

    Raises
    ------
    TypeError
        If it cannot be packed.
    """
    parcel = pack(value)
    digest = hashlib.blake2b(json.dumps(parcel.header).encode(), digest_size=16)
    for array in parcel.arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def rows_digest(block):
    """Return a hash of a block's rows, targets and weights, which `combine_digests` makes one of all blocks'."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (block.X, block.y, block.weight):
        for array in _arrays(part):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(_bytes_of(array))
    return digest.digest()


def combine_digests(left, right):
    """Hash two hashes into one: along the fixed tree over blocks, whoever holds them."""
    return hashlib.blake2b(left + right, digest_size=16).digest()


def _arrays(part):
    if part is None:
        return []
    if isinstance(part, tuple):
        return [array for panel in part for array in _arrays(panel)]
    return [part.indptr, part.indices, part.data] if hasattr(part, "indptr") else [np.asarray(on_host(part))]


def _bytes_of(array):
    if array.dtype.kind == "O":
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
