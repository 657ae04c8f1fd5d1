"""LightGBM reads what is written and predicts the same."""

import lightgbm
import numpy as np
import pytest

from daskdml.trees.lightgbm_text import lightgbm_text
from daskdml.trees.predictor import Ensemble

# LightGBM truncates what is no integer.
CODES = (-1, -7, 255, 256, 300, 1e9)


def write(forest, n_outputs=1, baseline=(0.0,), objective=None, **options):
    names = [f"x{f}" for f in range(forest.n_features)]
    trees = forest.iterations(n_outputs)
    return lightgbm_text(trees, n_outputs, np.array(baseline), names, objective, forest.code_bins, **options)


def load(text):
    return lightgbm.Booster(model_str=text)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_raw_predictions_are_equal(make_forest, n_outputs, seed):
    forest = make_forest(seed, [31, 1, 2, -40, 33, 300, 1, 60, 5])
    X, baseline = forest.rows(500, codes=CODES), np.linspace(0.3, 1, n_outputs)
    booster = load(write(forest, n_outputs, baseline))
    expected = Ensemble(forest.iterations(n_outputs), n_outputs, baseline, forest.code_bins).raw(X)
    np.testing.assert_array_equal(booster.predict(X, raw_score=True), expected)
    np.testing.assert_array_equal(booster.predict(X), expected)
    assert booster.num_trees() == 9 and booster.num_model_per_iteration() == n_outputs
    # A second writing is LightGBM's own.
    again = load(booster.model_to_string())
    np.testing.assert_array_equal(again.predict(X, raw_score=True), expected)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_no_trees(make_forest, n_outputs):
    forest = make_forest(0, [])
    booster = load(write(forest, n_outputs, np.full(n_outputs, 0.5)))
    np.testing.assert_array_equal(booster.predict(forest.rows(4)), np.full((4, n_outputs), 0.5).squeeze())


@pytest.mark.parametrize("threshold", [np.inf, -np.inf, 1e300, 0.1, 1.7976931348623157e308])
@pytest.mark.parametrize("missing_left", [False, True])
def test_thresholds(make_forest, threshold, missing_left):
    tree = make_forest(0, [2]).trees[0]._replace(
        feature=np.array([0, -1, -1]), threshold=np.array([threshold, np.inf, np.inf]), categories=np.full(3, -1),
        left_bins=np.zeros((0, 256), bool), missing_left=np.array([missing_left, False, False]),
    )  # fmt: skip
    X = np.array([np.nan, -np.inf, -1, 0, 0.1, np.nextafter(0.1, 1), 1e300, np.inf])[:, None]
    booster = load(lightgbm_text([(tree,)], 1, [0.0], ["x"]))
    np.testing.assert_array_equal(booster.predict(X), Ensemble([(tree,)], 1, [0.0]).raw(X))


@pytest.mark.parametrize(
    "objective, inverse_link",
    [
        ("regression", lambda raw: raw),
        ("regression_l1", lambda raw: raw),
        ("quantile", lambda raw: raw),
        ("poisson", np.exp),
        ("gamma", np.exp),
        ("binary sigmoid:1", lambda raw: 1 / (1 + np.exp(-raw))),
        ("multiclass num_class:3", lambda raw: np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)),
        (None, lambda raw: raw),
    ],
)
def test_predictions_go_through_the_objective(make_forest, objective, inverse_link):
    n_outputs = 3 if objective and "num_class" in objective else 1
    forest = make_forest(1, [31] * 6)
    X, baseline = forest.rows(50, codes=CODES), np.linspace(0.1, 0.2, n_outputs)
    raw = Ensemble(forest.iterations(n_outputs), n_outputs, baseline, forest.code_bins).raw(X)
    booster = load(write(forest, n_outputs, baseline, objective))
    np.testing.assert_allclose(booster.predict(X), inverse_link(raw), rtol=1e-12)
    np.testing.assert_array_equal(booster.predict(X, raw_score=True), raw)


def test_what_else_lightgbm_reads(make_forest):
    forest = make_forest(2, [31, 1, 20])
    booster = load(write(forest, objective="regression", parameters={"learning_rate": 0.1}))
    assert booster.feature_name() == [f"x{f}" for f in range(forest.n_features)]
    splits = np.concatenate([tree.feature[tree.feature >= 0] for tree in forest.trees])
    np.testing.assert_array_equal(booster.feature_importance(), np.bincount(splits, minlength=forest.n_features))
    gains = np.zeros(forest.n_features)
    for tree in forest.trees:
        np.add.at(gains, tree.feature[tree.feature >= 0], tree.gain[tree.feature >= 0])
    np.testing.assert_allclose(booster.feature_importance("gain"), gains, rtol=1e-5)
    X = forest.rows(20, codes=CODES)
    # Shapley values need the counts of inner nodes.
    contributions = booster.predict(X, pred_contrib=True)
    np.testing.assert_allclose(contributions.sum(axis=1), booster.predict(X), rtol=1e-8, atol=1e-8)
    leaves = booster.predict(X, pred_leaf=True)
    places = [np.flatnonzero(tree.feature < 0)[column.astype(int)] for tree, column in zip(forest.trees, leaves.T)]
    np.testing.assert_array_equal(np.stack(places, axis=1), forest.leaves(X))
    table = booster.trees_to_dataframe()
    assert len(table) == sum(tree.n_nodes for tree in forest.trees)


def test_infos_of_features(make_forest):
    text = write(make_forest(3, [4]))
    infos = next(line for line in text.splitlines() if line.startswith("feature_infos=")).split()
    assert infos[0] == "feature_infos=[-inf:inf]" and "0" not in infos[-1].split(":") and "255" in infos[-1].split(":")
    assert "feature_infos=[0:1] none" in lightgbm_text([], 1, [0.0], ["a", "b"], feature_infos=["[0:1]", "none"])


def test_what_the_format_cannot_hold_is_refused(make_forest):
    forest = make_forest(4, [31] * 3)
    with pytest.raises(ValueError, match="2 feature names, but the trees read 9"):
        lightgbm_text(forest.iterations(1), 1, [0.0], ["a", "b"], code_bins=forest.code_bins)
    with pytest.raises(ValueError, match="'a_b'"):
        lightgbm_text([], 1, [0.0], ["a b", "c", "a_b"])
    with pytest.raises(ValueError, match="3 outputs"):
        write(forest, 3, np.zeros(3), "multiclass num_class:4")
    with pytest.raises(ValueError, match="categories"):
        lightgbm_text(forest.iterations(1), 1, [0.0], [f"x{f}" for f in range(9)])
