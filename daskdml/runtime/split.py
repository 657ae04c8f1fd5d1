"""Passes over rows whose column panels lie on different workers: margins travel, X does not.

A pass has up to three steps (see `SplitRun`): every worker multiplies the panels it holds by their coefficients; the
worker that holds y adds these margins up and evaluates what is pointwise in them; the workers multiply their panels by
what came back. Only margins and what goes back, n x k numbers each, move between workers.
"""

import functools
import itertools
import operator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from daskdml.data import side_by_side

from .graphs import Sources
from .memory import format_bytes, format_count
from .phases import (
    PanelPass,
    backward,
    forward,
    make_panel,
    make_targets,
    make_tile,
    map_beside,
    measure,
    merge,
    merge_all,
    pointwise,
)  # fmt: skip
from .placing import Placed, sets_of
from .replacing import itself
from .run import _first_nonfinite, _take
from .tasks import BROADCAST_BYTES, SET_SHARE, SPLIT_EVERY, TasksRun, _dumps, _new_name
from .threads import n_cores
from .waiting import wait_for
from .watch import Watch
from .work import MapChunks, map_blocks, n_bytes_of, run_set


def open_split(client, data, workers, options):
    """Return a `SplitRun`, or None unless panels of the same rows are held by different workers already.

    Panels that nobody holds yet are put side by side as they are read, which moves nothing; so the run is another one
    then. So it is where nothing is fitted to y, and where the user asks for another memory mode than pinned.
    """
    n_panels = len(data.column_blocks)
    if n_panels == 1 or data.target_shape is None or options["memory"] not in ("auto", "pinned"):
        return None
    if 0 in data.column_blocks:  # nobody could say anything of such a panel
        return None
    from distributed import futures_of

    X, y, weight = data.aligned
    # Who holds a panel is known when it is there.
    wait_for(Watch(client, options["timeout"]), list(futures_of(X)), set())
    sources = panels_of(data)
    if not _are_apart(sources.homes(client, workers), n_panels):
        return None
    run = SplitRun(client, data, workers, Placed(client, sources, workers))
    run.n_threads = options["n_threads"] or n_cores()
    try:
        run.place_targets(y, weight)
    except BaseException:
        run.close()
        raise
    return run


def panels_of(data):
    """Return `Sources` of the column panels of partitioned data, the panels of a band one after the other."""
    bands = range(data.n_chunks)
    make = [functools.partial(make_panel, i, width, data.dtype) for i in bands for width in data.column_blocks]
    return _over_blocks("panel", make, data.aligned[0])


