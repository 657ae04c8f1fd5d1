"""Puts chunks on workers as futures, one contiguous range each, with the graph that makes them again."""

import functools
import uuid

import numpy as np

from .mapped import MappedChunk

OURS = "daskdml-"


def over_chunks(chunks, name, functions, *shared):
    """Return one Delayed per chunk, ``functions[i](chunk, *shared)``; all share one graph.

    Parameters
    ----------
    chunks : list of Delayed
    name : str
        Of the tasks, as Dask's dashboard shows them.
    functions : sequence of callables, as many as chunks
    *shared : bytes or Future
        The same for all chunks, and in the graph once.
    """
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph

    label = f"{OURS}{name}-{uuid.uuid4().hex}"
    keys = [(label, i) for i in range(len(chunks))]
    common = {f"{label}-shared-{k}": value for k, value in enumerate(shared)}
    layer = {key: (fn, chunk.key, *common) for key, fn, chunk in zip(keys, functions, chunks)}
    graph = HighLevelGraph.from_collections(label, {**layer, **common}, dependencies=chunks)
    return [Delayed(key, graph, layer=label) for key in keys]


def compute_chunks(client, chunks, **hints):
    """Start computing Delayed chunks on the cluster.

    Tasks that read are tried three times (a file system's hiccup), our own once: an error of theirs is no accident.
    """
    import dask

    prefix = OURS

    def retries(key):  # the scheduler calls it, perhaps without daskdml: a local function travels by value
        name = key[0] if isinstance(key, tuple) else key
        return 0 if str(name).startswith(prefix) else 2

    with dask.annotate(retries=retries):
        return client.compute(chunks, **hints)


class Placed:
    """Chunks as futures, each pinned to one worker, with the recipe to make it again.

    Parameters
    ----------
    client : distributed.Client
    chunks : list of Delayed
        Of Chunk.
    workers : dict of str to cluster_check.Worker
    mapped : bool
        Whether each chunk goes to files of its worker's scratch space, as a MappedChunk.

    Notes
    -----
    Each worker gets one contiguous range of chunks, in proportion to its threads, so that its partial sums are few.
    A chunk made from data that workers hold already goes to the worker that holds most of its bytes.

    Tasks are pinned strictly. A loosely pinned one (``allow_other_workers``) is stolen together with its rows, and is
    never run again if no other worker is running at the moment its worker dies. A strictly pinned one waits for ever
    for its dead worker; `repair` makes such chunks again elsewhere.
    """

    def __init__(self, client, chunks, workers, *, mapped):
        self.client = client
        self.workers = workers
        self._mapped = mapped
        self._sources = chunks
        self._target_functions = ()
        self.futures = [None] * len(chunks)
        homes = _homes(client, chunks, workers) if held_by_workers(chunks) else _ranges(range(len(chunks)), workers)
        self._make(homes)

    def transform_targets(self, fn):
        """Replace every chunk by one with ``fn(y)`` for y, on the same worker, sharing X."""

        def submit(started):
            order = []
            for address, numbers in self.held().items():
                chunks = [self.futures[i] for i in numbers]
                name = f"{OURS}targets-{uuid.uuid4().hex}"
                started += self.client.map(with_targets, chunks, fn=fn, key=name, workers=[address])
                order += numbers
            return order

        order, made = self.carry_out(submit)
        self.futures = [future for _, future in sorted(zip(order, made), key=lambda pair: pair[0])]
        self._target_functions += (fn,)

    def held(self, wanted=None):
        """Return the numbers of the (wanted) chunks by the worker that holds them; makes lost ones again first."""
        wanted = range(len(self.futures)) if wanted is None else wanted
        while True:
            holders = self.client.who_has([self.futures[i] for i in wanted])
            held = {}
            for i in wanted:
                addresses = holders.get(self.futures[i].key)
                held.setdefault(min(addresses) if addresses else None, []).append(i)
            if None not in held:
                return held
            self.repair()

    def carry_out(self, submit):
        """Start tasks and wait for them, again after each death of a worker.

        Parameters
        ----------
        submit : callable of a list
            Appends futures of tasks pinned to the workers of `held`; what it returns is returned first.

        Returns
        -------
        object, list of Future
        """
        for _ in range(ALLOWED_DEATHS + 1):
            try:
                with cancelling(self.client) as started:
                    answer = submit(started)
                    wait_for(self.client, started, set(self.workers))
                    return answer, started
            except WorkerLost as error:
                lost = error
                self.repair()
        raise too_many_deaths(lost)

    def repair(self):
        """Make the chunks again that nobody holds, on the workers there are now."""
        self.workers = check_cluster(self.client)
        holders = self.client.who_has([future for future in self.futures if future is not None])
        lost = [i for i, future in enumerate(self.futures) if future is None or not holders.get(future.key)]
        self.client.cancel([self.futures[i] for i in lost if self.futures[i] is not None], force=True)
        self._make(_ranges(lost, self.workers))

    def release(self):
        """Let go of all chunks."""
        for future in self.futures:
            if future is not None:
                future.release()
        self.futures = []

    def _make(self, homes):
        """Compute chunks where ``homes`` (numbers by address) says; those that a death interrupts, elsewhere."""
        for _ in range(ALLOWED_DEATHS + 1):
            with cancelling(self.client) as started:
                made = {}
                for address, numbers in homes.items():
                    hints = {} if address is None else {"workers": [address]}
                    new = compute_chunks(self.client, _culled(self._recipes(numbers)), **hints)
                    started += new
                    made.update(zip(numbers, new))
                try:
                    wait_for(self.client, started, set(homes) - {None})
                    lost = None
                except WorkerLost as error:
                    lost = error
                _raise_first(started)
                for i, future in made.items():
                    self.futures[i] = future if future.status == "finished" else None
            if lost is None:
                return
            self.client.cancel([future for i, future in made.items() if self.futures[i] is None], force=True)
            self.workers = check_cluster(self.client)
            homes = _ranges([i for i in made if self.futures[i] is None], self.workers)
        raise too_many_deaths(lost)

    def _recipes(self, numbers):
        """Return the Delayed chunks with everything that has been done to them."""
        chunks = [self._sources[i] for i in numbers]
        if self._mapped:
            chunks = over_chunks(chunks, "map", [MappedChunk] * len(chunks))
        for fn in self._target_functions:
            chunks = over_chunks(chunks, "targets", [functools.partial(with_targets, fn=fn)] * len(chunks))
        return chunks


