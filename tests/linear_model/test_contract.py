"""The linear models keep the contract of estimators."""

from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge
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
