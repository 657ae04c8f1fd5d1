"""Parameters of decision trees and forests: what they may be, and what trees are grown by for so many rows."""

import math
import numbers

import numpy as np

from daskdml.trees import Recipe
from daskdml.utils.params import Interval, Options

_REAL, _INT = numbers.Real, numbers.Integral
CONSTRAINTS = {
    "n_estimators": [Interval(_INT, 1, None)],
    "splitter": [Options({"best", "random"})],
    "max_depth": [Interval(_INT, 1, None), None],
    "min_samples_split": [Interval(_INT, 2, None), Interval(float, 0, 1, "right")],
    "min_samples_leaf": [Interval(_INT, 1, None), Interval(float, 0, 1, "neither")],
    "min_weight_fraction_leaf": [Interval(_REAL, 0, 0.5)],
    "max_features": [Interval(_INT, 1, None), Interval(float, 0, 1, "right"), Options({"sqrt", "log2"}), None],
    "max_leaf_nodes": [Interval(_INT, 2, None), None],
    "min_impurity_decrease": [Interval(_REAL, 0, None)],
    "bootstrap": ["boolean"],
    "oob_score": ["boolean", callable],
    "n_jobs": [_INT, None],
    "random_state": ["random_state"],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "warm_start": ["boolean"],
    "ccp_alpha": [Interval(_REAL, 0, None)],
    "max_samples": [None, Interval(_INT, 1, None), Interval(float, 0, 1, "right")],
    "monotonic_cst": ["array-like", None],
    "max_bins": [Interval(_INT, 2, 255)],
}


def recipe_of(model, n, p, n_classes, by_class=None, is_balanced=False):
    """Return how the trees of an estimator are grown.

    Parameters
    ----------
    model : estimator
    n, p : int
        Rows and features; shares among the parameters are of these.
    n_classes : int
        0 for numbers.
    by_class : ndarray of shape (n_classes,), or None
        Weights.
    is_balanced : bool, default False
        Whether classes weigh the same in each tree.

    Returns
    -------
    Recipe
    """
    draws = None
    if getattr(model, "bootstrap", False):
        most = model.max_samples
        if isinstance(most, _INT) and most > n:
            raise ValueError(f"`max_samples` must be <= n_samples={n} but got value {most}")
        draws = 1.0 if most is None else most / n if isinstance(most, _INT) else float(most)
    elif getattr(model, "max_samples", None) is not None:
        raise ValueError(
            "`max_sample` cannot be set if `bootstrap=False`. Either switch to `bootstrap=True` or set "
            "`max_sample=None`."
        )
    if getattr(model, "oob_score", False) and draws is None:
        raise ValueError("Out of bag estimation only available if bootstrap=True.")
    return Recipe(
        model.criterion, n_classes, features_tried(model.max_features, p), model.max_depth, model.max_leaf_nodes,
        max(2, rows_of_share(model.min_samples_split, n)), rows_of_share(model.min_samples_leaf, n),
        float(model.min_weight_fraction_leaf), float(model.min_impurity_decrease), float(model.ccp_alpha),
        model._is_random or getattr(model, "splitter", "best") == "random", _senses(model.monotonic_cst, p, n_classes),
        draws, is_balanced, by_class,
    )  # fmt: skip


def features_tried(given, p):
    """Return how many features a node tries, by scikit-learn's rules."""
    if given is None:
        return p
    if isinstance(given, str):
        return max(1, int(math.sqrt(p) if given == "sqrt" else math.log2(p)))
    if isinstance(given, _INT):
        return min(int(given), p)
    return max(1, int(given * p))


def rows_of_share(given, n):
    return int(given) if isinstance(given, _INT) else math.ceil(given * n)


def threads_of(n_jobs):
    """Return the threads of each process at most, None for all of them; negative numbers leave some out."""
    if n_jobs is None or n_jobs == -1:
        return None
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 has no meaning; give a number of threads, -1 for all, or None.")
    from daskdml.runtime.threads import n_cores

    return n_jobs if n_jobs > 0 else max(n_cores() + 1 + n_jobs, 1)


def _senses(given, p, n_classes):
    """Return the sense of each feature's constraint, or None for none."""
    if given is None:
        return None
    senses = np.asarray(given)
    if n_classes > 2:
        raise ValueError("Monotonicity constraints are not supported with multiclass classification")
    if senses.shape != (p,):
        raise ValueError(f"monotonic_cst has shape {senses.shape} but the input data X has {p} features.")
    if not np.isin(senses, (-1, 0, 1)).all():
        raise ValueError(f"monotonic_cst must be None or an array-like of -1, 0 or 1, but got {np.unique(senses)}")
    return senses.astype(np.int64) if senses.any() else None
