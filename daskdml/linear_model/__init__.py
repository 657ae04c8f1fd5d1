"""Linear models at scikit-learn's module path."""

from daskdml.linear_model._logistic import LogisticRegression

__all__ = ["LogisticRegression"]
