"""Names and number of features: recorded at fit, checked afterwards, in scikit-learn's own words.

The texts are scikit-learn's, written out here because its checks collect Dask input.
"""

import warnings

import numpy as np

from daskdml.data.kinds import as_table, is_frame
from daskdml.data.matrix import COMPLEX, check_two_dimensional


def feature_names(X):
    """Return the column names of a table when all of them are strings.

    Parameters
    ----------
    X : any input

    Returns
    -------
    ndarray of object, shape (n_features,), or None
        None for arrays, and for tables whose names are not strings.

    Raises
    ------
    TypeError
        When only some of the names are strings.

    Examples
    --------
    >>> import pandas as pd
    >>> feature_names(pd.DataFrame({"a": [1], "b": [2]}))
    array(['a', 'b'], dtype=object)
    """
    if not is_frame(X):
        return None
    # pyarrow calls its list of names column_names; its `columns` are data.
    columns = list(X.column_names if hasattr(X, "column_names") else X.columns)
    kinds = sorted({type(name).__qualname__ for name in columns})
    if kinds == ["str"]:
        names = np.empty(len(columns), dtype=object)
        names[:] = columns
        return names
    if "str" in kinds:
        raise TypeError(
            "Feature names are only supported if all input features have string names, "
            f"but your input has {kinds} as feature name / column name types. "
            "If you want feature names to be stored and validated, you must convert "
            "them all to strings, by using X.columns = X.columns.astype(str) for "
            "example. Otherwise you can remove feature / column names from your input "
            "data, or convert them all to a non-string data type."
        )
    return None


def check_features(estimator, X, *, reset):
    """Record the features of X on an estimator, or compare X with what was recorded.

    Sets ``n_features_in_`` and, when X has string column names, ``feature_names_in_``; or raises as scikit-learn does.
    Reads no rows.

    Parameters
    ----------
    estimator : estimator
    X : any input, shape (n, p)
    reset : bool
        True records (in ``fit``); False checks (in ``predict`` and ``transform``).

    Raises
    ------
    ValueError
        When X is not two-dimensional, is empty, or has other features than those recorded.
    """
    names = feature_names(X)
    if not reset:
        _compare_names(estimator, names)
    X = as_table(X)
    if getattr(getattr(X, "dtype", None), "kind", None) == "c":
        raise ValueError(COMPLEX)
    check_two_dimensional(X)
    check_not_empty(*X.shape)
    n_features = int(X.shape[1])
    if reset:
        estimator.n_features_in_ = n_features
        if names is not None:
            estimator.feature_names_in_ = names
        elif hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif n_features != getattr(estimator, "n_features_in_", n_features):
        raise ValueError(
            f"X has {n_features} features, but {type(estimator).__name__} "
            f"is expecting {estimator.n_features_in_} features as input."
        )


def check_not_empty(n_samples, n_features):
    """Raise scikit-learn's sentence for input without rows or without columns.

    Parameters
    ----------
    n_samples : int, NaN or a lazy number
        Anything but an int is not known yet, and passes.
    n_features : int
    """
    known = isinstance(n_samples, (int, np.integer))
    shape = f"({int(n_samples) if known else 'nan'}, {n_features})"
    if known and n_samples == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={shape}) while a minimum of 1 is required.")
    if n_features == 0:
        raise ValueError(f"Found array with 0 feature(s) (shape={shape}) while a minimum of 1 is required.")


def _compare_names(estimator, names):
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is None and names is None:
        return
    label = type(estimator).__name__
    if fitted is None:
        warnings.warn(f"X has feature names, but {label} was fitted without feature names", stacklevel=3)
    elif names is None:
        warnings.warn(f"X does not have valid feature names, but {label} was fitted with feature names", stacklevel=3)
    elif not np.array_equal(fitted, names):
        raise ValueError(_names_differ(fitted, names))


def _names_differ(fitted, names):
    message = "The feature names should match those that were passed during fit.\n"
    unexpected, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    if unexpected:
        message += "Feature names unseen at fit time:\n" + _listed(unexpected)
    if missing:
        message += "Feature names seen at fit time, yet now missing:\n" + _listed(missing)
    if not unexpected and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    return message


def _listed(names, most=5):
    return "".join(f"- {name}\n" for name in names[:most]) + ("- ...\n" if len(names) > most else "")
