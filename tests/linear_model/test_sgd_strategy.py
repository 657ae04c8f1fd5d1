"""Linear models with a strategy: scikit-learn's steps for batches of one row, and the same bits from any ranks."""

import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from daskdml import config_context
from daskdml.compress import Identity, TopK
from daskdml.kernels.sequential import LOSSES
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster
from daskdml.training import training

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ONE = {"strategy": AllReduce(), "batch_size": 1}
IN_ORDER = {"shuffle": False, "random_state": 0, "alpha": 0.01, "eta0": 0.05}
SCHEDULES = ("constant", "optimal", "invscaling", "adaptive")
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


@pytest.fixture(scope="module")
def some(cancer):
    return cancer[0][:150], cancer[1][:150]


def same(ours, known, rtol=1e-9):
    np.testing.assert_allclose(ours.coef_, known.coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.intercept_, known.intercept_, rtol=rtol, atol=rtol)
    assert ours.coef_.shape == known.coef_.shape and ours.intercept_.shape == known.intercept_.shape


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes()


# Batches of one row are scikit-learn's steps --------------------------------------------------------------------------


@schedules
@pytest.mark.parametrize("penalty", ["l2", None])
@pytest.mark.parametrize("loss", LOSSES)
def test_batches_of_one_row_are_scikit_learns_steps(some, loss, penalty, schedule):
    some = some[0] / 4, some[1]  # or squares explode with the first steps of "optimal", and rounding with them
    params = {**IN_ORDER, "loss": loss, "penalty": penalty, "learning_rate": schedule, "max_iter": 4, "tol": None}
    ours, known = SGDClassifier(**params, **ONE).fit(*some), theirs.SGDClassifier(**params).fit(*some)
    same(ours, known)
    assert (ours.n_iter_, ours.t_) == (known.n_iter_, known.t_) == (4, 601)


@schedules
@pytest.mark.parametrize("loss", LOSSES[5:])
def test_regressions_of_one_row_are_scikit_learns_steps(diabetes, loss, schedule):
    diabetes = diabetes[0] / 4, diabetes[1]
    params = {**IN_ORDER, "loss": loss, "learning_rate": schedule, "max_iter": 4, "tol": None, "power_t": 0.3}
    ours, known = SGDRegressor(**params, **ONE).fit(*diabetes), theirs.SGDRegressor(**params).fit(*diabetes)
    same(ours, known)
    np.testing.assert_allclose(ours.predict(diabetes[0]), known.predict(diabetes[0]))


