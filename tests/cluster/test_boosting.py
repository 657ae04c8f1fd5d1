"""Boosting on a cluster whose workers are killed keeps the bits of a fit in process."""

import os
import random
import re

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.runtime.spmd.cluster import ClusterRanks
from daskdml.trees.binning import find_bins

from .killer import Killer

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
N, P = 60_000, 8
MAX_ITER = 80
SMALL_N, SMALL_ITER = 12_000, 30  # enough rows for some to be held out for validation


KINDS = {
    "classes": (HistGradientBoostingClassifier, {}),
    "quantile": (HistGradientBoostingRegressor, {"loss": "quantile", "quantile": 0.3}),
    "absolute error": (HistGradientBoostingRegressor, {"loss": "absolute_error"}),
    "draws": (HistGradientBoostingRegressor, {"subsample": 0.7, "max_features": 0.5}),
    "constraints": (HistGradientBoostingRegressor, {"monotonic_cst": [0, 1, 1, -1] + [0] * 4}),
}


def rows_and_numbers(n):
    X = da.random.default_rng(0).normal(size=(n, P), chunks=(n // 12, P))
    noise = da.random.default_rng(1).logistic(size=n, chunks=n // 15)
    return X, X[:, 0] * X[:, 1] + X[:, 2] + noise


def collections():
    X, z = rows_and_numbers(N)
    return X, (z > 0).astype(int)


def bits(model):
    parts = [part for iteration in model._model.trees for tree in iteration for part in tree]
    parts += [model._model.baseline, model.train_score_, model.validation_score_]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def make():
    return HistGradientBoostingClassifier(max_iter=MAX_ITER, random_state=0, n_iter_no_change=MAX_ITER)


def fit():
    return make().fit(*collections())


def fit_kind(kind):
    """Fit a small model of one of the kinds, of three classes or of numbers."""
    make_model, params = KINDS[kind]
    X, y = rows_and_numbers(SMALL_N)
    if kind == "classes":
        y = da.digitize(y, [-0.7, 0.7])
    return make_model(max_iter=SMALL_ITER, random_state=0, n_iter_no_change=SMALL_ITER, **params).fit(X, y)


@pytest.fixture(scope="module")
def expected():
    return bits(fit())


@pytest.fixture(scope="module", params=KINDS)
def kind_and_bits(request):
    """Return the name of a kind, and the bits of its fit in process."""
    model = fit_kind(request.param)
    assert model.n_iter_ == SMALL_ITER == len(model.validation_score_) - 1
    assert {len(trees) for trees in model._model.trees} == {3 if request.param == "classes" else 1}
    return request.param, bits(model)


@pytest.fixture
def fit_and_kill(monkeypatch, tmp_path, caplog):
    """Return a function that fits a model while workers die: step 0 is that bins are known, others count trees.

    It sees to it that they did die, and that the others went on from where they were.
    """

    def fit_and_kill(fit, mode, draw, step, later=(), again=()):
        start = ClusterRanks._start
        with (
            LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
            config_context(memory=mode, checkpoint=str(tmp_path), checkpoint_every=0.01),
        ):
            pids = sorted(client.run(os.getpid).values())
            killer = Killer(draw.sample(pids, 3), step, later, again)

            def kill_after_bins(*args, **options):
                found = find_bins(*args, **options)
                killer.follow(0)
                return found

            def kill_after_trees(self, step, state):
                killer.follow(step)

            def kill_again(self, action):
                start(self, action)
                killer.regrouped()

            if step == 0:
                monkeypatch.setattr("daskdml.ensemble._boosting_base.find_bins", kill_after_bins)
            else:
                monkeypatch.setattr("daskdml.runtime.checkpoint.Checkpoint.write_or_warn", kill_after_trees)
            monkeypatch.setattr(ClusterRanks, "_start", kill_again)
            with caplog.at_level("INFO", logger="daskdml"):
                found = fit()
            killer.end()
        if step > 0:
            assert "group 2 of" in caplog.text
            _, *begun = map(int, re.findall(r"ranks begins at step (\d+)", caplog.text))
            assert step <= begun[0] < found.n_iter_  # groups that a new worker joins may begin when all is done
            assert len(begun) > len(again)
        assert "3 workers" in found.fit_report_.where
        return found

    return fit_and_kill


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["pinned", "mmap", "stream"])
def test_killed_workers_do_not_change_a_bit(expected, mode, seed, fit_and_kill):
    """Before rows are replaced by their bins, or between trees; a second one later, or while the new group forms."""
    draw = random.Random(seed)
    at, later = draw.randrange(1, MAX_ITER // 3), [draw.uniform(0, 1)] * (seed % 2)
    found = fit_and_kill(fit, mode, draw, 0 if seed < 2 else at, later=later)
    assert bits(found) == expected


@pytest.mark.parametrize("n_deaths", [1, 2])
def test_killed_workers_do_not_change_a_bit_of_any_kind(kind_and_bits, n_deaths, fit_and_kill):
    """Three classes, leaves that are quantiles, draws, constraints; a second one dies soon after the others go on."""
    kind, expected = kind_and_bits
    draw = random.Random(f"{kind} {n_deaths}")
    at, again = draw.randrange(1, SMALL_ITER // 3), [draw.uniform(0, 0.1)] * (n_deaths - 1)
    found = fit_and_kill(lambda: fit_kind(kind), "pinned", draw, at, again=again)
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
