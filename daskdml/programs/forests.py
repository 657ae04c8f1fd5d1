"""A forest as a program: every rank is given all binned rows once, then grows its share of the trees of each step."""

import functools
import time

import numpy as np

from daskdml.data import as_matrix
from daskdml.runtime.spmd import Program
from daskdml.runtime.threads import for_each
from daskdml.trees import Forest, ForestState, WholeRows
from daskdml.trees.forest import TREES_PER_THREAD, lay_out_binned


def single_rows(X):
    """Return rows as float32, as scikit-learn's trees see them; NaN is a missing value.

    Raises
    ------
    ValueError
        For infinite values, and those that float32 makes infinite.
    """
    X = as_matrix(X)
    with np.errstate(over="ignore"):
        X = X if X.dtype == np.float32 else X.astype(np.float32)
    if np.isinf(X.data if hasattr(X, "indptr") else X).any():
        raise ValueError(
            "Input X contains infinity or a value too large for dtype('float32'). Trees see float32: divide the column "
            "by its size, or let missing values be NaN."
        )
    return X


class _Held:
    """The rows of a rank: its own, and those of all ranks once they have met."""

    def __init__(self, blocks):
        self.blocks, self.whole = blocks, None


class _Clock:
    """What the phases of a step take, and what it sends."""

    def __init__(self, state, comm):
        self.seconds, self.comm = dict(state.seconds or {}), comm
        self.rounds, self.bytes_sent, self.last = comm.rounds, comm.bytes_sent, time.perf_counter()

    def charge(self, **shares):
        """Add the time since the last call to phases, by their shares of it."""
        now = time.perf_counter()
        for phase, share in shares.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + share * (now - self.last)
        self.last = now

    def note(self, state):
        """Return a state with seconds, rounds and bytes."""
        return state._replace(
            seconds=self.seconds, n_rounds=state.n_rounds + self.comm.rounds - self.rounds,
            bytes_sent=state.bytes_sent + self.comm.bytes_sent - self.bytes_sent,
        )  # fmt: skip


class ForestProgram(Program):
    """Grow trees on all ranks.

    Parameters
    ----------
    forest : Forest
    state : ForestState
        To begin with.
    n_jobs : int or None
        Threads of each rank at most.
    """

    shares_threads = True

    def __init__(self, forest: Forest, state: ForestState, n_jobs=None):
        self.forest, self.state, self.n_jobs = forest, state, n_jobs

    def fingerprint(self):
        return self.forest, self.state

    def init(self, meta):
        return self.state

    def local(self, blocks):
        return _Held(blocks)

    def done(self, state):
        return self.forest.is_done(state)

    def step(self, state, local, comm):
        forest, n_threads = self.forest, self.n_threads if self.n_jobs is None else min(self.n_jobs, self.n_threads)
        each, clock = functools.partial(for_each, n_threads=n_threads), _Clock(state, comm)
        if comm.vote(local.whole is None):
            local.whole = self._meet(local.blocks, comm, each)
            clock.charge(reduce=1.0)
        if len(state.trees) >= forest.n_trees:
            oob = self._out_of_bag(state.trees, local.whole, comm, each)
            clock.charge(score=1.0)
            return clock.note(state._replace(oob=oob))
        threads = [int(n[0]) for n in comm.allgather(np.array([n_threads]))]
        first, left = len(state.trees), forest.n_trees - len(state.trees)
        # As many for each thread, so that none waits long for the others; the last ones as evenly as can be.
        per_thread = min(TREES_PER_THREAD, -(-left // sum(threads)))
        edges = np.minimum(np.cumsum([0, *(n * per_thread for n in threads)]), left) + first
        numbers = range(edges[comm.rank], edges[comm.rank + 1])
        grown, took = [None] * len(numbers), np.zeros((len(numbers), 2), np.int64)

        def work(i):
            grown[i] = forest.grow(numbers[i], local.whole, took[i])
            comm.check()

        each(len(numbers), work)
        took = np.maximum(took, 0)  # counters of two processors may differ
        divided = took[:, 1].sum() / max(took.sum(), 1)
        clock.charge(histogram=1 - divided, partition=divided)
        parts = comm.gather_values(tuple(grown))
        trees = comm.broadcast_value(None if parts is None else tuple(tree for part in parts for tree in part))
        clock.charge(reduce=1.0)
        return clock.note(state._replace(trees=(*state.trees, *trees)))

    def _meet(self, blocks, comm, each):
        """Return the rows of all ranks."""
        forest, meta = self.forest, comm.meta
        by_class = forest.recipe.n_classes > 0
        has_weight = comm.vote(any(block.weight is not None for block in blocks))
        rows = WholeRows(meta.n_samples, len(forest.bins.thresholds), by_class, has_weight)
        each(len(blocks), lambda i: rows.put(blocks[i].start, blocks[i].X, blocks[i].y, blocks[i].weight))
        if comm.size == 1:
            return rows
        own = np.array([(block.start, block.start + block.n_rows) for block in blocks], np.int64).reshape(-1, 2)
        held = [rows.take(a, b) for a, b in own]
        width = len(rows.columns)
        spans = comm.allgather(own)
        columns = comm.allgather(np.concatenate([np.empty((width, 0), np.uint8), *(part[0] for part in held)], axis=1))
        targets = comm.allgather(np.concatenate([np.empty(0), *(part[1] for part in held)]))
        weights = comm.allgather(np.concatenate([np.empty(0), *(part[2] for part in held)])) if has_weight else None
        for rank, span in enumerate(spans):
            at = 0
            for a, b in span.reshape(-1, 2):
                here = slice(at, at + b - a)
                rows.columns[:, a:b] = columns[rank].reshape(width, -1)[:, here]
                (rows.label if by_class else rows.value)[a:b] = targets[rank][here]
                if has_weight:
                    rows.weight[a:b] = weights[rank][here]
                at += b - a
        return rows

    def _out_of_bag(self, trees, rows, comm, each):
        """Return the means of what trees say of rows that they did not see, and y: each rank looks at some rows."""
        n, n_parts = len(rows), 4 * self.n_threads
        first, last = n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size
        edges = [first + (last - first) * i // n_parts for i in range(n_parts + 1)]
        found, plans = [None] * n_parts, [lay_out_binned(tree) for tree in trees]

        def work(i):
            found[i] = self.forest.out_of_bag(trees, plans, rows, edges[i], edges[i + 1])

        each(n_parts, work)
        means = np.concatenate(comm.allgather(np.concatenate(found)))
        return means, rows.label if rows.label.size else rows.value
