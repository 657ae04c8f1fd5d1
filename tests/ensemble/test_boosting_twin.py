"""scikit-learn's estimators with our trees predict what ours do."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.inspection import partial_dependence

from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from .test_lightgbm import LOSSES, OPTIONS, rows, targets


def same_predictions(model, *tables):
    twin = model.to_sklearn()
    assert type(twin).__module__.startswith("sklearn.") and type(twin).__name__ == type(model).__name__
    ours = model.get_params()
    assert twin.get_params() == {name: ours[name] for name in twin.get_params()}
    assert twin.n_iter_ == model.n_iter_ and twin.n_trees_per_iteration_ == model.n_trees_per_iteration_
    np.testing.assert_array_equal(twin.train_score_, model.train_score_)
    twin = pickle.loads(pickle.dumps(twin))
    for X in tables:
        for name in ("predict", "predict_proba", "decision_function"):
            if hasattr(model, name):
                found, expected = (getattr(one, name)(X) for one in (twin, model))
                if found.dtype.kind in "OU":
                    np.testing.assert_array_equal(found, expected)
                else:
                    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        *_, last = twin.staged_predict(X)
        np.testing.assert_array_equal(last, twin.predict(X))
    return twin


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_regressors(loss, options):
    X = rows(3000, 0)
    y = targets(X)
    y = np.exp(y / 3) if loss in ("poisson", "gamma") else y
    model = HistGradientBoostingRegressor(loss=loss, max_iter=20, **LOSSES[loss], **options).fit(X, y)
    same_predictions(model, X, rows(3000, 1, unknown=True), X.astype(np.float32))


@pytest.mark.parametrize("n_classes, options", [(2, one) for one in OPTIONS] + [(3, one) for one in OPTIONS[:-1]])
def test_classifiers(n_classes, options):
    X = rows(3000, 0)
    raw = targets(X)
    y = np.array(["a", "b", "c"])[np.digitize(raw, np.quantile(raw, np.arange(1, n_classes) / n_classes))]
    model = HistGradientBoostingClassifier(max_iter=12, class_weight="balanced", early_stopping=True, **options)
    twin = same_predictions(model.fit(X, y), X, rows(3000, 1, unknown=True))
    np.testing.assert_array_equal(twin.classes_, model.classes_)
    np.testing.assert_array_equal(twin.validation_score_, model.validation_score_)


def frame_of(X, words):
    names = np.array(["ash", "elm", "fir", "oak", "yew", "box"])[:words]
    kinds = pd.Categorical(np.where(np.isnan(X[:, 3]), None, names[np.nan_to_num(X[:, 3]).astype(int) % words]))
    return pd.DataFrame({"a": X[:, 0], "kind": kinds, "c": X[:, 2], "code": pd.Categorical(X[:, 4]), "e": X[:, 1]})


@pytest.mark.parametrize("given", ["from_dtype", ["kind", "code"], [1, 3]])
def test_frames_with_words(given):
    X = rows(2000, 0)
    model = HistGradientBoostingRegressor(max_iter=15, categorical_features=given)
    twin = same_predictions(model.fit(frame_of(X, 5), targets(X)), frame_of(X, 5), frame_of(rows(500, 1, True), 6))
    np.testing.assert_array_equal(twin.feature_names_in_, model.feature_names_in_)


def test_a_stump_and_a_tool_of_scikit_learns():
    X = rows(500, 0)
    same_predictions(HistGradientBoostingRegressor(max_iter=3).fit(X, np.full(500, 2.5)), X)
    X = np.nan_to_num(X)
    model = HistGradientBoostingRegressor(max_iter=10).fit(X, targets(X))
    found = partial_dependence(model.to_sklearn(), X, [0], kind="average", method="brute")["average"]
    # By its own walk over the nodes, which counts rows.
    quick = partial_dependence(model.to_sklearn(), X, [0], kind="average", method="recursion")["average"]
    assert np.corrcoef(found[0], quick[0])[0, 1] > 0.9


def test_parameters_that_a_few_rows_could_not_meet():
    X = rows(600, 0)[:, :3]
    y = np.array(["a", "b", "c"])[np.digitize(targets(rows(600, 0)), [0, 1])]
    for params in (
        {"class_weight": {"a": 1, "b": 3, "c": 0.5}}, {"random_state": np.random.default_rng(0)}, {"max_features": 1},
        {"random_state": -3}, {"monotonic_cst": [0, 0, 0]}, {"interaction_cst": "pairwise", "min_samples_leaf": 90},
        {"warm_start": True, "early_stopping": True, "validation_fraction": 0.3}, {"scoring": "accuracy"},
    ):  # fmt: skip
        same_predictions(HistGradientBoostingClassifier(max_iter=3, **params).fit(X, y), X)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))[np.arange(600) % 26]
    same_predictions(HistGradientBoostingClassifier(max_iter=1).fit(X, letters), X)
    state = np.random.RandomState(0)
    model = HistGradientBoostingClassifier(max_iter=1, random_state=state).fit(X, y)
    before = state.get_state()[1].copy()
    model.to_sklearn()
    np.testing.assert_array_equal(state.get_state()[1], before)
    model.set_params(max_bins=3)  # after the fit
    model.to_sklearn().predict(X)


@pytest.mark.parametrize("names", [list("abcde"), [0, 1, 2, 3, 4], None])
def test_columns_of_any_names(names):
    X = rows(800, 0)
    frame = frame_of(X, 4)
    if names is not None:
        frame.columns = names
    for given in (frame, frame.drop(columns=frame.columns[1])):
        same_predictions(HistGradientBoostingRegressor(max_iter=5).fit(given, targets(X)), given)


def test_other_categories():
    """One only, none but missing ones, days."""
    X = rows(800, 0)
    days = pd.to_datetime("2026-01-01") + pd.to_timedelta(np.arange(800) % 9, unit="D")
    for kinds in (np.full(800, "one"), np.where(np.arange(800) % 5, "one", None), np.full(800, None), days):
        frame = pd.DataFrame({"a": X[:, 0], "kind": pd.Categorical(kinds), "b": X[:, 1]})
        same_predictions(HistGradientBoostingRegressor(max_iter=5).fit(frame, targets(X) + np.arange(800) % 9), frame)


def test_before_the_fit():
    with pytest.raises(NotFittedError):
        HistGradientBoostingRegressor().to_sklearn()
