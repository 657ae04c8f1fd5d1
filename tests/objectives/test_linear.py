"""The objective of a linear map against the textbook formula and its numerical derivatives, on every kind of block."""

import pickle

import numpy as np
import pytest
from scipy import sparse

from daskdml.data import Block
from daskdml.losses import Logistic, Multinomial, Squared
from daskdml.objectives import Evaluator, LinearObjective, Partial
from daskdml.penalties import ElasticNet
from daskdml.testing.problems import OneBlock, linear_problem

N, P = 120, 5
KINDS = {
    "dense": lambda X: X,
    "columns": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_matrix,
    "panels": lambda X: (np.ascontiguousarray(X[:, :2]), np.ascontiguousarray(X[:, 2:])),
    "csr panels": lambda X: (sparse.csr_matrix(X[:, :2]), sparse.csr_matrix(X[:, 2:])),
}
LOSSES = {"logistic": Logistic(), "squared": Squared(), "multinomial": Multinomial(3)}


def rows(loss, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P)) * (rng.random((N, P)) < 0.8)
    # Numbers that float32 holds exactly, so that all kinds hold the same matrix.
    X = np.round(X * 64) / 64
    y = rng.integers(0, 3 if loss.n_outputs > 1 else 2, N).astype(np.float32)
    return X, y, rng.uniform(0.5, 2.0, N)


def make(loss, kind, penalty=None, weight=True, **options):
    X, y, w = rows(loss)
    penalty = penalty or ElasticNet(l2=0.3)
    w = w if weight else None
    problem = linear_problem(X, y, loss, penalty, weight=w, **options)
    problem.evaluators.run = OneBlock(KINDS[kind](X), y, w)
    return problem, X, y.astype(float), np.ones(N) if w is None else w


def textbook(loss, X, y, weight, coef, intercept, l1, l2):
    raw = X @ coef.T + intercept
    raw = raw[:, 0] if loss.n_outputs == 1 else raw
    value = loss.arrays(raw, y, weight, 0)[0] / weight.sum()
    return value + l1 * np.abs(coef).sum() + 0.5 * l2 * (coef**2).sum()


def slope(function, theta, j, step=1e-3):
    def at(t):
        moved = theta.copy()
        moved[j] += t
        return np.asarray(function(moved))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


COORDINATES = {
    "plain": {},
    "no intercept": {"fit_intercept": False},
    "centred": {"center": np.linspace(-1, 1, P), "deviation": np.linspace(0.5, 3, P)},
    "centred in kernel": {"center": np.linspace(-1, 1, P), "deviation": np.linspace(0.5, 3, P), "in_kernel": True},
    "constant column": {"deviation": np.array([1.0, 0.0, 2.0, 0.0, 1.0])},
    "penalised intercept": {"intercept_scale": 0.5},
}
CASES = [
    (name, kind, where)
    for name in LOSSES
    for kind in KINDS
    for where in COORDINATES
    # Sparse columns are never shifted.
    if not ("csr" in kind and "centred" in where)
]


