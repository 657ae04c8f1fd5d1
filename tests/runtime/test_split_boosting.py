"""Boosting of rows whose column panels lie on different workers: X stays there, and trees are those of whole rows."""

import os
import random

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.runtime.split import SplitRun
from daskdml.runtime.spmd.cluster import ClusterRanks

from ..cluster.killer import Killer
from ..ensemble.boosted import same_models, table
from .apart import columns_apart

pytestmark = pytest.mark.cluster
N, P = 6_000, 12
MAX_ITER = 60


PARAMS = {
    "plain": (HistGradientBoostingRegressor, {}),
    "validation": (HistGradientBoostingRegressor, {"early_stopping": True}),
    "scores": (HistGradientBoostingRegressor, {"early_stopping": True, "scoring": "neg_mean_absolute_error"}),
    "all leaves": (HistGradientBoostingRegressor, {"max_leaf_nodes": None, "max_depth": 4}),
    "draws": (HistGradientBoostingRegressor, {"subsample": 0.7, "max_features": 0.5}),
    "quantile": (HistGradientBoostingRegressor, {"loss": "quantile", "quantile": 0.3}),
    "constraints": (HistGradientBoostingRegressor, {"monotonic_cst": [1, 0, 0, -1] + [0] * 7 + [1]}),
    "classes": (HistGradientBoostingClassifier, {"class_weight": "balanced"}),
}


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    """Return the list of what was opened as a run over panels that lie apart; fail where an array is rechunked."""
    opened, place = [], SplitRun.place_targets
    monkeypatch.setattr(SplitRun, "place_targets", lambda self, *args: opened.append(self) or place(self, *args))
    monkeypatch.setattr("daskdml.ensemble._boosting_base.whole_rows", lambda X: pytest.fail("rechunked"))
    return opened


@pytest.mark.parametrize("turn", [0, 1])  # all of a panel on one worker, or each band of it on another
@pytest.mark.parametrize("kind", PARAMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_trees_are_those_of_whole_rows(cluster_client, kind, weighted, turn, splits):
    make, params = PARAMS[kind]
    X, z = table(N, P)
    y = np.digitize(z, [-0.5, 1.0]) if kind == "classes" else z
    weight = np.random.default_rng(1).integers(0, 3, N).astype(float) if weighted else None
    expected = make(max_iter=4, **params).fit(X, y, sample_weight=weight)
    lazy, _ = columns_apart(cluster_client, X, turn=turn)
    found = make(max_iter=4, **params).fit(lazy, y, sample_weight=weight)
    assert len(splits) == 1
    same_models(found, expected)
    # Sums of histograms travel only where rows of a feature lie on several ranks: 12 bytes a bin, and several leaves.
    if kind == "plain":
        assert (found.fit_report_.counts["bytes a round"] < 2 * N) == (turn == 0)


def test_of_equal_gains_the_lowest_feature_wins(cluster_client, splits):
    """Whichever rank has it: each has every other panel, and all columns come twice."""
    X, y = table(N, P)
    X = np.column_stack([X[:, :6], X[:, :6][:, ::-1]])
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X, y)
    lazy, _ = columns_apart(cluster_client, X, widths=(3, 3, 3, 3))
    same_models(HistGradientBoostingRegressor(max_iter=3).fit(lazy, y), expected)
    lazy, _ = columns_apart(cluster_client, X, widths=(1,) * 12)
    same_models(HistGradientBoostingRegressor(max_iter=3).fit(lazy, y), expected)
    assert len(splits) == 2


@pytest.mark.parametrize("weighted", [False, True])
def test_distinct_values_beyond_the_sample(cluster_client, weighted, splits, monkeypatch):
    """Rows without weight have no part in them."""
    monkeypatch.setattr("daskdml.trees.binning.SAMPLE_ROWS", 1000)
    X, y = table(N, P)
    weight = None
    if weighted:
        weight = np.random.default_rng(1).integers(0, 2, N).astype(float)
        X[weight == 0, 1] = 99.0
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X, y, sample_weight=weight)
    lazy, _ = columns_apart(cluster_client, X)
    same_models(HistGradientBoostingRegressor(max_iter=3).fit(lazy, y, sample_weight=weight), expected)
    assert len(splits) == 1


