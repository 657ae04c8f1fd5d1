"""What a tree does with rows of which few values are stored: histograms, and divided leaves.

Conventions beside those of `daskdml.kernels.growing` and `daskdml.kernels.stored`. A row costs one addition per value
that it stores; what these leave of a leaf's sums, feature by feature, lies in the bins of zero.

A column that stores few values parts few rows from many. So a large leaf is no range of entries but a *slot*: all rows
whose byte in ``slots`` is its number. To divide it is to go through the column, by which some rows get another number,
and not through the leaf: a tree of 31 leaves whose columns store a tenth took 25 instead of 250 million steps a million
rows (counted). A small leaf is a *list*, a range of entries in ``listed``, of which each row is searched for the
feature's code. Rows that are in a list stay in lists, so that there is room for each once::

    nodes[node] = start, stop, parent           a list
    nodes[node] = -1 - slot, n_rows, parent     a slot

What was a leaf keeps its range or number; so does, of the two children of a slot, the one with the rows that stay.
Once a tree stands, `settle` makes ranges of all leaves.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import build, i8, matrix, types, vector
from daskdml.kernels.growing import AHEAD, MISSING, fields_of, packed_of, prefetch, row_of, ticks, unpacked
from daskdml.kernels.stored import index_of, type_of

LISTED = 255  # instead of a slot, of rows in lists
u1, u4, u8 = types.uint8, types.uint32, types.uint64


# Histograms -----------------------------------------------------------------------------------------------------------


def find_windows(codes, indptr, n_codes, most):
    """Return the ends of ranges of rows in none of which more than ``most`` rows have the same code.

    So far a packed histogram reaches: of sparse columns much farther than ``most`` rows.

    Returns
    -------
    ndarray of int64
        Ascending; the last is the number of rows.
    """
    ends = np.empty((len(indptr) - 1) // most + 2, np.int64)
    index = vector(index_of(indptr.dtype), read=True)
    signature = i8(vector(type_of(codes.dtype), read=True), index, i8, vector(i8), vector(i8))
    return ends[: build(_find_windows, signature)(codes, indptr, most, np.zeros(n_codes, np.int64), ends)].copy()


def _find_windows(codes, indptr, most, counts, ends):
    n, k = indptr.size - 1, 0
    for i in range(n):
        is_over = False
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            count = counts[np.uint64(codes[j])] + 1
            counts[np.uint64(codes[j])] = count
            is_over |= count > most
        if is_over:
            ends[k] = i
            k += 1
            counts[:] = 0
            for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                counts[np.uint64(codes[j])] = 1
    ends[k] = n
    return k + 1


def add_rows(codes, indptr, entries, start, stop, packed, first, zero, windows, sums):
    """Add a range of entries to a histogram.

    Parameters
    ----------
    codes, indptr : see `daskdml.kernels.stored`
    entries : ndarray of uint64, shape (n,)
        Ascending by row in the range.
    start, stop : int
    packed : ndarray of int64, shape (first[-1],)
        Scratch of zeros; zeros again afterwards.
    first : ndarray of int64, shape (p + 1,)
    zero : ndarray of uint8, shape (p,)
        The bins of zero.
    windows : ndarray of int64
        See `find_windows`, of the entries whose sums fit the packed fields.
    sums : ndarray of int64, shape (3, first[-1])
    """
    kernel = _add_rows_kernel(codes.dtype, index_of(indptr.dtype))
    kernel(codes, indptr, entries, start, stop, packed, first, zero, windows, sums)


@functools.cache
def _add_rows_kernel(dtype, index):
    signature = types.void(
        vector(type_of(dtype), read=True), vector(index, read=True), vector(u8), i8, i8, vector(i8), vector(i8),
        vector(u1, read=True), vector(i8), matrix(i8),
    )  # fmt: skip
    return build(_add_all, signature)


def _add_all(codes, indptr, entries, start, stop, packed, first, zero, windows, sums):
    _add(codes, indptr, entries, start, stop, packed, first, zero, windows, sums)


@register_jitable
def _add(codes, indptr, entries, start, stop, packed, first, zero, windows, sums):
    begin = start
    while begin < stop:
        end = _end_of_window(entries, begin, stop, windows)
        last = end - AHEAD
        g = h = c = np.int64(0)
        for j in range(begin, end):
            if j < last:
                ahead = row_of(entries[np.uint64(j + AHEAD)])
                prefetch(codes, np.int64(indptr[ahead]))
                prefetch(codes, np.int64(indptr[ahead + np.uint64(1)]) - 1)
                prefetch(indptr, row_of(entries[np.uint64(min(j + 2 * AHEAD, end - 1))]))
            entry = entries[np.uint64(j)]
            w, i = packed_of(entry), row_of(entry)
            own_g, own_h, times = fields_of(entry)
            g, h, c = g + times * own_g, h + times * own_h, c + times
            for k in range(np.uint64(indptr[i]), np.uint64(indptr[i + np.uint64(1)])):
                packed[np.uint64(codes[k])] += w
        _flush(packed, first, zero, g, h, c, sums)
        begin = end


@register_jitable
def _add_timed(codes, indptr, entries, start, stop, packed, first, zero, windows, sums):
    before = ticks()
    _add(codes, indptr, entries, start, stop, packed, first, zero, windows, sums)
    return ticks() - before


@register_jitable
def _end_of_window(entries, begin, stop, windows):
    """Return where the entries of the window that the first of them lies in end."""
    end = np.int64(row_of(entries[np.uint64(begin)]))
    w = 0
    while windows[w] <= end:
        w += 1
    low, high = begin, stop
    while low < high:
        middle = (low + high) >> 1
        if np.int64(row_of(entries[np.uint64(middle)])) < windows[w]:
            low = middle + 1
        else:
            high = middle
    return low


@register_jitable
def _flush(packed, first, zero, g, h, c, sums):
    """Take a packed histogram over into three words a bin; what it leaves of the totals g, h, c lies in zero."""
    for f in range(zero.size):
        rest_g, rest_h, rest_c = g, h, c
        for b in range(first[f], first[f + 1]):
            v = packed[b]
            packed[b] = 0
            own_g, own_h, own_c = unpacked(v)
            sums[0, b] += own_g
            sums[1, b] += own_h
            sums[2, b] += own_c
            rest_g -= own_g
            rest_h -= own_h
            rest_c -= own_c
        of_zero = first[f] + zero[f]
        sums[0, of_zero] += rest_g
        sums[1, of_zero] += rest_h
        sums[2, of_zero] += rest_c


# Leaves ---------------------------------------------------------------------------------------------------------------


class Leaves(NamedTuple):
    """Where the rows of each node are; see the module.

    Attributes
    ----------
    nodes : ndarray of int64, shape (n_nodes, 3)
    slots : ndarray of uint8, shape (n,)
    listed : ndarray of uint64, shape (n,)
    used : ndarray of int64, shape (2,)
        How much of ``listed`` is taken, and how many slots are.
    """

    nodes: Any
    slots: Any
    listed: Any
    used: Any


def split_leaves(
    codes, indptr, columns, entries, leaves, splits, goes_right, adds, packed, first, zero, windows, sums, spare, least,
    took,
):  # fmt: skip
    """Divide leaves, and add the rows of one child of each to a histogram.

    Parameters
    ----------
    codes, indptr, packed, first, zero, windows : see `add_rows`
    columns : tuple (ends, rows, bins)
        See `daskdml.kernels.stored.by_columns`; nothing of them is read where all leaves are lists.
    entries : ndarray of uint64, shape (n,)
        In the order of rows.
    leaves : Leaves
        Written to.
    splits, goes_right, adds, sums, spare, took : see `daskdml.kernels.growing.split_leaves`
    least : int
        A leaf of fewer rows is a list.
    """
    kernel = _split_leaves_kernel(codes.dtype, index_of(indptr.dtype))
    kernel(
        codes, indptr, *columns, entries, *leaves, splits, goes_right, adds, packed, first, zero, windows, sums, spare,
        least, took,
    )  # fmt: skip


@functools.cache
def _split_leaves_kernel(dtype, index):
    signature = types.void(
        vector(type_of(dtype), read=True), vector(index, read=True), vector(i8), vector(u4), vector(u1), vector(u8),
        matrix(i8), vector(u1), vector(u8), vector(i8), matrix(i8), matrix(u1), vector(i8), vector(i8), vector(i8),
        vector(u1, read=True), vector(i8), types.Array(i8, 3, "C"), vector(u8), i8, vector(i8),
    )  # fmt: skip
    return build(_split_leaves, signature)


def _split_leaves(
    codes, indptr, ends, rows, bins, entries, nodes, slots, listed, used, splits, goes_right, adds, packed, first,
    zero, windows, sums, spare, least, took,
):  # fmt: skip
    begun, added = ticks(), took[1]
    for s in range(splits.shape[0]):
        feature, node, left, right = splits[s, 0], splits[s, 1], splits[s, 2], splits[s, 3]
        low, n_bins = first[feature], first[feature + 1] - first[feature]
        table = goes_right[s].copy()
        table[n_bins - 1] = goes_right[s, MISSING]
        of_zero = table[zero[feature]]
        adding = -1 if adds[s] < 0 else splits[s, 2 + adds[s]]
        nodes[left, 2] = nodes[right, 2] = node
        start, stop = nodes[node, 0], nodes[node, 1]
        if start >= 0:
            middle = _part(codes, indptr, listed, start, stop, low, n_bins, table, of_zero, spare)
            nodes[left, 0], nodes[left, 1] = start, middle
            nodes[right, 0], nodes[right, 1] = middle, stop
            if adding >= 0:
                start, stop = nodes[adding, 0], nodes[adding, 1]
                took[1] += _add_timed(codes, indptr, listed, start, stop, packed, first, zero, windows, sums[s])
            continue
        slot, (leaving, staying) = -1 - start, ((left, right) if of_zero else (right, left))
        n = _find_leaving(rows, bins, ends[feature], ends[feature + 1], slots, slot, table, of_zero, spare)
        number = LISTED
        if n >= least and used[1] < LISTED:
            number = used[1]
            used[1] += 1
            nodes[leaving, 0], nodes[leaving, 1] = -1 - number, n
        for j in range(n):
            i = spare[np.uint64(j)]
            slots[i] = number
            spare[np.uint64(j)] = entries[i]
        if number == LISTED:
            top = used[0]
            used[0] += n
            listed[top : used[0]] = spare[:n]
            nodes[leaving, 0], nodes[leaving, 1] = top, used[0]
        if adding == leaving:
            took[1] += _add_timed(codes, indptr, spare, 0, n, packed, first, zero, windows, sums[s])
        n = stop - n
        if n < least:
            top = used[0]
            used[0] += n
            _collect(entries, slots, slot, listed, top, used[0])
            for j in range(top, used[0]):
                slots[row_of(listed[np.uint64(j)])] = LISTED
            nodes[staying, 0], nodes[staying, 1] = top, used[0]
            if adding == staying:
                took[1] += _add_timed(codes, indptr, listed, top, used[0], packed, first, zero, windows, sums[s])
        else:
            nodes[staying, 0], nodes[staying, 1] = start, n
            if adding == staying:
                _collect(entries, slots, slot, spare, 0, n)
                took[1] += _add_timed(codes, indptr, spare, 0, n, packed, first, zero, windows, sums[s])
    took[0] += ticks() - begun - (took[1] - added)


@register_jitable
def _part(codes, indptr, listed, start, stop, low, n_bins, table, of_zero, spare):
    """Divide a list in place; return where its second part begins."""
    low, high, last = np.uint64(low), np.uint64(low + n_bins), stop - AHEAD
    l, r = start, 0
    for j in range(start, stop):
        if j < last:
            prefetch(codes, np.int64(indptr[row_of(listed[np.uint64(j + AHEAD)])]))
        entry = listed[np.uint64(j)]
        i = row_of(entry)
        # The last code that is not behind the feature's, without a branch to guess.
        at, n = np.uint64(indptr[i]), np.uint64(indptr[i + np.uint64(1)]) - np.uint64(indptr[i])
        c = np.int64(of_zero)
        if n:
            while n > np.uint64(1):
                half = n >> np.uint64(1)
                at += half * np.uint64(np.uint64(codes[at + half]) < high)
                n -= half
            code = np.uint64(codes[at])
            if low <= code < high:
                c = np.int64(table[code - low])
        listed[np.uint64(l)] = entry
        spare[np.uint64(r)] = entry
        l += 1 - c
        r += c
    for j in range(r):
        listed[np.uint64(l + j)] = spare[np.uint64(j)]
    return l


@register_jitable
def _find_leaving(rows, bins, begin, end, slots, slot, table, of_zero, found):
    """Write the rows of a slot that do not go where zeros go; return how many they are."""
    n = 0
    for k in range(begin, end):
        i = rows[np.uint64(k)]
        found[np.uint64(n)] = i
        # Not a branch: nothing tells how it goes.
        n += np.int64(slots[np.uint64(i)] == slot) & np.int64(table[np.uint64(bins[np.uint64(k)])] != of_zero)
    return n


@register_jitable
def _collect(entries, slots, slot, out, at, end):
    """Write the entries of a slot to a range that is as long."""
    i = np.uint64(0)
    while at < end:
        if slots[i] == slot:
            out[np.uint64(at)] = entries[i]
            at += 1
        i += np.uint64(1)


def settle(entries, leaves, n_nodes, wanted, segments, spare):
    """Let the entries of each leaf of a tree be a range.

    Parameters
    ----------
    entries : ndarray of uint64, shape (n,)
        In the order of rows; written to.
    leaves : Leaves
    n_nodes : int
    wanted : ndarray of int64, shape (m,)
        Nodes: all the leaves of the tree. What was divided below them does not count.
    segments : ndarray of int64, shape (at least n_nodes, 2)
        Those of the leaves are written.
    spare : ndarray of uint64
        Room for all entries.
    """
    signature = types.void(
        vector(u8), matrix(i8), vector(u1), vector(u8), i8, vector(i8), matrix(i8), vector(u8)
    )
    build(_settle, signature)(entries, leaves.nodes, leaves.slots, leaves.listed, n_nodes, wanted, segments, spare)


def _settle(entries, nodes, slots, listed, n_nodes, wanted, segments, spare):
    place_of, is_divided = np.full(n_nodes, -1), np.zeros(n_nodes, np.bool_)
    for k in range(wanted.size):
        place_of[wanted[k]] = k
    for node in range(1, n_nodes):
        is_divided[nodes[node, 2]] = True
        if place_of[node] < 0:
            place_of[node] = place_of[nodes[node, 2]]
    at, place_of_slot = np.zeros(wanted.size + 1, np.int64), np.zeros(LISTED + 1, np.int64)
    for node in range(n_nodes):
        if not is_divided[node]:
            start, stop = nodes[node, 0], nodes[node, 1]
            at[place_of[node] + 1] += stop - max(start, 0)
            if start < 0:
                place_of_slot[-1 - start] = place_of[node]
    for k in range(wanted.size):
        at[k + 1] += at[k]
        segments[wanted[k], 0], segments[wanted[k], 1] = at[k], at[k + 1]
    for i in range(entries.size):
        if slots[i] != LISTED:
            k = np.uint64(place_of_slot[slots[i]])
            spare[np.uint64(at[k])] = entries[i]
            at[k] += 1
    for node in range(n_nodes):
        if not is_divided[node] and nodes[node, 0] >= 0:
            k = place_of[node]
            for j in range(nodes[node, 0], nodes[node, 1]):
                spare[np.uint64(at[k])] = listed[np.uint64(j)]
                at[k] += 1
    entries[:] = spare[: entries.size]
