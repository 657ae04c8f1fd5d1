"""Linear models that train by batches on arrays of cupy find what they find on the host: here by a stand-in for it."""

import dask.array as da
import numpy as np
import pytest

from daskdml.compress import FP16, TopK
from daskdml.kernels.sequential import LOSSES
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.strategies import AllReduce, LocalSGD, ModelParallel, OuterStep
from daskdml.testing import SimulatedCluster
from daskdml.training import schedule

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:AllReduce|TopK|LocalSGD|SGDClassifier"),
]
TOLERANCE = 1e-9


def make(kind=SGDClassifier, **params):
    common = {"max_iter": 4, "tol": None, "random_state": 0, "batch_size": 40, "strategy": AllReduce(), "alpha": 0.01}
    return kind(**{**common, "eta0": 0.05, **params})


def same(there, here, tolerance=TOLERANCE):
    for name in ("coef_", "intercept_"):
        found, expected = getattr(there, name), getattr(here, name)
        assert type(found) is np.ndarray and found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert (there.n_iter_, there.t_) == (here.n_iter_, here.t_)
    values, expected = ([(a.value, a.score) for a in model.fit_report_.records] for model in (there, here))
    np.testing.assert_allclose(values, expected, rtol=tolerance)


def in_chunks(cupy, X, *sizes):
    """Return a Dask array of chunks on the device."""
    return da.from_array(X, chunks=(sizes, -1)).map_blocks(cupy.asarray, meta=cupy.empty((0, 0), X.dtype))


# What is computed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", None])
@pytest.mark.parametrize("loss", LOSSES)
def test_classes(cancer, cupy, loss, penalty):
    X, y = cancer
    params = {"loss": loss, "penalty": penalty, "learning_rate": "constant"}
    here, there = make(**params).fit(X, y), make(**params).fit(cupy.asarray(X), y)
    same(there, here)
    assert max(cupy.fetched) == 8 * 31 < X.nbytes / 100  # coefficients alone
    rows = cupy.asarray(X)
    np.testing.assert_array_equal(there.predict(rows), here.predict(X))
    np.testing.assert_allclose(there.decision_function(rows), here.decision_function(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling", "adaptive"])
@pytest.mark.parametrize("average", [False, True, 20])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_several_classes(iris, cupy, schedule, average, is_weighted):
    X, y = iris
    params = {"loss": "log_loss", "learning_rate": schedule, "average": average, "penalty": "elasticnet",
              "class_weight": {"ash": 3.0, "cedar": 0.5} if is_weighted else None, "alpha": 0.1}  # fmt: skip
    weight = np.random.default_rng(0).uniform(0, 2, len(X)) if is_weighted else None
    here = make(**params).fit(X, y, sample_weight=weight)
    there = make(**params).fit(cupy.asarray(X), y, sample_weight=None if weight is None else cupy.asarray(weight))
    same(there, here)
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        found = getattr(there, method)(cupy.asarray(X))
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, getattr(here, method)(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES[5:])
@pytest.mark.parametrize("params", [{}, {"penalty": "l1", "average": 5}, {"fit_intercept": False}], ids=str)
def test_regressions(diabetes, cupy, loss, params):
    X, y = diabetes
    here = make(SGDRegressor, loss=loss, **params).fit(X, y)
    there = make(SGDRegressor, loss=loss, **params).fit(cupy.asarray(X), cupy.asarray(y))
    same(there, here)
    np.testing.assert_allclose(there.predict(cupy.asarray(X)), here.predict(X), rtol=1e-7)
    assert there.score(cupy.asarray(X), cupy.asarray(y)) == pytest.approx(here.score(X, y), rel=1e-7)


def test_rows_in_single_precision_are_as_exact(cancer, cupy):
    X, y = cancer[0].astype(np.float32), cancer[1]
    same(make(loss="log_loss").fit(cupy.asarray(X), y), make(loss="log_loss").fit(X, y))


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize("params", [{}, {"shuffle": False}, {"early_stopping": True, "average": True}], ids=str)
def test_chunks(cancer, cupy, monkeypatch, mixed_bytes, params):
    monkeypatch.setattr(schedule, "MIXED_BYTES", mixed_bytes)
    X, y = cancer
    here = make(**params).fit(X, y)
    for sizes in ((569,), (1, 0, 300, 268)):
        rows = in_chunks(cupy, X, *sizes)
        there = make(**params).fit(rows, da.from_array(y, chunks=(sizes,)))
        same(there, here)
        assert max(cupy.fetched) < X.nbytes / 10
        found = there.predict(rows)
        assert type(found._meta) is np.ndarray and type(there.decision_function(rows)._meta) is np.ndarray
        np.testing.assert_array_equal(found.compute(), here.predict(X))
        assert there.score(rows, y) == here.score(X, y)


# Fits that go on, and several ranks -----------------------------------------------------------------------------------


def test_fits_that_go_on(cancer, cupy):
    X, y = cancer
    for params, call in (({"average": 10}, "partial_fit"), ({"learning_rate": "invscaling"}, "partial_fit"),
                         ({"warm_start": True}, "fit")):  # fmt: skip
        rest = {"classes": [0, 1]} if call == "partial_fit" else {}
        here, there = make(**params), make(**params)
        for rows in (cupy.asarray(X), X, cupy.asarray(X)):  # to the host, and back
            getattr(here, call)(X, y, **rest)
            getattr(there, call)(rows, y, **rest)
            same(there, here)


def test_rows_held_out_stop_the_training(cancer, diabetes, cupy):
    for kind, (X, y) in ((SGDClassifier, cancer), (SGDRegressor, diabetes)):
        params = {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3, "tol": 1e-3}
        here, there = make(kind, **params).fit(X, y), make(kind, **params).fit(cupy.asarray(X), y)
        assert here.n_iter_ < 60
        same(there, here)


@pytest.mark.parametrize(
    "strategy", [AllReduce(), AllReduce(accumulate=2), AllReduce(compression=TopK(0.1)), LocalSGD(2),
                 AllReduce(compression=FP16(), guard=True), LocalSGD(2, outer=OuterStep(momentum=0.5))], ids=str,
)  # fmt: skip
def test_strategies(cancer, cupy, strategy):
    X, y = cancer

    def fit(rows):
        return SimulatedCluster(3, rows_per_block=64).fit(make(loss="log_loss", strategy=strategy, average=3), rows, y)

    same(fit(cupy.asarray(X)), fit(X))


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_step_a_row_is_refused(cancer, cupy):
    X, y = cupy.asarray(cancer[0]), cancer[1]
    for kind in (SGDClassifier, SGDRegressor):
        with pytest.raises(ValueError, match=r"a step a row.*Give a strategy, such as daskdml.strategies.AllR"):
            kind().fit(X, y)
    with pytest.raises(ValueError, match="has shards in the memory of hosts"):
        make(strategy=ModelParallel()).fit(X, y)


def test_bad_rows_are_named(cancer, cupy):
    X, y = cancer[0].copy(), cancer[1]
    with pytest.raises(ValueError, match="under-/overflow occurred at epoch #1"):
        make(loss="squared_error", learning_rate="constant", eta0=1e308).fit(cupy.asarray(X), y)
    X[70, 3] = np.nan
    with pytest.raises(ValueError, match="NaN. First in row 70"):
        make().fit(cupy.asarray(X), y)
