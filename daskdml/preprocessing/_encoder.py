"""Encode categories as indicator columns."""

import numbers
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from daskdml import runtime
from daskdml.data import Partitioned, apply_rows, is_dask
from daskdml.data.lazy_output import LazyOutputMixin
from daskdml.data.statistics import columns_of, count_values, factorize, is_nan, joined, locate, merge_columns
from daskdml.preprocessing._categories import keep_frequent, sorted_categories
from daskdml.preprocessing._input import check_table
from daskdml.utils.atomic import all_or_nothing
from daskdml.utils.params import Dtype, Interval, Options, check_params


class FeaturePlan(NamedTuple):
    """How one feature is encoded: category ``i`` sets column ``outputs[i]`` of the feature's, -1 none."""

    categories: np.ndarray
    groups: np.ndarray  # category -> its group: itself, or the infrequent ones' common group, which is the last
    infrequent: np.ndarray | None  # indices of infrequent categories
    drop: int | None  # group without a column

    @property
    def n_groups(self):
        return int(self.groups.max()) + 1 if len(self.groups) else 0

    @property
    def n_outputs(self):
        return self.n_groups - (self.drop is not None)

    def outputs(self, unknown_is_infrequent):
        """Return the column of each category, and last that of an unknown one."""
        unknown = -1 if self.infrequent is None or not unknown_is_infrequent else self.n_groups - 1
        groups = np.append(self.groups, unknown)
        if self.drop is None:
            return groups
        return np.where(groups == self.drop, -1, groups - (groups > self.drop))

    def names(self, dropped=False):
        """Return the category that each column stands for, with or without the dropped one."""
        kept = self.categories
        if self.infrequent is not None:
            frequent = self.groups < self.n_groups - 1
            kept = np.concatenate([kept[frequent], np.array(["infrequent_sklearn"], dtype=object)])
        return kept if self.drop is None or dropped else np.delete(kept, self.drop)


