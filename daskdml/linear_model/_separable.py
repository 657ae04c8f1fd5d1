"""Find out whether a linear function of X tells classes apart: without a penalty no finite optimum exists then.

Conventions. A direction of the parameters *separates* when no row's margin for its own class falls along it and some
row's rises: the loss then falls for ever. It need not touch all rows: those of a rare category that all have one class
are enough. Optimisers end such a fit as if it had converged, for the little loss that is left of those rows is below
any tolerance. So two questions are asked, both answered by the definition and not by how large coefficients are:

* does one column (with the intercept) separate? Ranges of its values by class say so exactly;
* does any direction in which the loss has lost its curvature? Found by a fit to rounding, then tried on all rows.

References
----------
Albert and Anderson, "On the existence of maximum likelihood estimates in logistic regression models", Biometrika 71
(1984).
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from daskdml.objectives.panels import dense_rows, in_phases
from daskdml.solvers import Newton, State, minimize
from daskdml.utils.portable import portable

# Shares of the best constant model's curvature below which a direction is looked at: after a fit to tol, to rounding.
_SUSPECT, _FLAT = 1e-2, 1e-5
# A share of the largest curvature that is rounding: what is left of columns that depend on each other.
_NO_DIRECTION = 1e-10
# Newton steps until the curvature along a separating direction, which falls by e with each, is lost in rounding.
_LONG_ENOUGH = 50
# A direction separates when margins that fall along it do so by less than this share of those that rise.
_FALLING = 1e-6
# So far along a direction the mean loss is the mean of the margins that fall, and nothing else.
_FAR = 1e12


@portable
class _Ranges(NamedTuple):
    """Smallest and largest value of each column by class; infinities where a class has no weight."""

    low: np.ndarray
    high: np.ndarray

    def __add__(self, other):
        return _Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class _ColumnRanges:
    """The `_Ranges` of some columns of one block; see `daskdml.objectives.panels`.

    Parameters
    ----------
    columns : ndarray of int, ascending
    n_classes : int
    class_weight : ndarray of shape (n_classes,) or None
    """

    phases = ("forward", "backward")

    def __init__(self, columns, n_classes, class_weight):
        self.columns, self.n_classes, self.class_weight = columns, n_classes, class_weight

    def __call__(self, block):
        return in_phases(self, block)

    def forward(self, X, columns):
        """Return no margins: what columns need of the others is the class of each row only."""
        return np.zeros((X.shape[0], 1))

    def pointwise(self, raw, y, weight):
        """Return (nothing, the class of each row, -1 for rows without weight)."""
        codes = y.astype(np.intp)
        counts = np.ones(len(codes), dtype=bool) if weight is None else weight > 0
        if self.class_weight is not None:
            counts = counts & (self.class_weight[codes] > 0)
        return 0, np.where(counts, codes, -1)[:, None]

    def backward(self, X, columns, codes):
        """Return the ranges of the panel's share of the columns."""
        own = self.columns[(columns.start <= self.columns) & (self.columns < columns.stop)] - columns.start
        low = np.full((self.n_classes, len(own)), np.inf)
        high = -low
        if len(own):
            X = X[:, own]
            X = X if sparse.issparse(X) else dense_rows(X)
            for k in np.unique(codes[codes >= 0]):
                rows = X[codes[:, 0] == k]
                low[k], high[k] = (_by_column(extreme) for extreme in (rows.min(axis=0), rows.max(axis=0)))
        return _Ranges(low, high)

    def join(self, partial, pieces):
        """Put the panels' columns side by side."""
        return _Ranges(*(np.concatenate(parts, axis=1) for parts in zip(*pieces)))


def _by_column(extreme):
    return extreme.toarray().ravel() if sparse.issparse(extreme) else extreme


def separating_columns(run, pilot, n_classes, class_weight, fit_intercept):
    """Return the indices of columns that separate classes each for itself; exact.

    A column that does so in all rows does so, or is constant, in the pilot: only those are read in all rows, and none
    where no column is left, as with continuous features.

    Parameters
    ----------
    run, pilot : daskdml.runtime Run; pilot may be None
    n_classes : int
    class_weight : ndarray of shape (n_classes,) or None
    fit_intercept : bool

    Returns
    -------
    ndarray of int
    """
    columns = np.arange(run.n_features)
    if pilot is not None:
        ranges = pilot.map_reduce(_ColumnRanges(columns, n_classes, class_weight))
        columns = columns[_has_cut(ranges, fit_intercept)]
    if not len(columns):
        return columns
    ranges = run.map_reduce(_ColumnRanges(columns, n_classes, class_weight))
    return columns[_has_cut(ranges, fit_intercept) & _varies(ranges)]


