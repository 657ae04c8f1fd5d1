"""What linear models do after the fit: a linear map of rows, on any input, and the export to scikit-learn."""

import functools

import numpy as np
from scipy import sparse
from sklearn.exceptions import NotFittedError

from daskdml.data import apply_rows, as_matrix, check_features, is_dask
from daskdml.kernels.device import module_of, on_host

_SLAB = 65_536


class LinearPredictor:
    """Mixin: decision values of a linear model with ``coef_`` and ``intercept_``."""

    def _map_rows(self, X, finish, **result):
        """Apply ``finish(decision values)`` to the rows of X.

        Parameters
        ----------
        X : any input, shape (n, p)
        finish : callable or None
            Of an ndarray of shape (n,) or (n, k); picklable.
        **result
            ``kind``, ``columns``, ``dtype``, ``name`` of `daskdml.data.apply_rows`.
        """
        check_fitted(self)
        if type(X) is not np.ndarray or X.ndim != 2 or hasattr(self, "feature_names_in_"):
            check_features(self, X, reset=False)
        elif X.shape[1] != self.n_features_in_ or X.shape[0] == 0 or X.dtype.kind == "c":
            check_features(self, X, reset=False)
        coef, end = self._weights(), functools.partial(_finish, np.asarray(self.intercept_), finish)
        fn = functools.partial(_decide, coef, end)
        if not is_dask(X):
            return fn(X)
        return apply_rows(fn, X, by_panel=(functools.partial(_part_of, coef), end), on_host=True, **result)

    def _weights(self):
        """Return coefficients as (p,) for one output, (p, k) for several."""
        # After `sparsify` only storage is sparse: BLAS multiplies rows by few dense columns faster.
        coef = self.coef_.toarray() if sparse.issparse(self.coef_) else np.asarray(self.coef_)
        return coef if coef.ndim == 1 else coef.T


class StoredCoefficients:
    """Mixin: coefficients may be stored as a sparse matrix."""

    def sparsify(self):
        """Store ``coef_`` as a SciPy CSR matrix: smaller where most are zero, as after L1.

        Predictions are the same and no faster.

        Returns
        -------
        self
        """
        check_fitted(self)
        self.coef_ = sparse.csr_matrix(self.coef_)
        return self

    def densify(self):
        """Store ``coef_`` as an ndarray again, as `fit` leaves it.

        Returns
        -------
        self
        """
        check_fitted(self)
        self.coef_ = self.coef_.toarray() if sparse.issparse(self.coef_) else self.coef_
        return self


def _decide(coef, end, X):
    return end(_margins(coef, X))


def _part_of(coef, columns):
    """Return the function of a column panel that gives its share of the margins."""
    return functools.partial(_margins, coef[columns])


def _finish(intercept, finish, raw):
    raw = raw + intercept
    return raw if finish is None else finish(raw)


def _margins(coef, X):
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype.char in "fd"
    X = X if plain else as_matrix(X)
    module = np if plain else module_of(X)
    raw = _product(X, coef) if module is np else on_host(X @ module.asarray(coef, dtype=X.dtype))
    # A NaN anywhere in a row makes its margin NaN: the check costs no read of X.
    if not np.isfinite(raw.sum()) and not np.isfinite(raw).all():
        as_matrix(X, ensure_finite=True)
    return raw


def _product(X, coef):
    """Return ``X @ coef`` in float64, whatever X is, without a float64 copy of all of it."""
    if X.dtype == np.float64 or not isinstance(X, np.ndarray):
        return X @ coef
    parts = [X[s : s + _SLAB].astype(np.float64) @ coef for s in range(0, X.shape[0], _SLAB)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def check_fitted(estimator):
    """Raise NotFittedError for an estimator without coefficients."""
    if not hasattr(estimator, "coef_"):
        raise NotFittedError(
            f"This {type(estimator).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
            "using this estimator."
        )


def to_sklearn(estimator, sklearn_class, **changed):
    """Return a scikit-learn estimator with the parameters and the fitted attributes of one of ours.

    Parameters
    ----------
    estimator : fitted estimator
    sklearn_class : class
    **changed
        Parameters that must differ for scikit-learn to accept them.
    """
    check_fitted(estimator)
    known = sklearn_class().get_params(deep=False)
    params = {name: value for name, value in estimator.get_params(deep=False).items() if name in known}
    twin = sklearn_class(**{**params, **changed})
    for name, value in vars(estimator).items():
        if name.endswith("_") and not name.startswith("_") and name != "fit_report_":
            setattr(twin, name, value.copy() if hasattr(value, "copy") else value)
    return twin
