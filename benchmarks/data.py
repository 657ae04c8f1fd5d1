"""Seeded rows: correlated features whose sizes span two decades, with means, and labels from a linear model.

Rows are made slab by slab, each slab from a generator seeded by (seed, slab): the first rows of a longer table are
those of a shorter one, and the workers of a cluster make the same rows as this process. Values are float32 numbers in
either precision, so one reference solution serves both.
"""

from typing import NamedTuple

import numpy as np

SLAB_ROWS = 100_000
SLAB_VALUES = 10_000_000
DECADES = 2.0
# Share of a feature's variance that comes from factors common to all features.
COMMON = 0.5
# Standard deviation of the log-odds: classes overlap, as they do in real tables.
SIGNAL = 1.5


class Rows(NamedTuple):
    """What a generated table is: its shape, its target ("binary", "regression" or a number of classes), its seed."""

    rows: int
    features: int
    target: str | int = "binary"
    seed: int = 0

    @property
    def slab_rows(self):
        """Rows of one slab."""
        return min(SLAB_ROWS, max(1, SLAB_VALUES // self.features))

    @property
    def n_slabs(self):
        """Slabs, the last one perhaps shorter."""
        return -(-self.rows // self.slab_rows)


class Model(NamedTuple):
    """What the rows of a table have in common."""

    scale: np.ndarray
    mean: np.ndarray
    loadings: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


def make_model(spec):
    """Draw what all slabs of a table share.

    Parameters
    ----------
    spec : Rows

    Returns
    -------
    Model
    """
    rng = np.random.default_rng([spec.seed, 0, spec.features])
    p, n_factors = spec.features, max(2, spec.features // 10)
    n_outputs = spec.target if isinstance(spec.target, int) else 1
    scale = 10.0 ** rng.permutation(np.linspace(-DECADES / 2, DECADES / 2, p))
    mean = scale * rng.uniform(-2, 2, size=p)
    loadings = rng.standard_normal((n_factors, p))
    loadings *= np.sqrt(COMMON) / np.linalg.norm(loadings, axis=0)
    coef = rng.standard_normal((p, n_outputs))
    covariance_root = np.concatenate([loadings, np.sqrt(1 - COMMON) * np.eye(p)])
    coef *= SIGNAL / np.linalg.norm(covariance_root @ coef, axis=0)
    return Model(scale, mean, loadings, coef, rng.uniform(-0.5, 0.5, size=n_outputs))


def make_slab(spec, i):
    """Make the rows of slab i.

    Parameters
    ----------
    spec : Rows
    i : int

    Returns
    -------
    X : ndarray of shape (n, features), float32
    y : ndarray of shape (n,)
        int64 labels; float64 for regression.
    """
    model = make_model(spec)
    rng = np.random.default_rng([spec.seed, 1, i])
    n, p = min(spec.slab_rows, spec.rows - i * spec.slab_rows), spec.features
    # All slabs draw whole slabs: a shorter table then begins with the same rows.
    factors = rng.standard_normal((spec.slab_rows, len(model.loadings)), dtype=np.float32)[:n]
    X = rng.standard_normal((spec.slab_rows, p), dtype=np.float32)[:n]
    X *= np.float32(np.sqrt(1 - COMMON))
    X += factors @ model.loadings.astype(np.float32)
    raw = X.astype(np.float64) @ model.coef + model.intercept
    X *= model.scale.astype(np.float32)
    X += model.mean.astype(np.float32)
    if spec.target == "regression":
        return X, raw[:, 0] + rng.standard_normal(spec.slab_rows)[:n]
    if spec.target == "binary":
        return X, (rng.random(spec.slab_rows)[:n] < 1 / (1 + np.exp(-raw[:, 0]))).astype(np.int64)
    # The largest of log-odds plus Gumbel noise is a draw from their softmax.
    return X, (raw + rng.gumbel(size=(spec.slab_rows, spec.target))[:n]).argmax(axis=1)


def make_table(spec, dtype=np.float32):
    """Make a whole table in memory.

    Parameters
    ----------
    spec : Rows
    dtype : numpy dtype, default float32

    Returns
    -------
    X : ndarray of shape (rows, features), C order
    y : ndarray of shape (rows,)
    """
    X, y = np.empty((spec.rows, spec.features), dtype=dtype), None
    for i in range(spec.n_slabs):
        part = slice(i * spec.slab_rows, min((i + 1) * spec.slab_rows, spec.rows))
        X[part], labels = make_slab(spec, i)
        y = np.empty(spec.rows, dtype=labels.dtype) if y is None else y
        y[part] = labels
    return X, y


def make_lazy(spec):
    """Make a table as Dask arrays of one chunk a slab, float32.

    Parameters
    ----------
    spec : Rows

    Returns
    -------
    X, y : dask.array.Array
    """
    import dask
    import dask.array as da

    y_type = np.float64 if spec.target == "regression" else np.int64
    slabs = [dask.delayed(make_slab, nout=2)(spec, i) for i in range(spec.n_slabs)]
    lengths = [min(spec.slab_rows, spec.rows - i * spec.slab_rows) for i in range(spec.n_slabs)]
    X = [da.from_delayed(slab[0], (n, spec.features), dtype=np.float32) for slab, n in zip(slabs, lengths)]
    y = [da.from_delayed(slab[1], (n,), dtype=y_type) for slab, n in zip(slabs, lengths)]
    return da.concatenate(X), da.concatenate(y)


def make_sparse(rows, features, per_row, seed=0):
    """Make a CSR table whose columns are used with power-law frequencies, as words are.

    Parameters
    ----------
    rows, features : int
    per_row : int
        Values drawn for each row; equal columns of a row are added up.
    seed : int

    Returns
    -------
    X : csr_matrix of shape (rows, features), float64
    y : ndarray of shape (rows,), int64
    """
    from scipy import sparse

    rng = np.random.default_rng([seed, 2])
    # The cube of a uniform number: the density of column j falls like j^(-2/3).
    columns = (features * rng.random((rows, per_row)) ** 3).astype(np.int32)
    values = np.full(columns.size, per_row**-0.5)
    starts = np.arange(0, columns.size + 1, per_row, dtype=np.int32)
    X = sparse.csr_matrix((values, columns.ravel(), starts), shape=(rows, features))
    X.sum_duplicates()
    raw = X @ (3.0 * rng.standard_normal(features))
    return X, (rng.random(rows) < 1 / (1 + np.exp(-raw))).astype(np.int64)
