"""Descent row by row against scikit-learn's, and the same bits from any number of ranks."""

import copy

import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model as theirs
from sklearn.datasets import load_diabetes

from daskdml import config_context
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.testing import SimulatedCluster
from daskdml.training import sequential

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def same(ours, known, rtol=1e-9):
    np.testing.assert_allclose(ours.coef_, known.coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.intercept_, known.intercept_, rtol=rtol, atol=rtol)
    assert (ours.n_iter_, ours.t_) == (known.n_iter_, known.t_)
    assert ours.coef_.shape == known.coef_.shape and ours.intercept_.shape == known.intercept_.shape


STEADY = {"shuffle": False, "random_state": 0, "learning_rate": "constant", "eta0": 0.01}


@pytest.mark.parametrize(
    "params",
    [
        {}, {"loss": "log_loss", "penalty": "elasticnet", "alpha": 0.01}, {"average": True}, {"average": 700},
        {"loss": "modified_huber", "penalty": "l1"}, {"class_weight": {0: 2.0}}, {"class_weight": "balanced"},
        {"learning_rate": "adaptive", "eta0": 0.1}, {"learning_rate": "pa1", "eta0": 1.0}, {"fit_intercept": False},
        {"loss": "squared_hinge", "learning_rate": "invscaling"}, {"penalty": None, "loss": "perceptron"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_fits_are_scikit_learns(cancer, params, layout):
    """Rows in their order, stopped by tol: the same coefficients, epochs and counts."""
    X, y = cancer
    X = sparse.csr_matrix(X * (np.abs(X) > 0.2)) if layout == "csr" else X
    params = {**STEADY, "max_iter": 50, **params}
    same(SGDClassifier(**params).fit(X, y), theirs.SGDClassifier(**params).fit(X, y))


@pytest.mark.parametrize("params", [{"average": True}, {"loss": "log_loss", "class_weight": "balanced"}], ids=str)
def test_several_classes_are_scikit_learns(iris, params):
    """Each class stops for itself."""
    params = {**STEADY, "tol": 1e-2, **params}
    ours, known = SGDClassifier(**params).fit(*iris), theirs.SGDClassifier(**params).fit(*iris)
    same(ours, known)
    np.testing.assert_array_equal(ours.predict(iris[0]), known.predict(iris[0]))
    if "loss" in params:
        np.testing.assert_allclose(ours.predict_proba(iris[0]), known.predict_proba(iris[0]), rtol=1e-9)


@pytest.mark.parametrize(
    "params", [{}, {"loss": "huber", "epsilon": 0.5}, {"loss": "epsilon_insensitive", "learning_rate": "pa2"},
               {"learning_rate": "invscaling", "average": 10}], ids=str,
)  # fmt: skip
def test_regressions_are_scikit_learns(params):
    X, y = load_diabetes(return_X_y=True)
    X, y = X * 10, y / 100
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    params = {**STEADY, "max_iter": 40, **params}
    for given in (None, weight):
        ours = SGDRegressor(**params).fit(X, y, sample_weight=given)
        same(ours, theirs.SGDRegressor(**params).fit(X, y, sample_weight=given))
        np.testing.assert_allclose(ours.predict(X), ours.to_sklearn().predict(X))


def test_modified_huber_has_scikit_learns_probabilities(cancer, iris):
    for X, y in (cancer, iris):
        params = {**STEADY, "loss": "modified_huber", "max_iter": 5, "tol": None}
        ours, known = SGDClassifier(**params).fit(X, y), theirs.SGDClassifier(**params).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), known.predict_proba(X), rtol=1e-9, atol=1e-12)
    assert not hasattr(SGDClassifier(), "predict_proba")
    with pytest.raises(AttributeError, match="predict_proba"):
        SGDClassifier().predict_proba  # noqa: B018


def test_partial_fit_goes_on_as_scikit_learn_does(cancer):
    X, y = cancer
    # With an average scikit-learn forgets the intercept that is not averaged from call to call.
    averaged = {"average": 100, "fit_intercept": False}
    for params in ({}, averaged, {"learning_rate": "optimal", "alpha": 0.1}, {"penalty": "l1"}):
        ours, known = (kind(**{**STEADY, **params}) for kind in (SGDClassifier, theirs.SGDClassifier))
        for first in (0, 200, 0, 369):
            for model in (ours, known):
                model.partial_fit(X[first : first + 200], y[first : first + 200], classes=[0, 1])
        np.testing.assert_allclose(ours.coef_, known.coef_, rtol=1e-8, atol=1e-10)
        assert ours.t_ == known.t_
    with pytest.raises(ValueError, match="not in `classes`"):
        ours.partial_fit(X[:5], np.full(5, 7))
    with pytest.raises(ValueError, match="compute_class_weight"):
        SGDClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1])


