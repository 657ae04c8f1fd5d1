"""What a fit costs: one model of the seconds, the bytes sent and the memory of every runtime, from plain numbers.

    seconds = launch + placing + solve + rounds * (overhead + reduction) + passes * seconds of a pass / slots

*Rounds* are the times the driver waits for an answer about all rows, *passes* are rows of X read / number of rows,
*slots* are the blocks computed at once. A reduction on spmd costs what `daskdml.comm.blocks` says
(messages * latency + bytes / bandwidth). Building kernels is left out: that is paid once per machine.
"""

import math
from typing import NamedTuple

from daskdml.comm import TOPOLOGIES, blocks, choose_topology

from .memory import SHARE
from .room import MOST_HERE, MOST_THERE

RUNTIMES = ("threads", "tasks", "spmd")
# Measured on two cores (AMD EPYC, family 25, model 17), tasks with a LocalCluster of two workers.
FIT_SECONDS = 1e-3  # of a fit that computes nothing: checks, report
ROUND_SECONDS = {"threads": 1e-4, "tasks": 0.03, "spmd": 2e-3}
LAUNCH_SECONDS = {"threads": 0.0, "tasks": 0.04, "spmd": 0.1}  # placing no bytes takes 0.03, starting ranks 0.03 to 0.1
LATENCY = 1e-3  # seconds of an empty message between workers
BANDWIDTH = 3e8  # bytes a second of a long one
FILES = 0.5  # of the seconds that passes over rows in files take more, while the system's cache has room for them
SENDING = 4e8  # bytes a second at which rows of this process go to workers
THREAD_SHARE = 0.5  # of one thread that each further one adds: two took 1.2 to 2.1 times less (benchmarks one_pass)
PASS_BYTES = 1e10  # bytes of X a second that one thread walks, where no kernel was timed (benchmarks one_pass)


class Load(NamedTuple):
    """What a fit will ask for, wherever it runs.

    Attributes
    ----------
    n_rounds : float
        Times the driver waits for an answer about all rows, those about y alone included.
    n_passes : float
        Passes over all rows of X.
    data_bytes : int
        Of X, y and weights.
    partial_bytes : int
        Of what a pass sums up: 8 bytes a parameter, or a pair of them.
    pass_seconds : float
        Of one pass on one thread; NaN where no kernel was timed.
    n_blocks : int
        Row blocks: no more of them are computed at once.
    solve_seconds : float
        Of what this process does alone: the pilot, factorisations.
    pilot_passes : float
        Rows read in them / number of rows.
    pilot_bytes : int
        Of rows that come to this process.
    read_seconds : float
        Of making all rows from their source, on one thread.
    held_by : {"process", "source", "workers"}
        Who has the rows now: this process, nobody (lazy), the workers of a cluster.
    kept_bytes : int or None
        Of what is made of all rows and kept instead of them, without which there is no fit; None where rows are kept
        themselves, or read again.
    least_bytes : int or None
        Of what stays in memory where the rest of ``kept_bytes`` is files; None where it cannot be.
    n_reductions : float
        All-reduces of ``partial_bytes`` each in a pass; 0 for one along the tree of blocks.
    each_bytes : int
        Of what every worker keeps whole, beside its share of ``kept_bytes``.
    thread_bytes : int
        Of what each of its threads needs beside that.
    met_bytes : int
        That workers send round, so that every one has what each had of them.
    """

    n_rounds: float
    n_passes: float
    data_bytes: int
    partial_bytes: int
    pass_seconds: float = math.nan
    n_blocks: int = 1 << 30
    solve_seconds: float = 0.0
    pilot_passes: float = 0.0
    pilot_bytes: int = 0
    read_seconds: float = 0.0
    held_by: str = "source"
    kept_bytes: int | None = None
    least_bytes: int | None = None
    n_reductions: float = 0.0
    each_bytes: int = 0
    thread_bytes: int = 0
    met_bytes: int = 0


class Prediction(NamedTuple):
    """What a fit costs at one place.

    Attributes
    ----------
    runtime : {"threads", "tasks", "spmd"}
    n_workers, n_threads : int
        Processes, and threads of each.
    rounds, passes : float
    bytes_sent : int
        By one worker in the whole fit, its share of the pilot included.
    memory : int
        Bytes that one process holds: rows, partial results of each thread, the pilot where it is.
    seconds : float
    fits : bool
        Whether the rows stay in memory; if not they are read again in every pass.
    in_files : bool
        Whether they are read again from files of what is made of them.
    """

    runtime: str
    n_workers: int
    n_threads: int
    rounds: float
    passes: float
    bytes_sent: int
    memory: int
    seconds: float
    fits: bool
    in_files: bool = False


