"""What ranks of one run keep on their worker from group to group: parts of a state that is too large for every rank.

Conventions. A part has a name and a version, a number that grows. Versions of one number belong together, whichever
workers keep them.
"""

import os
import shutil
import tempfile
import warnings
import weakref
from contextlib import suppress

from daskdml.runtime.checkpoint import Checkpoint
from daskdml.utils.portable import pack, unpack


class Keeping:
    """Mixin: what both kinds of shelves do alike."""

    def lend(self, name, value):
        """Let the caller have a part at the end, which must not be changed any more: it is not kept, but lies here."""
        self.__dict__.setdefault("lent", {})[name] = value

    @staticmethod
    def faults_of(act, *args):
        """Do something; return what a file system said against it, in a list."""
        try:
            act(*args)
        except TypeError:  # what is to be written cannot be
            raise
        except Exception as error:  # those of stores behind URLs are of many kinds
            return [str(error)]
        return []

    def refuse_unseen(self, comm):
        """Refuse to be shared unless all ranks see what the caller has put here.

        Raises
        ------
        ValueError
        """
        if self.is_shared and comm.vote(self.SEEN not in self.versions()):
            raise ValueError(
                f"The checkpoint folder {self.folder} is not seen by all workers, which write their shards there: name "
                "a folder or URL that all of them and this process share, or leave checkpoint out."
            )


class Shelf(Keeping):
    """Parts in files, written as checkpoints are: whole or not at all.

    Parameters
    ----------
    folder : str
        A path, or any URL that fsspec knows.
    is_shared : bool, default False
        Whether all workers and the client see the folder, and it outlives them.

    Attributes
    ----------
    is_kept : bool
        Whether another rank may come here after this one.
    """

    is_kept = True
    SEEN = "seen-by-all"  # a part that the caller keeps on a shelf which all workers are to see

    _END = ".whole"

    def __init__(self, folder, is_shared=False):
        import fsspec

        self.folder, self.is_shared = str(folder).rstrip("/"), is_shared
        self._fs, self._path = fsspec.core.url_to_fs(self.folder)

    @classmethod
    def of_process(cls, folder):
        """Return a shelf in a new folder of its own, which is removed when nothing refers to the shelf any more."""
        path = tempfile.mkdtemp(prefix="daskdml-parts-", dir=folder)
        shelf = cls(path)
        shelf._remover = weakref.finalize(shelf, shutil.rmtree, path, ignore_errors=True)
        return shelf

    def put(self, name, version, value, copies=True):
        """Keep a part: a value that `daskdml.utils.portable` can pack."""
        self._file(name, version).write(version, value, outlives=self.is_shared)

    def get(self, name, version):
        """Return a part, None if it is not here."""
        found = self._file(name, version).read()
        return None if found is None else found[1]

    def versions(self):
        """Return the ascending versions of each name."""
        found = {}
        self._fs.invalidate_cache()
        for path in self._fs.ls(self._path, detail=False) if self._fs.exists(self._path) else ():
            name, _, version = os.path.basename(path).removesuffix(self._END).rpartition("@")
            if version.isdigit():  # others are what a rank was writing when it died
                found.setdefault(name, []).append(int(version))
        return {name: sorted(versions) for name, versions in sorted(found.items())}

    def drop_below(self, version):
        """Let go of all older versions."""
        for name, versions in self.versions().items():
            for old in versions:
                if old < version:
                    self._remove(name, old)

    def drop(self, name, above=-1):
        """Let go of the versions of a part above one, or of all."""
        for version in self.versions().get(name, ()):
            if version > above:
                self._remove(name, version)

    def _remove(self, name, version):
        with suppress(FileNotFoundError):  # another rank has done so, or another run in this folder
            self._fs.rm(f"{self._path}/{name}@{version}{self._END}")

    def clear(self):
        """Let go of everything."""
        if self._fs.exists(self._path):
            self._fs.rm(self._path, recursive=True)

    def clear_or_warn(self):
        """Let go of everything; what a fit has found is not lost where the file system fails."""
        try:
            self.clear()
        except Exception as error:  # those of stores behind URLs are of many kinds
            warnings.warn(f"The fit has ended, but {self.folder} could not be removed ({error}).", stacklevel=2)

    def _file(self, name, version):
        return Checkpoint(f"{self.folder}/{name}@{version}{self._END}", {"part": name})


class MemoryShelf(Keeping):
    """Parts in memory, of ranks that are threads of one process.

    Parameters
    ----------
    is_kept : bool, default True
        Whether another rank may come here after this one.
    """

    is_shared = False

    def __init__(self, is_kept=True):
        self.is_kept, self._parts = is_kept, {}

    def put(self, name, version, value, copies=True):
        """Keep a part; without copies its arrays must not be written to any more."""
        self._parts[name, version] = pack(value, copies=copies)

    def get(self, name, version):
        """Return a part, None if it is not here."""
        parcel = self._parts.get((name, version))
        return None if parcel is None else unpack(parcel)

    def versions(self):
        """Return the ascending versions of each name."""
        found = {}
        for name, version in sorted(self._parts):
            found.setdefault(name, []).append(version)
        return found

    def drop_below(self, version):
        """Let go of all older versions."""
        self._parts = {key: parcel for key, parcel in self._parts.items() if key[1] >= version}

    def clear(self):
        """Let go of everything."""
        self._parts = {}


def hand_over(program, state, shelves):
    """Give the caller's program the parts that it asks for beside the last state.

    Parameters
    ----------
    program : Program
    state : object
        The last one.
    shelves : list of callable of a name
        Each returns the newest version of a part on one worker, or None.

    Raises
    ------
    RuntimeError
        If a part is nowhere.
    """
    for name in program.parts(state):
        found = None
        for i, read in enumerate(shelves):
            found = read(name)
            if found is not None:
                shelves = [*shelves[i:], *shelves[:i]]  # the next part is most likely on the same worker
                break
        if found is None:
            raise RuntimeError(
                f"The workers that kept {name!r} of the result died after the last step; fit again, with "
                "config_context(checkpoint=...) to go on from where this fit was."
            )
        program.take(name, found)


def newest(shelf, name):
    """Return a part that was lent, or the newest version of one on a shelf, or None."""
    if name in getattr(shelf, "lent", ()):
        return shelf.lent[name]
    versions = shelf.versions().get(name, ())
    return shelf.get(name, versions[-1]) if versions else None
