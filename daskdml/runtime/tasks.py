"""Passes over blocks on the workers of a Dask cluster, one task per worker and bounded set of chunks."""

import functools
import time
import uuid
from contextlib import contextmanager, suppress

from .cluster_check import check_cluster, free_scratch
from .memory import SHARE, choose_mode, format_bytes
from .placing import compute_chunks, over_chunks, place, sets_of, wait_for
from .run import Run
from .stopping import PREFIX, StopUnwanted
from .threads import n_cores
from .work import (
    FoldBlocks,
    MapChunks,
    itself,
    map_blocks,
    merge_parts,
    n_bytes_of,
    run_chunk,
    run_set,
    timed,
    with_targets,
)

SPLIT_EVERY = 8
SET_SHARE = 0.25  # of a worker's memory: a task that takes futures brings all of them back from disk at once
BROADCAST_BYTES = 1 << 20  # a larger function is a task of its own, and travels once per worker
CHUNKS_PER_THREAD = 4
_warmed = set()
_plugged = set()


def open_tasks(client, data, options, one_pass):
    """Place partitioned data on the workers of ``client`` and return the run over them."""
    from .split import open_split

    workers = check_cluster(client)
    if client.id not in _plugged:
        client.register_plugin(StopUnwanted())
        _plugged.add(client.id)
    if not data.is_lazy:
        data = data.spread(CHUNKS_PER_THREAD * sum(worker.n_threads for worker in workers.values()))
    if not one_pass and (run := open_split(client, data, workers, options)) is not None:
        return run
    mode, n_bytes = _choose(client, data, workers, options["memory"], one_pass)
    futures = None
    if mode != "stream":
        with cancelling(client) as futures:
            place(client, data.chunks, workers, futures, mapped=mode == "mmap")
    run = TasksRun(client, data, workers, futures, mode=mode, n_bytes=n_bytes, one_pass=one_pass)
    run.n_threads = options["n_threads"] or n_cores()
    try:
        n_parts = f"{data.n_chunks} chunks" if one_pass and data.known_lengths is None else f"{run.n_blocks} blocks"
    except BaseException:
        run.close()
        raise
    count = f"{len(workers)} worker" + ("s" if len(workers) > 1 else "")
    size = [] if n_bytes is None else [format_bytes(n_bytes)]
    run.where = ", ".join([count, n_parts, *size, mode])
    return run


