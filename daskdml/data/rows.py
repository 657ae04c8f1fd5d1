"""One function over the rows of any input: at once in memory, lazily per chunk on Dask."""

import functools
import itertools
import operator
import pickle

import numpy as np

from daskdml.data.kinds import is_dask, is_dask_array, is_pandas, is_sparse, n_rows

# A function (a fitted model) of this size or more is one value in the graph instead of a part of every task.
SHARED_BYTES = 1 << 20


def apply_rows(
    fn, X, *, kind="vector", columns=None, dtype=float, name=None, sparse=False, by_panel=None, on_host=False
):
    """Apply a row-wise function to X: directly in memory, lazily chunk by chunk on Dask.

    Parameters
    ----------
    fn : callable
        Pure function of one chunk in memory (ndarray, CSR or pandas, whatever the chunks are) to an ndarray, CSR or
        DataFrame with as many rows. Never called on an empty Dask chunk.
    X : any input, shape (n, p)
    kind : {"vector", "matrix", "same"}, default "vector"
        Whether `fn` gives shape (n,), shape (n, k), or the kind of table it got.
    columns : sequence of length k or None
        Column names of the result; needed for "matrix", and for "same" when the number of columns changes.
    dtype : numpy dtype, or dict of column to dtype, default float
        dtype of the result, a promise made to Dask; a dict only for "same" on DataFrames.
    name : str, optional
        Name of a resulting Series.
    sparse : bool, default False
        Whether a "matrix" has CSR chunks; a Dask array then, for a DataFrame too.
    by_panel : tuple of two callables, optional
        ``fn(chunk)`` of a Dask array chunked by columns as ``finish(sum over panels of part_of(columns)(panel))``,
        where ``columns`` is the panel's slice of all: parts travel then, panels do not. Without it they are put side by
        side.
    on_host : bool, default False
        Whether a "vector" or "matrix" has chunks of NumPy, where those of X are of a device too.

    Returns
    -------
    ``fn(X)`` in memory; else a lazy collection
        dask.array gives dask.array, row chunks kept, unknown sizes too; dask.dataframe gives Series or DataFrame, index
        and divisions kept.

    Notes
    -----
    Reads no rows of a Dask collection, and `fn` is not tried on made-up data.

    Examples
    --------
    >>> import numpy as np
    >>> apply_rows(lambda rows: rows.sum(axis=1), np.ones((2, 3)))
    array([3., 3.])
    """
    if kind not in ("vector", "matrix", "same"):
        raise ValueError(f"kind must be 'vector', 'matrix' or 'same', got {kind!r}.")
    if kind == "matrix" and columns is None:
        raise ValueError("apply_rows(kind='matrix') needs the column names of the result; pass columns=.")
    if not is_dask(X):
        return fn(X)
    if is_dask_array(X):
        return _over_array(fn, X, kind, columns, dtype, sparse, by_panel, on_host)
    if sparse:
        return _frame_to_sparse(fn, X, columns, dtype)
    return _over_frame(fn, X, kind, columns, dtype, name)


def _is_big(fn):
    """Tell whether a function carries so much that it should be one Dask value, not a part of every task."""
    buffers = []
    try:
        small = len(pickle.dumps(fn, protocol=5, buffer_callback=buffers.append))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False  # a closure: Dask pickles it by value
    return small + sum(buffer.raw().nbytes for buffer in buffers) >= SHARED_BYTES


def _call(chunk, fn, empty):
    """Apply `fn` to one chunk; an empty chunk gives the empty result, since many models refuse to see no rows."""
    return fn(chunk) if n_rows(chunk) else empty


def _empty_like(meta, n_columns, dtype):
    """Return an array of no rows, of the kind (dense, CSR, cupy) of a chunk's meta."""
    if is_sparse(meta):
        return type(meta.tocsr())((0, n_columns), dtype=dtype)
    return np.empty_like(meta, shape=(0, n_columns), dtype=dtype)


def _over_array(fn, X, kind, columns, dtype, sparse, by_panel, on_host):
    import dask
    import dask.array as da
    from dask.array.utils import meta_from_array

    apart = len(X.shape) == 2 and X.numblocks[1] > 1
    if apart and by_panel is None:
        X, apart = X.rechunk({1: -1}), False
    meta = np.empty((0, 0)) if on_host else meta_from_array(X)
    empty = _empty_array(meta, kind, X.shape[-1] if columns is None else len(columns), dtype, sparse)
    chunks = (X.chunks[0], *((k,) for k in empty.shape[1:]))
    if apart:
        return _over_panels(*by_panel, X, empty, chunks)
    if _is_big(fn):
        fn = dask.delayed(fn, pure=False, traverse=False)
    drop = list(range(empty.ndim, X.ndim))
    return da.map_blocks(_call, X, fn=fn, empty=empty, dtype=empty.dtype, chunks=chunks, drop_axis=drop, meta=empty)


def _empty_array(meta, kind, n_columns, dtype, sparse):
    """Return the result for no rows of a chunk like meta."""
    if kind == "vector":
        return np.empty(0, dtype) if is_sparse(meta) else np.empty_like(meta, shape=(0,), dtype=dtype)
    empty = _empty_like(meta, n_columns, dtype)
    if sparse and not is_sparse(empty):
        return _empty_csr(n_columns, dtype)
    if kind == "matrix" and not sparse and is_sparse(empty):
        return np.empty((0, n_columns), dtype)
    return empty


