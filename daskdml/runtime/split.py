"""Passes over rows whose column panels lie on different workers: margins travel, X does not.

A pass has up to three steps (see `SplitRun`): every worker multiplies the panels it holds by their coefficients; the worker that holds
y adds these margins up and evaluates what is pointwise in them; the workers multiply their panels by what came back. Only margins and
what goes back, n x k numbers each, move between workers.
"""

import functools
import itertools
import operator
import pickle
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .blas import one_blas_thread
from .fold import Fold
from .memory import format_bytes
from .placing import _culled, _homes, compute_chunks, wait_for
from .run import _first_nonfinite, _take
from .tasks import BROADCAST_BYTES, SET_SHARE, SPLIT_EVERY, TasksRun, _dumps, _near, _new_name, cancelling
from .threads import n_cores
from .work import MapChunks, itself, map_blocks, pickled_size


def open_split(client, data, workers, options):
    """Return a `SplitRun`, or None unless panels of the same rows are held by different workers already.

    Panels that nobody holds yet are put side by side as they are read, which moves nothing; so the run is another one then. So it is
    where nothing is fitted to y, and where the user asks for another memory mode than pinned.
    """
    n_panels = len(data.column_blocks)
    if n_panels == 1 or data.target_shape is None or data.dtype is None or options["memory"] not in ("auto", "pinned"):
        return None
    from distributed import futures_of, wait

    X, *rest = _collections(data)
    wait(futures_of(X))  # who holds a panel is known when it is there
    panels = X.to_delayed().ravel().tolist()
    homes = _homes(client, panels)
    if not _are_apart(homes, n_panels):
        return None
    with cancelling(client) as futures:
        for future, address in zip(_compute_blocks(client, X, homes), _by_number(homes)):
            make = functools.partial(_make_panel, dtype=data.dtype)
            futures.append(client.submit(make, future, key=_new_name("panel"), pure=False, **_near(address)))
        wait_for(futures)
    run = SplitRun(client, data, workers, futures)
    run.n_threads = options["n_threads"] or n_cores()
    try:
        run.place_targets(*rest)
    except BaseException:
        run.close()
        raise
    return run


def _collections(data):
    """Return X and the y and weights that were cut to its chunks, as Dask arrays or None."""
    X, y, weight, _ = data._chunks.args
    return X, y, weight


