"""What a fitted model's method gives for a chunk, found without reading a row of the data."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.data.kinds import is_dask_array, is_pandas, is_sparse


class Output(NamedTuple):
    """One result per chunk: the arguments of `daskdml.data.apply_rows`."""

    kind: str
    dtype: Any
    columns: Any = None
    sparse: bool = False


def output_of(model, method, X):
    """Describe what ``model.method`` gives for the chunks of a Dask collection.

    The model is tried on one made-up row of the collection's names and types: zeros, empty strings, first categories. A
    model that refuses that row is asked for ``classes_``, ``n_outputs_`` and its feature names out.

    Parameters
    ----------
    model : fitted scikit-learn model
    method : {"predict", "predict_proba", "predict_log_proba", "decision_function", "transform"}
    X : Dask collection

    Returns
    -------
    Output

    Raises
    ------
    ValueError
        If the result has no row per row of X, or the model tells nothing about it.
    """
    from daskdml.data.lazy import meta_of

    row = made_up_row(meta_of(X), X)
    try:
        result = getattr(model, method)(row)
    except Exception as error:  # any model, any reason: the row is our invention
        return _from_attributes(model, method, error)
    if not hasattr(result, "shape") or len(result.shape) not in (1, 2) or result.shape[0] != 1:
        raise ValueError(
            f"{type(model).__name__}.{method} gives {type(result).__name__} for one row; ParallelPostFit takes methods "
            "that give one array or table with a row per row."
        )
    if len(result.shape) == 1:
        return Output("vector", _plain(result.dtype))
    if is_pandas(result):
        dtypes = dict(result.dtypes)
        if is_dask_array(X):
            return Output("matrix", np.result_type(*dtypes.values()), list(result.columns))
        return Output("same", dtypes, list(result.columns))
    columns = _columns_of(model, method, result.shape[1])
    return Output("matrix", _plain(result.dtype), columns, is_sparse(result))


def made_up_row(meta, X):
    """Make one row in memory of the kind, names and types of a Dask collection's chunks.

    Parameters
    ----------
    meta : empty table of that kind
    X : Dask collection
    """
    if is_pandas(meta):
        if len(meta.shape) == 1:
            return _made_up_series(meta)
        import pandas as pd

        columns = [_made_up_series(meta.iloc[:, k]) for k in range(meta.shape[1])]
        return pd.concat(columns, axis=1) if columns else meta
    row = np.zeros((1, *(int(k) for k in X.shape[1:])), dtype=X.dtype)
    return type(meta)(row) if is_sparse(meta) else row


def _made_up_series(column):
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.dtype.categories[:1] if len(column.dtype.categories) else [None]
    elif pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
        values = [""]
    else:
        values = [0]
    return pd.Series(values, dtype=column.dtype, name=column.name)


def _from_attributes(model, method, error):
    classes = getattr(model, "classes_", None)
    if isinstance(classes, np.ndarray):
        if method == "predict":
            return Output("vector", _plain(classes.dtype))
        if method != "decision_function":
            return Output("matrix", np.dtype(float), list(classes))
        return Output("vector", np.dtype(float)) if len(classes) == 2 else Output("matrix", float, list(classes))
    if method == "predict" and isinstance(getattr(model, "n_outputs_", 1), int):
        n_outputs = getattr(model, "n_outputs_", 1)
        return Output("vector", np.dtype(float)) if n_outputs == 1 else Output("matrix", float, list(range(n_outputs)))
    if method == "transform" and hasattr(model, "get_feature_names_out"):
        return Output("matrix", np.dtype(float), list(model.get_feature_names_out()))
    raise ValueError(
        f"{type(model).__name__}.{method} refuses a row of zeros and empty strings ({error}) and has neither classes_, "
        "n_outputs_ nor get_feature_names_out, so its result cannot be described before it is computed; use "
        "X.map_blocks or X.map_partitions with your own meta."
    ) from error


def _columns_of(model, method, n_columns):
    """Name the columns of a matrix: classes, features out, or positions."""
    classes = getattr(model, "classes_", None)
    if method != "transform" and isinstance(classes, np.ndarray) and len(classes) == n_columns:
        return classes.tolist()
    if method == "transform" and hasattr(model, "get_feature_names_out"):
        try:
            names = list(model.get_feature_names_out())
        except (AttributeError, ValueError):  # part of a pipeline has no names to give
            names = []
        if len(names) == n_columns:
            return names
    return list(range(n_columns))


def _plain(dtype):
    """Chunks may hold longer strings than the made-up row's."""
    return np.dtype(object) if getattr(dtype, "kind", None) in "US" else dtype
