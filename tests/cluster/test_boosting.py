"""Boosting on a cluster whose workers are killed keeps the bits of a fit in process."""

import os
import random
import signal
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier
from daskdml.runtime.spmd.cluster import ClusterRanks
from daskdml.trees.binning import find_bins

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
N, P = 60_000, 8
MAX_ITER = 80


def collections():
    X = da.random.default_rng(0).normal(size=(N, P), chunks=(5000, P))
    noise = da.random.default_rng(1).logistic(size=N, chunks=4000)
    return X, (X[:, 0] * X[:, 1] + X[:, 2] + noise > 0).astype(int)


def bits(model):
    parts = [part for iteration in model._model.trees for tree in iteration for part in tree]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in [*parts, model.validation_score_])


def make():
    return HistGradientBoostingClassifier(max_iter=MAX_ITER, random_state=0, n_iter_no_change=MAX_ITER)


@pytest.fixture(scope="module")
def expected():
    return bits(make().fit(*collections()))


class Killer:
    """Kills workers when a fit has come somewhere, which no clock tells: fits take a second or twenty.

    Parameters
    ----------
    pids : list of int
    later : list of float
        Seconds after the first death at which others come.
    """

    def __init__(self, pids, later):
        self.pids, self.later, self.timers, self.killed = list(pids), later, [], []

    def kill(self):
        os.kill(self.pids.pop(), signal.SIGKILL)
        self.killed.append(time.monotonic())

    def begin(self):
        if not self.killed:
            self.kill()
            self.timers = [threading.Timer(seconds, self.kill) for seconds in self.later]
            for timer in self.timers:
                timer.start()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["pinned", "stream"])
def test_killed_workers_do_not_change_a_bit(expected, mode, seed, monkeypatch, tmp_path, caplog):
    """Before rows are replaced by their bins, or between trees; a second one later, or while the new group forms."""
    draw = random.Random(seed)
    at, later = draw.randrange(1, MAX_ITER // 3), [draw.uniform(0, 1)] * (seed % 2)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        config_context(memory=mode, checkpoint=str(tmp_path), checkpoint_every=0.01),
    ):
        killer = Killer(client.run(os.getpid).values(), later)

        def kill_after_bins(*args, **options):
            found = find_bins(*args, **options)
            killer.begin()
            return found

        def kill_after_trees(self, step, state):
            if step >= at:
                killer.begin()

        if seed < 2:
            monkeypatch.setattr("daskdml.ensemble._boosting_base.find_bins", kill_after_bins)
        else:
            monkeypatch.setattr("daskdml.runtime.checkpoint.Checkpoint.write_or_warn", kill_after_trees)
        with caplog.at_level("INFO", logger="daskdml"):
            found = make().fit(*collections())
        ended = time.monotonic()
        for timer in killer.timers:
            timer.cancel()
    assert len(killer.killed) == 1 + len(later) and max(killer.killed) < ended, "the fit ended before its workers did"
    assert seed < 2 or "group 2 of" in caplog.text
    assert "3 workers" in found.fit_report_.where
    assert bits(found) == expected


def test_number_of_workers_does_not_change_a_bit(expected):
    for n_workers in (1, 2):
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=2, dashboard_address=None) as cluster,
            Client(cluster),
            config_context(runtime="spmd"),
        ):
            assert bits(make().fit(*collections())) == expected


def test_rows_that_lie_on_one_worker_are_spread_before_trees_are_grown(expected, monkeypatch):
    """Bins are moved, not values; the bits stay."""
    groups, start = [], ClusterRanks._start

    def noted(self, action):
        groups.append({address: sum(self.lengths[i] for i in numbers) for address, numbers in action.owners.items()})
        start(self, action)

    monkeypatch.setattr(ClusterRanks, "_start", noted)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        config_context(runtime="spmd"),
    ):
        first = min(client.nthreads())
        parts = [dask.persist(part, workers=[first])[0] for part in collections()]
        wait(parts)
        assert bits(make().fit(*parts)) == expected
    (group,) = groups
    assert len(group) == 3 and max(group.values()) <= 1.1 * N / 3


def test_a_fit_by_tasks_is_refused():
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with config_context(runtime="tasks"), pytest.raises(ValueError, match="Classifier runs as ranks"):
            make().fit(*collections())
