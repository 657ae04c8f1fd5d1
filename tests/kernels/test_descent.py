"""Steps of gradient descent against scikit-learn's, several of them."""

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from daskdml.kernels import descent

N, STEPS, STRENGTH, SCALE = 37, 5, 0.3, 1 / 64
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
decays = pytest.mark.parametrize("n_decayed", [0, 1, 20, N - 1, N])


def start(dtype):
    """Return parameters and the gradients of all steps."""
    rng = np.random.default_rng(0)
    return rng.normal(size=N).astype(dtype), (64 * rng.normal(size=(STEPS, N))).astype(dtype)


def stepped_along(theta, gradient, n_decayed):
    """By the definition: the sum over a batch, with the decay of the first parameters, times the scale."""
    theta, gradient = theta.astype(np.float64), gradient.astype(np.float64)
    return SCALE * (gradient + STRENGTH * theta * (np.arange(N) < n_decayed))


def rate_of(rate, t, beta_1, beta_2):
    return rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)


def assert_close(found, expected, dtype, loosely=1):
    assert found.dtype == dtype
    tolerance = loosely * TOLERANCE[dtype]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@dtypes
@decays
@pytest.mark.parametrize("is_nesterov", [False, True])
@pytest.mark.parametrize("factor", [0.0, 0.9])
def test_momentum_is_scikit_learns(dtype, n_decayed, is_nesterov, factor):
    theta, gradients = start(dtype)
    known, velocity = [theta.astype(np.float64)], np.zeros(N, dtype)
    oracle = SGDOptimizer(known, 0.1, momentum=factor, nesterov=is_nesterov)
    for gradient in gradients:
        oracle.update_params(known, [stepped_along(known[0], gradient, n_decayed)])
        descent.momentum(theta, gradient, velocity, n_decayed, STRENGTH, SCALE, 0.1, factor, is_nesterov)
        assert_close(theta, known[0], dtype)
        assert_close(velocity, oracle.velocities[0], dtype)


@dtypes
@decays
@pytest.mark.parametrize("beta_1, beta_2, epsilon", [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3), (0.0, 0.0, 1e-8)])
def test_adam_is_scikit_learns(dtype, n_decayed, beta_1, beta_2, epsilon):
    theta, gradients = start(dtype)
    known, first, second = [theta.astype(np.float64)], np.zeros(N, dtype), np.zeros(N, dtype)
    oracle = AdamOptimizer(known, 0.1, beta_1, beta_2, epsilon)
    for t, gradient in enumerate(gradients, 1):
        oracle.update_params(known, [stepped_along(known[0], gradient, n_decayed)])
        rate = rate_of(0.1, t, beta_1, beta_2)
        descent.adam(theta, gradient, first, second, n_decayed, STRENGTH, SCALE, rate, beta_1, beta_2, epsilon)
        assert_close(theta, known[0], dtype)
        assert_close(first, oracle.ms[0], dtype)
        assert_close(second, oracle.vs[0], dtype)


@dtypes
def test_one_step_by_the_formulas(dtype):
    """Of moments that are not zero, with all that can differ different."""
    theta, (g, m, s, *_) = start(dtype)
    m, s, k = m / 64, (s / 64) ** 2, 11
    t64, m64, s64 = (array.astype(np.float64) for array in (theta, m, s))
    along = stepped_along(theta, g, k)
    for is_nesterov in (False, True):
        found, velocity = theta.copy(), m.copy()
        descent.momentum(found, g, velocity, k, STRENGTH, SCALE, 0.05, 0.7, is_nesterov)
        v = 0.7 * m64 - 0.05 * along
        assert_close(velocity, v, dtype)
        assert_close(found, t64 + (0.7 * v - 0.05 * along if is_nesterov else v), dtype)
    found, first, second = theta.copy(), m.copy(), s.copy()
    descent.adam(found, g, first, second, k, STRENGTH, SCALE, 0.05, 0.7, 0.8, 1e-2)
    m64, s64 = 0.7 * m64 + (1 - 0.7) * along, 0.8 * s64 + (1 - 0.8) * along**2
    assert_close(first, m64, dtype)
    assert_close(second, s64, dtype)
    assert_close(found, t64 - 0.05 * m64 / (np.sqrt(s64) + 1e-2), dtype)


@dtypes
def test_gradients_of_zero_change_nothing_at_the_start(dtype):
    theta = start(dtype)[0]
    kept, zeros = theta.copy(), [np.zeros(N, dtype) for _ in range(4)]
    descent.momentum(theta, zeros[0], zeros[1], 0, STRENGTH, SCALE, 0.1, 0.9, True)
    descent.adam(theta, zeros[0], zeros[2], zeros[3], 0, STRENGTH, SCALE, 0.1, 0.9, 0.999, 1e-8)
    np.testing.assert_array_equal(theta, kept)
    assert not np.any(zeros)


