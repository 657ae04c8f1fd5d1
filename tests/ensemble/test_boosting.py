"""Boosting against scikit-learn's, where splits are unambiguous, and against what each parameter promises."""

import gc
import subprocess
import sys
import tracemalloc

import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from sklearn import ensemble as reference
from sklearn.metrics import roc_auc_score

from daskdml import config_context
from daskdml.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from daskdml.testing import SimulatedCluster
from daskdml.trees import Boosting, boosting
from daskdml.trees.boosting import VALIDATION_STREAM
from daskdml.trees.grower import Grower
from daskdml.trees.shards import Shards
from daskdml.utils.random import uniform


def table(n=3000, p=4, values=40, seed=0):
    """Rows of few distinct values, so that both libraries have the same bins, and targets that follow them."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, values, (n, p)).astype(np.float64)
    raw = np.sin(X[:, 0] / 5) + X[:, 1] / 20 * (X[:, 2] > values / 2) + 0.3 * rng.normal(size=n)
    return X, raw


def trees_of(model):
    return [tree for iteration in model._model.trees for tree in iteration]


def same_trees(ours, theirs):
    """Compare all nodes, walking down both trees together."""
    predictors = [predictor for iteration in theirs._predictors for predictor in iteration]
    for tree, predictor in zip(trees_of(ours), predictors, strict=True):
        nodes, stack = predictor.nodes, [(0, 0)]
        while stack:
            i, j = stack.pop()
            assert bool(tree.is_leaf[i]) == bool(nodes[j]["is_leaf"])
            assert tree.count[i] == nodes[j]["count"]
            if tree.is_leaf[i]:
                assert tree.value[i] == pytest.approx(nodes[j]["value"], rel=1e-5, abs=1e-7)
                continue
            assert tree.feature[i] == nodes[j]["feature_idx"]
            assert tree.threshold[i] == nodes[j]["num_threshold"]
            assert bool(tree.missing_left[i]) == bool(nodes[j]["missing_go_to_left"])
            stack += [(tree.left[i], nodes[j]["left"]), (tree.left[i] + 1, nodes[j]["right"])]


GROWTH = (
    {}, {"max_leaf_nodes": 7}, {"max_leaf_nodes": None, "max_depth": 4}, {"min_samples_leaf": 200},
    {"l2_regularization": 50.0}, {"max_leaf_nodes": None, "min_samples_leaf": 100}, {"max_bins": 40},
    # One tree: where both children are clipped to the same bound, all splits gain the same.
    {"monotonic_cst": [0, 1, 0, -1], "max_iter": 1},
    {"interaction_cst": [[0, 1], [2, 3]]}, {"interaction_cst": "no_interactions"},
)  # fmt: skip


@pytest.mark.parametrize("params", GROWTH, ids=str)
@pytest.mark.parametrize("missing", [False, True])
def test_regression_trees_are_scikit_learns(params, missing):
    X, y = table()
    if missing:
        X[np.random.default_rng(2).random(X.shape) < 0.1] = np.nan
    # Later trees have splits whose gains differ by less than the rounding of gradients to 15 bits.
    params = {"max_iter": 2, "early_stopping": False, "rounding": "nearest", **params}
    ours = HistGradientBoostingRegressor(**params).fit(X, y)
    theirs = reference.HistGradientBoostingRegressor(**{k: v for k, v in params.items() if k != "rounding"}).fit(X, y)
    same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classification_trees_are_scikit_learns(n_classes):
    X, raw = table()
    y = np.digitize(raw, np.quantile(raw, np.arange(1, n_classes) / n_classes))
    params = {"max_iter": 2, "early_stopping": False, "max_leaf_nodes": 8}
    ours = HistGradientBoostingClassifier(**params).fit(X, y)
    theirs = reference.HistGradientBoostingClassifier(**params).fit(X, y)
    same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-5)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["absolute_error", "quantile", "poisson", "gamma"])
@pytest.mark.parametrize("weighted", [False, True])
def test_other_losses_predict_what_scikit_learns_do(loss, weighted):
    X, raw = table(seed=3)
    y = np.exp(raw)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y)) if weighted else None
    params = {"loss": loss, "max_iter": 3, "early_stopping": False, "max_leaf_nodes": 6}
    if loss == "quantile":
        params["quantile"] = 0.3
    ours = HistGradientBoostingRegressor(**params).fit(X, y, sample_weight=weight)
    theirs = reference.HistGradientBoostingRegressor(**params).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours._model.baseline, theirs._baseline_prediction.ravel(), rtol=1e-9)
    # Gradients of two values make many splits of equal gain: both may choose, so the loss is compared, not the trees.
    values = ours._loss.arrays, np.ones(len(y)) if weight is None else weight
    mine, other = (values[0](raw, y, values[1], 0)[0] for raw in (ours._model.raw(X), theirs._raw_predict(X).ravel()))
    assert mine == pytest.approx(other, rel=0.01)


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_trees_of_means_of_logarithms_are_scikit_learns(loss):
    X, raw = table(seed=3)
    params = {"loss": loss, "max_iter": 2, "early_stopping": False, "max_leaf_nodes": 8}
    ours = HistGradientBoostingRegressor(**params).fit(X, np.exp(raw))
    theirs = reference.HistGradientBoostingRegressor(**params).fit(X, np.exp(raw))
    same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


def test_quality_on_many_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 8))
    raw = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + 0.5 * X[:, 3]
    y = rng.random(len(X)) < 1 / (1 + np.exp(-2 * raw))
    train, test = slice(15_000), slice(15_000, None)
    scores = []
    for kind in (HistGradientBoostingClassifier, reference.HistGradientBoostingClassifier):
        found = [
            roc_auc_score(y[test], kind(random_state=s).fit(X[train], y[train]).predict_proba(X[test])[:, 1])
            for s in range(3)
        ]
        scores.append(np.mean(found))
    assert scores[0] >= scores[1] - 0.003


CONSTRAINED = {
    "squared error": (HistGradientBoostingRegressor, {}, lambda y: y),
    "stochastic": (HistGradientBoostingRegressor, {"rounding": "stochastic"}, lambda y: y),
    "poisson": (HistGradientBoostingRegressor, {"loss": "poisson"}, lambda y: np.exp(y / 2)),
    "quantile": (HistGradientBoostingRegressor, {"loss": "quantile", "quantile": 0.7}, lambda y: y),
    "classes": (HistGradientBoostingClassifier, {}, lambda y: y > 0),
    "forest": (RandomForestRegressor, {"n_estimators": 20}, lambda y: y),
    "forest of classes": (RandomForestClassifier, {"n_estimators": 20}, lambda y: y > 0),
}


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_monotonic_constraints_hold_on_a_grid(name, missing):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (4000, 3))
    y = 2 * X[:, 0] - X[:, 1] + np.sin(8 * X[:, 0]) + rng.normal(size=4000)
    X[rng.random(X.shape) < missing] = np.nan
    kind, params, targets = CONSTRAINED[name]
    model = kind(monotonic_cst=[1, -1, 0], random_state=0, **params).fit(X, targets(y))
    grid = np.linspace(-1, 1, 300)
    for i in range(20):
        other = rng.uniform(-1, 1, 3)
        other[2] = np.nan if i % 4 == 3 and missing else other[2]
        for feature, sense in ((0, 1), (1, -1)):
            rows = np.tile(other, (300, 1))
            rows[:, feature] = grid
            found = model.predict_proba(rows)[:, 1] if hasattr(model, "classes_") else model.predict(rows)
            assert (sense * np.diff(found) >= -1e-12).all()
            assert np.ptp(found) > 0


def test_interactions_are_kept():
    X, y = table()
    model = HistGradientBoostingRegressor(interaction_cst=[[0, 1], [2]], max_iter=20).fit(X, y)
    groups = [{0, 1}, {2}, {3}]
    for tree in trees_of(model):
        stack = [(0, set())]
        while stack:
            node, used = stack.pop()
            if tree.is_leaf[node]:
                assert any(used <= group for group in groups), used
            else:
                used = used | {int(tree.feature[node])}
                stack += [(tree.left[node], used), (tree.left[node] + 1, used)]


def test_warm_start_goes_on():
    X, y = table()
    whole = HistGradientBoostingRegressor(max_iter=6, subsample=0.7, max_features=0.5, random_state=3).fit(X, y)
    parts = HistGradientBoostingRegressor(max_iter=2, subsample=0.7, max_features=0.5, random_state=3, warm_start=True)
    parts.fit(X, y)
    assert parts.n_iter_ == 2
    parts.set_params(max_iter=6).fit(X, y)
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))
    with pytest.raises(ValueError, match="max_iter=1 must be larger than or equal to n_iter_=6"):
        parts.set_params(max_iter=1).fit(X, y)
    other = HistGradientBoostingClassifier(warm_start=True, max_iter=2).fit(X, y > 0)
    with pytest.raises(ValueError, match="goes on with the classes"):
        other.fit(X, np.where(y > 0, "a", "b"))


def least_hashes(model, n, k):
    """Tell which k of n rows have the least hashes: those that a fit holds out."""
    hashes = uniform(model._seed, VALIDATION_STREAM, np.arange(n))
    held = np.zeros(n, bool)
    held[np.argsort(hashes)[:k]] = True
    return held


def test_early_stopping():
    X, y = table(n=12_000)
    model = HistGradientBoostingRegressor(max_iter=300, n_iter_no_change=5, learning_rate=0.5, random_state=0).fit(X, y)
    assert model.do_early_stopping_ and model.n_iter_ < 300
    assert len(model.train_score_) == len(model.validation_score_) == model.n_iter_ + 1
    assert np.argmax(model.validation_score_[:-5]) == len(model.validation_score_) - 6
    assert model.fit_report_.stopped_because == "early stopping"
    # The scores are those of the rows that the hash left out.
    held = least_hashes(model, len(X), 1200)
    half_squares = (y - model.predict(X)) ** 2 / 2
    assert -model.validation_score_[-1] == pytest.approx(half_squares[held].mean(), rel=1e-9)
    assert -model.train_score_[-1] == pytest.approx(half_squares[~held].mean(), rel=1e-9)
    only = HistGradientBoostingRegressor(max_iter=3, early_stopping=True, validation_fraction=None).fit(X, y)
    assert len(only.validation_score_) == 0 and len(only.train_score_) == 4
    assert not HistGradientBoostingRegressor(max_iter=1).fit(X[:9000], y[:9000]).do_early_stopping_


@pytest.mark.parametrize(
    "n, fraction, n_held", [(12, 0.1, 2), (12, 0.01, 1), (12, 1, 1), (12, 11, 11), (100, 0.25, 25)]
)
def test_as_many_rows_are_held_out_as_were_asked_for(n, fraction, n_held):
    """However few there are: a share of hashes alone would leave none here or there."""
    X, y = table(n=n)
    for seed in range(8):
        model = HistGradientBoostingRegressor(
            max_iter=2, early_stopping=True, validation_fraction=fraction, random_state=seed, min_samples_leaf=2
        ).fit(X, y)
        held = least_hashes(model, n, n_held)
        assert model._model.baseline[0] == pytest.approx(y[~held].mean(), rel=1e-12)
        assert -model.validation_score_[0] == pytest.approx(np.mean((y[held] - y[~held].mean()) ** 2) / 2, rel=1e-9)


def test_shares_of_many_rows_are_held_out_about(monkeypatch):
    monkeypatch.setattr("daskdml.trees.boosting.COUNTED_ROWS", 2000)
    X, y = table()
    for fraction in (0.2, 600):
        model = HistGradientBoostingRegressor(
            max_iter=2, early_stopping=True, validation_fraction=fraction, random_state=5
        ).fit(X, y)
        held = uniform(5, VALIDATION_STREAM, np.arange(3000)) < 0.2
        assert held.sum() != 600 and -model.validation_score_[-1] == pytest.approx(
            np.mean((y - model.predict(X))[held] ** 2) / 2, rel=1e-9
        )


@pytest.mark.parametrize("fraction", [200, 5000, 0.999])
def test_all_rows_held_out_are_refused(fraction):
    X, y = table(n=200)
    with pytest.raises(ValueError, match="holds out .* of 200 rows and leaves none to grow trees on; hold out fewer"):
        HistGradientBoostingRegressor(early_stopping=True, validation_fraction=fraction).fit(X, y)
    HistGradientBoostingRegressor(early_stopping=False, validation_fraction=fraction, max_iter=1).fit(X, y)


@pytest.mark.parametrize("which", ["held out for validation", "left to grow trees on"])
@pytest.mark.parametrize("whole", [True, False])
def test_validation_rows_without_weight_are_refused(which, whole):
    X, y = table(n=200)
    model = HistGradientBoostingRegressor(early_stopping=True, max_iter=1).fit(X, y)
    held = least_hashes(model, 200, 20)
    weight = np.where(held == (which == "left to grow trees on"), 1.0 if whole else 0.3, 0.0)
    for chunks in (200, 30):
        lazy = da.from_array(X, chunks=(chunks, -1)), y, weight
        with pytest.raises(ValueError, match=f"none of the rows {which} has a weight above 0"):
            model.fit(*lazy)
        # One row more that has weight, in any chunk.
        enough = np.where(np.arange(200) == np.flatnonzero(weight == 0)[-1], 1.0, weight)
        model.fit(lazy[0], y, enough)
    model.set_params(validation_fraction=None).fit(X, y, sample_weight=weight)
    classes = np.where(weight > 0, np.arange(200) % 2, 2)
    classifier = HistGradientBoostingClassifier(early_stopping=True, max_iter=1, class_weight={0: 1.0, 1: 2.0, 2: 0.0})
    with pytest.raises(ValueError, match=f"none of the rows {which} has a weight above 0"):
        classifier.fit(X, classes)


@pytest.mark.parametrize("how", ["weights", "class weights", "balanced"])
def test_a_class_without_weight_is_scikit_learns(how):
    X, raw = table()
    y = np.digitize(raw, [0.0, 1.0])
    # For larger leaves scikit-learn counts rows without weight too.
    params, weight = {"max_iter": 2, "early_stopping": False, "max_leaf_nodes": 8, "min_samples_leaf": 1}, None
    if how == "class weights":
        params["class_weight"] = {0: 1.0, 1: 0.0, 2: 2.0}
    else:
        weight = (y != 1).astype(float)
    ours = HistGradientBoostingClassifier(**params)
    if how == "balanced":  # of the rows that have weight, where scikit-learn counts all
        ours.set_params(class_weight="balanced")
        present = np.bincount(y)[[0, 2]]
        params["class_weight"] = {0: present.sum() / (3 * present[0]), 2: present.sum() / (3 * present[1])}
    ours.fit(X, y, sample_weight=weight)
    theirs = reference.HistGradientBoostingClassifier(**params).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours._model.baseline, theirs._baseline_prediction.ravel(), rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-4, atol=1e-12)


def test_a_class_that_is_held_out_whole():
    X, raw = table(n=400)
    for n_classes in (2, 3):
        y = (raw > 0.5).astype(int) if n_classes == 3 else np.zeros(400, int)
        model = HistGradientBoostingClassifier(max_iter=2, early_stopping=True, random_state=1)
        held = least_hashes(model.set_params(max_iter=1).fit(X, raw > 0), 400, 40)
        y[np.flatnonzero(held)[:5]] = n_classes - 1
        model.set_params(max_iter=3).fit(X, y)
        shares = np.bincount(y[~held], minlength=n_classes) / 360
        eps = np.finfo(float).eps * (10 if n_classes == 2 else 1)
        log = np.log(np.clip(shares, eps, 1 - eps))
        expected = log - log.mean() if n_classes == 3 else log[1:] - log[:1]
        np.testing.assert_allclose(model._model.baseline, expected, rtol=1e-9)
        p = model.predict_proba(X)
        assert np.isfinite(p).all() and (p[:, -1] < 1e-10).all() and np.isfinite(model.validation_score_).all()


def test_counts_that_are_held_out_whole():
    X, _ = table(n=400)
    model = HistGradientBoostingRegressor(loss="poisson", max_iter=3, early_stopping=True, random_state=1)
    y = np.where(least_hashes(model.fit(X, np.ones(400)), 400, 40), 2.0, 0.0)
    model.fit(X, y)
    theirs = reference.HistGradientBoostingRegressor(loss="poisson", max_iter=3, early_stopping=False)
    theirs.fit(X, y, sample_weight=(y == 0).astype(float))
    np.testing.assert_allclose(model.predict(X), theirs.predict(X), rtol=1e-9)
    assert np.isfinite(model.validation_score_).all()


def test_staged_predictions_end_at_the_last():
    X, y = table()
    model = HistGradientBoostingClassifier(max_iter=5).fit(X, y > 0)
    for name in ("predict", "predict_proba", "decision_function"):
        staged = list(getattr(model, f"staged_{name}")(X))
        assert len(staged) == 5
        np.testing.assert_array_equal(staged[-1], getattr(model, name)(X))
        short = HistGradientBoostingClassifier(max_iter=2).fit(X, y > 0)
        np.testing.assert_array_equal(staged[1], getattr(short, name)(X))
    regressor = HistGradientBoostingRegressor(max_iter=3, loss="poisson").fit(X, np.exp(y))
    np.testing.assert_array_equal(list(regressor.staged_predict(X))[-1], regressor.predict(X))


def test_importances():
    X, y = table()
    model = HistGradientBoostingRegressor(max_iter=10).fit(X, y)
    gain, count = model.feature_importances_, model.importances("count")
    assert gain.sum() == pytest.approx(1) and count.sum() == pytest.approx(1)
    assert gain.argmax() == 0 and gain[3] < 0.05
    splits = sum((~tree.is_leaf).sum() for tree in trees_of(model))
    assert count[0] * splits == pytest.approx(sum((tree.feature == 0).sum() for tree in trees_of(model)))
    with pytest.raises(ValueError, match="kind must be 'gain' or 'count'"):
        model.importances("cover")


def test_subsample_and_max_features():
    X, y = table(n=8000)
    whole = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(X, y)
    some = HistGradientBoostingRegressor(max_iter=20, random_state=0, subsample=0.5, max_features=0.5).fit(X, y)
    counts = [tree.count[0] for tree in trees_of(some)]
    assert len(set(counts)) > 10 and abs(np.mean(counts) / len(X) - 0.5) < 0.02
    assert some.score(X, y) > whole.score(X, y) - 0.05
    roots = {int(tree.feature[0]) for tree in trees_of(some)}
    assert len(roots) > 2 > len({int(tree.feature[0]) for tree in trees_of(whole)})


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "quantile", "poisson", "gamma"])
def test_whole_weights_are_repeated_rows(loss):
    """To the last bit: bins, sums, leaves, and the least number of rows of a leaf."""
    X, y = table(n=400, values=1000)
    y = np.exp(y / 20) if loss in ("poisson", "gamma") else y
    weight = np.random.default_rng(0).integers(0, 6, len(X))
    again = np.repeat(np.arange(len(X)), weight)
    params = {"loss": loss, "max_iter": 5, "min_samples_leaf": 10}
    if loss == "quantile":
        params["quantile"] = 0.8
    weighted = HistGradientBoostingRegressor(**params).fit(X, y, sample_weight=weight)
    repeated = HistGradientBoostingRegressor(**params).fit(X[again], y[again])
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_whole_weights_are_repeated_rows_of_classes(n_classes):
    X, raw = table(n=400, values=1000)
    y = np.digitize(raw, np.quantile(raw, np.arange(1, n_classes) / n_classes))
    weight = np.random.default_rng(0).integers(0, 6, len(X))
    again = np.repeat(np.arange(len(X)), weight)
    model = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=10)
    weighted = model.fit(X, y, sample_weight=weight).decision_function(X)
    np.testing.assert_array_equal(weighted, model.fit(X[again], y[again]).decision_function(X))


@pytest.mark.slow
@pytest.mark.parametrize("params", [{"rounding": "stochastic"}, {"subsample": 0.6}], ids=str)
def test_weights_are_repeated_rows_on_average(params, monkeypatch):
    """Of rows that are drawn or rounded by their numbers: mean differences of 20 pairs are within 4 errors of zero."""
    monkeypatch.setattr(boosting, "MANY_BITS", 8)  # of 15 no rounding decides a split here
    X, y = table(n=1500)
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    again, differences = np.repeat(np.arange(len(X)), weight), []
    for seed in range(20):
        kind = HistGradientBoostingClassifier(max_iter=10, random_state=seed, **params)
        weighted = kind.fit(X, y > 0, sample_weight=weight).decision_function(X)
        repeated = kind.fit(X[again], y[again] > 0).decision_function(X)
        apart = weighted - repeated
        differences.append([apart.mean(), apart[y > 0].mean(), apart[X[:, 2] > 20].mean()])
        assert np.abs(apart).max() > 0
    mean, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(mean) < 4 * error + 1e-6).all()


def test_bad_values_are_sentences():
    X, y = table(n=200)
    for params, target, match in (
        ({"loss": "poisson"}, -np.abs(y), "requires non-negative y"),
        ({"loss": "gamma"}, np.zeros(len(y)), "requires strictly positive y"),
        ({"loss": "quantile"}, y, "needs quantile="),
        ({"monotonic_cst": [1, 0]}, y, "monotonic_cst has shape"),
        ({"monotonic_cst": [1, 0, 2, 0]}, y, "array-like of -1, 0 or 1"),
        ({"monotonic_cst": {"a": 1}}, y, "no feature names"),
        ({"interaction_cst": [[0, 7]]}, y, "invalid indices"),
        ({"interaction_cst": [1]}, y, "sequence of tuples or lists"),
    ):
        with pytest.raises(ValueError, match=match):
            HistGradientBoostingRegressor(**params).fit(X, target)
    with pytest.raises(ValueError, match="not supported for multiclass"):
        HistGradientBoostingClassifier(monotonic_cst=[1, 0, 0, 0]).fit(X, np.arange(len(X)) % 3)
    with pytest.raises(ValueError, match="1d array"):
        HistGradientBoostingRegressor().fit(X, np.column_stack([y, y]))


def test_sparse_rows_whose_bins_have_no_room_are_refused(monkeypatch):
    """Before any of them is made: 46 histograms, and one a thread, of 5,000 features, of two or three bins each."""
    X = sparse.csr_matrix((np.ones(1000), (np.arange(1000), np.arange(1000) * 4)), shape=(1000, 5000))
    y = np.arange(1000) % 2
    monkeypatch.setattr("daskdml.runtime.local.process_limit", lambda: 10_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="rows of 5,000 features need 12 MB .* 40 bytes each and 12 MB beside"):
            with config_context(n_threads=1):
                HistGradientBoostingClassifier(max_iter=1).fit(X, y)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_report_tells_phases():
    X, y = table()
    report = HistGradientBoostingRegressor(max_iter=3).fit(X, y).fit_report_
    assert {"bin", "gradient", "histogram", "partition", "split", "leaves"} <= set(report.phases)
    assert all(report.phases[phase] > 0 for phase in ("bin", "gradient", "histogram", "partition", "split"))
    assert sum(report.phases.values()) <= report.seconds + report.compile_seconds
    assert report.n_iter == 3 and report.stopped_because == "max_iter"
    # Of every tree 30 splits stand; others were tried on the way.
    assert report.counts["rounds"] == 0 and 90 <= report.counts["splits"] < 180


def test_report_counts_rounds_and_bytes():
    """Two ranks add up a root and at most 30 histograms a tree, of three sums of 4 or 8 bytes for each of 256 bins."""
    X, y = table()
    cluster = SimulatedCluster(2, rows_per_block=512)
    report = cluster.fit(HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5), X, y).fit_report_
    rounds, n_bytes = report.counts["rounds"], report.counts["bytes a round"]
    histogram = 3 * 256 * X.shape[1] * 8
    assert 3 * 8 <= rounds <= 3 * 36
    assert report.phases["reduce"] > 0
    assert 0.1 * histogram < n_bytes < 5 * histogram


class Interrupted(Exception):
    pass


def interrupt(model, X, y, after):
    """Fit until so many iterations are done, and write a checkpoint after each."""
    iterate = Boosting.iterate

    def stop(self, state, shards, comm):
        if len(state.trees) == after:
            raise Interrupted
        return iterate(self, state, shards, comm)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Boosting, "iterate", stop)
        model.fit(X, y)


def iterations_of(fit):
    """Return the numbers of the iterations that a fit does."""
    iterate, done = Boosting.iterate, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boosting, "iterate", lambda *args: done.append(len(args[1].trees)) or iterate(*args))
        fit()
    return done


def test_a_checkpoint_is_gone_on_from(tmp_path):
    X, y = table()
    for seed in (0, None):
        whole = HistGradientBoostingRegressor(max_iter=8, subsample=0.5, random_state=seed).fit(X, y)
        model = HistGradientBoostingRegressor(max_iter=8, subsample=0.5, random_state=seed)
        with config_context(checkpoint=str(tmp_path / str(seed)), checkpoint_every=1e-9, resume=True):
            interrupt(model, X, y, 5)
            assert iterations_of(lambda: model.fit(X, y)) == [5, 6, 7]
        np.testing.assert_array_equal(model.predict(X), whole.predict(X))


def test_a_checkpoint_of_other_draws_bins_or_trees_is_left_alone(tmp_path):
    """It is another fit with another seed, with rows that have the same bins, and after other trees."""
    X, y = table()
    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        interrupt(HistGradientBoostingRegressor(max_iter=4, subsample=0.5, random_state=0), X, y, 3)
        for seed, factor in ((1, 1.0), (0, 2.0)):
            model = HistGradientBoostingRegressor(max_iter=4, subsample=0.5, random_state=seed)
            assert iterations_of(lambda: model.fit(factor * X, y)) == [0, 1, 2, 3]
            with config_context(checkpoint=None, resume=False):
                whole = HistGradientBoostingRegressor(max_iter=4, subsample=0.5, random_state=seed).fit(factor * X, y)
            np.testing.assert_array_equal(model.predict(factor * X), whole.predict(factor * X))
        model = HistGradientBoostingRegressor(max_iter=2, warm_start=True, learning_rate=1.0).fit(X, y)
        interrupt(model.set_params(max_iter=4, learning_rate=0.1), X, y, 3)
        fresh = HistGradientBoostingRegressor(max_iter=4, warm_start=True, learning_rate=0.1)
        assert iterations_of(lambda: fresh.fit(X, y)) == [0, 1, 2, 3]
        assert iterations_of(lambda: model.fit(X, y)) == [3]


def test_no_random_state_is_a_fixed_draw():
    X, y = table()
    params = {"max_iter": 3, "subsample": 0.5, "max_features": 0.5, "early_stopping": True}
    fits = [HistGradientBoostingRegressor(**params, random_state=seed).fit(X, y) for seed in (None, None, 0, 1)]
    predictions = [model.predict(X) for model in fits]
    np.testing.assert_array_equal(predictions[0], predictions[1])
    np.testing.assert_array_equal(predictions[0], predictions[2])
    assert not np.array_equal(predictions[0], predictions[3])


def test_a_warm_start_keeps_the_features():
    X, y = table()
    model = HistGradientBoostingRegressor(max_iter=2, warm_start=True).fit(X, y)
    for other in (X[:, :3], np.column_stack([X, X])):
        with pytest.raises(ValueError, match="features"):
            model.set_params(max_iter=4).fit(other, y)
    assert model.n_iter_ == 2


def test_rows_are_let_go_when_a_fit_ends():
    """Not when Python next looks for cycles: the next fit would hold those of this one too."""
    X, y = table()
    gc.collect()

    def held():
        return {id(thing) for thing in gc.get_objects() if type(thing) in (Shards, Grower)}

    before = held()  # by errors of other tests
    gc.disable()
    try:
        HistGradientBoostingRegressor(max_iter=2).fit(X, y)
        assert held() <= before
    finally:
        gc.enable()


IMPORTS = """
def loaded():
    import sys
    return [name for name in ("sklearn", "pandas", "daskdml.trees") if name in sys.modules]

if __name__ == "__main__":  # workers import what stands above
    import logging
    import dask.array as da
    from distributed import Client, LocalCluster
    from daskdml import config_context
    from daskdml.ensemble import HistGradientBoostingClassifier

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster:
        with Client(cluster) as client, config_context(runtime="spmd"):
            X = da.random.default_rng(0).normal(size=(4000, 4), chunks=(1000, 4)).persist()
            HistGradientBoostingClassifier(max_iter=2).fit(X, X[:, 0] > 0)
            print(*client.run(loaded).values())
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_import_neither_scikit_learn_nor_pandas(tmp_path):
    """Which take 130 MB of each."""
    script = tmp_path / "imports.py"
    script.write_text(IMPORTS)
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert out.stdout.split() == ["['daskdml.trees']"] * 2, out.stderr
