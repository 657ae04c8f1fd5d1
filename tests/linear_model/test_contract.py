"""The linear models keep the contract of estimators."""

import pytest

from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import ClassifierContract, RegressorContract

LOGISTIC_WRONG = (
    ("C", 0), ("C", -1.0), ("C", "1"), ("C", float("nan")), ("l1_ratio", 1.5), ("tol", -1), ("max_iter", 1.5),
    ("solver", "newton"), ("fit_intercept", "yes"), ("class_weight", "even"), ("penalty", "l3"), ("random_state", "no"),
    ("warm_start", 2), ("verbose", -1), ("intercept_scaling", 0),
)  # fmt: skip


class TestLogisticRegression(ClassifierContract):
    # Without an intercept scikit-learn's own fails check_class_weight_classifiers: its data need one.
    configurations = ({}, {"C": 10.0, "l1_ratio": 0.5}, {"class_weight": "balanced"})
    starved = {"max_iter": 1, "C": 100.0}
    wrong_parameters = LOGISTIC_WRONG
    single = ("predict", "decision_function")

    def make(self, **params):
        return LogisticRegression(**params)


class TestThreeClasses(ClassifierContract):
    n_classes = 3
    starved = {"max_iter": 1, "C": 100.0}
    single = ("predict",)
    several = ("decision_function", "predict_proba", "predict_log_proba")

    def make(self, **params):
        return LogisticRegression(**params)

    test_scikit_learns_checks = None  # the same estimator as above


class TestLasso(ClassifierContract):
    """L1: the optimum has exact zeros, and another solver finds it."""

    chunk_tolerance = 1e-8
    starved = {"max_iter": 1, "C": 100.0}

    def make(self, **params):
        return LogisticRegression(**{"l1_ratio": 1.0, "C": 0.5, **params})

    test_scikit_learns_checks = None


class TestLinearRegression(RegressorContract):
    configurations = ({}, {"fit_intercept": False}, {"positive": True})
    wrong_parameters = (("fit_intercept", "yes"), ("positive", 3), ("tol", -1.0), ("n_jobs", 1.5))

    def make(self, **params):
        return LinearRegression(**params)


class TestRidge(RegressorContract):
    configurations = ({}, {"fit_intercept": False}, {"positive": True}, {"alpha": 1e-3})
    wrong_parameters = (
        ("alpha", -1.0), ("alpha", "1"), ("fit_intercept", "yes"), ("solver", "newton"), ("max_iter", 0), ("tol", -1.0),
        ("positive", 3), ("random_state", "no"),
    )  # fmt: skip

    def make(self, **params):
        return Ridge(**params)


SGD_WRONG = (
    ("loss", "l2"), ("penalty", "l3"), ("alpha", -1.0), ("l1_ratio", 2.0), ("fit_intercept", "yes"), ("max_iter", 0),
    ("tol", -1.0), ("shuffle", "columns"), ("epsilon", -1.0), ("random_state", "no"), ("learning_rate", "sgd"),
    ("eta0", 0.0), ("early_stopping", 2), ("validation_fraction", 1.0), ("n_iter_no_change", 0), ("warm_start", 2),
    ("average", -1), ("verbose", -1),
)  # fmt: skip
# scikit-learn's own fail them, and say so.
NO_REPETITIONS = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "sample_weight is not equivalent to removing or repeating rows: a step is taken a row",
)  # fmt: skip


class OfSteps:
    """What differs from other linear models: steps depend on the order of rows, and those of sparse rows are others."""

    test_order_of_rows_does_not_matter = None
    test_weights_are_repetitions = None
    test_class_missing_from_a_chunk = None  # sorts the rows
    test_float32_is_kept_and_as_good = None  # of many rows, of which few steps are taken
    wrong_parameters = SGD_WRONG
    starved = {"max_iter": 1, "tol": 1e-9}
    tight = {}
    # An intercept takes smaller steps with sparse rows, in scikit-learn too.
    defaults = {"tol": 0.1, "learning_rate": "constant", "eta0": 0.01, "fit_intercept": False}

    def make(self, **params):
        return self.kind(**{**self.defaults, **params})

    def expected_failures(self, params):
        return NO_REPETITIONS


class TestSGDClassifier(OfSteps, ClassifierContract):
    kind = SGDClassifier
    several = ()
    single = ("predict", "decision_function")
    test_probabilities = None
    configurations = (
        {"tol": 1e-3, "learning_rate": "optimal", "fit_intercept": True},
        {"loss": "log_loss", "tol": 1e-3, "fit_intercept": True},
    )  # fmt: skip


class TestSGDOfThreeClasses(OfSteps, ClassifierContract):
    kind = SGDClassifier
    n_classes = 3
    several = ("predict_proba", "predict_log_proba", "decision_function")
    defaults = {**OfSteps.defaults, "loss": "log_loss"}
    test_scikit_learns_checks = None
    test_class_weights_are_row_weights = None  # of a class, not of the others in its model


class TestSGDRegressor(OfSteps, RegressorContract):
    kind = SGDRegressor
    multi_output = False
    configurations = (
        {"tol": 1e-3, "learning_rate": "invscaling", "fit_intercept": True},
        {"loss": "huber", "tol": 1e-3, "fit_intercept": True},
    )  # fmt: skip


class OfBatches(OfSteps):
    """With a strategy."""

    defaults = {"tol": 0.1, "learning_rate": "constant", "eta0": 0.5, "fit_intercept": False, "batch_size": 64,
                "strategy": AllReduce()}  # fmt: skip
    wrong_parameters = (("batch_size", 0), ("batch_size", "all"), ("strategy", "all"))


@pytest.mark.slow
class TestSGDClassifierByBatches(OfBatches, ClassifierContract):
    kind = SGDClassifier
    several = ()
    single = ("predict", "decision_function")
    test_probabilities = None
    configurations = (
        {"tol": 1e-3, "learning_rate": "optimal", "fit_intercept": True, "batch_size": "auto"},
        {"tol": 1e-3, "fit_intercept": True, "loss": "log_loss", "strategy": LocalSGD(2), "batch_size": 8},
    )  # fmt: skip


@pytest.mark.slow
class TestSGDOfThreeClassesByBatches(OfBatches, TestSGDOfThreeClasses):
    defaults = {**OfBatches.defaults, "loss": "log_loss"}


@pytest.mark.slow
class TestSGDRegressorByBatches(OfBatches, RegressorContract):
    kind = SGDRegressor
    multi_output = False
    configurations = (
        {"tol": 1e-3, "learning_rate": "invscaling", "fit_intercept": True, "batch_size": "auto"},
        {"tol": 1e-3, "fit_intercept": True, "loss": "huber", "eta0": 0.1},
    )  # fmt: skip
