"""Codes of CSR rows, against the definition; what trees do with them is tested with that of dense rows."""

import numpy as np
import pytest
from scipy import sparse

from daskdml.kernels import stored

from .histograms import Stored

EDGES = [[-1.5, 0.0, 2.0], [0.5], [], [-3.0, -2.0, -1.0, -0.5], [2.0**-10, 1.0, 1.5, 2.5, 3.0, 7.0, 8.0]]
ODD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45]


def code_of(f, x):
    """Return where a value lies in a histogram, by the definition; None for the bin of zero."""
    first = sum(len(edges) + 2 for edges in EDGES[:f])
    if x != x:
        return first + len(EDGES[f]) + 1
    bins = [sum(edge < value for edge in EDGES[f]) for value in (x, 0)]
    return None if bins[0] == bins[1] else first + bins[0]


def bin_all(X):
    """Run the kernel on CSR rows; return CSR of codes."""
    first = np.cumsum([0, *(len(edges) + 2 for edges in EDGES)])
    table = np.full((len(EDGES), 8), np.inf, X.dtype)
    for row, edges in zip(table, EDGES):
        row[: len(edges)] = edges
    zero = np.array([sum(edge < 0 for edge in edges) for edges in EDGES], np.uint8)
    codes, features = np.empty(X.nnz, stored.code_type(first[-1])), np.empty(X.nnz, np.int32)
    indptr = np.full(X.shape[0] + 1, 77)
    n = stored.bin_stored(X.data, X.indices, X.indptr, table, first, zero, codes, features, indptr)
    return codes[:n], features[:n], indptr, first, zero


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_codes_are_places_of_values(dtype, index):
    rng = np.random.default_rng(0)
    table = np.where(rng.random((40, 5)) < 0.6, rng.normal(size=(40, 5)) * 2, np.nan).astype(dtype).tolist()
    rows = [[(f, x) for f, x in enumerate(row) if x == x] for row in table]
    rows += [[], [(f, float(dtype(x))) for f in (1, 3) for x in ODD[:1]], []]
    rows += [[(f, float(dtype(x))) for f in range(5)] for x in (*ODD, *(edge for edges in EDGES for edge in edges))]
    data = np.array([x for row in rows for _, x in row], dtype)
    indices = np.array([f for row in rows for f, _ in row], index)
    X = sparse.csr_matrix((len(rows), 5), dtype=dtype)
    X.data, X.indices, X.indptr = data, indices, np.cumsum([0, *map(len, rows)]).astype(index)
    codes, features, indptr, first, zero = bin_all(X)
    expected = [[(code_of(f, x), f) for f, x in row if code_of(f, x) is not None] for row in rows]
    assert indptr.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert list(zip(codes.tolist(), features.tolist())) == sum(expected, [])
    dense = np.full((10, 5), 77, np.uint8)
    feature_of = np.repeat(np.arange(5, dtype=np.int32), np.diff(first))
    stored.fill_rows(codes, indptr, 33, first, feature_of, zero, np.arange(5), dense)
    for out, row in zip(dense.tolist(), rows[33:]):
        bins = zero.tolist()
        for f, x in row:
            bins[f] = 255 if x != x else sum(edge < x for edge in EDGES[f])
        assert out == bins


def test_bins_of_features_that_nobody_reads_are_not_written():
    X = sparse.csr_matrix((3, 5))
    codes, _, indptr, first, zero = bin_all(X)
    dense = np.full((3, 5), 77, np.uint8)
    feature_of = np.repeat(np.arange(5, dtype=np.int32), np.diff(first))
    stored.fill_rows(codes, indptr, 0, first, feature_of, zero, np.array([1, 3]), dense)
    assert dense.tolist() == [[77, zero[1], 77, zero[3], 77]] * 3


@pytest.mark.parametrize("indices", [[2, 1], [3, 3]])
def test_rows_out_of_order_are_told(indices):
    X = sparse.csr_matrix((2, 5))
    X.data, X.indices, X.indptr = np.ones(2), np.array(indices, np.int32), np.array([0, 0, 2], np.int32)
    table, zero = np.full((5, 8), np.inf), np.zeros(5, np.uint8)
    out = np.empty(2, np.uint16), np.empty(2, np.int32), np.empty(3, np.int64)
    assert stored.bin_stored(X.data, X.indices, X.indptr, table, np.arange(0, 18, 3), zero, *out) == -1


def test_codes_of_many_bins_are_wider():
    assert [stored.code_type(n) for n in (1, 65_536, 65_537)] == [np.uint16, np.uint16, np.uint32]
    rows = Stored(np.random.default_rng(0).integers(0, 256, (300, 5)), np.uint32)
    entries = rows.entries()
    np.testing.assert_array_equal(rows.add(entries, 10, 280, 50), rows.histogram(entries[10:280]))
    segments, goes_right = np.zeros((3, 2), np.int64), np.arange(256)[None] > 100
    segments[0] = 0, 300
    found = rows.divide(entries, segments, [(2, 0, 1, 2)], goes_right, [1])
    is_right = [goes_right[0, rows.rows[entry >> 32 & 0xFFFFFFF, 2]] for entry in entries.tolist()]
    np.testing.assert_array_equal(found[0], [*entries[~np.array(is_right)], *entries[is_right]])
    np.testing.assert_array_equal(found[2][0], rows.histogram(entries[is_right]))


def test_rows_without_codes():
    rows = Stored(np.full((50, 3), 0))
    entries = rows.entries()
    assert not len(rows.codes)
    np.testing.assert_array_equal(rows.add(entries, 0, 50, 20), rows.histogram(entries))
    segments = np.zeros((3, 2), np.int64)
    segments[0] = 0, 50
    for side in (0, 1):
        _, found, sums = rows.divide(entries, segments, [(1, 0, 1, 2)], np.full((1, 256), side), [side])
        assert found[1:].tolist() == [[[0, 50], [50, 50]], [[0, 0], [0, 50]]][side]
        np.testing.assert_array_equal(sums[0], rows.histogram(entries))
