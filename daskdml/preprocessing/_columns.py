"""Columns of a mixed table: what kind each is, and the numbers in it.

Kinds. "number" (timedeltas too, in seconds), "boolean", "datetime", "category" (words, pandas categories, periods,
intervals), and "object": Python objects, whose kind only their values tell.
"""

import datetime
import decimal
import numbers

import numpy as np
from scipy import sparse

from daskdml.data.statistics import columns_of

DATE_PARTS = ("year", "month", "day", "hour", "seconds")
_NUMBERS = (numbers.Real, decimal.Decimal)
_DATES = (datetime.date, np.datetime64)
PANEL_WIDTH = {"number": 1, "boolean": 1, "datetime": len(DATE_PARTS)}


def kind_of(dtype, name):
    """Return the kind of a column of a NumPy or pandas dtype."""
    import pandas as pd
    from pandas.api import types

    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if types.is_object_dtype(dtype):
        return "object"
    if types.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported\nColumn {name!r} holds complex numbers; pass their parts.")
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_datetime64_any_dtype(dtype) or str(dtype).startswith("date32"):
        return "datetime"
    if types.is_numeric_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return "number"
    return "category"


def kinds_of(X, names):
    """Return the kinds of the columns of an array, sparse matrix, frame or Dask collection, from metadata alone."""
    dtypes = list(X.dtypes) if hasattr(X, "dtypes") else [X.dtype] * len(names)
    return [kind_of(dtype, name) for dtype, name in zip(dtypes, names)]


def kind_of_values(values):
    """Return the kind of a column of Python objects from its distinct present values."""
    for kind, types in (("boolean", (bool, np.bool_)), ("number", _NUMBERS), ("datetime", _DATES)):
        if len(values) and all(isinstance(value, types) for value in values):
            return kind
    return "category"


def split(chunk):
    """Split a chunk of any kind but sparse into columns."""
    import pandas as pd

    if isinstance(chunk, pd.DataFrame):
        return [chunk.iloc[:, j] for j in range(chunk.shape[1])]
    return columns_of(chunk)


def panel(columns, kinds, names, in_fit=False):
    """Return the numbers in the columns that have any: one column per number or boolean, five per datetime.

    Parameters
    ----------
    columns : list of ndarray or pandas.Series, each of length n
    kinds : list of str
        Columns of kind "category" and "object" are left out.
    names : list of str
        For messages.
    in_fit : bool, default=False
        Whether the kinds were read off these very values.

    Returns
    -------
    ndarray of float64, shape (n, m)
        NaN where a value is missing.
    """
    n = len(columns[0]) if columns else 0
    out = np.empty((n, sum(PANEL_WIDTH.get(kind, 0) for kind in kinds)), order="F")
    first = 0
    for column, kind, name in zip(columns, kinds, names):
        if kind not in PANEL_WIDTH:
            continue
        width = PANEL_WIDTH[kind]
        try:
            out[:, first : first + width] = date_parts(column) if kind == "datetime" else floats(column)[:, None]
        except (TypeError, ValueError) as error:
            if in_fit:
                message = f"Column {name!r} looks like one of kind {kind}, but not all its values can be read as such "
                cure = "give them one type first, or turn them into strings."
            else:
                message = f"Column {name!r} was of kind {kind} in fit and now holds other values "
                cure = "give it the values it had, or fit again."
            raise ValueError(f"{message}({_short(error)}); {cure}") from None
        first += width
    return out


def matrix_panel(chunk, kinds, names):
    """Return the `panel` of a chunk of any kind; a sparse matrix is its own."""
    return chunk if sparse.issparse(chunk) else panel(split(chunk), kinds, names)


def floats(column):
    """Return a column of numbers, booleans or timedeltas as float64; missing values are NaN."""
    import pandas as pd

    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column.astype(np.float64, copy=False)
    series = pd.Series(column)
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return series.dt.total_seconds().to_numpy(dtype=np.float64)
    if series.dtype == object:
        strange = next((value for value in series[series.notna()] if not isinstance(value, _NUMBERS)), None)
        if strange is not None:
            raise TypeError(f"found {strange!r}")
        series = series.where(series.notna(), np.nan).astype(np.float64)
    elif not pd.api.types.is_numeric_dtype(series.dtype):
        raise TypeError(f"found dtype {series.dtype}")
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def date_parts(column):
    """Return year, month, day, hour (local time) and seconds since 1970 (UTC) of a column of datetimes.

    Each of several Python objects may have a timezone of its own; one without counts as UTC.
    """
    import pandas as pd

    local = pd.Series(column)
    if local.dtype == object or hasattr(local.dtype, "pyarrow_dtype"):
        local = local.astype(object)
        found = pd.api.types.infer_dtype(local, skipna=True)
        if found not in ("datetime", "date", "datetime64", "empty"):
            raise TypeError(f"found {found} values")
        utc = pd.to_datetime(local, utc=True).dt.tz_localize(None)
        local = pd.to_datetime(local.map(_on_the_wall))
    elif not pd.api.types.is_datetime64_any_dtype(local.dtype):
        raise TypeError(f"found dtype {local.dtype}")
    else:
        utc = local if local.dt.tz is None else local.dt.tz_convert("UTC").dt.tz_localize(None)
    parts = [getattr(local.dt, part).to_numpy(dtype=np.float64) for part in DATE_PARTS[:-1]]
    return np.column_stack([*parts, (utc - pd.Timestamp(0)).dt.total_seconds()])


def _on_the_wall(value):
    """Return what a clock on the wall shows at a datetime: the same without its timezone."""
    return value.replace(tzinfo=None) if getattr(value, "tzinfo", None) is not None else value


def _short(error):
    return str(error).splitlines()[0]
