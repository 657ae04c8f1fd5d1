"""Linear models that train by batches on a real device find what they find on the host; skipped where there is none."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from daskdml.compress import TopK
from daskdml.kernels.sequential import LOSSES
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster

cupy = pytest.importorskip("cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:AllReduce|TopK|LocalSGD"),
]
PARAMS = {"max_iter": 4, "tol": None, "random_state": 0, "batch_size": 40, "alpha": 0.01, "eta0": 0.05}


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0) / 3, y


def same(there, here):
    for found, expected in ((there.coef_, here.coef_), (there.intercept_, here.intercept_)):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert (there.n_iter_, there.t_) == (here.n_iter_, here.t_)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", ["l2", "elasticnet"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes(cancer, loss, penalty, dtype):
    (X, y), weight = cancer, np.random.default_rng(0).uniform(0, 2, 569)
    X, y = X.astype(dtype), y + (X[:, 0] > 1)
    params = {**PARAMS, "loss": loss, "penalty": penalty, "learning_rate": "constant", "average": 5,
              "strategy": AllReduce(), "early_stopping": True}  # fmt: skip
    here, rows = SGDClassifier(**params).fit(X, y, sample_weight=weight), cupy.asarray(X)
    there = SGDClassifier(**params).fit(rows, cupy.asarray(y), sample_weight=cupy.asarray(weight))
    same(there, here)
    np.testing.assert_allclose(here.decision_function(rows), here.decision_function(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES[5:])
def test_regressions(loss):
    X, y = load_diabetes(return_X_y=True)
    X, y = X * 10, y / 100
    here, there = (SGDRegressor(**PARAMS, loss=loss, strategy=AllReduce()) for _ in range(2))
    for _ in range(3):
        same(there.partial_fit(cupy.asarray(X), cupy.asarray(y)), here.partial_fit(X, y))
    np.testing.assert_allclose(there.predict(cupy.asarray(X)), here.predict(X), rtol=1e-6)


@pytest.mark.parametrize("strategy", [AllReduce(), AllReduce(compression=TopK(0.1)), LocalSGD(2)], ids=str)
def test_ranks_that_share_a_device(cancer, strategy):
    X, y = cancer
    here, there = (
        SimulatedCluster(3, rows_per_block=64).fit(SGDClassifier("log_loss", **PARAMS, strategy=strategy), rows, y)
        for rows in (X, cupy.asarray(X))
    )
    same(there, here)
