"""Intercepts, activations and their slopes against the formulas."""

import numpy as np
import pytest
from scipy.special import expit

from daskdml.kernels import layers
from daskdml.kernels.layers import ACTIVATIONS, activate, back_through

FORMULAS = {"identity": lambda z: z, "logistic": expit, "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}
TOLERANCE = {"float32": 5e-7, "float64": 2e-15}
SHAPES = [(1, 1), (7, 1), (1, 9), (50, 17), (256, 64)]
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape[1]).astype(dtype)


def test_the_formulas_are_those_of_all_activations():
    assert set(FORMULAS) == set(ACTIVATIONS)


@activations
@dtypes
@shapes
def test_activations_by_their_formulas(activation, dtype, shape):
    z, intercept = draw(shape, dtype)
    expected = FORMULAS[activation](z.astype(np.float64) + intercept)
    assert activate(z, intercept, activation) is None
    assert z.dtype == dtype
    # Of tanh and logistic the error of z itself shows, which is larger than that of their values near 0.
    np.testing.assert_allclose(z, expected, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@activations
def test_numbers_far_from_zero_do_not_overflow(activation):
    z = np.array([[-1e30, -800.0, -100.0, 100.0, 800.0, 1e30, -np.inf, np.inf]], np.float32)
    expected = FORMULAS[activation](z.astype(np.float64))
    with np.errstate(all="raise", under="ignore"):
        activate(z, np.zeros(8, np.float32), activation)
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-7)


@activations
@shapes
def test_slopes_are_the_central_differences_of_the_formulas(activation, shape):
    z, intercept = draw(shape, seed=1)
    z += intercept
    if activation == "relu":
        z += np.copysign(1e-3, z)  # away from the kink
    f, h = FORMULAS[activation], 1e-5
    slopes = (f(z + h) - f(z - h)) / (2 * h)
    delta = np.random.default_rng(2).normal(size=shape)
    expected, sums = delta * slopes, np.full(shape[1], np.nan)
    assert back_through(f(z), delta, activation, sums) is None
    np.testing.assert_allclose(delta, expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sums, expected.sum(axis=0), rtol=1e-8, atol=1e-8 * np.sqrt(shape[0]))


@activations
@dtypes
@shapes
def test_slopes_and_sums_of_columns_by_their_formulas(activation, dtype, shape):
    """Slopes of values: 1, a (1 - a), 1 - a^2 and whether a > 0."""
    a = FORMULAS[activation](draw(shape)[0]).astype(dtype)
    delta, sums = np.random.default_rng(2).normal(size=shape).astype(dtype), np.full(shape[1], np.nan, dtype)
    a64, kept = a.astype(np.float64), a.copy()
    slopes = {"identity": 1.0, "logistic": a64 * (1 - a64), "tanh": 1 - a64 * a64, "relu": a64 > 0}
    expected = delta * slopes[activation]
    back_through(a, delta, activation, sums)
    scale = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(delta, expected, rtol=TOLERANCE[dtype], atol=scale)
    np.testing.assert_allclose(sums, expected.sum(axis=0), rtol=0, atol=scale * shape[0])
    np.testing.assert_array_equal(a, kept)


@dtypes
def test_relu_has_no_slope_at_zero(dtype):
    a, delta, sums = np.zeros((3, 2), dtype), np.full((3, 2), 5.0, dtype), np.full(2, 9.0, dtype)
    back_through(a, delta, "relu", sums)
    assert not delta.any() and not sums.any()


@activations
@dtypes
def test_what_is_not_a_number_stays(activation, dtype):
    z, intercept = draw((20, 5), dtype)
    z[3, 2] = z[11, 4] = np.nan
    activate(z, intercept, activation)
    np.testing.assert_array_equal(np.argwhere(np.isnan(z)), [[3, 2], [11, 4]])
    delta, sums = np.ones((20, 5), dtype), np.empty(5, dtype)
    delta[3, 2] = delta[11, 4] = np.nan
    back_through(z, delta, activation, sums)
    np.testing.assert_array_equal(np.argwhere(np.isnan(delta)), [[3, 2], [11, 4]])
    np.testing.assert_array_equal(np.isnan(sums), [False, False, True, False, True])


@activations
def test_an_intercept_that_is_not_a_number_spoils_its_column(activation):
    z, intercept = draw((4, 3))
    intercept[1] = np.nan
    activate(z, intercept, activation)
    assert np.isnan(z[:, 1]).all() and np.isfinite(z[:, [0, 2]]).all()


@activations
@dtypes
def test_no_rows(activation, dtype):
    a, sums = np.empty((0, 4), dtype), np.full(4, 9.0, dtype)
    activate(a, np.ones(4, dtype), activation)
    back_through(a, np.empty((0, 4), dtype), activation, sums)
    assert not sums.any()


@activations
@dtypes
def test_intercepts_and_values_may_be_read_only(activation, dtype):
    z, intercept = draw((6, 3), dtype)
    intercept.flags.writeable = False
    activate(z, intercept, activation)
    z.flags.writeable = False
    back_through(z, np.ones((6, 3), dtype), activation, np.empty(3, dtype))


@activations
@dtypes
def test_slopes_as_plain_python_are_the_same_bits(activation, dtype):
    a = FORMULAS[activation](draw((30, 9))[0]).astype(dtype)
    a[4, 4] = np.nan
    delta = np.random.default_rng(3).normal(size=a.shape).astype(dtype)
    other, sums, other_sums = delta.copy(), np.empty(9, dtype), np.empty(9, dtype)
    back_through(a, delta, activation, sums)
    layers._slopes(a, other, ACTIVATIONS.index(activation), other_sums)
    np.testing.assert_array_equal(delta, other)
    np.testing.assert_array_equal(sums, other_sums)


@dtypes
def test_relu_as_plain_python_is_the_same_bits(dtype):
    z, intercept = draw((30, 9), dtype)
    z[4, 4] = np.nan
    other = z.copy()
    activate(z, intercept, "relu")
    layers._relu(other, intercept)
    np.testing.assert_array_equal(z, other)
