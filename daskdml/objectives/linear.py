"""Loss of a linear map plus a penalty: what a generalised linear model minimises.

F(coef, intercept) = 1/S * sum_i weight_i * loss(y_i, x_i @ coef + intercept) + penalty(coef),   S = sum_i weight_i

It is scikit-learn's objective exactly. Only this file knows shapes, the intercept, the averaging and the solver's
coordinates: columns are shifted by ``center`` and divided by ``1 / scale`` (the pilot's mean and deviation), so that
float32 and features over decades do not change an answer. With ``u = coef / scale`` and ``b = intercept + center @
coef`` a margin is ``(x - center) @ (scale * u) + b``.
"""

import copy
from typing import NamedTuple

import numpy as np
from scipy import sparse

from daskdml.kernels.csr import CSRPass
from daskdml.kernels.dense import DensePass
from daskdml.kernels.dense_multi import DenseMultiPass
from daskdml.kernels.device import on_host
from daskdml.kernels.pointwise import apply_loss, array_pass
from daskdml.objectives.panels import (
    dense_rows,
    in_phases,
    margins,
    panels_of,
    product,
    product_transposed,
    slabs,
    squares,
)
from daskdml.utils.portable import portable


@portable
class Partial(NamedTuple):
    """What one block contributes; partials add up, in any grouping that the runtime's fixed tree prescribes."""

    value: float
    gradient: np.ndarray | None = None
    gradient_sum: np.ndarray | float | None = None
    hessian: np.ndarray | None = None

    adds_up = True  # field by field, see `daskdml.comm.values`

    def __add__(self, other):
        return Partial(*(None if a is None else a + b for a, b in zip(self, other)))


class Evaluation(NamedTuple):
    """The objective at one point; arrays are flat, in the solver's coordinates.

    ``gradient`` belongs to the smooth part (loss and L2); ``value`` is the whole objective. ``loss_value`` and
    ``loss_gradient`` are the mean loss alone.
    """

    value: float
    gradient: np.ndarray
    loss_value: float
    loss_gradient: np.ndarray
    hessian: np.ndarray | None = None


