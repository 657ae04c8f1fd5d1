"""What runs on a worker: one rank as one long task, and the plugin that tells it when nobody wants it any more."""

import functools
import pickle
import time
import traceback
from typing import Any, NamedTuple

from distributed import WorkerPlugin, get_worker, secede

from daskdml.runtime.blas import one_blas_thread
from daskdml.runtime.mapped import MappedChunk
from daskdml.runtime.shelf import newest
from daskdml.runtime.spmd.dask_comm import (
    GONE,
    RANK_PREFIX,
    Wire,
    close_post,
    missing_names,
    open_post,
    post_of,
)
from daskdml.runtime.spmd.hosting import host_of
from daskdml.runtime.spmd.program import Comm, GroupChanged, Outcome, run_rank

GRACE_SECONDS = 0.3  # for a rank that nobody wants any more to notice it, before it is interrupted
PROBE_BYTES = 1 << 20
PROBES = 5


class Ranks(WorkerPlugin):
    """Lets a worker have ranks."""

    name = "daskdml-ranks-1"
    idempotent = True

    def setup(self, worker):
        if not missing_names(worker):
            open_post(worker)
        self.worker = worker

    def teardown(self, worker):
        close_post(worker)

    def transition(self, key, start, finish, **kwargs):
        """End a rank whose task was cancelled: its client has gone, or got a Ctrl-C."""
        key = str(key)
        if not key.startswith(RANK_PREFIX) or finish not in GONE or start not in ("executing", "long-running"):
            return
        _, run, generation, _ = key.rsplit("-", 3)
        post = post_of(self.worker)
        post.end(run, int(generation))
        self.worker.loop.call_later(GRACE_SECONDS, post.interrupt, run, int(generation))


class Group(NamedTuple):
    """What a rank is told of its group.

    Attributes
    ----------
    run : str
    generation : int
    addresses : list of str
        The worker of each rank.
    meta : Meta
    topology : str
    latency, bandwidth : float or None
        None are measured first, by ranks 0 and 1.
    shelf : str or None
        The URL of a folder that all workers see, for parts of the state; None has each use one of its own.
    """

    run: str
    generation: int
    addresses: list
    meta: Any
    topology: str
    latency: float | None
    bandwidth: float | None
    shelf: str | None = None


class Report(NamedTuple):
    """What a rank hands back: how it ended, and what was measured of the links."""

    outcome: Outcome
    latency: float | None
    bandwidth: float | None


def run_task(program, group, start, chunks, positions, rank):
    """Run one rank of a group to its end.

    Parameters
    ----------
    program, group, start : bytes
        Pickled by the client: a `Program`, a `Group`, a tuple (step, state).
    chunks : list of Chunk or MappedChunk
    positions : list of tuple
        What ``Chunk.blocks`` needs to number the blocks of each.
    rank : int

    Returns
    -------
    Report
    """
    # At once, or groups that wait for each other's members would fill one-thread workers for ever.
    secede()
    try:
        program, group, (step, state) = pickle.loads(program), pickle.loads(group), pickle.loads(start)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"The worker {get_worker().address} cannot import {error.name}, where the program stands: install it "
            f'there, or send it with client.upload_file("{error.name}.py").'
        ) from error
    post = post_of(get_worker())
    wire = Wire(post, group.run, group.generation, rank, group.addresses, group.shelf)
    outcome = None
    try:
        with one_blas_thread():
            comm = Comm(rank, len(group.addresses), group.generation, group.meta, wire, topology=group.topology)
            outcome, link = _carry_out(program, group, comm, wire, chunks, positions, step, state)
    finally:
        wire.close(is_done=outcome is not None and outcome.kind == "done")
    return Report(outcome, *link)


def _carry_out(program, group, comm, wire, chunks, positions, step, state):
    program.n_threads = get_worker().state.nthreads
    blocks = []
    for chunk, position in zip(chunks, positions):
        blocks += (chunk.open() if isinstance(chunk, MappedChunk) else chunk).blocks(*position)

    def on_step(step, state):
        wire.desk.latest = group.generation, step, state

    link = group.latency, group.bandwidth
    try:
        wire.begin()
        if link[0] is None and comm.size > 1:
            link = measure_link(comm)
        if link[0] is not None:
            comm.latency, comm.bandwidth = link
        comm.bytes_sent = comm.rounds = 0  # those of the program
        share = None
        if program.tables(group.meta):
            share = functools.partial(host_of(wire).tables, wire, f"rank {comm.rank} of group {group.generation}")
        outcome = run_rank(program, blocks, comm, step, state, on_step, share)
        wire.step_out()
    except GroupChanged:  # before the first step, or by an interrupt after the last one
        return Outcome("aborted", step, state), link
    return outcome._replace(error=_portable_error(outcome.error, comm.rank)), link


def measure_link(comm):
    """Return (latency, bandwidth) of a message between ranks 0 and 1, the same numbers on every rank.

    The medians of a few exchanges of nothing and of 1 MiB: the alpha and beta of R. W. Hockney's model, 1994.
    """
    import numpy as np

    found = np.zeros(2)
    if comm.rank < 2:
        for k, n in enumerate((1, PROBE_BYTES)):
            seconds, packet = [], np.zeros(n, dtype=np.uint8)
            for _ in range(PROBES):
                start = time.perf_counter()
                if comm.rank == 0:
                    comm.send(1, packet)
                    comm.receive(1)
                else:
                    comm.receive(0)
                    comm.send(0, packet)
                seconds.append((time.perf_counter() - start) / 2)
            found[k] = np.median(seconds[1:])
    latency, long = comm.broadcast(found)
    return float(latency), float(PROBE_BYTES / max(long - latency, 1e-9))


def _portable_error(error, rank):
    """Return an error that can travel, with the place where it was raised."""
    if error is None:
        return None
    import cloudpickle

    where = f"raised on rank {rank}, {get_worker().address}"
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"{where}:\n{text}")
    return error


def end_generation(run, generation, dask_worker):
    """Make the ranks of a generation on this worker come back."""
    post_of(dask_worker).end(run, generation)


def pause_generation(run, generation, dask_worker):
    """Make the ranks of a generation on this worker come back when their step has ended."""
    post_of(dask_worker).pause(run, generation)


def latest_step(run, dask_worker):
    """Return (generation, step, state) that a rank on this worker finished last, or None."""
    desk = post_of(dask_worker).known(run)
    return None if desk is None else desk.latest


def read_part(run, name, dask_worker):
    """Return the newest version of a part that ranks have kept on this worker, or None."""
    shelf = post_of(dask_worker).known_shelf(run)
    return None if shelf is None else newest(shelf, name)


def drop_parts(run, dask_worker):
    """Let go of what ranks of a run have kept on this worker."""
    post_of(dask_worker).drop_shelf(run)


def what_is_missing(dask_worker):
    """Return why this worker cannot have ranks, in words; empty if it can."""
    return missing_names(dask_worker)
