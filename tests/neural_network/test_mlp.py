"""Networks against scikit-learn's, and the same bits wherever and however rows lie."""

import warnings

import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network as theirs
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from daskdml import config_context
from daskdml.compress import Identity, TopK
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce, LocalSGD, ModelParallel, OuterStep
from daskdml.testing import SimulatedCluster
from daskdml.training import training

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def parts(model):
    return [*model.coefs_, *model.intercepts_]


def bits(model):
    return b"".join(part.tobytes() for part in parts(model)) + np.array(model.loss_curve_).tobytes()


def same(ours, known, rtol=1e-9):
    for a, b in zip(parts(ours), parts(known), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


# scikit-learn, from the same coefficients and the same batches --------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", [{"solver": "adam"}, {"solver": "sgd"}, {"solver": "sgd", "momentum": 0.5,
                                    "nesterovs_momentum": False, "learning_rate": "invscaling"}], ids=str)  # fmt: skip
def test_epochs_are_scikit_learns(digits, activation, solver):
    """Batches of rows in their order, the last one short: the same coefficients after five epochs, and the loss."""
    params = {"hidden_layer_sizes": (16, 8), "random_state": 3, "max_iter": 5, "batch_size": 250, "shuffle": False}
    params |= {"activation": activation, "learning_rate_init": 0.01, **solver}
    ours = MLPClassifier(dtype="float64", **params).fit(*digits)
    known = theirs.MLPClassifier(**params).fit(*digits)
    same(ours, known)
    np.testing.assert_allclose(ours.loss_curve_, known.loss_curve_, rtol=1e-9)
    assert (ours.n_iter_, ours.t_, ours.n_layers_, ours.n_outputs_, ours.out_activation_) == (
        known.n_iter_, known.t_, known.n_layers_, known.n_outputs_, known.out_activation_,
    )  # fmt: skip


