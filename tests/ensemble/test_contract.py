"""The boosted trees keep the contract of estimators."""

import numpy as np
import pytest

from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.testing import ClassifierContract, RegressorContract

WRONG = (
    ("learning_rate", 0), ("max_iter", 0), ("max_leaf_nodes", 1), ("max_depth", 0), ("min_samples_leaf", 0),
    ("l2_regularization", -1.0), ("max_features", 0.0), ("max_features", 1.5), ("max_bins", 256), ("max_bins", 1),
    ("interaction_cst", "all"), ("warm_start", 2), ("early_stopping", "yes"), ("validation_fraction", 1.5),
    ("n_iter_no_change", 0), ("tol", -1.0), ("verbose", -1), ("random_state", "no"), ("subsample", 0.0),
    ("rounding", "up"), ("loss", "hinge"), ("scoring", 3),
)  # fmt: skip


class OfTrees:
    """What differs from linear models: no coefficients, missing values are taken, order is told by rounding."""

    takes_missing = True
    takes_categories = True
    wrong_parameters = WRONG
    most_pickled = 80_000  # 254 thresholds a feature, 31 leaves a tree
    # To the nearest integer: a row's number decides nothing then, so that rows may be repeated and shuffled.
    defaults = {"max_iter": 4, "min_samples_leaf": 4, "rounding": "nearest", "early_stopping": False, "random_state": 0}

    def fitted(self, model):
        trees = [tree for iteration in model._model.trees for tree in iteration]
        parts = [np.concatenate([tree.feature, tree.threshold, tree.value]) for tree in trees]
        return np.nan_to_num(np.concatenate([model._model.baseline, *parts]), posinf=1e9)

    def narrowed(self, model):
        return self.fitted(model)


class TestClassifier(OfTrees, ClassifierContract):
    single = ("predict", "decision_function")
    configurations = ({}, {"max_depth": 2, "l2_regularization": 1.0}, {"class_weight": "balanced"})

    def make(self, **params):
        return HistGradientBoostingClassifier(**{**self.defaults, **params})


class TestThreeClasses(OfTrees, ClassifierContract):
    n_classes = 3
    single = ("predict",)
    several = ("decision_function", "predict_proba", "predict_log_proba")
    test_scikit_learns_checks = None  # the same estimator as above

    def make(self, **params):
        return HistGradientBoostingClassifier(**{**self.defaults, "max_iter": 2, **params})


class TestRegressor(OfTrees, RegressorContract):
    multi_output = False
    configurations = ({}, {"loss": "absolute_error", "max_iter": 40})

    def make(self, **params):
        return HistGradientBoostingRegressor(**{**self.defaults, **params})


class TestAbsoluteError(OfTrees, RegressorContract):
    multi_output = False
    test_scikit_learns_checks = None

    def make(self, **params):
        return HistGradientBoostingRegressor(**{**self.defaults, "loss": "absolute_error", **params})


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_parameters_are_scikit_learns(kind):
    from sklearn import ensemble

    ours, theirs = kind().get_params(), getattr(ensemble, kind.__name__)().get_params()
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == {"subsample", "rounding"}


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_attributes_are_scikit_learns(kind):
    import pandas as pd
    from sklearn import ensemble

    X = pd.DataFrame({"a": np.arange(60.0), "b": pd.Categorical(np.arange(60) % 3)})
    parts = [one(max_iter=2, early_stopping=True).fit(X, np.arange(60) % 2) for one in (
        kind, getattr(ensemble, kind.__name__)
    )]  # fmt: skip
    ours, theirs = ({name for name in dir(one) if name.endswith("_") and name[0] != "_"} for one in parts)
    assert theirs <= ours
    for name in ("is_categorical_", "do_early_stopping_", "n_iter_", "n_trees_per_iteration_", "n_features_in_"):
        np.testing.assert_array_equal(*(getattr(one, name) for one in parts))
    assert len(parts[0].train_score_) == len(parts[1].train_score_)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_scikit_learns_checks_of_defaults(kind):
    from sklearn.utils.estimator_checks import check_estimator

    check_estimator(kind())
