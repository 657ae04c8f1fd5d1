"""What one task of a pass over column panels does; pure functions that run on the workers.

A worker calls `forward` for panels it holds, the one that holds y calls `pointwise`, and the first ones `backward`: the
steps of `split.SplitRun`. `merge` adds up what comes of them, label by label: the number of a panel, or "partial" for
the sums that need no X.
"""

import pickle
import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.utils.fold import Fold

from .blas import one_blas_thread
from .work import pickled_size


class PanelPass(NamedTuple):
    """What all tasks of a pass are sent, pickled."""

    fn: Any
    combine: Any
    n_blocks: int
    n_panels: int


class Margins(NamedTuple):
    """Nodes of the sums of margins over panels, by row band, and where they are."""

    nodes: dict
    address: str
    compute: float


class Middle(NamedTuple):
    """Nodes of the sums over blocks by label, what goes back to the columns by row band, and where it is."""

    nodes: dict
    back: dict
    address: str
    compute: float
    reduce: float
    n_bytes: int


def make_panel(i, width, dtype, X):
    """Return one panel of row band i as a Chunk."""
    from daskdml.data.lazy import make_chunk

    return make_chunk(i, X, {}, dtype, (width,))


def make_targets(i, n, named, *parts):
    """Return y and weights of the n rows of band i as a Chunk of no columns."""
    from daskdml.data.lazy import make_chunk

    return make_chunk(i, np.empty((n, 0)), dict(zip(named, parts)), None)


def make_tile(i, width, dtype, named, replace, X, *parts):
    """Return ``replace`` of one panel of row band i with y and weights as a Chunk."""
    from daskdml.data.lazy import make_chunk

    return replace(make_chunk(i, X, dict(zip(named, parts)), dtype, (width,)))


def map_beside(panel, fn, first_block, first_row, rows_per_block, targets):
    """List ``fn(block)`` of the blocks of a panel with the band's y and weights."""
    chunk = type(panel)(panel.X, targets.y, targets.weight)
    return [fn(block) for block in chunk.blocks(first_block, first_row, rows_per_block)]


def measure(chunk):
    return len(chunk), chunk.nbytes


def forward(payload, panels, places):
    """Compute the margins of some panels and add them up, as far as their tree goes without other workers' panels."""
    start = time.perf_counter()
    work = pickle.loads(payload)
    sums = {}
    with one_blas_thread():
        for chunk, (i, j, columns, position) in zip(panels, places):
            raw = np.concatenate([work.fn.forward(block.X, columns) for block in chunk.blocks(*position)])
            # Not into one sum per worker, whatever it holds: its rounding would depend on who holds what.
            sums.setdefault(i, Fold(work.n_panels)).add(j, raw)
    return Margins({i: total.nodes for i, total in sums.items()}, _here(), time.perf_counter() - start)


def pointwise(payload, targets, bands, positions, margins):
    """Add up the margins of some row bands, evaluate what is pointwise in them and fold it over the blocks."""
    start = time.perf_counter()
    work = pickle.loads(payload)
    fold, back, here = Fold(work.n_blocks, work.combine), {}, _here()
    with one_blas_thread():
        for chunk, i, position in zip(targets, bands, positions):
            total, g = Fold(work.n_panels), []
            for some in margins:
                _merge_nodes(total, some.nodes[i])
            raw = total.result()
            for block in chunk.blocks(*position):
                first = block.start - position[1]
                partial, own = work.fn.pointwise(raw[first : first + block.n_rows], block.y, block.weight)
                fold.add(block.index, partial)
                g.append(own)
            back[i] = None if g[0] is None else np.concatenate(g)
    sent = [nodes for some in margins if some.address != here for nodes in some.nodes.values()]
    moved = sum(part.nbytes for nodes in sent for part in nodes.values())
    compute = sum(some.compute for some in margins) + time.perf_counter() - start - fold.seconds
    return Middle({"partial": fold.nodes}, back, here, compute, fold.seconds, moved)


def backward(payload, panels, places, middle, carry):
    """Fold what some panels contribute over their blocks; ``carry`` passes the sums that need no X on."""
    start = time.perf_counter()
    work = pickle.loads(payload)
    folds = {}
    with one_blas_thread():
        for chunk, (i, j, columns, position) in zip(panels, places):
            fold = folds.setdefault(j, Fold(work.n_blocks, work.combine))
            for block in chunk.blocks(*position):
                first = block.start - position[1]
                g = None if middle is None else middle.back[i][first : first + block.n_rows]
                fold.add(block.index, work.fn.backward(block.X, columns, g))
    reduce = sum(fold.seconds for fold in folds.values())
    compute, nodes, moved = time.perf_counter() - start - reduce, {j: fold.nodes for j, fold in folds.items()}, 0
    if middle is not None:
        moved = sum(g.nbytes for g in middle.back.values()) if middle.address != _here() else 0
        if carry:
            nodes.update(middle.nodes)
            compute, reduce, moved = compute + middle.compute, reduce + middle.reduce, moved + middle.n_bytes
    return Middle(nodes, {}, "", compute, reduce, moved + pickled_size(nodes))


def merge(payload, parts):
    """Merge what several tasks found."""
    work = pickle.loads(payload)
    return merge_all(parts, work.n_blocks, work.combine)


def merge_all(parts, n_blocks, combine):
    """Merge several `Middle`, label by label."""
    start, folds = time.perf_counter(), {}
    for part in parts:
        for label, nodes in part.nodes.items():
            _merge_nodes(folds.setdefault(label, Fold(n_blocks, combine)), nodes)
    reduce = sum(part.reduce for part in parts) + time.perf_counter() - start
    moved = sum(part.n_bytes for part in parts)
    nodes = {label: fold.nodes for label, fold in folds.items()}
    return Middle(nodes, {}, "", sum(part.compute for part in parts), reduce, moved)


def _merge_nodes(fold, nodes):
    other = Fold(fold.n_blocks)
    other.nodes = nodes
    fold.merge(other)


def _here():
    from distributed import get_worker

    return get_worker().address
