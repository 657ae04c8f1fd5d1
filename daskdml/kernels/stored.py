"""Rows of which few values are stored, as codes of these: from CSR, by columns, and as dense rows again.

``codes[indptr[i] : indptr[i + 1]]`` are the places that the stored values of row i have in a histogram (see
`daskdml.kernels.growing`), in ascending order; values in the bin of zero are left out.
"""

import numpy as np

from daskdml.kernels.binning import search
from daskdml.kernels.compile import build, f8, i4, i8, matrix, types, vector
from daskdml.kernels.growing import MISSING

u1, u2, u4 = types.uint8, types.uint16, types.uint32


def code_type(n_bins):
    """Return the dtype of codes of so many bins."""
    return np.dtype(np.uint16 if n_bins <= 1 << 16 else np.uint32)


def type_of(dtype):
    """Return numba's type of codes."""
    return u2 if dtype == np.uint16 else u4


def index_of(dtype):
    """Return numba's type of indptr of codes: uint32 where it reaches, of which twice as many are in the cache."""
    return u4 if dtype == np.uint32 else i8


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
        matrix(dtype, read=True), vector(i8), vector(u1, read=True), vector(type_of(codes.dtype)), vector(i4),
        vector(i8),
    )  # fmt: skip
    return build(_bin_stored, signature)(data, indices, indptr, edges, first, zero, codes, features, ends)


def _bin_stored(data, indices, indptr, edges, first, zero, codes, features, ends):
    k, half = np.uint64(0), edges.shape[1] >> 1
    ends[0] = 0
    for i in range(indptr.size - 1):
        before = np.int64(-1)
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
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
    for j in range(np.uint64(data.size)):
        f, x = np.uint64(indices[j]), np.float64(data[j])
        if n_known[f] < 0 or x != x:
            continue
        b = search(known, f, half, x)
        if np.int64(b) >= n_known[f] or known[f, b] != x:
            places[np.uint64(k)] = j
            k += 1
    return k


def by_columns(codes, indptr, first):
    """Return codes by columns.

    Parameters
    ----------
    codes, indptr : see the module
    first : ndarray of int64, shape (p + 1,)
        Where the bins of each feature begin in a histogram.

    Returns
    -------
    ends : ndarray of int64, shape (p + 1,)
        Those of feature f stand at ``ends[f] : ends[f + 1]``.
    rows : ndarray of uint32
        Ascending in each column.
    bins : ndarray of uint8
        The last of a feature for missing values.
    """
    ends = np.zeros(len(first), np.int64)
    rows, bins = np.empty(len(codes), np.uint32), np.empty(len(codes), np.uint8)
    feature_of = np.repeat(np.arange(len(first) - 1, dtype=np.int32), np.diff(first))
    index = vector(index_of(indptr.dtype), read=True)
    signature = types.void(
        vector(type_of(codes.dtype), read=True), index, vector(i8), vector(i4), vector(i8), vector(u4), vector(u1)
    )
    build(_by_columns, signature)(codes, indptr, first, feature_of, ends, rows, bins)
    return ends, rows, bins


def _by_columns(codes, indptr, first, feature_of, ends, rows, bins):
    for k in range(codes.size):
        ends[np.uint64(feature_of[np.uint64(codes[k])] + 1)] += 1
    for f in range(ends.size - 1):
        ends[f + 1] += ends[f]
    places = ends.copy()
    for i in range(indptr.size - 1):
        for k in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            code = np.uint64(codes[k])
            f = np.uint64(feature_of[code])
            at = np.uint64(places[f])
            rows[at], bins[at] = i, code - np.uint64(first[f])
            places[f] += 1


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
    index = vector(index_of(indptr.dtype), read=True)
    signature = types.void(
        vector(type_of(codes.dtype), read=True), index, i8, vector(i8), vector(i4), vector(u1, read=True), vector(i8),
        matrix(u1),
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
