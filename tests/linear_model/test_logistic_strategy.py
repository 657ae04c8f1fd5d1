"""Logistic regression whose ranks come near the optimum at their own pace: against fits in step, and the definition."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from daskdml import config_context
from daskdml.compress import FP16, TopK
from daskdml.linear_model import LogisticRegression
from daskdml.runtime.checkpoint import Checkpoint
from daskdml.solvers import apart
from daskdml.strategies import ASP, BSP, SSP, AllReduce, ParameterServer
from daskdml.testing import SimulatedCluster

N, BLOCK = 40_000, 1_000
CONSISTENCIES = [None, BSP(), SSP(0), SSP(3), ASP()]
SECONDS = 1e-5  # a row


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 6)) * [1, 10, 0.1, 1, 1, 3]
    raw = X @ (rng.normal(size=(6, 3)) / [[1], [10], [0.1], [1], [1], [3]]) + rng.gumbel(size=(N, 3))
    return X, np.array(["ash", "birch", "cedar"])[raw.argmax(axis=1)]


def on(n_ranks, model, *data, seed=0, weight=None, **params):
    """Fit on simulated workers, of which now and then one takes ten times as long."""
    params = {"seconds_per_row": SECONDS, "hiccups": (0.1, 10.0), "rows_per_block": BLOCK, **params}
    cluster = SimulatedCluster(n_ranks, seed=seed, **params)
    return cluster.fit(model, *data, sample_weight=weight), cluster.report


def objective(model, X, y, weight=None):
    """Return scikit-learn's objective at a fitted model, by its definition."""
    raw = X @ model.coef_.T + model.intercept_
    raw = np.hstack([np.zeros((len(y), 1)), raw]) if raw.shape[1] == 1 else raw
    loss = np.logaddexp.reduce(raw, axis=1) - raw[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    ratio = model.l1_ratio
    penalty = (1 - ratio) / 2 * (model.coef_**2).sum() + ratio * np.abs(model.coef_).sum()
    return model.C * (loss if weight is None else weight * loss).sum() + penalty


@pytest.mark.parametrize("consistency", CONSISTENCIES, ids=str)
@pytest.mark.parametrize(
    "params", [{}, {"C": 0.01, "l1_ratio": 1.0}, {"C": 0.001, "l1_ratio": 0.5}, {"classes": 2, "fit_intercept": False}],
    ids=str,
)  # fmt: skip
def test_the_optimum_is_that_of_ranks_in_step(params, consistency, rows):
    X, y = rows
    params = dict(params)
    y = np.where(y == "ash", "ash", "oak") if params.pop("classes", 3) == 2 else y
    exact = LogisticRegression(**params, tol=1e-9, max_iter=500).fit(X, y)
    strategy = ParameterServer(consistency=consistency)
    model, _ = on(5, LogisticRegression(**params, strategy=strategy), X, y)
    best = objective(exact, X, y)
    assert objective(model, X, y) <= best * (1 + 2e-8)
    report = model.fit_report_
    assert report.converged and report.gap <= 1e-8 and report.notes == []
    assert report.counts["pushes"] >= 5 and f"5 replicas with a parameter server, {strategy._rule}" in report.where
    np.testing.assert_array_equal(model.predict(X[:99]), exact.predict(X[:99]))
    in_step, _ = on(5, LogisticRegression(**params), X, y)
    assert model.n_iter_[0] < in_step.n_iter_[0]  # they have come near before they meet


def test_weights_are_repeated_rows_and_sparse_rows_are_dense_ones(rows):
    X, y = rows
    weight = np.random.default_rng(1).integers(0, 3, N).astype(float)
    repeated = np.repeat(np.arange(N), weight.astype(int))
    model = LogisticRegression(C=0.1, class_weight={"ash": 2.0}, tol=1e-7, strategy=ParameterServer(consistency=ASP()))
    weighted, _ = on(4, clone(model), X, y, weight=weight)
    of_repeated, _ = on(4, clone(model), X[repeated], y[repeated])
    stored, _ = on(4, clone(model), sparse.csr_matrix(X), y, weight=weight)
    for other in (of_repeated, stored):
        np.testing.assert_allclose(weighted.coef_, other.coef_, atol=2e-6)
        np.testing.assert_allclose(weighted.intercept_, other.intercept_, atol=2e-6)
    assert stored.fit_report_.counts["pushes"] > 0


@pytest.mark.parametrize("staleness", [0, 2])
def test_nobody_is_further_ahead_than_the_bound(staleness, rows, monkeypatch):
    X, y = rows
    clocks, leads = {}, []
    before = apart.minimize_apart

    def watched(solver, shares, *args):
        push, name = shares.push, id(shares)
        clocks[name] = 0

        def and_count(change, becomes_ready):
            push(change, becomes_ready)
            clocks[name] += 1
            leads.append(clocks[name] - min(clocks.values()))

        shares.push = and_count
        return before(solver, shares, *args)

    monkeypatch.setattr("daskdml.linear_model._solving.minimize_apart", watched)
    strategy = ParameterServer(consistency=SSP(staleness))
    model, _ = on(6, LogisticRegression(tol=1e-6, strategy=strategy), X, y, stragglers={2: 8.0})
    assert len(clocks) == 6 and max(leads) == staleness + 1  # it has pushed, and waits
    lags = model.fit_report_.histograms["staleness"]
    assert sum(lags.values()) > 0 and max(lags) <= 5 * (2 * staleness + 1)


@pytest.mark.parametrize("consistency", [BSP(), SSP(3), ASP()], ids=str)
@pytest.mark.parametrize("second", [0.2, 0.35, 0.5])
def test_a_worker_that_dies_changes_nothing(second, consistency, rows):
    X, y = rows
    strategy = ParameterServer(consistency=consistency)
    exact = LogisticRegression(tol=1e-9).fit(X, y)
    model, report = on(4, LogisticRegression(strategy=strategy), X, y, kills=[(second, 1)])
    assert report.generations == 2
    assert objective(model, X, y) <= objective(exact, X, y) * (1 + 2e-8) and model.fit_report_.converged


def test_ranks_whose_rows_differ_come_to_the_same_optimum(rows):
    X, y = rows
    order = np.lexsort((X[:, 1], y))  # a class or two each
    exact = LogisticRegression(tol=1e-9).fit(X, y)
    for consistency in (BSP(), ASP()):
        model, _ = on(8, LogisticRegression(strategy=ParameterServer(consistency=consistency)), X[order], y[order])
        assert objective(model, X, y) <= objective(exact, X, y) * (1 + 2e-8) and model.fit_report_.converged


def test_where_ranks_draw_apart_they_begin_again_in_step(rows, monkeypatch):
    X, y = rows
    strategy, before = ParameterServer(consistency=ASP()), apart.minimize_apart

    def led_astray(*args):
        theta, first, loss = before(*args)
        return theta + 100.0, first, loss

    monkeypatch.setattr("daskdml.linear_model._solving.minimize_apart", led_astray)
    model, _ = on(4, LogisticRegression(strategy=strategy), X, y)
    assert any("came to a worse point" in note for note in model.fit_report_.notes) and model.fit_report_.converged
    assert objective(model, X, y) <= objective(LogisticRegression(tol=1e-9).fit(X, y), X, y) * (1 + 2e-8)


def test_an_order_makes_the_same_bits(rows):
    X, y = rows
    server = {"consistency": ASP(), "moves_rows": False}
    model = LogisticRegression(tol=1e-6, strategy=ParameterServer(**server, record=True))
    first, _ = on(5, clone(model), X, y, seed=1)
    other, _ = on(5, clone(model), X, y, seed=2)
    assert first.fit_report_.order["shards"] != other.fit_report_.order["shards"]
    again = LogisticRegression(tol=1e-6, strategy=ParameterServer(**server, replay=first.fit_report_.order))
    for seed in (2, 3):
        replayed, _ = on(5, clone(again), X, y, seed=seed)
        np.testing.assert_array_equal(replayed.coef_, first.coef_)
        np.testing.assert_array_equal(replayed.intercept_, first.intercept_)
    with pytest.raises(ValueError, match="replay is the order of a fit of"):
        on(4, again, X, y)


@pytest.mark.parametrize("codec", [FP16(), TopK(0.3)], ids=str)
def test_what_codecs_leave_out_is_certified_all_the_same(codec, rows):
    X, y = rows
    strategy = ParameterServer(consistency=SSP(3), compression=codec)
    model, _ = on(5, LogisticRegression(strategy=strategy), X, y)
    exact = LogisticRegression(tol=1e-9).fit(X, y)
    assert objective(model, X, y) <= objective(exact, X, y) * (1 + 2e-8)


def test_the_driver_has_no_more_passes_than_were_made(rows):
    X, y = rows
    model, _ = on(4, LogisticRegression(strategy=ParameterServer()), X, y, hiccups=(0.0, 1.0))
    report = model.fit_report_
    n_rounds = report.counts["pushes"] / 4
    in_step = clone(model).set_params(strategy=None)
    other, _ = on(4, in_step, X, y)
    # The first evaluation in step is of a point that they came to; the rounds before it are passes as well.
    n_in_step = report.passes - n_rounds - (other.fit_report_.passes - 1 - other.n_iter_[0])
    assert n_rounds == int(n_rounds) and n_in_step == pytest.approx(1 + model.n_iter_[0], abs=1e-9)


def test_checkpoints_hold_what_ranks_came_to(rows, tmp_path, monkeypatch):
    X, y = rows
    written = []
    before = Checkpoint.write_or_warn
    monkeypatch.setattr(Checkpoint, "write_or_warn", lambda self, *args: written.append(args) or before(self, *args))
    strategy = ParameterServer(consistency=SSP(3))
    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9):
        model, _ = on(4, LogisticRegression(strategy=strategy), X, y, save_every=1)
    names = [name for name, _ in written[-1][1]]
    assert "_apart" in names and not list(tmp_path.glob("*"))
    assert model.fit_report_.converged


