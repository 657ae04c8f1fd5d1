"""Promises of every transformer: scikit-learn's contract, chunks that change nothing, Dask input that stays lazy."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from sklearn.utils import get_tags

from daskdml import config_context
from daskdml.testing.answers import learned, same_answer
from daskdml.testing.fitting import FittingContract
from daskdml.testing.tables import DENSE, LAZY, SPARSE, dense, lazily, mixed


class TransformerContract(FittingContract):
    """Test a transformer of tables; a subclass defines `make`, and says which tables it takes.

    Its scikit-learn tags say the rest: tables have missing values with ``allow_nan``, and are sparse too with
    ``sparse``.

    Attributes
    ----------
    takes : {"numbers", "mixed"}, default "numbers"
        Whether it is tested on a matrix of numbers, or on a frame that also has words, flags and a category.
    twin : type or None, default None
        scikit-learn's class, which must learn and give the same with the same parameters.
    configurations : tuple of dict
        Parameters, each set of which must pass scikit-learn's `check_estimator`.
    tolerance : float, default 1e-9
        Relative difference that another chunking or kind of table may make, and the twin.

    Examples
    --------
    >>> from daskdml.preprocessing import StandardScaler
    >>> class TestStandardScaler(TransformerContract):
    ...     def make(self, **params):
    ...         return StandardScaler(**params)
    >>> TestStandardScaler().test_chunking_does_not_matter()
    """

    takes = "numbers"
    twin = None
    tolerance = 1e-9
    methods = ("transform",)

    def fitted(self, model):
        """Return what was learned by name; as it stands, every public fitted attribute.

        Parameters
        ----------
        model : fitted transformer

        Returns
        -------
        dict
        """
        return learned(model)

    def rows(self, n=160):
        """Return the table to fit, as the only one of a tuple.

        Parameters
        ----------
        n : int

        Returns
        -------
        tuple of one ndarray or pandas.DataFrame, of five columns
        """
        if self.takes == "mixed":
            return (mixed(n),)
        rng = np.random.default_rng(n)
        X = np.round(rng.normal(3.0, 2.0, size=(n, 5)) * 64) / 64 * (rng.random((n, 5)) < 0.67)
        if self._tags.allow_nan:
            X[rng.random((n, 5)) < 0.1] = np.nan
        return (X,)

    # Chunks, kinds of input ------------------------------------------------------------------------------------------

    def test_kind_of_input_does_not_matter(self):
        """Every kind of table gives what NumPy's or CSR gives, in memory at once and lazily on Dask."""
        (X,) = self.rows()
        for kind in self.kinds:
            reference = self._table("csr" if kind in SPARSE else "numpy", X)
            expected = dense(self.make().fit_transform(reference))
            table = self._table(kind, X)
            model = self.make()
            for out in (model.fit_transform(table), model.transform(table)):
                assert hasattr(out, "dask") == (kind in LAZY), f"{kind} gives {type(out).__name__}"
                same_answer(dense(out), expected, self.tolerance, kind)

    def test_chunking_does_not_matter(self):
        """One chunk, many, chunks of one row and empty ones: the same attributes and output to nine digits."""
        (X,) = self.rows()
        n = len(X)
        for name in ("numpy", "pandas"):
            table = self._table(name, X)
            model = self.make().fit(table)
            expected = self.fitted(model), dense(model.transform(table))
            for lengths in ((n,), (1, n - 1), (n - 1, 1), (0, n, 0), (n // 2, 0, 0, n - n // 2), (1,) * 40 + (n - 40,)):
                lazy = lazily(table, lengths)
                model = self.make().fit(lazy)
                found = self.fitted(model), dense(model.transform(lazy))
                same_answer(found, expected, self.tolerance, f"{name} in chunks {lengths}")

    def test_single_rows(self):
        """A row alone becomes what it becomes among others; no rows are refused as scikit-learn does."""
        (X,) = self.rows()
        X = self._table("pandas", X)
        model = self.make().fit(X)
        together = dense(model.transform(X))
        for i in (0, 7, len(X) - 1):
            same_answer(dense(model.transform(X.iloc[i : i + 1])), together[i : i + 1], 1e-12, f"row {i}")
        with pytest.raises(ValueError, match="0 sample"):
            model.transform(X.iloc[:0])
        for lengths in ((0,), (0, 0)):
            with pytest.raises(ValueError, match="0 sample"):
                self.make().fit(lazily(X.iloc[:0], lengths))

    def test_input_is_left_alone(self):
        """Neither tables in memory nor the chunks of Dask collections are written to."""
        (X,) = self.rows()
        for name in ("numpy", "pandas"):
            table = self._table(name, X)
            kept = table.copy()
            for given in (table, lazily(table, (len(X),))):
                dense(self.make().fit_transform(given))
                same_answer(table, kept, where=name)

    # Dask input ------------------------------------------------------------------------------------------------------

    def test_data_never_read_are_refused(self):
        """Of what stands for data, Dask's Delayed and polars' LazyFrame, one sentence says how to read it."""
        import dask
        import polars as pl

        lazy = pl.DataFrame({"a": [1.0, 2.0]}).lazy()
        for unread, message in ((dask.delayed(1), "got Delayed; make one"), (lazy, r"LazyFrame; call its collect\(\)")):
            with pytest.raises(TypeError, match=message) as error:
                self.make().fit(unread)
            assert "\n" not in str(error.value)

    def test_transform_on_dask_is_lazy(self):
        """Nothing is computed, and what is promised of the result holds: dtype, and chunks, unknown ones too."""
        (X,) = self.rows()
        for kind in (kind for kind in self.kinds if kind in LAZY and kind != "dask frame"):
            table = self._table(kind, X)
            model = self.make().fit(table)
            assert hasattr(model.transform(self._exploding(table)), "dask"), kind
            out = model.transform(table)
            assert str(out.chunks[0]) == str(table.chunks[0]), kind
            computed = out.compute()
            assert out.dtype == computed.dtype and out.ndim == computed.ndim, kind
            assert out.shape[1] == computed.shape[1] == len(model.get_feature_names_out()), kind

    def test_transform_of_dask_frames_is_lazy(self):
        """Nothing is computed; index, divisions and partitions are kept; sparse output is an array."""
        import dask.dataframe as dd

        frame = self._table("pandas", *self.rows())
        for table in (self._table("dask frame", frame), dd.from_pandas(frame, npartitions=3)):
            model = self.make().fit(table)
            assert hasattr(model.transform(self._exploding(table)), "dask")
            out = model.transform(table)
            assert out.npartitions == table.npartitions
            if sparse.issparse(getattr(out, "_meta", None)):
                assert sparse.issparse(out.compute())
                continue
            computed = out.compute()
            assert out.divisions == table.divisions
            assert list(computed.index) == list(frame.index)
            assert list(out.columns) == list(computed.columns) == list(model.get_feature_names_out())
            assert list(out.dtypes) == list(computed.dtypes)

    def test_fit_never_holds_the_table(self):
        """A fit that streams takes less than half of the memory of all rows."""
        import dask.dataframe as dd

        piece = self._table("pandas", *self.rows(5000))
        n_pieces = 40
        table = dd.from_map(lambda i: piece.copy(), range(n_pieces), meta=piece.iloc[:0])
        with config_context(memory="stream", n_threads=1):
            # Once before, for what stays: modules, compiled code.
            self.make().fit(table.partitions[:2])
            tracemalloc.start()
            try:
                self.make().fit(table)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        share = peak / (n_pieces * piece.memory_usage(deep=True).sum())
        assert share < 0.5, f"fit held {share:.0%} of the bytes of its input"

    # scikit-learn ----------------------------------------------------------------------------------------------------

    def test_scikit_learns_twin_is_the_same(self):
        """scikit-learn's class learns the same from a frame, an array and a sparse matrix, and gives the same."""
        if self.twin is None:
            pytest.skip("scikit-learn has none")
        (X,) = self.rows()
        for kind in {"pandas", "numpy", "csr"} & set(self.kinds):
            table = self._table(kind, X)
            ours, theirs = self.make().fit(table), self.twin(**self.make().get_params()).fit(table)
            expected = learned(theirs)
            found = {name: value for name, value in learned(ours).items() if name in expected}
            same_answer(found, expected, self.tolerance, kind)
            same_answer(dense(ours.transform(table)), dense(theirs.transform(table)), self.tolerance, kind)
            assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out()), kind

    def test_output_container_is_for_memory_only(self):
        """``set_output`` gives frames their names and index; a Dask collection passes by, uncomputed."""
        import pandas as pd

        frame = self._table("pandas", *self.rows())
        plain = self.make().fit(frame)
        expected = plain.transform(frame)
        if sparse.issparse(expected):
            pytest.skip("scikit-learn puts no sparse matrix into a frame")
        model = self.make().set_output(transform="pandas").fit(frame)
        out = model.transform(frame)
        assert isinstance(out, pd.DataFrame) and list(out.columns) == list(plain.get_feature_names_out())
        assert list(out.index) == list(frame.index)
        same_answer(out, expected)
        assert hasattr(model.transform(self._exploding(self._table("dask frame", frame))), "dask")

    # What the tests share --------------------------------------------------------------------------------------------

    @property
    def kinds(self):
        """Return the kinds of table that X may be, as constructors by name."""
        return {**DENSE, **SPARSE} if self.takes == "numbers" and self._tags.sparse else DENSE

    @property
    def _tags(self):
        return get_tags(self.make()).input_tags

    def _many_rows(self):
        return self.rows(60_000)
