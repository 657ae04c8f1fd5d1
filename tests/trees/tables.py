"""Rows of bins with gradients, cut into shards, and what runs on ranks that hold some of them."""

import itertools
from types import SimpleNamespace

import numpy as np

from daskdml.data import Block
from daskdml.kernels import growing
from daskdml.runtime.spmd import Meta, Program, run_threads
from daskdml.trees.growth import Steps
from daskdml.trees.kept_rows import DenseRows
from daskdml.trees.shards import Shard, Shards

MISSING = 255
ALONE = SimpleNamespace(size=1, rank=0)


class Table:
    """Rows of few bins, their gradients and hessians, and the integers that stand for them.

    Parameters
    ----------
    seed, n : int
    n_bins : tuple of int
        Of each feature.
    missing, categorical : tuple of int
        Features that miss values; features of categories.
    times : int
        How often a row counts at most; 1 for once.
    has_hessian : bool
    bits : int
    draws : dict
        share and is_stochastic, as `Grower.grow` takes them.
    """

    key = 5

    def __init__(
        self, seed, n=700, n_bins=(6, 5, 9), missing=(1,), categorical=(), times=1, has_hessian=True, bits=15, **draws
    ):
        rng = np.random.default_rng(seed)
        self.n, self.p, self.has_hessian, self.draws = n, len(n_bins), has_hessian, {"is_stochastic": False, **draws}
        self.bins = np.column_stack([rng.integers(n_bins[f], size=n) for f in range(self.p)]).astype(np.uint8)
        self.facts = np.array([(b, f in missing, f in categorical, 0) for f, b in enumerate(n_bins)], np.int64)
        self.first = np.cumsum([0, *(b + 1 for b in n_bins)])
        raw = np.sin(self.bins[:, 0] * 1.7) + self.bins[:, self.p // 2] * (self.bins[:, -1] % 3) / 4
        raw += rng.normal(size=n)
        for f in missing:
            self.bins[rng.random(n) < 0.15, f] = MISSING
        self.g = raw.astype(np.float32)
        self.h = rng.uniform(0.2, 1.0, n if has_hessian else 0).astype(np.float32)
        self.times = rng.integers(0, times + 1, n).astype(np.uint8) if times > 1 else None
        largest = float(np.abs(self.g).max()), float(self.h.max(initial=0.0))
        self.steps = Steps.of(largest, n * times, bits, times, not has_hessian)
        # What entries hold has tests of its own.
        entries = np.empty(n, np.uint64)
        times = np.empty(0, np.uint8) if self.times is None else self.times
        draws = self.draws.get("share", 1.0), self.draws["is_stochastic"]
        growing.fill_entries(self.g, self.h, times, 0, self.key, self.steps.scales, *draws, entries)
        m, low = (entries >> np.uint64(60)).astype(np.int64), entries.astype(np.uint32)
        self.counted = np.array([m * (low.view(np.int32) >> 16), m * (low & np.uint32(0xFFFF)), m])

    def shards(self, edges, n_threads=1, for_each=None):
        """Return the rows cut at some edges."""
        rows = np.zeros((self.n, -(-self.p // 4) * 4), np.uint8)
        rows[:, : self.p] = self.bins
        made = []
        for a, b in itertools.pairwise(edges):
            times = None if self.times is None else self.times[a:b]
            y = np.zeros(b - a)
            kept = DenseRows(rows[a:b].copy(), self.first)
            shard = Shard(kept, y, None, times, [(0, b - a, a)], np.zeros(b - a), self.has_hessian)
            shard.gradient[0] = self.g[a:b]
            shard.hessian[0] = self.h[a:b]
            made.append(shard)
        return Shards(made, self.first, n_threads, for_each or in_turn)


def in_turn(n_items, work):
    for i in range(n_items):
        work(i)


class OnRanks(Program):
    """Calls ``body(shards, comm)`` once, on ranks that hold a few of the pieces between edges each."""

    def __init__(self, table, body):
        self.table, self.body = table, body

    def init(self, meta):
        return False

    def step(self, state, local, comm):
        edges = [local[0].start, *(block.start + len(block.X) for block in local)]
        self.body(self.table.shards(edges), comm)
        return True

    def done(self, state):
        return state


def on_ranks(table, edges, n_ranks, body):
    """Run a body on threads; what it raises is raised here."""
    pieces = enumerate(itertools.pairwise(edges))
    blocks = [Block(np.empty((b - a, table.p)), None, None, i, a) for i, (a, b) in pieces]
    assert run_threads(OnRanks(table, body), blocks, Meta(table.n, table.p, len(blocks)), n_ranks).state
