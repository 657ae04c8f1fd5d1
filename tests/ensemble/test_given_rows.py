"""Validation rows that a user gives: their scores by hand, whatever they are in, whoever takes them."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.testing import SimulatedCluster


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["squared_error", "two classes", "three classes"])
def test_scores_of_given_rows_by_hand(kind, weighted):
    """Minus the mean loss of the rows given, of staged predictions; boosting stops when they get no better."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 5))
    raw = X[:, 0] + np.sin(2 * X[:, 1]) + rng.normal(size=3000)
    classes = {"two classes": np.where(raw > 0, "yes", "no"), "three classes": np.digitize(raw, [-1, 1])}
    y, weight = classes.get(kind, raw), rng.uniform(0, 2, 1000) if weighted else None
    make = HistGradientBoostingRegressor if kind == "squared_error" else HistGradientBoostingClassifier
    model = make(max_iter=60, learning_rate=0.3, early_stopping=True, n_iter_no_change=3, min_samples_leaf=5)
    model.fit(X[:2000], y[:2000], X_val=X[2000:], y_val=y[2000:], sample_weight_val=weight)
    held, losses = y[2000:], []
    stages = model.staged_predict if kind == "squared_error" else model.staged_predict_proba
    for stage in stages(X[2000:]):
        if kind == "squared_error":
            losses.append(np.average((held - stage) ** 2, weights=weight) / 2)
        else:
            at = np.searchsorted(model.classes_, held)
            losses.append(np.average(-np.log(stage[np.arange(1000), at]), weights=weight))
    np.testing.assert_allclose(-model.validation_score_[1:], losses, rtol=1e-9)
    assert 3 < model.n_iter_ < 60 and len(model.validation_score_) == model.n_iter_ + 1
    best = np.argmin(losses)
    assert len(losses) - 1 - best == 3 or losses[-4] <= min(losses[-3:])


def test_given_rows_of_any_kind():
    """NumPy, frames with categories and Dask give the same scores; no row is held out of the others."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=900), "b": rng.choice(list("uvw"), 900)}).astype({"b": "category"})
    y = frame.a + (frame.b == "u") + 0.3 * rng.normal(size=900)
    parts = frame[:700], y[:700], frame[700:], y[700:]
    scores = []
    for wrap in (lambda part: part, lambda part: dd.from_pandas(part, npartitions=3)):
        X, target, X_val, y_val = map(wrap, parts)
        model = HistGradientBoostingRegressor(max_iter=8, early_stopping=True, min_samples_leaf=5)
        model.fit(X, target, X_val=X_val, y_val=y_val)
        scores.append(model.validation_score_)
        plain = HistGradientBoostingRegressor(max_iter=8, early_stopping=False, min_samples_leaf=5).fit(*parts[:2])
        np.testing.assert_array_equal(model.predict(parts[2]), plain.predict(parts[2]))
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_ranks_share_given_rows(n_workers):
    """Workers, and one that dies, change no bit of the scores."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 4))
    y = X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=6000)
    make = HistGradientBoostingRegressor(max_iter=6, early_stopping=True, n_iter_no_change=6)
    expected = clone(make).fit(X[:5000], y[:5000], X_val=X[5000:], y_val=y[5000:])
    kills = [(0.05, 1)] if n_workers > 1 else []
    cluster = SimulatedCluster(n_workers, rows_per_block=512, kills=kills, seconds_per_row=0.0)
    found = cluster.fit(clone(make), X[:5000], y[:5000], X_val=X[5000:], y_val=y[5000:])
    np.testing.assert_array_equal(found.validation_score_, expected.validation_score_)
    assert cluster.report.generations == 1 + len(kills)


def test_given_rows_are_looked_at_however_few_there_are():
    """early_stopping="auto" is on where rows are given."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 3)), rng.normal(size=400)
    model = HistGradientBoostingRegressor(max_iter=50, n_iter_no_change=2)
    model.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert model.do_early_stopping_ and model.n_iter_ < 50 and len(model.validation_score_) == model.n_iter_ + 1


def test_given_rows_that_are_refused():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)), rng.normal(size=200)
    model = HistGradientBoostingRegressor(max_iter=2, early_stopping=True)
    for given, match in (
        ({"X_val": X}, "y_val was not provided"), ({"y_val": y}, "X_val was not provided"),
        ({"sample_weight_val": y}, "X_val and y_val were not provided"),
        ({"X_val": X[:, :2], "y_val": y}, "features"), ({"X_val": X, "y_val": y[:-1]}, "[Ii]nconsistent|rows"),
        ({"X_val": X, "y_val": np.full(len(X), np.nan)}, "NaN"),
        ({"X_val": X, "y_val": y, "sample_weight_val": np.zeros(len(X))}, "0 for all rows|weight"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            model.fit(X, y, **given)
    with pytest.raises(ValueError, match="early_stopping is False"):
        model.set_params(early_stopping=False).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="5"):
        classes = np.arange(len(X)) % 2
        HistGradientBoostingClassifier(early_stopping=True).fit(X, classes, X_val=X, y_val=classes + 5)
