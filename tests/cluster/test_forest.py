"""Forests on a cluster whose workers are killed keep the bits of a fit in process."""

import os
import signal
import threading
import time

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml.ensemble import RandomForestClassifier

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
N, P = 60_000, 8


def collections():
    X = da.random.default_rng(0).normal(size=(N, P), chunks=(5000, P))
    noise = da.random.default_rng(1).logistic(size=N, chunks=4000)
    return X, (X[:, 0] * X[:, 1] + X[:, 2] + noise > 0).astype(int)


def make():
    return RandomForestClassifier(n_estimators=80, oob_score=True, random_state=0)


def bits(model):
    parts = [part for tree in model._model.trees for part in tree]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in [*parts, model.oob_decision_function_])


@pytest.fixture(scope="module")
def expected():
    return bits(make().fit(*collections()))


@pytest.mark.parametrize("seed", range(3))
def test_killed_workers_do_not_change_a_bit(expected, seed):
    seconds = np.random.default_rng(seed).uniform(0.5, 4.0, 1 + seed % 2)
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        pids = sorted(client.run(os.getpid).values())
        killed = []

        def kill(pid):
            killed.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

        timers = [threading.Timer(s, kill, (pid,)) for s, pid in zip(seconds, pids)]
        for timer in timers:
            timer.start()
        found = make().fit(*collections())
        ended = time.monotonic()
        for timer in timers:
            timer.join()
    assert len(killed) == len(timers) and min(killed) < ended  # a death after the fit would have shown nothing
    assert "workers" in found.fit_report_.where
    assert bits(found) == expected


def test_number_of_workers_does_not_change_a_bit(expected):
    for n_workers in (1, 2):
        with LocalCluster(n_workers=n_workers, threads_per_worker=2, dashboard_address=None) as cluster:
            with Client(cluster):
                assert bits(make().fit(*collections())) == expected