@pytest.mark.parametrize("name, kind, where", CASES)
def test_value_gradient_and_hessian(name, kind, where):
    loss = LOSSES[name]
    problem, X, y, weight = make(loss, kind, **COORDINATES[where])
    objective, evaluators = problem.objective, problem.evaluators
    theta = np.random.default_rng(1).normal(size=objective.n_params)
    tolerance = 3e-6 if kind == "float32" else 1e-9
    coef, intercept = objective.unflatten(theta)
    found = evaluators.hessian(theta)

    expected = textbook(loss, X, y, weight, coef, intercept, 0.0, 0.3)
    if where == "penalised intercept":
        expected += 0.5 * 0.3 * ((0.5 * intercept) ** 2).sum()
    np.testing.assert_allclose(found.value, expected, rtol=tolerance)
    np.testing.assert_allclose(evaluators.value_gradient(theta).gradient, found.gradient, rtol=1e-12, atol=1e-12)
    assert evaluators.many([theta, theta + 1])[0] == pytest.approx(found.value, rel=1e-13)

    # Differences of float32 sums would show rounding: take them of the float64 twin.
    smooth = Evaluator(objective, OneBlock(X, y.astype(np.float32), weight))
    for j in range(theta.size):
        by_values = slope(lambda t: smooth.value_gradient(t).value, theta, j)
        np.testing.assert_allclose(found.gradient[j], by_values, rtol=1e-6, atol=max(tolerance, 1e-8))
    second = np.stack([slope(lambda t: smooth.value_gradient(t).gradient, theta, j) for j in range(theta.size)])
    gauge = found.hessian - second
    if loss.n_outputs > 1:
        # Along directions the loss cannot see the matrix has curvature added, and nowhere else.
        width = theta.size // 3
        four = gauge.reshape(3, width, 3, width)
        gauge = gauge - np.einsum("ajbk->jk", four)[None, :, None, :].repeat(3, 0).repeat(3, 2).reshape(gauge.shape) / 9
    np.testing.assert_allclose(gauge, 0, atol=max(10 * tolerance, 1e-8))

    direction = np.random.default_rng(2).normal(size=theta.size)
    np.testing.assert_allclose(evaluators.hvp(theta, direction), second @ direction, rtol=1e-6, atol=10 * tolerance)
    np.testing.assert_allclose(evaluators.hessian_diagonal(theta), np.diag(second), rtol=1e-6, atol=10 * tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_flatten_undoes_unflatten(name):
    objective = make(LOSSES[name], "dense", **COORDINATES["centred"])[0].objective
    theta = np.random.default_rng(1).normal(size=objective.n_params)
    np.testing.assert_allclose(objective.flatten(*objective.unflatten(theta)), theta, rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_start_is_the_constant_model(name):
    loss = LOSSES[name]
    problem, _, y, weight = make(loss, "dense", **COORDINATES["centred"])
    if loss.n_outputs > 1:
        baseline = loss.baseline(np.bincount(y.astype(int), weight) / weight.sum())
    else:
        baseline = loss.baseline(np.average(y, weights=weight))
    coef, intercept = problem.objective.unflatten(problem.objective.start(baseline))
    assert not coef.any()
    np.testing.assert_allclose(intercept, baseline)


def test_class_weights_multiply_row_weights():
    X, y, weight = rows(Logistic())
    by_class = np.array([0.5, 3.0])
    total = (weight * by_class[y.astype(int)]).sum()
    theta = np.linspace(-1, 1, P + 1)
    a = LinearObjective(Logistic(), ElasticNet(l2=0.1), P, total, class_weight=by_class)
    b = LinearObjective(Logistic(), ElasticNet(l2=0.1), P, total)
    found = Evaluator(a, OneBlock(X, y, weight)).hessian(theta)
    expected = Evaluator(b, OneBlock(X, y, weight * by_class[y.astype(int)])).hessian(theta)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)
    alone = Evaluator(a, OneBlock(X, y, None)).value_gradient(theta)
    np.testing.assert_allclose(
        alone.value, Evaluator(b, OneBlock(X, y, by_class[y.astype(int)])).value_gradient(theta).value, rtol=1e-13
    )


def test_partials_of_blocks_add_up():
    problem, X, y, weight = make(Logistic(), "dense")
    theta = np.linspace(-1, 1, P + 1)
    at = problem.objective.at(theta, 2)
    y = y.astype(np.float32)
    whole = at(Block(X, y, weight, 0, 0))
    parts = at(Block(X[:50], y[:50], weight[:50], 0, 0)) + at(Block(X[50:], y[50:], weight[50:], 1, 50))
    assert isinstance(parts, Partial)
    for a, b in zip(whole, parts):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_block_function_travels_by_pickle():
    problem, X, y, weight = make(Multinomial(3), "dense")
    at = problem.objective.at(np.linspace(-1, 1, problem.objective.n_params), 2)
    block = Block(X, y.astype(np.float32), weight, 0, 0)
    for a, b in zip(at(block), pickle.loads(pickle.dumps(at))(block)):
        np.testing.assert_array_equal(a, b)


def test_means_far_from_zero_in_float32():
    """A mean of a thousand deviations: centred row by row, float32 rows give the gradient of their float64 twins."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(3000, P)) + 1000).astype(np.float32)
    y = rng.integers(0, 2, 3000).astype(np.float32)
    # A shift of the rows' own precision, so that both subtract the same numbers.
    center, deviation = X.mean(axis=0).astype(np.float64), X.std(axis=0, dtype=np.float64)
    results = []
    for block in (X, X.astype(np.float64)):
        objective = LinearObjective(
            Logistic(), ElasticNet(), P, 3000, center=center, deviation=deviation, in_kernel=True
        )
        results.append(Evaluator(objective, OneBlock(block, y)).value_gradient(np.linspace(-1, 1, P + 1)))
    np.testing.assert_allclose(results[0].gradient, results[1].gradient, atol=1e-6)


@pytest.mark.parametrize("l1, l2", [(0.0, 0.1), (0.05, 0.0), (0.05, 0.1)])
@pytest.mark.parametrize("name", ["logistic", "multinomial"])
def test_gap_bounds_the_distance_to_the_minimum(name, l1, l2):
    """At random points, near and far, the duality gap is no smaller than the value less the least value found."""
    from daskdml.solvers import ProxNewton, State, minimize

    loss = LOSSES[name]
    problem, *_ = make(loss, "dense", ElasticNet(l1=l1, l2=l2))
    objective, evaluators = problem.objective, problem.evaluators
    found = minimize(
        ProxNewton(objective, True), evaluators, State(problem.start, None, None), tol=1e-14, max_iter=100
    )
    assert found.gap <= 1e-12
    rng = np.random.default_rng(0)
    for size in (1e-6, 1e-3, 0.1, 2.0):
        for _ in range(10):
            theta = found.theta + size * rng.normal(size=found.theta.size)
            evaluation = evaluators.value_gradient(theta)
            assert objective.gap(theta, evaluation) >= evaluation.value - found.evaluation.value - 1e-14