class OneHotEncoder(LazyOutputMixin, TransformerMixin, BaseEstimator):
    """Encode each category of each feature as a column of zeros and ones.

    Parameters
    ----------
    categories : "auto" or list of array-like, default="auto"
        Categories per feature; "auto" takes those in the training data, sorted, missing ones last.
    drop : {"first", "if_binary"}, array-like of shape (n_features,) or None, default=None
        The category of each feature that gets no column.
    sparse_output : bool, default=True
        Return CSR: one matrix for in-memory input, a `dask.array` of CSR chunks for a Dask collection. With False a
        Dask DataFrame becomes a Dask DataFrame with named columns.
    dtype : number type, default=float64
        Of the output.
    handle_unknown : {"error", "ignore", "infrequent_if_exist", "warn"}, default="error"
        What ``transform`` does with categories that ``fit`` has not seen: raise; all zeros; the infrequent column if
        there is one, else all zeros; the same with a warning. On Dask input it does so when the chunk is computed.
    min_frequency : int or float, default=None
        Categories with fewer rows (int), or a smaller share of the rows (float), are infrequent: they share a column.
    max_categories : int, default=None
        Upper bound on the columns of a feature, the infrequent one included.
    feature_name_combiner : "concat" or callable, default="concat"
        Makes a column's name of (feature name, category).

    Attributes
    ----------
    categories_ : list of ndarray
    drop_idx_ : ndarray of object, shape (n_features,), or None
        Index into ``categories_[i]`` of the category without a column, None for no such.
    infrequent_categories_ : list of ndarray or None
        Defined when `min_frequency` or `max_categories` is set.
    n_features_in_, feature_names_in_, feature_name_combiner
        As in scikit-learn.

    Notes
    -----
    One pass over the data: each block counts its values (strings and pandas categories by their codes), counts are
    merged. Memory: the distinct values of each column. ``pandas.NA`` counts as NaN.

    Examples
    --------
    >>> from daskdml.preprocessing import OneHotEncoder
    >>> encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit([["cat"], ["dog"]])
    >>> encoder.transform([["dog"], ["emu"]])
    array([[0., 1.],
           [0., 0.]])
    """

    _constraints = {
        "categories": [Options({"auto"}), list],
        "drop": [Options({"first", "if_binary"}), "array-like", None],
        "sparse_output": ["boolean"],
        "dtype": [Dtype()],
        "handle_unknown": [Options({"error", "ignore", "infrequent_if_exist", "warn"})],
        "min_frequency": [
            Interval(numbers.Integral, 1, None, "left"),
            Interval(float, 0, 1, "neither"),
            None,
        ],
        "max_categories": [Interval(numbers.Integral, 1, None, "left"), None],
        "feature_name_combiner": [Options({"concat"}), callable],
    }

    def __init__(
        self,
        *,
        categories="auto",
        drop=None,
        sparse_output=True,
        dtype=np.float64,
        handle_unknown="error",
        min_frequency=None,
        max_categories=None,
        feature_name_combiner="concat",
    ):
        self.categories = categories
        self.drop = drop
        self.sparse_output = sparse_output
        self.dtype = dtype
        self.handle_unknown = handle_unknown
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.feature_name_combiner = feature_name_combiner

    @all_or_nothing
    def fit(self, X, y=None):
        """Find the categories of each feature.

        Parameters
        ----------
        X : array-like, frame or Dask collection of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For categories that cannot be sorted or hashed, sparse or infinite input, and `categories` or `drop` that
            do not fit the data.
        """
        check_params(self, self._constraints)
        X = check_table(self, X, reset=True)
        if self.categories != "auto" and len(self.categories) != self.n_features_in_:
            raise ValueError("Shape mismatch: if categories is an array, it has to be of shape (n_features,).")
        with runtime.open(Partitioned.from_any(X, matrix=False), passes="one") as run:
            columns, n_rows = run.map_reduce(_count_block, merge_columns), run.n_samples
        categories, counts = zip(*(self._categories(i, found) for i, found in enumerate(columns)))
        self.categories_ = list(categories)
        plans = [self._group(*feature, n_rows) for feature in zip(categories, counts)]
        drops = self._drops(plans)
        self._plans = [plan._replace(drop=drop) for plan, drop in zip(plans, drops)]
        self.drop_idx_ = None if self.drop is None else np.empty(len(plans), dtype=object)
        for i, (plan, drop) in enumerate(zip(plans, drops)):
            if drop is not None:
                self.drop_idx_[i] = int(np.flatnonzero(plan.groups == drop)[0])
        return self

    def _categories(self, i, found):
        """Return the categories of feature ``i`` and how often each occurs."""
        categories, counts = sorted_categories(found)
        if categories.dtype.kind == "f" and np.isinf(categories).any():
            raise ValueError(f"Input X contains infinity or a value too large for {categories.dtype!r} in column {i}.")
        if self.categories == "auto":
            return categories, counts
        seen = categories
        dtype = object if seen.dtype.kind == "U" else seen.dtype
        stated = np.array(self.categories[i], dtype=dtype)
        self._check_stated(i, stated, seen)
        where = locate(seen, stated)
        if self.handle_unknown == "error" and (where < 0).any():
            raise ValueError(f"Found unknown categories {seen[where < 0].tolist()} in column {i} during fit")
        stated_counts = np.zeros(len(stated), np.int64)
        np.add.at(stated_counts, where[where >= 0], counts[where >= 0])
        return stated, stated_counts

    def _check_stated(self, i, stated, seen):
        if stated.dtype == object and isinstance(stated[0], bytes) and seen.dtype.kind != "S":
            raise ValueError(
                f"In column {i}, the predefined categories have type 'bytes' which is incompatible with values of type "
                f"'{type(seen[0]).__name__}'."
            )
        if any(is_nan(one) for one in stated[:-1]):
            raise ValueError(
                f"Nan should be the last element in user provided categories, see categories {stated} in column #{i}"
            )
        codes, values = factorize(stated)
        if len(values) + np.count_nonzero(codes < 0) != len(stated):
            raise ValueError(f"In column {i}, the predefined categories contain duplicate elements.")
        present = stated[codes >= 0]
        if stated.dtype.kind not in "OUS" and (np.sort(present) != present).any():
            raise ValueError("Unsorted categories are not supported for numerical categories")

    @property
    def _groups_infrequent(self):
        return self.max_categories is not None or self.min_frequency is not None

    def _group(self, categories, counts, n_rows):
        infrequent = keep_frequent(counts, n_rows, self.min_frequency, self.max_categories)
        groups = np.arange(len(categories))
        if len(infrequent):
            frequent = np.setdiff1d(groups, infrequent)
            groups = np.full(len(categories), len(frequent))
            groups[frequent] = np.arange(len(frequent))
        return FeaturePlan(categories, groups, infrequent if len(infrequent) else None, None)

    def _drops(self, plans):
        """Return each feature's group that gets no column."""
        if self.drop is None:
            return [None] * len(plans)
        if isinstance(self.drop, str):
            return [0 if self.drop == "first" or plan.n_groups == 2 else None for plan in plans]
        stated = np.asarray(self.drop, dtype=object)
        if len(stated) != len(plans):
            raise ValueError(
                f"`drop` should have length equal to the number of features ({len(plans)}), got {len(stated)}"
            )
        at = [_position(value, plan.categories) for value, plan in zip(stated, plans)]
        if None in at:
            absent = [f"Category: {i}, Feature: {stated[i]}" for i, where in enumerate(at) if where is None]
            raise ValueError(
                "The following categories were supposed to be dropped, but were not found in the training data.\n"
                + "\n".join(absent)
            )
        for i, (where, plan) in enumerate(zip(at, plans)):
            if plan.infrequent is not None and where in plan.infrequent:
                raise ValueError(f"Unable to drop category {stated[i]!r} from feature {i} because it is infrequent")
        return [int(plan.groups[where]) for where, plan in zip(at, plans)]

    @property
    def infrequent_categories_(self):
        """Infrequent categories of each feature, None for a feature without."""
        check_is_fitted(self)
        if not self._groups_infrequent:
            raise AttributeError("infrequent_categories_ is defined when min_frequency or max_categories is set.")
        return [None if plan.infrequent is None else plan.categories[plan.infrequent] for plan in self._plans]

    def transform(self, X):
        """Encode X.

        Parameters
        ----------
        X : array-like, frame or Dask collection of shape (n_samples, n_features)

        Returns
        -------
        CSR matrix or ndarray of shape (n_samples, n_encoded_features); a lazy Dask collection for a Dask collection
        """
        check_is_fitted(self)
        X = check_table(self, X, reset=False)
        warn = self.handle_unknown == "warn" or (
            self.drop is not None and self.handle_unknown in ("ignore", "infrequent_if_exist")
        )
        fn = partial(
            _encode,
            plans=self._plans,
            dtype=np.dtype(self.dtype),
            sparse_output=self.sparse_output,
            unknown=self.handle_unknown,
            warn=warn,
        )
        if not is_dask(X):
            return fn(X)
        return apply_rows(
            fn,
            X,
            kind="matrix",
            columns=self.get_feature_names_out(),
            dtype=np.dtype(self.dtype),
            sparse=self.sparse_output,
        )

    def inverse_transform(self, X):
        """Decode X.

        A row of zeros becomes None if unknown categories are ignored, the dropped category if there is one; the
        infrequent column becomes "infrequent_sklearn".

        Parameters
        ----------
        X : array-like, sparse matrix or Dask collection of shape (n_samples, n_encoded_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features); a lazy Dask collection of objects for a Dask collection
        """
        check_is_fitted(self)
        width = sum(plan.n_outputs for plan in self._plans)
        if not is_dask(X):
            X = check_array(X, accept_sparse="csr")
        if X.shape[1] != width:
            raise ValueError(
                f"Shape of the passed X data is not correct. Expected {width} columns, got {X.shape[1]}."
            )
        names = OneToOneFeatureMixin.get_feature_names_out(self)
        decode = partial(_decode, plans=self._plans, unknown=self.handle_unknown)
        groups = apply_rows(decode, X, kind="matrix", columns=names, dtype=np.int64)
        named = partial(_named, plans=self._plans, dtype=object if is_dask(X) else None)
        return apply_rows(named, groups, kind="matrix", columns=names, dtype=object)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns.

        Parameters
        ----------
        input_features : array-like of str, optional
            Must equal `feature_names_in_` if that is defined; "x0", "x1", ... if neither is.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        features = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        combine = self._combiner()
        names = [combine(feature, one) for feature, plan in zip(features, self._plans) for one in plan.names()]
        return np.array(names, dtype=object)

    def _combiner(self):
        if self.feature_name_combiner == "concat":
            return lambda feature, category: f"{feature}_{category}"
        trial = self.feature_name_combiner("feature", "category")
        if not isinstance(trial, str):
            raise TypeError(
                "When `feature_name_combiner` is a callable, it should return a Python string. "
                f"Got {type(trial)} instead."
            )
        return self.feature_name_combiner

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags


