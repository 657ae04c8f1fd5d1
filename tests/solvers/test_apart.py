"""Ranks that go towards a minimum at their own pace: against closed forms, and what optimality means."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from daskdml.penalties import ElasticNet
from daskdml.solvers import Newton, ProxNewton, State, minimize_apart
from daskdml.solvers.newton import Factor, factor

Q = 6


class Board:
    """A sum that threads add to, each as one rank whose rows' part of the objective is a quadratic."""

    def __init__(self, curvatures, targets, n_slow=0):
        self.curvatures, self.targets, self.n_slow = curvatures, targets, n_slow
        self.total, self.n_ready, self.given = np.zeros(len(targets[0])), 0, None
        self.lock, self.barrier = threading.Lock(), threading.Barrier(len(targets), timeout=60)
        self.n_evaluations = [0] * len(targets)

    def share(self, rank):
        curvature, target = self.curvatures[rank], self.targets[rank]
        pace = threading.Event()

        def begin(first):
            if rank == 0:
                self.total = self.total if self.total.any() else np.array(first)
            self.barrier.wait()
            total = self.total.copy()
            self.barrier.wait()
            return total

        def evaluate(theta):
            pace.wait(0.003 if rank < self.n_slow else 0.0003)  # else one thread would be through before others begin
            self.n_evaluations[rank] += 1
            gradient = curvature @ (theta - target)
            return 0.5 * (theta - target) @ gradient, gradient

        def push(change, becomes_ready):
            with self.lock:
                self.total, self.n_ready = self.total + change, self.n_ready + becomes_ready

        def add_up(own):
            with self.lock:
                self.given = np.array(own) if self.given is None else self.given + own
            self.barrier.wait()
            return self.given

        def read():
            with self.lock:
                return self.total.copy(), self.n_ready >= len(self.targets)

        return SimpleNamespace(
            weight=1 / len(self.targets), begin=begin, evaluate=evaluate, push=push, read=read, leave=lambda: None,
            add_up=add_up,
        )  # fmt: skip


def quadratics(n_ranks, spread, seed=0):
    """Return curvatures of ranks, the points where each is least, and the mean curvature."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(3 * Q, Q))
    base = base.T @ base / len(base) + 0.1 * np.eye(Q)
    scale = [1 + spread * rng.uniform(-1, 1) for _ in range(n_ranks)]
    return [base * s / n_ranks for s in scale], [rng.normal(size=Q) for _ in range(n_ranks)], base


def together(board, solver, model, gradient, n_rounds):
    found = [None] * len(board.targets)

    def work(rank):
        found[rank] = minimize_apart(solver, board.share(rank), np.zeros(Q), gradient, model, n_rounds)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def model_of(solver, hessian):
    return solver.prepare(State(np.zeros(Q), SimpleNamespace(hessian=hessian), None), None).model


def test_with_the_right_curvature_one_round_is_a_newton_step():
    curvatures, targets, hessian = quadratics(1, 0.0)
    solver = Newton(exact=False)
    ((theta, first, loss),) = together(Board(curvatures, targets), solver, model_of(solver, hessian), np.zeros(Q), 1)
    np.testing.assert_allclose(theta, targets[0], rtol=1e-10)
    np.testing.assert_array_equal(first, np.zeros(Q))  # where a gradient of zero leaves it
    assert loss == pytest.approx(0.5 * targets[0] @ curvatures[0] @ targets[0])


@pytest.mark.parametrize("n_slow", [0, 2])
@pytest.mark.parametrize("n_ranks", [2, 5])
@pytest.mark.parametrize("l1", [0.0, 0.2])
def test_any_pace_comes_to_the_optimum(l1, n_ranks, n_slow):
    """Of ranks whose curvatures are up to 30 % off what all believe; the last point is the same on all."""
    curvatures, targets, hessian = quadratics(n_ranks, 0.3)
    penalty, scale = ElasticNet(l1=l1), np.ones(Q)
    objective = SimpleNamespace(penalty=penalty, scale=scale)
    solver = ProxNewton(objective, exact=False) if l1 else Newton(exact=False)
    board = Board(curvatures, targets, min(n_slow, n_ranks - 1))
    found = together(board, solver, model_of(solver, hessian), np.full(Q, 0.3), 30)
    for theta, *_ in found:
        np.testing.assert_array_equal(theta, found[0][0])
    theta = found[0][0]
    gradient = sum(curvature @ (theta - target) for curvature, target in zip(curvatures, targets))
    assert penalty.violation(theta, gradient, scale) < 1e-9
    assert min(board.n_evaluations) >= 30


def test_what_is_not_finite_ends_and_leads_nowhere():
    curvatures, targets, hessian = quadratics(3, 0.1)
    curvatures[1] = curvatures[1] * np.nan
    solver = Newton(exact=False)
    for theta, first, loss in together(Board(curvatures, targets), solver, model_of(solver, hessian), np.ones(Q), 3):
        np.testing.assert_array_equal(theta, first)
        assert np.isfinite(theta).all() and np.isnan(loss)


def test_ranks_go_on_from_what_those_before_had_come_to():
    curvatures, targets, hessian = quadratics(3, 0.0)
    solver, board = Newton(exact=False), Board(curvatures, targets)
    model = model_of(solver, hessian)
    best = together(board, solver, model, np.zeros(Q), 3)[0][0]
    later = Board(curvatures[::-1], targets[::-1])
    later.total = board.total
    theta, first, _ = together(later, solver, model, np.zeros(Q), 1)[0]
    np.testing.assert_allclose(first, best, rtol=1e-9)
    np.testing.assert_allclose(theta, best, rtol=1e-9)


@pytest.mark.parametrize("rank", [Q, Q - 2])
def test_a_factor_multiplies_by_its_matrix(rank):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(Q, rank)) * 10.0 ** rng.uniform(-3, 3, Q)[:, None]
    found = factor(root @ root.T)
    assert found.kind == ("cholesky" if rank == Q else "eigen") and type(found) is Factor
    x = rng.normal(size=Q)
    np.testing.assert_allclose(found.multiply(x), root @ (root.T @ x), rtol=1e-6, atol=1e-12)
    g = root @ rng.normal(size=rank)
    np.testing.assert_allclose(found.multiply(found.solve(g)), g, rtol=1e-6)
