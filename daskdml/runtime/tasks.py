"""Passes over blocks on the workers of a Dask cluster, one task per worker and bounded set of chunks."""

import functools
import time
import uuid
from contextlib import suppress

from daskdml.utils.config import get_config

from . import memory
from .cluster_check import check_cluster, free_scratch
from .costs import choose
from .graphs import Sources
from .local import LocalRun
from .mapped import MappedChunk
from .memory import SHARE, choose_mode, format_bytes, format_count
from .placing import Placed, sets_of
from .replacing import itself, with_targets
from .room import MOST_THERE
from .run import Run, unnumbered
from .stopping import StopUnwanted
from .threads import n_cores
from .waiting import WorkerLost, cancelling, gather, raise_first, wait_for
from .watch import Watch, patiently
from .work import (
    FoldBlocks,
    MapChunks,
    itself_up_to,
    lengths_in,
    map_blocks,
    merge_parts,
    n_bytes_of,
    number_part,
    run_chunk,
    run_set,
    timed,
)

SPLIT_EVERY = 8
SET_SHARE = 0.25  # of a worker's memory: a task that takes futures brings all of them back from disk at once
BROADCAST_BYTES = 1 << 20  # a larger function is a task of its own, and travels once per worker
CHUNKS_PER_THREAD = 4
WARM_SECONDS = 15.0  # that a fit waits for kernels to be compiled everywhere before its first pass
_warmed = set()
_plugged = set()


def open_tasks(client, data, options, passes):
    """Place partitioned data on the workers of ``client`` and return the run over them."""
    from .split import open_split, panels_of

    one_pass = passes == "one"
    workers = check_cluster(client)
    if client.id not in _plugged:
        patiently(client, lambda: client.register_plugin(StopUnwanted()))
        _plugged.add(client.id)
    asked = options["runtime"] != "auto" or options["memory"] != "auto"
    may_fetch = not asked and not one_pass and data.layout in ("dense", "csr")
    if may_fetch and data.nbytes is not None and data.nbytes <= memory.SMALL_BYTES:
        return _fetch(client, data, Sources(data.chunks), options, data.nbytes)
    if not data.is_lazy:
        data = data.spread(CHUNKS_PER_THREAD * sum(worker.n_threads for worker in workers.values()))
    # What makes other rows of them, in few passes, may do so on ranks too, and lets go of panels that fill the memory.
    makes_others = passes == "few"
    may_split = not one_pass and (options["runtime"] != "spmd" or makes_others)
    if may_split and makes_others and len(data.column_blocks) > 1:
        may_split = _choose(client, data, panels_of(data), workers, options["memory"], passes)[0] == "pinned"
    if may_split and (run := open_split(client, data, workers, options)) is not None:
        return run
    sources = Sources(data.chunks)
    mode, n_bytes = _choose(client, data, sources, workers, options["memory"], passes)
    if may_fetch and n_bytes <= memory.SMALL_BYTES:
        # The estimate is three chunks' mean: others may be far larger.
        largest = memory.FETCH_SLACK * memory.SMALL_BYTES // data.n_chunks
        if (run := _fetch(client, data, sources, options, largest)) is not None:
            return run
    placed = None
    if mode != "stream":
        placed = Placed(client, sources, workers, MappedChunk if mode == "mmap" else itself)
    run = TasksRun(client, data, workers, placed, mode=mode, n_bytes=n_bytes, one_pass=one_pass, sources=sources)
    run.n_threads = options["n_threads"] or n_cores()
    try:
        uncounted = one_pass and data.known_lengths is None
        n_parts = format_count(data.n_chunks, "chunk") if uncounted else format_count(run.n_blocks, "block")
        if n_bytes is None and placed is not None:
            n_bytes = sum(run._map_chunks(n_bytes_of, [()] * run.n_chunks))
            run.take_bytes(n_bytes)
    except BaseException:
        run.close()
        raise
    count = format_count(len(workers), "worker")
    size = [] if n_bytes is None else [format_bytes(n_bytes)]
    run.where = ", ".join([count, n_parts, *size, mode])
    return run


