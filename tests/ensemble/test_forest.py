"""Forests and trees beside scikit-learn's, and what they promise beyond the contract."""

import os
import pickle
import subprocess
import sys

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import ensemble as sk_ensemble
from sklearn import tree as sk_tree
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from daskdml import config_context
from daskdml import tree as dt
from daskdml.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from daskdml.testing import SimulatedCluster
from daskdml.tree import DecisionTreeClassifier, DecisionTreeRegressor
from daskdml.trees import Forest

FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)


def rows(n=3000, p=6, n_values=200, missing=0.0, seed=0):
    """Few values a feature; targets so noisy that no two splits are equally good where nodes have many rows."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, p)) * n_values / 8) / 3
    y = np.sin(X[:, 0] / 9) + X[:, 1] / 20 + (X[:, 2] > 3) * X[:, 3] / 10 + rng.normal(size=n)
    X[rng.random((n, p)) < missing] = np.nan
    return X, y, rng.uniform(0.2, 2, n)


def same_nodes(ours, theirs):
    found, expected = (twin.tree_.__getstate__() for twin in (ours.to_sklearn(), theirs))
    for name in ("left_child", "right_child", "feature", "threshold", "n_node_samples", "missing_go_to_left"):
        inner = expected["nodes"]["left_child"] >= 0 if name == "missing_go_to_left" else slice(None)
        np.testing.assert_array_equal(found["nodes"][name][inner], expected["nodes"][name][inner], err_msg=name)
    for name in ("impurity", "weighted_n_node_samples"):
        np.testing.assert_allclose(found["nodes"][name], expected["nodes"][name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["values"], expected["values"], rtol=1e-9, atol=1e-12)
    assert found["max_depth"] == expected["max_depth"]


REGRESSION = (
    {"min_samples_leaf": 12}, {"max_depth": 5, "min_samples_leaf": 5}, {"min_samples_leaf": 0.01},
    {"min_samples_split": 60, "min_samples_leaf": 8}, {"min_impurity_decrease": 0.004},
    {"min_weight_fraction_leaf": 0.02}, {"criterion": "friedman_mse", "max_depth": 5},
    {"max_depth": 5, "ccp_alpha": 0.01}, {"max_depth": 5, "monotonic_cst": [1, -1, 0, 1, 0, 0]},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*friedman_mse:FutureWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("params", REGRESSION)
def test_regression_trees_are_scikit_learns(params, missing, weighted):
    if "monotonic_cst" in params and missing:
        pytest.skip("scikit-learn takes no missing values beside constraints")
    X, y, weight = rows(missing=missing)
    weight = weight if weighted else None
    ours = DecisionTreeRegressor(**params).fit(X, y, sample_weight=weight)
    theirs = sk_tree.DecisionTreeRegressor(random_state=0, **params).fit(X, y, sample_weight=weight)
    same_nodes(ours, theirs)
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, rtol=1e-9, atol=1e-12)
    assert ours.get_depth() == theirs.get_depth() and ours.get_n_leaves() == theirs.get_n_leaves()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("criterion", ["gini", "entropy", "log_loss"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_classification_trees_are_scikit_learns(n_classes, criterion, weighted):
    X, y, weight = rows(missing=0.05)
    y = np.array(["a", "b", "c", "d"])[np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))]
    # scikit-learn balances numbers of rows, not their weights; ours counts a weight of two as two rows.
    by_class = {"a": 1.5, "b": 0.7} if weighted else "balanced"
    params = {"criterion": criterion, "max_depth": 5, "min_samples_leaf": 20, "class_weight": by_class}
    weight = weight if weighted else None
    ours = DecisionTreeClassifier(**params).fit(X, y, sample_weight=weight)
    theirs = sk_tree.DecisionTreeClassifier(random_state=0, **params).fit(X, y, sample_weight=weight)
    same_nodes(ours, theirs)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.apply(X), theirs.apply(X))
    np.testing.assert_array_equal(ours.decision_path(X).toarray(), theirs.decision_path(X).toarray())


def test_poisson_trees_are_scikit_learns():
    X, y, _ = rows()
    rng = np.random.default_rng(0)
    y = rng.poisson(np.exp(y / 2)) + rng.uniform(0, 1e-3, len(y))
    params = {"criterion": "poisson", "max_depth": 5, "min_samples_leaf": 10}
    same_nodes(DecisionTreeRegressor(**params).fit(X, y), sk_tree.DecisionTreeRegressor(**params).fit(X, y))


@pytest.mark.parametrize("kind", ["DecisionTreeRegressor", "DecisionTreeClassifier"])
def test_best_first_trees_are_scikit_learns(kind):
    X, y, _ = rows()
    y = y if kind.endswith("Regressor") else (y > 0.3).astype(int)
    params = {"max_leaf_nodes": 25, "min_samples_leaf": 15}
    ours = getattr(dt, kind)(**params).fit(X, y)
    theirs = getattr(sk_tree, kind)(random_state=0, **params).fit(X, y)
    method = "predict" if kind.endswith("Regressor") else "predict_proba"
    np.testing.assert_allclose(getattr(ours, method)(X), getattr(theirs, method)(X), rtol=1e-9)
    assert ours.get_n_leaves() == 25


def test_forests_without_draws_are_scikit_learns():
    X, y, _ = rows(missing=0.05)
    params = {"n_estimators": 3, "bootstrap": False, "min_samples_leaf": 15}
    ours, theirs = (room(**params).fit(X, y) for room in (RandomForestRegressor, sk_ensemble.RandomForestRegressor))
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, rtol=1e-9)


@pytest.mark.parametrize("kind", FORESTS)
def test_forests_are_as_good_as_scikit_learns(kind):
    """Mean test score over seeds is that of scikit-learn's forest, up to what seeds change."""
    if kind.__name__.endswith("Classifier"):
        X, y = load_digits(return_X_y=True)
    else:
        X, y = load_diabetes(return_X_y=True)
    twin, scores = getattr(sk_ensemble, kind.__name__), []
    for seed in range(5):
        parts = [model(n_estimators=40, random_state=seed).fit(X[::2], y[::2]) for model in (kind, twin)]
        scores.append([model.score(X[1::2], y[1::2]) for model in parts])
    ours, theirs = np.mean(scores, axis=0)
    noise = np.std(scores, axis=0).max()
    assert ours > theirs - 2 * noise - 0.003


