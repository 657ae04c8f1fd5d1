"""Networks on a cluster whose workers are killed keep the bits of a fit in process."""

import os
import random

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context
from daskdml.compress import TopK
from daskdml.neural_network import MLPClassifier
from daskdml.runtime.spmd.cluster import ClusterRanks
from daskdml.runtime.spmd.driver import Saved
from daskdml.strategies import AllReduce, Hybrid, LocalSGD, ModelParallel

from .killer import Killer

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.filterwarnings("ignore:MLPClassifier")]
N, P, EPOCHS = 40_000, 40, 12


def collections():
    X = da.random.default_rng(0).normal(size=(N, P), chunks=(N // 12, P))
    return X, da.digitize(X[:, 0] * X[:, 1] + X[:, 2], [-0.7, 0.7])


def make(**params):
    return MLPClassifier((64,), batch_size=512, max_iter=EPOCHS, random_state=0, tol=0, **params)


def bits(model):
    return b"".join(part.tobytes() for part in (*model.coefs_, *model.intercepts_, np.array(model.loss_curve_)))


@pytest.fixture(scope="module", params=[{}, {"early_stopping": True, "n_iter_no_change": EPOCHS}], ids=["", "scores"])
def params_and_bits(request):
    return request.param, bits(make(**request.param).fit(*collections()))


@pytest.fixture
def fit_and_kill(monkeypatch, tmp_path):
    """Return a function that fits a model of which a worker dies after so many steps, and perhaps another one then."""

    def fit_and_kill(model, step, again=(), has_folder=True):
        start, tell = ClusterRanks._start, ClusterRanks._tell
        with (
            LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
            config_context(checkpoint=str(tmp_path) if has_folder else None, checkpoint_every=0.01),
        ):
            killer = Killer(sorted(client.run(os.getpid).values()), step, (), again)

            def tell_and_follow(self, event):
                tell(self, event)
                if isinstance(event, Saved):
                    killer.follow(self.driver.step)

            def start_and_kill(self, action):
                start(self, action)
                killer.regrouped()

            monkeypatch.setattr(ClusterRanks, "_tell", tell_and_follow)
            monkeypatch.setattr(ClusterRanks, "_start", start_and_kill)
            found = model.fit(*collections())
            killer.end()
        assert "3 workers" in found.fit_report_.where
        return found

    return fit_and_kill


@pytest.mark.parametrize("seed", range(3))
def test_killed_workers_do_not_change_a_bit(params_and_bits, seed, fit_and_kill):
    """In the middle of an epoch; with the last seed a second one while the new group forms."""
    params, expected = params_and_bits
    draw = random.Random(seed)
    found = fit_and_kill(make(**params), draw.randrange(1, 8), [draw.uniform(0, 0.1)] * (seed == 2))
    assert bits(found) == expected


@pytest.mark.parametrize("strategy", [AllReduce(compression=TopK(0.05)), LocalSGD(4)], ids=str)
def test_what_is_lost_with_a_worker_is_reported(strategy, fit_and_kill):
    model = fit_and_kill(make(solver="sgd", learning_rate_init=0.1, strategy=strategy), 2)
    # A group for the death, and perhaps one for the worker that comes instead.
    assert (model.fit_report_.counts["memories lost"] > 0) == strategy.remembers
    assert model.n_iter_ == EPOCHS and model.score(*collections()) > 0.85


def test_number_of_workers_does_not_change_a_bit(params_and_bits):
    params, expected = params_and_bits
    for n_workers in (1, 2):
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=2, dashboard_address=None) as cluster,
            Client(cluster),
            config_context(runtime="spmd"),
        ):
            model = make(**params).fit(*collections())
            assert bits(model) == expected
            assert model.fit_report_.counts["bytes sent"] == 0 or n_workers == 2


@pytest.mark.parametrize("has_folder", [False, True], ids=["own shelves", "a folder"])
@pytest.mark.parametrize("strategy", [ModelParallel(), Hybrid(2)], ids=str)
def test_workers_that_hold_shards(strategy, has_folder, fit_and_kill, tmp_path):
    """The others go on from copies of its shards; what was written goes away with the fit."""
    found = fit_and_kill(make(strategy=strategy), 5, has_folder=has_folder)
    assert bits(found) == bits(make(strategy=ModelParallel()).fit(*collections()))
    assert found.fit_report_.counts["memories lost"] == 0
    assert not list(tmp_path.iterdir())
