"""Centre and scale features."""

from functools import partial

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from daskdml import runtime
from daskdml.data import Partitioned, apply_rows, as_matrix, check_features, is_dask, is_frame, refuse_unread
from daskdml.data.lazy_output import LazyOutputMixin
from daskdml.data.statistics import Moments, block_moments, check_no_infinity
from daskdml.utils.atomic import all_or_nothing
from daskdml.utils.params import check_params

_FLOATS = (np.float64, np.float32)
_SPARSE_CENTRE = (
    "Cannot center sparse matrices: pass `with_mean=False` instead. See docstring for motivation and alternatives."
)


class StandardScaler(LazyOutputMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Shift features to mean zero and scale them to unit variance.

    .. math:: z = (x - \\bar x) / s, \\qquad s^2 = \\sum_i w_i (x_i - \\bar x)^2 / \\sum_i w_i

    Parameters
    ----------
    copy : bool, default=True
        If False, scale an in-memory array of floats in place. Acts on in-memory input only: chunks of a Dask
        collection are never changed.
    with_mean : bool, default=True
        Centre. Sparse input needs False: centring would fill it.
    with_std : bool, default=True
        Scale to unit variance.

    Attributes
    ----------
    scale_ : ndarray of shape (n_features,) or None
        Standard deviation; 1 for a (nearly) constant feature. None with ``with_std=False``.
    mean_, var_ : ndarray of shape (n_features,) or None
        Of the present values, float64. `var_` is None with ``with_std=False``, both without ``with_mean`` too.
    n_samples_seen_ : int or ndarray of shape (n_features,)
        Present values per feature, one number when all have the same; sums of weights if weighted.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    NaN is disregarded in ``fit`` and kept in ``transform``.

    One pass over the data. Moments are taken per block in float64, centred, and merged by the formula of Chan, Golub
    and LeVeque along a fixed tree: a mean of :math:`10^6` standard deviations costs no digits, a constant feature has a
    variance of exactly zero. ``transform`` computes in float64 and returns float32 for float32, float64 for all else;
    on a Dask collection it is lazy and keeps chunks and index.

    Examples
    --------
    >>> from daskdml.preprocessing import StandardScaler
    >>> StandardScaler().fit_transform([[0.0, 5.0], [2.0, 5.0]])
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    _constraints = {"copy": ["boolean"], "with_mean": ["boolean"], "with_std": ["boolean"]}

    def __init__(self, *, copy=True, with_mean=True, with_std=True):
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std

    @all_or_nothing
    def fit(self, X, y=None, sample_weight=None):
        """Compute mean and standard deviation of each feature.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or Dask collection of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,) or number for every row, optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For infinite values, sparse input with ``with_mean=True``, and shapes that do not fit together.
        """
        return self._update(X, sample_weight, before=None)

    @all_or_nothing
    def partial_fit(self, X, y=None, sample_weight=None):
        """Update mean and standard deviation with more rows.

        Takes the parameters of `fit`.

        Returns
        -------
        self
        """
        return self._update(X, sample_weight, before=getattr(self, "_moments", None))

    def _update(self, X, sample_weight, before):
        check_params(self, self._constraints)
        first = before is None
        if is_dask(X):
            check_features(self, X, reset=first)
        else:
            X = self._in_memory(X, reset=first)
            if self.with_mean and sparse.issparse(X):
                raise ValueError(_SPARSE_CENTRE)
        with runtime.open(Partitioned.from_any(X, weight=sample_weight), passes="one") as run:
            moments = run.map_reduce(_moments_of_dense if self.with_mean else block_moments, Moments.merge)
        if not np.isfinite(moments.weight).all():
            raise ValueError("Input sample_weight contains NaN or infinity.")
        if sample_weight is not None and not moments.weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number, on a row with a value.")
        self._moments = moments if first else before.merge(moments)
        self._finish(self._moments)
        return self

    def _finish(self, moments):
        seen, variance = moments.weight, moments.variance
        mean = np.where(seen > 0, moments.mean, np.nan)
        self.n_samples_seen_ = seen[0] if seen.min() == seen.max() else seen
        self.mean_ = mean if self.with_mean or self.with_std else None
        self.var_ = variance if self.with_std else None
        self.scale_ = None
        if self.with_std:
            # scikit-learn's bound on the rounding error of a variance (same paper): below it a feature is constant.
            eps = np.finfo(np.float64).eps
            constant = variance <= seen * eps * variance + (seen * mean * eps) ** 2
            self.scale_ = np.where(constant, 1.0, np.sqrt(variance))

    def _in_memory(self, X, reset, **options):
        """Check a table in memory and return it as a matrix."""
        options = dict(accept_sparse=("csr", "csc"), dtype=_FLOATS, ensure_all_finite="allow-nan", **options)
        refuse_unread(X)
        if not is_frame(X):
            return validate_data(self, X, reset=reset, **options)
        check_features(self, X, reset=reset)
        return check_array(as_matrix(X), **options)

    def transform(self, X, copy=None):
        """Centre and scale.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or Dask collection of shape (n_samples, n_features)
        copy : bool, optional
            Overrides the parameter `copy`.

        Returns
        -------
        ndarray or sparse matrix; a lazy Dask collection for a Dask collection
        """
        check_is_fitted(self)
        mean = self.mean_ if self.with_mean else None
        if is_dask(X):
            check_features(self, X, reset=False)
            return self._apply(X, partial(_standardise, mean=mean, scale=self.scale_))
        X = self._in_memory(X, reset=False, copy=self.copy if copy is None else copy, force_writeable=True)
        return _standardise(X, mean, self.scale_, in_place=True)

    def inverse_transform(self, X, copy=None):
        """Undo `transform`.

        Takes the parameters of `transform`.

        Returns
        -------
        ndarray or sparse matrix; a lazy Dask collection for a Dask collection
        """
        check_is_fitted(self)
        mean = self.mean_ if self.with_mean else None
        if is_dask(X):
            return self._apply(X, partial(_restore, mean=mean, scale=self.scale_))
        refuse_unread(X)
        X = check_array(
            as_matrix(X) if is_frame(X) else X,
            accept_sparse=("csr", "csc"),
            copy=self.copy if copy is None else copy,
            dtype=_FLOATS,
            force_writeable=True,
            ensure_all_finite="allow-nan",
        )
        return _restore(X, mean, self.scale_, in_place=True)

    def _apply(self, X, fn):
        return apply_rows(fn, X, kind="same", columns=self.get_feature_names_out(), dtype=_float_dtype(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = not self.with_mean
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _moments_of_dense(block):
    if sparse.issparse(block.X[0] if isinstance(block.X, tuple) else block.X):
        raise ValueError(_SPARSE_CENTRE)
    return block_moments(block)


def _float_dtype(X):
    """Return the dtype that `as_matrix` gives the chunks of a Dask collection."""
    dtypes = X.dtypes.tolist() if hasattr(X, "dtypes") else [X.dtype]
    return np.float32 if all(dtype == np.float32 for dtype in dtypes) else np.float64


def _standardise(X, mean, scale, in_place=False):
    """Centre and scale one chunk; the arithmetic is float64 in small buffers, the result keeps the chunk's dtype."""
    X, out = (X, X) if in_place else (_chunk_matrix(X), None)
    if sparse.issparse(X):
        if mean is not None:
            raise ValueError(_SPARSE_CENTRE)
        return X if scale is None else _scale_sparse(X, 1.0 / scale, in_place)
    if mean is not None:
        X = out = np.subtract(X, mean, out=np.empty_like(X) if out is None else out, casting="same_kind")
    if scale is not None:
        X = np.divide(X, scale, out=np.empty_like(X) if out is None else out, casting="same_kind")
    return X


def _restore(X, mean, scale, in_place=False):
    """Undo `_standardise`."""
    X, out = (X, X) if in_place else (_chunk_matrix(X), None)
    if sparse.issparse(X):
        if mean is not None:
            raise ValueError(_SPARSE_CENTRE.replace("center", "uncenter"))
        return X if scale is None else _scale_sparse(X, scale, in_place)
    if scale is not None:
        X = out = np.multiply(X, scale, out=np.empty_like(X) if out is None else out, casting="same_kind")
    if mean is not None:
        X = np.add(X, mean, out=np.empty_like(X) if out is None else out, casting="same_kind")
    return X


def _chunk_matrix(chunk):
    """Return one chunk of a Dask collection as a matrix without infinite values, as `check_array` does in memory."""
    X = as_matrix(chunk)
    check_no_infinity(X)
    return X


def _scale_sparse(X, factor, in_place):
    """Multiply the columns of a CSR or CSC matrix."""
    per_value = factor[X.indices] if X.format == "csr" else np.repeat(factor, np.diff(X.indptr))
    X = X if in_place else X.copy()
    np.multiply(X.data, per_value, out=X.data, casting="same_kind")
    return X