def _count_block(block):
    return [count_values(column) for column in _dense_columns(joined(block.X))]


def _dense_columns(chunk):
    if sparse.issparse(chunk):
        raise TypeError("OneHotEncoder takes dense data, got a sparse matrix; use '.toarray()' on its chunks.")
    return columns_of(chunk)


def _encode(chunk, plans, dtype, sparse_output, unknown, warn):
    """Encode one chunk."""
    columns = _dense_columns(chunk)
    n = len(columns[0])
    at, first, with_unknown = np.empty((n, len(plans)), np.int64), 0, []
    for i, (column, plan) in enumerate(zip(columns, plans)):
        found = locate(column, plan.categories)
        if (found < 0).any():
            with_unknown.append(i)
            if unknown == "error":
                strange = np.asarray(column)[found < 0]
                raise ValueError(f"Found unknown categories {_distinct(strange)} in column {i} during transform")
        offset = plan.outputs(unknown in ("infrequent_if_exist", "warn"))[found]
        at[:, i] = np.where(offset < 0, -1, first + offset)
        first += plan.n_outputs
    if with_unknown and warn:
        end = "all zeros" if unknown == "ignore" else "the infrequent category."
        warnings.warn(
            f"Found unknown categories in columns {with_unknown} during transform. These unknown categories will be "
            f"encoded as {end}",
            UserWarning,
            stacklevel=2,
        )
    chosen = at >= 0
    if not sparse_output:
        out = np.zeros((n, first), dtype)
        out[np.nonzero(chosen)[0], at[chosen]] = 1
        return out
    index_dtype = np.int32 if max(at.size, first) < 2**31 else np.int64
    ends = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(index_dtype)
    return sparse.csr_matrix((np.ones(ends[-1], dtype), at[chosen].astype(index_dtype), ends), shape=(n, first))


