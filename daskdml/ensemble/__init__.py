"""Ensembles of trees, with scikit-learn's names."""

from daskdml.ensemble._boosting import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.ensemble._forest import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)  # fmt: skip

__all__ = [
    "ExtraTreesClassifier", "ExtraTreesRegressor", "HistGradientBoostingClassifier", "HistGradientBoostingRegressor",
    "RandomForestClassifier", "RandomForestRegressor",
]  # fmt: skip