@pytest.mark.parametrize(
    "params",
    [
        {"average": True}, {"average": 200}, {"fit_intercept": False}, {"class_weight": {0: 2.0}, "loss": "log_loss"},
        {"class_weight": "balanced", "average": 70}, {"learning_rate": "optimal", "alpha": 0.1, "average": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", ["dense", "csr", "float32"])
def test_averages_weights_and_layouts_are_scikit_learns(some, params, layout):
    """Intercepts of sparse rows take smaller steps; coefficients of float32 rows are float64."""
    X, y = some
    weight = np.random.default_rng(0).uniform(0.0, 3.0, len(y))
    X = X.astype(np.float32)
    wide = X.astype(np.float64)
    if layout == "csr":
        X = wide = sparse.csr_matrix(wide * (np.abs(wide) > 0.2))
    elif layout == "dense":
        X = wide
    params = {**IN_ORDER, "learning_rate": "constant", "max_iter": 3, "tol": None, **params}
    for given in (None, weight):
        ours = SGDClassifier(**params, **ONE).fit(X, y, sample_weight=given)
        same(ours, theirs.SGDClassifier(**params).fit(wide, y, sample_weight=given))
        assert ours.coef_.dtype == np.float64


@pytest.mark.parametrize("class_weight", [None, "balanced", {"ash": 3.0, "cedar": 0.5}], ids=str)
def test_several_classes_are_scikit_learns(iris, class_weight):
    params = {**IN_ORDER, "loss": "log_loss", "max_iter": 3, "tol": None, "class_weight": class_weight}
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 150)
    ours = SGDClassifier(**params, **ONE).fit(*iris, sample_weight=weight)
    known = theirs.SGDClassifier(**params).fit(*iris, sample_weight=weight)
    same(ours, known)
    np.testing.assert_array_equal(ours.predict(iris[0]), known.predict(iris[0]))
    np.testing.assert_allclose(ours.predict_proba(iris[0]), known.predict_proba(iris[0]), rtol=1e-8)
    np.testing.assert_allclose(ours.to_sklearn().decision_function(iris[0]), known.decision_function(iris[0]))


@pytest.mark.parametrize(
    "params", [{"learning_rate": "constant"}, {"learning_rate": "adaptive", "eta0": 0.3},
               {"loss": "log_loss", "n_iter_no_change": 1}, {"average": True}], ids=str,
)  # fmt: skip
def test_stopping_is_scikit_learns(some, params):
    params = {**IN_ORDER, "tol": 2e-3, "n_iter_no_change": 3, "max_iter": 400, **params}
    ours, known = SGDClassifier(**params, **ONE).fit(*some), theirs.SGDClassifier(**params).fit(*some)
    assert ours.n_iter_ == known.n_iter_ < 400
    same(ours, known)
    assert ours.fit_report_.converged


def test_partial_fit_goes_on_as_scikit_learn_does(some):
    X, y = some
    # With an average scikit-learn forgets the intercept that is not averaged from call to call.
    averaged = {"average": 100, "fit_intercept": False}
    for params in ({}, averaged, {"learning_rate": "constant"}, {"learning_rate": "adaptive"}):
        ours = SGDClassifier(**{**IN_ORDER, **params}, **ONE)
        known = theirs.SGDClassifier(**{**IN_ORDER, **params})
        for first in (0, 50, 0, 70):
            for model in (ours, known):
                model.partial_fit(X[first : first + 80], y[first : first + 80], classes=[0, 1])
        same(ours, known, 1e-8)
        assert ours.t_ == known.t_ == 321
    ours.coef_, known.coef_ = np.ones((1, 30)), np.ones((1, 30))
    same(ours.partial_fit(X, y), known.partial_fit(X, y))


def test_a_warm_start_and_given_coefficients_are_scikit_learns(some):
    params = {**IN_ORDER, "max_iter": 2, "tol": None, "warm_start": True}
    ours, known = SGDClassifier(**params, **ONE), theirs.SGDClassifier(**params)
    for given in ({}, {}, {"coef_init": np.ones((1, 30)), "intercept_init": [0.5]}):
        same(ours.fit(*some, **given), known.fit(*some, **given))
    assert ours.t_ == known.t_ == 301


def test_a_strategy_may_come_and_go_between_calls(some):
    """Coefficients and the count of steps are what both ways share."""
    expected = SGDClassifier(**IN_ORDER)
    model = SGDClassifier(**IN_ORDER)
    for k in range(4):
        model.set_params(**(ONE if k % 2 else {"strategy": None, "batch_size": "auto"}))
        same(model.partial_fit(*some, classes=[0, 1]), expected.partial_fit(*some, classes=[0, 1]))
    assert model.t_ == expected.t_ == 601
    # An average that begins late does not begin at zero.
    model.set_params(**ONE, average=1).partial_fit(*some)
    assert np.abs(model.coef_).max() > 0.5 * np.abs(expected.coef_).max()


DECREASING = {"shuffle": False, "alpha": 0.01, "eta0": 0.1, "power_t": 0.5}


def steps_of(n_rows, X, y, w, t):
    """Return coefficients with the intercept behind them after each step from step t on, of squared loss, in order."""
    found, X = [], np.column_stack([X, np.ones(len(y))])
    for first in range(0, len(y), n_rows):
        rows, eta = slice(first, first + n_rows), DECREASING["eta0"] / t ** DECREASING["power_t"]
        decay, t = np.append(np.full(X.shape[1] - 1, DECREASING["alpha"]), 0.0), t + 1
        w = (1 - eta * decay) * w - eta * X[rows].T @ (X[rows] @ w - y[rows]) / len(y[rows])
        found.append(w)
    return found


def flat(model):
    return np.append(model.coef_, model.intercept_)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_count_as_the_steps_they_would_have_been(diabetes, accumulate):
    """200 rows are four steps of 50 rows, and those again 200 rows: rates go on from there."""
    X, y = diabetes
    model = SGDRegressor(**DECREASING).partial_fit(X, y)
    start, batches = flat(model), {"strategy": AllReduce(accumulate=accumulate), "batch_size": 50 // accumulate}
    model.set_params(**batches).partial_fit(X, y)
    assert model.t_ == 1 + 4 + 4
    expected = steps_of(50, X, y, start, 5)[-1]
    np.testing.assert_allclose(flat(model), expected, rtol=1e-9)
    model.set_params(strategy=None, batch_size="auto").partial_fit(X, y)
    assert model.t_ == 601
    np.testing.assert_allclose(flat(model), steps_of(1, X, y, expected, 401)[-1], rtol=1e-9)
    # And again: 600 rows, whichever way they came.
    assert model.set_params(strategy=AllReduce(), batch_size=200).partial_fit(X, y).t_ == 1 + 3 + 1


def test_an_average_outlives_the_way_it_was_begun_in(diabetes):
    """Steps go on from where they were, not from the mean of where they have been."""
    X, y = diabetes
    model = SGDRegressor(**DECREASING, average=True)
    rows = steps_of(1, X, y, np.zeros(11), 1)
    mean = flat(model.partial_fit(X, y))
    np.testing.assert_allclose(mean, np.mean(rows, axis=0), rtol=1e-9)
    assert np.abs(mean - rows[-1]).max() > 0.01
    batches = steps_of(50, X, y, rows[-1], 5)
    mean = (4 * mean + np.sum(batches, axis=0)) / 8
    np.testing.assert_allclose(flat(model.set_params(strategy=AllReduce(), batch_size=50).partial_fit(X, y)), mean,
                               rtol=1e-9)  # fmt: skip
    mean = (400 * mean + np.sum(steps_of(1, X, y, batches[-1], 401), axis=0)) / 600
    np.testing.assert_allclose(flat(model.set_params(strategy=None, batch_size="auto").partial_fit(X, y)), mean,
                               rtol=1e-9)  # fmt: skip


@pytest.mark.parametrize("params", [{}, {"strategy": AllReduce(), "batch_size": 10}], ids=["rows", "batches"])
def test_an_average_that_begins_late_begins_with_what_there_is(some, params):
    model = SGDClassifier(**IN_ORDER, **params).partial_fit(*some, classes=[0, 1])
    size = np.abs(model.coef_).max()
    for changed in ({"average": 1}, {"average": 1000}, {"average": 10}):
        assert np.abs(model.set_params(**changed).partial_fit(*some).coef_).max() > 0.5 * size
    model.coef_ = 100 * np.ones((1, 30))  # a mean of what the user gives, and not of what was before
    assert model.partial_fit(*some).coef_.min() > 50


# Larger batches -------------------------------------------------------------------------------------------------------


def slopes(loss, y, raw):
    """By their formulas, of targets -1 and 1, or numbers."""
    z = y * raw
    return {
        "hinge": lambda: np.where(z <= 1, -y, 0.0), "log_loss": lambda: -y / (1 + np.exp(z)),
        "squared_hinge": lambda: np.where(z <= 1, -2 * y * (1 - z), 0.0), "squared_error": lambda: raw - y,
        "huber": lambda: np.clip(raw - y, -0.1, 0.1),
    }[loss]()  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 7, 32, 150])
@pytest.mark.parametrize(
    "params",
    [
        {"loss": "hinge", "penalty": "l1", "learning_rate": "optimal"},
        {"loss": "log_loss", "penalty": "elasticnet", "learning_rate": "invscaling", "average": 3, "eta0": 0.5},
        {"loss": "squared_hinge", "penalty": "l2", "learning_rate": "constant", "average": True},
        {"loss": "huber", "penalty": "elasticnet", "learning_rate": "constant", "fit_intercept": False},
        {"loss": "squared_error", "penalty": None, "learning_rate": "adaptive"},
    ],
    ids=lambda params: params["loss"],
)  # fmt: skip
def test_batches_by_their_definition(some, batch_size, params):
    """A step along the mean of a batch, with the proximal operator of L1; rates go down by steps; the objective."""
    X, y = some
    weight, sign = np.random.default_rng(0).uniform(0.2, 2.0, len(y)), np.where(y == 1, 1.0, -1.0)
    share, alpha = {"l1": 1.0, "elasticnet": 0.3, "l2": 0.0, None: 0.0}[params["penalty"]], 0.02
    kind = SGDRegressor if params["loss"] in ("huber", "squared_error") else SGDClassifier
    model = kind(shuffle=False, alpha=alpha, l1_ratio=0.3, power_t=0.4, max_iter=3, tol=None, strategy=AllReduce(),
                 batch_size=batch_size, **params)  # fmt: skip
    model.fit(X, sign if kind is SGDRegressor else y, sample_weight=weight)
    w, b, t, found, eta0 = np.zeros(30), 0.0, 0, [], params.get("eta0", 0.01)
    typical = alpha**-0.25
    start = max(1.0, -slopes("hinge", 1.0, -typical)) / (typical * alpha)
    penalised = 0.0 if params["penalty"] is None else alpha
    losses = []
    for _ in range(3):
        total = 0.0
        for first in range(0, len(y), batch_size):
            rows, t = slice(first, first + batch_size), t + 1
            raw, n = X[rows] @ w + b, len(y[rows])
            if params["loss"] == "hinge":
                value = weight[rows] @ np.maximum(0, 1 - sign[rows] * raw)
                total += value + n * penalised * (share * np.abs(w).sum() + (1 - share) / 2 * w @ w)
            g = weight[rows] * slopes(params["loss"], sign[rows], raw)
            eta = {"optimal": 1 / (alpha * (start + t - 1)), "invscaling": eta0 / t**0.4}.get(
                params["learning_rate"], eta0)  # fmt: skip
            w = w - eta * (X[rows].T @ g / n + penalised * (1 - share) * w)
            w = np.sign(w) * np.maximum(np.abs(w) - eta * penalised * share, 0)
            b -= eta * g.mean() * params.get("fit_intercept", True)
            found.append((w, b))
        losses.append(total / len(y))
    # From the step on that has as many rows behind it.
    begin = -(-int(params.get("average", 0)) // batch_size) or len(found)
    np.testing.assert_allclose(np.ravel(model.coef_), np.mean([w for w, _ in found[begin - 1 :]], axis=0), rtol=1e-9,
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(model.intercept_, np.mean([b for _, b in found[begin - 1 :]]), rtol=1e-9, atol=1e-12)
    assert model.t_ == t + 1
    if params["penalty"] == "l1" and batch_size > 1:
        assert (model.coef_ == 0).any()
    if params["loss"] == "hinge":
        np.testing.assert_allclose([record.value for record in model.fit_report_.records], losses, rtol=1e-9)


def test_an_average_from_some_row_on_is_not_begun_anew_by_a_strategy(diabetes):
    """Steps that go nowhere leave half of the mean to the point where rows had come to, and half to their mean."""
    X, y = diabetes[0][:200], diabetes[1][:200]
    params = {"learning_rate": "constant", "eta0": 0.01, "random_state": 0}
    point = SGDRegressor(**params).partial_fit(X, y).coef_
    model = SGDRegressor(**params, average=10).partial_fit(X, y)
    mean = model.coef_.copy()
    model.set_params(strategy=AllReduce(), batch_size=50, eta0=1e-300).partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, (mean + point) / 2, rtol=1e-12)


@schedules
def test_accumulated_batches_are_one(cancer, schedule):
    """Four batches of 35 rows are one of 140, for every schedule: a step counts once."""
    X, y = cancer[0][:560], cancer[1][:560]
    params = {**IN_ORDER, "loss": "log_loss", "learning_rate": schedule, "max_iter": 5, "tol": None, "average": 3,
              "penalty": "elasticnet"}  # fmt: skip
    whole = SGDClassifier(**params, strategy=AllReduce(), batch_size=140).fit(X, y)
    pieces = SGDClassifier(**params, strategy=AllReduce(accumulate=4), batch_size=35).fit(X, y)
    same(pieces, whole, 1e-11)
    assert pieces.t_ == whole.t_ == 21
    assert pieces.fit_report_.counts["updates"] == 20
    params |= {"shuffle": True}
    whole = SGDClassifier(**params, strategy=AllReduce(), batch_size=140).fit(X, y)
    same(SGDClassifier(**params, strategy=AllReduce(accumulate=4), batch_size=35).fit(X, y), whole, 0)


def test_weights_of_mean_one_are_repetitions(iris):
    X, y = iris
    times = np.random.default_rng(0).integers(0, 4, len(y))
    rows = np.repeat(np.arange(len(y)), times)
    params = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.3, "max_iter": 5, "tol": None, "alpha": 0.01,
              "penalty": "elasticnet"}  # fmt: skip
    params["strategy"], weight = AllReduce(), times / times.mean()
    weighted = SGDClassifier(**params, batch_size=150).fit(X, y, sample_weight=weight)
    repeated = SGDClassifier(**params, batch_size=len(rows)).fit(X[rows], y[rows])
    same(weighted, repeated, 1e-11)
    np.testing.assert_allclose(
        [a.value for a in weighted.fit_report_.records], [a.value for a in repeated.fit_report_.records], rtol=1e-11
    )


def test_batches_find_the_minimum_of_the_objective(cancer):
    """As the exact solver does: scikit-learn's C is 1 / (n alpha)."""
    X, y = cancer
    exact = theirs.LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-10, max_iter=1000).fit(X, y)
    model = SGDClassifier("log_loss", alpha=0.01, learning_rate="constant", eta0=0.5, max_iter=2000, tol=1e-9,
                          batch_size=len(y), strategy=AllReduce()).fit(X, y)  # fmt: skip
    assert model.fit_report_.converged
    same(model, exact, 2e-3)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize(
    "params", [{"batch_size": 1024, "penalty": "elasticnet"}, {"average": True}, {"early_stopping": True},
               {"shuffle": False, "batch_size": 600}, {"shuffle": "rows", "learning_rate": "adaptive"}], ids=str,
)  # fmt: skip
def test_neither_ranks_nor_chunks_nor_deaths_change_a_bit(monkeypatch, mixed_bytes, params):
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", mixed_bytes)
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 12))
    y = (X @ rng.normal(size=12) + rng.logistic(size=2500) > 0) + (X[:, 0] > 1)
    weight = rng.uniform(0.5, 2, len(y))

    def make():
        return SGDClassifier("log_loss", max_iter=3, tol=None, random_state=0, strategy=AllReduce(),
                             **{"batch_size": 200, **params})  # fmt: skip

    model = make().fit(X, y, sample_weight=weight)
    expected, losses = bits(model), [record.value for record in model.fit_report_.records]
    of_csr = bits(make().fit(sparse.csr_matrix(X), y, sample_weight=weight))
    for chunks in ((1, 2499), (500,) * 5):
        lazy = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))
        assert bits(make().fit(*lazy, sample_weight=weight)) == expected
    for n_ranks, kills in ((1, ()), (2, ()), (3, ((0.03, 1),)), (5, ((0.02, 0), (0.05, 3)))):
        for rows, known in ((X, expected), (sparse.csr_matrix(X), of_csr)):
            cluster = SimulatedCluster(n_ranks, seed=1, rows_per_block=256, kills=kills, seconds_per_row=1e-4)
            found = cluster.fit(make(), rows, y, sample_weight=weight)
            assert bits(found) == known
            assert (cluster.report.generations > 1) == bool(kills)
            if rows is X:
                assert [record.value for record in found.fit_report_.records] == losses
            if n_ranks > 1 and not kills:
                assert f"{n_ranks} replicas in sync" in str(found.fit_report_)
    with config_context(n_threads=3):
        assert bits(make().fit(X, y, sample_weight=weight)) == expected


