"""Rows of an array that are named by their numbers, a few of very many: taken, added to, and dealt to shards.

Which features a batch of sparse rows stores: `number_columns` counts them through, so that the batch can be worked on
as one of few features, and `deal` says on which shard the row of each lies.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import build, f4, f8, i4, i8, matrix, types, vector
from daskdml.kernels.copying import ask_for, copy_pieces
from daskdml.kernels.sequential import load

LEAST_SLOTS, MOST_LOAD = 64, 0.75
AHEAD = 32  # rows: of very many each lies in a line, and a page, of its own


def number_columns(addresses, counts, n_expected=0, empty=np.empty):
    """Count through the columns that some CSR rows store.

    Parameters
    ----------
    addresses : ndarray of int64, shape (n_rows,)
        Of the int32 columns of each row. The caller keeps what is there alive.
    counts : ndarray of int64, shape (n_rows,)
    n_expected : int, default 0
        About how many distinct ones there will be: a table of many more slots takes twice as long.
    empty : callable of (shape, dtype), default np.empty
        Makes arrays.

    Returns
    -------
    numbers : ndarray of int32, shape (n_stored,)
        Of the rows' columns, behind each other.
    columns : ndarray of int32, shape (n_distinct,)
        The column of each number.

    Examples
    --------
    >>> at = np.array([5, 9, 5], np.int32)
    >>> number_columns(at.ctypes.data + np.array([0, 8]), np.array([2, 1]))
    (array([0, 1, 0], dtype=int32), array([5, 9], dtype=int32))
    """
    n_stored = int(counts.sum())
    numbers, columns = empty(n_stored, np.int32), empty(n_stored, np.int32)
    copy_pieces(addresses, 4 * counts, numbers)
    n_slots = 1 << max(int(1.5 * min(n_expected or n_stored, n_stored)), LEAST_SLOTS).bit_length()
    at = np.zeros(2, np.int64)  # stored columns and distinct ones so far
    while True:
        # A slot is a column and its number together: one line of the cache for each that is looked for.
        slots = empty(n_slots, np.int64)
        _compiled(_number)(slots, numbers, columns, at)
        if at[0] == n_stored:
            return numbers, columns[: at[1]]
        n_slots *= 4


def _number(slots, numbers, columns, at):
    n, mask, begin, most = at[1], slots.size - 1, slots.ctypes.data, np.int64(slots.size * MOST_LOAD)
    slots[:] = 0
    for i in range(n):  # of a table that was too small
        column = np.int64(columns[i])
        slot = _first_slot(column, mask)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = ((column + 1) << 32) | (i + 1)
    for place in range(at[0], numbers.size):
        if n == most:
            at[0], at[1] = place, n
            return
        if place + AHEAD < numbers.size:
            ask_for(begin + 8 * _first_slot(np.int64(numbers[place + AHEAD]), mask))
        column = np.int64(numbers[place])
        slot = _first_slot(column, mask)
        found = slots[slot]
        while found != 0 and found >> 32 != column + 1:
            slot = (slot + 1) & mask
            found = slots[slot]
        if found == 0:
            columns[n] = column
            n += 1
            found = ((column + 1) << 32) | n
            slots[slot] = found
        numbers[place] = (found & 0xFFFFFFFF) - 1
    at[0], at[1] = numbers.size, n


@register_jitable(inline="always")
def _first_slot(column, mask):
    """Return where to look for a column first: those that differ little lie far apart."""
    return ((column * 2654435769) >> 12) & mask  # the high half of a product with the golden ratio


def shares_of_sum(rows, numbers, n_distinct, strengths, n_others, empty=np.empty):
    """Return which share of its own steps a worker is to add, for each column, beside others that take as many.

    A step along a row moves its margin by a fraction e of the way to where its loss is least, at most. The steps of a
    worker that has seen column j move it by ``1 - exp(-E)``, E the sum of e over its rows that store j. Of others' rows
    as many store it as of its own, but for the one that it is known by. The sum of all their moves is cut to what they
    would be one after the other::

        share = (1 - exp(-(E + O))) / ((1 - exp(-E)) + n_others (1 - exp(-O / n_others))),  O = n_others E (c - 1) / c

    which is 1 where steps are small or a column is rare, and one over the number of workers where they are large and it
    is frequent.

    Parameters
    ----------
    rows : daskdml.kernels.sequential.SparseRows
    numbers : ndarray of int32, shape (n_stored,)
        Of the rows' columns, see `number_columns`.
    n_distinct : int
    strengths : ndarray of float64, shape (n_rows,)
        e of a row whose squares have the sum 1.
    n_others : float
        Workers that push while this one works.
    empty : callable of (shape, dtype), default np.empty

    Returns
    -------
    shares : ndarray of shape (n_distinct,)
    of_all : float
        That of a column that every row stores.
    """
    # A sum and the rows in it side by side: one line of the cache for each column.
    shares, sums = empty(n_distinct + 1, np.float64), empty((n_distinct + 1, 2), np.float64)
    like = np.dtype(rows.dtype).type(0)
    _summing(np.dtype(rows.dtype).name)(rows.values, rows.counts, like, numbers, strengths, n_others, sums, shares)
    return shares[:-1], float(shares[-1])


LEAST_STRENGTH = 1e-6  # below, all steps count but for a millionth


def _sum_strengths(values, counts, like, numbers, strengths, n_others, sums, shares):
    place, last = 0, shares.size - 1
    sums[:, :] = 0.0
    for i in range(values.size):
        if i + 1 < values.size:
            for line in range(counts[i + 1] * 8 // 64 + 1):
                ask_for(values[i + 1] + 64 * line)
        square = 0.0
        for k in range(counts[i]):
            value = load(values[i], k, like)
            square += value * value
        strength = strengths[i] * square
        for k in range(counts[i]):
            number = numbers[place + k]
            sums[number, 0] += strength
            sums[number, 1] += 1.0
        place += counts[i]
        sums[last, 0] += strength
        sums[last, 1] += 1.0
    for j in range(shares.size):
        own, n_rows, share = sums[j, 0], sums[j, 1], 1.0
        if n_rows > 1.0 and own > LEAST_STRENGTH:
            other = own * (n_rows - 1.0) / n_rows
            apart = 1.0 - math.exp(-own) + n_others * (1.0 - math.exp(-other))
            share = (1.0 - math.exp(-own - n_others * other)) / apart
        shares[j] = share


def deal(keys, factor, n_blocks, part_blocks, n_parts, shift, empty=np.empty):
    """Find where rows lie that are dealt by blocks, block b to place ``b * factor % n_blocks`` of all parts' blocks.

    Parameters
    ----------
    keys : ndarray of int32, shape (n,)
    factor, n_blocks : int
        Without a common divisor, below 2**31.
    part_blocks, n_parts : int
    shift : int
        A block has ``2**shift`` rows.
    empty : callable of (shape, dtype), default np.empty

    Returns
    -------
    where : ndarray of int32, shape (n,)
        The place of each key among all of them by parts; those of a part are in the order of ``keys``.
    places : ndarray of int32, shape (n,)
        Where the rows of these keys lie in their parts, by parts.
    edges : ndarray of int64, shape (n_parts + 1,)
        Where the keys of each part begin.
    """
    slots, where, places = (empty(len(keys), dtype) for dtype in (np.int64, np.int32, np.int32))
    edges = np.zeros(n_parts + 1, np.int64)
    _compiled(_deal)(keys, factor, n_blocks, part_blocks, shift, slots, where, places, edges)
    return where, places, edges


def _deal(keys, factor, n_blocks, part_blocks, shift, slots, where, places, edges):
    per_all, per_part = 1.0 / n_blocks, 1.0 / part_blocks
    for i in range(keys.size):
        product = (np.int64(keys[i]) >> shift) * factor
        slot = product - n_blocks * _quotient(product, n_blocks, per_all)
        part = _quotient(slot, part_blocks, per_part)
        # Part and place in it, in one number.
        slots[i] = (part << 32) | ((slot - part * part_blocks) << shift) | (np.int64(keys[i]) & ((1 << shift) - 1))
    for i in range(keys.size):  # apart: the loop above takes vectors
        edges[(slots[i] >> 32) + 1] += 1
    for part in range(1, edges.size):
        edges[part] += edges[part - 1]
    begin = edges.copy()
    for i in range(keys.size):
        part = slots[i] >> 32
        at = begin[part]
        begin[part] = at + 1
        where[i] = at
        places[at] = slots[i] & 0xFFFFFFFF


@register_jitable(inline="always")
def _quotient(x, n, per_n):
    """Return ``x // n`` for ``0 <= x < 2**31 n``; divisions take three times as long."""
    quotient = np.int64(x * per_n)  # rounded by less than one
    rest = x - quotient * n
    return quotient - (rest < 0) + (rest >= n)


