"""Numbers rounded to a few levels, by the definition."""

import numpy as np
import pytest

from daskdml.kernels.growing import mix
from daskdml.kernels.quantising import quantise
from daskdml.utils.random import row_hash


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_by_their_definition(dtype):
    """Hash and all, against NumPy."""
    x = (np.random.default_rng(0).normal(size=50) * 10.0 ** np.random.default_rng(1).integers(-2, 2, 50)).astype(dtype)
    codes, scales, key = np.zeros(50, np.int8), np.zeros(7, np.float32), row_hash(5, 31, [2])[0]
    quantise(x, float(np.abs(x).max()), 8, 127, key, codes, scales)
    with np.errstate(over="ignore"):
        u = [float(int(mix(np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + key)) >> 11) * 2.0**-53 for i in range(50)]
    s = np.repeat(scales.astype(float), 8)[:50] * float(np.abs(x).max())
    assert (codes == np.floor(x.astype(float) / s * 127 + u)).all()
    assert (np.abs(x) <= s).all() and (
        s <= np.repeat([np.abs(x[i : i + 8]).max() for i in range(0, 50, 8)], 8)[:50] * 1.001
    ).all()


def test_buckets_of_zeros_and_of_very_little():
    x = np.array([0.0, 0.0, 1e300, 1.0, 5e-324, 0.0])
    codes, scales = np.full(6, 99, np.int8), np.zeros(3, np.float32)
    quantise(x, 1e300, 2, 7, row_hash(0, 1, [0])[0], codes, scales)
    assert codes.tolist() in ([0, 0, 7, 0, 0, 0], [0, 0, 7, 1, 0, 0], [0, 0, 6, 0, 0, 0])
    assert scales[0] == scales[2] == 0
