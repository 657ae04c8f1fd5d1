"""Single decision trees, with scikit-learn's names."""

from daskdml.tree._tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
    export_text,
    plot_tree,
)  # fmt: skip

__all__ = [
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor", "export_text",
    "plot_tree",
]  # fmt: skip