def _distinct(values):
    codes, distinct = factorize(values)
    missing = {None if one is None else np.nan for one in values[codes < 0]}
    return distinct.tolist() + sorted(missing, key=str)


def _decode(chunk, plans, unknown):
    """Return which of its groups each feature of one chunk is in, -1 for none."""
    X = chunk if sparse.issparse(chunk) else np.asarray(chunk)
    out, first = np.empty((X.shape[0], len(plans)), np.int64), 0
    for i, plan in enumerate(plans):
        width = plan.n_outputs
        panel = X[:, first : first + width]
        first += width
        if width == 0:
            out[:, i] = plan.drop
            continue
        out[:, i] = np.asarray(panel.argmax(axis=1)).ravel()
        empty = np.asarray(panel.sum(axis=1) == 0).ravel()
        if plan.drop is not None:
            out[:, i] += out[:, i] >= plan.drop
            out[empty, i] = plan.drop
        elif unknown == "ignore" or (unknown != "error" and plan.infrequent is None):
            out[empty, i] = -1
        elif empty.any():
            raise ValueError(
                f"Samples {np.flatnonzero(empty)} can not be inverted when drop=None and handle_unknown='error' "
                "because they contain all zeros"
            )
    return out


def _named(groups, plans, dtype):
    """Return the names of groups, None for none."""
    groups = np.asarray(groups)
    names = [plan.names(dropped=True) for plan in plans]
    dtype = dtype or (object if (groups < 0).any() else np.result_type(*(one.dtype for one in names)))
    out = np.empty(groups.shape, dtype)
    for i, one in enumerate(names):
        out[:, i] = one[groups[:, i]]
    if (groups < 0).any():
        out[groups < 0] = None
    return out


def _position(value, categories):
    for i, one in enumerate(categories.tolist()):
        if one is value or (is_nan(one) and is_nan(value)) or (type(one == value) is bool and one == value):
            return i
    return None