@pytest.mark.parametrize("loss, n_outputs", [("squared_error", 1), ("squared_error", 2), ("poisson", 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_regressions_are_scikit_learns(loss, n_outputs, weighted):
    X, y = load_diabetes(return_X_y=True)
    y = y / 100 if n_outputs == 1 else np.column_stack([y / 100, X[:, 3] * 20])
    weight = np.random.default_rng(0).uniform(0, 2, len(X)) if weighted else None
    params = {"hidden_layer_sizes": (10,), "random_state": 0, "max_iter": 8, "batch_size": 100, "shuffle": False}
    ours = MLPRegressor(loss, dtype="float64", **params).fit(X, y, weight)
    known = theirs.MLPRegressor(loss, **params).fit(X, y, weight)
    same(ours, known)
    np.testing.assert_allclose(ours.loss_curve_, known.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(X), known.predict(X), rtol=1e-8)


def test_two_classes_and_weights_are_scikit_learns(digits):
    X, y = digits
    weight = np.random.default_rng(0).uniform(0, 2, len(X))
    params = {"hidden_layer_sizes": (10,), "random_state": 0, "max_iter": 8, "batch_size": 200, "shuffle": False}
    ours = MLPClassifier(dtype="float64", **params).fit(X, y % 2, weight)
    known = theirs.MLPClassifier(**params).fit(X, y % 2, weight)
    same(ours, known)
    np.testing.assert_allclose(ours.loss_curve_, known.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), known.predict_proba(X), rtol=1e-8)


@pytest.mark.parametrize("rate", ["constant", "adaptive"])
def test_stopping_is_scikit_learns(digits, rate):
    params = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 200, "batch_size": 200, "shuffle": False}
    params |= {"solver": "sgd", "learning_rate": rate, "learning_rate_init": 0.2, "tol": 0.03, "n_iter_no_change": 3}
    ours = MLPClassifier(dtype="float64", **params).fit(*digits)
    known = theirs.MLPClassifier(**params).fit(*digits)
    assert ours.n_iter_ == known.n_iter_ < 200
    np.testing.assert_allclose(ours.best_loss_, known.best_loss_, rtol=1e-8)
    assert ours.fit_report_.converged


def test_lbfgs_finds_what_scikit_learn_finds(digits):
    X, y = digits
    params = {"hidden_layer_sizes": (10,), "solver": "lbfgs", "max_iter": 15, "random_state": 0}
    ours, known = MLPClassifier(dtype="float64", **params).fit(X, y), theirs.MLPClassifier(**params).fit(X, y)
    assert ours.loss_ == pytest.approx(known.loss_, rel=1e-6)
    same(ours, known, 1e-4)


def test_partial_fit_goes_on_as_scikit_learn_does(digits):
    X, y = digits
    params = {"hidden_layer_sizes": (12,), "random_state": 1, "batch_size": 300, "shuffle": False}
    ours, known = MLPClassifier(dtype="float64", **params), theirs.MLPClassifier(**params)
    for first in (0, 600, 1200, 0):
        rows = slice(first, first + 600)
        for model in (ours, known):
            model.partial_fit(X[rows], y[rows], classes=np.arange(10))
    same(ours, known)
    assert len(ours.loss_curve_) == 4 and ours.t_ == known.t_
    with pytest.raises(ValueError, match="classes not in"):
        ours.partial_fit(X[:10], np.full(10, 77))
    with pytest.raises(ValueError, match="not the same as on last call"):
        ours.partial_fit(X[:10], y[:10], classes=[1, 2])
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(X, y)
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")


def test_a_warm_start_goes_on(digits):
    X, y = digits
    params = {"hidden_layer_sizes": (12,), "random_state": 1, "shuffle": False, "max_iter": 3, "warm_start": True,
              "batch_size": 300}  # fmt: skip
    ours, known = MLPClassifier(dtype="float64", **params), theirs.MLPClassifier(**params)
    for _ in range(2):
        ours.fit(X, y)
        known.fit(X, y)
    same(ours, known)
    assert len(ours.loss_curve_) == 6
    with pytest.raises(ValueError, match="warm_start=False"):
        ours.fit(X, y % 5)
    with pytest.raises(ValueError, match="warm_start=False"):
        ours.set_params(hidden_layer_sizes=(3,)).fit(X, y)


@pytest.mark.parametrize("n_rows", [1, 10])
@pytest.mark.parametrize("params", [{}, {"solver": "sgd", "strategy": AllReduce(accumulate=2)}], ids=str)
def test_batches_without_weight_are_as_if_they_were_not_there(digits, n_rows, params):
    """Neither a step nor a loss of 0; scikit-learn, whose losses are means over rows, divides by zero there."""
    X, y = digits[0][:240], digits[1][:240] % 3
    params = {"batch_size": n_rows, "shuffle": False, "dtype": "float64", "random_state": 0, "max_iter": 3, **params}
    weight = np.repeat(np.arange(240 // (2 * n_rows)) % 2, 2 * n_rows).astype(float)  # steps of one or two batches
    model = MLPClassifier((5,), **params).fit(X, y, weight)
    alone = MLPClassifier((5,), **params).fit(X[weight > 0], y[weight > 0])
    same(model, alone)
    np.testing.assert_allclose(model.loss_curve_, alone.loss_curve_, rtol=1e-12)
    assert model.loss_ > 0.1 and (model.t_, alone.t_) == (3 * 240, 3 * 120)
    cluster = SimulatedCluster(3, rows_per_block=16)
    assert bits(cluster.fit(MLPClassifier((5,), **params), X, y, sample_weight=weight)) == bits(model)


# Rows that are not trained on -----------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_epoch(digits):
    X, y = digits
    model = MLPClassifier((16,), early_stopping=True, n_iter_no_change=3, max_iter=200, random_state=0,
                          learning_rate_init=0.02, validation_fraction=0.2)  # fmt: skip
    model.fit(X, y)
    assert model.n_iter_ < 200 and model.fit_report_.converged and model.best_loss_ is None
    assert model.best_validation_score_ == max(model.validation_scores_) > 0.95
    # The rows held out are those in no batch; the best coefficients score what was written down.
    n_held = len(X) - model.t_ // model.n_iter_
    assert abs(n_held - 0.2 * len(X)) < 10
    right = model.best_validation_score_ * n_held
    assert right == pytest.approx(round(right), abs=1e-9)


@pytest.mark.parametrize("kind", ["numpy", "csr", "dask"])
def test_given_rows_are_scored(digits, kind):
    X, y = digits
    given = {"numpy": X[1500:], "csr": sparse.csr_matrix(X[1500:]), "dask": da.from_array(X[1500:], chunks=(100, -1))}
    model = MLPClassifier((16,), max_iter=4, random_state=0)
    model.fit(X[:1500], y[:1500], X_val=given[kind], y_val=y[1500:])
    assert len(model.validation_scores_) == 4 and model.n_iter_ == 4
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[1500:], y[1500:]), abs=1e-12)
    weight = np.random.default_rng(0).uniform(0.1, 1, 297)
    model.fit(X[:1500], y[:1500], X_val=given[kind], y_val=y[1500:], sample_weight_val=weight)
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[1500:], y[1500:], weight), abs=1e-12)


