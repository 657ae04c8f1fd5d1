"""Turn a table of mixed columns into the numbers that linear models take."""

import numbers
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from daskdml import runtime
from daskdml.data import Partitioned, apply_rows, as_matrix, is_dask, is_frame
from daskdml.data.lazy_output import LazyOutputMixin
from daskdml.data.median import column_medians
from daskdml.data.statistics import Moments, column_moments, count_values, joined, refuse_infinite
from daskdml.preprocessing._columns import kinds_of, matrix_panel, panel, split
from daskdml.preprocessing._input import check_table
from daskdml.preprocessing._plans import encode, encode_sparse, numbers_in, output_names, plan_column
from daskdml.utils.atomic import all_or_nothing
from daskdml.utils.params import Dtype, Interval, Options, check_params

MAX_DISTINCT = 1_000_000


class TableSummary(NamedTuple):
    """What one pass learns of a table: moments of all numbers, counts of all other values."""

    moments: Moments
    counts: dict

    def merge(self, other):
        """Return the summary of the rows of both."""
        counts = {j: found.merge(other.counts[j], MAX_DISTINCT) for j, found in self.counts.items()}
        return TableSummary(self.moments.merge(other.moments), counts)


class TableEncoder(LazyOutputMixin, TransformerMixin, BaseEstimator):
    """Encode the columns of a mixed table as numbers, and say what became of each.

    ================  ==============================================================================================
    column            becomes
    ================  ==============================================================================================
    number            itself, missing values filled, standardised; ``<name>_missing`` if `fit` met missing values.
                      Timedeltas are numbers of seconds
    boolean           0 or 1, missing values filled; ``<name>_missing`` likewise
    category          (words, pandas categories) ``<name>_<value>`` per value, 0 or 1; the rarest share
                      ``<name>_infrequent``; missing is a value of its own, ``<name>_missing``; a value that `fit` has
                      not met is all zeros
    datetime          ``<name>_year``, ``_month``, ``_day``, ``_hour`` (local time) and ``_seconds`` (since 1970, always
                      standardised), those that vary; ``<name>_missing`` likewise
    constant, empty   nothing
    ================  ==============================================================================================

    Columns of Python objects are what all their values are: booleans, numbers, datetimes, and words otherwise.

    Parameters
    ----------
    numeric : {"standardise", "passthrough"}, default="standardise"
        Shift numbers and parts of dates to mean zero and scale them to unit variance (of the present values), or leave
        them in the unit they come in. Penalties and solvers of linear models want the former.
    impute : {"mean", "median"}, default="mean"
        What fills missing numbers. "median" is exact and takes three to seven more passes over the data.
    add_indicator : bool, default=True
        Whether numbers, booleans and datetimes get their ``_missing`` column.
    max_categories : int or None, default=50
        Most columns per column of words, ``_infrequent`` included, ``_missing`` not; None sets no bound.
    dtype : float32 or float64, default=float64
        Of the output. The encoding is computed in float64.
    verbose : int, default=0
        1 prints what `describe` returns at the end of ``fit``.

    Attributes
    ----------
    columns_ : list of ColumnPlan
        One per column, in order: ``name``, ``kind``, ``treatment`` and the numbers behind it.
    report_ : pandas.DataFrame
        One row per column: its kind, missing values, distinct values (if counted), treatment, number of outputs.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    A frame gives a frame with the same index: pandas for pandas, polars for polars, a lazy Dask DataFrame for Dask;
    arrays give arrays. Columns are checked by name, and each against its kind in ``fit``. Sparse matrices are numbers;
    they are scaled but not centred and stay sparse.

    One pass over the data, whether categories are known to Dask or not. Counts are exact. Memory: the distinct values
    of each column of words; a column with more than 1,000,000 of them is dropped, and said to be.

    Examples
    --------
    >>> import pandas as pd
    >>> from daskdml.preprocessing import TableEncoder
    >>> table = pd.DataFrame({"age": [30.0, None, 50.0], "job": ["cook", "smith", "cook"], "year": [1, 1, 1]})
    >>> encoder = TableEncoder().fit(table)
    >>> print(encoder.describe())
    age   number    1 missing  standardised, missing filled with the mean 40 -> 2 columns
    job   category             one of 2 values -> 2 columns
    year  number               dropped: constant
    >>> encoder.transform(table)
       age  age_missing  job_cook  job_smith
    0 -1.0          0.0       1.0        0.0
    1  0.0          1.0       0.0        1.0
    2  1.0          0.0       1.0        0.0
    """

    _constraints = {
        "numeric": [Options({"standardise", "passthrough"})],
        "impute": [Options({"mean", "median"})],
        "add_indicator": ["boolean"],
        "max_categories": [Interval(numbers.Integral, 1, None, "left"), None],
        "dtype": [Dtype((np.float32, np.float64))],
        "verbose": [Interval(numbers.Integral, 0, None, "left"), "boolean"],
    }

    def __init__(
        self,
        *,
        numeric="standardise",
        impute="mean",
        add_indicator=True,
        max_categories=50,
        dtype=np.float64,
        verbose=0,
    ):
        self.numeric = numeric
        self.impute = impute
        self.add_indicator = add_indicator
        self.max_categories = max_categories
        self.dtype = dtype
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X, y=None):
        """Learn kinds, categories and moments of the columns.

        Parameters
        ----------
        X : frame, array-like, sparse matrix or Dask collection of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For infinite or complex numbers, and for values that cannot be categories (lists, dicts).
        """
        check_params(self, self._constraints)
        X = _in_pandas(check_table(self, X, reset=True, accept_sparse=True))
        names = OneToOneFeatureMixin.get_feature_names_out(self).tolist()
        kinds = kinds_of(X, names)
        data = Partitioned.from_any(X, matrix=False)
        with runtime.open(data, passes="many" if self.impute == "median" else "one") as run:
            summary = run.map_reduce(partial(_summarise, kinds=kinds, names=names), TableSummary.merge)
            n_rows, medians = run.n_samples, None
            if self.impute == "median":
                prepare = partial(matrix_panel, kinds=kinds, names=names)
                medians, _ = column_medians(run, np.float64, prepare, len(summary.moments.mean))
        self._sparse = data.layout == "csr"
        found = numbers_in(kinds, summary.moments, medians, n_rows)
        self.columns_ = [
            plan_column(name, kind, found.get(j), summary.counts.get(j), self, centre=not self._sparse)
            for j, (name, kind) in enumerate(zip(names, kinds))
        ]
        if self.verbose:
            print(self.describe())
        if not any(plan.suffixes for plan in self.columns_):
            # 3: past `all_or_nothing`, to whoever calls fit.
            warnings.warn("TableEncoder dropped every column: all are constant or missing.", UserWarning, stacklevel=3)
        return self

    @property
    def report_(self):
        """What became of each column, as a pandas.DataFrame."""
        import pandas as pd

        check_is_fitted(self, "columns_")
        rows = [(p.name, p.kind, p.n_missing, p.n_distinct, p.treatment, len(p.suffixes)) for p in self.columns_]
        return pd.DataFrame(rows, columns=["column", "kind", "missing", "distinct", "treatment", "outputs"])

    def describe(self):
        """Return what became of each column, one line per column.

        Returns
        -------
        str
        """
        check_is_fitted(self, "columns_")
        cells = []
        for plan in self.columns_:
            missing = f"{plan.n_missing} missing" if plan.n_missing else ""
            columns = f" -> {len(plan.suffixes)} column{'s' * (len(plan.suffixes) > 1)}" if plan.suffixes else ""
            cells.append((str(plan.name), plan.kind, missing, plan.treatment + columns))
        widths = [max(map(len, column)) for column in zip(*cells)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)

    def transform(self, X):
        """Encode X.

        Parameters
        ----------
        X : frame, array-like, sparse matrix or Dask collection of shape (n_samples, n_features)

        Returns
        -------
        Frame for a frame, with the same index; array for an array; CSR for sparse; lazy for a Dask collection

        Raises
        ------
        ValueError
            When columns are missing, unknown, in another order or of another kind than in ``fit``, and for infinite
            numbers. Values of Dask input are looked at when they are computed.
        """
        check_is_fitted(self, "columns_")
        given, X = X, _in_pandas(check_table(self, X, reset=False, accept_sparse=True))
        names = self.get_feature_names_out()
        self._check_kinds(X)
        if self._sparse != (Partitioned.from_any(X, matrix=False).layout == "csr"):
            raise ValueError(
                f"TableEncoder was fitted on {'sparse' if self._sparse else 'dense'} data and got the other kind; "
                "transform data of the kind that fit has seen."
            )
        fn = partial(
            _encode_sparse_chunk if self._sparse else _encode_chunk, plans=self.columns_, dtype=np.dtype(self.dtype)
        )
        if is_dask(X):
            return apply_rows(
                fn, X, kind="matrix", columns=names, dtype=np.dtype(self.dtype), sparse=self._sparse
            )
        matrix = fn(X)
        if not is_frame(given):
            return matrix
        if hasattr(given, "iloc"):
            import pandas as pd

            return pd.DataFrame(matrix, index=given.index, columns=names)
        return type(given)(matrix, schema=names.tolist())

    def _check_kinds(self, X):
        """Compare the kinds of the columns with those in ``fit``, as far as dtypes tell."""
        accepted = {
            "number": ("number", "boolean", "object"),
            "boolean": ("boolean", "number", "object"),
            "datetime": ("datetime", "object"),
            "category": ("category", "object"),
        }
        for plan, kind in zip(self.columns_, kinds_of(X, [plan.name for plan in self.columns_])):
            fine = accepted.get(plan.kind, (kind,))
            if kind not in fine and not (plan.kind == "category" and plan.takes_numbers) and plan.suffixes:
                raise ValueError(
                    f"Column {plan.name!r} was of kind {plan.kind} in fit and is of kind {kind} now; give it the dtype "
                    "it had, or fit again."
                )

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns that `transform` makes.

        Parameters
        ----------
        input_features : array-like of str, optional

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "columns_")
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        return np.array(output_names(names, self.columns_), dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = [
            name for name in ("float32", "float64") if self.dtype in (name, getattr(np, name))
        ]
        return tags


def _in_pandas(X):
    """Turn a polars or pyarrow table into pandas; all else stays as it is."""
    return X.to_pandas() if is_frame(X) and not is_dask(X) and not hasattr(X, "iloc") else X


def _summarise(block, kinds, names):
    """Summarise one block."""
    X = joined(block.X)
    if sparse.issparse(X):
        return TableSummary(_finite_moments(as_matrix(X), block), {})
    columns = split(X)
    counted = [j for j, kind in enumerate(kinds) if kind in ("category", "object")]
    counts = {j: count_values(columns[j], MAX_DISTINCT) for j in counted}
    return TableSummary(_finite_moments(panel(columns, kinds, names), block), counts)


def _finite_moments(X, block):
    moments = column_moments(X)
    if not np.isfinite(moments.mean + moments.m2).all():
        refuse_infinite(X, block)
    return moments


def _encode_chunk(chunk, plans, dtype):
    return encode(split(chunk), plans, dtype)


def _encode_sparse_chunk(chunk, plans, dtype):
    return encode_sparse(as_matrix(chunk), plans, dtype)