def predict(
    load, runtime, n_workers=1, n_threads=1, *, memory_limit=math.inf, thread_share=THREAD_SHARE, latency=LATENCY,
    bandwidth=BANDWIDTH,
):  # fmt: skip
    """Predict what a fit costs at one place.

    Parameters
    ----------
    load : Load
    runtime : {"threads", "tasks", "spmd"}
    n_workers : int, default 1
        Worker processes; "threads" has one.
    n_threads : int, default 1
        Of each of them.
    memory_limit : float, default inf
        Bytes that one process may hold.
    thread_share : float, default THREAD_SHARE
        Share of one thread that each further thread of a process adds.
    latency, bandwidth : float
        Seconds of an empty message between workers, and bytes a second of a long one.

    Returns
    -------
    Prediction

    Examples
    --------
    >>> load = Load(n_rounds=6, n_passes=4.0, data_bytes=400_000_000, partial_bytes=400)
    >>> here, there = predict(load, "threads"), predict(load, "tasks", 8)
    >>> here.seconds < there.seconds, here.memory > there.memory
    (True, True)
    """
    here = runtime == "threads"
    n_workers = 1 if here else n_workers
    is_here_already = here and load.held_by == "process"
    if load.kept_bytes is None:
        rows, in_files = math.ceil(load.data_bytes / n_workers), False
        fits = is_here_already or rows <= SHARE * memory_limit
    else:
        rows, fits, in_files = _kept(load, n_workers, n_threads, memory_limit, MOST_HERE if here else MOST_THERE)
        rows += load.data_bytes * is_here_already
    slots, reads_once = slots_of(n_workers, n_threads, load.n_blocks, thread_share), fits or load.kept_bytes is not None
    placing = _placing_seconds(load, here, slots, bandwidth) * (1 if reads_once else load.n_passes)
    met = load.met_bytes * (n_workers - 1) / n_workers
    arriving = 0.0 if here else (load.pilot_bytes + met) / bandwidth
    seconds = (
        FIT_SECONDS
        + LAUNCH_SECONDS[runtime]
        + placing
        + arriving
        + load.solve_seconds
        + passes_seconds(load, runtime, n_workers, slots, latency=latency, bandwidth=bandwidth) * (1 + FILES * in_files)
    )
    if not fits and not in_files and load.kept_bytes is not None:
        seconds = math.inf  # such a fit is refused
    sent = 0.0
    if not here:
        _, sent = _reduction(load, runtime, n_workers, latency, bandwidth)
        sent = load.n_passes * sent + load.pilot_bytes / n_workers + met
    memory = (rows if fits or in_files else 0) + n_threads * load.partial_bytes + (load.pilot_bytes if here else 0)
    passes = load.n_passes + load.pilot_passes
    memory, sent = round(memory), round(sent)
    return Prediction(runtime, n_workers, n_threads, load.n_rounds, passes, sent, memory, seconds, fits, in_files)


def _kept(load, n_workers, n_threads, memory_limit, most):
    """Return the bytes that a process keeps of what is made of its rows, and whether all is in memory, or is files."""
    beside = load.each_bytes + n_threads * load.thread_bytes
    kept = math.ceil(load.kept_bytes / n_workers) + beside
    if load.least_bytes is None or kept <= most * memory_limit:
        return kept, kept <= memory_limit, False
    least = math.ceil(load.least_bytes / n_workers) + beside
    return least, False, least <= most * memory_limit


def passes_seconds(load, runtime, n_workers, slots, *, latency=LATENCY, bandwidth=BANDWIDTH):
    """Return the seconds of all rounds and passes, once the rows are placed.

    Parameters
    ----------
    load : Load
    runtime : {"threads", "tasks", "spmd"}
    n_workers : int
    slots : float
        Blocks computed at once.
    latency, bandwidth : float
        See `predict`.

    Returns
    -------
    float
    """
    walk = load.data_bytes / PASS_BYTES if math.isnan(load.pass_seconds) else load.pass_seconds
    reduction, _ = _reduction(load, runtime, n_workers, latency, bandwidth)
    return load.n_rounds * ROUND_SECONDS[runtime] + load.n_passes * (reduction + walk / slots)


