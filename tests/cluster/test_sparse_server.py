"""Coefficients of many features with a parameter server, on a cluster whose workers are killed."""

import os
import threading

import dask.array as da
import numpy as np
import pytest
from dask import delayed
from distributed import Client, LocalCluster
from scipy import sparse
from sklearn.linear_model import SGDClassifier as ScikitClassifier
from sklearn.metrics import log_loss

from daskdml.linear_model import SGDClassifier
from daskdml.runtime.spmd.cluster import ClusterRanks
from daskdml.strategies import ASP, BSP, SSP, ParameterServer

from .killer import Killer

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.filterwarnings("ignore:SGDClassifier")]

N, CHUNK, FEATURES, STORED = 60_000, 5000, 1 << 20, 20
PARAMS = {"loss": "log_loss", "alpha": 1e-5, "max_iter": 6, "tol": None, "random_state": 0}


def chunk(k):
    """Return rows of features by Zipf's law: a worker that comes instead of another can make them again."""
    rng = np.random.default_rng(k)
    u = rng.random(CHUNK * STORED)
    ranks = np.minimum((FEATURES**-0.1 * u + 1 - u) ** -10.0, FEATURES).astype(np.int64) - 1
    columns = (ranks * 6_180_339_887 % FEATURES).astype(np.int32)
    edges = np.arange(0, CHUNK * STORED + 1, STORED, dtype=np.int32)
    return sparse.csr_matrix((np.full(CHUNK * STORED, STORED**-0.5), columns, edges), shape=(CHUNK, FEATURES))


def labels(k):
    coef, rng = 2 * np.random.default_rng(1000).normal(size=FEATURES), np.random.default_rng(2000 + k)
    return (rng.random(CHUNK) < 1 / (1 + np.exp(-chunk(k) @ coef))).astype(int)


def collections():
    """Return both as Dask arrays."""
    meta, n = sparse.csr_matrix((0, FEATURES)), range(N // CHUNK)
    X = [da.from_delayed(delayed(chunk)(k), (CHUNK, FEATURES), meta=meta) for k in n]
    return da.concatenate(X), da.concatenate([da.from_delayed(delayed(labels)(k), (CHUNK,), dtype=int) for k in n])


@pytest.mark.parametrize("consistency", [BSP(), SSP(3), ASP()], ids=str)
def test_a_fit_goes_on_without_a_worker(consistency, monkeypatch):
    """One of three is killed half a second after the ranks have begun, wherever they are then."""
    X, y = sparse.vstack([chunk(k) for k in range(N // CHUNK)]), np.concatenate([labels(k) for k in range(N // CHUNK)])
    start, timers = ClusterRanks._start, []
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        killer = Killer(sorted(client.run(os.getpid).values()), 0)

        def start_and_kill(self, action):
            start(self, action)
            if not timers:
                timers.append(threading.Timer(0.5, killer.kill))
                timers[0].start()

        monkeypatch.setattr(ClusterRanks, "_start", start_and_kill)
        model = SGDClassifier(strategy=ParameterServer(consistency=consistency), batch_size=1500, **PARAMS)
        model.fit(*collections())
    assert killer.killed and model.n_iter_ == 6
    assert np.isfinite(model.coef_).all() and model.coef_.shape == (1, FEATURES)
    alone = ScikitClassifier(**PARAMS).fit(X, y)
    assert log_loss(y, model.predict_proba(X)) < 1.1 * log_loss(y, alone.predict_proba(X))
    assert model.fit_report_.counts["coefficients read"] > 0
