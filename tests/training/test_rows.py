"""Rows taken from pieces are the rows of the whole, in any order."""

import numpy as np
import pytest
from scipy import sparse

from daskdml.data.blocks import Block
from daskdml.training.rows import HeldRows, Piece, as_trained, pieces_of

N, P = 60, 7
# Where pieces begin and end: rows of other ranks lie between them, and one has no rows.
SPANS = [(3, 4), (10, 25), (25, 25), (25, 40), (52, 60)]
HELD = np.concatenate([np.arange(*span) for span in SPANS])
kinds = pytest.mark.parametrize("kind", ["dense", "csr_array", "csr_matrix"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def whole(kind="dense", dtype=np.float64, n_targets=None, is_weighted=True, seed=0):
    """Return X, y and weights of all rows; of CSR some rows are empty."""
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(N, P)) * (rng.random((N, P)) < 0.4)).astype(dtype)
    X[::9] = 0
    y = rng.normal(size=N if n_targets is None else (N, n_targets))
    X = X if kind == "dense" else getattr(sparse, kind)(X)
    return X, y, rng.uniform(0.5, 2, N) if is_weighted else None


def pieces_from(X, y, weight, spans=SPANS):
    return [Piece(a, X[a:b], y[a:b], None if weight is None else weight[a:b]) for a, b in spans]


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


def taken(selection, first, stop, held):
    out = None if held.is_sparse else np.full((stop - first + 2, P), np.nan, held.dtype)
    return selection.X(first, stop, out)


