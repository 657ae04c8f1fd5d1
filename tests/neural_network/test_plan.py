"""Plans of networks against the fits they foresee."""

import math

import numpy as np
import pytest

from daskdml import config_context
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce
from daskdml.testing import SimulatedCluster

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def rows(n=8192, p=20):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_rows_of_a_plan(kind, solver):
    new = kind(solver=solver, max_iter=7)
    with config_context(n_threads=2):
        plan = new.plan(*rows())
    first = plan.rows[0]
    assert (first.runtime, first.bytes_sent) == ("threads", 0) and first.passes >= 7
    assert {row.runtime for row in plan.rows} == {"threads", "spmd"} | ({"tasks"} if solver == "lbfgs" else set())
    assert all(0 < row.seconds < math.inf and row.fits for row in plan.rows)
    assert vars(new) == vars(kind(solver=solver, max_iter=7))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_bytes_are_near_those_that_ranks_send(accumulate):
    X, y = rows()
    model = MLPClassifier((64,), batch_size=1024, max_iter=4, strategy=AllReduce(accumulate=accumulate))
    plan = model.plan(X, y)
    counts = SimulatedCluster(2, rows_per_block=256).fit(model, X, y).fit_report_.counts
    sent = next(row for row in plan.rows if (row.runtime, row.n_workers) == ("spmd", 2)).bytes_sent
    # Beside gradients a rank has sent half of its rows once, in float32.
    rows_sent = (X.nbytes / 2 + 8 * len(y)) / 4
    assert 0.5 <= sent / (counts["bytes sent"] - rows_sent) <= 2


def test_bad_parameters_are_refused_as_a_fit_does():
    X, y = rows(200)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        MLPClassifier((0,)).plan(X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        MLPClassifier().plan(X, y + 0.5)
