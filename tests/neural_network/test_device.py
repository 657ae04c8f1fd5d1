"""Networks on arrays of cupy find what they find on the host: here by a stand-in, which refuses ways to the host."""

import dask.array as da
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from daskdml import config_context
from daskdml.compress import FP16, TopK
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce, Hybrid, LocalSGD, ModelParallel, OuterStep
from daskdml.testing import SimulatedCluster
from daskdml.training import device, schedule, training

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:AllReduce|TopK|LocalSGD|MLPClassifier"),
]
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def make(kind=MLPClassifier, **params):
    common = {"hidden_layer_sizes": (16, 8), "max_iter": 4, "random_state": 0, "dtype": "float64", "batch_size": 300}
    return kind(**{**common, "learning_rate_init": 0.01, **params})


def same(there, here, tolerance=TOLERANCE):
    for found, expected in zip(there.coefs_ + there.intercepts_, here.coefs_ + here.intercepts_, strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=tolerance)
    if here.validation_scores_ is not None:
        np.testing.assert_allclose(there.validation_scores_, here.validation_scores_, rtol=tolerance)
    assert (there.n_iter_, there.t_, there._state.n_updates) == (here.n_iter_, here.t_, here._state.n_updates)


def in_chunks(cupy, X, *sizes):
    """Return a Dask array of chunks on the device."""
    return da.from_array(X, chunks=(sizes, -1)).map_blocks(cupy.asarray, meta=cupy.empty((0, 0), X.dtype))


# What is computed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", [{"solver": "adam"}, {"solver": "sgd"}, {"solver": "sgd", "momentum": 0.5,
                                    "nesterovs_momentum": False, "learning_rate": "invscaling"}], ids=str)  # fmt: skip
def test_classes(digits, cupy, activation, solver):
    X, y = digits[0], digits[1] % 5
    params = {"activation": activation, **solver}
    model = make(**params).fit(cupy.asarray(X), y)
    same(model, make(**params).fit(X, y))
    assert max(cupy.fetched) == model.coefs_[0].base.nbytes < X.nbytes / 10  # no rows, and gradients stay as well


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("batch_size", [32, 1024])
def test_two_classes_and_labels(digits, cupy, is_weighted, batch_size):
    X, y = digits
    weight = np.random.default_rng(0).uniform(0, 2, len(X)) if is_weighted else None
    for target in (y % 2, np.column_stack([y > 4, y % 2, y == 3]).astype(int)):
        here = make(batch_size=batch_size).fit(X, target, weight)
        rows = [None if part is None else cupy.asarray(part) for part in (X, target, weight)]
        same(make(batch_size=batch_size).fit(*rows), here)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_regressions(cupy, loss, n_outputs, is_weighted):
    X, y = load_diabetes(return_X_y=True)
    y = y / 100 if n_outputs == 1 else np.column_stack([y / 100, 1 + X[:, 3], X[:, 2] ** 2])
    weight = np.random.default_rng(0).uniform(0, 2, len(X)) if is_weighted else None
    for solver in ("adam", "lbfgs"):
        params = {"loss": loss, "solver": solver, "batch_size": 100 if solver == "adam" else "auto"}
        rows = [None if part is None else cupy.asarray(part) for part in (X, y, weight)]
        here, there = make(MLPRegressor, **params).fit(X, y, weight), make(MLPRegressor, **params).fit(*rows)
        if solver == "adam":
            same(there, here)
        assert there.loss_ == pytest.approx(here.loss_, rel=TOLERANCE)
        np.testing.assert_allclose(there.predict(rows[0]), here.predict(X), rtol=1e-6)


