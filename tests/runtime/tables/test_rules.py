"""Steps that shards take along gradients, number by number by their definitions."""

import math

import numpy as np
import pytest

import daskdml
from daskdml.runtime.tables.rules import TableRule
from daskdml.runtime.tables.spec import DenseTable, Layout, SparseTable
from daskdml.strategies import BSP
from daskdml.testing import SimulatedCluster

METHODS = ["sgd", "momentum", "adagrad", "adam"]
PARAMS = {"rate": 0.3, "l1": 0.05, "momentum": 0.7, "beta_2": 0.9, "epsilon": 1e-3}


def by_hand(method, gradients, w=0.0):
    """Return one number after steps along some gradients."""
    v = s = 0.0
    mu, beta = PARAMS["momentum"], PARAMS["beta_2"]
    for n, g in enumerate(gradients, 1):
        rate = PARAMS["rate"]
        if method == "momentum":
            v = mu * v - rate * g
            w += v
        elif method == "adagrad":
            s += g**2
            rate /= math.sqrt(s) + PARAMS["epsilon"]
            w -= rate * g
        elif method == "adam":
            v, s = mu * v + (1 - mu) * g, beta * s + (1 - beta) * g**2
            rate /= math.sqrt(s / (1 - beta**n)) + PARAMS["epsilon"]
            w -= rate * v / (1 - mu**n)
        else:
            w -= rate * g
        w = math.copysign(max(abs(w) - rate * PARAMS["l1"], 0.0), w)
    return w


@pytest.mark.parametrize("method", METHODS)
def test_steps_by_their_definition(method):
    gradients = np.random.default_rng(0).normal(size=(9, 40))
    rule = TableRule(method, **PARAMS)
    theta, moments = np.linspace(-1, 1, 40), [np.zeros(40) for _ in range(rule.n_moments)]
    expected = [by_hand(method, g, w) for g, w in zip(gradients.T.tolist(), theta.tolist())]
    for n, gradient in enumerate(gradients, 1):
        rule.step(theta, gradient, moments, n)
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("method", ["sgd", "momentum", "adagrad"])
def test_rows_take_the_steps_of_their_own_gradients(method, dtype, rtol):
    """Through growth of the table, and a copy of it in the middle."""
    table, rng, seen = SparseTable(2, dtype, rule=TableRule(method, **PARAMS)), np.random.default_rng(0), {}
    layout = Layout({"rows": table}, 1)
    store = layout.store(0)
    for n in range(30):
        keys = rng.choice(50, 12, replace=False) * 2**40
        rows = rng.normal(size=(12, 2)).astype(dtype)
        for key, row in zip(keys.tolist(), rows):
            seen.setdefault(key, []).append(row)
        store.apply([{"rows": (keys, rows)}])
        if n == 15:
            state, store = store.state(), layout.store(0)
            store.restore(state)
    found = store.read({"rows": np.array([*seen, 7])})["rows"]
    expected = [[by_hand(method, np.array(rows)[:, j].tolist()) for j in range(2)] for rows in seen.values()]
    np.testing.assert_allclose(found, [*expected, [0.0, 0.0]], rtol=rtol, atol=1e-6 if dtype == "float32" else 1e-15)


class Descending(daskdml.Program):
    """Adds each rank's part of a gradient that all have together."""

    consistency = BSP()

    def __init__(self, method):
        self.rule = TableRule(method, **PARAMS)

    def tables(self, meta):
        return {"w": DenseTable(3, "float64", rule=self.rule)}

    def init(self, meta):
        return 0, None

    def step(self, state, blocks, comm):
        comm.tables["w"].add(sum(block.X[state[0]] for block in blocks))
        comm.tables.push()
        return state[0] + 1, comm.tables["w"].get()

    def done(self, state):
        return state[0] == 5


@pytest.mark.parametrize("method", METHODS)
def test_in_step_it_is_a_step_along_the_sum(method):
    X = np.random.default_rng(0).normal(size=(40, 3))
    _, found = SimulatedCluster(4, rows_per_block=10).run(Descending(method), X)
    gradients = [sum(X[10 * k + n] for k in range(4)) for n in range(5)]
    expected = [by_hand(method, np.array(gradients)[:, j].tolist()) for j in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("params", [{"method": "rms"}, {"rate": 0.0}, {"l1": -1.0}, {"momentum": 1.0}, {"beta_2": "a"}])
def test_refused(params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of TableRule"):
        TableRule(**params)