class Change(NamedTuple):
    """What steps have made of coefficients, beside the coefficients themselves; see `moved_rows`.

    Attributes
    ----------
    wscale : float
        See `daskdml.kernels.sequential.State`.
    log_left, log_left_of_all : float
        Logarithm of what L2 has left of a coefficient in a worker's own steps, and in those of all.
    stride : float
        Steps of all for each of its own.
    shrinkage : float
        What L1 could have taken from each in its own steps.
    """

    wscale: float
    log_left: float
    log_left_of_all: float
    stride: float
    shrinkage: float


def moved_rows(rows, where, shares, states, changes, has_l1, is_alone, empty=np.empty):
    """Return by how much steps have moved coefficients, as `add_to_rows` takes it.

    Where a share of the steps counts, a share of the penalty does. L2 has shrunk the whole table by that of all steps,
    and L1 will take what has come up in all: what is too much of them is given back.

    Parameters
    ----------
    rows : ndarray of shape (n, n_models) or with L1 (n, 2 n_models)
        Coefficients before, and behind them what L1 has taken.
    where : ndarray of int32, shape (n,)
        The place of each row in the result.
    shares : ndarray of shape (n,)
        See `shares_of_sum`.
    states : list of daskdml.kernels.sequential.State
        Of each model after the steps.
    changes : list of Change
    has_l1, is_alone : bool
        Whether there is L1, and whether nobody else takes steps.
    empty : callable of (shape, dtype), default np.empty

    Returns
    -------
    ndarray of shape (n, n_models), with L1 (n, 2 n_models) or, beside others, (n, 3 n_models)
    """
    k = len(states)
    out = empty((len(where), k * (1 if not has_l1 else 2 if is_alone else 3)), rows.dtype)
    for j, (state, change) in enumerate(zip(states, changes)):
        kernel = _typed(_moved, rows.dtype.name)
        kernel(rows, where, shares, state.coef, state.q, np.array(change), j, k, has_l1, is_alone, out)
    return out


