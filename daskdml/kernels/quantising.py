"""Rounds numbers to a few levels, up or down by a hash of their place: in the mean they stay what they are."""

import numpy as np

from daskdml.kernels.compile import build, f4, f8, i8, types, vector
from daskdml.kernels.growing import mix

u8 = types.uint64


def quantise(x, largest, bucket, levels, key, codes, scales):
    """Write ``floor(levels x / s + u)`` for each number, s being the largest of its bucket and u a hash in [0, 1).

    Parameters
    ----------
    x : ndarray of shape (n,), float32 or float64
        Finite.
    largest : float
        Of all of x, above 0: scales are relative to it.
    bucket : int
        Numbers of a bucket.
    levels : int
        1 to 127.
    key : uint64
        Of the hashes.
    codes : ndarray of int8, shape (n,)
    scales : ndarray of float32, shape (ceil(n / bucket),)
    """
    real = f4 if x.dtype == np.float32 else f8
    signature = types.void(
        vector(real, read=True), f8, i8, i8, u8, vector(types.int8), vector(f4)
    )  # fmt: skip
    build(_quantise, signature, rounds_as_written=True)(x, largest, bucket, levels, key, codes, scales)


def _quantise(x, largest, bucket, levels, key, codes, scales):
    for b in range(scales.size):
        start, stop = b * bucket, min((b + 1) * bucket, x.size)
        most = 0.0
        for i in range(start, stop):
            most = max(most, abs(np.float64(x[i])) / largest)
        # Rounded up: no number may lie beyond its scale.
        # Below 2**-120 of all numbers' largest a bucket counts as zeros: float32 has few bits left there.
        scale = np.float32(most * (1.0 + 2.0**-22) if most > 2.0**-120 else 0.0)
        scales[b] = scale
        for i in range(start, stop):
            codes[i] = 0
            if scale > 0:
                z = mix(np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + key)
                u = np.float64(np.int64(z >> np.uint64(11))) * 2.0**-53
                codes[i] = np.int8(np.floor(np.float64(x[i]) / largest / np.float64(scale) * levels + u))
