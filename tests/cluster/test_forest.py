"""Forests on a cluster whose workers are killed keep the bits of a fit in process."""

import os
import random
import signal
import time

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context
from daskdml.ensemble import RandomForestClassifier
from daskdml.trees.binning import find_bins

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


@pytest.mark.parametrize("seed", range(4))
def test_killed_workers_do_not_change_a_bit(expected, seed, monkeypatch, tmp_path, caplog):
    """Before trees are grown, or when so many are: a fit's own progress says when, no clock does."""
    draw = random.Random(seed)
    at, victim = draw.randrange(1, 60) if seed else 0, draw.randrange(3)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        config_context(checkpoint=str(tmp_path), checkpoint_every=0.01),
    ):
        pids, killed = sorted(client.run(os.getpid).values()), []

        def kill():
            if not killed:
                killed.append(time.monotonic())
                os.kill(pids[victim], signal.SIGKILL)

        def kill_after_bins(*args, **options):
            found = find_bins(*args, **options)
            kill()
            return found

        def kill_after_trees(self, step, state):
            if len(state.trees) >= at:
                kill()

        if at == 0:
            monkeypatch.setattr("daskdml.fitting.forests.find_bins", kill_after_bins)
        else:
            monkeypatch.setattr("daskdml.runtime.checkpoint.Checkpoint.write_or_warn", kill_after_trees)
        with caplog.at_level("INFO", logger="daskdml"):
            found = make().fit(*collections())
        ended = time.monotonic()
    assert killed and killed[0] < ended
    assert at == 0 or "group 2 of" in caplog.text
    assert "workers" in found.fit_report_.where
    assert bits(found) == expected


def test_number_of_workers_does_not_change_a_bit(expected):
    for n_workers in (1, 2):
        with LocalCluster(n_workers=n_workers, threads_per_worker=2, dashboard_address=None) as cluster:
            with Client(cluster):
                assert bits(make().fit(*collections())) == expected