@kinds
@dtypes
@pytest.mark.parametrize("n_targets", [None, 1, 3])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_rows_of_several_pieces_in_any_order(kind, dtype, n_targets, is_weighted):
    X, y, weight = whole(kind, dtype, n_targets, is_weighted)
    rng = np.random.default_rng(1)
    pieces = pieces_from(X, y, weight)
    held = HeldRows([pieces[i] for i in rng.permutation(len(pieces))])
    assert held.dtype == dtype and held.n_features == P and held.is_sparse == (kind != "dense")
    for rows in (HELD, HELD[::-1], rng.permutation(HELD), rng.choice(HELD, 100), np.array([59]), HELD[:0]):
        selection = held.select(rows)
        np.testing.assert_array_equal(selection.y, y[rows])
        assert (selection.weight is None) == (not is_weighted)
        if is_weighted:
            np.testing.assert_array_equal(selection.weight, weight[rows])
        n = len(rows)
        for first, stop in ((0, n), (0, n // 2), (n // 2, n), (n // 3, n // 3)):
            found = taken(selection, first, stop, held)
            assert found.shape == (stop - first, P) and found.dtype == dtype
            np.testing.assert_array_equal(dense(found), dense(X)[rows[first:stop]])


@kinds
def test_the_whole_as_one_piece(kind):
    X, y, weight = whole(kind)
    held = HeldRows(pieces_from(X, y, weight, [(0, N)]))
    rows = np.random.default_rng(2).permutation(N)
    np.testing.assert_array_equal(dense(taken(held.select(rows), 0, N, held)), dense(X)[rows])


def test_rows_are_copied_into_the_array_that_is_given():
    X, y, weight = whole()
    held, out = HeldRows(pieces_from(X, y, weight)), np.full((5, P), np.nan)
    found = held.select(np.array([12, 3, 59])).X(1, 3, out)
    assert np.shares_memory(found, out) and np.isnan(out[2:]).all()
    np.testing.assert_array_equal(out[:2], X[[3, 59]])


def test_sparse_rows_are_a_matrix_of_their_own():
    X, y, weight = whole("csr_array", np.float32)
    held = HeldRows(pieces_from(X, y, weight))
    found = held.select(np.array([12, 3, 59])).X(0, 3, None)
    assert found.indices.dtype == X.indices.dtype == np.int32 and found.indptr[0] == 0
    found.data[:] = 99
    np.testing.assert_array_equal(X.toarray(), whole("csr_array", np.float32)[0].toarray())


def test_sparse_rows_keep_the_order_of_their_entries():
    """Also where column numbers are not sorted, or come twice."""
    columns, edges = np.array([4, 0, 2, 2, 2, 1], np.int32), np.array([0, 3, 5, 6], np.int32)
    X = sparse.csr_array((np.arange(1.0, 7), columns, edges), shape=(3, P))
    held = HeldRows([Piece(0, X, np.zeros(3), None)])
    found = held.select(np.array([1, 0])).X(0, 2, None)
    assert found.data.tolist() == [4, 5, 1, 2, 3] and found.indices.tolist() == [2, 2, 4, 0, 2]


def test_column_numbers_of_one_dtype():
    X, y, weight = whole("csr_array")
    X64 = X.copy()
    X64.indices, X64.indptr = X64.indices.astype(np.int64), X64.indptr.astype(np.int64)
    held = HeldRows(pieces_from(X64, y, weight, [(0, N)]))
    found = held.select(np.array([5, 4])).X(0, 2, None)
    assert found.indices.dtype == np.int64
    np.testing.assert_array_equal(found.toarray(), X.toarray()[[5, 4]])
    pieces = [Piece(0, X[:5], y[:5], None), Piece(5, X64, y, None)]
    assert pieces[0].X.indices.dtype == np.int32
    with pytest.raises(ValueError, match="different dtypes; give all the same"):
        HeldRows(pieces)


def test_rows_from_a_mapped_file_and_read_only_memory(tmp_path):
    X, y, weight = whole(dtype=np.float32)
    X.tofile(tmp_path / "X")
    mapped = np.memmap(tmp_path / "X", np.float32, "r", shape=X.shape)
    held = HeldRows(pieces_from(mapped, y, weight))
    np.testing.assert_array_equal(taken(held.select(HELD[::-1]), 0, len(HELD), held), X[HELD[::-1]])


def test_no_pieces_at_all():
    X, y, weight = whole()
    for pieces in ([], [Piece(7, X[:0], y[:0], None)]):
        held = HeldRows(pieces)
        assert held.pieces == [] and held.y is None and held.weight is None


@kinds
def test_rows_of_a_piece_by_their_numbers(kind):
    X, y, weight = whole(kind)
    piece = pieces_from(X, y, weight)[1].rows(12, 20)
    assert piece.start == 12
    np.testing.assert_array_equal(dense(piece.X), dense(X)[12:20])
    np.testing.assert_array_equal(piece.y, y[12:20])
    np.testing.assert_array_equal(piece.weight, weight[12:20])
    assert Piece(0, X, y, None).rows(1, 2).weight is None


def test_blocks_are_pieces():
    X, y, weight = whole()
    (piece,) = pieces_of([Block(X[4:9], y[4:9], weight[4:9], 2, 4)])
    assert piece.start == 4 and piece.X.base is X and len(piece.y) == len(piece.weight) == 5


# As they are held -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["C", "F", "strided", "csr_array", "csr_matrix"])
@pytest.mark.parametrize("before", [np.float32, np.float64])
@pytest.mark.parametrize("after", ["float32", "float64"])
def test_rows_are_held_in_one_dtype_and_order(kind, before, after):
    X = whole(dtype=before)[0]
    layouts = {"C": np.ascontiguousarray, "F": np.asfortranarray, "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2]}
    given = layouts[kind](X) if kind in layouts else getattr(sparse, kind)(X)
    made = as_trained(given, np.dtype(after))
    assert made.dtype == after
    np.testing.assert_array_equal(dense(made), X.astype(after))
    if kind in layouts:
        assert made.flags.c_contiguous
        assert (made is given) == (kind == "C" and np.dtype(before) == after)
    else:
        assert made.indices.dtype == np.int32


@pytest.mark.parametrize("kind", [np.asarray, np.asfortranarray, sparse.csr_array, sparse.csr_matrix])
def test_values_too_large_for_the_dtype(kind):
    X = whole()[0]
    X[5, 1] = -1e39
    with pytest.raises(ValueError, match="value too large for float32; .* dtype='float64'"):
        as_trained(kind(X), np.dtype("float32"))
    np.testing.assert_array_equal(dense(as_trained(kind(X), np.dtype("float64"))), X)


def test_the_largest_value_and_those_that_are_not_finite_pass():
    X = np.array([[float(np.finfo(np.float32).max), np.inf, -np.inf, np.nan, 1e-60]])
    for given in (X, sparse.csr_array(X)):
        with np.errstate(all="raise", under="ignore"):
            made = as_trained(given, np.dtype("float32"))
        np.testing.assert_array_equal(dense(made), X.astype(np.float32))


def test_column_numbers_of_all_chunks_become_int32():
    X = sparse.random(50, 7, density=0.3, format="csr", random_state=0)
    wide = X.copy()
    wide.indices, wide.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    made = as_trained(wide, np.dtype("float64"))
    assert made.indices.dtype == np.int32 and wide.indices.dtype == np.int64
    np.testing.assert_array_equal(made.toarray(), X.toarray())


@kinds
def test_some_rows_of_a_piece_are_where_all_of_them_are(kind):
    X, y, weight = whole(kind)
    piece = Piece(0, X, y, weight)
    for first, stop in ((0, N), (0, 3), (11, 40), (50, N), (7, 7)):
        part = piece.rows(first, stop)
        np.testing.assert_array_equal(dense(part.X), dense(X)[first:stop])
        assert type(part.X) is type(X) and part.X.dtype == X.dtype and part.start == first
        of_all, of_part = (one.data if kind != "dense" else one for one in (X, part.X))
        assert stop == first or np.shares_memory(of_all, of_part)
    np.testing.assert_array_equal(dense(piece.rows(10, 40).rows(12, 30).X), dense(X)[12:30])