@pytest.mark.parametrize("kind", FORESTS)
def test_export_predicts_the_same(kind):
    """`to_sklearn` gives the same predictions for values that the fit did not see, missing ones among them."""
    X, y, _ = rows(missing=0.1)
    if kind.__name__.endswith("Classifier"):
        y = np.digitize(y, [0, 1])
    model = kind(n_estimators=8, random_state=1).fit(X, y)
    twin = model.to_sklearn()
    new = np.random.default_rng(5).normal(size=(2000, X.shape[1])) * 30
    new[np.random.default_rng(6).random(new.shape) < 0.2] = np.nan
    for name in ("predict_proba", "predict_log_proba") if hasattr(model, "predict_proba") else ("predict",):
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(getattr(model, name)(new), getattr(twin, name)(new), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(model.apply(new), twin.apply(new))
    np.testing.assert_allclose(model.feature_importances_, twin.feature_importances_, rtol=1e-9)


@pytest.mark.parametrize("kind", FORESTS)
def test_forests_are_sequences_of_scikit_learns_trees(kind):
    """Trees one by one say the same in both libraries: those of a classifier know classes by their numbers."""
    X, y, _ = rows()
    if kind.__name__.endswith("Classifier"):
        y = np.array(["low", "middle", "high"])[np.digitize(y, [0, 1])]
    model = kind(n_estimators=4, max_depth=4).fit(X, y)
    twin = getattr(sk_ensemble, kind.__name__)(n_estimators=4, max_depth=4).fit(X, y)
    assert len(model) == len(twin) == 4 and model[1] is model.estimators_[1] is list(model)[1]
    assert [type(tree) for tree in model[1:]] == [type(tree) for tree in twin[1:]]
    assert type(model.estimator_) is type(twin.estimator_)
    says = "predict_proba" if hasattr(model, "classes_") else "predict"
    mean = np.mean([getattr(tree, says)(X) for tree in model], axis=0)
    np.testing.assert_allclose(mean, getattr(model, says)(X), rtol=1e-9, atol=1e-12)
    if hasattr(twin, "classes_"):
        np.testing.assert_array_equal(model[0].classes_, twin[0].classes_)
        assert set(model[0].predict(X)) <= {0.0, 1.0, 2.0}
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied[2].tree_.value, model[2].tree_.value)