def test_given_rows_of_regressions_are_scored():
    X, y = load_diabetes(return_X_y=True)
    Y = np.column_stack([y, 3 * X[:, 2]])
    model = MLPRegressor(hidden_layer_sizes=(10,), max_iter=5, random_state=0, learning_rate_init=0.1, dtype="float64")
    model.fit(X[:300], Y[:300], X_val=X[300:], y_val=Y[300:])
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[300:], Y[300:]), rel=1e-9)


def test_half_of_the_validation_rows_is_refused(digits):
    X, y = digits
    with pytest.raises(ValueError, match="X_val alone"):
        MLPClassifier().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="y_val and sample_weight_val alone"):
        MLPClassifier().fit(X, y, y_val=y, sample_weight_val=y)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize(
    "params", [{"batch_size": 1024}, {}, {"early_stopping": True, "batch_size": 600},
               {"shuffle": False, "batch_size": 512}, {"shuffle": "rows", "solver": "sgd", "batch_size": 700}],
    ids=str,
)  # fmt: skip
def test_neither_ranks_nor_chunks_nor_deaths_change_a_bit(digits, monkeypatch, mixed_bytes, params):
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", mixed_bytes)
    X, y = digits
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))

    def make():
        return MLPClassifier((32,), max_iter=4, random_state=0, **params)

    expected, of_csr = bits(make().fit(X, y, weight)), bits(make().fit(sparse.csr_matrix(X), y, weight))
    for chunks in ((1797,), (1, 1796), (100,) * 17 + (97,), (0, 900, 0, 897)):
        lazy = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))
        assert bits(make().fit(*lazy, weight)) == expected
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    for n_ranks, kills in ((2, ()), (3, ((0.06, 0), (0.6, 2))), (5, ()), (8, ((0.06, 3),))):
        for rows, known in ((X, expected), (sparse.csr_matrix(X), of_csr)):
            cluster = SimulatedCluster(n_ranks, seed=1, rows_per_block=128, kills=kills, seconds_per_row=1e-4)
            found = cluster.fit(make(), rows, y, sample_weight=weight)
            assert bits(found) == known
            assert (cluster.report.generations > 1) == bool(kills)
            if not kills:
                assert f"{n_ranks} replicas in sync" in str(found.fit_report_)
    for n_threads in (1, 3):
        with config_context(n_threads=n_threads):
            assert bits(make().fit(X, y, weight)) == expected


def test_rows_that_lie_sorted_are_mixed(digits):
    """Up to a gigabyte batches are drawn from all rows, sorted or not, on every kind of input."""
    X, y = digits
    turn = np.argsort(y, kind="stable")
    lazy = da.from_array(X[turn], chunks=(180, -1)), da.from_array(y[turn], chunks=180)
    model = MLPClassifier((32,), batch_size=32, max_iter=20, random_state=0, learning_rate_init=0.01).fit(*lazy)
    assert model.score(X, y) > 0.98


def test_a_batch_of_all_rows_is_the_gradient_of_repeated_rows(digits):
    X, y = digits[0][:300], digits[1][:300]
    times = np.random.default_rng(0).integers(0, 4, 300)
    params = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 3, "dtype": "float64"}
    weighted = MLPClassifier(batch_size=300, **params).fit(X, y, times)
    rows = np.repeat(np.arange(300), times)
    same(weighted, MLPClassifier(batch_size=len(rows), **params).fit(X[rows], y[rows]))


