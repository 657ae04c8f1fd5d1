"""Fixtures shared by all rooms' tests."""

import hashlib
import math
import os
import pathlib
import sys
import tempfile

# Before NumPy is imported: kernels are single-threaded and threads take blocks, so BLAS pools would only fight over
# cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Worker processes take over this path: functions defined in tests reach them by name, and it must lead to the tests
# alone, since the package under test may be a wheel installed elsewhere.
_link = tempfile.TemporaryDirectory(prefix="daskdml-tests-")
os.symlink(pathlib.Path(__file__).parent, os.path.join(_link.name, "tests"), target_is_directory=True)
sys.path.append(_link.name)

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    """One LocalCluster of two single-threaded worker processes for the whole session."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def rows_enough_for_a_cluster(monkeypatch):
    """Let small test data run on workers, as large data do; `tests/runtime/test_opening.py` tests the small."""
    monkeypatch.setattr("daskdml.runtime.memory.SMALL_BYTES", 0)


@pytest.fixture
def cluster_client(cluster):
    """A client of the session's cluster, current while the test runs."""
    from distributed import Client

    with Client(cluster) as client:
        yield client


@pytest.fixture
def cupy(monkeypatch):
    """A stand-in for cupy, see `tests/gpu/stand_in.py`: what ``import cupy`` imports while the test runs."""
    from .gpu import stand_in

    monkeypatch.setitem(sys.modules, "cupy", stand_in.module)
    stand_in.fetched.clear()
    return stand_in.module


@pytest.fixture
def spread_sums():
    """`AllReduce` whose batches are cut for the ranks, as those of `LocalSGD` are, though it sums exactly."""
    from daskdml.strategies import AllReduce

    class SpreadSums(AllReduce):
        spreads = True

    return SpreadSums


@pytest.fixture
def server_sums(spread_sums):
    """The same, of batches that are cut as those of `ParameterServer` are."""
    from daskdml.strategies import ParameterServer

    class ServerSums(spread_sums):
        parts_per_rank = ParameterServer().parts_per_rank

    return ServerSums


def pytest_addoption(parser):
    parser.addoption(
        "--slow-share", type=float, default=1.0, help="fraction of the tests marked slow to run, in [0, 1]; default all"
    )
    parser.addoption("--share", type=float, default=1.0, help="fraction of the others to run, in [0, 1]; default all")
    parser.addoption(
        "--slow-seed", default="", help="text that chooses which tests of a share run: the same text, the same tests"
    )


def pytest_collection_modifyitems(config, items):
    """Keep a seeded share of the tests, so that a week of commits runs them all and one commit runs a few."""
    seed, dropped = config.getoption("--slow-seed"), set()
    for share, is_slow in (("--slow-share", True), ("--share", False)):
        own = [item for item in items if bool(item.get_closest_marker("slow")) == is_slow]
        own.sort(key=lambda item: hashlib.sha256(f"{seed}:{item.nodeid}".encode()).digest())
        dropped.update(own[math.ceil(len(own) * config.getoption(share)) :])
    if dropped:
        config.hook.pytest_deselected(items=sorted(dropped, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in dropped]


def pytest_report_header(config):
    slow, others = config.getoption("--slow-share"), config.getoption("--share")
    seed = config.getoption("--slow-seed") or "none"
    return f"slow tests: share {slow:g}, others {others:g}, seed {seed!r}" if min(slow, others) < 1 else None
