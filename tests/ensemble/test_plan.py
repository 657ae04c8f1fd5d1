"""Plans of trees against the fits they foresee: rounds, bytes, seconds; the same errors; nothing fitted."""

import math

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml import config_context
from daskdml.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)  # fmt: skip
from daskdml.testing import SimulatedCluster
from daskdml.tree import DecisionTreeClassifier

BOOSTING = [HistGradientBoostingClassifier, HistGradientBoostingRegressor]
FORESTS = [RandomForestClassifier, RandomForestRegressor, ExtraTreesRegressor, DecisionTreeClassifier]


def rows(n=3000, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, (X[:, 0] * X[:, 1] + rng.normal(size=n) > 0).astype(int)


X, Y = rows()


@pytest.mark.parametrize("model", BOOSTING + FORESTS)
def test_rows_of_a_plan_without_a_cluster(model):
    new = model()
    with config_context(n_threads=2):
        plan = new.plan(X, Y)
    assert [(row.runtime, row.n_workers) for row in plan.rows] == [("threads", 1), *(("spmd", n) for n in (1, 2, 4, 8))]
    assert all(0 < row.seconds < math.inf and row.memory > 0 and row.fits for row in plan.rows)
    assert plan.rows[0].bytes_sent == 0 and plan.rows[0].passes >= (100 if model in BOOSTING else 1)
    assert model in FORESTS or plan.advice == "One process is faster: 144 kB of data."
    assert vars(new) == vars(model())


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("leaves", [8, 31])
def test_bytes_are_near_those_that_ranks_send(n_classes, leaves):
    X, y = rows(40_000, 10)
    y = y + (X[:, 2] > 1) * (n_classes - 2)
    model = HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=leaves, early_stopping=False)
    plan = model.plan(X, y)
    counts = SimulatedCluster(2, rows_per_block=4096).fit(model, X, y).fit_report_.counts
    sent = next(row for row in plan.rows if (row.runtime, row.n_workers) == ("spmd", 2)).bytes_sent
    assert 0.5 <= sent / (counts["rounds"] * counts["bytes a round"]) <= 2


def test_seconds_follow_iterations_and_classes():
    X, y = rows(60_000, 8)
    with config_context(n_threads=1):
        seconds = [
            HistGradientBoostingClassifier(max_iter=n).plan(X, y).rows[0].seconds for n in (100, 400)
        ]  # fmt: skip
        several = HistGradientBoostingClassifier(max_iter=100).plan(X, y + 2 * (X[:, 0] > 0)).rows[0].seconds
    assert 2.0 <= seconds[1] / seconds[0] <= 6 and several > 1.5 * seconds[0]


def test_predicted_seconds_are_near_those_of_the_fit():
    """Generous, for the machine may be busy."""
    X, y = rows(100_000, 10)
    model = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(X[:1000], y[:1000])
    with config_context(n_threads=1):
        expected = model.plan(X, y).rows[0].seconds
        assert expected / 5 < model.fit(X, y).fit_report_.seconds < 5 * expected


def test_seconds_follow_trees_and_depth():
    X, y = rows(30_000, 8)
    with config_context(n_threads=1):
        few, many, low = (
            RandomForestClassifier(n, max_depth=depth).plan(X, y).rows[0].seconds
            for n, depth in ((25, None), (100, None), (100, 3))
        )  # fmt: skip
    assert 2.0 <= many / few <= 6 and many > 1.5 * low


def test_predicted_seconds_are_near_those_of_a_forest():
    X, y = rows(40_000, 10)
    for params in ({"max_depth": 8}, {}):
        model = RandomForestClassifier(20, **params).fit(X[:1000], y[:1000])
        with config_context(n_threads=1):
            expected = model.plan(X, y).rows[0].seconds
            assert expected / 5 < model.fit(X, y).fit_report_.seconds < 5 * expected


def test_every_worker_of_a_forest_is_sent_all_rows():
    """What is sent grows with workers, what is held does not shrink with them; trees are shared out."""
    X, y = rows(20_000, 10)
    with config_context(n_threads=1):
        plan = RandomForestClassifier(64, max_depth=6).plan(da.from_array(X, chunks=(4000, -1)), y)
    at = {row.n_workers: row for row in plan.rows if row.runtime == "spmd"}
    bins = 20_000 * 10
    assert 8 * at[8].bytes_sent - 2 * at[2].bytes_sent > 5 * bins  # of all workers: six times more send them round
    assert at[8].memory > 20_000 * 100 and abs(at[8].memory - at[1].memory) < 0.1 * at[1].memory
    assert at[4].seconds < at[1].seconds


def categories():
    frame = pd.DataFrame(X, columns=list("abcde"))
    return frame.assign(b=pd.Categorical(np.where(X[:, 1] > 0, "up", "down")))


