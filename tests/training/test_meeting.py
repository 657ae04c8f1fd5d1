"""Units that lie on several ranks: each comes to one rank, with the rows it has in the whole."""

import numpy as np
import pytest
from numba import config
from scipy import sparse

from daskdml.data import Chunk
from daskdml.runtime.spmd import Meta, Program
from daskdml.testing import SimulatedCluster
from daskdml.training.meeting import _joined, meet
from daskdml.training.rows import Piece, pieces_of
from daskdml.training.schedule import Schedule

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of hashes, as plain Python

N, P = 403, 3
# Of units of 16 rows and more; strata of 201 and 202 rows, one stratum, and units that hold rows out.
SCHEDULES = {"two strata": (2, 1, 0), "one stratum": (1, 2, 0), "held out": (2, 2, 3), "one unit": (1, 50, 0)}
schedules = pytest.mark.parametrize("shape", SCHEDULES)
orders = pytest.mark.parametrize("is_mixed", [False, True], ids=["as they lie", "mixed"])
rank_counts = pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])


class Meet(Program):
    """Bring units together once, and note what each rank has of them."""

    def __init__(self, schedule):
        self.schedule, self.found, self.first_rows = schedule, {}, {}

    def fingerprint(self):
        return "meet"

    def init(self, meta):
        return 0

    def step(self, state, local, comm):
        pieces = pieces_of(local)
        self.first_rows[comm.rank] = [(piece.start, piece.start + piece.X.shape[0]) for piece in pieces]
        self.found[comm.rank] = meet(pieces, self.schedule, comm)
        return int(comm.allreduce(np.ones(1))[0])

    def done(self, state):
        return state > 0


