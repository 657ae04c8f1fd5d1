"""Linear models at scikit-learn's module path."""

from daskdml.linear_model._least_squares import LinearRegression, Ridge
from daskdml.linear_model._logistic import LogisticRegression
from daskdml.linear_model._sgd import SGDClassifier, SGDRegressor

__all__ = ["LinearRegression", "LogisticRegression", "Ridge", "SGDClassifier", "SGDRegressor"]
