"""Searches: scikit-learn's answers on data in memory, one sentence on Dask collections of any kind."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection as reference

from daskdml.linear_model import LogisticRegression
from daskdml.model_selection import GridSearchCV, cross_val_score

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 3))
y = (X[:, 0] + rng.logistic(size=200) > 0).astype(int)
GRID = {"C": [0.01, 1.0]}


def test_search_in_memory_is_scikit_learns():
    ours = GridSearchCV(LogisticRegression(), GRID, cv=3).fit(X, y)
    theirs = reference.GridSearchCV(LogisticRegression(), GRID, cv=3).fit(X, y)
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])
    assert ours.best_params_ == theirs.best_params_


def test_cross_validation_in_memory_is_scikit_learns():
    for frame in (X, pd.DataFrame(X)):
        np.testing.assert_array_equal(
            cross_val_score(LogisticRegression(), frame, y, cv=4),
            reference.cross_val_score(LogisticRegression(), frame, y, cv=4),
        )


DASK = {
    "array": lambda: (da.from_array(X, chunks=(50, 3)), da.from_array(y, chunks=50)),
    "frame": lambda: (dd.from_pandas(pd.DataFrame(X), npartitions=2), y),
    "targets": lambda: (X, dd.from_pandas(pd.Series(y), npartitions=2)),
    "unknown": lambda: (dd.from_pandas(pd.DataFrame(X), npartitions=2).values, y),
}


@pytest.mark.parametrize("kind", DASK)
def test_dask_collections_get_one_sentence(kind):
    tables = DASK[kind]()
    with pytest.raises(ValueError, match="GridSearchCV takes data in memory, and got a Dask collection: draw rows"):
        GridSearchCV(LogisticRegression(), GRID).fit(*tables)
    with pytest.raises(ValueError, match="cross_val_score takes data in memory, and got a Dask collection: draw rows"):
        cross_val_score(LogisticRegression(), *tables)


def test_dask_weights_get_the_sentence_too():
    weight = da.ones(200, chunks=50)
    with pytest.raises(ValueError, match="got a Dask collection"):
        GridSearchCV(LogisticRegression(), GRID).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="got a Dask collection"):
        cross_val_score(LogisticRegression(), X, y, params={"sample_weight": weight})