def whole(layout="dense", is_weighted=True, n_targets=None, n=N, dtype=np.float32):
    """Return rows that tell their numbers."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, P)) * (rng.random((n, P)) < 0.6)
    X[:, 0] = np.arange(n)
    X = X.astype(dtype) if layout == "dense" else sparse.csr_array(X.astype(dtype))
    y = np.arange(n) + 0.5
    if n_targets is not None:
        y = y[:, None] + np.linspace(0, 0.25, n_targets)
    return X, y, 1.0 + np.arange(n) if is_weighted else None


def chunks_of(X, y, weight, edges):
    return [Chunk(X[a:b], y[a:b], None if weight is None else weight[a:b]) for a, b in zip(edges, edges[1:])]


def run(schedule, n_ranks, rows, rows_per_block=13, edges=None, own_copies=False):
    """Return what each rank found; rows are cut to chunks at ``edges``, and these to blocks."""
    n = rows[0].shape[0]
    blocks, at = [], 0
    for chunk in chunks_of(*rows, [0, n] if edges is None else edges):
        if own_copies:
            chunk = Chunk(*(part if part is None else part.copy() for part in (chunk.X, chunk.y, chunk.weight)))
        blocks += chunk.blocks(len(blocks), at, rows_per_block)
        at += len(chunk)
    program = Meet(schedule)
    assert SimulatedCluster(n_ranks).run_blocks(program, blocks, Meta(n, P, len(blocks))) == n_ranks
    assert set(program.found) == set(range(n_ranks))
    return program


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


def check(schedule, n_ranks, rows, program):
    """Hold the rows of all units against the whole, and count the owners of each unit."""
    X, y, weight = rows
    owners = np.zeros(schedule.n_units, int)
    for held, units in program.found.values():
        owners[units] += 1
        first, stop = schedule.unit_spans(units)
        places = np.concatenate([np.arange(a, b) for a, b in zip(first, stop)] or [np.empty(0, np.int64)])
        if not len(places):
            continue
        places = np.random.default_rng(3).permutation(places)
        numbers = schedule.mix(places, backwards=True)  # of the rows that stand there
        selection = held.select(numbers if n_ranks == 1 else places)
        out = None if held.is_sparse else np.empty((len(places), P), held.dtype)
        found = selection.X(0, len(places), out)
        assert found.dtype == X.dtype
        np.testing.assert_array_equal(dense(found), dense(X)[numbers])
        np.testing.assert_array_equal(selection.y, y[numbers])
        assert (selection.weight is None) == (weight is None)
        if weight is not None:
            np.testing.assert_array_equal(selection.weight, weight[numbers])
    first, stop = schedule.unit_spans(np.arange(schedule.n_units))
    assert (owners[stop > first] == 1).all() and owners.max() == 1


def make(shape, is_mixed, n=N):
    n_micro, micro_rows, n_held = SCHEDULES[shape]
    return Schedule(n, n_micro, micro_rows, 7, True, is_mixed, n_held)


@schedules
@orders
@rank_counts
@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
def test_each_unit_comes_to_one_rank(shape, is_mixed, n_ranks, layout, is_weighted):
    schedule, rows = make(shape, is_mixed), whole(layout, is_weighted)
    if is_mixed and n_ranks > 1 and shape == "one unit":
        n_ranks = 2  # the other ranks own none
    check(schedule, n_ranks, rows, run(schedule, n_ranks, rows))


@orders
@rank_counts
@pytest.mark.parametrize("rows_per_block", [1, 7, 16, 50])
def test_blocks_of_any_size(is_mixed, n_ranks, rows_per_block):
    schedule, rows = make("held out", is_mixed), whole()
    check(schedule, n_ranks, rows, run(schedule, n_ranks, rows, rows_per_block))


@orders
@rank_counts
@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_chunks_that_lie_apart(is_mixed, n_ranks, layout):
    """Of other lengths, cut anywhere, each in memory of its own; one shorter than a block, and one of a row."""
    schedule, rows = make("two strata", is_mixed), whole(layout)
    edges = [0, 100, 101, 140, 145, 300, N]
    check(schedule, n_ranks, rows, run(schedule, n_ranks, rows, 20, edges, own_copies=True))


@orders
@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_targets_of_two_dimensions_and_float64(is_mixed, layout, n_targets):
    schedule, rows = make("held out", is_mixed), whole(layout, n_targets=n_targets, dtype=np.float64)
    assert rows[1].shape == (N, n_targets)
    check(schedule, 3, rows, run(schedule, 3, rows))


@rank_counts
@pytest.mark.parametrize("rows_per_block", [13, 50])
def test_a_unit_belongs_to_the_rank_of_its_first_row(n_ranks, rows_per_block):
    schedule, rows = make("two strata", False), whole()
    program = run(schedule, n_ranks, rows, rows_per_block)
    for rank, (held, units) in program.found.items():
        first, stop = schedule.unit_spans(units)
        spans = program.first_rows[rank]
        assert all(any(a <= row < b for a, b in spans) for row in first[stop > first])
        if n_ranks > 1:  # and no row of another rank's units stays
            assert sum(piece.X.shape[0] for piece in held.pieces) == (stop - first).sum()


@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_ranks_own_equal_ranges_of_mixed_units(n_ranks):
    schedule, rows = make("two strata", True), whole()
    first, stop = schedule.unit_spans(np.arange(schedule.n_units))
    sizes = []
    for held, units in run(schedule, n_ranks, rows).found.values():
        assert (np.diff(units) == 1).all() and len(held.pieces) == 1
        assert held.pieces[0].start == first[units[0]]
        sizes.append(len(held.y))
        assert sizes[-1] == (stop - first)[units].sum()
    assert sum(sizes) == N and max(sizes) - min(sizes) <= 2 * schedule.unit_rows


@orders
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_batches_of_all_ranks_are_those_of_the_whole(is_mixed, is_shuffled):
    """Slices of the schedule, each taken on the rank that owns its unit."""
    schedule = Schedule(N, 2, 2, 7, is_shuffled, is_mixed and is_shuffled, 3)
    rows = whole()
    program, labels = run(schedule, 3, rows), {}
    _, _, units, places = schedule.slices(5, 0, schedule.n_batches)
    wanted, edges = schedule.rows_of(5, units, places)
    for held, own in program.found.values():
        for i in np.flatnonzero(np.isin(units, own)):
            labels[int(i)] = held.select(wanted[edges[i] : edges[i + 1]]).y
    expected = rows[1][schedule.mix(wanted, backwards=True)]
    np.testing.assert_array_equal(np.concatenate([labels[i] for i in range(len(units))]), expected)


@pytest.mark.parametrize("n", [5, 6, 7] if config.DISABLE_JIT else [5, 6, 7, 31, 32, 33])
@orders
def test_few_rows(n, is_mixed):
    """Fewer than a unit, a row to a block."""
    schedule = Schedule(n, 1, 2, 7, True, False)
    rows = whole(n=n)
    check(schedule, 5, rows, run(schedule, 5, rows, 1))


def test_a_rank_may_own_units_without_rows():
    """Strata of 16 and 17 rows have a unit and two; the second of the first has none."""
    schedule, rows = Schedule(33, 2, 1, 7, True, True, 0), whole(n=33)
    check(schedule, 4, rows, run(schedule, 4, rows, 1))


# Pieces put together -------------------------------------------------------------------------------------------------


def test_blocks_of_one_array_are_put_together():
    X, y, weight = whole()
    pieces = pieces_of(Chunk(X, y, weight).blocks(0, 10, 40))[::-1]
    (piece,) = _joined(pieces)
    assert piece.start == 10 and np.shares_memory(piece.X, X) and piece.X.shape == X.shape
    np.testing.assert_array_equal(piece.X, X)
    np.testing.assert_array_equal(piece.y, y)
    np.testing.assert_array_equal(piece.weight, weight)


def test_only_rows_that_follow_each_other_in_one_array_are_put_together():
    X, y, _ = whole()
    apart = {
        "a gap": [Piece(0, X[:5], y[:5], None), Piece(6, X[6:9], y[6:9], None)],
        "another order in memory": [Piece(0, X[5:9], y[5:9], None), Piece(4, X[:5], y[:5], None)],
        "two arrays": [Piece(0, X[:5].copy(), y[:5], None), Piece(5, X[5:9].copy(), y[5:9], None)],
        "sparse": [Piece(0, sparse.csr_array(X[:5]), y[:5], None), Piece(5, sparse.csr_array(X[5:9]), y[5:9], None)],
    }
    for pieces in apart.values():
        assert [piece.start for piece in _joined(pieces)] == [piece.start for piece in pieces]
    assert _joined([]) == []