def test_frames_are_read_as_arrays(some):
    X, y = some
    params = {"random_state": 0, "max_iter": 3, "tol": None, "strategy": AllReduce(), "batch_size": 10}
    expected = SGDClassifier(**params).fit(X, y)
    frame = pd.DataFrame(X).add_prefix("c")
    found = SGDClassifier(**params).fit(frame, pd.Series(y))
    assert bits(found) == bits(expected) and found.feature_names_in_[3] == "c3"
    narrow = SGDClassifier(**params).fit(frame.astype(np.float32), y)
    assert bits(narrow) == bits(SGDClassifier(**params).fit(X.astype(np.float32).astype(float), y))


# Strategies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_an_average_after_each_step_is_a_step_along_the_mean(cancer, spread_sums, n_ranks):
    """Of ranks with as many rows of a batch each: steps and L2 are linear, and averages too."""
    X, y = cancer[0][:512], cancer[1][:512]
    params = {"loss": "log_loss", "learning_rate": "optimal", "alpha": 0.01, "batch_size": 32, "max_iter": 3,
              "tol": None, "average": 10, "random_state": 0}  # fmt: skip
    local, mean = (
        SimulatedCluster(n_ranks, rows_per_block=32).fit(SGDClassifier(strategy=strategy, **params), X, y)
        for strategy in (LocalSGD(steps=1), spread_sums(compression=Identity()))
    )
    same(local, mean)
    np.testing.assert_allclose(*([record.value for record in model.fit_report_.records] for model in (local, mean)))