def _choose(client, data, workers, asked, one_pass):
    """Return the memory mode and the bytes of all chunks, None where nobody needs to know them."""
    if asked != "auto" or one_pass:
        return ("stream" if asked == "auto" else asked), data.nbytes
    n_bytes = data.nbytes
    if n_bytes is None:
        probes = [data.chunks[i] for i in sorted({0, data.n_chunks // 2, data.n_chunks - 1})]
        with cancelling(client) as measured:
            measured += compute_chunks(client, over_chunks(probes, "measure", [n_bytes_of] * len(probes)))
            n_bytes = sum(client.gather(measured)) * data.n_chunks // len(probes)
    limit = sum(worker.memory_limit for worker in workers.values())
    free = free_scratch(client) if n_bytes > SHARE * limit else 0
    return choose_mode(n_bytes, limit, free), n_bytes


class TasksRun(Run):
    """A `Run` whose blocks are on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    data : Partitioned
    workers : dict of str to cluster_check.Worker
    futures : list of Future or None
        Of Chunk or MappedChunk; None streams: the graph of each chunk is computed again in every pass. Dask keeps the
        graph behind the futures, so that chunks of a worker that dies are made again elsewhere.
    n_bytes : int or None
        Of all chunks.
    """

    def __init__(self, client, data, workers, futures, *, mode, n_bytes, one_pass):
        super().__init__(data, mode=mode, n_workers=len(workers), n_chunks=data.n_chunks, lengths=data.known_lengths)
        self._client = client
        self._workers = workers
        self._slots = sum(worker.n_threads for worker in workers.values())
        self._futures = futures
        self._sources = data.chunks if futures is None else None
        self._chunk_bytes = (n_bytes or 0) // max(1, data.n_chunks) if mode == "pinned" else 0
        self._target_functions = ()
        self._one_pass = one_pass

    def transform_targets(self, fn):
        if self._futures is None:
            self._target_functions += (fn,)
            return
        old, numbers = self._futures, []
        with cancelling(self._client) as new:
            for address, members in self._held().items():
                chunks = [old[i] for i in members]
                new += self._client.map(with_targets, chunks, fn=fn, key=_new_name("targets"), **_near(address))
                numbers += members
            wait_for(new)
        self._futures = [future for _, future in sorted(zip(numbers, new), key=lambda pair: pair[0])]

    def warm(self, fn):
        start = time.perf_counter()
        payload = _dumps(fn)
        cold = [address for address in self._workers if (self._client.id, address, payload) not in _warmed]
        with cancelling(self._client) as futures:
            futures += [self._client.submit(timed, payload, key=_new_name("warm"), **_near(a)) for a in cold]
            fn()
            self._client.gather(futures)
        _warmed.update((self._client.id, address, payload) for address in cold)
        self.timings["compile"] += time.perf_counter() - start

    def close(self):
        for future in self._futures or ():
            future.release()
        self._futures = self._sources = None

    def _fold(self, fn, combine):
        positions = [self._position(i) for i in range(self.n_chunks)]
        folding = _dumps((self.n_blocks, combine))
        with cancelling(self._client) as started:
            self._submit(FoldBlocks(fn, combine, self.n_blocks), range(self.n_chunks), positions, started)
            while self._merge(started, folding) > 1:
                pass
            (part,) = self._gather(started)
        return part.value[(self.n_blocks - 1).bit_length(), 0]

    def _merge(self, started, folding):
        """Start merging parts by groups and keep the merges' futures instead: parts live while a merge needs them."""
        groups = [started[k : k + SPLIT_EVERY] for k in range(0, len(started), SPLIT_EVERY)]
        started[:] = [self._client.submit(merge_parts, folding, group, key=_new_name("merge")) for group in groups]
        return len(started)

    def _map_blocks(self, fn):
        args = [(fn, *self._position(i)) for i in range(self.n_chunks)]
        return [value for values in self._map_chunks(map_blocks, args) for value in values]

    def _map_chunks(self, fn, args):
        wanted = [i for i in range(self.n_chunks) if args[i] is not None]
        values = [None] * self.n_chunks
        with cancelling(self._client) as started:
            numbers = self._submit(MapChunks(fn), wanted, args, started)
            found = [value for part in self._gather(started) for value in part.value]
        for i, value in zip(numbers, found):
            values[i] = value
        return values

    def _submit(self, work, wanted, args, started):
        """Start tasks that do ``work`` on the wanted chunks, append their futures; return the chunks in their order."""
        payload = _dumps(work)
        self.bytes_moved += len(payload)
        if len(payload) > BROADCAST_BYTES:
            payload = self._client.submit(itself, payload, key=_new_name("broadcast"))
        if self._futures is None:
            started += self._submit_stream(payload, wanted, args)
            return list(wanted)
        numbers = []
        for address, members in sets_of(self._held(wanted), self._workers, self._chunk_bytes, SET_SHARE):
            chunks = [self._futures[i] for i in members]
            arg = [args[i] for i in members]
            key = f"{PREFIX}-{uuid.uuid4().hex}"
            started.append(self._client.submit(run_set, payload, chunks, arg, key=key, **_near(address)))
            numbers += members
        return numbers

    def _submit_stream(self, payload, wanted, args):
        """Start one task per chunk of the lazy graph; the scheduler hands out the reading of a few at a time."""
        calls = [functools.partial(run_chunk, args=args[i], target_functions=self._target_functions) for i in wanted]
        return compute_chunks(self._client, over_chunks([self._sources[i] for i in wanted], "pass", calls, payload))

    def _held(self, wanted=None):
        """Return the numbers of the (wanted) chunks by the worker that holds them; None where nobody does just now."""
        wanted = range(self.n_chunks) if wanted is None else wanted
        holders = self._client.who_has([self._futures[i] for i in wanted])
        held = {}
        for i in wanted:
            addresses = holders.get(self._futures[i].key)
            held.setdefault(min(addresses) if addresses else None, []).append(i)
        return held

    def _gather(self, futures):
        """Wait for parts and account for their costs."""
        parts = self._client.gather(futures)
        for part in parts:
            self.timings["compute"] += part.compute / self._slots
            self.timings["reduce"] += part.reduce / self._slots
            self.bytes_moved += part.n_bytes
        return parts


@contextmanager
def cancelling(client):
    """Cancel the futures put into the list on any error or Ctrl-C, and say in a sentence what became of workers."""
    import distributed

    started = []
    try:
        yield started
    except BaseException as error:
        with suppress(Exception):  # the cluster may be gone; the error at hand says more
            client.cancel(started, force=True)
        if isinstance(error, distributed.KilledWorker):
            raise RuntimeError(
                f"Workers died {error.allowed_failures + 1} times over the same rows, the last one at "
                f"{error.last_worker.address}, most likely because they ran out of memory; give the workers more memory, "
                'make the chunks smaller, or use daskdml.config_context(memory="stream").'
            ) from error
        if isinstance(error, distributed.CancelledError):
            raise RuntimeError(
                "The cluster lost part of the data and has no recipe to make it again (scattered data, or a restarted "
                "scheduler); pass a collection that reads its source."
            ) from error
        raise


def _near(address):
    """Return the hints that bring a task to a worker, and elsewhere should that worker die."""
    return {"workers": [address], "allow_other_workers": True} if address else {}


def _new_name(kind):
    return f"daskdml-{kind}-{uuid.uuid4().hex}"


def _dumps(value):
    import cloudpickle

    return cloudpickle.dumps(value, protocol=5)