@pytest.mark.parametrize("shuffle", [True, False, "rows"])
@pytest.mark.parametrize("accumulate, batch_size", [(2, 800), (4, 32), (16, 64), (3, 1000), (4, 4000)])
@pytest.mark.parametrize("strategy", [AllReduce, ModelParallel])
def test_accumulated_batches_are_one(digits, strategy, accumulate, batch_size, shuffle):
    """K batches of b rows are the batch of K b rows, to the bit."""
    X, y = digits[0][:1600], digits[1][:1600]
    params = {"hidden_layer_sizes": (16,), "random_state": 0, "max_iter": 3, "shuffle": shuffle}
    whole = MLPClassifier(batch_size=min(accumulate * batch_size, 1600), strategy=strategy(), **params).fit(X, y)
    own = strategy(accumulate=accumulate)
    pieces = MLPClassifier(batch_size=min(batch_size, 1600), strategy=own, **params).fit(X, y)
    same(pieces, whole, 0)
    assert pieces._state.n_updates == whole._state.n_updates == 3 * -(-1600 // min(accumulate * batch_size, 1600))


def test_scaled_rates_and_growing_batches(digits):
    X, y = digits[0][:1600], digits[1][:1600]
    params = {"hidden_layer_sizes": (16,), "random_state": 0, "max_iter": 2, "dtype": "float64", "solver": "sgd",
              "momentum": 0.0, "learning_rate_init": 0.02}  # fmt: skip
    whole = MLPClassifier(batch_size=1600, **{**params, "learning_rate_init": 0.08}).fit(X, y)
    four = AllReduce(accumulate=4)
    scaled = MLPClassifier(batch_size=400, strategy=four, learning_rate_scaling="linear", **params).fit(X, y)
    same(scaled, whole)
    root = MLPClassifier(batch_size=400, strategy=four, learning_rate_scaling="sqrt", **params).fit(X, y)
    same(root, MLPClassifier(batch_size=1600, **{**params, "learning_rate_init": 0.04}).fit(X, y))
    grown = MLPClassifier(batch_size=200, batch_growth=2.0, **params).set_params(max_iter=5).fit(X, y)
    assert grown._state.n_updates == 8 + 4 + 2 + 1 + 1
    warm = MLPClassifier(batch_size=400, strategy=four, learning_rate_scaling="linear", warm_up=1.0, **params)
    first = warm.set_params(max_iter=1).fit(X, y)  # from the rate of one batch
    start = MLPClassifier(batch_size=1600, **{**params, "learning_rate_init": 0.02 * 1.03, "max_iter": 1}).fit(X, y)
    same(first, start)


# Strategies -----------------------------------------------------------------------------------------------------------


WEIGHTS = {
    "none": lambda y: None, "two": lambda y: np.full(len(y), 2.0), "one class": lambda y: np.where(y == 3, 50.0, 1.0),
    "few rows": lambda y: (np.arange(len(y)) % 20 == 0) * 1.0,
}  # fmt: skip


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("n_ranks", [1, 2, 8])
def test_an_average_after_each_step_is_a_step_along_the_mean(digits, spread_sums, n_ranks, alpha, weights):
    """Without momentum: the same as adding up gradients first.

    What a batch weighs at all ranks a rank only knows if all rows weigh the same, which penalties are divided by.
    """
    if alpha and weights not in ("none", "two"):
        return
    X, y = digits[0][:1792], digits[1][:1792]
    params = {"hidden_layer_sizes": (16,), "random_state": 0, "max_iter": 3, "dtype": "float64", "solver": "sgd",
              "momentum": 0.0, "batch_size": 64, "alpha": alpha, "learning_rate_init": 0.1}  # fmt: skip
    for groups in (None, 2):
        models = [
            SimulatedCluster(n_ranks, rows_per_block=64).fit(
                MLPClassifier(strategy=strategy, **params), X, y, sample_weight=WEIGHTS[weights](y)
            )
            for strategy in (LocalSGD(steps=1, groups=groups), spread_sums(compression=Identity()))
        ]  # fmt: skip
        same(*models, 1e-9)
        if weights in ("none", "two"):  # else scikit-learn's mean is over rows of batches, and not over weights
            assert models[0].loss_ == pytest.approx(models[1].loss_, rel=1e-9)


def test_an_outer_step_by_its_formula(digits):
    """One batch an epoch, of all rows: v <- m v + (mean - theta), theta <- theta + r v."""
    X, y = digits[0][:1600], digits[1][:1600]
    params = {"hidden_layer_sizes": (8,), "random_state": 0, "dtype": "float64", "solver": "sgd", "momentum": 0.0,
              "batch_size": 1600, "learning_rate_init": 0.1, "alpha": 0.0}  # fmt: skip
    outer = LocalSGD(steps=1, outer=OuterStep(rate=0.5, momentum=0.8))
    found = MLPClassifier(max_iter=3, strategy=outer, **params).fit(X, y)
    plain = MLPClassifier(max_iter=1, warm_start=True, **params)
    theta = np.concatenate([np.ravel(part) for part in parts(MLPClassifier(max_iter=1, **{
        **params, "learning_rate_init": 1e-300}).fit(X, y))])  # fmt: skip
    velocity, shapes = np.zeros_like(theta), [np.shape(part) for part in parts(found)]
    for _ in range(3):
        if not hasattr(plain, "coefs_"):
            plain.fit(X, y)
        else:
            edges = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
            split = [theta[a:b].reshape(shape) for a, b, shape in zip(edges, edges[1:], shapes)]
            plain.coefs_, plain.intercepts_ = split[:2], split[2:]
            plain.fit(X, y)
        mean = np.concatenate([np.ravel(part) for part in parts(plain)])
        velocity = 0.8 * velocity + (mean - theta)
        theta = theta + 0.5 * velocity
    np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in parts(found)]), theta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strategy", [AllReduce(significance=0.5), AllReduce(max_bytes_per_round=600)], ids=str)