class LinearObjective:
    """Penalised mean loss of a linear map.

    Parameters
    ----------
    loss : see `daskdml.losses`
    penalty : see `daskdml.penalties`
    n_features : int
    total_weight : float
        S above: the sum of all weights.
    fit_intercept : bool, default True
    center, deviation : ndarrays of shape (n_features,) or None
        Of the pilot's columns. ``center`` needs an intercept.
    in_kernel : bool, default False
        Subtract the center from each row as it is read, instead of from the sums. Slower; needed when the mean is so
        many deviations away from zero that the sums would cancel.
    class_weight : ndarray of shape (n_classes,) or None
        Multiplies the weight of rows by their class code.
    intercept_scale : float, default 0
        Above 0 the intercept is penalised as the coefficient of a constant feature of this inverse size (liblinear).
    wide : bool, default False
        Do float32 arithmetic in float64.
    """

    def __init__(
        self, loss, penalty, n_features, total_weight, *, fit_intercept=True, center=None, deviation=None,
        in_kernel=False, class_weight=None, intercept_scale=0.0, wide=False,
    ):  # fmt: skip
        self.loss, self.penalty, self.n_features, self.total_weight = loss, penalty, n_features, float(total_weight)
        self.fit_intercept, self.class_weight, self.wide = fit_intercept, class_weight, wide
        self.center = np.zeros(n_features) if center is None or not fit_intercept else center
        deviation = np.ones(n_features) if deviation is None else deviation
        self.column_scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
        self.in_kernel = in_kernel and fit_intercept
        row = np.concatenate([self.column_scale, [intercept_scale]]) if fit_intercept else self.column_scale
        self.scale = np.tile(row, self.n_outputs)

    @property
    def n_outputs(self):
        """Raw values per row."""
        return self.loss.n_outputs

    @property
    def n_params(self):
        """Length of the flat parameter vector: per output the coefficients, then the intercept."""
        return self.n_outputs * (self.n_features + self.fit_intercept)

    def reweighted(self, total_weight):
        """Return the same objective for rows of another total weight."""
        out = copy.copy(self)
        out.total_weight = float(total_weight)
        return out

    def start(self, baseline):
        """Return the parameters of the best constant model."""
        theta = np.zeros((self.n_outputs, self.n_features + self.fit_intercept))
        if self.fit_intercept:
            theta[:, -1] = baseline
        return theta.ravel()

    def flatten(self, coef, intercept):
        """Turn fitted (coef, intercept) of shape (n_outputs, n_features) and (n_outputs,) into flat parameters."""
        theta = np.zeros((self.n_outputs, self.n_features + self.fit_intercept))
        theta[:, : self.n_features] = coef / self.column_scale
        if self.fit_intercept:
            theta[:, -1] = intercept + coef @ self.center
        return theta.ravel()

    def unflatten(self, theta):
        """Turn flat parameters into (coef, intercept) in the user's coordinates."""
        coef, b = self._split(theta)
        return coef, b - coef @ self.center

    def _split(self, theta):
        theta = theta.reshape(self.n_outputs, -1)
        b = theta[:, -1] if self.fit_intercept else np.zeros(self.n_outputs)
        # Kernels take b as a contiguous array, not as a column of theta.
        return theta[:, : self.n_features] * self.column_scale, np.ascontiguousarray(b)

    def at(self, theta, order=1):
        """Return the picklable function of one block that gives its `Partial` at these parameters.

        Parameters
        ----------
        theta : ndarray of shape (n_params,)
        order : {0, 1, 2}
        """
        coef, b = self._split(np.asarray(theta, dtype=np.float64))
        return _BlockPass(self, coef, b, order)

    def along(self, theta, direction):
        """Return the function of one block that gives its Hessian times a direction, as a `Partial`'s gradient."""
        coef, b = self._split(theta)
        direction, direction_b = self._split(direction)
        return _BlockPass(self, coef, b, 2, direction, direction_b)

    def diagonal_at(self, theta):
        """Return the function of one block that gives the diagonal of its Hessian, as a `Partial`'s gradient."""
        coef, b = self._split(theta)
        return _BlockPass(self, coef, b, 2, diagonal=True)

    def finish(self, theta, total):
        """Average the summed partials, move to the solver's coordinates and add the penalty."""
        loss_value = total.value / self.total_weight
        u = np.asarray(theta)
        value = loss_value + self.penalty.value(u, self.scale)
        if total.gradient is None:
            return Evaluation(value, None, loss_value, None)
        loss_gradient = self.finish_vector(total)
        gradient = loss_gradient + self.penalty.gradient(u, self.scale)
        hessian = None if total.hessian is None else self._finish_hessian(total.hessian)
        return Evaluation(value, gradient, loss_value, loss_gradient, hessian)

    def finish_vector(self, total):
        """Average a summed gradient (or Hessian product) and move it to the solver's coordinates."""
        gradient = np.reshape(total.gradient, (self.n_features, -1)).T
        gradient_sum = np.reshape(total.gradient_sum, (-1, 1))
        if not self.in_kernel:
            gradient = gradient - gradient_sum * self.center
        gradient = gradient * self.column_scale
        full = np.concatenate([gradient, gradient_sum], axis=1) if self.fit_intercept else gradient
        if self.loss.shift_invariant:
            # Rounding leaves a gradient along directions the loss cannot see, where a weak penalty curves too little to
            # hold parameters back: float32 coefficients would be off by 1e-5.
            full = full - full.mean(axis=0)
        return full.ravel() / self.total_weight

    def finish_diagonal(self, total):
        """Average a summed Hessian diagonal, move it to the solver's coordinates and add the penalty's."""
        diagonal = np.reshape(total.gradient, (self.n_features, -1)).T * self.column_scale**2
        total_sum = np.reshape(total.gradient_sum, (-1, 1))
        full = np.concatenate([diagonal, total_sum], axis=1) if self.fit_intercept else diagonal
        return full.ravel() / self.total_weight + self.penalty.curvature(self.scale)

    def _finish_hessian(self, hessian):
        # Blocks are centred and scaled as they are summed; only the averaging and the penalty are left.
        hessian = hessian / self.total_weight
        hessian[np.diag_indices_from(hessian)] += self.penalty.curvature(self.scale)
        if self.loss.shift_invariant:
            self._fix_gauge(hessian)
        return hessian

    def _fix_gauge(self, hessian):
        """Give curvature to what the loss cannot see: the same number added to all classes.

        Gradients are orthogonal to these directions (up to the penalty, which has curvature of its own), so a Newton
        step is not changed by it and a singular matrix becomes regular.
        """
        k, width = self.n_outputs, self.n_features + self.fit_intercept
        # An L1 term does see these directions: more curvature than there is would only slow the steps along them.
        free = np.flatnonzero((self.scale[:width] == 0) | self.penalty.is_zero)
        four = hessian.reshape(k, width, k, width)
        for j in free:
            four[:, j, :, j] += np.mean(four[range(k), j, range(k), j]) / k

    def gap(self, theta, evaluation):
        """Return a bound on ``value - minimum`` by Fenchel duality, valid for any convex loss.

        With theta' the loss's dual point r = loss'(raw) shrunk by c in [0, 1]:
        minimum >= c * (mean loss - gradient @ theta) - conjugate(-c * gradient), since the loss's conjugate is convex
        and vanishes (is minus the lowest loss) at 0. The dual also asks that unpenalised gradients vanish; what is left
        of them is charged as if the intercepts might move by ten times their size.

        References
        ----------
        Mairal, "Sparse coding for machine learning, image processing and computer vision", 2010, appendix D.
        """
        g = evaluation.loss_gradient
        conjugate, c = self.penalty.conjugate(g, self.scale)
        free = self.scale == 0
        slack = np.abs(g[free]) @ (10 * (1 + np.abs(theta[free])))
        dual = c * (evaluation.loss_value - g @ theta) + (1 - c) * self.loss.infimum - conjugate - c * slack
        return max(evaluation.value - dual, 0.0)