def _moved(rows, where, shares, coef, q, change, j, n_models, has_l1, is_alone, out):
    wscale, log_left, log_left_of_all, stride, shrinkage = change[0], change[1], change[2], change[3], change[4]
    left, left_of_all = math.exp(log_left), math.exp(log_left_of_all)
    for i in range(where.size):
        at = where[i]
        share, before, now = shares[i] if shares.size else 1.0, np.float64(rows[i, j]), wscale * coef[i]
        moved = share * (now - left * before)
        if log_left != 0.0 and share < 1.0:
            moved += (math.exp(stride * share * log_left) - left_of_all) / stride * before
        out[at, j] = moved
        if has_l1:
            out[at, n_models + j] = share * (q[i] - np.float64(rows[i, n_models + j]))
            if not is_alone:
                spared = (1.0 - share) * shrinkage
                out[at, 2 * n_models + j] = -spared if now > 0.0 else spared if now < 0.0 else 0.0


def take_rows(rows, places, factor, n_decaying, empty=np.empty):
    """Return some rows, the first columns of them times a factor.

    Parameters
    ----------
    rows : ndarray of shape (n, width), float32 or float64
    places : ndarray of int32, shape (m,)
    factor : float
    n_decaying : int
        Columns that it is for.
    empty : callable of (shape, dtype), default np.empty

    Returns
    -------
    ndarray of shape (m, width)
    """
    out = empty((len(places), rows.shape[1]), rows.dtype)
    _typed(_take, rows.dtype.name)(rows, places, factor, n_decaying, out)
    return out


