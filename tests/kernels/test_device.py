"""What runs on a device by whole arrays is what compiled code does on the host."""

import numpy as np
import pytest

from daskdml.kernels import descent
from daskdml.kernels.device import device_module, module_of, on_host
from daskdml.kernels.layers import ACTIVATIONS, activate, back_through, product
from daskdml.kernels.margins import apply_margins
from daskdml.kernels.sequential import LOSSES

RTOL = {"float32": 2e-6, "float64": 1e-14}
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(dtype, *shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def assert_equal(found, expected):
    assert module_of(found) is not np and found.dtype == expected.dtype
    rtol = RTOL[expected.dtype.name]
    np.testing.assert_allclose(on_host(found), expected, rtol=rtol, atol=rtol * np.nanmax(np.abs(expected)))


def test_the_stand_in_refuses_what_cupy_refuses(cupy):
    there, here = cupy.asarray(np.arange(3.0)), np.arange(3.0)
    assert device_module() is cupy is module_of(there) and module_of(here) is np
    for wrong in (
        lambda: np.asarray(there), lambda: here + there, lambda: there + here, lambda: there @ here,
        lambda: there.__setitem__(slice(2), here[:2]), lambda: cupy.exp(here),
        lambda: np.concatenate([there, there]), lambda: np.dot(there, there), lambda: np.add(here, 1.0, out=there),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()
    assert isinstance(np.exp(there), cupy.ndarray) and isinstance(there.sum(), cupy.ndarray)
    there[cupy.asarray(np.array([0, 2]))] = 5.0
    assert on_host(there).tolist() == [5.0, 1.0, 5.0] and on_host(here) is here


@dtypes
@pytest.mark.parametrize("n_decayed", [0, 20, 37])
@pytest.mark.parametrize("is_nesterov", [False, True])
def test_momentum(cupy, dtype, n_decayed, is_nesterov):
    theta, velocity, *gradients = draw(dtype, *[37] * 7)
    there = cupy.asarray(theta), cupy.asarray(velocity)
    for gradient in gradients:
        step = n_decayed, 0.3, 1 / 64, np.float64(0.1), 0.9, is_nesterov
        descent.momentum(theta, gradient, velocity, *step)
        descent.momentum(there[0], cupy.asarray(gradient), there[1], *step)
    for found, expected in zip(there, (theta, velocity)):
        assert_equal(found, expected)


@dtypes
@pytest.mark.parametrize("n_decayed", [0, 20, 37])
def test_adam(cupy, dtype, n_decayed):
    theta, *gradients = draw(dtype, *[37] * 6)
    first, second = np.zeros((2, 37), dtype)
    there = [cupy.asarray(array) for array in (theta, first, second)]
    for gradient in gradients:
        step = n_decayed, 0.3, 1 / 64, np.float64(0.1), 0.9, 0.999, 1e-8
        descent.adam(theta, gradient, first, second, *step)
        descent.adam(there[0], cupy.asarray(gradient), *there[1:], *step)
    for found, expected in zip(there, (theta, first, second)):
        assert_equal(found, expected)


@dtypes
@pytest.mark.parametrize("n_decayed", [0, 20, 37])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("share", [None, 0.25])
def test_plain(cupy, dtype, n_decayed, threshold, share):
    theta, *gradients = draw(dtype, *[37] * 6)
    theta[[2, 30]] = np.nan, np.inf
    average = np.zeros(0 if share is None else 37, dtype)
    there = cupy.asarray(theta), cupy.asarray(average)
    for gradient in gradients:
        factors = np.array([0.9, threshold, 1 / 64, 0.3, 0.03])  # as solvers give them: of NumPy
        step = n_decayed, *factors, share or 0.0
        with np.errstate(invalid="ignore"):
            descent.plain(theta, gradient, average, *step)
            descent.plain(there[0], cupy.asarray(gradient), there[1], *step)
    finite = np.isfinite(theta)
    assert not finite[[2, 30]].any() and (theta == 0).any() == (threshold > 0 and n_decayed > 0)
    for found, expected in zip(there[: 1 if share is None else 2], (theta, average)):
        np.testing.assert_array_equal(np.isnan(on_host(found)), np.isnan(expected))
        assert_equal(found[finite], expected[finite])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [(), (1,), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_margins(cupy, loss, labels, is_weighted):
    """Also at the corners of the losses, where targets are missed by far, and where slopes are cut."""
    raw, weight = draw("float64", (70, max(len(labels), 1)), 70)
    y, weight = np.arange(70) % 3.0, np.abs(weight) if is_weighted else None
    raw[:14] = np.array([0, 1, -1, 2, -2, 0.3, -0.3, 1.3, 0.7, 36.0, -40.0, 800.0, -800.0, 1e14])[:, None]
    labels, factors = np.array(labels, np.int64), np.random.default_rng(1).uniform(0.5, 3, (raw.shape[1], 2))
    gradient = np.empty_like(raw)
    value = apply_margins(raw, y, weight, loss, 0.3, labels, factors, gradient)
    there = cupy.empty(raw.shape)
    rows = [None if part is None else cupy.asarray(part) for part in (raw, y, weight)]
    found = apply_margins(*rows, loss, 0.3, labels, factors, there)
    assert float(found) == pytest.approx(value, rel=1e-13) and not cupy.fetched
    assert_equal(there, gradient)
    np.testing.assert_allclose(on_host(there), gradient, rtol=1e-13)


@dtypes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers(cupy, dtype, activation):
    X, coef, intercept, delta = draw(dtype, (50, 4), (4, 7), 7, (50, 7))
    X[3] = delta[3] = np.nan
    results = []
    for xp in (np, cupy):
        rows, weights, shift, slopes = (xp.asarray(array) for array in (X, coef, intercept, delta.copy()))
        a, sums = xp.empty((50, 7), dtype), xp.empty(7, dtype)
        product(rows, weights, a)
        activate(a, shift, activation)
        back_through(a, slopes, activation, sums)
        results.append((a, slopes, sums))
    here, there = results
    assert_equal(there[0], here[0])
    assert_equal(there[1], here[1])
    assert np.isnan(here[2]).all() and np.isnan(on_host(there[2])).all()
