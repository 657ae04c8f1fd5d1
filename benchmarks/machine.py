"""The machine line that stands at the head of each CSV, and what Linux says about a process's memory."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from pathlib import Path

LIBRARIES = (
    "numpy", "scipy", "scikit-learn", "numba", "dask", "distributed", "dask-ml", "torch", "cupy-cuda12x", "daskdml",
)  # fmt: skip


def machine_line():
    """Return processor, cores, memory, versions and date as one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = [f"{name} {version}" for name in LIBRARIES if (version := _version(name))]
    return "; ".join(
        [
            f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory / 2**30:.0f} GiB",
            f"python {platform.python_version()}",
            *versions,
            *_commit(),
            datetime.date.today().isoformat(),
        ]
    )


def _commit():
    """Return the commit that is measured, as a list of one; of none outside a clone."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return [f"commit {found}"]
    return []


def _processor():
    names = {"model name": "", "cpu family": "", "model": ""}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in names:
            names[key.strip()] = value.strip()
    return f"{names['model name']} (family {names['cpu family']}, model {names['model']})"


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_of(pid="self"):
    """Return {"RssAnon": bytes, "VmHWM": bytes} of a process: its own pages now, and its largest resident set so far.

    Parameters
    ----------
    pid : int or "self"
    """
    text = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmHWM")}


class MemoryWatch:
    """Follow the memory of processes from a thread, inside a ``with`` block.

    Parameters
    ----------
    pids : list of int
    every : float, default 0.002
        Seconds between two looks.

    Attributes
    ----------
    peak : dict {pid: {"RssAnon": bytes, "VmHWM": bytes}}
        The largest values seen. Kernels do not hold the interpreter's lock, so looks go on while they run.
    """

    def __init__(self, pids=None, every=0.002):
        self.pids, self.every = [os.getpid()] if pids is None else list(pids), every
        self.peak = {pid: {"RssAnon": 0, "VmHWM": 0} for pid in self.pids}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self.look()

    def _follow(self):
        while not self._stop.is_set():
            self.look()
            time.sleep(self.every)

    def look(self):
        """Take one look at each process that is alive."""
        for pid in self.pids:
            try:
                seen = memory_of(pid)
            except (FileNotFoundError, ProcessLookupError, KeyError):
                continue
            self.peak[pid] = {name: max(self.peak[pid][name], seen[name]) for name in seen}