def _fetch(client, data, sources, options, largest):
    """Return the run in this process over rows that are few; None if a chunk has more bytes than ``largest``."""
    with cancelling(client) as fetched:
        calls = [functools.partial(itself_up_to, n_bytes=largest)] * data.n_chunks
        fetched += client.compute(sources.delayed("fetch", range(data.n_chunks), calls))
        chunks = gather(client, Watch(client, options["timeout"]), fetched)
    if any(chunk is None for chunk in chunks):
        return None
    run = LocalRun(data, chunks=chunks, n_threads=options["n_threads"] or n_cores())
    run.bytes_moved = sum(chunk.nbytes for chunk in chunks)
    run.where = f"in this process (small, fetched from the cluster): {format_bytes(run.bytes_moved)}"
    return run


def _choose(client, data, sources, workers, asked, passes):
    """Return the memory mode and the bytes of all chunks, None where nobody needs to know them.

    Where these are not known, three chunks are made and measured: each where its parts are, if ``sources`` has them one
    by one, for what lies on different workers would come together otherwise.
    """
    if asked != "auto" or passes == "one":
        return ("stream" if asked == "auto" else asked), data.nbytes
    n_bytes = data.nbytes
    if n_bytes is None:
        chunks, n_parts = sorted({0, data.n_chunks // 2, data.n_chunks - 1}), len(sources) // data.n_chunks
        probes = [i * n_parts + j for i in chunks for j in range(n_parts)]
        with cancelling(client) as measured:
            measured += client.compute(sources.delayed("measure", probes, [n_bytes_of] * len(probes)))
            found = gather(client, Watch(client, get_config()["timeout"]), measured)
            n_bytes = sum(found) * data.n_chunks // len(chunks)
    limit = sum(worker.memory_limit for worker in workers.values())
    free = free_scratch(client) if passes == "many" and n_bytes > SHARE * limit else 0
    return choose_mode(n_bytes, limit, free), n_bytes


class TasksRun(Run):
    """A `Run` whose blocks are on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    data : Partitioned
    workers : dict of str to cluster_check.Worker
    placed : Placed or None
        The chunks on their workers; None streams: the graph of each chunk is computed again in every pass.
    n_bytes : int or None
        Of all chunks.
    sources : Sources, optional
        What streams.
    """

    runtime, most_pinned = "tasks", MOST_THERE

    def __init__(self, client, data, workers, placed, *, mode, n_bytes, one_pass, sources=None):
        super().__init__(data, mode=mode, n_workers=len(workers), n_chunks=data.n_chunks, lengths=data.known_lengths)
        self._client = client
        self._workers = workers
        self._slots = sum(worker.n_threads for worker in workers.values())
        self._placed = placed
        self._watch = Watch(client, get_config()["timeout"]) if placed is None else placed.watch
        self._sources = sources
        self._chunk_bytes = 0  # that lie in memory: mapped files take none that has to be there
        self.take_bytes(n_bytes or 0)
        self._target_functions = ()
        self._one_pass = one_pass

    def take_bytes(self, n_bytes):
        """Take note of how many bytes all chunks have."""
        if self.mode == "pinned":
            self._chunk_bytes = n_bytes // max(1, self.n_chunks)

    @property
    def threads_per_worker(self):
        """Threads of each worker, in the mean."""
        return max(1, self._slots // self.n_workers)

    def transform_targets(self, fn):
        if self._placed is None:
            self._target_functions += (fn,)
        else:
            self._placed.transform(functools.partial(with_targets, fn=fn), "targets")

    def _replace_rows(self, replace):
        if self._placed is not None:
            self._placed.transform(replace, "rows")
        else:
            replace = replace._replace(target_functions=self._target_functions)
            self._placed = Placed(self._client, self._sources, self._workers, replace)
            self._sources, self._target_functions = None, ()
        self.mode = "mmap" if replace.to_files else "pinned"
        if replace.to_files:
            self._chunk_bytes = 0
        self.take_bytes(sum(self._map_chunks(n_bytes_of, [()] * self.n_chunks)))

    def _room(self, on_each):
        limits = [worker.memory_limit for worker in self._workers.values()]
        if on_each:
            return min(limits), "the smallest worker", "give the workers more memory"
        limit = sum(limits)
        return limit, format_count(len(self._workers), "worker"), "add workers"

    def _free_scratch(self):
        return free_scratch(self._client)

    def warm(self, fn):
        start = time.perf_counter()
        payload = _dumps(fn)
        cold = [address for address in self._workers if (self._client.id, address, payload) not in _warmed]
        with suppress(WorkerLost), cancelling(self._client) as started:
            name = _new_name("warm")
            started += [self._client.submit(timed, payload, key=f"{name}-{a}", workers=[a]) for a in cold]
            fn()
            wait_for(self._watch, started, set(cold), WARM_SECONDS - (time.perf_counter() - start))
            raise_first(started)
            # A worker that is not ready goes on by itself, and its first block waits for it: others begin meanwhile.
            ready = [address for address, future in zip(cold, started) if future.done()]
            _warmed.update((self._client.id, address, payload) for address in ready)
        self.timings["compile"] += time.perf_counter() - start

    def _iterate(self, body, n_passes, entries, on_saved, server):
        options = get_config()
        if not self._takes_ranks(options["runtime"], n_passes, server is not None):
            return super()._iterate(body, n_passes, entries, on_saved, server)
        from .spmd.fits import Facts, FitProgram

        answer = self.run_program(
            FitProgram(body, Facts.of(self), server), len(entries), entries, on_saved=on_saved,
            save_every=options["checkpoint_every"],
        )  # fmt: skip
        return self._take_over(answer)

    def _takes_ranks(self, asked, n_passes, is_served):
        """Tell whether a body of many passes runs on ranks instead of by tasks: as asked for, or by predicted cost."""
        if asked != "auto":
            return asked == "spmd"
        if self._placed is None or self.by_columns:
            return False
        from .spmd.cluster import can_have_ranks

        if is_served:  # tasks have nobody to be apart
            return can_have_ranks(self._client)
        chosen = choose(
            n_rounds=n_passes, n_passes=n_passes, data_bytes=self._chunk_bytes * self.n_chunks,
            n_params=self.n_features, n_workers=self.n_workers, held_by="workers", possible=("tasks", "spmd"),
        )  # fmt: skip
        return chosen == "spmd" and can_have_ranks(self._client)

    def run_program(self, program, step=0, state=None, **options):
        if self._placed is None:
            return super().run_program(program)
        from .spmd.cluster import ClusterRanks

        meta = self.meta
        placed, positions, lengths, row_bytes = self._rows_of_ranks()
        ranks = ClusterRanks(self._client, placed, meta, positions, lengths, row_bytes, **options)
        try:
            return ranks.run(program, step, program.init(meta) if state is None else state)
        finally:
            self._workers = placed.workers

    def _rows_of_ranks(self):
        """Return the chunks of ranks, what ``Chunk.blocks`` needs of each (None for no rows), rows, bytes a row."""
        positions = [self._position(i) if n else None for i, n in enumerate(self.lengths)]
        # Files are mapped: they take no memory that has to be there.
        return self._placed, positions, self.lengths, self._chunk_bytes * self.n_chunks / self.n_samples

    def close(self):
        if self._placed is not None:
            self._placed.release()
        self._placed = self._sources = None

    def _fold(self, fn, combine):
        positions = [self._position(i) for i in range(self.n_chunks)]
        folding = _dumps((self.n_blocks, combine))

        def submit(started):
            self._submit(FoldBlocks(fn, combine, self.n_blocks), range(self.n_chunks), positions, started)
            while self._merge(started, folding) > 1:
                pass

        _, (part,) = self._carry_out(submit)
        return part.value[(self.n_blocks - 1).bit_length(), 0]

    def _fold_unnumbered(self, fn, combine):
        """Fold in the pass that finds out how many rows chunks have: results wait on the workers for their numbers."""
        start, before = time.perf_counter(), self.busy_seconds
        args = [(fn, self.rows_per_block)] * self.n_chunks

        def submit(started):
            numbers = iter(self._submit(MapChunks(unnumbered), range(self.n_chunks), args, started))
            found, parts = self._lengths_of(started), list(started)
            groups = [[next(numbers) for _ in some] for some in found]
            lengths = dict(zip(sum(groups, []), sum(found, [])))
            self._set_lengths([lengths[i] for i in range(self.n_chunks)])
            self._check_rows()
            folding = _dumps((self.n_blocks, combine))
            firsts = [[self._first_blocks[i] for i in group] for group in groups]
            started[:] = [
                self._client.submit(number_part, folding, *both, key=_new_name("fold")) for both in zip(parts, firsts)
            ]
            while self._merge(started, folding) > 1:
                pass

        _, (part,) = self._carry_out(submit)
        self._finish_pass(start, before, True)
        return part.value[(self.n_blocks - 1).bit_length(), 0]

    def _lengths_of(self, parts):
        """Return the numbers of rows that parts of `unnumbered` chunks have, which stay where they are."""
        with cancelling(self._client) as counted:
            counted += [self._client.submit(lengths_in, part, key=_new_name("lengths")) for part in parts]
            pinned = set() if self._placed is None else set(self._placed.workers)
            wait_for(self._watch, counted, pinned)
            return gather(self._client, self._watch, counted, pinned)

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
        numbers, parts = self._carry_out(lambda started: self._submit(MapChunks(fn), wanted, args, started))
        for i, value in zip(numbers, [value for part in parts for value in part.value]):
            values[i] = value
        return values

    def _submit(self, work, wanted, args, started):
        """Start tasks that do ``work`` on the wanted chunks, append their futures; return the chunks in their order."""
        payload = _dumps(work)
        self.bytes_moved += len(payload)
        if len(payload) > BROADCAST_BYTES:
            payload = self._client.submit(itself, payload, key=_new_name("broadcast"))
        if self._placed is None:
            started += self._submit_stream(payload, wanted, args)
            return list(wanted)
        numbers = []
        for address, members in sets_of(self._placed.held(wanted), self._workers, self._chunk_bytes, SET_SHARE):
            chunks = [self._placed.futures[i] for i in members]
            arg = [args[i] for i in members]
            key = _new_name("pass")
            started.append(self._client.submit(run_set, payload, chunks, arg, key=key, workers=[address]))
            numbers += members
        return numbers

    def _submit_stream(self, payload, wanted, args):
        """Start one task per chunk, which reads it, does its work and lets go of it."""
        calls = [functools.partial(run_chunk, args=args[i], target_functions=self._target_functions) for i in wanted]
        return self._client.compute(self._sources.delayed("pass", wanted, calls, payload))

    def _carry_out(self, submit):
        """Start tasks, wait for them and account for their costs; return what ``submit`` does, and the parts."""
        if self._placed is not None:
            answer, parts = self._placed.carry_out(submit, lambda _, started: started)
        else:
            with cancelling(self._client) as done:
                answer = submit(done)
                wait_for(self._watch, done, set())
                parts = gather(self._client, self._watch, done)
        for part in parts:
            self.timings["compute"] += part.compute / self._slots
            self.timings["reduce"] += part.reduce / self._slots
            self.bytes_moved += part.n_bytes
        return answer, parts


def _new_name(kind):
    return f"daskdml-{kind}-{uuid.uuid4().hex}"


def _dumps(value):
    import cloudpickle

    return cloudpickle.dumps(value, protocol=5)
