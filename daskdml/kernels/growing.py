"""What a tree does with the rows of one shard: quantise gradients, add up histograms, divide and sum up leaves.

Conventions. A shard is a contiguous range of rows, as ``words`` (rows of bins, four to a uint32) and ``columns`` (the
same bins by features, of any strides). ``entries`` holds each row once, ordered by leaf, in one uint64::

    times (4 bits) | row (28 bits) | gradient (16 bits, signed) | hessian (16 bits)

gradient and hessian being integers: whatever order they are added in, sums are exact. A leaf is a range of entries,
``segments[node] = (start, stop)``, in ascending order of rows.

A histogram has the bins of all features behind each other, ``first[f]`` to ``first[f + 1]`` those of feature f, of
which the last is for missing values. It is added up in one int64 a bin (gradient in the upper 26 bits, hessian in 25,
count in 13), which goes over into three int64 before a field can overflow. Packed so, a row costs one addition per
feature instead of three (0.4 instead of 0.8 ns for two words, measured).

Every index is unsigned: for a signed one numba tests whether it counts from the end, which cost 2.3 times the time.
Signatures are made once: to make one takes as long as to add up a thousand rows.
"""

import functools
import platform
import time

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload, register_jitable

from daskdml.kernels.compile import build, f4, f8, i8, matrix, types, vector

N_BINS = 256
# Words of a feature in a packed histogram. With 256 bin b of every other feature would lie in the same set of the
# first-level cache: of 140 columns of zeros and ones, 2.5 nanoseconds a row and feature (measured).
PACKED_BINS = 264
FIELD_BITS = 25  # of the sums of gradients (beside the sign) and hessians in one packed word
COUNT_MOST = 8191
MOST_ROWS = 1 << 28
MISSING = 255
AHEAD = 16  # rows: about as long as a line takes from memory
_BLOCK = 32768  # entries that are divided before those of the smaller child are added up: still in the cache then
u1, u4, u8 = types.uint8, types.uint32, types.uint64


def prefetch(array, row):
    """Ask for a row of a matrix that will be read soon; changes nothing."""


@intrinsic
def _prefetch_row(context, array, row):
    def emit(ctx, builder, sig, args):
        made = ctx.make_array(sig.args[0])(ctx, builder, args[0])
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        stride = builder.extract_value(made.strides, 0)
        where = builder.gep(builder.bitcast(made.data, byte), [builder.mul(args[1], stride)])
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [where, i32(0), i32(3), i32(1)])
        return ctx.get_dummy_value()

    return types.void(array, row), emit


@overload(prefetch)
def _prefetch_compiled(array, row):
    return lambda array, row: _prefetch_row(array, row)


def ticks():
    """Return a count that grows with time; 0 for ever where programs may not read the processor's."""
    return time.perf_counter_ns()


@intrinsic
def _read_ticks(context):
    def emit(ctx, builder, sig, args):
        if platform.machine() not in ("x86_64", "AMD64"):  # on others to read it may end the program
            return ctx.get_constant(i8, 0)
        function = builder.module.declare_intrinsic("llvm.readcyclecounter", (), ir.FunctionType(ir.IntType(64), []))
        return builder.call(function, [])

    return i8(), emit


@overload(ticks)
def _ticks_compiled():
    return lambda: _read_ticks()


# Entries --------------------------------------------------------------------------------------------------------------


@register_jitable
def mix(x):
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, variant 13)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fill_entries(gradient, hessian, times, first_row, key, scales, share, is_stochastic, entries, offset=0):
    """Write the entries of rows of a shard, in the order of rows.

    Parameters
    ----------
    gradient : ndarray of float32, shape (n,)
    hessian : ndarray of float32, shape (n,) or (0,) for ones
    times : ndarray of uint8, shape (n,) or (0,) for ones
        How often a row counts, 0 to 15.
    first_row : int
        Global number of the first row: what is drawn for a row hangs on its number alone.
    key : int
        Of this tree: draws of other trees are independent.
    scales : tuple of two floats
        Steps per unit of gradient and hessian.
    share : float
        Of the rows that take part; the others have 0 times.
    is_stochastic : bool
        Round up with the probability of the fraction: sums then have the right mean. Else round to the nearest.
    entries : ndarray of uint64, shape (n,)
    offset : int, default 0
        Of the first of these rows in the shard.
    """
    # The upper 32 bits of a second hash choose the rows.
    least = np.uint64(min(int(share * 2**32), 2**32))
    _fill_entries_kernel()(
        gradient, hessian, times, np.uint64(first_row), np.uint64(key), *scales, least, is_stochastic, entries,
        np.uint64(offset),
    )  # fmt: skip


