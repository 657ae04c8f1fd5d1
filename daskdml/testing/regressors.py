"""What every regressor promises beyond `EstimatorContract`: targets of all types, and several of them."""

import numpy as np

from daskdml.testing.estimators import EstimatorContract
from daskdml.testing.tables import DENSE, SPARSE, dense


class RegressorContract(EstimatorContract):
    """Test a regressor; a subclass defines `make`.

    Attributes
    ----------
    multi_output : bool, default True
        Whether y may have several columns.

    Examples
    --------
    >>> from daskdml.linear_model import Ridge
    >>> class TestRidge(RegressorContract):
    ...     def make(self, **params):
    ...         return Ridge(**params)
    >>> TestRidge().test_several_targets_are_single_ones_side_by_side()
    """

    multi_output = True

    def targets(self, X):
        """Return targets that follow a linear function of X, with noise.

        Parameters
        ----------
        X : ndarray of shape (n, p)

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        rng = np.random.default_rng(7)
        return X @ rng.normal(size=X.shape[1]) + 5.0 + 0.5 * rng.normal(size=len(X))

    def test_targets_of_every_type(self):
        """Integers, booleans and float32 are numbers; a list is an array."""
        X, y = self.rows()
        for kind in (np.int32, np.int64, np.float32, bool, np.uint8):
            narrow = np.abs(y).astype(kind)
            expected = self.fitted(self.make().fit(X, narrow.astype(np.float64)))
            self._close(self.fitted(self.make().fit(X, narrow)), expected, 1e-12, np.dtype(kind).name)
        lists = self.make().fit(X.tolist(), y.tolist())
        self._close(self.fitted(lists), self.fitted(self.make().fit(X, y)), 1e-12, "lists")

    def test_several_targets_are_single_ones_side_by_side(self):
        """Columns of y are fitted as if each were alone, on every kind of input."""
        if not self.multi_output:
            return
        X, y = self.rows()
        Y = np.column_stack([y, -2 * y + X[:, 0], np.cos(y)])
        alone = [self.make().fit(X, column) for column in Y.T]
        coef = np.stack([model.coef_ for model in alone])
        intercept = np.array([model.intercept_ for model in alone])
        predicted = np.column_stack([model.predict(X) for model in alone])
        for kind in ("numpy", "fortran", "pandas", "dask array", "dask columns", *SPARSE):
            table = {**DENSE, **SPARSE}[kind](X)
            model = self.make().fit(table, self._beside(table, Y))
            assert model.coef_.shape == coef.shape and np.shape(model.intercept_) == intercept.shape, kind
            self._close(self.fitted(model), np.concatenate([coef.ravel(), intercept]), 1e-9, kind)
            np.testing.assert_allclose(dense(model.predict(table)), predicted, rtol=1e-8, atol=1e-8, err_msg=kind)

    def test_text_targets_are_refused(self):
        """Words are no numbers."""
        X, y = self.rows()
        self._refuses(X, np.where(y > 0, "high", "low"), "number|float|text|string", "words")
