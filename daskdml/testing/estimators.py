"""Promises of every estimator: scikit-learn's contract, and that chunks, threads and kinds of input change nothing."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from daskdml.testing.bad_input import BadInput
from daskdml.testing.fitting import FittingContract
from daskdml.testing.tables import DENSE, LAZY, SPARSE, dense


class EstimatorContract(BadInput, FittingContract):
    """Test an estimator that fits X and y; `ClassifierContract` and `RegressorContract` add what is theirs.

    A subclass defines `make` and `targets`. Answers on different kinds of input are compared through `fitted`.

    Attributes
    ----------
    configurations : tuple of dict
        Parameters, each set of which must pass scikit-learn's `check_estimator`.
    starved : dict or None
        Parameters with which the fit cannot converge, and warns; None for a direct solution.
    tight : dict, default {}
        Parameters with which the answer is as good as rounding lets it be, also on many rows.
    chunk_tolerance : float, default 1e-9
        Relative difference that another chunking may make.
    float32_tolerance : float, default 1e-5
        Relative difference between the fit of float32 rows and of the same rows in float64.
    single : tuple of str
        Methods that give one value per row.
    several : tuple of str
        Methods that give one value per row and class.
    takes_missing : bool, default False
        Whether NaN and infinity in X are values like others.
    takes_categories : bool, default False
        Whether columns of category dtype are features like others.
    has_twin : bool, default True
        Whether scikit-learn has an estimator that ``to_sklearn`` can make.

    Examples
    --------
    >>> from daskdml.linear_model import Ridge
    >>> class TestRidge(EstimatorContract):
    ...     def make(self, **params):
    ...         return Ridge(**params)
    ...     def targets(self, X):
    ...         return X @ np.arange(X.shape[1])
    >>> TestRidge().test_input_is_left_alone()
    """

    starved = None
    tight = {}
    chunk_tolerance = 1e-9
    float32_tolerance = 1e-5
    single = ("predict",)
    several = ()
    takes_missing = False
    has_twin = True

    def targets(self, X):
        """Return targets that go with rows of X, a function of each row alone.

        Parameters
        ----------
        X : ndarray of shape (n, p)

        Returns
        -------
        ndarray of shape (n,)
        """
        raise NotImplementedError

    def fitted(self, model):
        """Return what was learned as one vector; as it stands, ``coef_`` and ``intercept_``.

        Parameters
        ----------
        model : fitted estimator

        Returns
        -------
        ndarray of shape (m,)
        """
        return np.concatenate([np.ravel(model.coef_), np.ravel(model.intercept_)])

    def narrowed(self, model):
        """Return what float32 rows must not change, as one vector: ``coef_``, without an intercept far from zero.

        Parameters
        ----------
        model : fitted estimator

        Returns
        -------
        ndarray of shape (m,)
        """
        return np.ravel(model.coef_)

    def rows(self, n=160, p=5):
        """Return rows to fit: of numbers that float32 holds exactly, a third of them zero.

        Parameters
        ----------
        n, p : int

        Returns
        -------
        X : ndarray of shape (n, p)
        y : ndarray of shape (n,)
        """
        rng = np.random.default_rng([n, p])
        X = np.round(rng.normal(size=(n, p)) * 256) / 256 * (rng.random((n, p)) < 0.67)
        return X, self.targets(X)

    # Chunks, kinds of input -----------------------------------------------------------------------------------------

    def test_kind_of_input_does_not_matter(self):
        """Every dense kind of table, chunked in every way, gives the coefficients of NumPy's."""
        self._same_on(DENSE)

    def test_sparse_input(self):
        """CSR, CSC and Dask arrays of CSR chunks give the coefficients of the dense matrix."""
        self._same_on(SPARSE)

    def test_chunking_does_not_matter(self):
        """One chunk, many, chunks of one row and empty ones: the same answer to nine digits."""
        import dask.array as da

        X, y = self.rows()
        expected = self.fitted(self.make().fit(X, y))
        n = len(X)
        for chunks in ((n,), (1, n - 1), (n - 1, 1), (0, n, 0), (n // 2, 0, 0, n - n // 2), (1,) * 40 + (n - 40,)):
            model = self.make().fit(da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,)))
            self._close(self.fitted(model), expected, self.chunk_tolerance, f"chunks {chunks}")

    def test_targets_chunked_otherwise(self):
        """y and weights may be chunked differently from X, or lie in memory beside it."""
        import dask.array as da

        X, y = self.rows()
        weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
        expected = self.fitted(self.make().fit(X, y, sample_weight=weight))
        many = da.from_array(y, chunks=37), da.from_array(weight, chunks=50)
        # As many chunks as the tables have, of other lengths.
        five = da.from_array(y, chunks=32), da.from_array(weight, chunks=32)
        keep = da.from_array(np.ones(len(X), dtype=bool), chunks=50)
        unknown = da.from_array(y, chunks=50)[keep], da.from_array(weight, chunks=50)[keep]
        for kind in LAZY:
            lazy = self._table(kind, X)
            for targets, weights in (many, five, unknown, (y, weight)):
                model = self.make().fit(lazy, targets, sample_weight=weights)
                self._close(self.fitted(model), expected, self.chunk_tolerance, f"{kind}, y {type(targets).__name__}")

    def test_order_of_rows_does_not_matter(self):
        """Shuffled rows give the same answer to nine digits."""
        X, y = self.rows()
        turn = np.random.default_rng(0).permutation(len(X))
        expected = self.fitted(self.make().fit(X, y))
        self._close(self.fitted(self.make().fit(X[turn], y[turn])), expected, self.chunk_tolerance, "shuffled")

    def test_weights_are_repetitions(self):
        """Integer weights are as good as repeated rows, a weight of zero as an absent one, in memory and on Dask."""
        X, y = self.rows()
        weight = np.random.default_rng(1).integers(0, 4, len(X))
        rows = np.repeat(np.arange(len(X)), weight)
        expected = self.fitted(self.make().fit(X[rows], y[rows]))
        for kind in ("numpy", "dask array", "csr", "dask csr"):
            model = self.make().fit(self._table(kind, X), y, sample_weight=weight)
            self._close(self.fitted(model), expected, 1e-8, kind)
        for ones in (np.ones(len(X)), np.ones(len(X), dtype=int)):
            model = self.make().fit(X, y, sample_weight=ones)
            self._close(self.fitted(model), self.fitted(self.make().fit(X, y)), 1e-12, "unit weights")

    def test_a_number_is_the_weight_of_every_row(self):
        """A number for a weight is as good as that number for each row, on every kind of input."""
        X, y = self.rows()
        expected = self.fitted(self.make().fit(X, y, sample_weight=np.full(len(X), 2.0)))
        for kind in {**DENSE, **SPARSE}:
            table = self._table(kind, X)
            model = self.make().fit(table, self._beside(table, y), sample_weight=2.0)
            self._close(self.fitted(model), expected, self.chunk_tolerance, kind)

    def test_float32_is_kept_and_as_good(self):
        """float32 rows give nearly the answer of the same rows in float64, near zero and with means far from it."""
        n, p = 40_000, 6
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n, p))
        y = self.targets(X)
        for mean in (0.0, 100.0):
            narrow = (X + mean).astype(np.float32)
            answers = [self.make(**self.tight).fit(rows, y) for rows in (narrow, narrow.astype(np.float64))]
            a, b = (self.narrowed(model) for model in answers)
            self._close(a, b, self.float32_tolerance, f"mean {mean}")
            a, b = (dense(model.predict(narrow[:100])) for model in answers)
            if a.dtype.kind == "f":
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    def test_integers_and_booleans_are_numbers(self):
        """Columns of other number types count as float64."""
        X, _ = self.rows()
        for kind in (np.int8, np.uint8, np.int32, np.int64, np.float16, bool, object):
            narrow = (X > 0.5).astype(kind)
            y = self.targets(X)
            expected = self.fitted(self.make().fit(narrow.astype(np.float64), y))
            self._close(self.fitted(self.make().fit(narrow, y)), expected, 1e-12, np.dtype(kind).name)

    def test_input_is_left_alone(self):
        """X, y and weights are not written to, and may be read-only or a view with gaps."""
        X, y = self.rows()
        weight = np.ones(len(X))
        kept = X.copy(), y.copy(), weight.copy()
        for array in (X, y, weight):
            array.flags.writeable = False
        first = self.fitted(self.make().fit(X, y, sample_weight=weight))
        for a, b in zip((X, y, weight), kept):
            np.testing.assert_array_equal(a, b)
        wide = np.full((2 * len(X), 2 * X.shape[1]), np.nan)
        wide[::2, ::2] = X
        spaced = np.repeat(y, 2)[::2], np.repeat(weight, 2)[::2]
        model = self.make().fit(wide[::2, ::2], spaced[0], sample_weight=spaced[1])
        self._close(self.fitted(model), first, 1e-12, "strided")

    # Predictions -----------------------------------------------------------------------------------------------------

    def test_prediction_is_the_same_on_every_kind(self):
        """Every method gives on every kind of input what it gives on NumPy."""
        X, y = self.rows()
        kinds = {**DENSE, **SPARSE}
        for name in self.methods:
            for kind in kinds:
                table = self._table(kind, X)
                # Fitted on the same kind, for the names.
                model = self.make().fit(table, self._beside(table, y))
                expected = getattr(self.make().fit(X, y), name)(X)
                found = dense(getattr(model, name)(table))
                assert found.shape == expected.shape, f"{name} on {kind}"
                if expected.dtype.kind == "f":
                    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8, err_msg=f"{name} on {kind}")
                else:
                    np.testing.assert_array_equal(found, expected, err_msg=f"{name} on {kind}")

    def test_prediction_on_dask_is_lazy(self):
        """Nothing is computed; chunks, unknown ones too, and the index are kept."""
        X, y = self.rows()
        for kind in LAZY:
            table = self._table(kind, X)
            model = self.make().fit(table, self._beside(table, y))
            for name in self.methods:
                out = getattr(model, name)(self._exploding(table))
                assert hasattr(out, "dask"), f"{name} on {kind} is a {type(out).__name__}"
                out = getattr(model, name)(table)
                if kind == "dask frame":
                    assert out.npartitions == table.npartitions
                    assert list(out.compute().index) == list(table.compute().index), f"{name} on {kind}"
                else:
                    assert str(out.chunks[0]) == str(table.chunks[0]), f"{name} on {kind}"
                    computed = out.compute()
                    assert out.dtype == computed.dtype and out.ndim == computed.ndim, f"{name} on {kind}"

    def test_single_rows(self):
        """A row alone gets the prediction it has among others; no rows are refused as scikit-learn does."""
        X, y = self.rows()
        model = self.make().fit(X, y)
        for name in self.methods:
            together = getattr(model, name)(X)
            for i in (0, 7, len(X) - 1):
                alone = getattr(model, name)(X[i : i + 1])[0]
                if together.dtype.kind == "f":
                    np.testing.assert_allclose(alone, together[i], rtol=1e-12, atol=1e-14)
                else:
                    assert alone == together[i]
        with pytest.raises(ValueError, match="0 sample"):
            model.predict(X[:0])

    def test_prediction_refuses_nan(self):
        """NaN and infinity at predict are errors, in memory at once and on Dask when computed."""
        if self.takes_missing:
            pytest.skip("takes missing values")
        X, y = self.rows()
        model = self.make().fit(X, y)
        for bad, match in ((np.nan, "NaN"), (np.inf, "infinity")):
            spoiled = X.copy()
            spoiled[11, 2] = bad
            for kind in ("numpy", "csr", "dask array"):
                with pytest.raises(ValueError, match=match):
                    dense(model.predict(self._table(kind, spoiled)))

    def test_score_is_a_number(self):
        """`score` gives the same float in memory and on Dask, weighted too."""
        X, y = self.rows()
        model = self.make().fit(X, y)
        weight = np.random.default_rng(0).uniform(size=len(X))
        for options in ({}, {"sample_weight": weight}):
            expected = model.score(X, y, **options)
            for kind in ("dask array", "dask csr"):
                table = self._table(kind, X)
                found = model.score(table, self._beside(table, y), **options)
                assert isinstance(found, float)
                assert found == pytest.approx(expected, rel=1e-9)

    def test_scikit_learns_twin_predicts_the_same(self):
        """`to_sklearn` gives scikit-learn's own estimator with the same parameters, attributes and predictions."""
        if not self.has_twin:
            pytest.skip("scikit-learn cannot hold this model")
        X, y = self.rows()
        model = self.make().fit(X, y)
        twin = model.to_sklearn()
        assert type(twin).__module__.startswith("sklearn.") and type(twin).__name__ == type(model).__name__
        for name in self.methods:
            if hasattr(twin, name):
                found, expected = (_numeric(getattr(m, name)(X)) for m in (twin, model))
                np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    def test_too_few_steps_warn(self):
        """A fit that had to stop early emits `ConvergenceWarning`, and its report says so."""
        if self.starved is None:
            pytest.skip("solved directly")
        X, y = self.rows()
        with pytest.warns(ConvergenceWarning, match="max_iter"):
            model = self.make(**self.starved).fit(X, y)
        assert not model.fit_report_.converged

    def test_report_says_where_and_how_long(self):
        """`fit_report_` counts passes and seconds, on every kind of input."""
        X, y = self.rows()
        for kind in ("numpy", "dask array"):
            report = self.make().fit(self._table(kind, X), y).fit_report_
            assert report.converged and report.passes >= 1 and report.seconds > 0
            assert "in this process" in str(report)

    # What the tests share --------------------------------------------------------------------------------------------

    @property
    def methods(self):
        """Return the names of all methods that predict."""
        return (*self.single, *self.several)

    def _many_rows(self):
        X = np.random.default_rng(0).normal(size=(60_000, 40))
        return X, self.targets(X)

    def _same_on(self, kinds):
        X, y = self.rows()
        expected = self.fitted(self.make().fit(X, y))
        for kind in kinds:
            table = self._table(kind, X)
            model = self.make().fit(table, self._beside(table, y))
            self._close(self.fitted(model), expected, self.chunk_tolerance, kind)

    @staticmethod
    def _close(found, expected, tolerance, where):
        assert found.shape == expected.shape, where
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"{where}: differs by {error:.1e} of the largest coefficient"


def _numeric(values):
    return values if values.dtype.kind == "f" else np.unique(values, return_inverse=True)[1]
