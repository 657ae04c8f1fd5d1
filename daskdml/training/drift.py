"""How much the rows of ranks differ: those that train on their own rows learn different things from sorted ones."""

import numpy as np

from daskdml.kernels.device import on_host
from daskdml.utils.random import row_hash

ROWS = 4096  # of a rank that are looked at
STREAM = 45


def drift(training, replica, comm):
    """Return how far labels and features of a rank's rows are from those of all, at most.

    Parameters
    ----------
    training : Training
    replica : Replica
        Of which units are together.
    comm : Comm

    Returns
    -------
    labels, features : float
        The total variation distance of a rank's classes from those of all, or the distance of its mean of y in standard
        deviations; and the largest distance of a feature's mean in standard deviations. Both less what chance makes of
        as many rows.
    """
    classes = training.kind == "classes"
    k = max(training.objective.sizes[-1], 2) if classes else training.objective.sizes[-1]
    p = training.objective.sizes[0]
    n, labels, sums = 0, np.zeros((2, k)), np.zeros((2, p))
    if len(replica.units):
        first, stop = training.schedule.unit_spans(replica.units)
        rows = np.concatenate([np.arange(a, b) for a, b in zip(first.tolist(), stop.tolist())])
        if len(rows) > ROWS:  # by hashes: rows may have a period
            chosen = np.argpartition(row_hash(training.schedule.seed, STREAM, rows), ROWS)[:ROWS]
            rows = rows[np.sort(chosen)]
        n = len(rows)
        found = replica.select(rows)
        X, y = on_host(found.X()), np.asarray(found.y, np.float64)
        if classes:
            labels[0] = np.bincount(y.astype(np.intp), minlength=k)
        else:
            y = y.reshape(n, -1) - training.center
            labels[:] = y.sum(axis=0), np.square(y).sum(axis=0)
        square = X.multiply(X) if replica.rows.is_sparse else np.square(X, dtype=np.float64)
        sums[:] = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel(), np.asarray(square.sum(axis=0)).ravel()
    own = np.concatenate([[float(n)], labels.ravel(), sums.ravel()])
    parts = np.stack(comm.allgather(own))
    parts = parts[parts[:, 0] > 0]
    counts, total = parts[:, 0], parts.sum(axis=0)
    chance = 1.0 / np.sqrt(counts)
    at = 1 + 2 * k
    features = _distances(parts[:, at : at + p], parts[:, at + p :], counts).max(axis=1) - 3.5 * chance
    if classes:
        shares = parts[:, 1 : 1 + k] / counts[:, None]
        away = 0.5 * np.abs(shares - total[1 : 1 + k] / total[0]).sum(axis=1) - 0.5 * np.sqrt(k) * chance
    else:
        away = _distances(parts[:, 1 : 1 + k], parts[:, 1 + k : at], counts).max(axis=1) - 3 * chance
    return max(float(away.max()), 0.0), max(float(features.max()), 0.0)


def _distances(sums, squares, counts):
    """Return the distance of each rank's means from the mean of all, in standard deviations of all."""
    n = counts.sum()
    mean = sums.sum(axis=0) / n
    deviation = np.sqrt(np.maximum(squares.sum(axis=0) / n - mean**2, 0.0))
    away = np.abs(sums / counts[:, None] - mean)
    return np.divide(away, deviation, out=np.zeros_like(away), where=deviation > 1e-6 * np.abs(mean))