def test_ranks_that_were_asked_for(cluster_client, splits):
    X, y = table(N, P)
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X, y)
    lazy, _ = columns_apart(cluster_client, X)
    with config_context(runtime="spmd"):
        same_models(HistGradientBoostingRegressor(max_iter=3).fit(lazy, y), expected)
    assert len(splits) == 1


@pytest.mark.parametrize("widths", [(6, 6), (1,) * 12, (2, 9, 1)], ids=str)
@pytest.mark.parametrize("turn", [0, 1])
def test_panels_of_any_width(cluster_client, widths, turn, splits):
    """All of a panel on one worker, or each band of it on another."""
    X, y = table(N, P)
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X, y)
    lazy, _ = columns_apart(cluster_client, X, widths=widths, turn=turn)
    found = HistGradientBoostingRegressor(max_iter=3).fit(lazy, y)
    same_models(found, expected)
    assert len(splits) == 1


def test_float32_unknown_lengths_and_empty_bands(cluster_client, splits):
    X, y = table(N, P)
    X = X.astype(np.float32)
    expected = HistGradientBoostingRegressor(max_iter=3).fit(X, y)
    for options in ({"unknown": True}, {"bands": (0, 1, 5999, 0)}):
        lazy, places = columns_apart(cluster_client, X, **options)
        targets = da.from_array(y, chunks=(options.get("bands", (2000, 1500, 2500)),))
        if "unknown" in options:
            targets = targets[targets == targets]
        same_models(HistGradientBoostingRegressor(max_iter=3).fit(lazy, targets), expected)
        # Not even those that are measured, because nobody knows how many rows there are, come together.
        held = cluster_client.who_has()
        assert {key: held[key] for key in places} == {key: (address,) for key, address in places.items()}
    assert len(splits) == 2


def test_a_warm_start_follows_trees_by_panels(cluster_client, splits):
    X, y = table(N, P)
    expected = HistGradientBoostingRegressor(max_iter=6).fit(X, y)
    lazy, _ = columns_apart(cluster_client, X)
    model = HistGradientBoostingRegressor(max_iter=3, warm_start=True).fit(X, y)
    same_models(model.set_params(max_iter=6).fit(lazy, y), expected)
    assert len(splits) == 1


@pytest.fixture(scope="module")
def many_rows():
    """Return more rows, and the model that boosts them in process."""
    X, y = table(N, P)
    X, y = np.tile(X, (5, 1)), np.tile(y, 5)
    return X, y, HistGradientBoostingRegressor(max_iter=MAX_ITER).fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_killed_workers_do_not_change_a_bit(many_rows, splits, seed, turn, monkeypatch):
    """Their panels are made again elsewhere, with y and weights beside them, and their rows follow the trees so far.

    A seed says which workers die, in which iteration, and how soon after the others go on a second one does, if so.
    """
    X, y, expected = many_rows
    draw = random.Random(seed)
    at, again = draw.randrange(1, MAX_ITER // 2), [draw.uniform(0, 0.3)] * (seed % 2)
    start, tell, begun = ClusterRanks._start, ClusterRanks._tell, []

    def start_and_kill(self, action):
        start(self, action)
        begun.append(action.step)
        killer.regrouped()

    def tell_and_kill(self, event):
        tell(self, event)
        if self._ended is None:
            killer.follow(self.driver.step)

    monkeypatch.setattr(ClusterRanks, "_start", start_and_kill)
    monkeypatch.setattr(ClusterRanks, "_tell", tell_and_kill)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        config_context(checkpoint_every=0.01),  # how often trees are brought here
    ):
        lazy, _ = columns_apart(client, X, bands=(10_000,) * 3, turn=turn, strict=False)
        pids = sorted(client.run(os.getpid).values())
        killer = Killer(draw.sample(pids, 3), at, again=again)
        found = HistGradientBoostingRegressor(max_iter=MAX_ITER).fit(lazy, y)
        killer.end()
        assert not (set(pids) - set(killer.pids)) & set(client.run(os.getpid, on_error="ignore").values())
    assert len(splits) == 1 and len(begun) > killer.n_deaths
    assert at <= begun[1] < MAX_ITER
    same_models(found, expected)
