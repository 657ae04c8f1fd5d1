"""The two vectorised loops against matrix products, compiled and as their plain bodies."""

import numpy as np
import pytest
from numba import types

from daskdml.kernels.compile import build, f4, f8, i8, vector
from daskdml.kernels.simd import LANES, dot_rows, gather, padded, spread, sum_rows

# Each number of column vectors that has code of its own, with and without overlap, and beyond.
WIDTHS = dict.fromkeys(LANES, (8, 9, 15, 16, 17, 24, 31, 32, 39, 41, 48, 50, 56, 63, 64, 65, 72, 130))
ROWS = (1, 7, 8, 9, 16, 35)


def dot(X, start, ld, n_rows, p, w, lanes, out):
    dot_rows(X, start, ld, n_rows, p, w, lanes, out, 0)


def add(X, start, ld, n_rows, p, factor, lanes, out):
    sum_rows(X, start, ld, n_rows, p, factor, lanes, out)


def compiled(body, dtype):
    x = vector(f4 if dtype == "float32" else f8)
    factor = vector(f8) if body is add else x
    return build(body, types.void(x, i8, i8, i8, i8, factor, i8, vector(f8)))


@pytest.mark.parametrize("dtype", LANES)
@pytest.mark.parametrize("plain", [False, True], ids=["compiled", "plain"])
def test_dot_rows(dtype, plain):
    rng = np.random.default_rng(0)
    loop = dot if plain else compiled(dot, dtype)
    for p in WIDTHS[dtype]:
        for n in ROWS:
            X, w = rng.normal(size=(n, p)).astype(dtype), rng.normal(size=p)
            out = np.full(n + 1, 7.0)
            loop(_between_nans(X), 3, p, n, p, spread(w, p, dtype), LANES[dtype], out)
            expected = X.astype(float) @ w
            np.testing.assert_allclose(out[:n], expected, atol=1e-5 if dtype == "float32" else 1e-13)
            assert out[n] == 7.0, "wrote beyond its rows"


@pytest.mark.parametrize("dtype", LANES)
@pytest.mark.parametrize("plain", [False, True], ids=["compiled", "plain"])
def test_sum_rows(dtype, plain):
    rng = np.random.default_rng(1)
    loop = add if plain else compiled(add, dtype)
    for p in WIDTHS[dtype]:
        for n in ROWS:
            X, factor = rng.normal(size=(n, p)).astype(dtype), rng.normal(size=n)
            out = np.full(padded(p, dtype) + 1, 2.0)
            loop(_between_nans(X), 3, p, n, p, factor, LANES[dtype], out)
            found = gather(out[:-1], p, dtype)
            expected = 2.0 + X.astype(float).T @ factor
            np.testing.assert_allclose(found, expected, atol=1e-13)
            assert out[-1] == 2.0, "wrote beyond its columns"


@pytest.mark.parametrize("dtype", LANES)
def test_a_row_gives_the_same_bits_wherever_it_stands(dtype):
    """Rows are multiplied in groups, those left over one by one: another chunking moves them between the two."""
    loop = compiled(dot, dtype)
    for p in WIDTHS[dtype]:
        rng = np.random.default_rng(p)
        X, w = rng.normal(size=(11, p)).astype(dtype), spread(rng.normal(size=p), p, dtype)
        together, apart = np.empty(11), np.empty(11)
        loop(X.ravel(), 0, p, 11, p, w, LANES[dtype], together)
        for i in range(11):
            loop(X[i], 0, p, 1, p, w, LANES[dtype], apart[i : i + 1])
        np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("dtype", LANES)
def test_gather_undoes_spread(dtype):
    for p in WIDTHS[dtype]:
        laid = spread(np.arange(1.0, p + 1), p, dtype)
        assert laid.size == padded(p, dtype) and laid.size % LANES[dtype] == 0
        # Lanes of the last vector that repeat columns of the one before are zero: they must not count twice.
        assert laid.sum() == p * (p + 1) / 2
        np.testing.assert_array_equal(gather(laid, p, dtype), np.arange(1.0, p + 1))


def _between_nans(X):
    edge = np.full(3, np.nan, dtype=X.dtype)
    return np.concatenate([edge, X.ravel(), np.full(64, np.nan, dtype=X.dtype)])
