"""Coordinate descent on a quadratic with an L1 term: its answer satisfies the optimality conditions."""

import numpy as np
import pytest

from daskdml.kernels.coordinate_descent import minimize_quadratic


def problem(p, rank=None, seed=0):
    rng = np.random.default_rng([p, seed])
    A = rng.normal(size=(rank or 2 * p, p))
    return A.T @ A / len(A), A.T @ rng.normal(size=len(A)) / len(A)


def violation(H, c, u, l1):
    g = H @ u - c
    return np.max(np.where(u == 0, np.maximum(np.abs(g) - l1, 0), np.abs(g + l1 * np.sign(u))))


@pytest.mark.parametrize("p", [1, 2, 10, 60])
@pytest.mark.parametrize("strength", [0.0, 0.01, 0.2, 10.0])
def test_optimality_conditions(p, strength):
    H, c = problem(p)
    l1 = np.full(p, strength)
    l1[0] = 0.0
    u = minimize_quadratic(H, c, np.zeros(p), l1, 1e-13, 10_000)
    assert violation(H, c, u, l1) < 1e-11
    if strength == 0:
        np.testing.assert_allclose(u, np.linalg.solve(H, c), rtol=1e-8, atol=1e-10)
    if strength == 10 and p > 1:
        assert not u[1:].any()


def test_rank_deficient():
    H, c = problem(20, rank=8)
    l1 = np.full(20, 0.05)
    u = minimize_quadratic(H, c, np.zeros(20), l1, 1e-12, 10_000)
    assert violation(H, c, u, l1) < 1e-9


def test_start_does_not_matter():
    H, c = problem(15)
    l1 = np.full(15, 0.1)
    a = minimize_quadratic(H, c, np.zeros(15), l1, 1e-14, 10_000)
    b = minimize_quadratic(H, c, np.full(15, 5.0), l1, 1e-14, 10_000)
    np.testing.assert_allclose(a, b, atol=1e-10)
    np.testing.assert_array_equal(a == 0, b == 0)


def test_start_at_the_answer():
    H, c = problem(15)
    l1 = np.full(15, 0.1)
    best = minimize_quadratic(H, c, np.zeros(15), l1, 1e-15, 10_000)
    again = minimize_quadratic(H, c, best, l1, 1e-12, 10_000)
    assert violation(H, c, again, l1) <= 1e-12


def test_coordinate_without_curvature_stays():
    """A constant column has neither curvature nor slope."""
    H, c = problem(5)
    H[3] = H[:, 3] = c[3] = 0.0
    u = minimize_quadratic(H, c, np.zeros(5), np.full(5, 0.01), 1e-13, 1000)
    assert u[3] == 0.0
    assert violation(H, c, u, np.full(5, 0.01)) < 1e-11


def test_arguments_are_left_alone():
    H, c = problem(6)
    kept = H.copy(), c.copy(), np.ones(6)
    start = np.ones(6)
    minimize_quadratic(H, c, start, np.zeros(6), 1e-10, 100)
    for a, b in zip((H, c, start), kept):
        np.testing.assert_array_equal(a, b)
