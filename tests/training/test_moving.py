"""Rows that move from slow ranks to others: who gets which, that none is lost, and that no bit depends on it."""

import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse

from daskdml.neural_network import MLPClassifier
from daskdml.runtime.spmd.program import Comm
from daskdml.strategies import BSP, SSP, ParameterServer
from daskdml.testing import SimulatedCluster
from daskdml.training import Piece, Schedule
from daskdml.training.moving import UNEVEN, are_uneven, move, new_owners

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_ready_long_after_the_others(seed):
    """No longer than the slowest rank takes for a unit."""
    rng = np.random.default_rng(seed)
    n_ranks, n_units = rng.integers(2, 9), rng.integers(20, 400)
    speed, sizes = rng.uniform(0.2, 2.0, n_ranks), rng.integers(1, 50, n_units)
    owners = np.sort(rng.integers(0, n_ranks, n_units))
    owners[rng.random(n_units) < 0.05] = -1
    found = new_owners(owners, sizes, speed)
    assert ((owners < 0) == (found < 0)).all()
    has = np.bincount(found[found >= 0], sizes[found >= 0], n_ranks)
    times, even = has / speed, has.sum() / speed.sum()
    assert times.max() <= even + 50 / speed.min()
    assert times.max() <= (np.bincount(owners[owners >= 0], sizes[owners >= 0], n_ranks) / speed).max()


@pytest.mark.parametrize("seed", range(20))
def test_nobody_takes_more_than_there_is_room_for(seed):
    rng = np.random.default_rng(seed)
    speed, sizes = rng.uniform(0.1, 2.0, 5), rng.integers(1, 50, 300)
    owners = rng.integers(0, 5, 300)
    has = np.bincount(owners, sizes, 5)
    most = has + rng.integers(0, 800, 5)
    found, free = new_owners(owners, sizes, speed, most), new_owners(owners, sizes, speed)
    after, before = np.bincount(found, sizes, 5), has / speed
    assert (after <= most).all() and (np.bincount(free, sizes, 5) > most).any()
    assert (after / speed).max() < before.max() or (most - has)[before < before.max()].max() < 50


def test_small_differences_are_left():
    rows = np.full(8, 100.0)
    assert not are_uneven(rows, np.where(np.arange(8), 1.0, 1 / (UNEVEN - 0.05)))
    assert are_uneven(rows, np.where(np.arange(8), 1.0, 1 / (UNEVEN + 0.1)))


class Post:
    """Messages between ranks that are threads."""

    def __init__(self, rank, boxes):
        self.rank, self.boxes = rank, boxes

    def send(self, to, array):
        self.boxes[self.rank, to].put(array)

    def receive(self, source):
        return self.boxes[source, self.rank].get(timeout=30)


@pytest.mark.parametrize("kind", ["dense", "csr", "weights"])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_no_row_is_lost_or_doubled(kind, is_mixed):
    rng = np.random.default_rng(0)
    schedule = Schedule.of(3000, 64, 0, is_mixed=is_mixed, least=4, held_out=0.1)
    X, y = rng.normal(size=(3000, 4)), np.arange(3000.0)
    first, stop = schedule.unit_spans(np.arange(schedule.n_units))
    owners = np.where(stop > first, np.arange(schedule.n_units) * 3 // schedule.n_units, -1)
    found = np.where(owners < 0, -1, rng.integers(0, 3, schedule.n_units))
    # Pieces that end where units do not.
    edges = np.unique([*first[np.flatnonzero(np.diff(owners)) + 1], 0, 100, 707, 1500, 3000])
    boxes = {(a, b): queue.SimpleQueue() for a in range(3) for b in range(3)}
    pieces = {rank: [] for rank in range(3)}
    for a, b in zip(edges, edges[1:]):
        part = sparse.csr_array(X[a:b]) if kind == "csr" else X[a:b]
        owner = owners[schedule.unit_of([a])[0]]
        pieces[owner].append(Piece(int(a), part, y[a:b], y[a:b] + 1 if kind == "weights" else None))
    with ThreadPoolExecutor(3) as pool:
        kept = list(pool.map(lambda rank: move(pieces[rank], schedule, owners, found, Post(rank, boxes)), range(3)))
    for rank in (0, 1, 2):
        rows = np.concatenate([np.arange(p.start, p.start + p.X.shape[0]) for p in kept[rank]])
        expected = np.concatenate([np.arange(first[u], stop[u]) for u in np.flatnonzero(found == rank)])
        np.testing.assert_array_equal(np.sort(rows), expected)
        for piece in kept[rank]:
            part = slice(piece.start, piece.start + piece.X.shape[0])
            here = piece.X.toarray() if kind == "csr" else piece.X
            np.testing.assert_array_equal(here, X[part])
            np.testing.assert_array_equal(piece.y, y[part])
            assert (piece.weight is None) == (kind != "weights")


def data(n=8192):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)).astype("f")
    return X, (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


def fitted(consistency, moves_rows, **params):
    strategy = ParameterServer(consistency=consistency, moves_rows=moves_rows)
    model = MLPClassifier((8,), solver="sgd", batch_size=256, max_iter=6, random_state=0, strategy=strategy, tol=0,
                          dtype="float64", learning_rate_init=0.05, early_stopping=True, **params)  # fmt: skip
    cluster = SimulatedCluster(8, rows_per_block=256, seconds_per_row=1e-4, stragglers={3: 4.0})
    return cluster.fit(model, *data())


def seconds(model):
    return np.diff([0.0, *(record.seconds for record in model.fit_report_.records)])


def test_rows_that_move_change_no_batch():
    """In step: the same sums, of rows that lie elsewhere; held-out rows are scored once, wherever they are."""
    stay, move = fitted(BSP(), False), fitted(BSP(), True)
    assert "rows moved" not in stay.fit_report_.counts and move.fit_report_.counts["rows moved"] > 500
    for one, other in zip(stay.coefs_, move.coefs_):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stay.validation_scores_, move.validation_scores_)


def test_rows_move_where_there_is_room(monkeypatch):
    """Of 1,024 rows that the slow rank has each unit is about a half; the bytes of one are 32, or more as they lie."""
    monkeypatch.setattr(Comm, "room", lambda comm: 600.0 * 64 * (comm.rank == 1))
    moved = fitted(BSP(), True).fit_report_.counts["rows moved"]
    monkeypatch.setattr(Comm, "room", lambda comm: 400.0 * 32)
    assert moved > 400 and fitted(BSP(), True).fit_report_.counts["rows moved"] == 0


def test_a_slow_rank_holds_nobody_up():
    """One four times as slow: of the time that it costs, staleness gives nothing back, rows that move most of it."""
    stay, move = seconds(fitted(SSP(3), False)), seconds(fitted(SSP(3), True))
    even = SimulatedCluster(8, rows_per_block=256, seconds_per_row=1e-4)
    model = MLPClassifier((8,), solver="sgd", batch_size=256, max_iter=6, random_state=0, tol=0, dtype="float64",
                          strategy=ParameterServer(consistency=SSP(3)), early_stopping=True)  # fmt: skip
    quick = seconds(even.fit(model, *data()))
    assert model.fit_report_.counts["rows moved"] == 0
    recovered = (stay[2:].mean() - move[2:].mean()) / (stay[2:].mean() - quick[2:].mean())
    assert recovered > 0.7
