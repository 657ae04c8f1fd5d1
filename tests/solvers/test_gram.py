"""Solutions from a Gram matrix or products with one, against closed forms and SciPy."""

import numpy as np
import pytest
from scipy import optimize

from daskdml.solvers import gram
from daskdml.solvers.gram import solve_nonnegative, solve_products


def spectrum(values, seed=0):
    """Return a symmetric matrix with the given eigenvalues."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    return (q * values) @ q.T


@pytest.mark.parametrize("condition", [1e1, 1e4, 1e7])
def test_conjugate_gradients_bound_the_error_not_the_residual(condition):
    A = spectrum(np.geomspace(1 / condition, 1, 40))
    W = np.random.default_rng(1).normal(size=(40, 3))
    found = solve_products(lambda V: A @ V, A @ W, tol=1e-6, max_iter=10_000)
    assert found.error <= 1e-6
    off = np.linalg.norm(found.W - W, axis=0) / np.linalg.norm(W, axis=0)
    assert off.max() <= 1e-6


def test_conjugate_gradients_of_a_singular_system_give_the_least_norm():
    A = spectrum(np.r_[np.zeros(10), np.geomspace(1e-2, 1, 20)])
    b = A @ np.random.default_rng(1).normal(size=(30, 2))
    found = solve_products(lambda V: A @ V, b, tol=1e-9, max_iter=1000)
    np.testing.assert_allclose(found.W, np.linalg.pinv(A, rcond=1e-8) @ b, atol=1e-7)
    assert found.n_iter < 100


def test_conjugate_gradients_that_are_stopped_say_how_far_they_are():
    A = spectrum(np.geomspace(1e-6, 1, 200))
    found = solve_products(lambda V: A @ V, A @ np.ones((200, 1)), tol=1e-9, max_iter=20)
    assert found.n_iter == 20 and found.error > 1e-9


def test_nothing_to_solve():
    found = solve_products(lambda V: V, np.zeros((4, 2)), tol=1e-9, max_iter=10)
    assert not found.W.any() and found.n_iter == 0 and found.error == 0


@pytest.mark.parametrize("p", [1, 5, 60])
@pytest.mark.parametrize("rank", ["full", "deficient"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_nonnegative(p, rank, alpha):
    rng = np.random.default_rng(p)
    X = rng.normal(size=(3 * p, p if rank == "full" else -(-p // 2)))
    X = np.hstack([X, X])[:, :p]
    y = rng.normal(size=3 * p)
    w = solve_nonnegative(X.T @ X, X.T @ y, alpha)
    rows, target = np.vstack([X, np.sqrt(alpha) * np.eye(p)]), np.r_[y, np.zeros(p)]
    best, lowest = optimize.nnls(rows, target)
    assert w.min() >= 0
    assert np.linalg.norm(rows @ w - target) <= lowest * (1 + 1e-9)
    if rank == "full" or alpha:
        np.testing.assert_allclose(w, best, atol=1e-8)


@pytest.mark.parametrize("start", [0.0, 1.0], ids=["none free", "all free"])
@pytest.mark.parametrize("p", [1, 7, 60])
def test_exchange_ends_at_the_answer_from_any_set(p, start, monkeypatch):
    """Where it begins, a quasi-Newton method's guess, only saves steps."""
    rng = np.random.default_rng(p)
    X, y = rng.normal(size=(3 * p, p)), rng.normal(size=3 * p)
    best, _ = optimize.nnls(X, y)
    guess = optimize.OptimizeResult(x=np.full(p, start))
    monkeypatch.setattr(gram.optimize, "minimize", lambda *args, **kwargs: guess)
    np.testing.assert_allclose(gram._exchange(X.T @ X, X.T @ y), best, atol=1e-9)
