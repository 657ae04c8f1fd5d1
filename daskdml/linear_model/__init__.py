"""Linear models at scikit-learn's module path."""

from daskdml.linear_model._least_squares import LinearRegression, Ridge
from daskdml.linear_model._logistic import LogisticRegression

__all__ = ["LinearRegression", "LogisticRegression", "Ridge"]
