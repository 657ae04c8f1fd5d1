"""check_features against scikit-learn's validate_data, sentence by sentence."""

import warnings

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from daskdml.data import check_features

X = np.arange(12.0).reshape(4, 3)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


class Plain(BaseEstimator):
    pass


def outcome(check, fitted, given):
    """Return (attributes, message, warnings) of fitting on one table and checking another."""
    estimator = Plain()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check(estimator, fitted, reset=True)
            check(estimator, given, reset=False)
            message = None
        except (ValueError, TypeError) as error:
            message = f"{type(error).__name__}: {error}"
    state = {name: np.asarray(value).tolist() for name, value in vars(estimator).items()}
    return state, message, [str(one.message) for one in caught]


def reference(estimator, X, *, reset):
    validate_data(estimator, X, reset=reset, accept_sparse=True, ensure_all_finite=False, ensure_min_samples=1)


PAIRS = {
    "same": (FRAME, FRAME),
    "arrays": (X, X),
    "lists": (X.tolist(), X.tolist()),
    "sparse": (sp.csr_matrix(X), X),
    "polars": (pl.from_pandas(FRAME), FRAME),
    "names gone": (FRAME, X),
    "names new": (X, FRAME),
    "renamed": (FRAME, FRAME.rename(columns={"a": "z"})),
    "many renamed": (
        pd.DataFrame(np.ones((2, 8)), columns=list("abcdefgh")),
        pd.DataFrame(np.ones((2, 8)), columns=list("ijklmnop")),
    ),
    "reordered": (FRAME, FRAME[["b", "a", "c"]]),
    "column missing": (FRAME, FRAME[["a", "b"]]),
    "column extra": (FRAME, FRAME.assign(d=1.0)),
    "too few": (X, X[:, :2]),
    "number names": (pd.DataFrame(X), X),
    "mixed names": (pd.DataFrame(X, columns=["a", 1, 2]), X),
    "1d": (X, X[0]),
    "no rows": (X[:0], X),
    "no rows later": (X, X[:0]),
    "no columns": (X[:, :0], X),
    "complex": (X + 1j, X),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_like_scikit_learn(pair):
    # Older scikit-learn does not see the names of a polars table.
    known = [FRAME if isinstance(table, pl.DataFrame) else table for table in pair]
    ours, theirs = outcome(check_features, *pair), outcome(reference, *known)
    assert ours[2] == theirs[2]
    if theirs[1] is None:
        assert ours[:2] == theirs[:2]
    else:
        # scikit-learn adds its `context` and whole arrays here and there: compare what its own checks look for.
        start = theirs[1].split("\n")[0].rstrip(".").split(" while ")[0]
        assert ours[1].startswith(start)
        assert ("feature_names_in_" in ours[0]) == ("feature_names_in_" in theirs[0]) or pair[0].shape[1] == 0


def test_message_texts():
    estimator = Plain()
    check_features(estimator, X[:, :2], reset=True)
    with pytest.raises(ValueError, match="X has 3 features, but Plain is expecting 2 features as input."):
        check_features(estimator, X, reset=False)
    with pytest.raises(ValueError, match=r"0 feature\(s\) \(shape=\(4, 0\)\) while a minimum of 1 is required."):
        check_features(estimator, X[:, :0], reset=True)
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1"):
        check_features(estimator, X[:0], reset=True)
    assert vars(estimator) == {"n_features_in_": 2}


def test_reset_forgets_names():
    estimator = Plain()
    check_features(estimator, FRAME, reset=True)
    check_features(estimator, X, reset=True)
    assert vars(estimator) == {"n_features_in_": 3}


def raising(*args):
    raise AssertionError("computed")


def test_dask_is_not_computed():
    array = da.from_array(X, chunks=(2, 2)).map_blocks(raising, dtype=float, meta=np.empty((0, 0)))
    frame = dd.from_pandas(FRAME, npartitions=2).map_partitions(raising, meta=FRAME.iloc[:0])
    estimator = Plain()
    check_features(estimator, frame, reset=True)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c"] and estimator.n_features_in_ == 3
    check_features(estimator, frame, reset=False)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but Plain was fitted with"):
        check_features(estimator, array, reset=False)
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        check_features(estimator, frame[["b", "a", "c"]], reset=False)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        check_features(estimator, array[:, 0], reset=True)
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\)"):
        check_features(estimator, da.ones((0, 3)), reset=True)
    check_features(estimator, array[array[:, 0] > 0], reset=True)  # unknown number of rows
    assert vars(estimator) == {"n_features_in_": 3}
