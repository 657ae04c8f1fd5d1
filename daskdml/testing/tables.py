"""One table as every kind that the library takes, cut into uneven chunks, empty and one-row ones among them.

The table is a matrix of numbers, or a pandas DataFrame with columns of several types: arrays made of that hold objects.
"""

import numpy as np
from scipy import sparse


def cuts(n):
    """Chunk lengths of n >= 8 rows: several, one row, none, the rest."""
    return (n // 3, 1, 0, n - n // 3 - 1 - n // 4, n // 4)


def _dask_array(X):
    return lazily(np.asarray(X), cuts(X.shape[0]))


def _dask_columns(X):
    import dask.array as da

    p = X.shape[1]
    return da.from_array(np.asarray(X), chunks=(cuts(X.shape[0]), (1, p - 1) if p > 1 else 1))


def _dask_unknown(X):
    return _dask_frame(X).to_dask_array()


def _dask_csr(X):
    return _dask_array(X).map_blocks(sparse.csr_matrix)


def _frame(X):
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    return pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])], index=np.arange(len(X)) * 10)


def _polars(X):
    import polars as pl

    if hasattr(X, "columns"):
        return pl.from_pandas(X)
    return pl.DataFrame(X, schema=[f"f{j}" for j in range(X.shape[1])])


def partitions(frame, lengths):
    """Cut a pandas DataFrame into a Dask DataFrame with these partition lengths."""
    import dask.dataframe as dd

    ends = np.cumsum(lengths)
    pieces = [frame.iloc[end - length : end] for end, length in zip(ends, lengths)]
    return dd.from_map(_take, list(range(len(pieces))), pieces=pieces, meta=frame.iloc[:0])


def lazily(part, lengths):
    """Cut an ndarray or a pandas DataFrame into a Dask collection of these numbers of rows."""
    import dask.array as da

    if hasattr(part, "columns"):
        return partitions(part, lengths)
    return da.from_array(part, chunks=(tuple(lengths), *part.shape[1:]))


def mixed(n):
    """Return a pandas DataFrame of five columns: numbers with gaps and without, words, flags, a category.

    Numbers and words are few, so that they may be categories too. The index is 0, 10, 20, ...
    """
    import pandas as pd

    rng = np.random.default_rng(n)
    return pd.DataFrame(
        {
            "gap": np.where(rng.random(n) < 0.33, np.nan, rng.integers(0, 6, n) / 2),
            "count": rng.integers(0, 4, n),
            "word": rng.choice(["ash", "birch", "cedar"], n),
            "flag": rng.random(n) < 0.4,
            "category": pd.Categorical(rng.choice(["x", "y"], n)),
        },
        index=np.arange(n) * 10,
    )


def _take(i, pieces):
    return pieces[i]


def _dask_frame(X):
    return partitions(_frame(X), cuts(len(X)))


DENSE = {
    "numpy": np.array,
    "fortran": np.asfortranarray,
    "pandas": _frame,
    "polars": _polars,
    "dask array": _dask_array,
    "dask columns": _dask_columns,
    "dask unknown": _dask_unknown,
    "dask frame": _dask_frame,
}
SPARSE = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "csr array": sparse.csr_array, "dask csr": _dask_csr}
LAZY = ("dask array", "dask columns", "dask unknown", "dask frame", "dask csr")


def dense(result):
    """Compute a result of any kind and return it as an ndarray."""
    result = result.compute() if hasattr(result, "compute") else result
    result = result.toarray() if sparse.issparse(result) else result
    return result.to_numpy() if hasattr(result, "to_numpy") else np.asarray(result)