@pytest.mark.parametrize("kind", FORESTS)
def test_samples_of_trees(kind):
    """A tree's root has the rows that `estimators_samples_` names, as often as it does."""
    X, y, _ = rows()
    y = np.digitize(y, [0, 1])
    for bootstrap in (False, True):
        model = kind(n_estimators=3, max_depth=2, bootstrap=bootstrap).fit(X, y)
        for tree, sample in zip(model, model.estimators_samples_):
            assert tree.tree_.weighted_n_node_samples[0] == len(sample)
            values = np.eye(3)[y][sample].mean(axis=0) if hasattr(model, "classes_") else y[sample].mean()
            np.testing.assert_allclose(tree.tree_.value[0, 0], values, rtol=1e-9)
        if not bootstrap:
            np.testing.assert_array_equal(sample, np.arange(len(X)))


@pytest.mark.parametrize("kind", [RandomForestClassifier, RandomForestRegressor])
def test_out_of_bag_by_hand(kind):
    """The scores are those of each row's mean over trees whose draw left it out."""
    X, y, _ = rows(600)
    classes = kind is RandomForestClassifier
    y = np.array(["no", "yes"])[(y > 0).astype(int)] if classes else y
    model = kind(n_estimators=30, oob_score=True, random_state=0, max_depth=6).fit(X, y)
    from daskdml.kernels import forest as kernel
    from daskdml.trees import Recipe

    grown = Forest(Recipe("gini", 2, 6, draws=1.0), None, 30, model._forest.seed, len(X))
    sums, times = 0.0, np.zeros(len(X))
    for number, twin in enumerate(model.estimators_):
        drawn = kernel.draws(0, len(X), grown.key(number), grown.chances)
        # What the tree itself has seen.
        assert twin.tree_.n_node_samples[0] == np.count_nonzero(drawn)
        assert twin.tree_.weighted_n_node_samples[0] == drawn.sum()
        unseen = drawn == 0
        said = twin.predict_proba(X) if classes else twin.predict(X)[:, None]
        sums, times = sums + unseen[:, None] * said, times + unseen
    assert 0.3 < np.mean(times) / 30 < 0.45 and times.min() > 0
    means = sums / times[:, None]
    if classes:
        np.testing.assert_allclose(model.oob_decision_function_, means)
        assert model.oob_score_ == np.mean(model.classes_[means.argmax(axis=1)] == y)
    else:
        np.testing.assert_allclose(model.oob_prediction_, means[:, 0])
        assert model.oob_score_ == pytest.approx(1 - ((y - means[:, 0]) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_out_of_bag_by_a_function():
    X, y, _ = rows(600)
    for kind, target, attribute in (
        (RandomForestRegressor, y, "oob_prediction_"), (RandomForestClassifier, y > 0, "oob_decision_function_")
    ):  # fmt: skip
        asked = []

        def score(truth, said):
            asked.append((truth, said))
            return 0.25

        model = kind(n_estimators=30, oob_score=score, random_state=0, max_depth=6).fit(X, target)
        ((truth, said),) = asked
        assert model.oob_score_ == 0.25
        np.testing.assert_array_equal(truth, target)
        found = getattr(model, attribute)
        np.testing.assert_array_equal(said, found if kind is RandomForestRegressor else found.argmax(axis=1))


@pytest.mark.parametrize("kind", FORESTS)
def test_jobs_change_no_bit(kind):
    X, y, _ = rows(2000)
    y = y > 0 if kind.__name__.endswith("Classifier") else y
    said = [kind(n_estimators=5, random_state=0, n_jobs=n).fit(X, y).predict(X) for n in (None, 1, 2, -1)]
    for other in said[1:]:
        np.testing.assert_array_equal(other, said[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RandomForestClassifier, RandomForestRegressor])
def test_weights_are_repeated_rows_on_average(kind):
    """Of rows that are drawn by their numbers: the mean differences of 20 pairs are within 4 errors of zero."""
    X, y, _ = rows(800)
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    again, differences = np.repeat(np.arange(len(X)), weight), []
    target = y > 0 if kind is RandomForestClassifier else y
    for seed in range(20):
        model = kind(n_estimators=30, max_depth=3, random_state=seed)
        weighted = model.fit(X, target, sample_weight=weight)
        weighted = weighted.predict_proba(X)[:, 1] if kind is RandomForestClassifier else weighted.predict(X)
        repeated = model.fit(X[again], target[again])
        repeated = repeated.predict_proba(X)[:, 1] if kind is RandomForestClassifier else repeated.predict(X)
        apart = weighted - repeated
        differences.append([apart.mean(), apart[y > 0].mean()])
        assert np.abs(apart).max() > 0
    mean, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(mean) < 4 * error).all()


def test_report_tells_phases_and_bytes():
    X, y, _ = rows(600)
    report = RandomForestRegressor(n_estimators=5, oob_score=True).fit(X, y).fit_report_
    assert list(report.phases) == ["bin", "reduce", "histogram", "partition", "score"]
    assert all(seconds >= 0 for seconds in report.phases.values())
    assert sum(report.phases.values()) <= report.seconds + report.compile_seconds
    assert report.counts["bytes a round"] == 0
    report = SimulatedCluster(2, rows_per_block=128).fit(RandomForestRegressor(n_estimators=5), X, y).fit_report_
    # Two ranks send each other half of the rows, a byte a value and a target, and their trees.
    assert report.counts["rounds"] * report.counts["bytes a round"] > 300 * X.shape[1]


def test_out_of_bag_of_few_trees_warns():
    X, y, _ = rows(300)
    with pytest.warns(UserWarning, match="OOB scores"):
        model = RandomForestRegressor(n_estimators=1, oob_score=True).fit(X, y)
    assert np.isfinite(model.oob_score_)
    with pytest.raises(ValueError, match="bootstrap=True"):
        RandomForestRegressor(bootstrap=False, oob_score=True).fit(X, y)


def test_warm_start_adds_the_trees_of_a_whole_fit():
    X, y, _ = rows()
    whole = RandomForestRegressor(n_estimators=7, random_state=3).fit(X, y)
    model = RandomForestRegressor(n_estimators=3, random_state=3, warm_start=True).fit(X, y)
    first = model.predict(X)
    model.set_params(n_estimators=7).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))
    assert not np.array_equal(first, model.predict(X))
    with pytest.warns(UserWarning, match="without increasing n_estimators"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="larger or equal"):
        model.set_params(n_estimators=2).fit(X, y)
    for other in (X[:, :3], np.column_stack([X, X])):
        with pytest.raises(ValueError, match="features"):
            model.set_params(n_estimators=9).fit(other, y)


