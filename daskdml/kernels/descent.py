"""One step of gradient descent on a flat vector of parameters: each number is read and written once.

Conventions. ``gradient`` is the sum over a batch; what is stepped along is ``scale * (gradient + decay * theta)``, with
the decay for parameters ``0 ... n_decayed - 1`` only: coefficients stand before intercepts. All arrays have one dtype,
float32 or float64, in which the arithmetic is done. ``theta`` and the moments are changed in place.
"""

import functools
import math

from daskdml.kernels.compile import build, f4, f8, i8, types, vector


def momentum(theta, gradient, velocity, n_decayed, decay, scale, rate, factor, is_nesterov):
    """Step with momentum: ``v = factor v - rate g``, ``theta += v``, or ``factor v - rate g`` once more for Nesterov.

    Parameters
    ----------
    theta, gradient, velocity : ndarray of shape (d,)
    n_decayed : int
    decay, scale, rate, factor : float
    is_nesterov : bool

    Notes
    -----
    scikit-learn's, to the letter. I. Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013.
    """
    _compiled_momentum(theta.dtype)(theta, gradient, velocity, n_decayed, decay, scale, rate, factor, is_nesterov)


def adam(theta, gradient, first, second, n_decayed, decay, scale, rate, beta_1, beta_2, epsilon):
    """Step by Adam: ``m = b1 m + (1 - b1) g``, ``s = b2 s + (1 - b2) g^2``, ``theta -= rate m / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    theta, gradient, first, second : ndarray of shape (d,)
        ``first`` and ``second`` are m and s.
    n_decayed : int
    decay, scale : float
    rate : float
        With the correction for the moments' start: ``rate_0 sqrt(1 - b2^t) / (1 - b1^t)``.
    beta_1, beta_2, epsilon : float

    Notes
    -----
    D. Kingma, J. Ba, "Adam: A method for stochastic optimization", 2014, as scikit-learn has it.
    """
    betas = beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2  # in float64: 1 - 0.999 has four digits in float32
    _compiled_adam(theta.dtype)(theta, gradient, first, second, n_decayed, decay, scale, rate, *betas, epsilon)


@functools.cache
def _compiled_momentum(dtype):
    real, arrays = _types_of(dtype)
    return build(_momentum, types.void(*arrays, i8, real, real, real, real, types.boolean))


@functools.cache
def _compiled_adam(dtype):
    real, arrays = _types_of(dtype)
    # As written: with sums in another order the second moment lost three digits.
    return build(_adam, types.void(*arrays, arrays[-1], i8, *[real] * 8), rounds_as_written=True)


def _types_of(dtype):
    real = f4 if dtype == "float32" else f8
    return real, (vector(real), vector(real, read=True), vector(real))


def _momentum(theta, gradient, velocity, n_decayed, decay, scale, rate, factor, is_nesterov):
    for i in range(theta.size):
        g = gradient[i] + decay * theta[i] if i < n_decayed else gradient[i]
        step = factor * velocity[i] - rate * (scale * g)
        velocity[i] = step
        theta[i] += factor * step - rate * (scale * g) if is_nesterov else step


def _adam(theta, gradient, first, second, n_decayed, decay, scale, rate, beta_1, rest_1, beta_2, rest_2, epsilon):
    for i in range(theta.size):
        g = scale * (gradient[i] + decay * theta[i] if i < n_decayed else gradient[i])
        m = beta_1 * first[i] + rest_1 * g
        s = beta_2 * second[i] + rest_2 * (g * g)
        first[i], second[i] = m, s
        theta[i] -= rate * m / (math.sqrt(s) + epsilon)