def is_blind_to_columns(run, pilot, n_classes, class_weight, fit_intercept):
    """Tell whether some column separates classes in a pilot, or is constant there, and varies in all rows.

    Takes the parameters of `separating_columns`. All rows are read only where the pilot has such columns.
    """
    columns = np.arange(run.n_features)
    columns = columns[_has_cut(pilot.map_reduce(_ColumnRanges(columns, n_classes, class_weight)), fit_intercept)]
    return len(columns) > 0 and bool(_varies(run.map_reduce(_ColumnRanges(columns, n_classes, class_weight))).any())


def _has_cut(ranges, fit_intercept):
    """Tell of each column whether a number has all values of some classes at or below it, all others' at or above."""
    present = np.isfinite(ranges.low).all(axis=1)
    low, high = ranges.low[present], ranges.high[present]
    order = np.lexsort((high, low), axis=0)
    low, high = np.take_along_axis(low, order, axis=0), np.take_along_axis(high, order, axis=0)
    below, above = np.maximum.accumulate(high, axis=0)[:-1], low[1:]
    # Without an intercept that number is 0.
    return (below <= above if fit_intercept else (below <= 0) & (above >= 0)).any(axis=0)


def _varies(ranges):
    return ranges.high.max(axis=0) > ranges.low.min(axis=0)


def has_separating_direction(full, near, theta, baseline):
    """Tell whether the directions in which the loss has lost its curvature hold one that separates classes.

    Parameters
    ----------
    full : Evaluator of all rows
    near : Evaluator of the same, or of a pilot where a Hessian of all rows costs too much
        Both in float64 arithmetic.
    theta : ndarray
        Where the fit ended.
    baseline : ndarray
        Parameters of the best constant model.

    Returns
    -------
    bool
        False costs two Hessians of ``near`` where all is well; suspicion costs a fit of it and one pass of ``full``.
    """
    reference = near.hessian(baseline).hessian
    if not len(_flat_directions(near.hessian(theta).hessian, reference, _SUSPECT)):
        return False
    # To rounding: along a direction that separates each step goes on while all others have arrived.
    found = minimize(
        Newton(exact=True), near, State(theta, None, None), tol=0.0, max_iter=_LONG_ENOUGH, to_rounding=True
    )
    if not np.isfinite(found.evaluation.value):
        return False
    flat = _flat_directions(found.evaluation.hessian, reference, _FLAT)
    # The direction in the flat subspace whose margins are nearest to the fit's, or to its last step's.
    candidates = [flat.T @ (flat @ (reference @ vector)) for vector in (found.theta, found.last_step)]
    return any(_separates(full, [d for d in candidates if np.linalg.norm(d) > 0]))


def _flat_directions(hessian, reference, share):
    """Return directions (rows) that keep at most a share of the reference's curvature, orthonormal in its metric."""
    values, vectors = linalg.eigh(reference, check_finite=False)
    # Along the others no margin changes: columns that depend on each other.
    kept = values > _NO_DIRECTION * values[-1]
    whiten = vectors[:, kept] / np.sqrt(values[kept])
    left, directions = linalg.eigh(whiten.T @ hessian @ whiten, check_finite=False)
    return (whiten @ directions[:, left < share]).T


def _separates(full, directions):
    """Tell of each direction whether it separates, from one pass.

    Far out along a direction the loss is the sum of what margins fall by, in the opposite one of what they rise by.
    """
    if not directions:
        return []
    scaled = [_FAR * d / np.linalg.norm(d) for d in directions]
    values = full.many([point for d in scaled for point in (d, -d)])
    # Rows that a direction does not touch keep the loss of a margin of zero.
    untouched = np.log(max(full.objective.n_outputs, 2))
    return [fall - untouched < _FALLING * rise for fall, rise in zip(values[::2], values[1::2])]
