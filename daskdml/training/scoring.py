"""Scores of rows that are not trained on: accuracy or R², the same bits for any number of ranks."""

import numpy as np

ROWS = 1024  # scored at once


def score(training, replica, theta, comm):
    """Return accuracy or R² of the held-out or given rows.

    Parameters
    ----------
    training : Training
    replica : Replica
    theta : ndarray of shape (n_params,)
    comm : Comm

    Returns
    -------
    float
        Not a number if a prediction is none.
    """
    if training.given is not None:
        n = -(-len(training.given.y) // ROWS)
        parts = {i: given_rows(training.given, i) for i in range(comm.rank, n, comm.size)}
        sums = {i: _sums_of(training, replica, theta, part) for i, part in parts.items()}
    else:
        schedule, sums = training.schedule, {}
        first, stop = schedule.unit_spans(np.arange(schedule.n_units))
        number = np.cumsum(stop > first) - 1  # of units that have rows
        n = int(number[-1]) + 1
        for unit in replica.units.tolist():
            rows = schedule.held_rows(unit)
            sums[int(number[unit])] = np.zeros(n_sums(training))
            if len(rows):
                selection = replica.select(rows)
                found = selection.X(), selection.y, selection.weight
                sums[int(number[unit])] = _sums_of(training, replica, theta, found)
    total = comm.allreduce_blocks(sums, n_blocks=n, like=np.zeros(n_sums(training)))
    return finish(training, total)


def given_rows(given, i):
    """Return X, y and weights of the i-th part of the rows that are given."""
    part = slice(i * ROWS, (i + 1) * ROWS)
    return given.X[part], given.y[part], None if given.weight is None else given.weight[part]


def n_sums(training):
    """Return how many numbers `sums_of` returns."""
    return 2 if training.kind != "values" else 1 + 3 * training.objective.sizes[-1]


def _sums_of(training, replica, theta, rows):
    X, y, weight = rows
    return sums_of(training, replica.raw(theta, X), y, weight)


def sums_of(training, raw, y, weight):
    """Return what a score is made of, for some rows with these raw predictions; of all rows it is added up."""
    raw = raw.astype(np.float64)
    weight = np.ones(len(raw)) if weight is None else weight
    if training.kind == "values":
        truth = np.reshape(y, raw.shape) - training.center
        with np.errstate(over="ignore", invalid="ignore"):
            error = truth + training.center - training.objective.loss.predict(raw)
            parts = weight @ truth, weight @ truth**2, weight @ error**2
        return np.concatenate([[weight.sum()], *parts])
    if training.kind == "labels":
        right = ((raw > 0) == (np.reshape(y, raw.shape) > 0)).all(axis=1)
    elif raw.shape[1] == 1:
        right = (raw[:, 0] > 0) == (np.ravel(y) > 0)
    else:
        right = raw.argmax(axis=1) == y
    right = np.where(np.isfinite(raw).all(axis=1), right, np.nan)
    return np.array([weight @ right, weight.sum()])


def finish(training, total):
    """Return the score of sums over all rows."""
    if training.kind != "values":
        return float(total[0] / total[1]) if total[1] > 0 else float("nan")
    weight, (mean, square, error) = total[0], total[1:].reshape(3, -1)
    if not weight > 0:
        return float("nan")
    return float(np.where(np.isfinite(error), r2(weight, mean, square, error), np.nan).mean())


def r2(weight, mean, square, error):
    """Return R² of sums over rows, each times its weight; where all targets are equal 1 or, if they are missed, 0.

    Parameters
    ----------
    weight : float or ndarray of shape (k,)
        Above 0.
    mean, square : ndarray of shape (k,)
        Of targets, which may be moved by any number, and of their squares.
    error : ndarray of shape (k,)
        Of squared errors.

    Returns
    -------
    ndarray of shape (k,)

    Examples
    --------
    >>> r2(2.0, np.array([0.0, 4.0]), np.array([2.0, 8.0]), np.array([0.5, 0.0]))
    array([0.75, 1.  ])
    """
    spread = square - mean**2 / weight
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, 1.0 - error / spread, np.where(error > 0, 0.0, 1.0))
