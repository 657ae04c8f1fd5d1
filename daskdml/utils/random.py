"""Counter-based random numbers: a row's number is a hash of (seed, stream, row id), whatever the chunking.

A generator with a state would tie a row's draw to the order in which chunks arrive. A hash of the global row id does
not: any split of the rows over chunks, threads or workers gives each row the same number.
"""

import numbers

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x):
    """Scramble 64-bit integers: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, variant 13)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def row_hash(seed, stream, row_ids):
    """Hash row ids to 64 random bits each.

    Parameters
    ----------
    seed : int
    stream : int
        What the numbers are for (pilot, split, ...); other streams give independent numbers.
    row_ids : array_like of int, shape (n,)
        Global row ids.

    Returns
    -------
    ndarray of uint64, shape (n,)

    Examples
    --------
    >>> whole = row_hash(0, 1, np.arange(6))
    >>> bool((whole[4:] == row_hash(0, 1, [4, 5])).all())
    True
    """
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN) + np.uint64(stream % 2**64) * _GOLDEN)
        ids = np.asarray(row_ids).astype(np.uint64)
        return _mix(_mix(ids * _GOLDEN + key) + key)


def uniform(seed, stream, row_ids):
    """Hash row ids to floats in [0, 1), 53 bits each; see `row_hash`."""
    return (row_hash(seed, stream, row_ids) >> np.uint64(11)) * 2.0**-53


def as_seed(random_state):
    """Turn scikit-learn's ``random_state`` into a seed.

    Parameters
    ----------
    random_state : None, int, numpy.random.RandomState or numpy.random.Generator
        None draws a fresh seed from the operating system; a generator is advanced by one draw.

    Returns
    -------
    int
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState) or random_state is np.random:
        return int(random_state.randint(2**31 - 1))
    raise ValueError(f"random_state must be None, an int or a NumPy random generator; got {random_state!r}.")
