"""Passes over blocks in this process: on the thread pool, or in the calling thread alone."""

import functools
import threading
import time
import uuid
from contextvars import ContextVar

from daskdml.utils.config import get_config
from daskdml.utils.fold import Fold

from .memory import free_scratch, process_limit, scratch_folder
from .run import Run
from .threads import for_each

# The `SimulatedCluster` that fits in this context run on.
simulation: ContextVar = ContextVar("daskdml_simulation", default=None)


class LocalRun(Run):
    """A `Run` whose blocks are computed by threads of this process.

    Parameters
    ----------
    data : Partitioned
    chunks : list of Chunk, or None
        None streams: the Dask graph of each chunk is computed again in every pass.
    n_threads : int
        1 computes every block in the calling thread, where a debugger can step through it.
    one_pass : bool, default False
        The caller makes one pass only.
    """

    def __init__(self, data, *, chunks, n_threads, mode="pinned", one_pass=False, parent=None):
        lengths = data.known_lengths if chunks is None else [len(chunk) for chunk in chunks]
        n_chunks = data.n_chunks if chunks is None else len(chunks)
        if parent is None and (cluster := simulation.get()) is not None:
            data.rows_per_block = cluster.rows_per_block or data.rows_per_block
        super().__init__(data, mode=mode, n_workers=1, n_chunks=n_chunks, lengths=lengths, parent=parent)
        self.n_threads = n_threads
        self._one_pass = one_pass
        self._sources = data.chunks if chunks is None else None
        self._target_functions = []
        self._place(chunks)

    def transform_targets(self, fn):
        if self._chunks is None:
            self._target_functions.append(fn)
        else:
            self._place([type(c)(c.X, fn(c.y), c.weight) for c in self._chunks])

    def _replace_rows(self, replace):
        chunks = [None] * self.n_chunks
        each = functools.partial(for_each, n_threads=self.n_threads)

        if replace.to_files:
            replace = replace._replace(folder=scratch_folder(get_config()["scratch_dir"]))

        def visit(i, chunk):
            made = replace(chunk, each if self.n_chunks == 1 else None)
            chunks[i] = made.open() if replace.to_files else made  # what is mapped stays without its name

        start = time.perf_counter()
        self._each_chunk(range(self.n_chunks), visit)
        self.timings["compute"] += time.perf_counter() - start
        self._target_functions = []
        self._place(chunks)

    def _room(self, on_each):
        return process_limit(), "this process", "fit on a cluster whose workers have more memory"

    def _free_scratch(self):
        return free_scratch(scratch_folder(get_config()["scratch_dir"]))

    def warm(self, fn):
        start = time.perf_counter()
        fn()
        self.timings["compile"] += time.perf_counter() - start

    def _iterate(self, body, n_passes, entries, on_saved, server):
        cluster = simulation.get()
        if cluster is None or self._blocks is None:
            return super()._iterate(body, n_passes, entries, on_saved, server)
        from .spmd.fits import Facts, FitProgram

        program = FitProgram(body, Facts.of(self), server)
        answer = cluster.run_blocks(program, self._blocks, self.meta, len(entries), entries, on_saved)
        return self._take_over(answer)

    def run_program(self, program, step=0, state=None, **options):
        if self._blocks is None:
            return super().run_program(program)
        from .spmd.threads import run_threads

        cluster = simulation.get()
        if cluster is not None:
            saving = options.get("on_saved"), options.get("shelf")
            return cluster.run_blocks(program, self._blocks, self.meta, step, state, *saving)
        n_ranks = self.n_threads
        if program.shares_threads:
            program.n_threads, n_ranks = self.n_threads, 1
        return run_threads(program, self._blocks, self.meta, n_ranks, step=step, state=state, **options).state

    @property
    def n_ranks(self):
        cluster = simulation.get()
        return 1 if cluster is None else cluster.n_workers

    def close(self):
        self._chunks = self._blocks = self._sources = None

    def _place(self, chunks):
        """Cut chunks into blocks, once for all passes: they are views."""
        self._chunks = chunks
        self._blocks = None
        if chunks is not None:
            self._blocks = [block for i, c in enumerate(chunks) for block in c.blocks(*self._position(i))]

    def for_each(self, n_items, work):
        """Call ``work(i)`` for each item on the threads of this run, see `daskdml.runtime.threads.for_each`."""
        for_each(n_items, work, self.n_threads)

    def _fold(self, fn, combine):
        fold = Fold(self.n_blocks, combine)
        self._each_block(fn, fold.add)
        self.timings["reduce"] += fold.seconds / self.n_threads
        self.timings["compute"] -= fold.seconds / self.n_threads
        return fold.result()

    def _map_blocks(self, fn):
        values = [None] * self.n_blocks
        self._each_block(fn, values.__setitem__)
        return values

    def _each_block(self, fn, keep):
        """Call ``keep(index, fn(block))`` for all blocks."""
        seconds = []

        def visit(block):
            start = time.perf_counter()
            keep(block.index, fn(block))
            seconds.append(time.perf_counter() - start)

        if self._blocks is not None:
            blocks = self._blocks
            for_each(len(blocks), lambda i: visit(blocks[i]), self.n_threads)
        else:
            self._each_chunk(range(self.n_chunks), lambda i, chunk: self._visit_chunk(i, chunk, visit))
        self.timings["compute"] += sum(seconds) / self.n_threads

    def _visit_chunk(self, i, chunk, visit):
        for block in chunk.blocks(*self._position(i)):
            visit(block)

    def _map_chunks(self, fn, args):
        values = [None] * self.n_chunks

        def visit(i, chunk):
            values[i] = fn(chunk, *args[i])

        self._each_chunk([i for i in range(self.n_chunks) if args[i] is not None], visit)
        return values

    def _each_chunk(self, wanted, visit):
        """Call ``visit(i, chunk)`` for the chunks with these numbers."""
        wanted = list(wanted)
        if self._chunks is not None:
            for_each(len(wanted), lambda k: visit(wanted[k], self._chunks[wanted[k]]), self.n_threads)
            return
        visit = functools.partial(self._visit_target, visit)
        stream([self._sources[i] for i in wanted], lambda k, chunk: visit(wanted[k], chunk), self.n_threads)

    def _visit_target(self, visit, i, chunk):
        for fn in self._target_functions:
            chunk = type(chunk)(chunk.X, fn(chunk.y), chunk.weight)
        visit(i, chunk)