@dtypes
def test_what_is_not_a_number_stays_where_it_is(dtype):
    for n_decayed in (0, N):
        theta, gradients = start(dtype)
        gradient = gradients[0]
        gradient[[3, 20]] = np.nan
        other, moments = theta.copy(), [np.zeros(N, dtype) for _ in range(3)]
        descent.momentum(theta, gradient, moments[0], n_decayed, STRENGTH, SCALE, 0.1, 0.9, True)
        descent.adam(other, gradient, moments[1], moments[2], n_decayed, STRENGTH, SCALE, 0.1, 0.9, 0.999, 1e-8)
        for array in (theta, other, *moments):
            np.testing.assert_array_equal(np.flatnonzero(np.isnan(array)), [3, 20])


@dtypes
def test_gradients_may_be_read_only_and_stay(dtype):
    theta, gradients = start(dtype)
    gradient = gradients[0]
    kept, gradient.flags.writeable = gradient.copy(), False
    moments = [np.zeros(N, dtype) for _ in range(3)]
    descent.momentum(theta, gradient, moments[0], 5, STRENGTH, SCALE, 0.1, 0.9, True)
    descent.adam(theta, gradient, moments[1], moments[2], 5, STRENGTH, SCALE, 0.1, 0.9, 0.999, 1e-8)
    np.testing.assert_array_equal(gradient, kept)


def test_no_parameters():
    none = [np.empty(0, np.float32) for _ in range(4)]
    descent.momentum(*none[:3], 0, 0.1, 1.0, 0.1, 0.9, True)
    descent.adam(*none, 0, 0.1, 1.0, 0.1, 0.9, 0.999, 1e-8)


@dtypes
@decays
def test_as_plain_python_the_same_but_for_rounding(dtype, n_decayed):
    theta, gradients = start(dtype)
    for is_nesterov in (False, True):
        pairs = [[theta.copy(), np.zeros(N, dtype)] for _ in range(2)]
        for gradient in gradients:
            for step, (at, velocity) in zip((descent.momentum, descent._momentum), pairs):
                step(at, gradient, velocity, n_decayed, STRENGTH, SCALE, 0.1, 0.9, is_nesterov)
        for one, other in zip(*pairs):
            assert_close(one, other, dtype)
    triples = [[theta.copy(), np.zeros(N, dtype), np.zeros(N, dtype)] for _ in range(2)]
    for t, gradient in enumerate(gradients, 1):
        rate = float(rate_of(0.1, t, 0.9, 0.99))
        betas = (0.9, 0.99), (0.9, 1 - 0.9, 0.99, 1 - 0.99)
        for step, (at, first, second), numbers in zip((descent.adam, descent._adam), triples, betas):
            step(at, gradient, first, second, n_decayed, STRENGTH, SCALE, rate, *numbers, 1e-8)
    for one, other in zip(*triples):
        assert_close(one, other, dtype)


@dtypes
@decays
@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("share", [None, 0.25])
def test_plain_steps_are_their_formula(dtype, n_decayed, threshold, share):
    """Shrunk and soft-thresholded coefficients, other parameters with a rate of their own, and an average of all."""
    theta, gradients = start(dtype)
    known, is_decayed = theta.astype(np.float64), np.arange(N) < n_decayed
    average = np.zeros(0 if share is None else N, dtype)
    mean = np.zeros(N)
    for gradient in gradients:
        down = SCALE * gradient.astype(np.float64)
        moved = 0.9 * known - 0.3 * down
        moved = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
        known = np.where(is_decayed, moved, known - 0.03 * down)
        mean += (share or 0) * (known - mean)
        descent.plain(theta, gradient, average, n_decayed, 0.9, threshold, SCALE, 0.3, 0.03, share or 0.0)
        assert_close(theta, known, dtype)
        if share is not None:
            assert_close(average, mean, dtype)
    assert (theta == 0).any() == (threshold > 0 and n_decayed > 0)


def test_plain_steps_keep_what_is_no_number():
    theta = np.array([np.nan, np.inf, 1.0])
    descent.plain(theta, np.array([0.0, 0.0, np.nan]), np.zeros(0), 3, 1.0, 0.5, 1.0, 0.1, 0.1, 0.0)
    np.testing.assert_array_equal(theta, [np.nan, np.inf, np.nan])
