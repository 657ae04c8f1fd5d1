"""Random orders without a list: where each place of 0 ... n - 1 goes is computed from a key alone."""

import functools
import math

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import build, i8, types, vector
from daskdml.kernels.growing import mix

# Rounds of two steps each: four steps are what it takes to tell it no more from a random order (Luby and Rackoff), but
# of few places, each half of which has few values, more (chi-square tests of sizes up to 12).
ROUNDS, ROUNDS_OF_FEW, FEW = 2, 4, 1024
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OTHER = np.uint64(0xD1B54A32D192ED03)


def permute(places, sizes, keys, out, backwards=False):
    """Write where each place goes in a random order of ``0 ... size - 1``, or comes from.

    A Feistel network on pairs (left, right) of ``place = left * b + right``, b = ceil(sqrt(size)), whose rounds add a
    hash of one to the other; places that leave the range are sent through it again.

    Parameters
    ----------
    places : ndarray of int64, shape (n,)
        Each in [0, its size).
    sizes : ndarray of int64, shape (n,)
        Of the order that each belongs to.
    keys : ndarray of uint64, shape (n,)
        One per order: equal keys and sizes are one order.
    out : ndarray of int64, shape (n,)
    backwards : bool, default False
        Whether to undo it.

    Notes
    -----
    Nothing is kept: an order of 10^9 rows costs no memory, and 30 ns a place. M. Luby, C. Rackoff, "How to construct
    pseudorandom permutations from pseudorandom functions", 1988; J. Black, P. Rogaway, "Ciphers with arbitrary finite
    domains", 2002.

    Examples
    --------
    >>> out = np.empty(5, np.int64)
    >>> permute(np.arange(5), np.full(5, 5), np.full(5, 7, np.uint64), out)
    >>> sorted(out.tolist())
    [0, 1, 2, 3, 4]
    """
    _compiled(_backwards if backwards else _forwards)(places, sizes, keys, out)


@functools.cache
def _compiled(body):
    signature = types.void(vector(i8, read=True), vector(i8, read=True), vector(types.uint64, read=True), vector(i8))
    return build(body, signature, rounds_as_written=True)


@register_jitable
def _width(size):
    """Return ceil(sqrt(size)), as an integer."""
    b = np.int64(math.sqrt(size))
    while b * b < size:
        b += 1
    return b


@register_jitable
def _draw(key, round, value, below):
    z = mix(np.uint64(value) * _GOLDEN + key + np.uint64(round))
    return np.int64(((z >> np.uint64(32)) * np.uint64(below)) >> np.uint64(32))  # a division would take 40 cycles


@register_jitable
def _around(x, size):
    return x - size if x >= size else x + size if x < 0 else x


def _forwards(places, sizes, keys, out):
    for i in range(places.size):
        size, place = sizes[i], places[i]
        key = keys[i] + np.uint64(size) * _OTHER  # orders of other sizes are others
        b = _width(size)
        a = (size + b - 1) // b
        while True:
            left, right = place // b, place % b
            for round in range(ROUNDS if size > FEW else ROUNDS_OF_FEW):
                left = _around(left + _draw(key, 2 * round, right, a), a)
                right = _around(right + _draw(key, 2 * round + 1, left, b), b)
            place = left * b + right
            if place < size:
                break
        out[i] = place


def _backwards(places, sizes, keys, out):
    for i in range(places.size):
        size, place = sizes[i], places[i]
        key = keys[i] + np.uint64(size) * _OTHER  # orders of other sizes are others
        b = _width(size)
        a = (size + b - 1) // b
        while True:
            left, right = place // b, place % b
            for round in range((ROUNDS if size > FEW else ROUNDS_OF_FEW) - 1, -1, -1):
                right = _around(right - _draw(key, 2 * round + 1, left, b), b)
                left = _around(left - _draw(key, 2 * round, right, a), a)
            place = left * b + right
            if place < size:
                break
        out[i] = place
