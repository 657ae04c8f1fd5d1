"""Fill missing values with one number or word per feature."""

import numbers
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from daskdml import runtime
from daskdml.data import Partitioned, apply_rows, as_matrix, check_features, is_dask, is_frame, refuse_unread
from daskdml.data.lazy_output import LazyOutputMixin
from daskdml.data.median import column_medians
from daskdml.data.statistics import (
    Moments,
    block_moments,
    check_no_infinity,
    columns_of,
    count_values,
    is_nan,
    joined,
    refuse_infinite,
)
from daskdml.utils.atomic import all_or_nothing
from daskdml.utils.params import InvalidParameterError, Options, check_params


class Summary(NamedTuple):
    """What ``fit`` has to know of the values of some rows, column by column."""

    n_missing: np.ndarray
    dtype: np.dtype
    counts: list | None

    def merge(self, other):
        """Return the summary of the rows of both."""
        counts = None
        if self.counts is not None:
            counts = [one.merge(two) for one, two in zip(self.counts, other.counts)]
        return Summary(self.n_missing + other.n_missing, _common_dtype([self.dtype, other.dtype]), counts)


class SimpleImputer(LazyOutputMixin, TransformerMixin, BaseEstimator):
    """Fill missing values with the mean, the median or the commonest value of their feature, or with a constant.

    Parameters
    ----------
    missing_values : int, float, str, NaN, None or pandas.NA, default=NaN
        What stands for a missing value.
    strategy : {"mean", "median", "most_frequent", "constant"} or callable, default="mean"
        The first two are for numbers. Of several commonest values the smallest is taken. A callable gets the present
        values of a feature as an ndarray; it needs the data in memory.
    fill_value : str or number, default=None
        For "constant"; None is 0 for numbers and "missing_value" otherwise.
    copy : bool, default=True
        If False, fill an in-memory array in place where that is possible. Chunks of Dask collections are never changed.
    add_indicator : bool, default=False
        Append a column of zeros and ones for each feature that had missing values in ``fit``.
    keep_empty_features : bool, default=False
        Keep features without any value in ``fit``, filled with 0 (`fill_value` for "constant"), instead of leaving
        them out.

    Attributes
    ----------
    statistics_ : ndarray of shape (n_features,)
        What fills each feature; NaN for a feature that is left out.
    indicator_ : sklearn.impute.MissingIndicator or None
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    All statistics are exact. "mean" and "constant" take one pass over the data; "most_frequent" one pass and the
    memory of the distinct values; "median" three to seven passes (`daskdml.data.median`) with bounded memory. The mean
    of float32 is summed in float64. ``transform`` is lazy on Dask input and keeps chunks and index.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.impute import SimpleImputer
    >>> SimpleImputer(strategy="median").fit_transform([[1.0], [np.nan], [2.0], [9.0]]).ravel()
    array([1., 2., 2., 9.])
    """

    _constraints = {
        "strategy": [Options({"mean", "median", "most_frequent", "constant"}), callable],
        "copy": ["boolean"],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
    }

    def __init__(
        self,
        *,
        missing_values=np.nan,
        strategy="mean",
        fill_value=None,
        copy=True,
        add_indicator=False,
        keep_empty_features=False,
    ):
        self.missing_values = missing_values
        self.strategy = strategy
        self.fill_value = fill_value
        self.copy = copy
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features

    @all_or_nothing
    def fit(self, X, y=None):
        """Find what fills each feature.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or Dask collection of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For words with a strategy for numbers, infinite values, NaN where NaN is not `missing_values`, and
            a `fill_value` of another kind than the data.
        """
        check_params(self, self._constraints)
        if not (is_nan(self.missing_values) or isinstance(self.missing_values, (numbers.Real, str, type(None)))):
            raise InvalidParameterError(
                "The 'missing_values' parameter of SimpleImputer must be a number, a str, NaN, None or pandas.NA. "
                f"Got {self.missing_values!r} instead."
            )
        if callable(self.strategy) and is_dask(X):
            raise ValueError(
                "SimpleImputer takes a callable strategy for data in memory only, got a Dask collection; use 'mean', "
                "'median', 'most_frequent' or 'constant'."
            )
        X = self._checked(X, in_fit=True)
        with runtime.open(
            Partitioned.from_any(X, matrix=self._numeric), passes="many" if self.strategy == "median" else "one"
        ) as run:
            statistics, n_missing, self._fit_dtype = self._summarise(run, X)
        self.statistics_ = statistics
        self.indicator_ = self._indicator(n_missing > 0) if self.add_indicator else None
        return self

    @property
    def _numeric(self):
        return self.strategy not in ("most_frequent", "constant")

    def _checked(self, X, in_fit):
        """Check X and return it as an array or sparse matrix, or as it is when it is a Dask collection."""
        if is_dask(X):
            check_features(self, X, reset=in_fit)
            return X
        refuse_unread(X)
        if is_frame(X):
            check_features(self, X, reset=in_fit)
            X, validate = as_matrix(X) if self._numeric else _as_array(X), check_array
        else:
            validate = partial(validate_data, self, reset=in_fit)
        dtype = (np.float64, np.float32) if self._numeric else None
        words = isinstance(X, list) and any(isinstance(value, str) for row in X for value in np.atleast_1d(row))
        if not self._numeric and words or not in_fit and self._fit_dtype.kind == "O":
            dtype = object
        try:
            X = validate(
                X,
                accept_sparse=("csr", "csc"),
                dtype=dtype,
                force_writeable=True if not in_fit else None,
                ensure_all_finite="allow-nan" if is_nan(self.missing_values) else True,
                copy=self.copy and not in_fit,
            )
        except ValueError as error:
            if "could not convert" not in str(error):
                raise
            raise ValueError(f"Cannot use {self.strategy} strategy with non-numeric data:\n{error}") from None
        _check_kind(X, self.missing_values)
        if not in_fit and self.strategy == "constant" and not np.can_cast(self._fit_dtype, X.dtype, "same_kind"):
            raise ValueError(
                f"The dtype of the filling value (i.e. {self._fit_dtype!r}) cannot be cast to the input data that is "
                f"{X.dtype!r}. Make sure that the dtypes of the input data are of the same kind between fit and "
                "transform."
            )
        return X

    def _summarise(self, run, X):
        """Return the statistics, the number of missing values per feature and the dtype to fill in."""
        empty = 0.0 if self.keep_empty_features else np.nan
        if self._numeric:
            prepare = partial(_to_nan, missing_values=self.missing_values)
            if self.strategy == "median":
                statistics, present = column_medians(run, run.dtype, prepare)
            else:
                moments = run.map_reduce(partial(_present_moments, prepare=prepare), Moments.merge)
                statistics, present = moments.mean, moments.weight
                if callable(self.strategy):
                    statistics = np.array([self.strategy(values) for values in _present_values(prepare(X))])
            return np.where(present > 0, statistics, empty), run.n_samples - present, np.dtype(run.dtype)
        counted = self.strategy == "most_frequent"
        found = run.map_reduce(
            partial(_summarise_block, missing_values=self.missing_values, counted=counted), Summary.merge
        )
        is_empty = found.n_missing == run.n_samples
        if counted:
            commonest = [_commonest(counts, empty) for counts in found.counts]
            statistics = np.array(commonest, dtype=object if found.dtype.kind == "O" else np.float64)
        else:
            statistics = np.full(len(is_empty), self._constant(found.dtype), dtype=object)
            statistics[is_empty & (not self.keep_empty_features)] = np.nan
        return statistics, found.n_missing, found.dtype

    def _constant(self, dtype):
        if self.fill_value is None:
            return 0 if dtype.kind in "iuf" else "missing_value"
        if not np.can_cast(type(self.fill_value), dtype, casting="same_kind"):
            raise ValueError(
                f"fill_value={self.fill_value!r} (of type {type(self.fill_value)!r}) cannot be cast to the input data "
                f"that is {dtype!r}. If fill_value is a Python scalar, instead pass  a numpy scalar (e.g. "
                "fill_value=np.uint8(0) if your data is of type np.uint8). Make sure that both dtypes are of the same "
                "kind."
            )
        return self.fill_value

    def _indicator(self, has_missing):
        """Fit scikit-learn's indicator on two rows that have missing values where the data had."""
        numeric = isinstance(self.missing_values, numbers.Real)
        rows = np.zeros((2, len(has_missing)), dtype=np.float64 if numeric else object)
        rows[:] = 1.0 if self.missing_values == 0 else 0.0
        rows[0, has_missing] = self.missing_values
        return MissingIndicator(missing_values=self.missing_values, error_on_new=False).fit(rows)

    def transform(self, X):
        """Fill the missing values of X.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or Dask collection of shape (n_samples, n_features)

        Returns
        -------
        ndarray or sparse matrix; a lazy Dask collection for a Dask collection
        """
        check_is_fitted(self)
        X = self._checked(X, in_fit=False)
        left_out = np.flatnonzero(~self._kept)
        if len(left_out):
            names = self.feature_names_in_[left_out] if hasattr(self, "feature_names_in_") else left_out
            warnings.warn(
                f"Skipping features without any observed values: {names}. At least one non-missing value is needed for "
                f"imputation with strategy='{self.strategy}'.",
                stacklevel=2,
            )
        fn = partial(
            _fill,
            missing_values=self.missing_values,
            values=self.statistics_[self._kept].astype(self._fit_dtype, copy=False),
            kept=np.flatnonzero(self._kept),
            indicated=self.indicator_.features_ if self.add_indicator else None,
        )
        if not is_dask(X):
            return fn(X)
        fn = partial(_fill_chunk, fill=fn, numeric=self._numeric, dtype=self._fit_dtype)
        return apply_rows(fn, X, kind="same", columns=self.get_feature_names_out(), dtype=self._fit_dtype)

    @property
    def _kept(self):
        return ~np.array([isinstance(one, numbers.Real) and one != one for one in self.statistics_], dtype=bool)

    def inverse_transform(self, X):
        """Put the missing values back where the indicator columns are 1.

        Parameters
        ----------
        X : ndarray or Dask collection of shape (n_samples, n_features + n_indicators)
            What `transform` returned, with ``add_indicator=True``.

        Returns
        -------
        ndarray of shape (n_samples, n_features); a lazy Dask collection for a Dask collection
        """
        check_is_fitted(self)
        if not self.add_indicator:
            raise ValueError(
                "'inverse_transform' works only when 'SimpleImputer' is instantiated with 'add_indicator=True'. "
                f"Got 'add_indicator={self.add_indicator}' instead."
            )
        fn = partial(
            _empty_again, missing_values=self.missing_values, kept=self._kept, indicated=self.indicator_.features_
        )
        if not is_dask(X):
            return fn(X)
        names = OneToOneFeatureMixin.get_feature_names_out(self)
        dtype = object if self._fit_dtype.kind == "O" else np.float64
        return apply_rows(fn, X, kind="matrix", columns=names, dtype=dtype)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features kept, and of the indicator columns.

        Parameters
        ----------
        input_features : array-like of str, optional

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        kept = names[self._kept]
        return np.concatenate([kept, self.indicator_.get_feature_names_out(names)]) if self.add_indicator else kept

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.string = not self._numeric
        tags.input_tags.allow_nan = is_nan(self.missing_values)
        return tags