def test_a_warm_start_and_given_coefficients(cancer):
    X, y = cancer
    params = {**STEADY, "max_iter": 3, "tol": None, "warm_start": True}
    ours, known = SGDClassifier(**params), theirs.SGDClassifier(**params)
    for _ in range(2):
        same(ours.fit(X, y), known.fit(X, y))
    begin = {"coef_init": np.ones((1, 30)), "intercept_init": [0.5]}
    same(ours.fit(X, y, **begin), known.fit(X, y, **begin))
    with pytest.raises(ValueError, match="coef_init does not match"):
        ours.fit(X, y, coef_init=np.ones(3))
    with pytest.raises(ValueError, match="intercept_init does not match"):
        ours.fit(X, y, intercept_init=[1.0, 2.0])


def test_early_stopping_holds_rows_out(cancer, iris):
    for (X, y), least in ((cancer, 0.9), (iris, 0.8)):
        model = SGDClassifier(early_stopping=True, random_state=0, learning_rate="constant", eta0=0.01).fit(X, y)
        assert model.n_iter_ < 200 and model.score(X, y) > least
        assert model.fit_report_.stopped_because == "no improvement"
    X, y = load_diabetes(return_X_y=True)
    model = SGDRegressor(early_stopping=True, random_state=0, eta0=0.1, max_iter=5000).fit(X * 20, y)
    assert model.score(X * 20, y) > 0.45


def logistic_rows(n, p=12):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    raw = X @ rng.normal(size=p)
    return X, (raw + rng.logistic(size=n) > 0).astype(int), raw


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes()


@pytest.mark.parametrize("mixed_bytes", [1 << 30, 0], ids=["any row", "nearby rows"])
@pytest.mark.parametrize(
    "params", [{"loss": "log_loss"}, {"average": True}, {"penalty": "elasticnet"}, {"early_stopping": True},
               {"shuffle": False}, {"shuffle": "rows"}], ids=str,
)  # fmt: skip
def test_neither_ranks_nor_chunks_nor_deaths_change_a_bit(monkeypatch, mixed_bytes, params):
    """Of several streams, and of one."""
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", mixed_bytes)
    monkeypatch.setattr(sequential, "STEP_NUMBERS", 1.0)
    X, y, _ = logistic_rows(6_000)
    y = y + (X[:, 0] > 1)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    for rows, n_streams in ((64, 5), (4096, 1)):
        monkeypatch.setattr(sequential, "ROWS", rows)

        def make():
            return SGDClassifier(max_iter=3, tol=None, random_state=0, **params)

        model = make().fit(X, y, sample_weight=weight)
        expected = bits(model)
        assert model.fit_report_.counts["streams"] == n_streams
        for chunks in ((1, 5_999), (500,) * 12):
            lazy = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))
            assert bits(make().fit(*lazy, sample_weight=weight)) == expected
        for n_ranks, kills in ((2, ()), (3, ((0.1, 1),))):
            cluster = SimulatedCluster(n_ranks, seed=1, rows_per_block=256, kills=kills, seconds_per_row=1e-4)
            assert bits(cluster.fit(make(), X, y, sample_weight=weight)) == expected
            assert (cluster.report.generations > 1) == bool(kills)
        with config_context(n_threads=3):
            assert bits(make().fit(X, y, sample_weight=weight)) == expected