@pytest.mark.parametrize(
    "strategy", [LocalSGD(4), LocalSGD(4, mixing="gossip"), LocalSGD(4, groups=2), AllReduce(compression=TopK(0.1)),
                 AllReduce(compression=TopK(0.1), guard=True)], ids=str,
)  # fmt: skip
def test_strategies_learn_and_survive_deaths(cancer, strategy):
    X, y = cancer
    params = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.5, "max_iter": 30, "tol": None,
              "random_state": 0, "batch_size": 32}  # fmt: skip
    exact = SGDClassifier(strategy=AllReduce(), **params).fit(X, y).score(X, y)
    cluster = SimulatedCluster(4, rows_per_block=32, seed=2, kills=[(0.2, 1)], seconds_per_row=1e-4)
    model = cluster.fit(SGDClassifier(strategy=strategy, **params), X, y)
    assert cluster.report.generations == 2 and model.n_iter_ == 30
    assert model.score(X, y) > exact - 0.01 and exact > 0.98
    counts = model.fit_report_.counts
    assert counts["memories lost"] == (1 if strategy.remembers else 0) and counts["bytes sent"] > 0
    assert counts["updates"] == model.t_ - 1 == 30 * 18


def test_less_travels_with_a_codec(cancer):
    X = np.tile(cancer[0], 20)
    params = {"learning_rate": "constant", "eta0": 0.05, "max_iter": 120, "tol": None, "batch_size": 64}
    sent, scores = [], []
    for strategy in (AllReduce(), AllReduce(compression=TopK(0.02)), LocalSGD(8)):
        cluster = SimulatedCluster(2, rows_per_block=64)
        model = cluster.fit(SGDClassifier(strategy=strategy, **params), X, cancer[1])
        sent.append(max(cluster.report.bytes_sent.values()))
        scores.append(model.score(X, cancer[1]))
    assert max(sent[1:]) < 0.5 * sent[0] and min(scores) > max(scores) - 0.01 > 0.97