def test_single_precision(digits, cupy):
    X, y = digits
    here = make(dtype="float32").fit(X, y)
    there = make(dtype="float32").fit(cupy.asarray(X), y)
    same(there, here, 1e-3)
    assert there.coefs_[0].dtype == np.float32 and all(moment.dtype == np.float32 for moment in there._state.moments)


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize("params", [{}, {"shuffle": False}, {"early_stopping": True}], ids=str)
def test_chunks(digits, cupy, monkeypatch, mixed_bytes, params):
    """In one piece, in several that are put together, or of which rows are taken one after the other."""
    monkeypatch.setattr(schedule, "MIXED_BYTES", mixed_bytes)
    X, y = digits
    here = make(**params).fit(X, y)
    for sizes in ((1797,), (1, 0, 796, 1000), (100,) * 17 + (97,)):
        same(make(**params).fit(in_chunks(cupy, X, *sizes), da.from_array(y, chunks=(sizes,))), here)
    assert max(cupy.fetched) < X.nbytes / 10


def test_many_rows_of_a_step_are_computed_some_at_a_time(digits, cupy, monkeypatch):
    monkeypatch.setattr(device, "ROWS", 100)
    params = {"batch_size": 400, "strategy": AllReduce(accumulate=2)}
    same(make(**params).fit(cupy.asarray(digits[0]), digits[1]), make(**params).fit(*digits))


# Rows that are not trained on, and fits that go on --------------------------------------------------------------------


def test_rows_held_out_stop_the_training(digits, cupy):
    params = {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3, "tol": 1e-3}
    here, there = make(**params).fit(*digits), make(**params).fit(cupy.asarray(digits[0]), digits[1])
    assert here.n_iter_ < 60
    same(there, here)
    assert there.best_validation_score_ == here.best_validation_score_


@pytest.mark.parametrize("kind", ["here", "there", "chunks"])
def test_given_rows_are_scored(digits, cupy, kind):
    X, y = digits
    weight = np.random.default_rng(0).uniform(0.1, 1, 297)
    here = make().fit(X[:1500], y[:1500], X_val=X[1500:], y_val=y[1500:], sample_weight_val=weight)
    given = {"here": np.asarray, "there": cupy.asarray, "chunks": lambda part: in_chunks(cupy, part, 200, 97)}
    X_val = given[kind](X[1500:])
    there = make().fit(cupy.asarray(X[:1500]), y[:1500], X_val=X_val, y_val=y[1500:], sample_weight_val=weight)
    same(there, here)
    on_host = make().fit(X[:1500], y[:1500], X_val=X_val, y_val=y[1500:], sample_weight_val=weight)
    same(on_host, here, 0.0)


def test_scores_of_regressions(cupy):
    X, y = load_diabetes(return_X_y=True)
    Y = np.column_stack([y / 100, 3 * X[:, 2]])
    params = {"early_stopping": True, "batch_size": 100}
    same(make(MLPRegressor, **params).fit(cupy.asarray(X), Y), make(MLPRegressor, **params).fit(X, Y))


def test_fits_that_go_on(digits, cupy):
    X, y = digits
    for params, call in (({}, "partial_fit"), ({"warm_start": True}, "fit")):
        here, there = make(**params), make(**params)
        for _ in range(3):
            rest = {"classes": np.arange(10)} if call == "partial_fit" else {}
            getattr(here, call)(X, y, **rest)
            getattr(there, call)(cupy.asarray(X), y, **rest)
        same(there, here)
        # From the device to the host, and back.
        getattr(there, call)(X, y)
        getattr(here, call)(cupy.asarray(X), y)
        same(here, there)


def test_a_checkpoint_is_gone_on_from(digits, cupy, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    X, y = cupy.asarray(digits[0]), digits[1]
    expected, step, calls = make().fit(X, y), training.Training.step, []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return step(self, *args)

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training.Training, "step", fails)
            make().fit(X, y)
        calls.clear()
        monkeypatch.setattr(training.Training, "step", lambda self, *args: calls.append(1) or step(self, *args))
        same(make().fit(X, y), expected, 0.0)
    assert len(calls) < 24 - 10


# Several ranks --------------------------------------------------------------------------------------------------------