def _take(rows, places, factor, n_decaying, out):
    begin, step, width = rows.ctypes.data, rows.strides[0], rows.shape[1]
    for i in range(places.size):
        if i + AHEAD < places.size:
            ask_for(begin + np.int64(places[i + AHEAD]) * step)
        for j in range(width):
            value = rows[places[i], j]
            out[i, j] = value * factor if j < n_decaying else value


def add_to_rows(rows, places, added, factor, n_decaying, most_shrinkage=-1.0):
    """Add to some rows, in place; to the first columns of them what is added times a factor.

    Parameters
    ----------
    rows : ndarray of shape (n, width), float32 or float64
    places : ndarray of int32, shape (m,)
        Each once.
    added : ndarray of shape (m, width), of the dtype of ``rows``
        With ``n_decaying`` more columns, if shrinkages are bounded.
    factor : float
    n_decaying : int
    most_shrinkage : float, default -1.0
        If it is not negative, column ``n_decaying + j`` says how much of what is added to column j is a shrinkage: that
        moves the number towards zero and not beyond, or not at all, and what it has moved is added to that column,
        which comes to this at most (a proximal step of L1 after that along the gradient). Others may have done the same
        meanwhile. The columns behind those are added to them as if they had moved something.
    """
    tiny = ROUNDING * float(np.finfo(rows.dtype).eps)
    _typed(_add, rows.dtype.name)(rows, places, added, factor, n_decaying, most_shrinkage, tiny)


def _add(rows, places, added, factor, n_decaying, most_shrinkage, tiny):
    begin, step, width = rows.ctypes.data, rows.strides[0], rows.shape[1]
    shrinks = most_shrinkage >= 0.0
    for i in range(places.size):
        if i + AHEAD < places.size:
            ask_for(begin + np.int64(places[i + AHEAD]) * step)
        row = places[i]
        for j in range(width):
            if j >= n_decaying:
                if not shrinks:
                    rows[row, j] += added[i, j]
                continue
            before, change = np.float64(rows[row, j]), np.float64(added[i, j]) * factor
            shrinkage = np.float64(added[i, n_decaying + j]) * factor if shrinks else 0.0
            moved = before + (change - shrinkage)
            after = moved + shrinkage
            if shrinks:
                already = np.float64(rows[row, n_decaying + j])
                if moved > 0.0 and shrinkage < 0.0:
                    after = max(moved + max(shrinkage, -max(most_shrinkage + already, 0.0) * factor), 0.0)
                elif moved < 0.0 and shrinkage > 0.0:
                    after = min(moved + min(shrinkage, max(most_shrinkage - already, 0.0) * factor), 0.0)
                else:
                    after = moved
            # A difference of equal numbers is zero but for rounding: coefficients that L1 has made zero are to be that.
            if abs(after) < tiny * max(abs(before), abs(change)):
                after = 0.0
            rows[row, j] = after
            if shrinks:
                rows[row, n_decaying + j] += (after - moved) / factor + added[i, 2 * n_decaying + j]


ROUNDING = 16  # units of the last place of what was added up


@functools.cache
def _compiled(body):
    write, numbers = vector(i8), vector(i4)
    signatures = {
        _number: types.void(write, numbers, numbers, write),
        _deal: types.void(vector(i4, read=True), i8, i8, i8, i8, write, numbers, numbers, write),
    }
    return build(body, signatures[body])


@functools.cache
def _typed(body, dtype):
    real = f4 if dtype == "float32" else f8
    rows, read, places, numbers = matrix(real), matrix(real, read=True), vector(i4, read=True), vector(f8, read=True)
    signatures = {
        _take: types.void(read, places, f8, i8, rows),
        _moved: types.void(
            read, places, numbers, numbers, numbers, numbers, i8, i8, types.boolean, types.boolean, rows,
        ),
        _add: types.void(rows, places, read, f8, i8, f8, f8),
    }
    return build(body, signatures[body])


@functools.cache
def _summing(dtype):
    like, read, write = f4 if dtype == "float32" else f8, vector(i8, read=True), vector(f8)
    signature = types.void(read, read, like, vector(i4, read=True), vector(f8, read=True), f8, matrix(f8), write)
    return build(_sum_strengths, signature)
