"""What a layer of a network does beside products of matrices: intercepts and activations, and their slopes.

Conventions. Arrays have shape (n, m), C order, of one dtype, float32 or float64; those that are not CPU memory take the
same steps as whole arrays. ``a`` is the value of an activation, from which its slope follows.
"""

import functools

import numpy as np

from daskdml.kernels.compile import build, f4, f8, matrix, types, vector
from daskdml.kernels.device import module_of

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")


def activate(a, intercept, activation):
    """Add the intercepts and apply the activation, in place.

    Parameters
    ----------
    a : ndarray of shape (n, m)
    intercept : ndarray of shape (m,)
    activation : {"identity", "logistic", "tanh", "relu"}
    """
    if activation == "relu" and isinstance(a, np.ndarray):
        return _compiled_relu(a.dtype)(a, intercept)
    xp = module_of(a)
    a += intercept
    if activation == "relu":
        xp.maximum(a, 0, out=a)
    elif activation == "tanh":
        xp.tanh(a, out=a)
    elif activation == "logistic":  # (1 + tanh(a / 2)) / 2: never overflows
        a *= 0.5
        xp.tanh(a, out=a)
        a += 1
        a *= 0.5
    return None


def back_through(a, delta, activation, sums):
    """Multiply delta by the slope of the activation, in place, and write the sums over rows.

    Parameters
    ----------
    a, delta : ndarray of shape (n, m)
    activation : {"identity", "logistic", "tanh", "relu"}
    sums : ndarray of shape (m,)
    """
    if isinstance(a, np.ndarray):
        return _compiled_slopes(a.dtype)(a, delta, ACTIVATIONS.index(activation), sums)
    if activation == "relu":
        delta *= a != 0  # NaN stays
    elif activation == "tanh":
        delta *= 1 - a * a
    elif activation == "logistic":
        delta *= a - a * a
    sums[...] = delta.sum(axis=0)
    return None


def product(left, right, out):
    """Write the product of two matrices, of which the left one may be sparse.

    Parameters
    ----------
    left : ndarray or CSR of shape (n, k)
    right : ndarray of shape (k, m)
    out : ndarray of shape (n, m)
    """
    if hasattr(left, "indptr"):
        out[...] = left @ right
    else:
        module_of(out).matmul(left, right, out=out)


@functools.cache
def _compiled_relu(dtype):
    real = _real(dtype)
    return build(_relu, types.void(matrix(real), vector(real, read=True)), rounds_as_written=True)


@functools.cache
def _compiled_slopes(dtype):
    real = _real(dtype)
    signature = types.void(matrix(real, read=True), matrix(real), types.int64, vector(real))
    return build(_slopes, signature, rounds_as_written=True)


def _real(dtype):
    return f4 if dtype == "float32" else f8


def _relu(a, intercept):
    zero = a.dtype.type(0)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            z = a[i, j] + intercept[j]
            a[i, j] = zero if z < zero else z  # NaN stays


def _slopes(a, delta, activation, sums):
    zero, one = a.dtype.type(0), a.dtype.type(1)
    sums[:] = zero
    for i in range(a.shape[0]):
        if activation == 3:
            for j in range(a.shape[1]):
                # NaN of delta stays, where the activation is NaN too.
                delta[i, j] = delta[i, j] if a[i, j] != zero else zero
                sums[j] += delta[i, j]
        elif activation == 2:
            for j in range(a.shape[1]):
                delta[i, j] *= one - a[i, j] * a[i, j]
                sums[j] += delta[i, j]
        elif activation == 1:
            for j in range(a.shape[1]):
                delta[i, j] *= a[i, j] - a[i, j] * a[i, j]
                sums[j] += delta[i, j]
        else:
            for j in range(a.shape[1]):
                sums[j] += delta[i, j]
