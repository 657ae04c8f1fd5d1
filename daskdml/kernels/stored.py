"""What a tree does with rows of which few values are stored: bins of CSR, histograms and divided leaves.

Conventions beside those of `daskdml.kernels.growing`. ``codes[indptr[i] : indptr[i + 1]]`` are the places that the
stored values of row i have in a histogram, in ascending order; values in the bin of zero are left out. So a row costs
one addition per value that it stores; what these leave of a leaf's sums, feature by feature, lies in the bins of zero.
"""

import functools

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.binning import search
from daskdml.kernels.compile import build, f8, i4, i8, matrix, types, vector
from daskdml.kernels.growing import AHEAD, MISSING, packed_of, prefetch, row_of, unpack_bin

u1, u2, u4, u8 = types.uint8, types.uint16, types.uint32, types.uint64


def code_type(n_bins):
    """Return the dtype of codes of so many bins."""
    return np.dtype(np.uint16 if n_bins <= 1 << 16 else np.uint32)


def _of(dtype):
    return u2 if dtype == np.uint16 else u4


def bin_stored(data, indices, indptr, edges, first, zero, codes, features, ends):
    """Write the codes of CSR rows.

    Parameters
    ----------
    data, indices, indptr : ndarrays of CSR
        Indices ascending in each row.
    edges : ndarray of shape (p, 2**k), the dtype of data
        Ascending, at least the last of each inf; see `daskdml.kernels.binning.bin_dense`.
    first : ndarray of int64, shape (p + 1,)
    zero : ndarray of uint8, shape (p,)
        The bins of zero.
    codes : ndarray of uint16 or uint32, shape (nnz,)
        Written to from the start, as many as are returned.
    features : ndarray of int32, shape (nnz,)
        Written to likewise.
    ends : ndarray of int64, shape (n + 1,)
        Written to: the indptr of codes.

    Returns
    -------
    int
        -1 where indices do not ascend.
    """
    index = {4: i4, 8: i8}
    dtype = types.float32 if data.dtype == np.float32 else types.float64
    signature = i8(
        vector(dtype, read=True), vector(index[indices.itemsize], read=True), vector(index[indptr.itemsize], read=True),
        matrix(dtype, read=True), vector(i8), vector(u1, read=True), vector(_of(codes.dtype)), vector(i4), vector(i8),
    )  # fmt: skip
    return build(_bin_stored, signature)(data, indices, indptr, edges, first, zero, codes, features, ends)


def _bin_stored(data, indices, indptr, edges, first, zero, codes, features, ends):
    k, half = np.uint64(0), edges.shape[1] >> 1
    ends[0] = 0
    for i in range(indptr.size - 1):
        before = np.int64(-1)
        for j in range(indptr[i], indptr[i + 1]):
            f, x = np.uint64(indices[j]), data[j]
            if np.int64(f) <= before:  # sums of packed numbers, and searches, would go wrong
                return -1
            before = np.int64(f)
            b = search(edges, f, half, x)
            if x != x:
                b = np.uint64(first[f + np.uint64(1)] - first[f] - 1)
            codes[k], features[k] = np.uint64(first[f]) + b, f
            k += np.uint64(b != zero[f])
        ends[i + 1] = k
    return np.int64(k)


def find_others(data, indices, known, n_known, places):
    """Find the stored values that are not among those known of their feature.

    Parameters
    ----------
    data, indices : ndarrays of CSR
    known : ndarray of float64, shape (p, 2**k)
        Ascending, filled up with inf; at least the last of each.
    n_known : ndarray of int64, shape (p,)
        How many are; -1 for a feature whose values nobody asks for.
    places : ndarray of int64, shape (nnz,)
        Written to from the start, as many as are returned: where in data. NaN is left out.

    Returns
    -------
    int
    """
    index = {4: i4, 8: i8}[indices.itemsize]
    dtype = types.float32 if data.dtype == np.float32 else types.float64
    signature = i8(vector(dtype, read=True), vector(index, read=True), matrix(f8), vector(i8), vector(i8))
    return build(_find_others, signature)(data, indices, known, n_known, places)


def _find_others(data, indices, known, n_known, places):
    k, half = 0, known.shape[1] >> 1
    for j in range(data.size):
        f, x = np.uint64(indices[j]), np.float64(data[j])
        if n_known[f] < 0 or x != x:
            continue
        b = search(known, f, half, x)
        if np.int64(b) >= n_known[f] or known[f, b] != x:
            places[k] = j
            k += 1
    return k


def add_rows(codes, indptr, entries, start, stop, packed, first, zero, sums, most):
    """Add a range of entries to a histogram.

    Parameters
    ----------
    codes, indptr : see the module
    entries : ndarray of uint64, shape (n,)
    start, stop : int
    packed : ndarray of int64, shape (first[-1],)
        Scratch of zeros; zeros again afterwards.
    first : ndarray of int64, shape (p + 1,)
    zero : ndarray of uint8, shape (p,)
        The bins of zero.
    sums : ndarray of int64, shape (3, first[-1])
    most : int
        Entries whose sums fit the packed fields.
    """
    _add_rows_kernel(codes.dtype)(codes, indptr, entries, start, stop, packed, first, zero, sums, most)


@functools.cache
def _add_rows_kernel(dtype):
    signature = types.void(
        vector(_of(dtype), read=True), vector(i8, read=True), vector(u8), i8, i8, vector(i8), vector(i8),
        vector(u1, read=True), matrix(i8), i8,
    )  # fmt: skip
    return build(_add_all, signature)


