"""Quantiles of the residuals in each leaf, exact, of rows that nobody holds in one place."""

import functools

import numpy as np

from daskdml.kernels import selecting

_UNIT_BITS = 62


def leaf_quantiles(shards, comm, leaves, quantile, counts):
    """Return a quantile of y - raw over the rows of each leaf.

    Parameters
    ----------
    shards : Shards
    comm : Comm
    leaves : ndarray of int64, shape (m,)
    quantile : float
    counts : bool
        Whether rows count as often as entries say: the quantile is NumPy's then, between two values in proportion.
        Else by weight: the least value with at least that share of the weight at or below it.

    Returns
    -------
    ndarray of float64, shape (m,)

    Notes
    -----
    Six passes over the residuals, each of which sends 32 kB per leaf: a search from the top bits down on keys that sort
    like the numbers, so that nothing is approximated and no order of rows or ranks matters.
    """
    m = len(leaves)
    prefixes = np.zeros((m, 2), np.uint64)
    units = None if counts else _units(shards, comm)
    ranks = fraction = None
    for shift in selecting.SHIFTS:
        found = shards.once(functools.partial(_count, leaves=leaves, units=units, prefixes=prefixes, shift=shift))
        table = sum(found, np.zeros((m, 2, selecting.DIGITS), np.int64))
        if comm.size > 1:
            table = comm.allreduce(table)
        if ranks is None:
            ranks, fraction = _ranks(table[:, 0].sum(axis=1), quantile, counts)
        up_to = np.cumsum(table, axis=2)
        digit = (up_to <= ranks[:, :, None]).sum(axis=2)
        before = np.take_along_axis(up_to - table, digit[:, :, None], axis=2)[:, :, 0]
        ranks = ranks - before
        prefixes = prefixes | (digit.astype(np.uint64) << np.uint64(shift))
    low, high = selecting.values_of(prefixes).T
    return low + (high - low) * fraction


def _ranks(totals, quantile, counts):
    """Return the ranks of two values of each leaf, from 0, and where between them the quantile lies."""
    if counts:
        place = quantile * (totals - 1)
        low = np.floor(place).astype(np.int64)
        return np.stack([low, np.minimum(low + 1, totals - 1)], axis=1), place - low
    low = np.maximum(np.ceil(quantile * totals).astype(np.int64) - 1, 0)
    return np.stack([low, low], axis=1), np.zeros(len(totals))


def _units(shards, comm):
    """Return the weights of each shard's rows as integers of a common unit: their sums are exact."""
    n = sum(map(len, shards))
    most = max((float(shard.weight.max(initial=0.0)) for shard in shards), default=0.0)
    if comm.size > 1:
        n, most = comm.meta.n_samples, float(comm.allreduce(np.array([most]), operation="max")[0])
    scale = 2.0 ** min(_UNIT_BITS - n.bit_length() - int(np.frexp(most)[1]), 1023)
    return {id(shard): _in_units(shard.weight, scale) for shard in shards}


def _in_units(weight, scale):
    # At least one where there is any: a leaf may hold none but the lightest rows.
    return np.where(weight > 0, np.maximum(np.rint(weight * scale), 1), 0).astype(np.int64)


def _count(shard, leaves, units, prefixes, shift):
    counts = np.zeros((len(leaves), 2, selecting.DIGITS), np.int64)
    own = np.empty(0, np.int64) if units is None else units[id(shard)]
    selecting.count_digits(
        shard.entries, shard.segments, leaves, shard.y, shard.raw_of(0), own, prefixes, shift, counts
    )
    return counts