def test_nonfinite_rows_are_named(rows):
    X, y = rows
    X = X.copy()
    X[31_234, 2] = np.nan
    with pytest.raises(ValueError, match="row 31234"):
        on(4, LogisticRegression(strategy=ParameterServer(consistency=SSP(3))), X, y)


# Where it does not act -----------------------------------------------------------------------------------------------


def test_one_process_has_the_bits_of_no_strategy_and_says_so(rows):
    X, y = rows
    plain = LogisticRegression().fit(X, y)
    served = LogisticRegression(strategy=ParameterServer(consistency=ASP())).fit(X, y)
    np.testing.assert_array_equal(plain.coef_, served.coef_)
    assert any("nothing to do: no ranks" in note for note in served.fit_report_.notes)
    alone, in_step = (on(1, LogisticRegression(strategy=one), X, y)[0] for one in (ParameterServer(), None))
    np.testing.assert_array_equal(alone.coef_, in_step.coef_)
    small, _ = on(3, LogisticRegression(strategy=ParameterServer()), X[:500], y[:500], rows_per_block=50)
    assert any("no Hessian of a sample" in note for note in small.fit_report_.notes)


@pytest.mark.parametrize(
    "strategy, words",
    [
        (AllReduce(), "must be a daskdml.strategies.ParameterServer"),
        (ParameterServer, "must be a daskdml.strategies.ParameterServer"),
        ("server", "must be a daskdml.strategies.ParameterServer"),
        (ParameterServer(groups=2), "groups has nothing to act on"),
        (ParameterServer(sparse=True), "sparse=True has nothing to act on"),
        (ParameterServer(reads_ahead=True), "reads_ahead=True has nothing to act on"),
        (ParameterServer(consistency=ASP(), guard=True), "guard=True has nothing to act on"),
        (ParameterServer(shards=0), "shards"),
        (ParameterServer(record=True), "moves_rows=False"),
    ],
    ids=str,
)
def test_what_cannot_act_is_refused(strategy, words, rows):
    X, y = rows
    with pytest.raises(ValueError, match=words):
        LogisticRegression(strategy=strategy).fit(X, y)


def test_scikit_learn_is_handed_no_strategy(rows):
    X, y = rows
    model = LogisticRegression(strategy=ParameterServer()).fit(X[:500], y[:500])
    assert "strategy" not in model.to_sklearn().get_params()