def _add_all(codes, indptr, entries, start, stop, packed, first, zero, sums, most):
    _add_and_flush(codes, indptr, entries, start, stop, packed, first, zero, sums, most)


@register_jitable
def _add_and_flush(codes, indptr, entries, start, stop, packed, first, zero, sums, most):
    for begin in range(start, stop, most):
        total = np.int64(0)
        end = min(begin + most, stop)
        last = end - AHEAD
        for j in range(begin, end):
            if j < last:
                prefetch(codes, indptr[row_of(entries[np.uint64(j + AHEAD)])])
            entry = entries[np.uint64(j)]
            w, i = packed_of(entry), row_of(entry)
            total += w
            for k in range(np.uint64(indptr[i]), np.uint64(indptr[i + np.uint64(1)])):
                packed[np.uint64(codes[k])] += w
        # Fields of a packed sum are sums themselves: what all values of a feature leave of the total lies in zero.
        for f in range(zero.size):
            rest = total
            for b in range(first[f], first[f + 1]):
                rest -= packed[b]
            packed[first[f] + zero[f]] += rest
        for b in range(packed.size):
            unpack_bin(packed[b], sums, b)
            packed[b] = 0


def split_leaves(
    codes, indptr, entries, segments, splits, goes_right, adds, packed, first, zero, sums, spare, most
):
    """Divide leaves, and add the rows of one child of each to a histogram.

    Parameters
    ----------
    codes, indptr, packed, first, zero, most : see `add_rows`
    entries, segments, splits, goes_right, adds, sums, spare : see `daskdml.kernels.growing.split_leaves`
    """
    kernel = _split_leaves_kernel(codes.dtype)
    kernel(codes, indptr, entries, segments, splits, goes_right, adds, packed, first, zero, sums, spare, most)


@functools.cache
def _split_leaves_kernel(dtype):
    signature = types.void(
        vector(_of(dtype), read=True), vector(i8, read=True), vector(u8), matrix(i8), matrix(i8), matrix(u1),
        vector(i8), vector(i8), vector(i8), vector(u1, read=True), types.Array(i8, 3, "C"), vector(u8), i8,
    )  # fmt: skip
    return build(_split_leaves, signature)


def _split_leaves(codes, indptr, entries, segments, splits, goes_right, adds, packed, first, zero, sums, spare, most):
    for s in range(splits.shape[0]):
        feature, node, left, right = splits[s, 0], splits[s, 1], splits[s, 2], splits[s, 3]
        start, stop = segments[node, 0], segments[node, 1]
        low, n_bins = np.uint64(first[feature]), np.uint64(first[feature + 1] - first[feature])
        table = goes_right[s].copy()
        table[n_bins - np.uint64(1)] = goes_right[s, MISSING]
        of_zero, last = np.int64(table[zero[feature]]), stop - AHEAD
        l, r = start, 0
        for j in range(start, stop):
            if j < last:
                prefetch(codes, indptr[row_of(entries[np.uint64(j + AHEAD)])])
            entry = entries[np.uint64(j)]
            i = row_of(entry)
            # The last code that is not behind the feature's, without a branch to guess.
            at, n = np.uint64(indptr[i]), np.uint64(indptr[i + np.uint64(1)]) - np.uint64(indptr[i])
            c = of_zero
            if n:
                while n > np.uint64(1):
                    half = n >> np.uint64(1)
                    at += half * np.uint64(np.uint64(codes[at + half]) < low + n_bins)
                    n -= half
                code = np.uint64(codes[at])
                if low <= code < low + n_bins:
                    c = np.int64(table[code - low])
            entries[np.uint64(l)] = entry
            spare[np.uint64(r)] = entry
            l += 1 - c
            r += c
        for j in range(r):
            entries[np.uint64(l + j)] = spare[np.uint64(j)]
        if adds[s] == 0:
            _add_and_flush(codes, indptr, entries, start, l, packed, first, zero, sums[s], most)
        elif adds[s] == 1:
            _add_and_flush(codes, indptr, entries, l, stop, packed, first, zero, sums[s], most)
        segments[left, 0], segments[left, 1] = start, l
        segments[right, 0], segments[right, 1] = l, stop


def fill_rows(codes, indptr, start, first, feature_of, zero, wanted, out):
    """Write the bins of rows of which codes are stored, as dense rows.

    Parameters
    ----------
    codes, indptr : see the module
    start : int
        Row to begin with.
    first : ndarray of int64, shape (p + 1,)
    feature_of : ndarray of int32, shape (first[-1],)
        Of each code.
    zero : ndarray of uint8, shape (p,)
        The bins of zero.
    wanted : ndarray of int64
        Features; of others nothing is promised.
    out : ndarray of uint8, shape (m, p)
    """
    signature = types.void(
        vector(_of(codes.dtype), read=True), vector(i8, read=True), i8, vector(i8), vector(i4), vector(u1, read=True),
        vector(i8), matrix(u1),
    )  # fmt: skip
    build(_fill_rows, signature)(codes, indptr, start, first, feature_of, zero, wanted, out)


def _fill_rows(codes, indptr, start, first, feature_of, zero, wanted, out):
    for i in range(out.shape[0]):
        for f in wanted:
            out[i, f] = zero[f]
        for k in range(indptr[start + i], indptr[start + i + 1]):
            code = np.int64(codes[k])
            f = feature_of[code]
            out[i, f] = MISSING if code == first[f + 1] - 1 else code - first[f]