@functools.cache
def _fill_entries_kernel():
    signature = types.void(
        vector(f4, read=True), vector(f4, read=True), vector(u1, read=True), u8, u8, f8, f8, u8, types.boolean,
        vector(u8), u8,
    )  # fmt: skip
    return build(_fill_entries, signature)


def _fill_entries(gradient, hessian, times, first_row, key, g_scale, h_scale, share, is_stochastic, entries, offset):
    for i in range(entries.size):
        z = mix((first_row + np.uint64(i)) * np.uint64(0x9E3779B97F4A7C15) + key)
        u, v = 0.5, 0.5
        if is_stochastic:
            u = np.float64(np.int64(z & np.uint64(0xFFFFFF))) * 2.0**-24
            v = np.float64(np.int64((z >> np.uint64(24)) & np.uint64(0xFFFFFF))) * 2.0**-24
        m = np.int64(times[i]) if times.size else 1
        if share < np.uint64(1 << 32) and (mix(z) >> np.uint64(32)) >= share:
            m = 0
        g, h = np.int64(np.floor(np.float64(gradient[i]) * g_scale + u)), np.int64(1)
        if hessian.size:
            h = np.int64(np.floor(np.float64(hessian[i]) * h_scale + v))
        entries[i] = (
            (np.uint64(m) << np.uint64(60)) | ((np.uint64(i) + offset) << np.uint64(32))
            | np.uint64((g & 0xFFFF) << 16) | np.uint64(h & 0xFFFF)
        )  # fmt: skip


# Histograms -----------------------------------------------------------------------------------------------------------


@register_jitable
def fields_of(entry):
    """Return gradient, hessian and times of an entry."""
    low = np.int32(np.uint32(entry & np.uint64(0xFFFFFFFF)))
    return np.int64(low >> np.int32(16)), np.int64(low & np.int32(0xFFFF)), np.int64(entry >> np.uint64(60))


@register_jitable
def packed_of(entry):
    """Return what an entry adds to a packed bin."""
    g, h, times = fields_of(entry)
    return ((g << 38) + (h << 13) + 1) * times


@register_jitable
def row_of(entry):
    return (entry >> np.uint64(32)) & np.uint64(0xFFFFFFF)


@register_jitable
def _add_rows(words, entries, start, stop, packed):
    """Add entries start to stop to a packed histogram."""
    n_words = packed.size // (4 * PACKED_BINS)  # those of a row that hold features
    last = stop - AHEAD
    for j in range(start, stop):
        if j < last:
            prefetch(words, np.int64(row_of(entries[np.uint64(j + AHEAD)])))
        entry = entries[np.uint64(j)]
        w, i = packed_of(entry), row_of(entry)
        for k in range(n_words):
            v, o = words[i, np.uint64(k)], np.uint64(k * 4 * PACKED_BINS)
            packed[o + np.uint64(v & np.uint32(255))] += w
            packed[o + np.uint64(PACKED_BINS) + np.uint64((v >> np.uint32(8)) & np.uint32(255))] += w
            packed[o + np.uint64(2 * PACKED_BINS) + np.uint64((v >> np.uint32(16)) & np.uint32(255))] += w
            packed[o + np.uint64(3 * PACKED_BINS) + np.uint64(v >> np.uint32(24))] += w


@register_jitable
def unpacked(v):
    """Return the three sums that stand in a packed bin."""
    return v >> 38, (v >> 13) & ((1 << FIELD_BITS) - 1), v & COUNT_MOST


@register_jitable
def _unpack_bin(v, sums, place):
    """Add what stands in a packed bin to three words."""
    g, h, c = unpacked(v)
    sums[0, place] += g
    sums[1, place] += h
    sums[2, place] += c


