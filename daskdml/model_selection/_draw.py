"""Which rows a split takes: a rule that any chunk can apply to its own rows, and how its thresholds are found.

Every row has a key, the hash of its global id (its id itself if rows are not shuffled). In each stratum the rows of
the smallest keys are the train rows and those next to them the test rows. The hash is a permutation of the 64-bit
integers, so no two rows have equal keys and the sizes are met exactly.

The threshold of rank r among c keys is found without sorting them all: uniform keys have it within a few standard
deviations, sqrt(c) keys, of r / (c + 1). Chunks count the keys below that window and send those inside.
"""

from typing import NamedTuple

import numpy as np

from daskdml.data import as_target
from daskdml.utils.random import row_hash

SPLIT_STREAM = 0x5EED5
TIES_STREAM = 0x5EED6
TRAIN, TEST = 1, 2
LAST_KEY = 2**64 - 1
_SLAB = 1 << 16


def row_keys(seed, start, n):
    """Return the keys of rows ``start`` to ``start + n``; ``seed=None`` is their order in the table."""
    if seed is None:
        return np.arange(start, start + n, dtype=np.uint64)
    keys = np.empty(n, dtype=np.uint64)
    for first in range(0, n, _SLAB):  # slabs stay in the cache: five times faster
        stop = min(first + _SLAB, n)
        keys[first:stop] = row_hash(seed, SPLIT_STREAM, np.arange(start + first, start + stop))
    return keys


def strata_of(values):
    """Return one sortable label per row; rows of several columns become one string, as in scikit-learn."""
    values = as_target(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        values = np.array([" ".join(row.astype("str")) for row in values], dtype=object)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("Input stratify contains NaN; fill or drop the rows without a stratum first.")
    return values


def count_labels(values):
    """Return the distinct strata of one chunk, sorted, and their numbers of rows."""
    try:
        return np.unique(strata_of(values), return_counts=True)
    except TypeError as error:
        raise ValueError(
            "stratify holds labels that cannot be sorted (missing values, or strings beside numbers); make them one "
            "kind."
        ) from error


def stratum_sizes(counts, n_draws, seed):
    """Share ``n_draws`` rows among strata in proportion to their sizes, by largest remainder.

    Parameters
    ----------
    counts : ndarray of int, shape (n_strata,)
    n_draws : int
    seed : int
        Breaks ties of equal remainders, by a hash of the stratum's position: not by chance, so that every chunking
        gives the same sizes.

    Returns
    -------
    ndarray of int, shape (n_strata,)

    Examples
    --------
    >>> stratum_sizes(np.array([5, 2]), 4, seed=0)
    array([3, 1])
    """
    share = counts / counts.sum() * n_draws
    sizes = np.floor(share)
    ties = row_hash(seed, TIES_STREAM, np.arange(len(counts)))
    order = np.lexsort((ties, -(share - sizes)))
    sizes[order[: int(n_draws - sizes.sum())]] += 1
    return sizes.astype(np.int64)


class Rule(NamedTuple):
    """The rows of a split: per stratum the last key of the train rows and of the test rows (None: no such row).

    ``labels`` are the strata, sorted; None if there is only one.
    """

    seed: int | None
    labels: np.ndarray | None
    cuts: tuple  # per stratum (last train key, last test key)

    def roles(self, start, n, strata):
        """Return TRAIN, TEST or 0 for every row of a chunk."""
        keys = row_keys(self.seed, start, n)
        groups = _groups(self.labels, strata)
        taken_by_train, taken_by_both = (self._taken(keys, groups, cut) for cut in (0, 1))
        return np.where(taken_by_train, TRAIN, np.where(taken_by_both, TEST, 0)).astype(np.uint8)

    def _taken(self, keys, groups, cut):
        last = [pair[cut] for pair in self.cuts]
        known = np.array([key or 0 for key in last], dtype=np.uint64)
        some = np.array([key is not None for key in last])
        return (keys <= known[groups]) & some[groups]


def _groups(labels, strata):
    """Positions of the rows' strata; a single stratum is position 0 for all."""
    return 0 if labels is None else np.searchsorted(labels, strata_of(strata))


class Survey(NamedTuple):
    """What one chunk tells about the keys around the thresholds."""

    below: np.ndarray  # (n_strata, 2): keys up to the lower end of each window
    keys: tuple  # per stratum and cut: the keys inside its window, sorted

    def taken(self, cuts):
        """Count this chunk's train rows and its train and test rows together."""
        totals = [0, 0]
        for (g, k), below in np.ndenumerate(self.below):
            if cuts[g][k] is not None:
                totals[k] += int(below) + int(np.searchsorted(self.keys[2 * g + k], np.uint64(cuts[g][k]), "right"))
        return totals


def survey(seed, labels, windows, start, n, strata):
    """Count one chunk's keys below each window ``(low, high]`` and collect those inside."""
    keys = row_keys(seed, start, n)
    groups = _groups(labels, strata)
    lows, highs = (np.array([[pair[side] for pair in row] for row in windows], dtype=np.uint64) for side in (0, 1))
    below, inside = np.zeros(lows.shape, dtype=np.int64), {}
    for k in (0, 1):
        under = keys <= lows[groups, k]
        held = ~under & (keys <= highs[groups, k])
        if labels is None:
            below[0, k], inside[0, k] = under.sum(), np.sort(keys[held])
            continue
        below[:, k] = np.bincount(groups[under], minlength=len(labels))
        order = np.lexsort((keys[held], groups[held]))
        parts = np.split(keys[held][order], np.cumsum(np.bincount(groups[held], minlength=len(labels)))[:-1])
        inside.update({(g, k): part for g, part in enumerate(parts)})
    return Survey(below, tuple(inside[g, k] for g in range(len(lows)) for k in (0, 1)))


def windows_of(counts, ranks, width):
    """Return per stratum and cut the window ``(low, high]`` of keys around the expected key of a rank.

    ``width`` is in standard deviations of that order statistic of uniform keys.
    """
    return [[_window(int(c), int(r), width) for r in row] for c, row in zip(counts, ranks)]


def _window(count, rank, width):
    if rank == 0:
        return 0, 0
    if rank == count:
        return LAST_KEY, LAST_KEY
    centre = rank / (count + 1)
    spread = (centre * (1 - centre) / (count + 2)) ** 0.5
    half = width * (spread + 1 / count)
    return tuple(min(max(int(side * 2.0**64), 0), LAST_KEY) for side in (centre - half, centre + half))


def cuts_from(surveys, counts, ranks):
    """Return the keys of the given ranks, or None if one lies outside its window."""
    cuts = []
    for g, (count, row) in enumerate(zip(counts, ranks)):
        cuts.append([])
        for k, rank in enumerate(row):
            if rank == 0 or rank == count:
                cuts[-1].append(LAST_KEY if rank else None)
                continue
            place = rank - 1 - sum(int(one.below[g, k]) for one in surveys)
            keys = np.concatenate([one.keys[2 * g + k] for one in surveys])
            if not 0 <= place < len(keys):
                return None
            cuts[-1].append(int(np.partition(keys, place)[place]))
    return tuple(map(tuple, cuts))
