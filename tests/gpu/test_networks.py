"""Networks that train on a real device find what they find on the host; skipped where there is none."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from daskdml.compress import TopK
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster

cupy = pytest.importorskip("cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:AllReduce|TopK|LocalSGD"),
]
PARAMS = {"hidden_layer_sizes": (64, 16), "max_iter": 4, "random_state": 0, "batch_size": 300}


def same(there, here, tolerance):
    for found, expected in zip(there.coefs_ + there.intercepts_, here.coefs_ + here.intercepts_, strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=tolerance)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-2), ("float64", 1e-8)])
def test_classes(activation, solver, dtype, tolerance):
    X, y = load_digits(return_X_y=True)
    X, weight = X / 16, np.random.default_rng(0).uniform(0, 2, len(X))
    params = {**PARAMS, "activation": activation, "solver": solver, "dtype": dtype, "early_stopping": True}
    here = MLPClassifier(**params).fit(X, y, weight)
    rows = cupy.asarray(X)
    there = MLPClassifier(**params).fit(rows, cupy.asarray(y), cupy.asarray(weight))
    same(there, here, tolerance)
    assert there.n_iter_ == here.n_iter_
    np.testing.assert_allclose(here.predict_proba(rows), here.predict_proba(X), rtol=tolerance, atol=tolerance)
    assert there.score(rows, cupy.asarray(y)) == pytest.approx(there.score(X, y), abs=0.01)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_regressions(loss, solver):
    X, y = load_diabetes(return_X_y=True)
    Y = np.column_stack([y / 100, 1 + X[:, 3]])
    params = {**PARAMS, "loss": loss, "solver": solver, "dtype": "float64"}
    here = MLPRegressor(**params).fit(X, Y)
    same(MLPRegressor(**params).fit(cupy.asarray(X), cupy.asarray(Y)), here, 1e-6)


@pytest.mark.parametrize("strategy", [AllReduce(), AllReduce(compression=TopK(0.1)), LocalSGD(2)], ids=str)
def test_ranks_that_share_a_device(strategy):
    X, y = load_digits(return_X_y=True)
    X, params = X / 16, {**PARAMS, "solver": "sgd", "strategy": strategy, "dtype": "float64"}
    here, there = (
        SimulatedCluster(3, rows_per_block=64).fit(MLPClassifier(**params), rows, y) for rows in (X, cupy.asarray(X))
    )
    same(there, here, 1e-8)
