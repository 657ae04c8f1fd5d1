"""What kind of table a user handed in, found without importing the library it comes from.

An object of Dask, pandas or polars can only exist when that library is imported already, so `sys.modules` answers the
question for the price of a look-up, and a prediction on NumPy never pays for an import.
"""

import copy
import sys

import numpy as np


def _is_instance(X, module, *names):
    """Tell whether X is an instance of ``module.name``, importing nothing."""
    library = sys.modules.get(module)
    return library is not None and isinstance(X, tuple(getattr(library, n) for n in names if hasattr(library, n)))


def is_dask_array(X):
    """Tell whether X is a `dask.array.Array`, importing nothing."""
    return _is_instance(X, "dask.array", "Array")


def is_dask_frame(X):
    """Tell whether X is a `dask.dataframe` DataFrame or Series, importing nothing."""
    return _is_instance(X, "dask.dataframe", "DataFrame", "Series")


def is_dask(X):
    """Tell whether X is a Dask array, DataFrame or Series, importing nothing.

    Examples
    --------
    >>> is_dask([[1.0]])
    False
    """
    return not isinstance(X, np.ndarray) and (is_dask_array(X) or is_dask_frame(X))


def is_pandas(X):
    """Tell whether X is a pandas DataFrame or Series, importing nothing."""
    return _is_instance(X, "pandas", "DataFrame", "Series")


def is_narwhal(X):
    """Tell whether X is an eager table or column that narwhals reads and pandas is not: polars, pyarrow, modin."""
    return (
        _is_instance(X, "polars", "DataFrame", "Series")
        or _is_instance(X, "pyarrow", "Table", "ChunkedArray")
        or _is_instance(X, "modin.pandas", "DataFrame", "Series")
    )


def is_cupy(X):
    """Tell whether X is a cupy array, importing nothing."""
    return type(X).__module__.partition(".")[0] == "cupy"


def is_frame(X):
    """Tell whether X is a table with named columns: pandas, polars, pyarrow or Dask DataFrame.

    Examples
    --------
    >>> import numpy as np
    >>> is_frame(np.ones((2, 2)))
    False
    """
    if isinstance(X, np.ndarray):
        return False
    return (is_pandas(X) or is_narwhal(X) or is_dask_frame(X)) and len(getattr(X, "shape", ())) == 2


def is_sparse(X):
    """Tell whether X is a SciPy sparse matrix or array."""
    return hasattr(X, "tocsr") and _is_instance(X, "scipy.sparse", "spmatrix", "sparray")


def refuse_unread(X):
    """Raise TypeError for what stands for data without being a table: Dask's Delayed and Bag, polars' LazyFrame."""
    # Before anything else is asked of it: a Delayed answers to any attribute.
    if hasattr(X, "__dask_graph__") and not is_dask(X):
        kind = type(X).__name__.removesuffix("Leaf")  # what dask.delayed(value) makes is a DelayedLeaf
        raise TypeError(f"Expected a Dask array or DataFrame, got {kind}; make one with from_delayed.")
    if hasattr(X, "collect_schema") and not hasattr(X, "shape"):
        raise TypeError(f"Expected data that were read, got a {type(X).__name__}; call its collect() first.")


def as_table(X):
    """Return X as something with a shape; nested lists become an array, what was never read is refused."""
    refuse_unread(X)
    return X if hasattr(X, "shape") else np.asarray(X)


def n_rows(X):
    """Count the rows of an in-memory table, target or tuple of column panels."""
    if isinstance(X, tuple):
        X = X[0]
    shape = getattr(X, "shape", None)
    return len(X) if shape is None else shape[0]


def slice_rows(X, start, stop):
    """Return rows ``start`` to ``stop`` of an in-memory table as views; tuples of panels are sliced panel by panel.

    A CSR slice shares ``data`` and ``indices`` with its source and owns only ``stop - start + 1`` row pointers.
    """
    if X is None or (start == 0 and stop == n_rows(X)):
        return X
    if isinstance(X, tuple):
        return tuple(slice_rows(panel, start, stop) for panel in X)
    if is_pandas(X):
        return X.iloc[start:stop]
    if is_sparse(X) and X.format == "csr":
        return _slice_csr(X, start, stop)
    return X[start:stop]


def _slice_csr(X, start, stop):
    # SciPy's own row slice copies the values, and its constructor reads all indices when they are 64 bits wide.
    first, last = int(X.indptr[start]), int(X.indptr[stop])
    out = type(X)((stop - start, X.shape[1]), dtype=X.dtype)
    out.indptr = X.indptr[start : stop + 1] - X.indptr[start]
    out.indices, out.data = X.indices[first:last], X.data[first:last]
    return out


def take_rows(X, rows):
    """Gather rows of an in-memory table by position; dense results are C-contiguous."""
    if X is None:
        return None
    if isinstance(X, tuple):
        return tuple(take_rows(panel, rows) for panel in X)
    if is_pandas(X):
        return X.iloc[rows]
    if isinstance(X, np.ndarray):
        return np.ascontiguousarray(X[rows])
    return X[rows]


def aligned(X):
    """Return a matrix, vector or tuple of panels with its arrays at multiples of their items' sizes; copies others.

    Dask reads several arrays into one buffer, so that numbers of one that came from another worker may begin at any
    byte: NumPy multiplies 40 times slower then, and with other last bits. The order of an array stays what it is: sums
    along rows and columns round differently.
    """
    if isinstance(X, np.ndarray):
        return X if X.flags.aligned else X.copy(order="K")
    if isinstance(X, tuple):
        return tuple(aligned(panel) for panel in X)
    if is_sparse(X) and X.format in ("csr", "csc", "bsr"):
        parts = X.indptr, X.indices, X.data
        if not all(part.flags.aligned for part in parts):
            X = copy.copy(X)
            X.indptr, X.indices, X.data = map(aligned, parts)
    return X


def n_bytes(X):
    """Count the bytes an in-memory table holds, views counted by what they show."""
    if X is None:
        return 0
    if isinstance(X, tuple):
        return sum(map(n_bytes, X))
    if is_sparse(X):
        X = X if X.format in ("csr", "csc") else X.tocsr()
        return X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    if is_pandas(X):
        return int(np.sum(X.memory_usage()))
    if hasattr(X, "estimated_size"):
        return int(X.estimated_size())
    return int(getattr(X, "nbytes", 0))