INPUTS = {
    "frame": lambda: (pd.DataFrame(X), pd.Series(Y)),
    "categories": lambda: (categories(), Y),
    "csr": lambda: (sparse.csr_matrix(X * (abs(X) > 1)), Y),
    "missing values": lambda: (np.where(X > 1, np.nan, X), Y),
    "integers": lambda: ((10 * X).astype(int), Y),
    "weights": lambda: (X, Y, np.linspace(0, 1, len(Y))),
    "dask": lambda: (da.from_array(X, chunks=(700, 5)), da.from_array(Y, chunks=700)),
    "dask in panels": lambda: (da.from_array(X, chunks=(700, 2)), da.from_array(Y, chunks=500)),
    "one class is looked at": lambda: (da.from_array(X, chunks=(100, 5))[:900], da.from_array(np.sort(Y), 100)[:900]),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("model", BOOSTING + FORESTS)
def test_inputs_of_all_kinds(model, kind):
    if kind == "categories" and model in FORESTS:
        pytest.skip("forests have none")
    plan = model().plan(*INPUTS[kind]())
    assert plan.n_samples in (900, 3000) and plan.n_features == 5 and plan.rows[0].seconds > 0


@pytest.mark.parametrize("weight", [0.5, 300.0, np.linspace(0, 1, len(Y))])
def test_weights_do_not_change_what_trees_are_expected_to_send(weight):
    sent = [HistGradientBoostingClassifier().plan(X, Y, *given).rows[2].bytes_sent for given in ((), (weight,))]
    assert sent[1] == pytest.approx(sent[0], rel=0.2)


def test_rows_that_cannot_be_held_have_no_plan_there(monkeypatch):
    given = da.from_array(X, chunks=500), da.from_array(Y, chunks=500)
    plans = []
    for limit in (120_000, 100_000, 80_000):  # 3,000 rows of 8 bytes that may be files, and of 28 that may not
        monkeypatch.setattr("daskdml.runtime.sampling.process_limit", lambda n=limit: n)
        plans.append(HistGradientBoostingClassifier().plan(*given).rows)
    assert [rows[0].fits for rows in plans] == [True, False, False] and all(rows[-1].fits for rows in plans)
    assert [rows[0].seconds < math.inf for rows in plans] == [True, True, False]
    assert plans[0][0].memory - plans[1][0].memory == 3000 * 8
    rows = RandomForestClassifier().plan(da.from_array(X, chunks=500), da.from_array(Y, chunks=500)).rows
    assert not any(row.fits for row in rows) and rows[-1].seconds == math.inf  # each worker needs room for all rows


def test_words_are_classes_too():
    assert HistGradientBoostingClassifier().plan(X, np.array(["no", "yes"])[Y]).rows


def test_other_losses_and_shapes_of_trees():
    for params in ({"loss": "absolute_error"}, {"loss": "poisson"}, {"max_leaf_nodes": None, "max_depth": 4}):
        assert HistGradientBoostingRegressor(**params).plan(X, Y).rows
    assert HistGradientBoostingRegressor(loss="quantile", quantile=0.3, monotonic_cst=[1, 0, 0, 0, -1]).plan(X, Y).rows


@pytest.mark.parametrize(
    "model, args",
    [
        (HistGradientBoostingClassifier(), (X, None)),
        (HistGradientBoostingClassifier(), (X, Y[:-1])),
        (HistGradientBoostingClassifier(), (X, 0 * Y)),
        (HistGradientBoostingClassifier(), (X, Y, np.zeros(3000))),
        (HistGradientBoostingClassifier(), (X[:0], Y[:0])),
        (HistGradientBoostingClassifier(), (X[0], Y)),
        (HistGradientBoostingClassifier(learning_rate=-1), (X, Y)),
        (HistGradientBoostingClassifier(max_bins=256), (X, Y)),
        (HistGradientBoostingClassifier(scoring="no_such_score", early_stopping=True), (X, Y)),
        (HistGradientBoostingClassifier(monotonic_cst=[1, 2, 0, 0, 0]), (X, Y)),
        (HistGradientBoostingClassifier(interaction_cst=[{0, 7}]), (X, Y)),
        (HistGradientBoostingRegressor(loss="poisson"), (X, -1.0 - Y)),
        (HistGradientBoostingRegressor(loss="gamma"), (X, Y)),
        (HistGradientBoostingRegressor(loss="quantile"), (X, Y)),
        (HistGradientBoostingRegressor(), (X, np.column_stack([Y, Y]))),
        (HistGradientBoostingRegressor(), (X, np.where(Y > 0, np.nan, 1.0))),
        (HistGradientBoostingRegressor(categorical_features=[9]), (X, Y)),
        (RandomForestClassifier(), (X, None)),
        (RandomForestClassifier(), (X, Y[:-1])),
        (RandomForestClassifier(max_samples=4000), (X, Y)),
        (RandomForestClassifier(bootstrap=False, oob_score=True), (X, Y)),
        (RandomForestClassifier(max_features=0), (X, Y)),
        (RandomForestClassifier(class_weight={7: 1}), (X, Y)),
        (RandomForestClassifier(class_weight={0: -1.0}), (X, Y)),
        (RandomForestClassifier(), (X, Y, np.zeros(3000))),
        (RandomForestClassifier(), (np.where(X > 3, np.inf, X), Y)),
        (RandomForestRegressor(criterion="poisson"), (X, -1.0 - Y)),
        (RandomForestRegressor(), (X, np.column_stack([Y, Y]))),
        (DecisionTreeClassifier(monotonic_cst=[1, 2, 0, 0, 0]), (X, Y)),
    ],
)
def test_bad_input_gets_the_sentences_of_fit(model, args):
    with pytest.raises(Exception) as of_fit:  # noqa: PT011
        model.fit(*args)
    with pytest.raises(type(of_fit.value)) as of_plan:
        model.plan(*args)
    assert str(of_plan.value) == str(of_fit.value)


@pytest.mark.cluster
def test_plan_beside_a_cluster(cluster_client):
    lazy = da.from_array(X, chunks=(500, 5)), da.from_array(Y, chunks=500)
    for args in (lazy, cluster_client.persist(list(lazy))):
        plan = HistGradientBoostingClassifier(max_iter=5).plan(*args)
        assert {row.n_threads for row in plan.rows if row.runtime != "threads"} == {1} and plan.n_samples == 3000
