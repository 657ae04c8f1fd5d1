"""Plans of networks against the fits they foresee."""

import math

import numpy as np
import pytest

from daskdml import config_context
from daskdml.compress import FP16, OneBit, PowerSGD, RandomK, TopK
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce, Hybrid, LocalSGD, ModelParallel, ParameterServer
from daskdml.testing import SimulatedCluster

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:LocalSGD|RandomK|OneBit|TopK|SignificantRows|significance|max_bytes|MLPClassifier"),
]


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


def sent(plan, n_workers=2):
    return next(row for row in plan.rows if (row.runtime, row.n_workers) == ("spmd", n_workers)).bytes_sent


@pytest.mark.parametrize("solver, n_arrays", [("sgd", 2), ("adam", 3)])
def test_local_steps_exchange_parameters_and_moments_an_eighth_as_often(solver, n_arrays):
    X, y = rows()
    params = {"hidden_layer_sizes": (64,), "batch_size": 64, "max_iter": 4, "solver": solver}  # 128 batches
    dense, local = (MLPClassifier(**params, strategy=strategy).plan(X, y) for strategy in (None, LocalSGD(8)))
    assert sent(dense) == 4 * 128 * 4 * (64 * 22 + 1)  # float32; of two each sends the other all
    assert sent(local) == sent(dense) * n_arrays / 8
    assert sent(MLPClassifier(**params, strategy=LocalSGD(32)).plan(X, y)) == sent(local) / 4
    for n_workers in (2, 4, 8):
        taken = [next(row.seconds for row in plan.rows if row.n_workers == n_workers) for plan in (dense, local)]
        assert taken[1] < taken[0]


@pytest.mark.parametrize(
    "strategy, batch_growth",
    [(LocalSGD(8), 1), (LocalSGD(4), 2), (AllReduce(compression=FP16()), 1), (AllReduce(compression=RandomK(0.1)), 1),
     (AllReduce(compression=PowerSGD(2), accumulate=2), 1), (AllReduce(), 1.5)], ids=str,
)  # fmt: skip
def test_bytes_of_strategies_are_near_those_that_ranks_send(strategy, batch_growth):
    X, y = rows()
    params = {"hidden_layer_sizes": (256,), "solver": "sgd", "batch_size": 256, "max_iter": 4, "tol": 0, "momentum": 0}
    model = MLPClassifier(**params, strategy=strategy, batch_growth=batch_growth)
    plan = sent(model.plan(X, y))
    counts = SimulatedCluster(2, rows_per_block=256).fit(model, X, y).fit_report_.counts
    assert 0.5 <= plan / counts["bytes sent for steps"] <= 2
    assert plan < 0.8 * sent(MLPClassifier(**params).plan(X, y))


@pytest.mark.parametrize(
    "strategy, message",
    [(AllReduce(compression=TopK(0.1)), r"AllReduce\(compression=TopK.*packets of all others; ask with strategy=None"),
     (AllReduce(compression=OneBit()), "packets of all"), (AllReduce(significance=1.0), "packets of all"),
     (AllReduce(max_bytes_per_round=100), "packets of all"), (AllReduce("ring"), "ask with topology='auto'"),
     (LocalSGD(4, groups=2), "groups=2.*without groups"), (LocalSGD(4, mixing="gossip"), "mixing='allreduce'"),
     (ParameterServer(), "sends; ask with strategy=None"),
     (ModelParallel(), "not cut into shards"), (Hybrid(), "not cut into shards")],
    ids=str,
)  # fmt: skip
def test_strategies_that_are_not_foreseen_are_refused(strategy, message):
    with pytest.raises(ValueError, match="plan cannot say yet what .*" + message):
        MLPClassifier(solver="sgd", strategy=strategy).plan(*rows(200))


def test_bad_parameters_are_refused_as_a_fit_does():
    X, y = rows(200)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        MLPClassifier((0,)).plan(X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        MLPClassifier().plan(X, y + 0.5)
