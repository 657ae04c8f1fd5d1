"""LightGBM predicts what fitted models do."""

import re

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

CATEGORICAL = [3, 4]


def rows(n, seed, unknown=False):
    """Return numbers and two columns of categories, one with gaps, with missing values; maybe unknown categories."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    X[:, 1] = np.round(X[:, 1], 1)
    X[:, 3] = rng.integers(0, 40 + 20 * unknown, n)
    X[:, 4] = rng.choice([0, 2, 7, 60, 400] + [1, 3, 61, 500, -4] * unknown, n)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def targets(X):
    z = np.nan_to_num(X)
    raw = z[:, 0] * z[:, 1] + np.sin(z[:, 2] * 2) + np.sin(z[:, 3]) + (z[:, 4] == 7)
    return raw + 0.3 * np.random.default_rng(9).normal(size=len(X))


LOSSES = {"squared_error": {}, "absolute_error": {}, "quantile": {"quantile": 0.8}, "poisson": {}, "gamma": {}}
OPTIONS = (
    {"categorical_features": CATEGORICAL}, {"max_leaf_nodes": None, "max_depth": 5},
    {"interaction_cst": [[0, 1], [2, 3]], "categorical_features": CATEGORICAL}, {"monotonic_cst": [1, -1, 0, 0, 0]},
)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_regressors(loss, options):
    X = rows(3000, 0)
    y = targets(X)
    y = np.exp(y / 3) if loss in ("poisson", "gamma") else y
    model = HistGradientBoostingRegressor(loss=loss, max_iter=20, **LOSSES[loss], **options).fit(X, y)
    booster = lightgbm.Booster(model_str=model.to_lightgbm())
    for given in (X, rows(3000, 1, unknown=True)):
        np.testing.assert_allclose(booster.predict(given), model.predict(given), rtol=1e-12)


@pytest.mark.parametrize("n_classes, options", [(2, one) for one in OPTIONS] + [(3, one) for one in OPTIONS[:-1]])
def test_classifiers(n_classes, options):
    X = rows(3000, 0)
    raw = targets(X)
    y = np.digitize(raw, np.quantile(raw, np.arange(1, n_classes) / n_classes))
    model = HistGradientBoostingClassifier(max_iter=20, **options).fit(X, np.array(["a", "b", "c"])[y])
    booster = lightgbm.Booster(model_str=model.to_lightgbm())
    for given in (X, rows(3000, 1, unknown=True)):
        p = model.predict_proba(given)
        np.testing.assert_allclose(booster.predict(given), p if n_classes > 2 else p[:, 1], rtol=1e-12)
        raw = booster.predict(given, raw_score=True)
        np.testing.assert_array_equal(raw, model.decision_function(given))


def test_float32_rows_and_names():
    X = rows(2000, 0).astype(np.float32)
    frame = pd.DataFrame(X, columns=["a size", "größe", "c", "d", "e"])
    model = HistGradientBoostingRegressor(max_iter=10, categorical_features=["d", "e"]).fit(frame, targets(X))
    booster = lightgbm.Booster(model_str=model.to_lightgbm())
    assert booster.feature_name() == ["a_size", "größe", "c", "d", "e"]
    np.testing.assert_array_equal(booster.predict(X), model.predict(frame))


def test_trees_without_a_split():
    X = rows(100, 0)
    for model in (
        HistGradientBoostingRegressor(max_iter=3).fit(X, np.full(100, 2.5)),
        HistGradientBoostingRegressor(max_iter=3, loss="poisson", min_samples_leaf=90).fit(X, np.arange(100.0)),
    ):
        booster = lightgbm.Booster(model_str=model.to_lightgbm())
        np.testing.assert_allclose(booster.predict(X), model.predict(X), rtol=1e-12)


@pytest.mark.parametrize(
    "categories, shown",
    [
        (["ash", "elm"], "'ash', 'elm'"), ([-1.0, 0.0, 2.0, 3.0], "-1.0, 0.0, 2.0, ..."), ([0.5, 1.0], "0.5, 1.0"),
        ([0.0, 70_000.0], "0.0, 70000.0"),
    ],
)  # fmt: skip
def test_categories_that_lightgbm_does_not_know_are_refused(categories, shown):
    column = np.resize(np.array(categories, dtype=object), 100)
    frame = pd.DataFrame({"x": np.arange(100.0), "kind": pd.Categorical(column)})
    model = HistGradientBoostingRegressor(max_iter=2).fit(frame, np.arange(100.0))
    with pytest.raises(ValueError, match=f"feature 'kind' has the categories {re.escape(shown)}, but .*Encoder"):
        model.to_lightgbm()


def test_before_the_fit():
    with pytest.raises(NotFittedError):
        HistGradientBoostingRegressor().to_lightgbm()