def _check_kind(X, missing_values):
    if X.dtype.kind in "iuf" and not (isinstance(missing_values, numbers.Real) or is_nan(missing_values)):
        raise ValueError(
            f"'X' and 'missing_values' types are expected to be both numerical. Got X.dtype={X.dtype} and  "
            f"type(missing_values)={type(missing_values)}."
        )
    if X.dtype.kind not in "iufO":
        raise ValueError(
            f"SimpleImputer does not support data with dtype {X.dtype}. Please provide either a numeric array (with a "
            "floating point or integer dtype) or categorical data represented either as an array with integer dtype or "
            "an array of string values with an object dtype."
        )
    if sparse.issparse(X) and missing_values == 0:
        raise ValueError(
            "Imputation not possible when missing_values == 0 and input is sparse. Provide a dense array instead."
        )


def _missing(values, missing_values):
    """Tell which entries of an array are missing."""
    if not is_nan(missing_values):
        return values == missing_values
    return np.isnan(values) if values.dtype.kind == "f" else values != values


def _refuse_nan(X, missing_values):
    """Raise scikit-learn's sentence for NaN in a matrix of floats where something else stands for a missing value."""
    if not is_nan(missing_values) and np.isnan(X.data if sparse.issparse(X) else X).any():
        raise ValueError("Input X contains NaN.")


