"""How much the rows of ranks, or of batches, differ: those that are of sorted rows teach different things."""

import numpy as np

from daskdml.kernels.device import on_host
from daskdml.utils.random import row_hash

ROWS = 4096  # of a rank that are looked at; of wide ones as many as have so many bytes, but not too few to tell
BYTES, LEAST = 1 << 27, 256
BATCHES = 4, 16  # that are looked at, at least and at most; as many as have `ROWS` rows
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
    classes, k = _targets(training)
    rows = _looked_at(training, replica)
    labels, features, values = _sums(training, replica, rows)
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


def drift_of_batches(training, replica, comm):
    """Return how far labels and features of batches are from those of all, in the mean of some of the first epoch.

    Parameters
    ----------
    training : Training
    replica : Replica
        Of which units are together.
    comm : Comm

    Returns
    -------
    labels, features : float
        As of `drift`, of batches instead of ranks; 0 where there are too few batches to tell.
    """
    schedule, (classes, k) = training.schedule, _targets(training)
    n_batches, p = schedule.n_batches, training.objective.sizes[0]
    least, most = BATCHES
    n = int(np.clip(ROWS // (schedule.n_micro * schedule.micro_rows), least, most))
    if n_batches < 2 * n:
        return 0.0, 0.0
    found, ends = [], np.full((2, p), -np.inf)
    for batch in np.arange(n) * n_batches // n:
        _, _, units, places = schedule.slices(0, batch, batch + 1)
        own = replica.owns(units)
        rows, _ = schedule.rows_of(0, units[own], places[own])
        labels, features, values = _sums(training, replica, rows)
        np.maximum(ends, features.ends, out=ends)
        found.append(np.concatenate([[float(len(rows))], labels, features.sums.ravel(), values.sums.ravel()]))
    found, ends = comm.allreduce(np.array(found)), comm.allreduce(ends, "max")
    sizes, total = found[:, 0], found.sum(axis=0)
    means, mean = found[:, 1:] / sizes[:, None], total[1:] / total[0]
    of_labels = 0.0
    if classes:
        of_labels = (0.5 * np.abs(means[:, :k] - mean[:k]).sum(axis=1) - 0.5 * np.sqrt(k / sizes)).mean()
    else:
        first, squares = mean[2 * p : 2 * p + k], mean[2 * p + k :]
        deviation = np.sqrt(np.maximum(squares - first**2, 0.0))
        scale = np.where(deviation > 0, deviation, 1.0)
        away = np.abs(means[:, 2 * p : 2 * p + k] - first) / scale - 1.0 / np.sqrt(sizes)[:, None]
        of_labels = away.mean(axis=0).max(initial=0.0)
    first = 1 + (k if classes else 0)
    at = slice(first, first + 2 * p)
    of_features = max(_Moments.of(row[at]).distance(row[0], total[0], total[at], ends, n) for row in found)
    return float(max(of_labels, 0.0)), float(max(of_features, 0.0))


def _targets(training):
    """Return whether y are classes, and how many columns of them there are, or of y."""
    classes, k = training.kind == "classes", training.objective.sizes[-1]
    return classes, max(k, 2) if classes else k


def _sums(training, replica, rows):
    """Return counts of classes, and the moments of features and of values, of some rows of a rank."""
    classes, k = _targets(training)
    labels, features = np.zeros(k if classes else 0), _Moments(training.objective.sizes[0])
    values = _Moments(0 if classes else k)
    if len(rows):
        found = replica.select(rows)
        y = np.asarray(found.y, np.float64)
        features.add(on_host(found.X()))
        if classes:
            labels += np.bincount(y.astype(np.intp), minlength=k)
        else:
            values.add(y.reshape(len(rows), -1) - training.center)
    return labels, features, values


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

    @classmethod
    def of(cls, sums):
        """Return moments of sums behind each other."""
        moments = cls(len(sums) // 2)
        moments.sums[:] = sums.reshape(2, -1)
        return moments

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
