"""What every walker of X promises: it equals its definition in float64 NumPy, on every layout, length and width."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import config
from scipy import sparse

# Around the tile of 256 rows, and around vectors of 8 and 16 lanes; shorter where kernels run as plain Python.
LENGTHS = (1, 2, 255, 256, 257, 700)
WIDTHS = (1, 2, 7, 8, 9, 15, 16, 17, 50, 64, 65, 130)
if config.DISABLE_JIT:
    LENGTHS, WIDTHS = (1, 257), (1, 8, 17)

DENSE = ("rows", "columns", "rows of columns", "strided")
CSR = ("csr", "csr int64", "csr view", "csr array")


def lay_out(X, layout):
    """Return the same matrix in another layout.

    Parameters
    ----------
    X : ndarray of shape (n, p)
    layout : {"rows", "columns", "rows of columns", "strided", "csr", "csr int64", "csr view", "csr array"}
        "rows of columns" are rows cut from a larger F-ordered array; "csr view" is a slice that shares its source's
        memory, so that its row pointers do not begin at 0.

    Returns
    -------
    ndarray or csr_matrix or csr_array
    """
    n, p = X.shape
    if layout == "rows":
        return np.ascontiguousarray(X)
    if layout == "columns":
        return np.asfortranarray(X)
    if layout == "rows of columns":
        return _surrounded(X, "F")[5 : 5 + n]
    if layout == "strided":
        whole = np.full((n, 2 * p), np.nan, dtype=X.dtype)
        whole[:, ::2] = X
        return whole[:, ::2]
    kind = sparse.csr_array if layout == "csr array" else sparse.csr_matrix
    if layout == "csr view":
        whole = sparse.vstack([kind(np.ones((3, p))), kind(X), kind(np.ones((2, p)))], format="csr")
        return _csr_view(kind, whole, 3, 3 + n, X.dtype)
    out = kind(X)
    if layout == "csr int64":
        out.indices, out.indptr = out.indices.astype(np.int64), out.indptr.astype(np.int64)
    return out


def _csr_view(kind, whole, start, stop, dtype):
    first, last = whole.indptr[start], whole.indptr[stop]
    out = kind((stop - start, whole.shape[1]), dtype=dtype)
    out.indptr = whole.indptr[start : stop + 1]
    out.indices, out.data = whole.indices[first:last], whole.data[first:last].astype(dtype)
    return out


def _surrounded(X, order):
    """Lay X into a larger array full of NaN, so that whatever is read beyond the block shows."""
    n, p = X.shape
    whole = np.full((n + 12, p), np.nan, dtype=X.dtype, order=order)
    whole[5 : 5 + n] = X
    return whole


class KernelContract:
    """Test a kernel against the definition in `expected`: a sum over rows of a loss of ``(x_i - shift) @ w + b``.

    A subclass defines `make` and ``loss``. Errors are held against the sum of the absolute values of what was added up.

    Attributes
    ----------
    loss : see `daskdml.losses`
    layouts : tuple of str
        Of those `lay_out` makes; default the dense ones.
    dtypes : tuple of str, default ("float32", "float64")
    takes_shift, takes_wide : bool, default True
        Whether ``make`` takes ``shift`` and ``wide``.
    tolerance : dict of str to float
        Rounding error allowed per dtype, as a share of the sum of absolute values.

    Examples
    --------
    >>> from daskdml.kernels.dense import DensePass
    >>> from daskdml.losses import Logistic
    >>> class TestDense(KernelContract):
    ...     loss = Logistic()
    ...     def make(self, w, b, order, **options):
    ...         return DensePass(w, b, self.loss, order=order, **options)
    >>> TestDense().test_block_of_no_rows_adds_nothing()
    """

    loss = None
    layouts = DENSE
    dtypes = ("float32", "float64")
    takes_shift = takes_wide = True
    tolerance = {"float32": 4e-7, "float64": 4e-15}

    def make(self, w, b, order, **options):
        """Return the kernel under test at one point of parameter space.

        Parameters
        ----------
        w : ndarray of shape (p,) or (p, k), float64
        b : float or ndarray of shape (k,)
        order : {0, 1, 2}
        **options
            ``shift``, ``wide`` where the kernel takes them.

        Returns
        -------
        callable
            Of (X, y, weight); gives (value, gradient, gradient_sum, curvature).
        """
        raise NotImplementedError

    def expected(self, X, y, weight, w, b, order, shift=0.0):
        """Evaluate the definition in float64.

        Parameters
        ----------
        X : ndarray of shape (n, p)
        y : ndarray of shape (n,)
        weight : ndarray of shape (n,) or None
        w : ndarray of shape (p,) or (p, k)
        b : float or ndarray of shape (k,)
        order : {0, 1, 2}
        shift : float or ndarray of shape (p,), default 0

        Returns
        -------
        results : tuple
            As the kernel's: value, gradient, gradient_sum, curvature.
        sizes : tuple
            Of each, the sum of the absolute values of what was added up; rounding errors are a share of it.
        """
        X = X.astype(np.float64) - shift
        y = y.astype(np.float64)
        weight = np.ones(len(y)) if weight is None else weight
        raw = X @ w + b
        value, g, h = self.loss.arrays(raw, y, weight, 2)
        # A relative error e of the margins moves the loss by e |g| |x||w|, and its derivative by e |h| |x||w|.
        margin = np.abs(X) @ np.abs(w) + np.abs(b)
        moved = np.abs(g) + self._steepness(h, weight) * margin
        value_size = abs(value) + weight.sum() + (np.abs(g) * margin).sum()
        sizes = value_size, np.abs(X).T @ moved, moved.sum(axis=0), np.abs(h) + moved
        results = (value, X.T @ g, g.sum(axis=0), h)
        return results[: (1, 3, 4)[order]], sizes

    def test_equals_the_definition(self):
        """Results are the definition's on every layout, length, width and order, weighted or not."""
        self._compare({})

    def test_shift_is_subtracted(self):
        """With a shift the rows are centred as they are read, also where the mean is a thousand deviations away."""
        if not self.takes_shift:
            pytest.skip("takes no shift")
        self._compare({"shift": None}, lengths=LENGTHS[-3:], orders=(1, 2))

    def test_wide_arithmetic_is_exact_on_float32(self):
        """With ``wide`` a float32 block gives the answer of the same numbers in float64."""
        if not self.takes_wide:
            pytest.skip("takes no wide")
        self._compare({"wide": True}, lengths=LENGTHS[-3:], orders=(1, 2), dtypes=("float32",), tolerance=1e-14)

    def test_wide_with_shift(self):
        """Both at once."""
        if not (self.takes_wide and self.takes_shift):
            pytest.skip("takes not both")
        options = {"wide": True, "shift": None}
        self._compare(options, lengths=LENGTHS[-2:], orders=(2,), dtypes=("float32",), tolerance=1e-14)

    def test_targets_of_either_precision(self):
        """y may be float32 or float64."""
        X, y, weight, w, b = self._case(LENGTHS[-1], 9, "float64")
        for layout in self.layouts:
            results = [self.make(w, b, 1)(lay_out(X, layout), y.astype(kind), weight) for kind in ("f4", "f8")]
            assert results[0][0] == results[1][0], layout
            np.testing.assert_array_equal(results[0][1], results[1][1], err_msg=layout)

    def test_zero_weights_remove_rows(self):
        """Rows of weight zero are as good as absent; weights of two are two rows."""
        X, y, _, w, b = self._case(200, 9, "float64")
        weight = np.random.default_rng(0).integers(0, 3, 200).astype(float)
        rows = np.repeat(np.arange(200), weight.astype(int))
        for layout in self.layouts:
            weighted = self.make(w, b, 1)(lay_out(X, layout), y, weight)
            repeated = self.make(w, b, 1)(lay_out(X[rows], layout), y[rows], None)
            for a, c in zip(weighted[:3], repeated[:3]):
                np.testing.assert_allclose(a, c, rtol=1e-10, atol=1e-10, err_msg=layout)

    def test_nonfinite_values_show_in_the_value(self):
        """NaN and infinity anywhere in X make the value not finite, at zero coefficients too and in every order."""
        n, p = LENGTHS[-1] if config.DISABLE_JIT else 300, 19
        X, y, weight, w, b = self._case(n, p, "float64")
        weight[n - 1] = 0.0
        places = [(0, 0), (n - 1, p - 1), (n // 2, 8), (255, 16), (256, 3)]
        for layout in self.layouts:
            for dtype in self.dtypes:
                for bad in (np.nan, np.inf, -np.inf):
                    for row, column in places:
                        spoiled = X.astype(dtype)
                        spoiled[row, column] = bad
                        for point in (w, np.zeros_like(w)):
                            for order in (0, 1, 2):
                                with np.errstate(all="ignore"):
                                    value = self.make(point, b, order)(lay_out(spoiled, layout), y, weight)[0]
                                where = f"{bad} at {row}, {column}, {layout}, {dtype}, order {order}"
                                assert not np.isfinite(value), where

    def test_nothing_beyond_the_block_is_read(self):
        """A block cut from a larger array gives the bits of the same block alone, whatever lies around it."""
        for layout in self.layouts:
            if layout in ("strided", "rows of columns"):
                continue
            for dtype in self.dtypes:
                for n, p in ((1, 17), (33, 9), (LENGTHS[-2], 50 if 50 in WIDTHS else 17)):
                    X, y, weight, w, b = self._case(n, p, dtype)
                    alone = lay_out(X, layout)
                    for inside in self._cuts(X, layout):
                        for order in (1, 2):
                            found = self.make(w, b, order)(inside, y, weight)
                            _same_bits(found, self.make(w, b, order)(alone, y, weight), f"{layout}, {dtype}, {n} x {p}")

    def test_two_passes_give_the_same_bits(self):
        """One object walks many blocks; what it returns for one does not depend on those before, or on its copies."""
        for layout in self.layouts:
            X, y, weight, w, b = self._case(LENGTHS[-1], 17, "float32")
            other = np.full((300, 17), np.nan, dtype=np.float32)
            kernel = self.make(w, b, 2)
            first = kernel(lay_out(X, layout), y, weight)
            with np.errstate(all="ignore"):
                kernel(lay_out(other, layout), y[np.zeros(300, dtype=int)], None)
            _same_bits(kernel(lay_out(X, layout), y, weight), first, layout)
            _same_bits(self.make(w, b, 2)(lay_out(X, layout), y, weight), first, layout)
            _same_bits(pickle.loads(pickle.dumps(kernel))(lay_out(X, layout), y, weight), first, layout)

    def test_threads_do_not_disturb_each_other(self):
        """One object used by four threads at once gives every block the bits of a lone walk."""
        cases = [self._case(n, 17, "float32") for n in range(200, 264, 4)]
        w, b = cases[0][3:]
        kernel = self.make(w, b, 2)
        blocks = [
            (lay_out(X, self.layouts[i % len(self.layouts)]), y, weight) for i, (X, y, weight, *_) in enumerate(cases)
        ]
        alone = [kernel(*block) for block in blocks]
        shared = self.make(w, b, 2)
        with ThreadPoolExecutor(4) as pool:
            for found, expected in zip(pool.map(lambda block: shared(*block), blocks), alone):
                _same_bits(found, expected, "threads")

    def test_block_is_not_changed(self):
        """X, y and weights may be read-only, such as memory maps, and are left as they are."""
        X, y, weight, w, b = self._case(LENGTHS[1], 9, "float64")
        for layout in self.layouts:
            for dtype in self.dtypes:
                block = lay_out(X.astype(dtype), layout)
                expected = self.make(w, b, 2)(block, y, weight)
                for array in (block, y, weight):
                    _freeze(array)
                _same_bits(self.make(w, b, 2)(block, y, weight), expected, f"{layout}, {dtype}")
                y, weight = y.copy(), weight.copy()

    def test_block_of_no_rows_adds_nothing(self):
        """No rows give zeros of the right shapes."""
        X, y, weight, w, b = self._case(2, 9, "float64")
        for layout in self.layouts:
            value, gradient, gradient_sum, curvature = self.make(w, b, 2)(lay_out(X[:0], layout), y[:0], weight[:0])
            assert value == 0 and gradient.shape == w.shape and not gradient.any() and not np.any(gradient_sum), layout
            assert curvature.shape == (0, *w.shape[1:]), layout

    def _compare(self, options, *, lengths=LENGTHS, orders=(0, 1, 2), dtypes=None, tolerance=None):
        for layout in self.layouts:
            for dtype in dtypes or self.dtypes:
                bound = tolerance or self.tolerance[dtype]
                for p in WIDTHS:
                    for n in lengths:
                        X, y, weight, w, b = self._case(n, p, dtype)
                        given = dict(options)
                        if "shift" in given:
                            X, given["shift"] = self._far(X)
                        for order in orders:
                            for weights in (None, weight):
                                block = lay_out(X, layout)
                                found = self.make(w, b, order, **given)(block, y, weights)
                                where = f"{layout}, {dtype}, {n} x {p}, order {order}, weights {weights is not None}"
                                shift = given.get("shift")
                                if shift is not None and not given.get("wide"):
                                    # Rows less a rounded shift are exact; less an unrounded one they could not be.
                                    shift = shift.astype(dtype)
                                expected = self.expected(X, y, weights, w, b, order, 0.0 if shift is None else shift)
                                _close(found, *expected, bound, where)

    def _far(self, X):
        """Move columns a thousand deviations away; the shift is a number of the block's precision."""
        shift = (1000.0 * (1 + np.arange(X.shape[1]) % 3)).astype(X.dtype)
        return X + shift, shift.astype(np.float64)

    def _cuts(self, X, layout):
        """Yield X as parts of larger arrays full of NaN, at several alignments."""
        n, p = X.shape
        if layout in ("rows", "columns"):
            order = "C" if layout == "rows" else "F"
            for offset in (1, 3, 8):
                flat = np.full(X.size + 64, np.nan, dtype=X.dtype)
                inside = flat[offset : offset + X.size].reshape((n, p), order=order)
                inside[...] = X
                yield inside
            if layout == "rows":
                yield _surrounded(X, "C")[5 : 5 + n]
            return
        block = lay_out(X, layout)
        data = np.concatenate([[np.nan] * 3, block.data, [np.nan] * 5]).astype(X.dtype)
        inside = type(block)(block.shape, dtype=X.dtype)
        inside.indptr, inside.indices, inside.data = block.indptr, block.indices, data[3 : 3 + block.data.size]
        yield inside

    def _case(self, n, p, dtype):
        rng = np.random.default_rng([n, p])
        X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-1, 2, p)
        k = self.loss.n_outputs
        if any(layout.startswith("csr") for layout in self.layouts):
            X *= rng.random((n, p)) < 0.3
            # An empty row, an empty column, a full row.
            X[n // 2] = 0.0
            X[:, p // 2] = 0.0
            X[n // 3] = 1.0
        X = X.astype(dtype)
        w = rng.normal(size=(p, k) if k > 1 else p) / np.sqrt(p)
        b = rng.normal(size=k) if k > 1 else 0.3
        y = rng.integers(0, max(k, 2), n).astype(np.float32)
        return X, y, rng.uniform(0.1, 3.0, n), w, b

    def _steepness(self, h, weight):
        """Bound the change of a row's gradient per unit of margin."""
        return h if h.ndim == 1 else np.broadcast_to(weight[:, None], h.shape)


def _close(found, expected, sizes, tolerance, where):
    for what, a, b, size in zip(("value", "gradient", "gradient_sum", "curvature"), found, expected, sizes):
        error = np.abs(np.asarray(a) - b)
        assert error.shape == np.shape(b), f"{what} has shape {error.shape}, not {np.shape(b)}: {where}"
        # Sums of n numbers may err by a little more than each of them.
        worst = np.max(error / np.maximum(tolerance * size, 1e-300), initial=0.0) if np.any(error) else 0.0
        assert worst <= 1, f"{what} is off by {error.max():.1e}, {worst:.1f} times what is allowed: {where}"


def _same_bits(found, expected, where):
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b, err_msg=where)


def _freeze(array):
    parts = (array.data, array.indices, array.indptr) if sparse.issparse(array) else (array,)
    for part in parts:
        part.flags.writeable = False
