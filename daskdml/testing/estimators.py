"""Promises of every estimator: scikit-learn's contract, and that chunks, threads and kinds of input change nothing."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from daskdml import config_context
from daskdml.testing import tables
from daskdml.testing.bad_input import BadInput
from daskdml.testing.tables import DENSE, LAZY, SPARSE, cuts, dense


class EstimatorContract(BadInput):
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

    configurations = ({},)
    starved = None
    tight = {}
    chunk_tolerance = 1e-9
    float32_tolerance = 1e-5
    single = ("predict",)
    several = ()

    def make(self, **params):
        """Return an unfitted estimator.

        Parameters
        ----------
        **params
            Parameters of its constructor.

        Returns
        -------
        estimator
        """
        raise NotImplementedError

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

    # scikit-learn's own checks ---------------------------------------------------------------------------------------

    def test_scikit_learns_checks(self):
        """`check_estimator` has nothing to object to, in any configuration."""
        for params in self.configurations:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = check_estimator(self.make(**params), on_skip=None, on_fail=None)
            failed = [f"{one['check_name']}: {one['exception']}" for one in found if one["status"] == "failed"]
            assert not failed, f"{params}\n" + "\n".join(failed)

    def test_parameters_survive(self):
        """`clone` and `set_params` keep every parameter; `fit` changes none."""
        X, y = self.rows()
        for params in self.configurations:
            model = clone(self.make(**params))
            before = copy.deepcopy(model.get_params())
            model.fit(X, y)
            assert str(model.get_params()) == str(before)

    # Chunks, threads, kinds of input ---------------------------------------------------------------------------------

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
        for kind in LAZY:
            lazy = self._table(kind, X)
            for targets, weights in (
                (da.from_array(y, chunks=37), da.from_array(weight, chunks=50)),
                (y, weight),
            ):
                if kind in ("dask frame", "dask unknown") and targets is not y:
                    # Rows of unknown chunks can be matched to chunks of the same number only.
                    targets = self._beside(lazy, y)
                    weights = self._beside(lazy, weight)
                model = self.make().fit(lazy, targets, sample_weight=weights)
                self._close(self.fitted(model), expected, self.chunk_tolerance, f"{kind}, y {type(targets).__name__}")

    def test_threads_do_not_matter(self):
        """One thread, two, three and the plain loop of ``runtime="debug"`` give the same bits, over several blocks."""
        import dask.array as da

        n, p = 60_000, 40
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n, p))
        y = self.targets(X)
        lazy = da.from_array(X, chunks=(n // 5, p)), da.from_array(y, chunks=n // 5)
        for data in ((X, y), lazy):
            answers = []
            for options in ({"n_threads": 1}, {"n_threads": 2}, {"n_threads": 3}, {"runtime": "debug"}):
                with config_context(**options):
                    answers.append(self.fitted(self.make().fit(*data)))
            for answer in answers[1:]:
                np.testing.assert_array_equal(answer, answers[0])

    def test_second_fit_gives_the_same_bits(self):
        """Nothing is left over from a fit, on the estimator or elsewhere."""
        X, y = self.rows()
        model = self.make()
        first = self.fitted(model.fit(X, y))
        model.fit(X[:50], y[:50])
        np.testing.assert_array_equal(self.fitted(model.fit(X, y)), first)
        np.testing.assert_array_equal(self.fitted(self.make().fit(X, y)), first)

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

    def test_float32_is_kept_and_as_good(self):
        """float32 rows give nearly the answer of the same rows in float64, near zero and with means far from it."""
        n, p = 40_000, 6
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n, p))
        y = self.targets(X)
        for mean in (0.0, 100.0):
            narrow = (X + mean).astype(np.float32)
            answers = [self.make(**self.tight).fit(rows, y) for rows in (narrow, narrow.astype(np.float64))]
            a, b = (np.ravel(model.coef_) for model in answers)
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

    # Names -----------------------------------------------------------------------------------------------------------

    def test_names_are_kept_and_checked(self):
        """Column names of every kind of frame are recorded; other names, or another order, are refused at predict."""
        X, y = self.rows()
        names = [f"f{j}" for j in range(X.shape[1])]
        for kind in ("pandas", "polars", "dask frame"):
            frame = self._table(kind, X)
            model = self.make().fit(frame, self._beside(frame, y))
            assert list(model.feature_names_in_) == names, kind
            assert model.n_features_in_ == X.shape[1]
            turned = frame[names[::-1]]
            with pytest.raises(ValueError, match="feature names should match"):
                model.predict(turned)
            with pytest.warns(UserWarning, match="does not have valid feature names"):
                model.predict(X)
            model.fit(X, y)
            assert not hasattr(model, "feature_names_in_")

    def test_another_number_of_features_is_refused(self):
        """Prediction on more or fewer columns says how many were expected."""
        X, y = self.rows()
        model = self.make().fit(X, y)
        for kind in ("numpy", "dask array", "csr"):
            with pytest.raises(ValueError, match="features, but .* is expecting 5 features"):
                dense(model.predict(self._table(kind, X[:, :3])))

    # Predictions -----------------------------------------------------------------------------------------------------

    def test_prediction_is_the_same_on_every_kind(self):
        """Every method gives on every kind of input what it gives on NumPy."""
        X, y = self.rows()
        kinds = {**DENSE, **SPARSE}
        for name in (*self.single, *self.several):
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
            for name in (*self.single, *self.several):
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
        for name in (*self.single, *self.several):
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

    def test_unfitted_estimator_says_so(self):
        """Every method of an unfitted estimator raises `NotFittedError`, on Dask input too."""
        X, _ = self.rows()
        for name in (*self.single, *self.several):
            for kind in ("numpy", "dask array"):
                with pytest.raises(NotFittedError):
                    getattr(self.make(), name)(self._table(kind, X))

    def test_fitted_estimator_pickles(self):
        """A pickle of a fit on Dask is small, holds no rows, and predicts the same."""
        X, y = self.rows(2000, 5)
        table = self._table("dask array", X)
        model = self.make().fit(table, y)
        stored = pickle.dumps(model)
        assert len(stored) < 20_000
        twin = pickle.loads(stored)
        for name in (*self.single, *self.several):
            np.testing.assert_array_equal(getattr(twin, name)(X), getattr(model, name)(X))

    def test_scikit_learns_twin_predicts_the_same(self):
        """`to_sklearn` gives scikit-learn's own estimator with the same parameters, attributes and predictions."""
        X, y = self.rows()
        model = self.make().fit(X, y)
        twin = model.to_sklearn()
        assert type(twin).__module__.startswith("sklearn.") and type(twin).__name__ == type(model).__name__
        for name in (*self.single, *self.several):
            np.testing.assert_allclose(*(_numeric(getattr(m, name)(X)) for m in (twin, model)), rtol=1e-10, atol=1e-12)

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

    # What the tests above share --------------------------------------------------------------------------------------

    def _same_on(self, kinds):
        X, y = self.rows()
        expected = self.fitted(self.make().fit(X, y))
        for kind in kinds:
            table = self._table(kind, X)
            model = self.make().fit(table, self._beside(table, y))
            self._close(self.fitted(model), expected, self.chunk_tolerance, kind)

    def _table(self, kind, X):
        return {**DENSE, **SPARSE}[kind](X)

    def _beside(self, table, values):
        """Return values as what usually stands beside such a table: chunks of the same rows for Dask input."""
        import dask.array as da

        if not hasattr(table, "dask"):
            return values
        if hasattr(table, "npartitions") and not hasattr(table, "chunks"):
            import pandas as pd

            frame = pd.DataFrame({"y": values}, index=np.arange(len(values)) * 10)
            return tables.partitions(frame, cuts(len(values)))["y"]
        if np.isnan(table.shape[0]):
            return self._beside(tables.DENSE["dask frame"](np.zeros((len(values), 1))), values).to_dask_array()
        return da.from_array(values, chunks=(cuts(len(values)), *values.shape[1:]))

    def _exploding(self, table):
        """Return a twin of a Dask table that raises when any part of it is computed."""
        if hasattr(table, "npartitions") and not hasattr(table, "chunks"):
            return table.map_partitions(_explode, meta=table.meta if hasattr(table, "meta") else table._meta)
        return table.map_blocks(_explode, dtype=table.dtype, meta=table._meta)

    @staticmethod
    def _close(found, expected, tolerance, where):
        assert found.shape == expected.shape, where
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"{where}: differs by {error:.1e} of the largest coefficient"


def _explode(part):
    if len(part) if not sparse.issparse(part) else part.shape[0]:
        raise AssertionError("rows were computed")
    return part


def _numeric(values):
    return values if values.dtype.kind == "f" else np.unique(values, return_inverse=True)[1]