def grown_numbers(fit, stops_at=None):
    """Return the numbers of the trees that a fit grows; it is interrupted before one of them."""
    grow, numbers = Forest.grow, []

    def watch(self, number, *args):
        if number == stops_at:
            raise KeyError(number)
        numbers.append(number)
        return grow(self, number, *args)

    with pytest.MonkeyPatch.context() as patch, config_context(n_threads=1):
        patch.setattr(Forest, "grow", watch)
        if stops_at is None:
            fit()
        else:
            with pytest.raises(KeyError):
                fit()
    return numbers


def test_a_checkpoint_is_gone_on_from(tmp_path):
    """A forest that was interrupted grows the trees that lack; another seed, or other rows, begin anew."""
    X, y, _ = rows()
    model = RandomForestRegressor(n_estimators=12, max_depth=4, random_state=0)
    whole = model.fit(X, y).predict(X)
    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        assert grown_numbers(lambda: model.fit(X, y), 9) == list(range(9))
        for other, factor in ((clone(model).set_params(random_state=1), 1.0), (clone(model), 2.0)):
            assert grown_numbers(lambda o=other, f=factor: o.fit(f * X, y)) == list(range(12))
        assert grown_numbers(lambda: model.fit(X, y)) == [8, 9, 10, 11]
    np.testing.assert_array_equal(model.predict(X), whole)


