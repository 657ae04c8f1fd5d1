"""How much the rows of ranks differ: those that train on their own rows learn different things from sorted ones."""

import numpy as np

from daskdml.kernels.device import on_host
from daskdml.utils.random import row_hash

ROWS = 4096  # of a rank that are looked at; of wide ones as many as have so many bytes, but not too few to tell
BYTES, LEAST = 1 << 27, 256
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
    rows = _looked_at(training, replica)
    labels, features = np.zeros(k), _Moments(training.objective.sizes[0])
    values = _Moments(0 if classes else k)
    if len(rows):
        found = replica.select(rows)
        y = np.asarray(found.y, np.float64)
        features.add(on_host(found.X()))
        if classes:
            labels += np.bincount(y.astype(np.intp), minlength=k)
        else:
            values.add(y.reshape(len(rows), -1) - training.center)
    parts = np.array([float(len(rows))]), labels, features.sums.ravel(), values.sums.ravel()
    edges = np.cumsum([len(part) for part in parts])[:-1]
    total, of_labels, of_features, of_values = np.split(comm.allreduce(np.concatenate(parts)), edges)
    ranges = comm.allreduce(np.concatenate([features.ends.ravel(), values.ends.ravel()]), "max")
    of_ends, of_value_ends = np.split(ranges, [features.ends.size])
    away = np.zeros(2)
    if len(rows):
        n = float(len(rows)), float(total[0])
        away[1] = features.distance(*n, of_features, of_ends, comm.size)
        if classes:
            away[0] = 0.5 * np.abs(labels / n[0] - of_labels / n[1]).sum()
            # Cauchy and Schwarz for its mean, McDiarmid for how far a rank may be from that.
            away[0] -= (0.5 * np.sqrt(k) + np.sqrt(0.5 * np.log(2.0 * comm.size))) / np.sqrt(n[0])
        else:
            away[0] = values.distance(*n, of_values, of_value_ends, comm.size)
    away = comm.allreduce(np.maximum(away, 0.0), "max")
    return float(away[0]), float(away[1])


def _looked_at(training, replica):
    """Return some rows of a rank, by their numbers."""
    schedule = training.schedule
    if not len(replica.units):
        return np.empty(0, np.int64)
    first, stop = schedule.unit_spans(replica.units)
    rows = np.concatenate([np.arange(a, b) for a, b in zip(first.tolist(), stop.tolist())])
    most = ROWS if replica.rows.is_sparse else int(np.clip(BYTES // (8 * training.objective.sizes[0]), LEAST, ROWS))
    if len(rows) <= most:
        return rows
    chosen = np.argpartition(row_hash(schedule.seed, STREAM, rows), most)[:most]  # by hashes: rows may have a period
    return rows[np.sort(chosen)]


class _Moments:
    """Sums, sums of squares, and both ends of the columns of a matrix."""

    def __init__(self, n_columns):
        self.sums, self.ends = np.zeros((2, n_columns)), np.full((2, n_columns), -np.inf)

    def add(self, X):
        if hasattr(X, "indptr"):
            X = X.astype(np.float64)
            self.sums[:] = [np.asarray(part.sum(axis=0)).ravel() for part in (X, X.multiply(X))]
            self.ends[:] = [part.max(axis=0).toarray().ravel() for part in (X, -X)]
        else:
            self.sums[:] = X.sum(axis=0, dtype=np.float64), np.einsum("ij,ij->j", X, X, dtype=np.float64)
            self.ends[:] = X.max(axis=0), -X.min(axis=0)

    def distance(self, n_own, n, total, ends, n_ranks):
        """Return the largest distance of a column's mean from that of all, in standard deviations, less what chance is.

        Chance is Bernstein's bound for all columns of all ranks together: columns that are rarely other than zero are
        far from normal.
        """
        (sums, squares), (high, low) = total.reshape(2, -1) / n, ends.reshape(2, -1)
        deviation = np.sqrt(np.maximum(squares - sums**2, 0.0))
        is_constant = deviation <= 1e-6 * np.abs(sums)
        scale = np.where(is_constant, 1.0, deviation)
        away = np.where(is_constant, 0.0, np.abs(self.sums[0] / n_own - sums) / scale)
        logs = np.log(2.0 * n_ranks * len(away))
        chance = np.sqrt(2.0 * logs / n_own) + 2.0 / 3.0 * logs * (high + low) / scale / n_own
        return (away - chance).max(initial=0.0)