def test_less_is_sent_and_as_much_is_learned(digits, strategy):
    X, y = digits
    params = {"hidden_layer_sizes": (32,), "solver": "sgd", "learning_rate_init": 0.1, "batch_size": 64, "max_iter": 20,
              "random_state": 0, "tol": 0}  # fmt: skip
    sent, scores = [], []
    for chosen in (AllReduce(compression=Identity()), strategy):
        cluster = SimulatedCluster(2, rows_per_block=64)
        model = cluster.fit(MLPClassifier(strategy=chosen, **params), X, y)
        sent.append(max(cluster.report.bytes_sent.values()))
        scores.append(model.score(X, y))
    assert sent[1] < 0.7 * sent[0] and scores[1] > scores[0] - 0.02


def test_neighbours_meet_more_often_than_all(digits):
    """Gossip is what happens between averages of all ranks: a rank sends to two, whatever the model's size."""
    X, y = digits
    params = {"hidden_layer_sizes": (16,), "solver": "sgd", "batch_size": 64, "max_iter": 1, "random_state": 0}
    counts = []
    for mixing in ("allreduce", "gossip"):
        model = MLPClassifier(strategy=LocalSGD(2, mixing=mixing), **params)
        found = SimulatedCluster(8, rows_per_block=64).fit(model, X, y)
        counts.append(found.fit_report_.counts["rounds"])
    # 15 averages of two all-reduces each; or one of all after 16 batches and at the end, 13 of neighbours.
    assert counts[1] < counts[0] - 10


@pytest.mark.parametrize("batch_size", ["auto", 1024])
def test_memory_does_not_grow_from_batch_to_batch(digits, batch_size, monkeypatch):
    """Of two ranks, one of which may have no rows in a batch."""
    from daskdml.training.replica import Replica

    sizes, meet = [], Replica.meet

    def noting(self, comm):
        sizes.append(self._spare.qsize())
        return meet(self, comm)

    monkeypatch.setattr(Replica, "meet", noting)
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    model = MLPClassifier((8,), batch_size=batch_size, max_iter=30, random_state=0)
    SimulatedCluster(2, rows_per_block=128).fit(model, *digits)
    assert max(sizes) <= 10 and len(sizes) > 50


