"""Boosting of Dask arrays whose columns lie in panels: nothing is rechunked, and trees are those of whole rows."""

import dask.array as da
import numpy as np
import pytest

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingRegressor

N, P = 3000, 9
WIDTHS = {"two": (4, 5), "of one column": (1,) * 9, "three": (2, 6, 1)}


def table(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P))
    X[:, 1] = np.round(X[:, 1])
    X[:, 3] = np.round(X[:, 3], 1)
    z = X[:, 0] * X[:, 5] + X[:, 3] + (X[:, 8] > 0.5) + 0.3 * rng.normal(size=N)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X, z


def same_models(a, b):
    np.testing.assert_array_equal(a.train_score_, b.train_score_)
    np.testing.assert_array_equal(a.validation_score_, b.validation_score_)
    for ours, theirs in zip(a._model.trees, b._model.trees, strict=True):
        for tree, other in zip(ours, theirs, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(tree, other, strict=True))


@pytest.fixture
def whole(monkeypatch):
    """Fail where an array is rechunked."""
    monkeypatch.setattr(da.Array, "rechunk", lambda *args, **kwargs: pytest.fail("rechunked"))


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_in_process(widths, memory, whole):
    X, y = table()
    expected = HistGradientBoostingRegressor(max_iter=4).fit(X, y)
    lazy = da.from_array(X, chunks=((1000, 1, 1999), widths))
    with config_context(memory=memory):
        same_models(HistGradientBoostingRegressor(max_iter=4).fit(lazy, y), expected)
