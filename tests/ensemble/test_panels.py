"""Boosting of Dask arrays whose columns lie in panels: nothing is rechunked, and trees are those of whole rows."""

import dask.array as da
import pytest

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingRegressor

from .boosted import same_models, table

N, P = 3000, 9
WIDTHS = {"two": (4, 5), "of one column": (1,) * 9, "three": (2, 6, 1)}


@pytest.fixture
def whole(monkeypatch):
    """Fail where an array is rechunked."""
    monkeypatch.setattr(da.Array, "rechunk", lambda *args, **kwargs: pytest.fail("rechunked"))


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_in_process(widths, memory, whole):
    X, y = table(N, P)
    expected = HistGradientBoostingRegressor(max_iter=4).fit(X, y)
    lazy = da.from_array(X, chunks=((1000, 1, 1999), widths))
    with config_context(memory=memory):
        same_models(HistGradientBoostingRegressor(max_iter=4).fit(lazy, y), expected)
