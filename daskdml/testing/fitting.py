"""Promises of everything with a ``fit``, with y or without: what the contracts of estimators and transformers share."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from daskdml import config_context
from daskdml.testing.answers import same_answer
from daskdml.testing.tables import DENSE, SPARSE, cuts, dense, lazily, partitions


class FittingContract:
    """Test what is fitted; a subclass says how it is made, on what, and which methods it then has."""

    #: Parameters, each set of which must pass scikit-learn's `check_estimator`.
    configurations = ({},)
    #: Bytes that the pickle of a fit on 2,000 rows of five columns may have.
    most_pickled = 20_000

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

    def expected_failures(self, params):
        """Return which checks of scikit-learn's must fail with these parameters, and why: none, as it stands.

        Parameters
        ----------
        params : dict
            One of ``configurations``.

        Returns
        -------
        dict of str to str
        """
        return {}

    # scikit-learn's own checks ---------------------------------------------------------------------------------------

    def test_scikit_learns_checks(self):
        """`check_estimator` has nothing to object to, in any configuration."""
        for params in self.configurations:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = self.expected_failures(params)
                found = check_estimator(
                    self.make(**params), on_skip=None, on_fail=None, expected_failed_checks=expected
                )  # fmt: skip
            failed = [f"{one['check_name']}: {one['exception']}" for one in found if one["status"] == "failed"]
            assert not failed, f"{params}\n" + "\n".join(failed)

    def test_parameters_survive(self):
        """`clone` and `set_params` keep every parameter; `fit` changes none."""
        data = self.rows()
        for params in self.configurations:
            model = clone(self.make(**params))
            before = copy.deepcopy(model.get_params())
            model.fit(*data)
            assert str(model.get_params()) == str(before)

    # Threads, repetition ---------------------------------------------------------------------------------------------

    def test_threads_do_not_matter(self):
        """One thread, two, three and the plain loop of ``runtime="debug"`` give the same bits, over several blocks."""
        data = self._many_rows()
        n = len(data[0])
        lazy = tuple(lazily(part, (n // 5,) * 4 + (n - n // 5 * 4,)) for part in data)
        for parts in (data, lazy):
            answers = []
            for options in ({"n_threads": 1}, {"n_threads": 2}, {"n_threads": 3}, {"runtime": "debug"}):
                with config_context(**options):
                    answers.append(self.fitted(self.make().fit(*parts)))
            for answer in answers[1:]:
                same_answer(answer, answers[0])

    def test_second_fit_gives_the_same_bits(self):
        """Nothing is left over from a fit, on the estimator or elsewhere."""
        data = self.rows()
        model = self.make()
        first = self.fitted(model.fit(*data))
        model.fit(*(part[:50] for part in data))
        same_answer(self.fitted(model.fit(*data)), first)
        same_answer(self.fitted(self.make().fit(*data)), first)

    # Names -----------------------------------------------------------------------------------------------------------

    def test_names_are_kept_and_checked(self):
        """Column names of every kind of frame are recorded; other names, or another order, are refused afterwards."""
        X, *rest = self.rows()
        names = list(self._table("pandas", X).columns)
        for kind in ("pandas", "polars", "dask frame"):
            frame = self._table(kind, X)
            model = self.make().fit(frame, *(self._beside(frame, part) for part in rest))
            assert list(model.feature_names_in_) == names, kind
            assert model.n_features_in_ == X.shape[1]
            use = getattr(model, self.methods[0])
            kept = dict(vars(model))
            with pytest.raises(ValueError, match="feature names should match"):
                use(frame[names[::-1]])
            with pytest.raises(ValueError, match="now missing:\n- " + names[0]):
                use(frame[names[1:]])
            assert _untouched(model, kept), kind
            with pytest.warns(UserWarning, match="does not have valid feature names"):
                use(np.asarray(X))
            model.fit(np.asarray(X), *rest)
            assert not hasattr(model, "feature_names_in_")

    def test_another_number_of_features_is_refused(self):
        """More or fewer columns than in the fit: one sentence says how many were expected, and nothing is changed."""
        X, *rest = self.rows()
        model = self.make().fit(np.asarray(X), *rest)
        kept = dict(vars(model))
        for kind in {"numpy", "dask array", "csr"} & set(self.kinds):
            for columns in ([0, 1, 2], [0, 1, 2, 3, 4, 4]):
                table = self._table(kind, X)[:, columns]
                with pytest.raises(ValueError, match=r"features, but \w+ is expecting 5 features"):
                    dense(getattr(model, self.methods[0])(table))
                assert _untouched(model, kept), kind

    def test_a_failed_fit_changes_nothing(self):
        """An estimator whose fit fails while rows are read is what it was before, fitted or not."""
        X, *rest = self.rows()
        for model in (self.make(), self.make().fit(np.asarray(X), *rest)):
            kept = dict(vars(model))
            for kind in ("dask array", "dask frame"):
                table = self._table(kind, X.iloc[:, :3] if hasattr(X, "iloc") else X[:, :3])
                broken = self._exploding(table)
                with pytest.raises(AssertionError, match="rows were computed"):
                    model.fit(broken, *(self._beside(table, part) for part in rest))
                assert _untouched(model, kept), kind

    # Unfitted, stored ------------------------------------------------------------------------------------------------

    def test_unfitted_estimator_says_so(self):
        """Every method of an unfitted estimator raises `NotFittedError`, on Dask input too."""
        X, *_ = self.rows()
        for name in self.methods:
            for kind in ("pandas", "numpy", "dask array", "dask frame"):
                with pytest.raises(NotFittedError):
                    getattr(self.make(), name)(self._table(kind, X))

    def test_fitted_estimator_pickles(self):
        """A pickle of a fit on Dask is small, holds no rows, and gives the same answers."""
        X, *rest = self.rows(2000)
        table = self._table("dask array", X)
        model = self.make().fit(table, *rest)
        stored = pickle.dumps(model)
        assert len(stored) < self.most_pickled
        twin = pickle.loads(stored)
        X = self._table("numpy", X)
        for name in self.methods:
            same_answer(dense(getattr(twin, name)(X)), dense(getattr(model, name)(X)))

    # What the tests above share --------------------------------------------------------------------------------------

    @property
    def kinds(self):
        """Return the kinds of table that X may be, as constructors by name."""
        return {**DENSE, **SPARSE}

    def _table(self, kind, X):
        return {**DENSE, **SPARSE}[kind](X)

    def _beside(self, table, values):
        """Return values as what usually stands beside such a table: chunks of the same rows for Dask input."""
        if not hasattr(table, "dask"):
            return values
        if hasattr(table, "npartitions") and not hasattr(table, "chunks"):
            import pandas as pd

            frame = pd.DataFrame({"y": values}, index=np.arange(len(values)) * 10)
            return partitions(frame, cuts(len(values)))["y"]
        if np.isnan(table.shape[0]):
            return self._beside(DENSE["dask frame"](np.zeros((len(values), 1))), values).to_dask_array()
        return lazily(values, cuts(len(values)))

    def _exploding(self, table):
        """Return a twin of a Dask table that raises when any part of it is computed."""
        if hasattr(table, "npartitions") and not hasattr(table, "chunks"):
            return table.map_partitions(_explode, meta=table.meta if hasattr(table, "meta") else table._meta)
        return table.map_blocks(_explode, dtype=table.dtype, meta=table._meta)


def _untouched(model, kept):
    """Tell whether an estimator has the very attributes that it had."""
    return vars(model).keys() == kept.keys() and all(vars(model)[name] is kept[name] for name in kept)


def _explode(part):
    if len(part) if not sparse.issparse(part) else part.shape[0]:
        raise AssertionError("rows were computed")
    return part