def _to_nan(X, missing_values):
    """Turn the missing values of a block of floats into NaN."""
    _check_kind(X, missing_values)
    if is_nan(missing_values):
        return X
    _refuse_nan(X, missing_values)
    stored = X.data if sparse.issparse(X) else X
    stored = np.where(stored == missing_values, stored.dtype.type(np.nan), stored)
    return type(X)((stored, X.indices, X.indptr), shape=X.shape) if sparse.issparse(X) else stored


def _present_moments(block, prepare):
    return block_moments(block._replace(X=prepare(joined(block.X))))


def _present_values(X):
    columns = X.tocsc() if sparse.issparse(X) else X
    for j in range(X.shape[1]):
        column = columns[:, [j]].data if sparse.issparse(X) else columns[:, j]
        yield column[~np.isnan(column)]


def _common_dtype(dtypes):
    if all(dtype.kind in "iufb" for dtype in dtypes):
        return np.result_type(*dtypes)
    return np.dtype(object)


def _as_array(chunk):
    """Return a chunk of any kind as one array: of numbers if all its columns are numbers, else of objects."""
    if isinstance(chunk, np.ndarray) or sparse.issparse(chunk):
        return chunk
    columns = columns_of(chunk)
    dtypes = [column.dtype if isinstance(column, np.ndarray) else np.dtype(object) for column in columns]
    out = np.empty((len(columns[0]), len(columns)), _common_dtype(dtypes))
    for j, column in enumerate(columns):
        out[:, j] = column if isinstance(column, np.ndarray) else column.astype(object).where(column.notna(), np.nan)
    return out


