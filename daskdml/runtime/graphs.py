"""Lazy chunks as one Dask task each: what they are made from, who holds that, and what is done with them."""

import functools
import itertools
import sys
import uuid

from daskdml.utils.config import get_config

from .waiting import wait_for
from .watch import Watch

OURS = "daskdml-"
READ_ATTEMPTS = 3  # a file system's hiccup


class Sources:
    """Lazy chunks, each the result of one task.

    Everything that only one chunk needs is done inside its task. So a thread holds one chunk at a time, however fast
    the tasks before it would have run, and nothing in between is stored, spilled or stolen. What several chunks need
    (the row group of a Parquet file) stays a task of its own, done once.

    Parameters
    ----------
    chunks : list of Delayed

    Attributes
    ----------
    from_futures : bool
        Whether chunks are made from results that the workers of a cluster hold.
    """

    def __init__(self, chunks):
        self.chunks = chunks
        self._graph = merged(chunks)
        self._inputs = {key: inputs(self._graph, key) for key in self._graph}
        keys = {*self._inputs, *itertools.chain(*self._inputs.values())}
        self._held = set(filter(self._is_held, keys))
        self.from_futures = bool(self._held)
        self._own = self._find_own()

    def __len__(self):
        return len(self.chunks)

    def delayed(self, name, numbers, functions, *shared):
        """Return one Delayed per wanted chunk, ``functions[i](chunk, *shared)``, with a graph that makes only them.

        Parameters
        ----------
        name : str
            Of the tasks, as Dask's dashboard shows them.
        numbers : sequence of int
            Of the chunks.
        functions : sequence of callables, as many as numbers
        *shared : bytes or Future
            The same for all chunks, and in the graph once.
        """
        from dask.delayed import Delayed

        label = f"{OURS}{name}-{uuid.uuid4().hex}"
        common = {f"{label}-shared-{k}": value for k, value in enumerate(shared)}
        layer = dict(common)
        for i, fn in zip(numbers, functions):
            read, needed = self._reader(i)
            layer[label, i] = (ReadThen(read, len(needed), fn), *needed, *common)
            self._add(layer, needed)
        return [Delayed((label, i), layer) for i in numbers]

    def homes(self, client, workers):
        """Return the numbers of chunks by the worker that holds most of the bytes they are made from, None if none.

        Waits until these are there: a collection that is still being persisted is held by nobody yet.
        """
        from distributed import Future

        wait_for(Watch(client, get_config()["timeout"]), [Future(key, client) for key in self._held], set())
        holders, sizes = client.who_has(), client.nbytes(summary=False)
        homes = {}
        for i, chunk in enumerate(self.chunks):
            held = {}
            for key in self._ancestors(chunk.key):
                for address in set(holders.get(key, ())) & set(workers) if key in self._held else ():
                    held[address] = held.get(address, 0) + sizes.get(key, 0)
            homes.setdefault(max(sorted(held), key=held.get, default=None), []).append(i)
        return homes

    def _reader(self, i):
        """Return what makes chunk ``i`` from the values of the keys returned with it."""
        own = self._own[i]
        needed = dict.fromkeys(key for k in own for key in self._inputs[k] if key not in own)
        if not own or not self._held.isdisjoint([*own, *needed]):  # a future cannot stand in a pickled graph
            return None, [self.chunks[i].key]
        return OwnGraph({key: self._graph[key] for key in own}, self.chunks[i].key, list(needed)), list(needed)

    def _is_held(self, key):
        """Tell whether a key is a future: the graph has it as one, or inside another task and not at all."""
        return key not in self._graph or is_future(self._graph[key])

    def _add(self, layer, keys):
        """Add the tasks behind some keys to a graph."""
        todo = list(keys)
        while todo:
            key = todo.pop()
            if key in self._graph and key not in layer:
                layer[key] = self._graph[key]
                todo += self._inputs[key]

    def _ancestors(self, key):
        seen, todo = {key}, [key]
        while todo:
            for new in self._inputs.get(todo.pop(), ()):
                if new not in seen:
                    seen.add(new)
                    todo.append(new)
        return seen

    def _find_own(self):
        """Return for each chunk the set of keys that no other chunk needs."""
        owner = {}
        for i, chunk in enumerate(self.chunks):
            todo = [chunk.key]
            while todo:
                key = todo.pop()
                before = owner.get(key)
                if before == i or before == -1 or key not in self._graph:
                    continue
                owner[key] = i if before is None else -1
                todo += self._inputs[key]
        # What a shared key needs is shared, also where another chunk found it first.
        todo = [key for key, i in owner.items() if i == -1]
        while todo:
            for key in self._inputs[todo.pop()]:
                if owner.get(key, -1) != -1:
                    owner[key] = -1
                    todo.append(key)
        own = [set() for _ in self.chunks]
        for key, i in owner.items():
            if i >= 0:
                own[i].add(key)
        return own


class OwnGraph:
    """Computes the part of a graph that only one chunk needs, in the calling thread."""

    def __init__(self, graph, key, needed):
        self.graph, self.key, self.needed = graph, key, needed

    def __call__(self, *values):
        import dask

        given = {key: (functools.partial(_itself, value),) for key, value in zip(self.needed, values)}
        graph = {**self.graph, **given}
        for attempt in range(READ_ATTEMPTS):
            try:
                return dask.get(graph, self.key)
            except OSError:
                if attempt + 1 == READ_ATTEMPTS:
                    raise


def _itself(value):
    return value


class ReadThen:
    """Makes a chunk, then calls a function of it."""

    def __init__(self, read, n_needed, fn):
        self.read, self.n_needed, self.fn = read, n_needed, fn

    def __call__(self, *values):
        needed, shared = values[: self.n_needed], values[self.n_needed :]
        return self.fn(needed[0] if self.read is None else self.read(*needed), *shared)


def merged(chunks):
    """Return the graph of some Delayed objects as one dict."""
    from dask.highlevelgraph import HighLevelGraph

    graphs = {id(graph): graph for chunk in chunks for graph in [chunk.__dask_graph__()]}
    return HighLevelGraph.merge(*graphs.values()).cull({chunk.key for chunk in chunks}).to_dict()


def inputs(graph, key):
    """Return the keys of a task's inputs; one that is a future is not among the keys of the graph."""
    from dask.core import get_dependencies

    task = graph[key]
    if is_future(task):
        return set()
    found = get_dependencies(graph, key) | set(getattr(task, "dependencies", ()))
    distributed = sys.modules.get("distributed")
    return found if distributed is None else found | {future.key for future in distributed.futures_of([task])}


def is_future(task):
    """Tell whether what stands in a graph is a future, importing nothing."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(task, distributed.Future)