def test_balanced_subsamples_weigh_classes_by_tree():
    """The root of each tree sees both classes with the same weight, whatever rows it drew."""
    X, y, _ = rows()
    y = (y > 1.2).astype(int)
    shares = []
    for given in ("balanced_subsample", None):
        model = RandomForestClassifier(n_estimators=20, class_weight=given, max_depth=1, random_state=0).fit(X, y)
        shares.append(np.mean([twin.tree_.value[0, 0, 1] for twin in model.estimators_]))
    assert shares[0] == pytest.approx(0.5, abs=1e-9) and shares[1] == pytest.approx(y.mean(), abs=0.02)


def test_max_samples_is_the_mean_draw():
    X, y, _ = rows()
    for most in (0.25, 750):
        model = RandomForestRegressor(n_estimators=20, max_samples=most, max_depth=1, random_state=0).fit(X, y)
        weight = np.mean([twin.tree_.weighted_n_node_samples[0] for twin in model.estimators_])
        assert weight == pytest.approx(750, rel=0.03)
    with pytest.raises(ValueError, match="max_samples"):
        RandomForestRegressor(max_samples=3001).fit(X, y)
    with pytest.raises(ValueError, match="bootstrap=False"):
        RandomForestRegressor(max_samples=0.5, bootstrap=False).fit(X, y)


def test_a_value_that_is_missing_tells():
    """Of a feature with one value a drawn split, too, divides rows that have it from those that do not."""
    X = np.where(np.arange(400) % 3 == 0, np.nan, 1.0)[:, None]
    for kind in (ExtraTreesClassifier, RandomForestClassifier):
        assert kind(n_estimators=5).fit(X, np.isnan(X[:, 0])).score(X, np.isnan(X[:, 0])) == 1


def test_outliers_and_sizes_of_weights_change_no_tree():
    """Targets beside one of 1e20 are divided as scikit-learn divides them; weights may have any size."""
    X, y, weight = rows(1500)
    X, y = np.vstack([X, np.full((1, X.shape[1]), 200.0)]), np.append(y, 1e20)
    params = {"max_depth": 5, "min_samples_leaf": 1}
    rooms = (DecisionTreeRegressor, sk_tree.DecisionTreeRegressor)
    ours, theirs = (np.mean((room(**params).fit(X, y).predict(X[:-1]) - y[:-1]) ** 2) for room in rooms)
    assert ours <= 1.1 * theirs
    X, y = X[:1500], y[:1500]
    expected = None
    for power in (-500, -60, 0, 37, 44, 50, 51, 52, 60, 500):
        found = DecisionTreeRegressor(max_depth=6).fit(X, y, sample_weight=weight * 2.0**power).predict(X)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
    for bad in (np.full(1500, 1e-300), np.full(1500, 1e299)):
        with pytest.raises(ValueError, match="more than float64"):
            DecisionTreeRegressor().fit(X, y, sample_weight=bad)


def test_a_feature_that_the_sample_misses(monkeypatch):
    """A feature of many values, none of which the sample for bins has, is one bin."""
    monkeypatch.setattr("daskdml.trees.binning.SAMPLE_ROWS", 50)
    monkeypatch.setattr("daskdml.trees.binning.sample_rows", lambda *_: 50)
    X = np.column_stack([np.full(4000, np.nan), np.arange(4000.0)])
    X[1:79, 0] = np.arange(78)
    for kind in (RandomForestRegressor, ExtraTreesRegressor):
        model = kind(n_estimators=4, max_bins=20).fit(X, X[:, 1])
        assert model.score(X, X[:, 1]) > 0.9


def test_a_tree_that_draws_no_row_has_one():
    X, y, _ = rows(200)
    model = RandomForestRegressor(n_estimators=40, max_samples=1, random_state=0).fit(X, y)
    assert min(twin.tree_.n_node_samples[0] for twin in model.estimators_) == 1
    assert max(twin.tree_.n_node_samples[0] for twin in model.estimators_) < 8