@register_jitable
def _flush(packed, first, sums):
    """Take a packed histogram over into three words a bin."""
    for f in range(first.size - 1):
        part = packed[f * PACKED_BINS : f * PACKED_BINS + N_BINS]
        start, n = first[f], first[f + 1] - first[f] - 1
        for b in range(n):
            _unpack_bin(part[b], sums, start + b)
            part[b] = 0
        _unpack_bin(part[MISSING], sums, start + n)
        part[MISSING] = 0
    for f in range(first.size - 1, packed.size // PACKED_BINS):  # what fills up the last word of a row
        packed[f * PACKED_BINS] = 0


@register_jitable
def _add_and_flush(words, entries, start, stop, packed, first, sums, most):
    for begin in range(start, stop, most):
        _add_rows(words, entries, begin, min(begin + most, stop), packed)
        _flush(packed, first, sums)


def add_rows(words, entries, start, stop, packed, first, sums, most):
    """Add a range of entries to a histogram.

    Parameters
    ----------
    words : ndarray of uint32, shape (n, at least n_words)
    entries : ndarray of uint64, shape (n,)
    start, stop : int
    packed : ndarray of int64, shape (4 * PACKED_BINS * n_words,)
        Scratch of zeros; zeros again afterwards.
    first : ndarray of int64, shape (p + 1,)
        See the module.
    sums : ndarray of int64, shape (3, first[-1])
        Gradients, hessians, counts.
    most : int
        Entries whose sums fit the packed fields.
    """
    _add_rows_kernel()(words, entries, start, stop, packed, first, sums, most)


@functools.cache
def _add_rows_kernel():
    signature = types.void(matrix(u4, read=True), vector(u8), i8, i8, vector(i8), vector(i8), matrix(i8), i8)
    return build(_add_all, signature)


def _add_all(words, entries, start, stop, packed, first, sums, most):
    _add_and_flush(words, entries, start, stop, packed, first, sums, most)


def split_leaves(
    words, columns, entries, segments, splits, goes_right, adds, packed, first, sums, spare, most, took
):
    """Divide leaves, and add the rows of one child of each to a histogram.

    Parameters
    ----------
    words, columns, entries : see the module
    segments : ndarray of int64, shape (n_nodes, 2)
        Those of the children are written.
    splits : ndarray of int64, shape (m, 4)
        Feature, node, left child, right child.
    goes_right : ndarray of uint8, shape (m, 256)
        Whether rows of a bin go right, 0 or 1.
    adds : ndarray of int64, shape (m,)
        Which child's rows are added up: 0 left, 1 right, -1 none.
    packed, first : ndarrays of int64
        See `add_rows`.
    sums : ndarray of int64, shape (m, 3, first[-1])
    spare : ndarray of uint64
        Room for as many entries as the largest leaf has.
    most : int
    took : ndarray of int64, shape (2,)
        Added to: the `ticks` of dividing leaves, and of adding rows up.
    """
    kernel = _split_leaves_kernel("C" if columns.flags.c_contiguous else "A")
    kernel(words, columns, entries, segments, splits, goes_right, adds, packed, first, sums, spare, most, took)


@functools.cache
def _split_leaves_kernel(layout):
    signature = types.void(
        matrix(u4, read=True), matrix(u1, layout, read=True), vector(u8), matrix(i8), matrix(i8), matrix(u1),
        vector(i8), vector(i8), vector(i8), types.Array(i8, 3, "C"), vector(u8), i8, vector(i8),
    )  # fmt: skip
    return build(_split_leaves, signature)


def _split_leaves(words, columns, entries, segments, splits, goes_right, adds, packed, first, sums, spare, most, took):
    for s in range(splits.shape[0]):
        feature, node, left, right = splits[s, 0], splits[s, 1], splits[s, 2], splits[s, 3]
        start, stop = segments[node, 0], segments[node, 1]
        column, table = columns[feature], goes_right[s]
        l, r, before = start, 0, ticks()
        for begin in range(start, stop, _BLOCK):
            l0, r0 = l, r
            for j in range(begin, min(begin + _BLOCK, stop)):
                entry = entries[np.uint64(j)]
                c = np.int64(table[np.uint64(column[row_of(entry)])])
                # Both are written, one of them counts: no branch to guess.
                entries[np.uint64(l)] = entry
                spare[np.uint64(r)] = entry
                l += 1 - c
                r += c
            now = ticks()
            took[0] += now - before
            if adds[s] == 0:
                _add_and_flush(words, entries, l0, l, packed, first, sums[s], most)
            elif adds[s] == 1:
                _add_and_flush(words, spare, r0, r, packed, first, sums[s], most)
            before = ticks()
            took[1] += before - now
        for j in range(r):
            entries[np.uint64(l + j)] = spare[np.uint64(j)]
        took[0] += ticks() - before
        segments[left, 0], segments[left, 1] = start, l
        segments[right, 0], segments[right, 1] = l, stop


def mark_rows(column, entries, start, stop, goes_right, bits):
    """Write which rows of a range of entries go right.

    Parameters
    ----------
    column : ndarray of uint8, shape (n,), of any stride
        Bins of the feature.
    entries : ndarray of uint64, shape (n,)
    start, stop : int
    goes_right : ndarray of uint8, shape (256,)
    bits : ndarray of uint8, shape (n,)
        Written to at the rows of the range.
    """
    _mark_rows_kernel()(column, entries, start, stop, goes_right, bits)


@functools.cache
def _mark_rows_kernel():
    column = types.Array(u1, 1, "A", readonly=True)
    return build(_mark_rows, types.void(column, vector(u8), i8, i8, vector(u1), vector(u1)))


def _mark_rows(column, entries, start, stop, goes_right, bits):
    for j in range(start, stop):
        i = row_of(entries[np.uint64(j)])
        bits[i] = goes_right[np.uint64(column[i])]


# Leaves ---------------------------------------------------------------------------------------------------------------


def sum_leaves(entries, segments, leaves, gradient, hessian, scales, sums):
    """Add up gradients and hessians of leaves, as integers of many more bits than the entries have.

    Parameters
    ----------
    entries, segments : see the module
    leaves : ndarray of int64, shape (m,)
        Nodes.
    gradient, hessian : ndarray of float32, shape (n,)
        The latter may be (0,) for ones.
    scales : tuple of two floats
    sums : ndarray of int64, shape (m, 2)
    """
    _sum_leaves_kernel()(entries, segments, leaves, gradient, hessian, *scales, sums)


@functools.cache
def _sum_leaves_kernel():
    signature = types.void(
        vector(u8), matrix(i8), vector(i8), vector(f4, read=True), vector(f4, read=True), f8, f8, matrix(i8)
    )
    return build(_sum_leaves, signature)


def _sum_leaves(entries, segments, leaves, gradient, hessian, g_scale, h_scale, sums):
    for k in range(leaves.size):
        g = h = np.int64(0)
        for j in range(segments[leaves[k], 0], segments[leaves[k], 1]):
            entry = entries[np.uint64(j)]
            i, m = row_of(entry), np.int64(entry >> np.uint64(60))
            g += np.int64(np.rint(np.float64(gradient[i]) * g_scale)) * m
            if hessian.size:
                h += np.int64(np.rint(np.float64(hessian[i]) * h_scale)) * m
            else:
                h += m
        sums[k, 0] += g
        sums[k, 1] += h


def add_leaves(entries, segments, leaves, values, raw):
    """Add the values of leaves to the raw predictions of their rows.

    Parameters
    ----------
    entries, segments, leaves : see `sum_leaves`
    values : ndarray of float64, shape (m,)
    raw : ndarray of float64, shape (n,), of any stride
    """
    _add_leaves_kernel()(entries, segments, leaves, values, raw)


@functools.cache
def _add_leaves_kernel():
    return build(_add_leaves, types.void(vector(u8), matrix(i8), vector(i8), vector(f8), types.Array(f8, 1, "A")))


def _add_leaves(entries, segments, leaves, values, raw):
    for k in range(leaves.size):
        value = values[k]
        for j in range(segments[leaves[k], 0], segments[leaves[k], 1]):
            raw[row_of(entries[np.uint64(j)])] += value