@pytest.mark.parametrize("params", [{"average": True}, {"penalty": "elasticnet"}], ids=str)
def test_an_average_of_streams_by_its_definition(monkeypatch, params):
    """Two epochs of three streams, rows in their order; batches of one stream at the end of each."""
    from daskdml.kernels.sequential import DenseRows, descend, new_state, settle

    monkeypatch.setattr(sequential, "ROWS", 10)
    X, y, _ = logistic_rows(520, 3)
    model = SGDClassifier(loss="log_loss", max_iter=2, tol=None, shuffle=False, learning_rate="constant", eta0=0.1,
                          **params)  # fmt: skip
    model.fit(X, y)
    settings = model._settings(1.0, 1.0)
    now, is_first = new_state(3, settings), True
    slices = [(a, min(a + 10, 520)) for a in range(0, 520, 10)]
    for _ in range(2):
        for k in range(0, len(slices), 3):
            n_before, made = now.t - 1, []
            for a, b in slices[k : k + 3]:
                one = now if is_first else copy.deepcopy(now)
                descend(DenseRows.of(X[a:b]), y[a:b].astype(float), None, one, settings)
                made.append((one, b - a))
            if is_first:
                settle(now)
                is_first = False
                continue
            total = sum(n for _, n in made)
            new = copy.deepcopy(now)
            for one, _ in made:
                settle(one)
            for name in ("coef", "q", "intercept", "u"):
                setattr(new, name, sum(n * getattr(one, name) for one, n in made) / total)
            if settings.average:
                # Each row's coefficients count as much as any other's, of all streams and before.
                n_seen = max(n_before + 1 - settings.average, 0.0)
                for name in ("average_coef", "average_intercept"):
                    sums = n_seen * getattr(now, name)
                    for one, n in made:
                        # What the stream's own rows add to the sum that its average is of.
                        sums = sums + (n_seen + n) * getattr(one, name) - n_seen * getattr(now, name)
                    setattr(new, name, sums / (n_seen + total))
            new.t = now.t + total
            now = new
    coef, intercept = (now.average_coef, now.average_intercept) if settings.average else (now.coef, now.intercept)
    np.testing.assert_allclose(model.coef_[0], coef, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_[0], intercept, rtol=1e-9)


def test_coefficients_of_the_users_are_gone_on_from(cancer):
    """As scikit-learn's partial_fit does."""
    X, y = cancer
    for kind in (SGDClassifier, SGDRegressor):
        ours, known = kind(**STEADY), getattr(theirs, kind.__name__)(**STEADY)
        for model in (ours, known):
            args = {"classes": [0, 1]} if kind is SGDClassifier else {}
            model.partial_fit(X, y, **args)
            model.coef_ = np.ones_like(model.coef_)
            model.partial_fit(X, y)
        np.testing.assert_allclose(ours.coef_, known.coef_, rtol=1e-9)


def test_chunks_of_other_dtypes_are_read_as_one(cancer):
    import dask.dataframe as dd
    import pandas as pd

    X, y = cancer
    frame = pd.DataFrame(X.astype(np.float32).astype(np.float64))
    mixed = dd.from_map(lambda k: frame[k * 200 : k * 200 + 200].astype(np.float32 if k == 1 else np.float64), range(3),
                        meta=frame[:0])  # fmt: skip
    model = SGDClassifier(**STEADY, max_iter=3, tol=None)
    expected = model.fit(frame, y).coef_
    np.testing.assert_array_equal(model.fit(mixed, y).coef_, expected)


@pytest.mark.parametrize("average", [False, True])
def test_streams_are_as_good_as_one(monkeypatch, average):
    """Log loss above the true model's, after one epoch and after five, of 8 streams and of one."""
    X, y, raw = logistic_rows(60_000)
    floor = np.mean(np.logaddexp(0, raw) - y * raw)

    def excess(n_epochs):
        model = SGDClassifier("log_loss", max_iter=n_epochs, tol=None, random_state=0, average=average).fit(X, y)
        found = model.decision_function(X)
        return np.mean(np.logaddexp(0, found) - y * found) - floor

    alone = [excess(1), excess(5)]
    monkeypatch.setattr(sequential, "ROWS", 468)
    several = [excess(1), excess(5)]
    assert several[0] < 1.3 * alone[0] + 1e-3 and several[1] < 1.3 * alone[1] + 1e-3


def test_many_columns_are_averaged_less_often():
    assert sequential.streams_of(10**7, 10**6, True) == (9, 65_536)
    assert sequential.streams_of(131_071, 30, False) == (1, 4096)


def test_what_cannot_be_is_refused(cancer):
    X, y = cancer
    for params, message in (
        ({"learning_rate": "optimal", "alpha": 0.0}, "alpha must be > 0"),
        ({"learning_rate": "pa1", "loss": "log_loss"}, "only works with loss 'hinge'"),
        ({"penalty": "elasticnet", "l1_ratio": None}, "l1_ratio must be set"),
        ({"loss": "squared_error", "learning_rate": "constant", "eta0": 1e308}, "under-/overflow occurred at epoch"),
    ):
        with pytest.raises(ValueError, match=message):
            SGDClassifier(**params).fit(X, y)
    with pytest.raises(ValueError, match="early_stopping should be False"):
        SGDRegressor(early_stopping=True).partial_fit(X, y)
    with pytest.warns(FutureWarning, match="power_t"):
        SGDRegressor(power_t=-0.1, max_iter=1).fit(X, y)