def test_rows_without_weight_are_refused():
    """Each class has a weight of 0, one by its rows and one by ``class_weight``."""
    X, y, _ = rows(200)
    y = (y > 0).astype(int)
    for kind in (RandomForestClassifier, DecisionTreeClassifier):
        with pytest.raises(ValueError, match="No row has a weight above 0"):
            kind(class_weight={0: 0.0}).fit(X, y, sample_weight=1.0 - y)


def test_pruning_path_is_scikit_learns():
    X, y, _ = rows(800)
    params = {"min_samples_leaf": 8}
    ours = DecisionTreeRegressor(**params).cost_complexity_pruning_path(X, y)
    theirs = sk_tree.DecisionTreeRegressor(random_state=0, **params).cost_complexity_pruning_path(X, y)
    np.testing.assert_allclose(ours.ccp_alphas, theirs.ccp_alphas, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(ours.impurities, theirs.impurities, rtol=1e-7)


def test_words_and_pictures():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = DecisionTreeClassifier(max_depth=2).fit(X, y)
    text = dt.export_text(model, feature_names=list(X.columns))
    assert text.count("class: ") == model.get_n_leaves() and X.columns[model.tree_.feature[0]] in text
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    assert len(dt.plot_tree(model)) >= model.tree_.node_count


def test_one_thread_grows_what_many_do():
    X, y, _ = rows()
    few, many = (RandomForestRegressor(n_estimators=5, n_jobs=n).fit(X, y).predict(X) for n in (1, -1))
    np.testing.assert_array_equal(few, many)
    with pytest.raises(ValueError, match="n_jobs == 0"):
        RandomForestRegressor(n_jobs=0).fit(X, y)


def test_more_values_than_bins():
    """Of features with more values than bins splits are at edges of quantiles, and as good but for that."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1.7, 1.7, size=(20_000, 5))
    y = np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=20_000)
    for ours, theirs in (
        (DecisionTreeRegressor(max_depth=8), sk_tree.DecisionTreeRegressor(max_depth=8)),
        (ExtraTreesRegressor(20, random_state=0), sk_ensemble.ExtraTreesRegressor(20, random_state=0)),
        (RandomForestRegressor(20, random_state=0), sk_ensemble.RandomForestRegressor(20, random_state=0)),
    ):
        scores = [model.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) for model in (ours, theirs)]
        assert scores[0] > scores[1] - 0.01
        assert abs(ours.to_sklearn().predict(X) - ours.predict(X)).max() < 1e-12


def test_drawn_thresholds_in_long_tails():
    """What the notes of extra trees say: on normal features a tail is one bin, and a threshold seldom drawn in it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 5))
    y = np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=20_000)
    scores = [
        kind(20, random_state=0).fit(X[::2], y[::2]).score(X[1::2], y[1::2])
        for kind in (sk_ensemble.ExtraTreesRegressor, ExtraTreesRegressor)
    ]
    assert scores == pytest.approx([0.864, 0.833], abs=0.005)


def test_sparse_rows_are_dense_rows():
    X, y, _ = rows()
    X = np.where(np.abs(X) < 5, 0.0, X)
    dense, sparse = (RandomForestRegressor(n_estimators=3).fit(rows, y) for rows in (X, sp.csr_matrix(X)))
    np.testing.assert_array_equal(dense.predict(X), sparse.predict(sp.csr_matrix(X)))


@pytest.mark.parametrize("kind", [RandomForestRegressor, DecisionTreeRegressor])
def test_what_is_refused(kind):
    X, y, _ = rows(200)
    bad = X.copy()
    bad[7, 2] = np.inf
    with pytest.raises(ValueError, match="infinity or a value too large"):
        kind().fit(bad, y)
    model = kind().fit(X, y)
    with pytest.raises(ValueError, match="infinity or a value too large"):
        model.predict(bad)
    with pytest.raises(ValueError, match="1d array"):
        kind().fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="Poisson"):
        kind(criterion="poisson").fit(X, y - 100)
    with pytest.raises(ValueError, match="monotonic_cst has shape"):
        kind(monotonic_cst=[1]).fit(X, y)
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        kind(monotonic_cst=[2] * X.shape[1]).fit(X, y)
    with config_context(runtime="tasks"), pytest.raises(ValueError, match="runtime='tasks'"):
        kind().fit(X, y)
    with pytest.raises(ValueError, match="encode|categor|numbers"):
        kind().fit(pd.DataFrame({"a": ["x", "y"] * 100}), y)


