"""Data of the demo: what scikit-learn ships, and rows generated on the workers."""

import numpy as np

from daskdml.utils.random import uniform

N_FEATURES = 20
# Streams of the counter-based numbers: features take 0 .. N_FEATURES, the target the next.
_TARGET_STREAM = N_FEATURES + 1


def load_bundled():
    """Return scikit-learn's bundled data sets, real and offline.

    Returns
    -------
    list of (str, str, ndarray, ndarray)
        Name, kind ("classification" or "regression"), X and y.
    """
    from sklearn import datasets

    makers = (
        ("breast cancer", "classification", datasets.load_breast_cancer),
        ("digits", "classification", datasets.load_digits),
        ("wine", "classification", datasets.load_wine),
        ("diabetes", "regression", datasets.load_diabetes),
    )
    return [(name, kind, *make(return_X_y=True)) for name, kind, make in makers]


def generate(n_rows, chunk_rows, seed=0):
    """Generate rows of a binary classification task as Dask arrays, each chunk on the worker that will hold it.

    Neighbouring features are correlated and their scales span two decades; ``P(y = 1) = sigmoid(0.3 + z @ w)`` with
    the features' unscaled values ``z``. Every number is a hash of (seed, row, column): any `chunk_rows` gives the same
    rows.

    Parameters
    ----------
    n_rows, chunk_rows : int
    seed : int, default=0

    Returns
    -------
    X : dask.array of float32, shape (n_rows, 20)
    y : dask.array of int8, shape (n_rows,)
    """
    import dask.array as da

    ids = da.arange(n_rows, chunks=chunk_rows)
    X = ids.map_blocks(
        make_features, seed, new_axis=1, chunks=(ids.chunks[0], (N_FEATURES,)), dtype=np.float32, meta=_empty(2)
    )
    y = da.blockwise(make_targets, "i", X, "ij", ids, "i", seed=seed, concatenate=True, dtype=np.int8, meta=_empty(1))
    return X, y


def make_features(ids, seed):
    """Return the features of some rows, float32 of shape (len(ids), 20)."""
    from scipy.special import ndtri

    # Half a step of the 53-bit grid keeps 0 out of the normal quantile.
    normal = np.stack([ndtri(uniform(seed, column, ids) + 2.0**-54) for column in range(N_FEATURES + 1)], axis=1)
    return ((0.8 * normal[:, 1:] + 0.6 * normal[:, :-1]) * _scales()).astype(np.float32)


def make_targets(X, ids, seed):
    """Return the targets of some rows, 0 or 1."""
    weights = np.cos(np.arange(N_FEATURES)) * 2.0 / np.sqrt(1 + np.arange(N_FEATURES))
    margin = 0.3 + (X / _scales()) @ weights
    return (uniform(seed, _TARGET_STREAM, ids) * (1 + np.exp(-margin)) < 1).astype(np.int8)


def _scales():
    return 10.0 ** np.linspace(-1, 1, N_FEATURES)


def _empty(n_dims):
    return np.empty((0,) * n_dims, dtype=np.float32 if n_dims == 2 else np.int8)
