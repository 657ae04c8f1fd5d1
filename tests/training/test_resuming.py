"""Trainings that a later process goes on with, on as many ranks or others."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from daskdml import config_context
from daskdml.compress import TopK
from daskdml.linear_model import SGDClassifier
from daskdml.neural_network import MLPClassifier
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster
from daskdml.training.replica import Replica

pytestmark = pytest.mark.filterwarnings("ignore:MLPClassifier", "ignore:SGDClassifier")
SLOW = {"save_every": 1, "rows_per_block": 32, "seed": 2, "seconds_per_row": 1e-4}


def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def network(strategy):
    return MLPClassifier((16,), solver="sgd", learning_rate_init=0.1, batch_size=64, max_iter=20, tol=0,
                         random_state=0, strategy=strategy)  # fmt: skip


def linear(strategy):
    return SGDClassifier("log_loss", strategy=strategy, batch_size=64, max_iter=20, tol=None, random_state=0,
                         learning_rate="constant", eta0=0.1)  # fmt: skip


def broken_off(model, size, folder, at=0.8):
    """Fit on so many workers that all die, and leave a checkpoint."""
    with config_context(checkpoint=str(folder), checkpoint_every=0.01), pytest.raises(RuntimeError):
        SimulatedCluster(size, kills=[(at, k) for k in range(size)], **SLOW).fit(model, *digits())
    assert len(list(folder.iterdir())) == 1


def gone_on(model, size, folder):
    """Go on from it; return the model and the share of the rounds that a whole fit takes."""
    cluster, whole = (SimulatedCluster(size, **SLOW) for _ in range(2))
    with config_context(checkpoint=str(folder), resume=True):
        cluster.fit(model, *digits())
    assert not list(folder.iterdir())
    whole.fit(type(model)(**model.get_params(deep=False)), *digits())
    return cluster.report.rounds / whole.report.rounds


@pytest.mark.parametrize("make", [network, linear], ids=["network", "linear"])
@pytest.mark.parametrize("strategy", [LocalSGD(4), AllReduce(compression=TopK(0.1))], ids=str)
def test_a_fit_goes_on_with_other_workers(strategy, make, tmp_path, monkeypatch):
    """Where batches are cut for the ranks that there are, they stay cut for those that there were."""
    broken_off(make(strategy), 8, tmp_path)
    model, cuts, begin = make(strategy), [], Replica.open

    def noted(self, *rest):
        cuts.append(self.training.schedule.n_micro)
        begin(self, *rest)

    monkeypatch.setattr(Replica, "open", noted)
    share = gone_on(model, 3, tmp_path)
    assert share < 0.95 and cuts[0] == 8 and cuts[-1] == 4  # of the one that goes on, and of a whole one
    assert model.n_iter_ == 20 and model.score(*digits()) > 0.9


def test_what_waited_in_a_process_that_ended_is_counted(tmp_path):
    model = network(AllReduce(compression=TopK(0.1)))
    broken_off(model, 4, tmp_path)
    gone_on(model, 4, tmp_path)
    assert model.fit_report_.counts["memories lost"] == 1
    exact = network(AllReduce())
    broken_off(exact, 4, tmp_path)
    gone_on(exact, 4, tmp_path)
    assert exact.fit_report_.counts["memories lost"] == 0


def test_an_exact_fit_goes_on_with_other_workers_to_the_same_bits(tmp_path):
    model, whole = network(AllReduce()), network(AllReduce())
    broken_off(model, 4, tmp_path)
    gone_on(model, 2, tmp_path)
    whole.fit(*digits())
    assert all((a == b).all() for a, b in zip(model.coefs_, whole.coefs_)) and model.loss_curve_ == whole.loss_curve_


def test_a_warm_start_goes_on_with_other_workers(tmp_path):
    """Where it begins is the same, whoever computed that."""
    found = []
    for size, at in ((4, 0.8), (2, None)):
        model = network(AllReduce()).set_params(warm_start=True, max_iter=3)
        SimulatedCluster(4 if at else 2, **SLOW).fit(model, *digits())
        model.set_params(max_iter=20)
        if at:
            broken_off(model, size, tmp_path, at)
        else:
            with config_context(checkpoint=str(tmp_path), resume=True):
                cluster = SimulatedCluster(size, **SLOW).fit(model, *digits())
            assert not list(tmp_path.iterdir())
            found.append(cluster)
    whole = network(AllReduce()).set_params(warm_start=True, max_iter=3).fit(*digits())
    whole.set_params(max_iter=20).fit(*digits())
    assert whole.loss_curve_ == found[0].loss_curve_