# The same trees, whoever grows them ---------------------------------------------------------------------------------

CASES = {
    "classifier": (
        RandomForestClassifier, {"oob_score": True, "class_weight": "balanced"}, lambda y: np.digitize(y, [-0.5, 1]),
        True,
    ),
    "regressor": (RandomForestRegressor, {"oob_score": True, "max_features": 0.5}, lambda y: y, False),
    "extra": (ExtraTreesRegressor, {"max_leaf_nodes": 30}, lambda y: y, True),
    "tree": (dt.ExtraTreeClassifier, {"n_estimators": None}, lambda y: y > 0, True),
}


def bits(model):
    parts = [part for tree in model._model.trees for part in tree]
    parts += [getattr(model, name, 0.0) for name in ("oob_score_", "oob_decision_function_", "oob_prediction_")]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.fixture(params=CASES)
def case(request):
    """A function that fits, with how X, y and weights are given, and the bits of the fit in memory."""
    kind, params, targets, is_weighted = CASES[request.param]
    X, y, weight = rows(9000, missing=0.05)
    arrays = (X, targets(y), weight if is_weighted else None)
    params = {"n_estimators": 20, "max_depth": 6, **params}
    params = {name: value for name, value in params.items() if value is not None}

    def fit(given=lambda part: part, how=lambda model, *data: model.fit(*data)):
        return bits(how(kind(random_state=0, **params), *(None if part is None else given(part) for part in arrays)))

    return fit, fit()


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads(tmp_path):
    """Machine code that was just made and the same from the cache give the same bits."""
    code = """
import hashlib
import numpy as np
from daskdml.ensemble import RandomForestClassifier, RandomForestRegressor
rng = np.random.default_rng(0)
X = rng.normal(size=(5000, 6))
raw = X[:, 0] * X[:, 1] + rng.logistic(size=5000)
for model, y in ((RandomForestClassifier(3), raw > 0), (RandomForestRegressor(3), raw)):
    trees = model.fit(X, y)._model.trees
    print(hashlib.sha256(b"".join(part.tobytes() for tree in trees for part in tree)).hexdigest())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert found[0] == found[1] != ""


def there(cluster):
    return lambda model, X, y, weight: cluster.fit(model, X, y, sample_weight=weight)


def test_threads(case):
    fit, expected = case
    for n in (1, 3):
        with config_context(n_threads=n):
            assert fit() == expected


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
def test_chunks(case, memory):
    fit, expected = case
    for chunks in ((9000,), (1, 8999), (4000, 0, 3000, 2000), (450,) * 20):
        with config_context(memory=memory):
            assert fit(lambda part, c=chunks: da.from_array(part, chunks=(c, -1)[: part.ndim])) == expected


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_workers(case, n_workers):
    fit, expected = case
    cluster = SimulatedCluster(n_workers, rows_per_block=1024)
    assert fit(how=there(cluster)) == expected
    assert cluster.report.generations == 1


def test_deaths(case):
    """Before trees are grown, and between them: at shares of a run in which nobody dies."""
    fit, expected = case
    cluster = SimulatedCluster(4, rows_per_block=1024, seconds_per_row=1e-6)
    assert fit(how=there(cluster)) == expected
    whole, generations = cluster.report.seconds, []
    for share in (0.2, 0.6, 0.9):
        cluster = SimulatedCluster(4, rows_per_block=1024, seconds_per_row=1e-6, kills=[(share * whole, 1)])
        assert fit(how=there(cluster)) == expected
        generations.append(cluster.report.generations)
    assert max(generations) == 2
