"""Constraints on trees: in which sense predictions follow a feature, and which features may stand together."""

import numbers

import numpy as np


def monotonic_senses(given, features):
    """Return the sense of each feature's constraint, or None for none.

    Parameters
    ----------
    given : array_like of int, dict or None
        The parameter ``monotonic_cst``.
    features : namespace
        With ``n_features_in_`` and perhaps ``feature_names_in_``.

    Returns
    -------
    ndarray of int64, shape (p,), or None

    Raises
    ------
    ValueError
        In scikit-learn's words.
    """
    p = features.n_features_in_
    if given is None:
        return None
    if isinstance(given, dict):
        names = getattr(features, "feature_names_in_", None)
        if names is None:
            raise ValueError(
                "monotonic_cst names features, but X has no feature names; pass an array with an int for each feature."
            )
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"monotonic_cst contains {len(unknown)} unexpected feature names: {unknown[:5]}.")
        given = [given.get(name, 0) for name in names]
    senses = np.asarray(given)
    if senses.shape != (p,):
        raise ValueError(f"monotonic_cst has shape {senses.shape} but the input data X has {p} features.")
    if not np.isin(senses, (-1, 0, 1)).all():
        raise ValueError(f"monotonic_cst must be an array-like of -1, 0 or 1. Observed values: {np.unique(senses)}.")
    return senses.astype(np.int64) if senses.any() else None


def interaction_groups(given, p):
    """Return groups of features that may stand together on the way to a leaf, or None for any.

    Parameters
    ----------
    given : {"pairwise", "no_interactions"}, sequence of sequences of int, or None
        The parameter ``interaction_cst``.
    p : int
        Number of features. Those that no group has are one of their own.

    Returns
    -------
    tuple of tuple of int, or None

    Raises
    ------
    ValueError
        In scikit-learn's words.
    """
    if given is None:
        return None
    if isinstance(given, str):
        groups = [(i,) for i in range(p)]
        if given == "pairwise":
            groups = [(i, j) for i in range(p) for j in range(i + 1, p)] or groups
    else:
        try:
            groups = [tuple(sorted(set(group))) for group in given]
        except TypeError:
            text = f"Interaction constraints must be a sequence of tuples or lists, got: {given!r}."
            raise ValueError(text) from None
        for group in groups:
            if not all(isinstance(i, numbers.Integral) and 0 <= i < p for i in group):
                raise ValueError(
                    f"Interaction constraints must consist of integer indices in [0, n_features - 1] = [0, {p - 1}], "
                    f"specifying the position of features, got invalid indices: {group!r}"
                )
    rest = tuple(sorted(set(range(p)) - {i for group in groups for i in group}))
    return (*groups, rest) if rest else tuple(groups)
