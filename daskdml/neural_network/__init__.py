"""Networks, at scikit-learn's module path."""

from daskdml.neural_network._mlp import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
