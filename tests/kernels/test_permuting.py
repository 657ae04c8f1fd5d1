"""Random orders without a list: each size and key is an order, undone by going backwards, and no place is favoured."""

import numpy as np
import pytest
from numba import config

from daskdml.kernels import permuting
from daskdml.kernels.permuting import permute
from daskdml.utils.random import row_hash

FEW = config.DISABLE_JIT  # as plain Python a place takes 100 microseconds
# Around squares and products b (b - 1), where the square of the places changes its shape, and primes.
BIG = (1009, 1023, 1024, 1025) if FEW else (9_999, 10_000, 10_001, 9_900, 9_901, 65_536, 65_537, 99_991, 300_000)

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of hashes, as plain Python


def order(size, key, backwards=False):
    out = np.full(size, -1, np.int64)
    permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64), out, backwards)
    return out


def key_of(number):
    return row_hash(0, 99, [number])[0]


def chi_square(counts):
    """Return Pearson's statistic against equal shares, in its standard deviations above the mean."""
    counts = np.asarray(counts).ravel()
    expected = counts.sum() / counts.size
    found = ((counts - expected) ** 2).sum() / expected
    return (found - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1))


def orders_of(size, n_keys):
    """Return the first places of many orders of one size."""
    keys = row_hash(7, 99, np.arange(n_keys))
    out = np.empty(n_keys * size, np.int64)
    permute(np.tile(np.arange(size), n_keys), np.full(n_keys * size, size), np.repeat(keys, size), out)
    return out.reshape(n_keys, size)


@pytest.mark.parametrize("backwards", [False, True])
def test_every_small_size_is_a_bijection(backwards):
    for size in range(1, 60 if FEW else 201):
        for number in range(1 if FEW else 5):
            np.testing.assert_array_equal(np.sort(order(size, key_of(number), backwards)), np.arange(size))


@pytest.mark.parametrize("size", BIG)
def test_big_sizes_are_bijections(size):
    found = order(size, key_of(size))
    assert (np.bincount(found, minlength=size) == 1).all() and len(found) == size


@pytest.mark.parametrize("sizes", [range(1, 40 if FEW else 201), BIG], ids=["small", "big"])
def test_backwards_undoes_forwards_and_the_other_way_round(sizes):
    for size in sizes:
        key = key_of(size)
        there, back = order(size, key), order(size, key, backwards=True)
        np.testing.assert_array_equal(back[there], np.arange(size))
        np.testing.assert_array_equal(there[back], np.arange(size))


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**31 + 11, 10**12 + 39, 2**52 + 1])
def test_sizes_that_no_list_could_have(size):
    """Some places: all different, in range, and undone."""
    n = 50 if FEW else 20_000
    places = np.unique(np.concatenate([[0, 1, size - 2, size - 1], row_hash(3, 99, np.arange(n)) % np.uint64(size)]))
    places = places.astype(np.int64)
    sizes, keys = np.full(len(places), size), np.full(len(places), key_of(1))
    there, back = np.empty_like(places), np.empty_like(places)
    permute(places, sizes, keys, there)
    assert there.min() >= 0 and there.max() < size and len(np.unique(there)) == len(places)
    permute(there, sizes, keys, back, backwards=True)
    np.testing.assert_array_equal(back, places)


def test_ends_of_the_keys():
    for key in (0, 1, 2**63, 2**64 - 1):
        np.testing.assert_array_equal(np.sort(order(101, key)), np.arange(101))


def test_other_keys_are_other_orders():
    """Keys that differ in their last bit alone as well; two random orders of 100 agree in one place on average."""
    orders = [order(100, key) for key in (0, 1, 2, 3, 8, 2**32, 2**63, *(key_of(i) for i in range(20)))]
    for i, one in enumerate(orders):
        assert all((one == other).sum() < 10 for other in orders[:i])
        assert (one == np.arange(100)).sum() < 10


@pytest.mark.parametrize("size", [2, 3, 5, 10, 16, 37])
def test_each_place_goes_anywhere_equally_often(size):
    found = orders_of(size, 200 if FEW else 5000)
    counts = [np.bincount(found[:, place], minlength=size) for place in range(size)]
    assert max(map(chi_square, counts)) < 7


@pytest.mark.parametrize("size", [4, 7, 12])
def test_two_places_go_to_any_two_equally_often(size):
    found = orders_of(size, 300 if FEW else 20_000)
    pairs = np.zeros((size, size), np.int64)
    for first, second in ((0, 1), (0, size - 1), (size // 2, 1)):
        pairs[:] = 0
        np.add.at(pairs, (found[:, first], found[:, second]), 1)
        assert (np.diag(pairs) == 0).all()
        assert chi_square(pairs[~np.eye(size, dtype=bool)]) < 7


@pytest.mark.skipif(FEW, reason="takes too long as plain Python")
@pytest.mark.parametrize("size", [10_000, 65_537, 99_991])
def test_rows_that_follow_each_other_are_spread_over_all_places(size):
    for number in range(5):
        found = order(size, key_of(number))
        for part in (slice(0, 2000), slice(size - 2000, size), slice(None, None, size // 2000)):
            assert chi_square(np.bincount(found[part] * 20 // size, minlength=20)) < 7
        steps = np.diff(found) % size  # neighbours do not stay neighbours
        assert chi_square(np.bincount(steps * 50 // size, minlength=50)) < 7


@pytest.mark.parametrize("backwards", [False, True])
def test_sizes_and_keys_mixed_in_one_call_are_those_of_separate_calls(backwards):
    parts = [(size, key_of(i)) for i, size in enumerate((1, 2, 100, 7, 49, 50, 51, 1, 300))]
    places = np.concatenate([np.arange(size) for size, _ in parts])
    sizes = np.concatenate([np.full(size, size) for size, _ in parts])
    keys = np.concatenate([np.full(size, key, np.uint64) for size, key in parts])
    expected = np.concatenate([order(size, key, backwards) for size, key in parts])
    shuffled = np.random.default_rng(0).permutation(len(places))
    out = np.empty(len(places), np.int64)
    permute(places[shuffled], sizes[shuffled], keys[shuffled], out, backwards)
    np.testing.assert_array_equal(out, expected[shuffled])


def test_no_places():
    permute(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64))


def test_inputs_may_be_read_only():
    inputs = np.arange(9), np.full(9, 9), np.full(9, 5, np.uint64)
    for array in inputs:
        array.flags.writeable = False
    out = np.empty(9, np.int64)
    permute(*inputs, out)
    assert sorted(out.tolist()) == list(range(9))


@pytest.mark.parametrize("name, backwards", [("_forwards", False), ("_backwards", True)])
def test_as_plain_python_the_same(name, backwards):
    for size in (1, 2, 3, 10, 99, 100, 101):
        out = np.empty(size, np.int64)
        with np.errstate(over="ignore"):
            getattr(permuting, name)(np.arange(size), np.full(size, size), np.full(size, key_of(size)), out)
        np.testing.assert_array_equal(out, order(size, key_of(size), backwards))
