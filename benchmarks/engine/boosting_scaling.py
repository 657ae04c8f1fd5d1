"""Boosting on 8, 64 and 256 simulated workers: rounds and bytes a tree, and the seconds that a network adds.

Simulated: ranks, collectives and their choice are those of a real cluster, the network and the clock are made up.
What a tree computes is measured on this machine, at as many rows as one of the workers has of a thousand million.
"""

import contextlib
import time
from collections import Counter
from unittest import mock

import numpy as np

from benchmarks.estimators.boosting import FEATURES, LEAVES, make_rows, ours
from benchmarks.report import Sheet
from benchmarks.timing import threads
from daskdml.comm import choose_topology
from daskdml.runtime.spmd import Comm
from daskdml.testing import SimulatedCluster
from daskdml.trees.growth import Steps

ALL_ROWS = 1_000_000_000
WORKERS = (8, 64, 256)
LATENCY, BANDWIDTH = 1e-4, 1.25e9  # 10 Gb/s
LATENCIES, BANDWIDTHS = (1e-5, 1e-4, 1e-3), (1.25e8, 1.25e9, 1.25e10)
SIMULATED_ROWS = 256 * 256  # that the trees are grown on: they say how many rounds there are, not how long rows take
MOST_MEASURED = 16_000_000  # rows; a worker of eight has more, whose rate is taken to be the same
TREES = 4
_steps_of = Steps.of


def _wide_steps(*args, **kwargs):
    """Sums of a thousand million rows need 64 bits, those of the simulated rows would not."""
    return _steps_of(*args, **kwargs)._replace(most_narrow=0)


def measure(rows=None, full=False):
    """Rounds and bytes a tree, predicted seconds on 1e9 rows; latency and bandwidth swept for 64 workers.

    Parameters
    ----------
    rows : int, optional
        Rows of the largest measured fit instead of 16,000,000.
    full : bool, default False
        All sizes; else the one of 256 workers only.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("boosting_scaling", at_size=rows is None)
    most = rows or MOST_MEASURED
    _assumptions(sheet)
    rates = {}
    for n_workers in WORKERS if full else WORKERS[-1:]:
        n_rows = min(ALL_ROWS // n_workers, most)
        if n_rows not in rates:
            rates[n_rows] = _seconds_per_row(n_rows)
        note = f"for {n_workers} workers of {ALL_ROWS // n_workers:,} rows each"
        sheet.add(f"one tree of {LEAVES} leaves, measured, 1 thread, {n_rows:,} x {FEATURES}", "daskdml",
                  "nanoseconds a row", rates[n_rows] * 1e9, note=note)  # fmt: skip
        _simulated(sheet, n_workers, LATENCY, BANDWIDTH, rates[n_rows], n_rows)
    if full:
        n_rows = min(ALL_ROWS // 64, most)
        for latency in LATENCIES:
            for bandwidth in BANDWIDTHS:
                if (latency, bandwidth) != (LATENCY, BANDWIDTH):
                    _simulated(sheet, 64, latency, bandwidth, rates[n_rows], n_rows)
    return sheet


def _assumptions(sheet):
    """Say by rows what holds for every simulated one."""
    of_each = ", ".join(f"{SIMULATED_ROWS // n:,} of {n}" for n in WORKERS)
    for what, value, note in (
        ("threads a worker", 1, "computing takes what is measured on one thread here"),
        ("rows that the simulated trees are grown on", SIMULATED_ROWS,
         f"each worker has {of_each}; they say how many rounds and bytes there are, not how long rows take"),
        ("bits of a sum that travels", 64, "of small nodes too, whose sums would fit 32"),
        ("trees taken", TREES,
         f"those of a fit of {1 + TREES} beyond a fit of 1: no seconds for bins, reading, start and first tree"),
        # See `daskdml.runtime.spmd.simulate.rank_work`.
        ("times the measured seconds, drawn for each worker and tree", [1.0, 1.2], "the slowest is waited for"),
        ("share of a tree's network time hidden by computing", 0, "a tree's computing comes in one piece"),
        ("seconds of packing sums and of adding up those of others", 0, "only rows and the network take time"),
    ):  # fmt: skip
        sheet.add("every simulated row below", "assumed", what, value, note=note)


@contextlib.contextmanager
def _noting_collectives():
    """Count by which collective and of how many bits histograms are added up, calls of all ranks together."""
    found, reduce, share = Counter(), Comm.allreduce, Comm.reduce_scatter

    def allreduce(comm, x, *args, wait=True, **kwargs):
        if not wait:  # only histograms are sent ahead
            topology = choose_topology(comm.size, x.nbytes, comm.latency, comm.bandwidth)
            found[f"all-reduce ({topology})", 8 * x.itemsize] += 1
        return reduce(comm, x, *args, wait=wait, **kwargs)

    def reduce_scatter(comm, x, *args, **kwargs):
        found["reduce-scatter by features", 8 * x.itemsize] += 1
        return share(comm, x, *args, **kwargs)

    with mock.patch.multiple(Comm, allreduce=allreduce, reduce_scatter=reduce_scatter):
        yield found


def _seconds_per_row(n_rows):
    """Return the seconds of one thread for a row and tree: of fits of few and more trees the difference."""
    X, y, *_ = make_rows(n_rows, FEATURES, n_test=1)
    seconds = []
    with threads(1):
        ours(1, trees=1).fit(X[:10_000], y[:10_000])
        for trees in (1, 1 + TREES):
            model = ours(1, trees=trees).fit(X, y)
            phases = model.fit_report_.phases
            seconds.append(sum(took for phase, took in phases.items() if phase != "bin"))
    return (seconds[1] - seconds[0]) / TREES / n_rows


def _simulated(sheet, n_workers, latency, bandwidth, seconds_per_row, measured_rows):
    X, y, *_ = make_rows(SIMULATED_ROWS, FEATURES, n_test=1)
    scaled = seconds_per_row * ALL_ROWS / SIMULATED_ROWS
    found, started = {}, time.perf_counter()
    with mock.patch.object(Steps, "of", _wide_steps), _noting_collectives() as collectives:
        for trees in (1, 1 + TREES):
            cluster = SimulatedCluster(
                n_workers, latency=latency, bandwidth=bandwidth, rows_per_block=SIMULATED_ROWS // n_workers,
                seconds_per_row=scaled, save_every=1000,
            )  # fmt: skip
            cluster.fit(ours(1, trees=trees), X, y)
            report = cluster.report
            found[trees] = np.array([report.seconds, report.rounds, max(report.bytes_sent.values())])
    seconds, rounds, n_bytes = (found[1 + TREES] - found[1]) / TREES
    compute = seconds_per_row * ALL_ROWS / n_workers
    work = f"1e9 x {FEATURES} on {n_workers} workers, {bandwidth * 8 / 1e9:g} Gb/s, {latency * 1e6:g} us, simulated"
    note = (
        f"computing {compute:.2f} s, by the rate of {measured_rows:,} rows a worker; "
        f"simulated in {time.perf_counter() - started:.0f} s"
    )
    calls = sum(collectives.values())
    chosen = [f"{name} of {bits} bits, {n / calls:.0%}" for (name, bits), n in collectives.most_common()]
    sheet.add(work, "daskdml", "rounds a tree", rounds, note=f"histograms: {'; '.join(chosen)}")
    sheet.add(work, "daskdml", "bytes sent by a worker a tree", n_bytes)
    sheet.add(work, "daskdml", "seconds a tree", seconds, note=note)
    sheet.add(work, "daskdml", "share of the seconds that computes", compute / seconds)