def slots_of(n_workers, n_threads, n_blocks, thread_share=THREAD_SHARE):
    """Return how many blocks are computed at once, in threads that each do as much as one alone.

    Examples
    --------
    >>> slots_of(4, 1, n_blocks=100), slots_of(4, 1, n_blocks=2), slots_of(1, 2, n_blocks=100)
    (4.0, 2, 1.5)
    """
    return min(n_workers * (1 + thread_share * (n_threads - 1)), n_blocks)


def choose(
    *, n_rounds, n_passes, data_bytes, n_params, n_workers, threads_per_worker=1, n_threads=1, memory=math.inf,
    worker_memory=math.inf, held_by="source", pass_seconds=math.nan, read_seconds=0.0, solve_seconds=0.0,
    possible=RUNTIMES, latency=LATENCY, bandwidth=BANDWIDTH,
):  # fmt: skip
    """Return the name of the runtime whose predicted seconds are the least.

    Those that keep the rows in memory go before those that must read them again in every pass.

    Parameters
    ----------
    n_rounds, n_passes : float
        See `Load`.
    data_bytes : int
    n_params : int
        Numbers that a pass sums up.
    n_workers, threads_per_worker : int
        The cluster; without workers it is "threads".
    n_threads : int, default 1
        Of this process.
    memory, worker_memory : float, default inf
        Bytes that this process, and one worker, may hold.
    held_by : {"process", "source", "workers"}, default "source"
    pass_seconds, read_seconds, solve_seconds : float
        See `Load`.
    possible : sequence of {"threads", "tasks", "spmd"}
    latency, bandwidth : float

    Returns
    -------
    {"threads", "tasks", "spmd"}

    Examples
    --------
    >>> fit = {"n_rounds": 6, "n_passes": 4, "n_params": 51, "n_workers": 8, "n_threads": 2}
    >>> choose(data_bytes=40_000_000, **fit), choose(data_bytes=400_000_000_000, **fit)
    ('threads', 'spmd')
    """
    load = Load(
        n_rounds, n_passes, data_bytes, 8 * n_params, pass_seconds, read_seconds=read_seconds,
        solve_seconds=solve_seconds, held_by=held_by,
    )  # fmt: skip
    found = []
    for runtime in possible if n_workers else ("threads",):
        here = runtime == "threads"
        found.append(
            predict(
                load, runtime, n_workers, n_threads if here else threads_per_worker, latency=latency,
                memory_limit=memory if here else worker_memory, bandwidth=bandwidth,
            )
        )  # fmt: skip
    return min(found, key=lambda prediction: (not prediction.fits, prediction.seconds)).runtime


def _placing_seconds(load, here, slots, bandwidth):
    """Return the seconds until the rows are where they are computed."""
    if load.held_by == "source":
        return load.read_seconds / slots
    if load.held_by == "process":
        return 0.0 if here else load.data_bytes / SENDING
    return load.data_bytes / bandwidth if here else 0.0


def _reduction(load, runtime, n_workers, latency, bandwidth):
    """Return the seconds of adding up one pass's partials between processes, and the bytes that one of them sends."""
    if runtime == "threads":
        return 0.0, 0.0
    if load.n_reductions:
        n_bytes = load.partial_bytes
        kind = TOPOLOGIES[choose_topology(n_workers, n_bytes, latency, bandwidth)]
        taken, sent = kind.seconds(n_workers, n_bytes, latency, bandwidth), kind.bytes_sent(0, n_workers, n_bytes)
        return load.n_reductions * taken, load.n_reductions * sent
    # A contiguous range of blocks is about half as many whole branches of the tree over blocks as the tree is high.
    branches = max(1.0, math.log2(max(1, min(load.n_blocks, 1 << 20))) / 2)
    if runtime == "spmd":
        taken = blocks.seconds(n_workers, load.partial_bytes, branches, latency, bandwidth)
        return taken, blocks.bytes_sent(n_workers, load.partial_bytes, branches)
    # Each goes to the task that adds them up, and on to this process. Time of messages is part of a round's.
    sent = branches * load.partial_bytes
    return 2 * n_workers * sent / bandwidth, sent