def test_a_guard_beside_scores_and_an_outer_step(digits):
    """Epochs that are gone back from have no score; a velocity that led astray is forgotten."""
    X, y = digits
    for strategy in (AllReduce(compression=TopK(0.002), guard=True),
                     LocalSGD(16, outer=OuterStep(rate=2.5, momentum=0.9), guard=True)):  # fmt: skip
        model = MLPClassifier((16,), solver="sgd", learning_rate_init=0.5, batch_size=64, max_iter=12, random_state=0,
                              strategy=strategy, tol=1e-3, n_iter_no_change=20)  # fmt: skip
        SimulatedCluster(4, rows_per_block=64).fit(model, X[:1500], y[:1500], X_val=X[1500:], y_val=y[1500:])
        back = [note for note in model.fit_report_.notes if note.endswith("from the best one")]
        assert back or not strategy.is_local
        assert np.isnan(model.validation_scores_).sum() == len(back)
        assert len(model.validation_scores_) == len(model.loss_curve_) == len(model.fit_report_.records) == 12
        assert all(np.isfinite(part).all() for part in parts(model))


def test_nothing_of_a_fit_is_left_in_the_next_one(digits):
    X, y = digits
    model = MLPClassifier((8,), max_iter=2, warm_start=True, random_state=0)
    model.fit(X, y, X_val=X[:100], y_val=y[:100])
    model.set_params(max_iter=5).fit(X, y)
    assert model.validation_scores_ is None and len(model.loss_curve_) == 7
    model.set_params(max_iter=1).fit(X, y, X_val=X[:100], y_val=y[:100])
    assert len(model.validation_scores_) == 1
    stops = MLPClassifier((16,), early_stopping=True, warm_start=True, random_state=0, learning_rate_init=0.02)
    stops.fit(X, y)
    best, kept = stops.best_validation_score_, bits(stops)
    stops.set_params(learning_rate_init=1e-12, max_iter=3).fit(X, y)  # cannot get better
    assert stops.best_validation_score_ == best and kept[:4000] == bits(stops)[:4000]


@pytest.mark.parametrize(
    "strategy", [LocalSGD(4), LocalSGD(4, mixing="gossip"), LocalSGD(4, groups=2), AllReduce(compression=TopK(0.05))],
    ids=str,
)  # fmt: skip
def test_strategies_learn_and_survive_deaths(digits, strategy):
    """In the middle: between two epochs, or within one."""
    X, y = digits
    model = MLPClassifier((32,), solver="sgd", learning_rate_init=0.1, batch_size=64, max_iter=20, random_state=0,
                          strategy=strategy, tol=0)  # fmt: skip
    cluster = SimulatedCluster(4, rows_per_block=64, seed=2, kills=[(0.8, 1)], seconds_per_row=1e-4)
    cluster.fit(model, X, y)
    assert cluster.report.generations == 2 and model.n_iter_ == 20
    assert model.score(X, y) > 0.97
    assert model.fit_report_.counts["memories lost"] == (1 if strategy.remembers else 0)


def test_local_training_on_sorted_rows_warns(digits, monkeypatch):
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", 0)
    X, y = digits
    turn = np.argsort(y, kind="stable")

    def fit(**params):
        model = MLPClassifier((8,), solver="sgd", batch_size=64, max_iter=2, strategy=LocalSGD(4), **params)
        return SimulatedCluster(4, rows_per_block=64).fit(model, X[turn], y[turn])

    with pytest.warns(UserWarning, match=r"rows of their own, which differ.*shuffle='rows'"):
        model = fit()
    assert "differ" in model.fit_report_.notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert fit(shuffle="rows").fit_report_.notes == []


def test_the_guard_loosens_what_hurts(digits):
    """Top 0.2 % at a rate that is too large for it: the guard sends more from then on."""
    models = []
    for has_guard in (False, True):
        strategy = AllReduce(compression=TopK(0.002), guard=has_guard)
        model = MLPClassifier((32,), solver="sgd", learning_rate_init=0.5, batch_size=64, max_iter=20, random_state=0,
                              strategy=strategy, tol=1e-3, n_iter_no_change=20)  # fmt: skip
        models.append(SimulatedCluster(4, rows_per_block=64).fit(model, *digits))
    left, guarded = models
    notes = guarded.fit_report_.notes
    assert "TopK(ratio=0.008)" in notes[0] and "no better than" in notes[0]
    assert left.fit_report_.notes == [] and min(guarded.loss_curve_) < min(left.loss_curve_)
    assert strategy.compression.ratio == 0.002  # the user's own is left alone