def compute(delayed, n_threads):
    """Compute Dask collections in this process, with ``n_threads`` threads."""
    import dask

    if n_threads == 1:
        return list(dask.compute(*delayed, scheduler="synchronous"))
    return list(dask.compute(*delayed, scheduler="threads", num_workers=n_threads))


def stream(sources, visit, n_threads):
    """Call ``visit(i, chunk)`` on each lazy chunk as it is read, and let go of it before the next is read.

    Dask's own order is depth first, so a thread holds one chunk at a time, and what several chunks share (the row group
    of a Parquet file) is read once. Between equals it goes by name: numbers as names let sums fold as they arrive.
    """
    import dask

    gate = _Gate()
    enter, name, n = dask.delayed(gate.enter, pure=False), uuid.uuid4().hex, len(sources)
    visited = [enter(chunk, i, visit, dask_key_name=f"visit-{name}-{n - i:09}") for i, chunk in enumerate(sources)]
    try:
        compute(visited, n_threads)
    finally:
        gate.close()


class _Gate:
    """Lets visits in until it is closed, then waits for those inside: none is left running after an error."""

    def __init__(self):
        self.closed = False
        self.active = 0
        self.changed = threading.Condition()

    def enter(self, chunk, i, visit):
        with self.changed:
            if self.closed:
                return
            self.active += 1
        try:
            visit(i, chunk)
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def close(self):
        with self.changed:
            self.closed = True
            while self.active:
                self.changed.wait()