def test_local_training_on_sorted_rows_warns(cancer, monkeypatch):
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", 0)
    X, y = cancer
    turn = np.argsort(y, kind="stable")
    model = SGDClassifier(batch_size=64, max_iter=2, strategy=LocalSGD(4))
    with pytest.warns(UserWarning, match=r"SGDClassifier: workers.*own, which differ.*shuffle='rows'"):
        SimulatedCluster(4, rows_per_block=64).fit(model, X[turn], y[turn])
    assert "differ" in model.fit_report_.notes[0]


def test_parameters_of_strategies_are_cloned_set_and_searched(some):
    model = SGDClassifier(strategy=AllReduce(compression=TopK(0.5)), batch_size=10, max_iter=3, tol=None)
    twin = clone(model).set_params(strategy__compression__ratio=0.25)
    assert (twin.strategy.compression.ratio, model.strategy.compression.ratio) == (0.25, 0.5)
    search = GridSearchCV(model, {"strategy__compression__ratio": [0.1, 1.0], "strategy__accumulate": [1, 2]}, cv=2)
    assert set(search.fit(*some).best_params_) == {"strategy__compression__ratio", "strategy__accumulate"}
    assert repr(clone(model).fit(*some)) == repr(model)  # a fit changes no parameter


# How a fit ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [False, 20])
def test_early_stopping_scores_rows_that_are_held_out(cancer, iris, average):
    for X, y in (cancer, iris):
        model = SGDClassifier("log_loss", early_stopping=True, random_state=0, learning_rate="constant", eta0=0.2,
                              strategy=AllReduce(), average=average, validation_fraction=0.2).fit(X, y)  # fmt: skip
        assert model.n_iter_ < 300 and model.fit_report_.stopped_because == "no improvement"
        scores = [record.score for record in model.fit_report_.records]
        assert len(scores) == model.n_iter_ and scores[-1] <= max(scores) and scores[-1] > 0.8
    X, y = load_diabetes(return_X_y=True)
    model = SGDRegressor(early_stopping=True, random_state=0, eta0=0.3, max_iter=5000, strategy=AllReduce(),
                         learning_rate="constant", average=average, batch_size=32)  # fmt: skip
    assert model.fit(X * 20, y).score(X * 20, y) > 0.45 and model.fit_report_.converged


