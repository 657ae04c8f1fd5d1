"""Puts chunks on workers as futures, one contiguous range each, with the graph that makes them again."""

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


def place(client, chunks, workers, futures, *, mapped):
    """Compute chunks and leave them on the workers, finished.

    Parameters
    ----------
    client : distributed.Client
    chunks : list of Delayed
    workers : dict of str to cluster_check.Worker
    futures : list
        Receives the futures, in chunk order.
    mapped : bool
        Whether each chunk goes to files of its worker's scratch space.

    Notes
    -----
    Each worker gets one contiguous range of chunks, in proportion to its threads, so that its partial sums are few.
    A chunk made from data that workers hold already goes to the worker that holds most of its bytes.
    """
    homes = _homes(client, chunks) if held_by_workers(chunks) else _ranges(len(chunks), workers)
    if mapped:
        chunks = over_chunks(chunks, "map", [MappedChunk] * len(chunks))
    placed = {}
    for address, numbers in homes.items():
        part = _culled([chunks[i] for i in numbers])
        hints = {"workers": [address], "allow_other_workers": True} if address else {}
        started = compute_chunks(client, part, **hints)
        futures += started
        placed.update(zip(numbers, started))
    futures[:] = [placed[i] for i in range(len(chunks))]
    wait_for(futures)


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


def _homes(client, chunks):
    """Return the numbers of chunks by the worker that holds most of the bytes they are made from."""
    graph = _merged(chunks).to_dict()
    holders, sizes = client.who_has(), client.nbytes(summary=False)
    homes = {}
    for i, chunk in enumerate(chunks):
        held, todo, seen = {}, [chunk.key], {chunk.key}
        while todo:
            key = todo.pop()
            if key not in graph:
                for address in holders.get(key, ()):
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


def _ranges(n_chunks, workers):
    """Return the numbers of chunks by worker: contiguous ranges in proportion to the workers' threads."""
    threads = np.array([0, *[worker.n_threads for worker in workers.values()]])
    edges = np.round(np.cumsum(threads) / threads.sum() * n_chunks).astype(int)
    return {address: list(range(a, b)) for address, a, b in zip(workers, edges[:-1], edges[1:]) if b > a}


def _culled(chunks):
    """Return the same chunks with a graph that makes only them: other workers' parts are not sent along."""
    from dask.delayed import Delayed

    needed = _merged(chunks).cull({chunk.key for chunk in chunks}).to_dict()
    return [Delayed(chunk.key, needed) for chunk in chunks]


def sets_of(held, workers, chunk_bytes, share):
    """Cut the chunks that each worker holds into sets, one per task.

    Parameters
    ----------
    held : dict of str or None to list of int
        Chunk numbers by worker; None for those that nobody holds.
    workers : dict of str to cluster_check.Worker
    chunk_bytes : int
        Memory that one chunk takes as the argument of a task.
    share : float
        Of a worker's memory that its running tasks may bring back from disk.

    Returns
    -------
    list of (str or None, list of int)
        In the order of their first chunk; at least as many per worker as it has threads.
    """
    sets = []
    for address, numbers in held.items():
        worker = workers.get(address) or next(iter(workers.values()))
        bound = max(1.0, share * worker.memory_limit / worker.n_threads)
        threads = worker.n_threads if address in workers else sum(other.n_threads for other in workers.values())
        n_sets = max(threads, int(np.ceil(len(numbers) * chunk_bytes / bound)))
        pieces = np.array_split(sorted(numbers), min(n_sets, len(numbers)))
        sets += [(address, piece.tolist()) for piece in pieces]
    return sorted(sets, key=lambda item: item[1][0])