def _over_panels(part_of, finish, X, empty, chunks):
    """Map over the panels where they are, then over the sums of what they give."""
    import dask
    import dask.array as da
    from dask.base import tokenize

    stops = np.cumsum(X.chunks[1]).tolist()
    parts = [part_of(slice(a, b)) for a, b in itertools.pairwise([0, *stops])]
    token = tokenize(X.name, parts, finish)
    big = {
        j: dask.delayed(part, name=f"function-{token}-{j}", traverse=False)
        for j, part in enumerate(parts)
        if _is_big(part)
    }
    functions = [big[j].key if j in big else part for j, part in enumerate(parts)]
    # Not `map_blocks`: Dask would fuse the panels of a row band into one task, and send them all to one worker.
    name, layer = f"from-panels-{token}", {}
    for i, panels in enumerate(X.__dask_keys__()):
        own = {(f"part-{token}", i, j): (_call, key, fn, None) for j, (key, fn) in enumerate(zip(panels, functions))}
        layer |= own
        layer[name, i, *(0,) * (empty.ndim - 1)] = (_finish_sum, list(own), finish, empty)
    graph = stack_layer(name, layer, dependencies=[X, *big.values()])
    return da.Array(graph, name, chunks, meta=empty)


def _finish_sum(parts, finish, empty):
    return empty if parts[0] is None else finish(functools.reduce(operator.add, parts))


def _empty_csr(n_columns, dtype):
    from scipy.sparse import csr_matrix

    return csr_matrix((0, n_columns), dtype=dtype)


def _map_partitions(call, X, fn, **kwargs):
    """Map ``call(partition, fn, ...)`` over a Dask DataFrame."""
    import dask
    import dask.dataframe as dd
    import pandas as pd

    if _is_big(fn):
        # A collection of one partition goes to every partition of X; this one holds the function instead of rows.
        whole = dask.delayed(fn, pure=False, traverse=False)
        fn = dd.from_delayed([whole], meta=pd.Series([], dtype=object), verify_meta=False)
    return dd.map_partitions(call, X, fn, align_dataframes=False, enforce_metadata=False, **kwargs)


def stack_layer(name, layer, dependencies):
    """Return a graph: one layer of tasks on top of the Dask collections that they take.

    Parameters
    ----------
    name : str
    layer : dict
    dependencies : sequence of Dask collections

    Returns
    -------
    HighLevelGraph

    Notes
    -----
    Dask's own `from_collections` names the graph of a DataFrame by the address of the collection: once that is gone
    another may have it, and of two graphs in one only one is left.
    """
    from dask.highlevelgraph import HighLevelGraph

    layers, beneath = {name: layer}, {name: set()}
    for one in dependencies:
        graph = one.__dask_graph__()
        if not isinstance(graph, HighLevelGraph):
            own = one.__dask_keys__()[0][0]
            graph, names = HighLevelGraph({own: graph}, {own: set()}), [own]
        else:
            names = one.__dask_layers__()
        layers |= graph.layers
        beneath |= graph.dependencies
        beneath[name] |= set(names)
    return HighLevelGraph(layers, beneath)


def _frame_to_sparse(fn, X, columns, dtype):
    import dask.array as da

    empty = _empty_csr(len(columns), dtype)
    parts = _map_partitions(_call, X, fn, empty=empty, meta=(None, object)).optimize()
    keys = parts.__dask_keys__()
    label = "csr-" + keys[0][0] if keys else "csr"
    layer = {(label, i, 0): key for i, key in enumerate(keys)}
    graph = stack_layer(label, layer, dependencies=[parts])
    chunks = ((float("nan"),) * len(keys), (len(columns),))
    return da.Array(graph, label, chunks, dtype=empty.dtype, meta=empty)


def _over_frame(fn, X, kind, columns, dtype, name):
    from dask.dataframe.dispatch import make_meta

    meta = make_meta(X)
    empty = _empty_result(meta, kind, columns, dtype, name)
    if kind == "vector":
        wrap = functools.partial(_as_series, name=name, dtype=empty.dtype)
    else:
        wrap = functools.partial(_as_table, columns=list(empty.columns))
    return _map_partitions(_call_and_wrap, X, fn, wrap=wrap, empty=empty, meta=empty)


def _empty_result(meta, kind, columns, dtype, name):
    import pandas as pd

    index = meta.index
    if kind == "vector":
        return pd.Series(np.empty(0, dtype=dtype), dtype=dtype, index=index, name=name)
    columns = list(meta.columns if columns is None else columns)
    types = dtype if isinstance(dtype, dict) else dict.fromkeys(columns, dtype)
    # Column by column, since names may repeat and dtypes may differ.
    parts = [pd.Series([], dtype=types[column], index=index, name=column) for column in columns]
    return pd.concat(parts, axis=1) if parts else pd.DataFrame(index=index)


def _call_and_wrap(chunk, fn, wrap, empty):
    return wrap(fn(chunk), index=chunk.index) if len(chunk) else empty


def _as_series(values, index, name, dtype):
    import pandas as pd

    return pd.Series(np.asarray(values), index=index, name=name, dtype=dtype)


def _as_table(values, index, columns):
    import pandas as pd

    if is_pandas(values):
        return values if list(values.columns) == columns else values.set_axis(columns, axis=1)
    if is_sparse(values):
        values = values.toarray()
    # With the dtype said: from words among objects pandas 3 makes a column of strings, chunk by chunk.
    return pd.DataFrame(values, index=index, columns=columns, dtype=values.dtype)