class _BlockPass:
    """One block's contribution at fixed parameters, also in phases; made on the driver, called per block."""

    def __init__(self, objective, coef, b, order, direction=None, direction_b=None, diagonal=False):
        self.objective, self.coef, self.order, self.diagonal = objective, coef, order, diagonal
        o = objective
        shift = o.center if o.in_kernel else None
        self.b = b if o.in_kernel else b - coef @ o.center
        self.along = direction is not None
        self.weights = coef.T
        if self.along:
            self.direction = direction
            self.direction_b = direction_b if o.in_kernel else direction_b - direction @ o.center
            self.weights = np.hstack([coef.T, direction.T])
        if o.n_outputs == 1:
            self.dense = DensePass(coef[0], self.b[0], o.loss, order=order, shift=shift, wide=o.wide)
        else:
            self.dense = DenseMultiPass(coef.T, self.b, o.loss, order=order, shift=shift, wide=o.wide)

    def __call__(self, block):
        X, y, weight = block.X, block.y, self._row_weights(block.y, block.weight)
        if self.along and sparse.issparse(X) and self.objective.n_outputs == 1:
            return self._csr_product(X, y, weight)
        if self.along or self.diagonal:
            return in_phases(self, block)
        value, gradient, gradient_sum, h = self._first_order(X, y, weight)
        if self.order == 0:
            return Partial(value)
        hessian = None if self.order < 2 else self._hessian(X, h, weight)
        return Partial(value, gradient, gradient_sum, hessian)

    def _row_weights(self, y, weight):
        by_class = self.objective.class_weight
        if by_class is None:
            return weight
        by_class = by_class[y.astype(np.intp)]
        return by_class if weight is None else weight * by_class

    def _first_order(self, X, y, weight):
        o = self.objective
        if isinstance(X, np.ndarray):
            return self.dense(X, y, weight)
        if sparse.issparse(X) and o.n_outputs == 1:
            return CSRPass(self.coef[0], self.b[0], o.loss, order=self.order)(X, y, weight)
        if sparse.issparse(X) or isinstance(X, tuple):
            value, g, h = self._loss(margins(self, X), y, weight)
            gradient = np.concatenate([self.backward(panel, s, g) for panel, s in panels_of(X)])
            return value, gradient, g.sum(axis=0), h
        # What is neither a host array nor sparse lives on a GPU.
        shift = o.center if o.in_kernel else None
        w, b = (self.dense.w, self.dense.b) if o.n_outputs == 1 else (self.dense.W, self.dense.b)
        return array_pass(X, y, weight, w, b, o.loss, self.order, shift)

    # In phases; see `daskdml.objectives.panels` ----------------------------------------------------------------------

    @property
    def phases(self):
        if self.order == 0:
            return ("forward",)
        # A Hessian needs the products of all pairs of columns.
        return ("forward", "backward") if self.order == 1 or self.along or self.diagonal else ()

    def forward(self, X, columns):
        """Return the margins of some columns, without b; those along the direction beside them."""
        return product(X, self.weights[columns], shift=self._shift(columns), wide=self.objective.wide)

    def pointwise(self, raw, y, weight):
        """Return (`Partial` without gradient, what goes back to the columns)."""
        k = self.objective.n_outputs
        weight = self._row_weights(y, weight)
        value, g, h = self._loss(raw[:, :k], y, weight)
        if self.order == 0:
            return Partial(value), None
        if self.along:
            g = self._curve(h, raw[:, k:] + self.direction_b, weight)
        elif self.diagonal:
            g = self._curvature(h, weight)
        return Partial(value, None, g.sum(axis=0)), g

    def backward(self, X, columns, g):
        """Return ``X^T g`` of some columns, or for the diagonal ``(X * X)^T g``."""
        if self.diagonal:
            return squares(X, g, self.objective.center[columns])
        return product_transposed(X, g, shift=self._shift(columns), wide=self.objective.wide)

    def join(self, partial, pieces):
        """Return the `Partial` with its gradient."""
        return partial._replace(gradient=np.concatenate(pieces)) if pieces else partial

    def _shift(self, columns):
        return self.objective.center[columns] if self.objective.in_kernel else None

    def _loss(self, raw, y, weight):
        """Return (value, gradient, hessian) of the loss at margins that still lack b; arrays of shape (n, k)."""
        o = self.objective
        raw = raw + self.b
        raw = np.ascontiguousarray(raw[:, 0] if o.n_outputs == 1 else raw)
        value, g, h = apply_loss(raw, y, weight, o.loss, self.order)
        return value, g.reshape(len(g), -1), h.reshape(len(h), -1)

    def _curve(self, h, along, weight):
        """Return the loss's Hessian times margins along a direction."""
        g = h * along
        if self.objective.n_outputs > 1:
            g -= _shares(h, weight) * g.sum(axis=1, keepdims=True)
        return g

    def _curvature(self, h, weight):
        """Return the diagonal of the loss's Hessian: weight * p * (1 - p) where the loss gives weight * p."""
        return h if self.objective.n_outputs == 1 else h * (1 - _shares(h, weight))

    def _csr_product(self, X, y, weight):
        """Hessian times the direction in one walk over the stored values."""
        walk = CSRPass(
            self.coef[0], self.b[0], self.objective.loss, order=2, direction=self.direction[0],
            direction_b=self.direction_b[0],
        )  # fmt: skip
        value, gradient, gradient_sum, _ = walk(X, y, weight)
        return Partial(value, gradient, gradient_sum)

    def _hessian(self, X, h, weight):
        o = self.objective
        width = o.n_features + o.fit_intercept
        total, h = np.zeros((o.n_outputs * width, o.n_outputs * width)), on_host(h)  # as rows are brought here
        for s in slabs(h):
            rows = _scaled_rows(X, s, o.center, o.column_scale, o.fit_intercept, wide=o.wide)
            if o.n_outputs == 1:
                weighted = rows * np.sqrt(h[s]).astype(rows.dtype).reshape(-1, 1)
                total += weighted.T @ weighted
            else:
                _add_multinomial(total, rows, h[s], None if weight is None else weight[s])
        return total