def _summarise_block(block, missing_values, counted):
    X = _as_array(joined(block.X))
    _check_kind(X, missing_values)
    if X.dtype.kind == "f":
        refuse_infinite(X, block)
        _refuse_nan(X, missing_values)
    n_missing, counts = np.zeros(X.shape[1], np.int64), []
    X = X.tocsc() if sparse.issparse(X) else X
    for j in range(X.shape[1]):
        values = X.data[X.indptr[j] : X.indptr[j + 1]] if sparse.issparse(X) else X[:, j]
        present = values[~_missing(values, missing_values)]
        n_missing[j] = len(values) - len(present)
        if counted:
            found = count_values(present)
            implicit = X.shape[0] - len(values)
            if implicit:
                zeros = count_values(np.zeros(1, X.dtype))
                found = found.merge(zeros._replace(counts=zeros.counts * implicit))
            counts.append(found)
    return Summary(n_missing, X.dtype, counts if counted else None)


def _commonest(found, empty):
    """Return the commonest value, of several the smallest; None is a value of object columns like any other."""
    values, counts = list(found.values.tolist()), list(found.counts)
    if found.n_none:
        values, counts = values + [None], counts + [found.n_none]
    if not values:
        return empty
    most = max(counts)
    tied = [value for value, count in zip(values, counts) if count == most]
    try:
        return min(tied)
    except TypeError:
        return min(tied, key=lambda value: (str(type(value)), str(value)))


def _fill(X, missing_values, values, kept, indicated):
    """Fill one array or sparse matrix, in place where no column is left out."""
    if sparse.issparse(X):
        return _fill_sparse(X, missing_values, values, kept, indicated)
    missing = _missing(X, missing_values)
    flags = None if indicated is None else missing[:, indicated]
    if len(kept) < X.shape[1]:
        X, missing = X[:, kept], missing[:, kept]
    rows, columns = np.nonzero(missing)
    X[rows, columns] = values[columns]
    return X if flags is None else np.hstack([X, flags])


def _fill_sparse(X, missing_values, values, kept, indicated):
    form, X = X.format, X.tocsc()
    missing = type(X)((_missing(X.data, missing_values), X.indices, X.indptr), shape=X.shape)
    X, holes = X[:, kept], missing[:, kept].data
    X.data[holes] = np.repeat(values, np.diff(X.indptr))[holes]
    if indicated is None:
        return X.asformat(form)
    flags = missing[:, indicated].astype(X.dtype)
    flags.eliminate_zeros()
    return sparse.hstack([X, flags], format=form)


def _fill_chunk(chunk, fill, numeric, dtype):
    """Fill a copy of one chunk of a Dask collection."""
    X = as_matrix(chunk) if numeric else _as_array(chunk)
    missing_values = fill.keywords["missing_values"]
    _check_kind(X, missing_values)
    if X.dtype.kind == "f":
        check_no_infinity(X)
        _refuse_nan(X, missing_values)
    return fill(X.copy()).astype(dtype, copy=False)


def _empty_again(X, missing_values, kept, indicated):
    X = np.asarray(X)
    n_kept = X.shape[1] - len(indicated)
    out = np.zeros((X.shape[0], len(kept)), dtype=object if X.dtype.kind == "O" else np.float64)
    out[:, kept] = X[:, :n_kept]
    flags = np.zeros(out.shape, bool)
    flags[:, indicated] = X[:, n_kept:].astype(bool)
    out[flags] = missing_values
    return out