def test_what_is_scored_is_what_is_returned(cancer):
    """The average where there is one: steps that go nowhere leave the score where it is."""
    X, y = cancer
    params = {"random_state": 0, "strategy": AllReduce(), "batch_size": 8, "early_stopping": True, "average": True,
              "learning_rate": "constant", "eta0": 10.0, "max_iter": 1, "validation_fraction": 0.3}  # fmt: skip
    model = SGDClassifier("perceptron", **params).fit(X, y)
    last = SGDClassifier("perceptron", **{**params, "average": False}).fit(X, y)
    scores = model.fit_report_.records[0].score, last.fit_report_.records[0].score
    assert scores[0] != scores[1] and model.score(X, y) == pytest.approx(scores[0], abs=0.04)


def test_the_limit_of_epochs_warns(some):
    with pytest.warns(ConvergenceWarning, match="max_iter, now 2"):
        SGDClassifier(max_iter=2, strategy=AllReduce(), tol=1e-9).fit(*some)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SGDClassifier(max_iter=2, strategy=AllReduce(), tol=None).fit(*some)
        SGDClassifier(strategy=AllReduce()).partial_fit(*some, classes=[0, 1])


def test_what_cannot_be_is_refused(some, diabetes):
    for params, message in (
        ({"batch_size": 32}, "batch_size=32 needs a strategy"),
        ({"batch_size": 0, "strategy": AllReduce()}, "batch_size"),
        ({"strategy": "all"}, "one of daskdml.strategies.*'all'"),
        ({"strategy": AllReduce}, "one of daskdml.strategies"),
        ({"strategy": AllReduce(accumulate=0)}, "accumulate"),
        ({"strategy": AllReduce(), "learning_rate": "pa1"}, "'pa1'.*Leave out the strategy"),
        ({"strategy": AllReduce(), "loss": "squared_error", "learning_rate": "constant", "eta0": 1e308},
         "under-/overflow occurred at epoch #1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            SGDClassifier(**params).fit(*some)
    with pytest.raises(ValueError, match="early_stopping should be False"):
        SGDRegressor(early_stopping=True, strategy=AllReduce()).partial_fit(*diabetes)
    with pytest.raises(ValueError, match="led to an empty set"):
        SGDRegressor(early_stopping=True, strategy=AllReduce()).fit(diabetes[0][:2], diabetes[1][:2])
    with pytest.raises(ValueError, match="validation set are all zero"):
        SGDRegressor(early_stopping=True, strategy=AllReduce(), batch_size=10).fit(
            *diabetes, sample_weight=np.r_[1.0, np.zeros(199)])  # fmt: skip
    X = some[0].copy()
    X[70, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        SGDClassifier(strategy=AllReduce()).fit(X, some[1])


def test_what_is_risky_warns(some):
    with pytest.warns(UserWarning, match="each call of partial_fit begins without"):
        SGDClassifier(strategy=AllReduce(compression=TopK())).partial_fit(*some, classes=[0, 1])
    with pytest.warns(UserWarning, match="lost for good"):
        SGDClassifier(strategy=AllReduce(compression=TopK(), error_feedback=False), max_iter=1).fit(*some)
    with pytest.warns(UserWarning, match="larger than the number of rows, 150"):
        SGDClassifier(strategy=AllReduce(), batch_size=151).fit(*some)


def test_a_checkpoint_is_gone_on_from(cancer, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    model = SGDClassifier(max_iter=4, tol=None, random_state=0, average=True, strategy=AllReduce(), batch_size=20)
    expected = bits(clone(model).fit(*cancer))
    step, calls = training.Training.step, []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return step(self, *args)

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "step", fails)
            with pytest.raises(KeyboardInterrupt):
                clone(model).fit(*cancer)
        calls.clear()
        monkeypatch.setattr(training.Training, "step", lambda self, *args: calls.append(1) or step(self, *args))
        assert bits(clone(model).fit(*cancer)) == expected
    assert len(calls) < 116 - 50
