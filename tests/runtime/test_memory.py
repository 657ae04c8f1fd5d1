"""Limits of the process, the choice of a memory mode, and a fit within a hard limit."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from daskdml.runtime.memory import choose_mode, format_bytes, format_count, free_on_disk, process_limit, scratch_folder

from . import blocks

GB = 10**9


@pytest.mark.parametrize(
    "n_bytes, limit, free, mode",
    [
        (1 * GB, 2 * GB, 0, "pinned"),
        (1.01 * GB, 2 * GB, 0, "stream"),
        (1.01 * GB, 2 * GB, 1.32 * GB, "mmap"),
        (1.01 * GB, 2 * GB, 1.31 * GB, "stream"),
        (0, 0, 0, "pinned"),
    ],
)
def test_the_mode_follows_from_bytes_and_limits(n_bytes, limit, free, mode):
    assert choose_mode(n_bytes, limit, free) == mode


@pytest.mark.parametrize(
    "n, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_940_000, "9.9 MB"), (9_960_000, "10 MB"), (3.14e9, "3.1 GB")],
)
def test_bytes_are_written_shortly(n, text):
    assert format_bytes(n) == text


@pytest.mark.parametrize("name", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_limits_of_the_process_count(name):
    limit = f"resource.setrlimit(resource.{name}, ({3 * GB}, {3 * GB}))"
    program = f"import resource; from daskdml.runtime.memory import process_limit; {limit}; print(process_limit())"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1 * GB < int(out.stdout) < 3 * GB
    assert process_limit() <= psutil.virtual_memory().total


def test_limits_of_the_control_group_count(tmp_path, monkeypatch):
    from daskdml.runtime import memory

    stat = f"anon {GB}\ninactive_file {GB // 2}\nactive_file {GB // 2}"
    files = {"memory.max": f"{5 * GB}", "memory.current": f"{3 * GB}", "memory.stat": stat}

    def read(folder, name):
        if folder != "/sys/fs/cgroup":
            raise FileNotFoundError
        return files[name]

    monkeypatch.setattr(memory, "_read", read)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory)
    assert process_limit() == 3 * GB
    files["memory.max"] = "max"
    assert process_limit() == 100 * GB


class _Memory:
    available = 100 * GB


PROGRAM = """
import os, resource, sys

import dask.array as da, dask.dataframe as dd, numpy as np
from daskdml import config_context, runtime
from daskdml.data import Partitioned

kind, source, limit, mode, scratch = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
if kind == "npy":
    X = da.from_npy_stack(source)
    data = Partitioned.from_any(X)
else:
    data = Partitioned.from_any(dd.read_parquet(source))
with config_context(memory=mode, scratch_dir=scratch), runtime.open(data) as run:
    total = run.map_reduce(lambda block: block.X.sum(axis=0, dtype=float))
    again = run.map_reduce(lambda block: block.X.sum(axis=0, dtype=float))
    assert (total == again).all()
    lines = open("/proc/self/status").read().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    anonymous, peak = status["RssAnon"].split()[0], status["VmHWM"].split()[0]
    print(run.where, "|", float(total.sum()), "| RssAnon", anonymous, "VmHWM", peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts anonymous memory on Linux only")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("mode", ["auto", "stream"])
def test_data_beyond_the_limit_of_the_process(kind, mode, tmp_path):
    """1.2 GB under a limit of 1.8 GB, of which 1.2 GB are taken; 8.4 GB under 3 GB with DASKDML_TEST_SCALE=7."""
    scale = float(os.environ.get("DASKDML_TEST_SCALE", 1))
    n_files, limit = int(24 * scale), int(1.8e9 + 0.2e9 * (scale - 1))  # pyarrow alone reserves 1 GB of address space
    total = blocks.write_source(kind, tmp_path / "X", n_files, 250_000, 50)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", PROGRAM, kind, str(tmp_path / "X"), str(limit), mode, str(scratch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert out.returncode == 0, out.stderr[-2000:]
    print(out.stdout)
    where, found, memory = out.stdout.split("|")
    assert float(found) == pytest.approx(total, rel=1e-9)
    words = memory.split()
    assert int(words[1]) * 1024 <= limit
    assert list(scratch.iterdir()) == []
    assert where.strip().endswith("stream" if mode == "stream" else "mmap")


@pytest.mark.parametrize("n, text", [(0, "0 blocks"), (1, "1 block"), (2, "2 blocks")])
def test_counts_are_written_in_the_right_number(n, text):
    assert format_count(n, "block") == text


def test_scratch_folder_that_cannot_be(tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    for folder in (taken, taken / "below"):
        with pytest.raises(ValueError, match=f"scratch_dir names '{folder}', which cannot be made .*give it a folder"):
            scratch_folder(folder)
    assert scratch_folder(tmp_path / "new") == str(tmp_path / "new") and (tmp_path / "new").is_dir()


def test_scratch_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match="scratch_dir names .*, which cannot be written to; give it another folder"):
        scratch_folder(tmp_path)


def test_a_folder_in_memory_has_no_scratch_space(monkeypatch, tmp_path):
    mounts = [SimpleNamespace(mountpoint=str(path), fstype=kind) for path, kind in ((tmp_path, "tmpfs"), ("/", "ext4"))]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    (tmp_path / "scratch").mkdir()
    assert free_on_disk(tmp_path / "scratch") == free_on_disk(tmp_path) == 0
    assert free_on_disk(tmp_path.parent) > 0
    mounts.append(SimpleNamespace(mountpoint=str(tmp_path / "scratch"), fstype="xfs"))
    assert free_on_disk(tmp_path / "scratch") > 0 and free_on_disk(tmp_path) == 0
