"""A few blocks of partitioned data in this process, to time what a fit will do with all of them."""

import functools
import pickle
import time
import uuid

import numpy as np

from daskdml.data import UnevenChunks, count_blocks
from daskdml.utils.config import get_config

from . import costs
from .blas import one_blas_thread
from .graphs import Sources
from .local import LocalRun, compute
from .memory import process_limit
from .opening import _client_for, _current_client, _refuse_futures
from .threads import n_cores

READING_SECONDS = 0.5  # after which no further chunk is read
TIMING_SECONDS = 0.1  # after which nothing is timed again
TIMING_WORK = 5e8  # multiplications timed at once, a tenth of a second
_REPETITIONS = 3
_BLOCKS = 12  # timed in memory: more than a cache holds, so that threads share what they will share in a fit
_MOST_ASKED = 4  # workers that time a block


class Sample:
    """A dozen blocks of the rows: of the first, the middle and the last chunk, or of rows in memory.

    Parameters
    ----------
    data : Partitioned

    Attributes
    ----------
    run : Run
        Over the blocks, on one thread.
    everything : Run or None
        Over all rows where they are in memory already.
    n_samples, n_blocks, n_bytes : int
        Of all rows; estimated from the chunks read where they are unknown.
    n_features, layout, dtype :
        As `Run` has them.
    read_seconds : float
        Of making all rows from their source, on one thread.
    held_by : {"process", "source", "workers"}
    n_threads : int
        Of a fit in this process.
    client : distributed.Client or None
        On whose cluster a fit would run.

    Raises
    ------
    ValueError
        If the options ask for a runtime that cannot be had here; if the chunks read have no rows.
    """

    def __init__(self, data):
        options = get_config()
        self.client, reason = _client_for(data, options["runtime"])
        self.n_threads = options["n_threads"] or (1 if reason == "inside a Dask task" else n_cores())
        self.n_features, self.layout, self.dtype = data.n_features, data.layout, data.dtype
        self.everything, self.read_seconds, self.held_by = None, 0.0, "process"
        if data.is_lazy:
            try:
                heads = self._read(data)
            except UnevenChunks:
                data = data.cut_anew()
                heads = self._read(data)
        else:
            heads = self._cut(data)
        self._data = data
        self._keep(heads)
        self._cluster, self._workers = self._find_workers()

    def transform_targets(self, fn):
        """Replace the targets y of the blocks by ``fn(y)``."""
        self._keep([type(chunk)(chunk.X, fn(chunk.y), chunk.weight) for chunk in self._heads])

    def seconds_per_row(self, fn, work_per_row=0):
        """Return the seconds that one thread takes for a row of ``fn(block)``, sums of the results included.

        Parameters
        ----------
        fn : callable of one Block
            What it builds on its first call is not counted.
        work_per_row : int
            Multiplications of a row: where all rows here would take long, fewer are timed.
        """
        LocalRun(self._data, chunks=[_rows(self._heads[0], 0, 2)], n_threads=1).map_reduce(fn)
        run, taken = LocalRun(self._data, chunks=self._few(work_per_row), n_threads=1), []
        # Twice at least: other programs of the machine only ever add to one of them.
        while len(taken) < 2 or (len(taken) < _REPETITIONS and sum(taken) < TIMING_SECONDS):
            start = time.perf_counter()
            run.map_reduce(fn)
            taken.append(time.perf_counter() - start)
        return sorted(taken)[(len(taken) - 1) // 2] / run.n_samples

    def thread_share(self, fn, work_per_row=0):
        """Return the share of one thread that each further thread of this process adds, measured."""
        if self.n_threads == 1:
            return costs.THREAD_SHARE
        alone, heads = self.seconds_per_row(fn, work_per_row), self._few(work_per_row)
        repeats = -(-2 * self.n_threads // len(heads))
        run = LocalRun(self._data, chunks=heads * repeats, n_threads=self.n_threads)
        start = time.perf_counter()
        run.map_reduce(fn)
        together = (time.perf_counter() - start) / run.n_samples
        return min(max((alone / together - 1) / (self.n_threads - 1), 0.0), 1.0)

    def worker_slowness(self, fn, work_per_row=0):
        """Return how many times longer workers of the current cluster take for a block than this process; 1 without.

        All that are asked compute at once: on one machine they share its cores, as they will in a fit.
        """
        if not self._workers:
            return 1.0
        import cloudpickle

        from .waiting import cancelling, gather
        from .watch import Watch

        few = _rows(self._few(work_per_row)[0], 0, self._data.rows_per_block)
        (block,) = few.blocks(0, 0, self._data.rows_per_block)
        payload = cloudpickle.dumps((fn, block), protocol=5)
        name = f"daskdml-plan-{uuid.uuid4().hex}"
        with cancelling(self._cluster) as asked:
            # One that dies meanwhile is stood in for by another.
            asked += [
                self._cluster.submit(_time_block, payload, key=f"{name}-{a}", workers=[a], allow_other_workers=True)
                for a in list(self._workers)[:_MOST_ASKED]
            ]
            there = gather(self._cluster, Watch(self._cluster, get_config()["timeout"]), asked)
        return float(np.median(there)) / _time_block(payload)

    def places(self, counts):
        """Return the places a fit may run at.

        Parameters
        ----------
        counts : sequence of int
            Numbers of workers beside that of the current cluster.

        Returns
        -------
        list of (runtime, n_workers, n_threads, memory_limit)
            Workers that are not there yet are like those of the cluster, or like this process where there is none.
        """
        found = [("threads", 1, self.n_threads, process_limit())]
        limit, n_threads = process_limit(), self.n_threads
        if self._workers:
            workers = list(self._workers.values())
            counts = {*counts, len(workers)}
            limit = min(worker.memory_limit for worker in workers)
            n_threads = max(1, round(np.mean([worker.n_threads for worker in workers])))
        return found + [(name, n, n_threads, limit) for name in costs.RUNTIMES[1:] for n in sorted(set(counts))]

    def _find_workers(self):
        """Return the client of the current cluster and its workers by address; (None, {}) where a fit needs none."""
        client = self.client or _current_client()[0]
        if client is None or (self.client is None and not client.nthreads()):
            return None, {}
        from .cluster_check import check_cluster

        try:
            return client, check_cluster(client)
        except RuntimeError:
            if self.client is not None:
                raise
            return None, {}

    def _few(self, work_per_row):
        """Return so many of the chunks that one walk of them takes no longer than may be timed."""
        most = max(64, int(TIMING_WORK / max(1, work_per_row)))
        n_rows = len(self._heads[0])
        if most < n_rows:
            return [_rows(self._heads[0], 0, most)]
        return self._heads[:: -(-len(self._heads) * n_rows // most)]

    def _keep(self, heads):
        self._heads = heads
        self.run = LocalRun(self._data, chunks=heads, n_threads=1)

    def _cut(self, data):
        """Return blocks of rows in memory, as views."""
        (chunk,) = data.chunks
        step = data.rows_per_block
        self.everything = LocalRun(data, chunks=data.chunks, n_threads=self.n_threads)
        self.n_samples, self.n_bytes, self.n_blocks = len(chunk), chunk.nbytes, self.everything.n_blocks
        # The last block may be short: the one before it is like all others.
        last = max(0, len(chunk) // step - 1)
        return [_rows(chunk, i * step, step) for i in sorted({last * k // (_BLOCKS - 1) for k in range(_BLOCKS)})]

    def _read(self, data):
        """Make at most three chunks from their source; return the first block of each."""
        sources = Sources(data.chunks)
        self.held_by = "workers" if sources.from_futures else "source"
        if self.client is None:
            _refuse_futures(data)
        numbers = [i for i in range(data.n_chunks) if data.known_lengths is None or data.known_lengths[i]]
        heads, lengths, sizes, taken = [], [], [], []
        # What a cluster reads is sent here.
        n_blocks = _BLOCKS // 3 if self.client is None else 1
        head = functools.partial(_head, n_rows=n_blocks * data.rows_per_block)
        for i in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}) if numbers else ():
            start = time.perf_counter()
            chunk, length, size = self._make(sources, i, head)
            taken.append(time.perf_counter() - start)
            heads.append(chunk)
            lengths.append(length)
            sizes.append(size)
            if sum(taken) > READING_SECONDS:
                break
        if not sum(lengths):
            raise ValueError(
                f"Found array with 0 sample(s) (shape=(0, {data.n_features})) while a minimum of 1 is required."
            )
        overhead = 0.0 if self.client is None else costs.ROUND_SECONDS["tasks"]
        if self.held_by == "source":
            self.read_seconds = max(0.0, float(np.median(taken)) - overhead) * data.n_chunks
        known = data.known_lengths
        self.n_samples = round(np.mean(lengths) * data.n_chunks) if known is None else sum(known)
        self.n_bytes = round(sum(sizes) / sum(lengths) * self.n_samples)
        each = known or [round(np.mean(lengths))] * data.n_chunks
        self.n_blocks = max(1, sum(count_blocks(n, data.rows_per_block) for n in each))
        return [chunk for chunk in heads if len(chunk)]

    def _make(self, sources, i, head):
        """Compute one chunk where a fit would; return what ``head`` gives of it."""
        if self.client is None:
            import dask

            return compute([dask.delayed(head, pure=False)(sources.chunks[i])], 1)[0]
        from .waiting import cancelling, gather
        from .watch import Watch

        with cancelling(self.client) as started:
            started += self.client.compute(sources.delayed("plan", [i], [head]))
            return gather(self.client, Watch(self.client, get_config()["timeout"]), started)[0]


def _time_block(payload):
    """Return the seconds of a pickled (function, block), the median of a few calls after the first."""
    fn, block = pickle.loads(payload)
    taken = []
    with one_blas_thread():
        fn(block)
        for _ in range(_REPETITIONS):
            start = time.perf_counter()
            fn(block)
            taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def _head(chunk, n_rows):
    """Return (the first rows of a chunk, its number of rows, its bytes)."""
    return _rows(chunk, 0, n_rows), len(chunk), chunk.nbytes


def _rows(chunk, start, n_rows):
    return chunk.rows(start, min(start + n_rows, len(chunk)))