def _raise_first(futures):
    for future in futures:
        if future.status == "error":
            future.result()


def held_by_workers(chunks):
    """Tell whether Delayed chunks are made from futures: results that the workers of a cluster hold."""
    graph = _merged(chunks).to_dict()
    return any(key not in graph for task in graph.values() for key in _inputs(task))


def _merged(chunks):
    from dask.highlevelgraph import HighLevelGraph

    return HighLevelGraph.merge(*{id(graph): graph for c in chunks for graph in [c.__dask_graph__()]}.values())


def _inputs(task):
    """Return the keys of a task's inputs; one that is a future is not among the keys of its graph."""
    from distributed import futures_of

    found = getattr(task, "dependencies", None)
    return [future.key for future in futures_of([task])] if found is None else found


def _homes(client, chunks, workers):
    """Return the numbers of chunks by the worker that holds most of the bytes they are made from, None if nobody."""
    graph = _merged(chunks).to_dict()
    holders, sizes = client.who_has(), client.nbytes(summary=False)
    homes = {}
    for i, chunk in enumerate(chunks):
        held, todo, seen = {}, [chunk.key], {chunk.key}
        while todo:
            key = todo.pop()
            if key not in graph:
                for address in set(holders.get(key, ())) & set(workers):
                    held[address] = held.get(address, 0) + sizes.get(key, 0)
                continue
            new = set(_inputs(graph[key])) - seen
            seen |= new
            todo += new
        home = max(sorted(held), key=held.get, default=None)
        homes.setdefault(home, []).append(i)
    return homes


def wait_for(futures):
    """Wait until all futures are done; raise the error of the first one that failed."""
    from distributed import wait

    wait(futures)
    for future in futures:
        if future.status != "finished":
            future.result()


def _ranges(numbers, workers):
    """Return the numbers of chunks by worker: contiguous ranges in proportion to the workers' threads."""
    threads = np.array([0, *[worker.n_threads for worker in workers.values()]])
    edges = np.round(np.cumsum(threads) / threads.sum() * len(numbers)).astype(int)
    return {address: list(numbers[a:b]) for address, a, b in zip(workers, edges[:-1], edges[1:]) if b > a}


def _culled(chunks):
    """Return the same chunks with a graph that makes only them: other workers' parts are not sent along."""
    from dask.delayed import Delayed

    needed = _merged(chunks).cull({chunk.key for chunk in chunks}).to_dict()
    return [Delayed(chunk.key, needed) for chunk in chunks]


def sets_of(held, workers, chunk_bytes, share):
    """Cut the chunks that each worker holds into sets, one per task.

    Parameters
    ----------
    held : dict of str to list of int
        Chunk numbers by worker.
    workers : dict of str to cluster_check.Worker
    chunk_bytes : int
        Memory that one chunk takes as the argument of a task.
    share : float
        Of a worker's memory that its running tasks may bring back from disk.

    Returns
    -------
    list of (str, list of int)
        In the order of their first chunk; at least as many per worker as it has threads.
    """
    sets = []
    for address, numbers in held.items():
        worker = workers.get(address) or next(iter(workers.values()))
        bound = max(1.0, share * worker.memory_limit / worker.n_threads)
        n_sets = max(worker.n_threads, int(np.ceil(len(numbers) * chunk_bytes / bound)))
        pieces = np.array_split(sorted(numbers), min(n_sets, len(numbers)))
        sets += [(address, piece.tolist()) for piece in pieces]
    return sorted(sets, key=lambda item: item[1][0])