def _are_apart(homes, n_panels):
    """Tell whether panels of the same rows are on different workers; ``homes`` lists panel numbers by worker."""
    held = sorted((i // n_panels, address) for address, numbers in homes.items() if address for i in numbers)
    return any(len({address for _, address in group}) > 1 for _, group in itertools.groupby(held, lambda item: item[0]))


class SplitRun(TasksRun):
    """A `Run` over row bands whose column panels stay where they are, also on different workers.

    Parameters
    ----------
    client : distributed.Client
    data : Partitioned
    workers : dict of str to cluster_check.Worker
    panels : list of Future
        Of one Chunk without y per row band and panel, the panels of a band one after the other.

    Notes
    -----
    Functions that read X must have `phases`: they are asked for their steps

        raw = sum of fn.forward(panel, columns)      on the workers that hold the panels; (n, k) numbers travel
        partial, g = fn.pointwise(raw, y, weight)    on the worker that holds y; g travels, (n, m) numbers
        piece = fn.backward(panel, columns, g)       on the workers that hold the panels
        fn.join(partial, pieces)                     here, on what is summed over all rows

    as `daskdml.objectives.panels` says. Margins are added in the order of the panels, partials and pieces along the tree of all runs:
    no bit depends on who holds what. What travels is less than X while panels have more columns than raw values have.

    The futures are those of y and weights, one Chunk of no columns per row band, then those of the panels. The workers of a band's
    panels take turns in holding y.
    """

    by_columns = True

    def __init__(self, client, data, workers, panels):
        super().__init__(client, data, workers, panels, mode="pinned", n_bytes=None, one_pass=False)
        self._widths = data.column_blocks
        stops = np.cumsum(self._widths).tolist()
        self._columns = [slice(stop - width, stop) for width, stop in zip(self._widths, stops)]
        self._n_targets = 0

    def place_targets(self, y, weight):
        """Measure the panels, then put y and weights beside them."""
        sizes = self._map_panels(_measure, [()] * (self.n_chunks * len(self._columns)))
        self._panel_bytes = [n_bytes for _, n_bytes in sizes]
        self._chunk_bytes = max(self._panel_bytes)
        by_band = [[n for n, _ in sizes[i * len(self._columns) : (i + 1) * len(self._columns)]] for i in range(self.n_chunks)]
        for i, lengths in enumerate(by_band):
            if len(set(lengths)) > 1:
                raise ValueError(
                    f"Chunk {i}: the column blocks of X have {lengths} rows; pass blocks that hold the same rows."
                )
        self._set_lengths([lengths[0] for lengths in by_band])
        self._futures = self._compute_targets(y, weight) + self._futures
        self._n_targets = self.n_chunks
        workers = f"{self.n_workers} worker" + ("s" if self.n_workers > 1 else "")
        size = format_bytes(sum(self._panel_bytes))
        self.where = f"{workers}, {self.n_blocks} blocks, {size}, pinned in {len(self._columns)} column panels"

    def _compute_targets(self, y, weight):
        """Return the futures of y and weights by row band, each computed on a worker that holds panels of its rows."""
        given = {name: part for name, part in (("y", y), ("weight", weight)) if part is not None}
        parts = list(zip(*[_compute_blocks(self._client, part, {None: range(self.n_chunks)}) for part in given.values()]))
        homes = {band_set.home: [] for band_set in self._sets(everything=True)}
        for band_set in self._sets(everything=True):
            homes[band_set.home] += band_set.bands
        with cancelling(self._client) as futures:
            for i, address in enumerate(_by_number(homes)):
                make = functools.partial(_make_targets, i, self._lengths[i], tuple(given))
                futures.append(self._client.submit(make, *parts[i], key=_new_name("targets"), pure=False, **_near(address)))
            wait_for(futures)
        return futures

    def transform_targets(self, fn):
        panels = self._futures[self._n_targets :]
        super().transform_targets(fn)
        self._futures += panels

    def map_reduce(self, fn, combine=operator.add, *, reads_x=True):
        if reads_x and not getattr(fn, "phases", ()):
            _refuse(fn)
        return super().map_reduce(fn, combine, reads_x=reads_x)

    def map(self, fn, *, reads_x=True):
        if reads_x:
            _refuse(fn)
        return super().map(fn, reads_x=reads_x)

    def locate_nonfinite(self):
        args = [(_first_nonfinite, *self._position(i)) for i in range(self.n_chunks) for _ in self._columns]
        found = [bad for values in self._map_panels(map_blocks, args) for bad in values if bad is not None]
        self._count(self.n_samples)
        if found:
            row, block, what = min(found)
            raise ValueError(f"Input X contains {what}. First in row {row} (block {block}).")

    # Steps of a pass -------------------------------------------------------------------------------------------------

    def _fold(self, fn, combine):
        phases = getattr(fn, "phases", ())
        if not phases:
            return super()._fold(fn, combine)
        payload = self._broadcast((fn, combine, self.n_blocks))
        with cancelling(self._client) as started:
            ends = []
            for band_set in self._sets():
                middle = None
                if "forward" in phases:
                    middle = self._to_targets(payload, band_set, started)
                ends += self._to_panels(payload, band_set, middle, started) if "backward" in phases else [middle]
            while len(ends) > SPLIT_EVERY:
                groups = [ends[k : k + SPLIT_EVERY] for k in range(0, len(ends), SPLIT_EVERY)]
                ends = [self._client.submit(_merge, payload, group, key=_new_name("merge")) for group in groups]
                started += ends
            parts = self._client.gather(ends)
        total = _merge_parts(parts, self.n_blocks, combine)
        self.timings["compute"] += total.compute / self._slots
        self.timings["reduce"] += total.reduce / self._slots
        self.bytes_moved += total.n_bytes
        root = (self.n_blocks - 1).bit_length(), 0
        found = {label: nodes[root] for label, nodes in total.nodes.items()}
        pieces = [found[j] for j in range(len(self._columns))] if "backward" in phases else []
        return fn.join(found.get("partial"), pieces)

    def _to_targets(self, payload, band_set, started):
        """Start the margins of a set of row bands and what is pointwise in them; return the future of the latter."""
        margins = [
            self._client.submit(
                _forward, payload, [self._panel(*where) for where in members], self._places(members), pure=False,
                key=_new_name("forward"), **_near(address),
            )
            for address, members in band_set.members.items()
        ]  # fmt: skip
        targets = [self._futures[i] for i in band_set.bands]
        positions = [self._position(i) for i in band_set.bands]
        middle = self._client.submit(
            _pointwise, payload, targets, band_set.bands, positions, margins, key=_new_name("pointwise"), pure=False,
            **_near(band_set.home),
        )  # fmt: skip
        started += [*margins, middle]
        return middle

    def _to_panels(self, payload, band_set, middle, started):
        """Start what the panels of a set of row bands contribute; return the futures."""
        new = [
            self._client.submit(
                _backward, payload, [self._panel(*where) for where in members], self._places(members), middle, k == 0,
                key=_new_name("backward"), pure=False, **_near(address),
            )
            for k, (address, members) in enumerate(band_set.members.items())
        ]  # fmt: skip
        started += new
        return new

    def _panel(self, i, j):
        """Return the future of panel ``j`` of row band ``i``."""
        return self._futures[self._n_targets + i * len(self._columns) + j]

    def _places(self, members):
        return [(i, j, self._columns[j], self._position(i)) for i, j in members]

    def _sets(self, *, everything=False):
        """Cut the row bands into sets of bands whose panels the same workers hold, one task per worker and step each.

        Empty bands are in no set, unless ``everything``.
        """
        width = len(self._columns)
        holders = self._client.who_has(self._futures[self._n_targets :])
        groups = {}
        for i in range(self.n_chunks):
            if everything or self._lengths[i]:
                held = [holders.get(self._panel(i, j).key) or (None,) for j in range(width)]
                groups.setdefault(_choose(held), []).append(i)
        sets = []
        for placement, bands in groups.items():
            addresses = list(dict.fromkeys(placement))
            needed = sum(self._workers[a].n_threads if a in self._workers else 1 for a in addresses)
            for address in addresses:
                n_bytes = sum(self._panel_bytes[i * width + j] for i in bands for j in range(width) if placement[j] == address)
                worker = self._workers.get(address) or next(iter(self._workers.values()))
                needed = max(needed, -int(-n_bytes * worker.n_threads // (SET_SHARE * worker.memory_limit)))
            for k, part in enumerate(np.array_split(bands, min(needed, len(bands)))):
                members = {a: [(int(i), j) for i in part for j in range(width) if placement[j] == a] for a in addresses}
                sets.append(_Set(part.tolist(), members, addresses[k % len(addresses)]))
        return sets

    def _broadcast(self, work):
        payload = _dumps(work)
        self.bytes_moved += len(payload)
        if len(payload) > BROADCAST_BYTES:
            payload = self._client.submit(itself, payload, key=_new_name("broadcast"))
        return payload

    def _map_panels(self, fn, args):
        """Return ``fn(panel, *args[i])`` of every panel, band by band; None where ``args[i]`` is None."""
        args = [None] * self._n_targets + args
        wanted = [i for i, arg in enumerate(args) if arg is not None]
        values = [None] * len(args)
        with cancelling(self._client) as started:
            numbers = self._submit(MapChunks(fn), wanted, args, started)
            found = [value for part in self._gather(started) for value in part.value]
        for i, value in zip(numbers, found):
            values[i] = value
        return values[self._n_targets :]

    def _map_chunks(self, fn, args):
        found = super()._map_chunks(fn, args)
        if fn is not _take:
            return found
        # A pilot's rows: what was taken of the targets above has no columns yet.
        width = len(self._columns)
        panels = self._map_panels(_take, [arg for arg in args for _ in range(width)])
        bands = [panels[i * width : (i + 1) * width] for i in range(self.n_chunks)]
        return [None if chunk is None else replace(chunk, X=_side_by_side(band)) for chunk, band in zip(found, bands)]


def _refuse(fn):
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    raise ValueError(
        f"{name} needs whole rows, but the columns of X are on different workers; put them side by side first, with "
        "X = X.rechunk({1: -1})."
    )


class _Set(NamedTuple):
    """Row bands, their (band, panel) by the worker that holds them, and the worker that holds y."""

    bands: list
    members: dict
    home: Any


def _choose(held):
    """Return one holder of each panel, of several the one that holds most panels of these rows."""
    count = {address: sum(address in some for some in held) for some in held for address in some}
    return tuple(min(some, key=lambda address: (-count[address], str(address))) for some in held)


def _compute_blocks(client, array, homes):
    """Return the future of every block of a Dask array; blocks that nobody holds are computed where ``homes`` says."""
    from distributed import futures_of

    held = {future.key: future for future in futures_of(array)}
    blocks = array.to_delayed().ravel().tolist()
    for address, numbers in homes.items():
        lazy = [blocks[i] for i in numbers if blocks[i].key not in held]
        if lazy:
            held.update(zip([block.key for block in lazy], compute_chunks(client, _culled(lazy), **_near(address))))
    return [held[block.key] for block in blocks]


def _by_number(homes):
    """Turn numbers by worker into a list of workers."""
    return [address for _, address in sorted((i, address) for address, numbers in homes.items() for i in numbers)]


def _side_by_side(chunks):
    panels = [chunk.X for chunk in chunks]
    if any(hasattr(panel, "indptr") for panel in panels):
        from scipy import sparse

        return sparse.hstack(panels, format="csr")
    return np.concatenate(panels, axis=1)


# What tasks do ----------------------------------------------------------------------------------------------------------


class _Margins(NamedTuple):
    """Margins by (band, panel), and where they were computed."""

    found: dict
    address: str
    compute: float


class _Middle(NamedTuple):
    """Nodes of the sums that need no X, what goes back to the columns by band, and where it is."""

    nodes: dict
    back: dict
    address: str
    compute: float
    reduce: float
    n_bytes: int


def _make_panel(X, dtype):
    from daskdml.data.lazy import make_chunk

    return make_chunk(0, X, {}, dtype)


def _make_targets(i, n, named, *parts):
    from daskdml.data.lazy import make_chunk

    return make_chunk(i, np.empty((n, 0)), dict(zip(named, parts)), None)


def _measure(chunk):
    return len(chunk), chunk.nbytes


def _here():
    from distributed import get_worker

    return get_worker().address


def _forward(payload, panels, places):
    """Compute the margins of some panels."""
    start = time.perf_counter()
    fn, _, _ = pickle.loads(payload)
    found = {}
    with one_blas_thread():
        for chunk, (i, j, columns, position) in zip(panels, places):
            found[i, j] = np.concatenate([fn.forward(block.X, columns) for block in chunk.blocks(*position)])
    return _Margins(found, _here(), time.perf_counter() - start)


def _pointwise(payload, targets, bands, positions, margins):
    """Add up the margins of some row bands, evaluate what is pointwise in them and fold it over the blocks."""
    start = time.perf_counter()
    fn, combine, n_blocks = pickle.loads(payload)
    parts = dict(sorted(item for some in margins for item in some.found.items()))
    fold, back, here = Fold(n_blocks, combine), {}, _here()
    with one_blas_thread():
        for chunk, i, position in zip(targets, bands, positions):
            raw, g = sum(part for (band, _), part in parts.items() if band == i), []
            blocks = chunk.blocks(*position)
            for block in blocks:
                first = block.start - position[1]
                partial, own = fn.pointwise(raw[first : first + len(block.X)], block.y, block.weight)
                fold.add(block.index, partial)
                g.append(own)
            back[i] = None if g[0] is None else np.concatenate(g)
    moved = sum(part.nbytes for some in margins if some.address != here for part in some.found.values())
    compute = sum(some.compute for some in margins) + time.perf_counter() - start - fold.seconds
    return _Middle({"partial": fold.nodes}, back, here, compute, fold.seconds, moved)


def _backward(payload, panels, places, middle, carry):
    """Fold what some panels contribute over their blocks; ``carry`` passes the sums that need no X on."""
    start = time.perf_counter()
    fn, combine, n_blocks = pickle.loads(payload)
    folds = {}
    with one_blas_thread():
        for chunk, (i, j, columns, position) in zip(panels, places):
            fold = folds.setdefault(j, Fold(n_blocks, combine))
            for block in chunk.blocks(*position):
                first = block.start - position[1]
                g = None if middle is None else middle.back[i][first : first + len(block.X)]
                fold.add(block.index, fn.backward(block.X, columns, g))
    reduce = sum(fold.seconds for fold in folds.values())
    compute, nodes, moved = time.perf_counter() - start - reduce, {j: fold.nodes for j, fold in folds.items()}, 0
    if middle is not None:
        moved = sum(g.nbytes for g in middle.back.values()) if middle.address != _here() else 0
        if carry:
            nodes.update(middle.nodes)
            compute, reduce, moved = compute + middle.compute, reduce + middle.reduce, moved + middle.n_bytes
    return _Middle(nodes, {}, "", compute, reduce, moved + pickled_size(nodes))


def _merge(payload, parts):
    _, combine, n_blocks = pickle.loads(payload)
    return _merge_parts(parts, n_blocks, combine)


def _merge_parts(parts, n_blocks, combine):
    """Merge the partial folds of several tasks, label by label."""
    start, folds = time.perf_counter(), {}
    for part in parts:
        for label, nodes in part.nodes.items():
            other = Fold(n_blocks)
            other.nodes = nodes
            folds.setdefault(label, Fold(n_blocks, combine)).merge(other)
    reduce = sum(part.reduce for part in parts) + time.perf_counter() - start
    moved = sum(part.n_bytes for part in parts)
    nodes = {label: fold.nodes for label, fold in folds.items()}
    return _Middle(nodes, {}, "", sum(part.compute for part in parts), reduce, moved)
