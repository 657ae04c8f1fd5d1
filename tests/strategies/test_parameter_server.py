"""A parameter server as a strategy: against one process, sums of all ranks, and the definition of a share."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV

from daskdml import config_context
from daskdml.compress import FP16, QSGD, ErrorFeedback, Identity, OneBit, PowerSGD, RandomK, TopK
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.neural_network import MLPClassifier
from daskdml.report.page import render_fit
from daskdml.runtime.spmd.simulate import _Simulation
from daskdml.runtime.tables.session import DenseView
from daskdml.solvers.descent import Adam, Momentum, Plain
from daskdml.strategies import ASP, BSP, SSP, AllReduce, LocalSGD, ParameterServer
from daskdml.testing import SimulatedCluster
from daskdml.training import training
from daskdml.training.served import GONE_BACK, Descent, ServedReplica

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X = X / 16
OTHERS = [BSP(), SSP(0), SSP(3), ASP()]
NETWORKS = [{"solver": "sgd"}, {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5}, {"solver": "adam"},
            {"solver": "sgd", "learning_rate": "invscaling", "warm_up": 1.0, "batch_growth": 2.0},
            {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1}]  # fmt: skip
LINEAR = [{"loss": "log_loss", "penalty": "elasticnet", "alpha": 0.01, "l1_ratio": 0.3, "learning_rate": "optimal"},
          {"loss": "hinge", "learning_rate": "invscaling", "eta0": 0.1, "average": 300},
          {"loss": "squared_hinge", "learning_rate": "adaptive", "eta0": 0.01, "fit_intercept": False}]  # fmt: skip


def network(strategy, **params):
    params = {"hidden_layer_sizes": (12,), "max_iter": 3, "batch_size": 200, "alpha": 0.3, **params}
    return MLPClassifier(strategy=strategy, random_state=0, dtype="float64", **params)


def numbers(model):
    parts = [*model.coefs_, *model.intercepts_] if hasattr(model, "coefs_") else [model.coef_, model.intercept_]
    return np.concatenate([np.ravel(part) for part in parts])


def weights(n):
    return np.random.default_rng(1).integers(0, 4, n).astype(float)


def on(n_ranks, model, *data, **params):
    return SimulatedCluster(n_ranks, rows_per_block=64, **params).fit(model, *data)


# One process ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", [None, SSP(2), ASP()], ids=str)
@pytest.mark.parametrize("params", NETWORKS, ids=str)
def test_a_network_in_one_process_has_the_bits_of_any_strategy(params, consistency):
    served, plain = (
        network(strategy, **params).fit(X, Y)
        for strategy in (ParameterServer(consistency=consistency, reads_ahead=True), AllReduce())
    )
    np.testing.assert_array_equal(numbers(served), numbers(plain))
    assert served.loss_curve_ == plain.loss_curve_
    for model in (served, plain):  # moments and schedules go on from call to call
        model.partial_fit(X, Y)
        model.partial_fit(X, Y)
    np.testing.assert_array_equal(numbers(served), numbers(plain))


def test_rates_and_batches_without_weight_change_no_bit():
    """0.1 times 96 over 96 is not 0.1; and batches that weigh nothing are no updates, which Adam counts."""
    weight = (np.random.default_rng(0).random(len(Y)) < 0.02).astype(float)
    odd = {"batch_size": 96, "learning_rate_init": 0.1, "solver": "sgd"}
    for params in (odd, {"batch_size": 16, "solver": "adam"}):
        served, plain = (network(strategy, **params) for strategy in (ParameterServer(), AllReduce()))
        for model in (served, plain):
            model.fit(X, Y, sample_weight=weight)
            model.partial_fit(X, Y, sample_weight=weight)
        np.testing.assert_array_equal(numbers(served), numbers(plain))
        assert served.fit_report_.counts["updates"] == plain.fit_report_.counts["updates"]


@pytest.mark.parametrize("params", LINEAR, ids=str)
def test_a_linear_model_in_one_process_has_the_bits_of_any_strategy(params):
    data = load_breast_cancer(return_X_y=True)
    data = (data[0] - data[0].mean(axis=0)) / data[0].std(axis=0), data[1]
    served, plain = (
        SGDClassifier(strategy=strategy, max_iter=4, tol=None, random_state=0, batch_size=32, **params).fit(
            *data, sample_weight=weights(len(data[1]))
        )
        for strategy in (ParameterServer(shards=3), AllReduce())
    )  # fmt: skip
    np.testing.assert_array_equal(numbers(served), numbers(plain))


# In step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, weights(len(Y))], ids=["rows", "weights"])
@pytest.mark.parametrize("params", NETWORKS[:3], ids=str)
@pytest.mark.parametrize("n_ranks", [2, 5])
def test_in_step_it_takes_the_steps_of_sums(n_ranks, params, weight, server_sums):
    """The same batches, cut for the ranks: one step along their mean, to rounding."""
    data = {"sample_weight": weight}
    expected, found = (
        SimulatedCluster(n_ranks, rows_per_block=64).fit(network(strategy, **params), X, Y, **data)
        for strategy in (server_sums(compression=Identity()), ParameterServer(consistency=BSP()))
    )
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-9, atol=1e-10)
    if weight is None:
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    lags = found.fit_report_.histograms["staleness"]
    assert set(lags) == set(range(n_ranks))


@pytest.mark.parametrize("params", LINEAR, ids=str)
def test_in_step_linear_models_take_the_steps_of_sums(params, server_sums):
    data = load_diabetes(return_X_y=True)
    labels = data[1] > 140
    expected, found = (
        on(3, SGDClassifier(strategy=one, max_iter=4, tol=None, random_state=0, batch_size=48, **params),
           data[0] * 20, labels)
        for one in (server_sums(compression=Identity()), ParameterServer())
    )  # fmt: skip
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-9, atol=1e-10)


# Groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups, n_groups", [(1, 1), (2, 2), (4, 4), ("host", 3), (9, 6)])
def test_groups_in_step_take_the_steps_of_sums(groups, n_groups, server_sums):
    """Six ranks, two on each machine: one of each group pushes for all."""
    expected, found = (
        on(6, network(strategy), X, Y, workers_per_host=2)
        for strategy in (server_sums(compression=Identity()), ParameterServer(groups=groups))
    )
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    assert set(found.fit_report_.histograms["staleness"]) == set(range(n_groups))


@pytest.mark.parametrize("consistency", [SSP(1), ASP()], ids=str)
def test_inside_a_group_ranks_are_in_step_and_outside_they_are_not(consistency, server_sums):
    """One group is sums, whatever the consistency; of several each is one that may be behind."""
    sums = on(6, network(server_sums(compression=Identity())), X, Y)
    one, three, six = (
        on(6, network(ParameterServer(consistency=consistency, groups=groups)), X, Y, hiccups=(0.1, 10.0))
        for groups in (1, 3, None)
    )
    np.testing.assert_allclose(numbers(one), numbers(sums), rtol=1e-9, atol=1e-10)
    assert np.abs(numbers(three) - numbers(sums)).max() > 1e-3
    lags = [model.fit_report_.histograms["staleness"] for model in (one, three, six)]
    assert sum(lags[0].values()) * 6 == sum(lags[1].values()) * 2 == sum(lags[2].values())  # pushes, of shards
    if consistency.bound is not None:
        assert max(lags[1]) <= 2 * (2 * consistency.bound + 1)
    assert "6 replicas in 3 groups with a parameter server" in three.fit_report_.where


@pytest.mark.parametrize("consistency", [BSP(), SSP(2), pytest.param(ASP(), marks=pytest.mark.slow)], ids=str)
def test_groups_outlive_those_who_push_for_them(consistency):
    """Rank 2 speaks for the second of two groups; rank 1 for nobody; and one comes."""
    params = {"solver": "sgd", "learning_rate_init": 0.05, "hidden_layer_sizes": (32,), "max_iter": 30,
              "n_iter_no_change": 40, "alpha": 1e-4, "batch_size": 64}  # fmt: skip
    cluster = SimulatedCluster(
        4, rows_per_block=64, seconds_per_row=1e-5, kills=[(0.2, 2), (1.2, 1)], joins=[(0.7, 9)]
    )
    model = cluster.fit(network(ParameterServer(consistency=consistency, groups=2), **params), X, Y)
    assert cluster.report.generations == 4 and model.n_iter_ == 30 and model.score(X, Y) > 0.97


def test_groups_that_were_recorded_do_the_same_again():
    common = {"consistency": ASP(), "moves_rows": False, "groups": 3}
    recorded = on(6, network(ParameterServer(record=True, **common)), X, Y, seed=1)
    other, again = (
        on(6, network(ParameterServer(**common, **replay)), X, Y, seed=2, stragglers={0: 3.0}, seconds_per_row=1e-4)
        for replay in ({}, {"replay": recorded.fit_report_.order})
    )
    assert numbers(other).tobytes() != numbers(recorded).tobytes() == numbers(again).tobytes()
    for change, n_per_host in (({"groups": 2}, 1), ({"groups": "host"}, 3)):
        strategy = ParameterServer(**{**common, **change}, replay=recorded.fit_report_.order)
        with pytest.raises(ValueError, match="the same rows, batches and number of workers"):
            on(6, network(strategy), X, Y, workers_per_host=n_per_host)
    # Said in other words: two ranks of each machine, and what ASP() does anyway.
    strategy = ParameterServer(**{**common, "groups": "host"}, reads_ahead=True, replay=recorded.fit_report_.order)
    assert numbers(on(6, network(strategy), X, Y, workers_per_host=2)).tobytes() == numbers(recorded).tobytes()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("consistency", [BSP(), SSP(1)], ids=str)
def test_a_worker_that_was_given_up_while_it_entered_is_not_waited_for(consistency, seed):
    """It lives, asks to be let in when it is held to be gone already, and nobody would tell that it has left."""
    at = 0.02 + 0.004 * seed
    cluster = SimulatedCluster(5, rows_per_block=64, seconds_per_row=1e-4, suspects=[(at, 0)], seed=seed)
    assert cluster.fit(network(ParameterServer(consistency=consistency), max_iter=2), X, Y).n_iter_ == 2


def test_machines_are_groups_of_local_steps_too():
    found, expected = (
        on(6, network(LocalSGD(4, groups=groups), solver="sgd"), X, Y, workers_per_host=2) for groups in ("host", 3)
    )
    assert numbers(found).tobytes() == numbers(expected).tobytes()


# Shares of a step ----------------------------------------------------------------------------------------------------


def moved(transform, shares, gradients, theta=0.0):
    """Return where steps of some shares lead to."""
    theta, t = np.full(3, theta), 0.0
    moments = [np.zeros(3) for _ in range(transform.n_moments)]
    for share, gradient in zip(shares, gradients):
        t += share
        transform.step(theta, np.full(3, gradient), moments, 0.1, t, (3, 0.0, 1.0), lambda n, f: f(0), share)
    return theta[0]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("is_nesterov", [False, True])
def test_shares_with_momentum_lead_as_far(factor, is_nesterov):
    """One gradient, in the end: rate / (1 - factor) of it; whether in one step or in parts that follow each other."""
    for k in (1, 4, 10):
        silence = 400 * k
        found = moved(Momentum(factor, is_nesterov), [1 / k] * (k + silence), [2.0] * k + [0.0] * silence)
        assert found == pytest.approx(-0.1 * 2.0 / (1 - factor), rel=1e-10)


def test_shares_with_adam_lead_as_far():
    """Along equal gradients both moments are those of one: a share moves by as much of the rate."""
    for k in (1, 4, 10):
        assert moved(Adam(epsilon=0.0), [1 / k] * 3 * k, [2.0] * 3 * k) == pytest.approx(-0.3, rel=1e-10)


def test_shares_of_plain_steps_lead_as_far():
    for k in (1, 4, 10):
        assert moved(Plain(), [1 / k] * 3 * k, [2.0] * 3 * k) == pytest.approx(-0.6, rel=1e-12)
        # The strength of L1 is that of whole steps too.
        assert moved(Plain(l1=0.5), [1 / k] * 3 * k, [0.0] * 3 * k, theta=1.0) == pytest.approx(0.85, rel=1e-12)


def test_what_is_pushed_is_a_share_of_a_step():
    """Of a batch of weight 8, a push of 2: a quarter of a step along its mean, and of the penalty of the batch."""
    theta, update = np.array([1.0, -2.0]), np.array([3.0, 4.0])
    rule = Descent(Plain(), 0.0, True)
    share = rule.step(theta, update, [], 0, np.array([2.0, 0.1, 8.0, 1.0]))
    np.testing.assert_allclose(theta, np.array([1.0, -2.0]) - 0.1 * 0.25 * update / 2.0)
    assert share == 0.25 and rule.step(theta, update, [], 0, np.zeros(4)) == 0.0
    theta, rule = np.array([1.0, -2.0]), Descent(Momentum(0.0, False), 0.4, True)
    rule.step(theta, update, [np.zeros(2)], 0, np.array([2.0, 0.1, 8.0, 1.0]))
    np.testing.assert_allclose(theta, [1.0 - 0.025 * (1.5 + 0.05), -2.0 - 0.025 * (2.0 - 0.1)])


# Out of step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency, solver, rate", [
    (SSP(3), "sgd", 0.05), (ASP(), "adam", 0.005),
    pytest.param(ASP(), "sgd", 0.05, marks=pytest.mark.slow),
    pytest.param(SSP(3), "adam", 0.005, marks=pytest.mark.slow),
])  # fmt: skip
def test_out_of_step_it_learns_and_survives_deaths(consistency, solver, rate):
    params = {"solver": solver, "learning_rate_init": rate, "hidden_layer_sizes": (32,), "max_iter": 30,
              "n_iter_no_change": 40, "alpha": 1e-4, "batch_size": 64}  # fmt: skip
    exact = network(AllReduce(), **params).fit(X, Y)
    cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-5, kills=[(0.2, 1)], joins=[(1.0, 9)])
    model = cluster.fit(network(ParameterServer(consistency=consistency), **params), X, Y)
    assert cluster.report.generations == 3 and model.n_iter_ == 30
    assert model.score(X, Y) > exact.score(X, Y) - 0.01 and model.loss_ < exact.loss_ + 0.05
    lags = model.fit_report_.histograms["staleness"]
    assert sum(lags.values()) > 0
    if consistency.bound is not None:
        assert max(lags) <= 3 * (2 * consistency.bound + 1)
    rule = "ASP()" if consistency.bound is None else f"SSP({consistency.bound})"  # with its number, default or not
    assert f"4 replicas with a parameter server, {rule}" in model.fit_report_.where
    assert "staleness: " in render_fit(model.fit_report_)


@pytest.mark.parametrize(
    "codec", [FP16(), pytest.param(QSGD(), marks=pytest.mark.slow), TopK(0.1),
              pytest.param(OneBit(), marks=pytest.mark.slow)], ids=str,
)  # fmt: skip
def test_compressed_pushes_are_learnt_from(codec):
    params = {"solver": "sgd", "learning_rate_init": 0.05, "hidden_layer_sizes": (32,), "max_iter": 20, "alpha": 1e-4}
    sent = {}
    for compression in (None, codec):
        cluster = SimulatedCluster(4, rows_per_block=64)
        model = network(ParameterServer(replicas=0, compression=compression), **params)
        assert cluster.fit(model, X, Y).score(X, Y) > 0.95
        sent[compression] = sum(cluster.report.bytes_sent.values())
    assert sent[codec] < sent[None]


@pytest.mark.slow
def test_a_guard_brings_ranks_back_into_step():
    """At a rate that is too large for what is stale: less and less staleness, and back to the best epoch before."""
    params = {"solver": "sgd", "learning_rate_init": 0.5, "max_iter": 25, "n_iter_no_change": 30, "batch_size": 64,
              "hidden_layer_sizes": (32,), "alpha": 1e-4}  # fmt: skip
    found = {
        has_guard: on(8, network(ParameterServer(consistency=ASP(), guard=has_guard), **params), X, Y,
                      seconds_per_row=1e-5, hiccups=(0.1, 20.0))
        for has_guard in (False, True)
    }  # fmt: skip
    left, guarded = found[False], found[True]
    assert left.fit_report_.notes == []
    assert any("goes on with ParameterServer(consistency=SSP(" in note for note in guarded.fit_report_.notes)
    assert np.isfinite(numbers(guarded)).all() and guarded.loss_ < left.loss_


def test_in_the_end_a_guard_has_nothing_left_to_tighten():
    one, seen = ParameterServer(consistency=ASP(), guard=True), []
    while one is not None:
        seen.append(one._rule.bound)
        one = one.loosened(100)
    assert seen == [None, 8, 4, 2, 1, 0]


@pytest.mark.parametrize("consistency", [SSP(0), SSP(2)], ids=str)
@pytest.mark.parametrize("average", [True, 200, 1400])
def test_averages_are_of_what_was_there(average, consistency):
    """Of shares of steps, too: the first has all of an average, and none is of the zeros it begins with."""
    X, y = load_diabetes(return_X_y=True)
    params = {"learning_rate": "constant", "eta0": 0.05, "max_iter": 3, "tol": None, "random_state": 0}
    expected, model = (
        on(6, SGDRegressor(average=average, strategy=ParameterServer(consistency=one), batch_size=48, **params),
           X * 20, y)
        for one in (BSP(), consistency)
    )  # fmt: skip
    assert model.intercept_ == pytest.approx(expected.intercept_, rel=0.05) and expected.intercept_ > 50
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=0.1 * np.abs(expected.coef_).max())


def test_a_share_as_small_as_rounding_is_a_step():
    theta = moved(Adam(), [1e-17, 0.5, 0.5], [2.0, 2.0, 2.0])
    assert np.isfinite(theta) and theta == pytest.approx(-0.1, rel=1e-3)


def test_an_epoch_that_counts_for_nothing_is_gone_back_from(monkeypatch):
    """At each look: less and less staleness, in the end in step; tables are written to once for each."""
    monkeypatch.setattr("daskdml.training.guard.WORSE", 0.0)
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    puts, put = [], DenseView.put
    monkeypatch.setattr(DenseView, "put", lambda *args: puts.append(1) or put(*args))
    strategy = ParameterServer(consistency=ASP(), guard=True, compression=TopK(0.05))
    model = on(3, network(strategy, solver="sgd", max_iter=12, n_iter_no_change=20, learning_rate_init=0.01), X, Y)
    notes = model.fit_report_.notes
    assert [note.split("staleness=")[1][0] for note in notes if "staleness=" in note] == ["8", "4", "2", "1", "0"]
    assert len(puts) == 2 * sum("from the best one" in note for note in notes) > 0
    assert model.n_iter_ == 12 and np.isfinite(numbers(model)).all()


def test_after_an_epoch_that_counts_for_nothing_tables_are_as_before_it(monkeypatch):
    """What codecs had left out is forgotten too, or the first pushes would have the gradients that led there."""
    monkeypatch.setattr("daskdml.training.guard.WORSE", 0.0)
    begun, begin = [], ServedReplica.begin_epoch

    def look(self, comm):
        has_gone_back = GONE_BACK in self.shared
        begin(self, comm)
        begun.append((has_gone_back, len(self._tables._codec_states)))
        held = self._tables.get_dense()
        np.testing.assert_array_equal(np.concatenate([held["coefficients"], held["intercepts"]]), self.theta)
        comm.barrier()  # nobody pushes on before all have looked

    monkeypatch.setattr(ServedReplica, "begin_epoch", look)
    strategy = ParameterServer(consistency=SSP(2), guard=True, compression=TopK(0.05))
    on(3, network(strategy, solver="sgd", max_iter=6, n_iter_no_change=20, learning_rate_init=0.01), X, Y)
    assert {n for has_gone_back, n in begun if has_gone_back} == {0}  # and residuals there are, after other epochs
    assert max(n for has_gone_back, n in begun if not has_gone_back) > 0


def test_a_death_has_no_more_than_some_batches_done_again(monkeypatch):
    """However small a batch is: what is committed tells the next group where to go on."""
    steps, commit = [], training.Training.step
    monkeypatch.setattr(training.Training, "step", lambda *args: steps.append(1) or commit(*args))
    network(ParameterServer(), max_iter=1, batch_size=4).fit(X, Y)
    assert len(steps) >= len(Y) / 4 / training.MOST_SERVED


@pytest.mark.filterwarnings("error:divide by zero")
def test_adam_without_a_first_moment_has_shares():
    theta = moved(Adam(beta_1=0.0, epsilon=0.0), [0.25] * 4, [2.0] * 4)
    assert theta == pytest.approx(-0.1, rel=1e-10)


def test_slow_ways_are_not_filled_with_repetitions():
    """What takes seconds is not lost: sent again every second it would never get through."""
    sent = {}
    for bandwidth in (1e8, 3e4):
        cluster = SimulatedCluster(4, rows_per_block=64, bandwidth=bandwidth)
        cluster.fit(network(ParameterServer(), max_iter=2), X, Y)
        sent[bandwidth] = sum(cluster.report.bytes_sent.values())
    assert sent[3e4] < 2 * sent[1e8]


# What users do -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_gone_on_from(tmp_path, monkeypatch):
    """From the beginning of its epoch: what came later was with the server."""
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    model = network(ParameterServer(), solver="adam", max_iter=4)
    expected, step, calls = numbers(clone(model).fit(X, Y)), training.Training.step, []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == 24:  # of nine an epoch
            raise KeyboardInterrupt
        return step(self, *args)

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "step", fails)
            with pytest.raises(KeyboardInterrupt):
                clone(model).fit(X, Y)
        calls.clear()
        monkeypatch.setattr(training.Training, "step", lambda self, *args: calls.append(1) or step(self, *args))
        np.testing.assert_array_equal(numbers(clone(model).fit(X, Y)), expected)
    assert len(calls) == 18


def test_parameters_are_cloned_set_and_searched():
    model = SGDClassifier(strategy=ParameterServer(consistency=SSP(5)), max_iter=2, tol=None)
    found = clone(model).set_params(strategy__consistency__staleness=1)
    assert found.strategy.consistency.staleness == 1 and model.strategy.consistency.staleness == 5
    search = GridSearchCV(model, {"strategy__consistency__staleness": [0, 2]}, cv=2).fit(X[:400], Y[:400] % 2)
    assert set(search.cv_results_["param_strategy__consistency__staleness"]) == {0, 2}


def test_targets_and_layouts_are_those_of_any_strategy():
    """Strings, CSR, held-out rows, and a regression."""
    from scipy.sparse import csr_array

    names = np.array(["a", "b", "c"])[Y % 3]
    model = network(ParameterServer(consistency=SSP(1)), early_stopping=True, solver="adam", max_iter=20)
    on(3, model, csr_array(X), names)
    assert model.score(X, names) > 0.8 and len(model.validation_scores_) == 20
    regressor = SGDRegressor(strategy=ParameterServer(consistency=ASP()), learning_rate="constant", max_iter=20)
    data = load_diabetes(return_X_y=True, scaled=True)
    assert on(2, regressor, data[0] * 20, data[1]).score(data[0] * 20, data[1]) > 0.4


@pytest.mark.parametrize("strategy, words", [
    (ParameterServer(groups=0), "'groups'.*must be"), (ParameterServer(groups="node"), "'groups'.*must be.*'host'"),
    (ParameterServer(reads_ahead="yes"), "'reads_ahead'"),
    (ParameterServer(shards=0), "'shards'.*must be"), (ParameterServer(replicas=-1), "'replicas'.*must be"),
    (ParameterServer(consistency=SSP(-1)), "'staleness'"), (ParameterServer(consistency="SSP"), "'consistency'"),
    (ParameterServer(record=True), "set moves_rows=False"), (ParameterServer(replay={}), "set moves_rows=False"),
    (ParameterServer(replay={}, moves_rows=False), "must be the fit_report_.order"),
    (ParameterServer(guard=True), "BSP.. has none"), (ParameterServer(consistency=SSP(0), guard=True), "has none"),
    (ParameterServer(consistency=ASP(), guard=True, record=True, moves_rows=False), "does what no order tells"),
    (ParameterServer(compression=PowerSGD()), "pushed to whenever a rank is ready"),
    (ParameterServer(compression=RandomK()), r"take FP16\(\), QSGD\(\), TopK\(\) or OneBit\(\)"),
    (ParameterServer(compression=ErrorFeedback(TopK())), "left out twice"),
])  # fmt: skip
def test_what_cannot_be_is_refused(strategy, words):
    with pytest.raises(ValueError, match=words):
        network(strategy).fit(X, Y)


@pytest.mark.parametrize("consistency, params, is_warned", [
    (ASP(), {"solver": "sgd"}, True), (ASP(), {"solver": "sgd", "momentum": 0.5}, False), (ASP(), {}, False),
    (SSP(3), {"solver": "sgd"}, False),
])  # fmt: skip
def test_momentum_on_top_of_staleness_is_warned_of(consistency, params, is_warned, recwarn):
    network(ParameterServer(consistency=consistency), max_iter=1, **params).fit(X[:300], Y[:300])
    assert any("momentum comes on top" in str(one.message) for one in recwarn) == is_warned


def test_rows_on_a_device_are_refused(cupy):
    with pytest.raises(ValueError, match="ParameterServer has shards in the memory of hosts"):
        network(ParameterServer()).fit(cupy.asarray(X), Y)


@pytest.mark.parametrize("consistency, is_ahead", [(ASP(), True), (SSP(2), False), (BSP(), False)], ids=str)
def test_by_default_who_waits_for_nobody_reads_ahead(consistency, is_ahead):
    params = {"solver": "sgd", "learning_rate_init": 0.02, "momentum": 0.0, "batch_size": 200}
    lags = {}
    for ahead in ("auto", True, False):
        strategy = ParameterServer(consistency=consistency, reads_ahead=ahead)
        lags[ahead] = on(4, network(strategy, **params), X, Y).fit_report_.histograms["staleness"]
    assert lags["auto"] == lags[is_ahead]
    assert (lags[True] == lags[False]) == (consistency.bound == 0)


def test_what_is_read_ahead_hides_the_way():
    """Messages as long as a batch: in a third less time, meetings counted; what is read is older, within the bound."""
    found = {}
    for reads_ahead in (False, True):
        cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-4, latency=2.5e-3)
        strategy = ParameterServer(consistency=SSP(2), replicas=0, reads_ahead=reads_ahead)
        params = {"solver": "sgd", "learning_rate_init": 0.02, "hidden_layer_sizes": (32,), "batch_size": 200}
        found[reads_ahead] = cluster.fit(network(strategy, max_iter=10, **params), X, Y)
        assert max(found[reads_ahead].fit_report_.histograms["staleness"]) <= 3 * (2 * 2 + 1)
        assert found[reads_ahead].score(X, Y) > 0.85
    late, early = (found[ahead].fit_report_.records[-1].seconds for ahead in (False, True))
    assert early < 0.8 * late


@pytest.mark.parametrize("consistency", [SSP(3), ASP()], ids=str)
def test_what_was_recorded_is_done_again_to_the_bit(consistency):
    """On a network of other delays, where another order would come about."""
    params = {"solver": "sgd", "learning_rate_init": 0.05, "batch_size": 64, "max_iter": 4}
    common = {"consistency": consistency, "moves_rows": False, "reads_ahead": True}
    slow = {"stragglers": {0: 3.0, 2: 2.0}, "seconds_per_row": 1e-4}

    def fitted(strategy, **cluster):
        return on(4, network(strategy, **params), X, Y, **cluster)

    recorded = fitted(ParameterServer(record=True, **common), seed=1)
    other = fitted(ParameterServer(**common), seed=2, **slow)
    again = fitted(ParameterServer(replay=recorded.fit_report_.order, record=True, **common), seed=2, **slow)
    assert numbers(other).tobytes() != numbers(recorded).tobytes()
    assert numbers(again).tobytes() == numbers(recorded).tobytes()
    assert again.loss_curve_ == recorded.loss_curve_ and other.fit_report_.order is None
    assert again.fit_report_.order == recorded.fit_report_.order
    for change, n_ranks in (({}, 3), ({"batch_size": 32}, 4)):
        replay = ParameterServer(replay=recorded.fit_report_.order, **common)
        with pytest.raises(ValueError, match="the same rows, batches and number of workers"):
            on(n_ranks, network(replay, **{**params, **change}), X, Y)


@pytest.mark.parametrize("change", [{"kills": [(0.05, 1)]}, {"joins": [(0.05, 9)]}], ids=str)
def test_what_is_done_again_ends_with_the_group_it_was_done_by(change):
    params = {"consistency": SSP(1), "moves_rows": False}
    recorded = on(4, network(ParameterServer(record=True, **params), max_iter=6), X, Y)
    cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-5, **change)
    model = network(ParameterServer(replay=recorded.fit_report_.order, **params), max_iter=6)
    assert cluster.fit(model, X, Y).n_iter_ == 6 and cluster.report.generations > 1


def test_what_a_death_has_changed_is_not_recorded():
    strategy = ParameterServer(consistency=ASP(), record=True, moves_rows=False)
    cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-5, kills=[(0.05, 1)])
    assert cluster.fit(network(strategy, max_iter=6), X, Y).fit_report_.order is None and cluster.report.generations > 1


@pytest.mark.parametrize("delay", [0.002, 0.005, 0.01, 0.05])
def test_an_epoch_of_one_batch_waits_for_those_who_leave_their_group(delay, monkeypatch):
    """In step nothing counts before the server knows that the others of a group do not push."""
    bundles = _Simulation.send_bundle

    def slow_control(self, source, to, *args):
        if source is None or to is None:
            return self.at(self.now + delay, bundles, self, source, to, *args)
        return bundles(self, source, to, *args)

    monkeypatch.setattr(_Simulation, "send_bundle", slow_control)
    found = []
    for groups in (None, 2):
        strategy = ParameterServer(groups=groups, moves_rows=False)
        model = network(strategy, solver="sgd", momentum=0.0, batch_size=1200, max_iter=1)
        found.append(numbers(on(4, model, X[:1200], Y[:1200])))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-12)
