"""One step of gradient descent on a flat vector of parameters: each number is read and written once.

Conventions. ``gradient`` is the sum over a batch; what is stepped along is ``scale * (gradient + decay * theta)``, with
the decay for parameters ``0 ... n_decayed - 1`` only: coefficients stand before intercepts. All arrays have one dtype,
float32 or float64, in which the arithmetic is done. ``theta`` and the moments are changed in place. Arrays of a device
are stepped as whole arrays: equal to rounding, not to the bit.
"""

import functools
import math

import numpy as np

from daskdml.kernels.compile import build, f4, f8, i8, types, vector
from daskdml.kernels.device import module_of


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
    step = _compiled_momentum(theta.dtype) if isinstance(theta, np.ndarray) else _momentum_by_arrays
    step(theta, gradient, velocity, n_decayed, decay, scale, rate, factor, is_nesterov)


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
    step = _compiled_adam(theta.dtype) if isinstance(theta, np.ndarray) else _adam_by_arrays
    step(theta, gradient, first, second, n_decayed, decay, scale, rate, *betas, epsilon)


def plain(theta, gradient, average, n_decayed, shrinkage, threshold, scale, rate, rest_rate, share):
    """Step without moments: shrink, go down the gradient, move towards zero, and average what is found.

    Of coefficients, which stand first, and of the other parameters::

        theta <- soft(shrinkage theta - rate scale gradient, threshold),   soft(z, c) = sign(z) max(|z| - c, 0)
        theta <- theta - rest_rate scale gradient
        average <- average + share (theta - average)

    Parameters
    ----------
    theta, gradient : ndarray of shape (d,)
    average : ndarray of shape (d,), or (0,) for none
    n_decayed : int
        Coefficients.
    shrinkage, threshold, scale, rate, rest_rate, share : float

    Notes
    -----
    A step of proximal gradient descent: L2 by its gradient, L1 by its proximal operator. J. Duchi, Y. Singer,
    "Efficient online and batch learning using forward backward splitting", 2009.
    """
    step = _compiled_plain(theta.dtype) if isinstance(theta, np.ndarray) else _plain_by_arrays
    step(theta, gradient, average, n_decayed, shrinkage, threshold, scale, rate, rest_rate, share)


@functools.cache
def _compiled_plain(dtype):
    real, arrays = _types_of(dtype)
    return build(_plain, types.void(*arrays, i8, *[real] * 6), rounds_as_written=True)


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


def _plain(theta, gradient, average, n_decayed, shrinkage, threshold, scale, rate, rest_rate, share):
    zero = theta.dtype.type(0)
    for i in range(theta.size):
        if i < n_decayed:
            z = shrinkage * theta[i] - rate * (scale * gradient[i])
            if threshold > 0:
                away = abs(z) - threshold
                z = zero if away <= zero else math.copysign(away, z)  # NaN stays
            theta[i] = z
        else:
            theta[i] -= rest_rate * (scale * gradient[i])
        if average.size:
            average[i] += share * (theta[i] - average[i])


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


def _plain_by_arrays(theta, gradient, average, n_decayed, shrinkage, threshold, scale, rate, rest_rate, share):
    # Scalars of NumPy would make float32 float64.
    g, coefs, maximum = float(scale) * gradient, theta[:n_decayed], module_of(theta).maximum
    coefs *= float(shrinkage)
    coefs -= float(rate) * g[:n_decayed]
    if threshold > 0:  # NaN stays
        theta[:n_decayed] = maximum(coefs - float(threshold), 0) - maximum(-coefs - float(threshold), 0)
    theta[n_decayed:] -= float(rest_rate) * g[n_decayed:]
    if average.size:
        average += float(share) * (theta - average)


def _momentum_by_arrays(theta, gradient, velocity, n_decayed, decay, scale, rate, factor, is_nesterov):
    g = _stepped_along(theta, gradient, n_decayed, decay, rate * scale)
    velocity *= factor
    velocity -= g
    theta += factor * velocity - g if is_nesterov else velocity


def _adam_by_arrays(
    theta, gradient, first, second, n_decayed, decay, scale, rate, beta_1, rest_1, beta_2, rest_2, epsilon
):
    g = _stepped_along(theta, gradient, n_decayed, decay, scale)
    first *= beta_1
    first += rest_1 * g
    second *= beta_2
    g *= g
    second += rest_2 * g
    theta -= float(rate) * first / (module_of(second).sqrt(second) + epsilon)


def _stepped_along(theta, gradient, n_decayed, decay, factor):
    g = gradient.copy()
    g[:n_decayed] += decay * theta[:n_decayed]
    g *= float(factor)  # a scalar of NumPy would make float32 float64
    return g