def _over_blocks(name, functions, *arrays, times=None):
    """Return `Sources` of ``functions[i](block i of each array)``; ``times`` repeats blocks of all but the first."""
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph
    from distributed import futures_of

    times = [1, *[times or 1] * (len(arrays) - 1)]
    blocks = [np.repeat(array.to_delayed().ravel(), n).tolist() for array, n in zip(arrays, times)]
    held = {future.key: future for array in arrays for future in futures_of(array)}
    lazy = [block for some in blocks for block in some if block.key not in held]
    label = _new_name(name)
    layer = {
        (label, i): (fn, *[held.get(block.key, block.key) for block in own])
        for i, (fn, own) in enumerate(zip(functions, zip(*blocks)))
    }
    graph = HighLevelGraph.from_collections(label, layer, dependencies=lazy)
    return Sources([Delayed(key, graph, layer=label) for key in layer])


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
    panels : Placed
        One Chunk without y per row band and panel, the panels of a band one after the other.

    Notes
    -----
    Functions that read X must have `phases`: they are asked for their steps

        raw = sum of fn.forward(panel, columns)      on the workers that hold the panels; (n, k) numbers travel
        partial, g = fn.pointwise(raw, y, weight)    on the worker that holds y; g travels, (n, m) numbers
        piece = fn.backward(panel, columns, g)       on the workers that hold the panels
        fn.join(partial, pieces)                     here, on what is summed over all rows

    as `daskdml.objectives.panels` says. Margins are added along a binary tree over the panels of a row band, partials
    and pieces along the tree of all runs: no bit depends on who holds what. A worker adds up the
    branches that it holds whole and sends one vector for each. What travels is less than X while panels have more
    columns than raw values have.

    y and weights wait as one Chunk of no columns per row band, in turns on the workers that hold the band's panels.

    Functions that have ``for_columns`` and ``join`` are asked for what they are of each panel's columns; they see y and
    weights beside a panel. `replace_rows` makes panels anew where they are, each with y and weights of its rows; ranks
    see blocks of panels, those of panel j with numbers from ``j * n_blocks`` on.
    """

    by_columns = True

    def __init__(self, client, data, workers, panels):
        super().__init__(client, data, workers, panels, mode="pinned", n_bytes=None, one_pass=False)
        self._panels = panels  # what the base class calls placed are y and weights, as soon as they are
        self._aligned, self._have_targets, self._functions = data.aligned, False, ()
        stops = np.cumsum(data.column_blocks).tolist()
        self._columns = [slice(a, b) for a, b in zip([0, *stops], stops)]

    def place_targets(self, y, weight):
        """Measure the panels, then put y and weights beside them."""
        width = len(self._columns)
        sizes = np.reshape(self._map_panels(measure, [()] * (self.n_chunks * width)), (self.n_chunks, width, 2))
        lengths, self._panel_bytes = sizes[:, :, 0], sizes[:, :, 1]
        self._chunk_bytes = int(self._panel_bytes.max())
        for i, found in enumerate(lengths.tolist()):
            if len(set(found)) > 1:
                raise ValueError(
                    f"Chunk {i}: the column blocks of X have {found} rows; pass blocks that hold the same rows."
                )
        self._set_lengths(lengths[:, 0])
        given = {name: part for name, part in (("y", y), ("weight", weight)) if part is not None}
        make = [functools.partial(make_targets, i, n, tuple(given)) for i, n in enumerate(self._lengths)]
        self._placed = Placed(self._client, Sources([]), self._workers)
        self._placed.add(_over_blocks("targets", make, *given.values()), homes=self._homes())
        workers, blocks = format_count(self.n_workers, "worker"), format_count(self.n_blocks, "block")
        size = format_bytes(int(self._panel_bytes.sum()))
        self.where = f"{workers}, {blocks}, {size}, pinned in {width} column panels"

    def close(self):
        super().close()
        self._panels.release()

    @property
    def panels(self):
        """Slices of the columns, one a panel."""
        return tuple(self._columns)

    def _free_scratch(self):
        return None  # panels stay in memory

    def transform_targets(self, fn):
        super().transform_targets(fn)
        self._functions += (fn,)

    def _replace_rows(self, replace):
        _, y, weight = self._aligned
        given = {name: part for name, part in (("y", y), ("weight", weight)) if part is not None}
        replace = replace._replace(target_functions=self._functions)
        parts = [replace._replace(fn=fn, n_columns=fn.n_columns) for fn in map(replace.fn.for_columns, self._columns)]
        make = [
            functools.partial(make_tile, i, columns.stop - columns.start, self.dtype, tuple(given), part)
            for i in range(self.n_chunks)
            for columns, part in zip(self._columns, parts)
        ]
        tiles = Placed(self._client, Sources([]), self._workers)
        sources = _over_blocks("tile", make, self._aligned[0], *given.values(), times=len(parts))
        tiles.add(sources, homes=self._panels.held())
        self._panels.release()
        self._panels, self._have_targets = tiles, True
        sizes = self._map_panels(n_bytes_of, [()] * len(make))
        self._chunk_bytes, self._tile_bytes = max(sizes, default=0), sum(sizes)

    def run_program(self, program, *args, **options):
        program.evenness = None  # rows of a panel stay on one rank, if they are, as long as nobody dies
        return super().run_program(program, *args, **options)

    def _rows_of_ranks(self):
        width, n_blocks = len(self._columns), self.n_blocks
        lengths = np.repeat(self.lengths, width).tolist()
        positions = [None] * len(lengths)
        for i, n in enumerate(self.lengths):
            for j in range(width if n else 0):
                first, *others = self._position(i)
                positions[i * width + j] = (j * n_blocks + first, *others)
        return self._panels, positions, lengths, self._tile_bytes / (self.n_samples * width)

    def _by_panels(self, fn, combine):
        """Return ``fn`` of all blocks, asked panel by panel."""
        width = len(self._columns)
        parts = [fn.for_columns(columns) for columns in self._columns]
        args = [(part, *self._position(i)) for i in range(self.n_chunks) for part in parts]
        found = self._map_panels(map_blocks if self._have_targets else map_beside, args, beside=not self._have_targets)
        by_panel = [[value for values in found[j::width] for value in values] for j in range(width)]
        return fn.join([functools.reduce(combine, values) for values in by_panel])

    def map_reduce(self, fn, combine=operator.add, *, reads_x=True):
        if reads_x and hasattr(fn, "for_columns"):
            self._check_rows()
            return self._recorded(fn, lambda: self._by_panels(fn, combine), True)
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

        def submit(started):
            payload = self._broadcast(PanelPass(fn, combine, self.n_blocks, len(self._columns)))
            ends = []
            for band_set in self._sets():
                middle = self._to_targets(payload, band_set, started) if "forward" in phases else None
                ends += self._to_panels(payload, band_set, middle, started) if "backward" in phases else [middle]
            while len(ends) > SPLIT_EVERY:
                groups = [ends[k : k + SPLIT_EVERY] for k in range(0, len(ends), SPLIT_EVERY)]
                ends = [self._client.submit(merge, payload, group, key=_new_name("merge")) for group in groups]
                started += ends
            return ends

        _, parts = self._panels.carry_out(submit, lambda ends, started: ends)
        total = merge_all(parts, self.n_blocks, combine)
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
            self._submit_to(address, forward, payload, self._futures_of(members), self._places(members))
            for address, members in band_set.members.items()
        ]
        targets = [self._placed.futures[i] for i in band_set.bands]
        positions = [self._position(i) for i in band_set.bands]
        middle = self._submit_to(band_set.home, pointwise, payload, targets, band_set.bands, positions, margins)
        started += [*margins, middle]
        return middle

    def _to_panels(self, payload, band_set, middle, started):
        """Start what the panels of a set of row bands contribute; return the futures."""
        new = []
        for address, members in band_set.members.items():
            panels, places, first = self._futures_of(members), self._places(members), not new
            new.append(self._submit_to(address, backward, payload, panels, places, middle, first))
        started += new
        return new

    def _submit_to(self, address, fn, *args):
        key = _new_name(fn.__name__)
        return self._client.submit(fn, *args, key=key, workers=[address], pure=False)

    def _futures_of(self, members):
        return [self._panels.futures[i * len(self._columns) + j] for i, j in members]

    def _places(self, members):
        return [(i, j, self._columns[j], self._position(i)) for i, j in members]

    def _placements(self):
        """Return the row bands by the workers that hold their panels, a tuple of one address per panel."""
        held = sorted((number, address) for address, numbers in self._panels.held().items() for number in numbers)
        width, groups = len(self._columns), {}
        for i in range(self.n_chunks):
            placement = tuple(address for _, address in held[i * width : (i + 1) * width])
            groups.setdefault(placement, []).append(i)
        return groups

    def _homes(self):
        """Return the row bands by the worker that y of them goes to: in turns those that hold panels of them."""
        homes = {}
        for placement, bands in self._placements().items():
            addresses = list(dict.fromkeys(placement))
            for address, part in zip(addresses, np.array_split(bands, len(addresses))):
                homes.setdefault(address, []).extend(part.tolist())
        return homes

    def _sets(self):
        """Cut the row bands into sets whose panels and y the same workers hold: a task per worker and step each."""
        homes, sets = {i: address for address, numbers in self._placed.held().items() for i in numbers}, []
        for placement, bands in self._placements().items():
            by_home = {}
            for i in bands:
                if self._lengths[i]:
                    by_home.setdefault(homes[i], []).append(i)
            for home, own in by_home.items():
                for part in np.array_split(own, min(self._n_sets(placement, own, len(by_home)), len(own))):
                    members = {}
                    for i, (j, address) in itertools.product(part.tolist(), enumerate(placement)):
                        members.setdefault(address, []).append((i, j))
                    sets.append(_Set(part.tolist(), members, home))
        return sets

    def _n_sets(self, placement, bands, n_homes):
        """Return into how many sets to cut bands: enough for all threads, and for their bytes to stay in memory."""
        needed = 1
        for address in set(placement):
            worker = self._panels.workers[address]
            here = [j for j, other in enumerate(placement) if other == address]
            n_bytes = self._panel_bytes[np.ix_(bands, here)].sum() * worker.n_threads
            needed = max(needed, -(-worker.n_threads // n_homes), -int(-n_bytes // (SET_SHARE * worker.memory_limit)))
        return needed

    def _broadcast(self, work):
        payload = _dumps(work)
        self.bytes_moved += len(payload)
        if len(payload) > BROADCAST_BYTES:
            payload = self._client.submit(itself, payload, key=_new_name("broadcast"))
        return payload

    def _map_panels(self, fn, args, beside=False):
        """Return ``fn(panel, *args[i])`` of every panel, band by band; None where ``args[i]`` is None.

        With ``beside`` the band's y and weights are the last argument.
        """
        wanted = [i for i, arg in enumerate(args) if arg is not None]
        work = self._broadcast(MapChunks(fn))

        def submit(started):
            numbers = []
            held, with_targets = self._panels.held(wanted), list(args)
            if beside:
                self._placed.held()  # makes those anew that are lost
                width = len(self._columns)
                with_targets = [(*arg, self._placed.futures[i // width]) for i, arg in enumerate(args)]
            for address, members in sets_of(held, self._panels.workers, self._chunk_bytes, SET_SHARE):
                chunks = [self._panels.futures[i] for i in members]
                started.append(self._submit_to(address, run_set, work, chunks, [with_targets[i] for i in members]))
                numbers += members
            return numbers

        numbers, parts = self._carry_out(submit)
        values = [None] * len(args)
        for i, value in zip(numbers, [value for part in parts for value in part.value]):
            values[i] = value
        return values

    def _map_chunks(self, fn, args):
        found = super()._map_chunks(fn, args)
        if fn is not _take:
            return found
        # A pilot's rows: what was taken of the targets above has no columns yet.
        width = len(self._columns)
        panels = self._map_panels(_take, [arg for arg in args for _ in range(width)])
        bands = [panels[i * width : (i + 1) * width] for i in range(self.n_chunks)]
        return [
            None if chunk is None else replace(chunk, X=side_by_side(tuple(panel.X for panel in band)))
            for chunk, band in zip(found, bands)
        ]  # fmt: skip


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