STRATEGIES = [
    AllReduce(), AllReduce(accumulate=2), AllReduce(compression=TopK(0.1)), AllReduce(compression=FP16(), guard=True),
    LocalSGD(2), LocalSGD(2, groups=2), LocalSGD(2, outer=OuterStep(momentum=0.5)), LocalSGD(2, mixing="gossip"),
]  # fmt: skip


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_strategies(digits, cupy, monkeypatch, mixed_bytes, strategy):
    monkeypatch.setattr(schedule, "MIXED_BYTES", mixed_bytes)
    X, y = digits
    params = {"solver": "sgd", "learning_rate_init": 0.1, "strategy": strategy, "batch_size": 128, "tol": 0}

    def fit(rows):
        return SimulatedCluster(3, rows_per_block=64).fit(make(**params, early_stopping=True), rows, y)

    there, here = fit(cupy.asarray(X)), fit(X)
    same(there, here)
    assert there.fit_report_.notes == here.fit_report_.notes
    if not mixed_bytes:  # at most the unit that two ranks share, and what rows are compared by
        assert max(cupy.fetched) < X.nbytes / 2


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
def test_more_ranks_than_pieces_of_work(digits, cupy, monkeypatch, mixed_bytes):
    """A rank without rows has no array to tell that the others' are on a device."""
    monkeypatch.setattr(schedule, "MIXED_BYTES", mixed_bytes)
    X, y = digits[0][:300], digits[1][:300]
    cluster = SimulatedCluster(5, rows_per_block=128)
    same(cluster.fit(make(batch_size=64), cupy.asarray(X), y), make(batch_size=64).fit(X, y))


@pytest.mark.parametrize("strategy", [AllReduce(), AllReduce(compression=TopK(0.1)), LocalSGD(2)], ids=str)
def test_deaths(digits, cupy, monkeypatch, strategy):
    monkeypatch.setattr(training, "STEP_FLOPS", 1.0)
    X, y = digits
    params = {"solver": "sgd", "learning_rate_init": 0.2, "strategy": strategy, "batch_size": 128, "max_iter": 8}
    cluster = SimulatedCluster(3, seed=1, rows_per_block=64, kills=[(0.3, 1)], seconds_per_row=1e-4)
    model = cluster.fit(make(**params, tol=0), cupy.asarray(X), y)
    assert cluster.report.generations == 2 and model.n_iter_ == 8
    if not strategy.remembers and not strategy.is_local:
        same(model, make(**params, tol=0).fit(X, y))
    assert model.score(X, y) > 0.7


# Predictions, and what is refused -------------------------------------------------------------------------------------


def test_predictions_are_on_the_host(digits, cupy):
    X, y = digits
    model = make().fit(X, y)
    for rows in (cupy.asarray(X), cupy.asarray(X.astype(np.float32))):
        for method in ("predict", "predict_proba", "predict_log_proba"):
            found, expected = getattr(model, method)(rows), getattr(model, method)(X)
            assert type(found) is np.ndarray
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    lazy = in_chunks(cupy, X, 900, 0, 897)
    for method in ("predict", "predict_proba"):
        found = getattr(model, method)(lazy)
        assert type(found._meta) is np.ndarray and found.chunks[0] == (900, 0, 897)
        np.testing.assert_allclose(found.compute(), getattr(model, method)(X), rtol=1e-9)
    assert model.score(cupy.asarray(X), cupy.asarray(y)) == model.score(lazy, y) == model.score(X, y)
    bad = X.copy()
    bad[5, 3] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(cupy.asarray(bad))


def test_bad_rows_are_named(digits, cupy):
    X, y = digits[0].copy(), digits[1]
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        make(solver="sgd", learning_rate_init=1e30).fit(cupy.asarray(X), y)
    X[70, 3] = np.nan
    with pytest.raises(ValueError, match="contains NaN. First in row 70"):
        make().fit(cupy.asarray(X), y)
    X[70, 3] = 1e300
    with pytest.raises(ValueError, match="too large for float32"):
        make(dtype="float32").fit(cupy.asarray(X), y)


def test_what_needs_the_host_is_refused(digits, cupy):
    X, y = cupy.asarray(digits[0]), digits[1]
    for strategy in (ModelParallel(), Hybrid(2)):
        with pytest.raises(ValueError, match="has shards in the memory of hosts"):
            make(strategy=strategy).fit(X, y)
    with pytest.raises(ValueError, match="how fast a device is"):
        make().plan(X, y)
