"""Exact medians against NumPy's, with room for many keys and for few."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from daskdml.data import median
from daskdml.data.median import column_medians, ordered_keys, ordered_values


class Blocks:
    """What `column_medians` needs of a run; counts passes."""

    def __init__(self, X, rows):
        self.n_features, self.passes = X.shape[1], 0
        self.blocks = [
            SimpleNamespace(X=X[start : start + rows], index=k, start=start)
            for k, start in enumerate(range(0, X.shape[0], rows))
        ]

    def map_reduce(self, fn, combine):
        self.passes += 1
        return functools.reduce(combine, map(fn, self.blocks))


def columns(n, dtype):
    rng = np.random.default_rng(n)
    return np.c_[
        rng.normal(size=n),
        rng.integers(0, 2, n),
        np.zeros(n),
        -rng.lognormal(size=n) * 1e10,
        rng.integers(-3, 3, n),
        np.full(n, np.nan),
        rng.normal(size=n) * 1e-310,
        np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        rng.choice([-0.0, 0.0], n),
        np.full(n, np.finfo(dtype).max),
    ].astype(dtype)


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("room", [2**20, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 1001])
def test_is_numpys(monkeypatch, n, dtype, room):
    monkeypatch.setattr(median, "FETCHED_KEYS", room)
    X = columns(n, dtype)
    found, counts = column_medians(Blocks(X, 300), dtype)
    expected = np.nanmedian(X[:, :-1].astype(np.float64), axis=0)
    np.testing.assert_array_equal(found[:-1], expected)
    # Half the sum of the two largest floats: NumPy overflows.
    assert found[-1] == np.finfo(dtype).max
    np.testing.assert_array_equal(counts, (~np.isnan(X)).sum(axis=0))


@pytest.mark.parametrize("room", [2**20, 8])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_values_that_are_not_stored_are_zeros(monkeypatch, density, room):
    monkeypatch.setattr(median, "FETCHED_KEYS", room)
    X = sparse.random(501, 6, density=density, format="csr", random_state=0)
    X.data -= 0.3
    found, counts = column_medians(Blocks(X, 100), np.float64)
    np.testing.assert_array_equal(found, np.median(X.toarray(), axis=0))
    assert (counts == 501).all()


def test_passes_and_memory_are_as_promised(monkeypatch):
    X = np.random.default_rng(0).normal(size=(50_000, 4))
    run = Blocks(X, 5000)
    column_medians(run, np.float64)
    assert run.passes <= 4
    monkeypatch.setattr(median, "FETCHED_KEYS", 100)
    sizes = []
    run = Blocks(X, 5000)
    reduce = run.map_reduce

    def measured(fn, combine):
        result = reduce(fn, combine)
        sizes.append(sum(map(len, result.keys)) if hasattr(result, "keys") else result.counts.size)
        return result

    run.map_reduce = measured
    column_medians(run, np.float64)
    assert sizes[-1] <= 100 and max(sizes) <= median.HISTOGRAM_BINS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_have_the_order_of_the_floats(dtype):
    info = np.finfo(dtype)
    values = np.array(
        [-info.max, -1, -info.tiny, -info.smallest_subnormal, 0, info.smallest_subnormal, 1, info.max], dtype
    )
    keys = ordered_keys(values)
    assert (np.diff(keys.astype(object)) > 0).all()
    np.testing.assert_array_equal(ordered_values(keys, 8 * info.dtype.itemsize), values.astype(np.float64))
    assert ordered_keys(np.array([-0.0], dtype)) == ordered_keys(np.array([0.0], dtype))
