"""Forests and trees keep the contract of estimators."""

import numpy as np
import pytest

from daskdml import ensemble, tree
from daskdml.testing import ClassifierContract, RegressorContract

WRONG = (
    ("max_depth", 0), ("min_samples_split", 1), ("min_samples_split", 1.5), ("min_samples_leaf", 0),
    ("min_samples_leaf", 1.0), ("min_weight_fraction_leaf", 0.6), ("max_features", 0), ("max_features", "all"),
    ("max_leaf_nodes", 1), ("min_impurity_decrease", -1.0), ("random_state", "no"), ("ccp_alpha", -1.0),
    ("max_bins", 256), ("max_bins", 1), ("criterion", "absolute_error"),
)  # fmt: skip
WRONG_FORESTS = (
    ("n_estimators", 0), ("bootstrap", 2), ("oob_score", 2), ("n_jobs", 1.5), ("verbose", -1), ("warm_start", 2),
    ("max_samples", 0),
)  # fmt: skip
KINDS = {
    name: getattr(room, name)
    for room, names in (
        (ensemble, ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")),
        (tree, ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")),
    )
    for name in names
}


class OfTrees:
    """What differs from linear models: no coefficients, missing values are taken, rows are known by their numbers."""

    takes_missing = True
    takes_one_class = True
    is_certain = True
    tight = {}
    wrong_parameters = WRONG
    most_pickled = 500_000  # a leaf for each of 2,000 rows; of a node 63 bytes
    defaults = {"random_state": 0, "max_features": None}

    def make(self, **params):
        return self.kind(**{**self.defaults, **params})

    def fitted(self, model):
        parts = [np.concatenate([t.feature, t.threshold, t.value.ravel()]) for t in model._model.trees]
        return np.nan_to_num(np.concatenate(parts), posinf=1e9)

    def narrowed(self, model):
        return self.fitted(model)


class OfForests(OfTrees):
    wrong_parameters = WRONG + WRONG_FORESTS
    # Each row once: a row's number decides nothing then, so that rows may be repeated and shuffled.
    defaults = {"random_state": 0, "n_estimators": 3, "max_features": None, "bootstrap": False, "max_depth": 4}


class TestTreeClassifier(OfTrees, ClassifierContract):
    kind = KINDS["DecisionTreeClassifier"]
    single = ("predict",)
    several = ("predict_proba",)
    test_scikit_learns_checks = None  # below, of all classes
    configurations = ({}, {"max_depth": 3, "criterion": "entropy"}, {"max_leaf_nodes": 6, "class_weight": "balanced"})


class TestTreeOfThreeClasses(TestTreeClassifier):
    n_classes = 3
    test_scikit_learns_checks = None  # the same estimator as above


class TestForestClassifier(OfForests, ClassifierContract):
    kind = KINDS["RandomForestClassifier"]
    single = ("predict",)
    several = ("predict_proba", "predict_log_proba")
    configurations = ({}, {"max_depth": 3}, {"class_weight": "balanced"})


class TestForestOfThreeClasses(TestForestClassifier):
    n_classes = 3
    test_scikit_learns_checks = None


class TestTreeRegressor(OfTrees, RegressorContract):
    kind = KINDS["DecisionTreeRegressor"]
    multi_output = False
    configurations = ({"max_depth": 5}, {"max_leaf_nodes": 12})


class TestForestRegressor(OfForests, RegressorContract):
    kind = KINDS["RandomForestRegressor"]
    multi_output = False
    configurations = ({}, {"max_leaf_nodes": 12})


class TestExtraTreesClassifier(OfForests, ClassifierContract):
    kind = KINDS["ExtraTreesClassifier"]
    single = ("predict",)
    several = ("predict_proba", "predict_log_proba")
    test_scikit_learns_checks = None
    configurations = ({}, {"max_depth": 3}, {"class_weight": "balanced"})


class TestExtraTreesRegressor(OfForests, RegressorContract):
    kind = KINDS["ExtraTreesRegressor"]
    multi_output = False
    test_scikit_learns_checks = None
    configurations = ({}, {"max_leaf_nodes": 12})


@pytest.mark.parametrize("name", KINDS)
def test_parameters_are_scikit_learns(name):
    from sklearn import ensemble, tree

    ours = KINDS[name]().get_params()
    theirs = getattr(ensemble if hasattr(ensemble, name) else tree, name)().get_params()
    assert {key: ours[key] for key in theirs} == theirs
    assert set(ours) - set(theirs) == {"max_bins"}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_scikit_learns_checks(name):
    from sklearn.utils.estimator_checks import check_estimator

    # As scikit-learn's own: a row that is drawn twice is not two rows that are drawn once.
    weights = {
        f"check_sample_weight_equivalence_on_{kind}_data": "rows are drawn" for kind in ("dense", "sparse")
    } if name.startswith("RandomForest") else {}
    check_estimator(KINDS[name](), expected_failed_checks=weights)


@pytest.mark.parametrize("name", KINDS)
def test_attributes_are_scikit_learns(name):
    from sklearn import ensemble, tree

    theirs = getattr(ensemble if hasattr(ensemble, name) else tree, name)()
    X, y = np.arange(60.0)[:, None], np.arange(60) % 2
    params = {"n_estimators": 20, "bootstrap": True, "oob_score": True} if hasattr(theirs, "n_estimators") else {}
    parts = [one.set_params(random_state=0, **params).fit(X, y) for one in (KINDS[name](), theirs)]
    ours, theirs = ({a for a in dir(one) if a.endswith("_") and a[0] != "_"} for one in parts)
    assert theirs <= ours