def _shares(weighted_p, weight):
    """Return p of weight * p."""
    return weighted_p if weight is None else weighted_p / np.where(weight > 0, weight, 1.0)[:, None]


def _add_multinomial(total, rows, weighted_p, weight):
    """Add ``sum_i weight_i (diag(p_i) - p_i p_i^T) kron x_i x_i^T`` of one slab, class by class."""
    width, k = rows.shape[1], weighted_p.shape[1]
    p = _shares(weighted_p, weight)
    four = total.reshape(k, width, k, width)
    for a in range(k):
        for c in range(a, k):
            curvature = weighted_p[:, a] * ((a == c) - p[:, c])
            block = rows.T @ (rows * curvature.astype(rows.dtype)[:, None])
            four[a, :, c, :] += block
            if a != c:
                four[c, :, a, :] += block.T


def _scaled_rows(X, s, center, scale, with_ones, *, wide):
    """Return rows of a block as a dense, centred and scaled matrix, a column of ones last if there is an intercept."""
    if isinstance(X, tuple):
        X = np.concatenate([dense_rows(panel[s]) for panel in X], axis=1)
    else:
        X = dense_rows(X[s])
    dtype = np.float64 if wide else X.dtype
    rows = np.empty((X.shape[0], X.shape[1] + with_ones), dtype=dtype)
    np.subtract(X, center.astype(dtype), out=rows[:, : X.shape[1]], dtype=dtype)
    rows[:, : X.shape[1]] *= scale.astype(dtype)
    if with_ones:
        rows[:, -1] = 1
    return rows
