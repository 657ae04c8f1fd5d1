"""Counter-based random numbers: functions of the row alone, and random enough."""

import numpy as np
import pytest
from scipy import stats

from daskdml.utils.random import as_seed, row_hash, uniform


def test_rows_get_their_number_wherever_they_stand():
    whole = row_hash(3, 1, np.arange(1000))
    for part in (slice(0, 10), slice(990, 1000), slice(5, 900, 7)):
        np.testing.assert_array_equal(row_hash(3, 1, np.arange(1000)[part]), whole[part])
    np.testing.assert_array_equal(row_hash(3, 1, np.arange(1000, dtype=np.int32)), whole)
    np.testing.assert_array_equal(row_hash(3, 1, np.arange(1000, dtype=np.uint64)), whole)


def test_values_stay_the_same_over_releases():
    """A split drawn with a seed is part of a published result."""
    again = row_hash(0, 1, [0, 1, 2**40])
    assert again.dtype == np.uint64
    mask = 2**64 - 1

    def mix(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((mix((0 + golden) & mask) + 1 * golden) & mask)
    assert again.tolist() == [mix((mix((i * golden + key) & mask) + key) & mask) for i in (0, 1, 2**40)]


@pytest.mark.parametrize("seed", [0, 1, 2**63, -5])
def test_uniform_is_uniform(seed):
    u = uniform(seed, 2, np.arange(100_000))
    assert 0 <= u.min() and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    # Neighbours, and the same row under another seed or stream, are independent.
    for other in (np.roll(u, 1), uniform(seed + 1, 2, np.arange(100_000)), uniform(seed, 3, np.arange(100_000))):
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.015


def test_each_bit_is_fair():
    bits = row_hash(0, 0, np.arange(20_000))
    share = np.array([np.mean(bits >> np.uint64(k) & np.uint64(1)) for k in range(64)])
    assert np.abs(share - 0.5).max() < 0.02


def test_seeds():
    assert as_seed(5) == 5 and as_seed(np.int64(5)) == 5
    assert as_seed(np.random.RandomState(0)) == as_seed(np.random.RandomState(0))
    assert as_seed(np.random.default_rng(0)) == as_seed(np.random.default_rng(0))
    assert as_seed(None) != as_seed(None)
    generator = np.random.default_rng(0)
    assert as_seed(generator) != as_seed(generator)
    with pytest.raises(ValueError, match="random_state must be"):
        as_seed("0")