def test_a_search_over_a_strategy(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = MLPClassifier((8,), solver="sgd", max_iter=3, strategy=AllReduce(compression=TopK()))
    search = GridSearchCV(model, {"strategy__compression__ratio": [0.01, 0.1], "strategy__accumulate": [1, 2]}, cv=2)
    search.fit(X, y)
    assert set(search.best_params_) == {"strategy__compression__ratio", "strategy__accumulate"}
    assert model.strategy.compression.ratio == 0.01


def test_a_simulated_cluster_lets_time_pass_batch_by_batch(digits):
    """Seconds of the report are virtual ones there, and pieces of work that take longer take longer."""
    def fit(hiccups, strategy=None):
        cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-4, hiccups=hiccups, latency=0.0)
        model = MLPClassifier((8,), solver="sgd", batch_size=64, max_iter=3, tol=0, strategy=strategy)
        cluster.fit(model, *digits)
        return model.fit_report_.records[-1].seconds, cluster.report.seconds

    quick, whole = fit((0.0, 1.0))
    # One rank computes a batch of 64 rows; others wait, and each piece of work takes up to 1.2 times as long.
    assert 3 * 1797 * 1e-4 < quick < 1.25 * 3 * 1797 * 1e-4 + 0.05 and quick < whole
    assert 8 * quick < fit((1.0, 10.0))[0] < 12 * quick
    # Of some slow pieces local steps wait for the slowest sum, not for the sum of the slowest.
    hiccups = 0.2, 10.0
    assert fit(hiccups, LocalSGD(8))[0] < 0.8 * fit(hiccups, LocalSGD(1))[0]


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, message",
    [
        ({"strategy": AllReduce(compression=TopK(), significance=1.0)}, "compression and significance were given"),
        ({"strategy": AllReduce(accumulate=0)}, "accumulate"),
        ({"strategy": AllReduce(compression=TopK(2.0))}, "ratio"),
        ({"strategy": AllReduce(compression="fp16")}, "compression"),
        ({"strategy": LocalSGD(0)}, "steps"),
        ({"strategy": LocalSGD(mixing="gossip", groups=2)}, "gossip"),
        ({"solver": "lbfgs", "strategy": AllReduce()}, "has no use for a strategy"),
        ({"hidden_layer_sizes": (4, 0)}, "must be > 0"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused(digits, params, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(max_iter=1, **params).fit(*digits)


def test_numbers_too_large_are_named():
    X = np.ones((20, 2))
    X[3, 1] = 1e300
    with pytest.raises(ValueError, match="too large for float32.*dtype='float64'"):
        MLPRegressor(max_iter=1).fit(X, np.arange(20.0))
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        MLPRegressor(max_iter=5, solver="sgd", learning_rate_init=1e30).fit(X[:3], np.arange(3.0))
    with pytest.raises(ValueError, match="non-negative"):
        MLPRegressor("poisson").fit(X[:3], [-1.0, 2.0, 1.0])


def test_risky_strategies_warn(digits):
    for params, message in (
        ({"strategy": AllReduce(compression=TopK())}, "in front of solver='adam'"),
        ({"strategy": LocalSGD()}, "averages moments"),
        ({"strategy": AllReduce(compression=TopK(), error_feedback=False), "solver": "sgd"}, "lost for good"),
    ):
        with pytest.warns(UserWarning, match=message):
            MLPClassifier((4,), max_iter=1, **params).fit(*digits)


def test_a_checkpoint_is_gone_on_from(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    expected = bits(MLPClassifier((16,), max_iter=4, random_state=0).fit(*digits))
    step, calls = training.Training.step, []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return step(self, *args)

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "step", fails)
            with pytest.raises(KeyboardInterrupt):
                MLPClassifier((16,), max_iter=4, random_state=0).fit(*digits)
        calls.clear()
        monkeypatch.setattr(training.Training, "step", lambda self, *args: calls.append(1) or step(self, *args))
        assert bits(MLPClassifier((16,), max_iter=4, random_state=0).fit(*digits)) == expected
    assert len(calls) < 36 - 10
