"""Solve least squares from its Gram matrix; or, without one, by conjugate gradients on products with it."""

from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize
from scipy.linalg import lapack


class GramSolver:
    """Solve ``(G + alpha I) W = B`` for a positive semi-definite G: exactly, or by minimum norm where singular.

    Columns are first scaled to a unit diagonal: features over decades are no condition number.

    Parameters
    ----------
    gram : ndarray of shape (p, p)
    alpha : float, >= 0
    cut : float, default 0.0
        Leave out directions whose singular value, in the columns as they are, is at most this share of the largest:
        LAPACK's ``cond``. What a Gram matrix cannot tell from rounding is left out anyway.

    Attributes
    ----------
    condition : float
        Condition number of the *design*, the square root of the scaled matrix's.
    rank : int
    singular : ndarray of shape (p,) or None
        Singular values of the design, largest first; with ``cut`` only.
    """

    def __init__(self, gram, alpha, cut=0.0):
        p = len(gram)
        self.singular = np.sqrt(np.maximum(linalg.eigvalsh(gram, check_finite=False)[::-1], 0.0)) if cut else None
        if cut and p and self.singular[-1] <= cut * self.singular[0] and cut**2 > p * np.finfo(float).eps:
            self._cut_off(gram, cut)
            return
        matrix = gram + alpha * np.eye(p)
        diagonal = np.diag(matrix)
        self._scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = matrix * np.outer(self._scale, self._scale)
        self._null = np.zeros((p, 0))
        self.rank = p
        norm = np.abs(scaled).sum(axis=0).max(initial=0.0)
        factor, info = lapack.dpotrf(scaled, lower=1)
        rcond = lapack.dpocon(factor, norm, uplo="L")[0] if info == 0 and p else float(p == 0)
        self.condition = 1.0 / np.sqrt(max(rcond, 1e-300))
        if rcond > p * np.finfo(float).eps:
            self._solve = lambda b: linalg.cho_solve((factor, True), b, check_finite=False)
            return
        values, vectors = linalg.eigh(scaled, check_finite=False)
        # Below this an eigenvalue is rounding: a Gram matrix knows the design to half the digits.
        kept = values > p * np.finfo(float).eps * max(values[-1], 1e-300)
        self.rank = int(kept.sum())
        root = vectors[:, kept] / np.sqrt(values[kept])
        self._solve = lambda b: root @ (root.T @ b)
        if alpha == 0 and self.rank < p:
            self._null = linalg.qr(vectors[:, ~kept] * self._scale[:, None], mode="economic")[0]

    def _cut_off(self, gram, cut):
        values, vectors = linalg.eigh(gram, check_finite=False)
        kept = values > cut**2 * values[-1]
        self.rank = int(kept.sum())
        self.condition = np.sqrt(values[-1] / values[kept][0]) if self.rank else 1.0
        root = vectors[:, kept] / np.sqrt(values[kept])
        self._scale, self._null = np.ones(len(gram)), np.zeros((len(gram), 0))
        self._solve = lambda b: root @ (root.T @ b)

    def solve(self, b):
        """Return W for one or several right-hand sides, shape (p,) or (p, t)."""
        scale = self._scale if b.ndim == 1 else self._scale[:, None]
        w = scale * self._solve(scale * b)
        # The pseudo-inverse is minimal in scaled columns; in the user's the part along the null space must go.
        return w - self._null @ (self._null.T @ w)


def solve_nonnegative(gram, b, alpha):
    """Return argmin over w >= 0 of ``w^T (G + alpha I) w / 2 - b @ w``.

    By exchange of whole sets of variables, a few dozen factorisations; where the matrix is singular, or the exchange
    goes round in circles, by Lawson and Hanson's method, which moves one variable at a time.
    """
    p = len(gram)
    matrix = gram + alpha * np.eye(p)
    scale = 1.0 / np.sqrt(np.where(np.diag(matrix) > 0, np.diag(matrix), 1.0))
    matrix, b = matrix * np.outer(scale, scale), scale * b
    found = _exchange(matrix, b)
    if found is not None:
        return scale * found
    values, vectors = linalg.eigh(matrix, check_finite=False)
    kept = values > 16 * p * np.finfo(float).eps * max(values[-1], 1e-300)
    root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    target = (vectors[:, kept].T @ b) / np.sqrt(values[kept])
    return scale * optimize.nnls(root, target, maxiter=max(30 * p, 100))[0]


def _exchange(matrix, b):
    """Solve for w >= 0 by block principal pivoting; None where the matrix is singular or no end comes.

    J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like method", SIAM J. Sci. Comput. 33
    (2011). It begins from the set that a quasi-Newton method leaves positive, which is nearly the right one.
    """
    p = len(b)
    rough = optimize.minimize(
        lambda w: (0.5 * w @ (matrix @ w) - b @ w, matrix @ w - b),
        np.zeros(p), jac=True, method="L-BFGS-B", bounds=[(0, None)] * p, options={"maxiter": 200},
    ).x  # fmt: skip
    free, fewest, patience = rough > 0, p + 1, 3
    for _ in range(100):
        w = np.zeros(p)
        if free.any():
            factor, info = lapack.dpotrf(matrix[np.ix_(free, free)], lower=1)
            # A pivot near zero is a nearly singular matrix.
            if info or np.diag(factor).min() <= 1e-7:
                return None
            w[free] = linalg.cho_solve((factor, True), b[free], check_finite=False)
        slope = matrix @ w - b
        slope[free] = 0.0
        rounding = 1e-12 * np.abs(b).max(initial=0.0)
        wrong = np.flatnonzero(np.where(free, w < 0, slope < -rounding))
        if not len(wrong):
            return w
        if len(wrong) < fewest:
            fewest, patience = len(wrong), 3
        elif patience:
            patience -= 1
        else:
            wrong = wrong[-1:]
        free[wrong] = ~free[wrong]
    return None


class Conjugate(NamedTuple):
    """What `solve_products` found."""

    W: np.ndarray
    n_iter: int
    error: float


def solve_products(product, b, *, tol, max_iter, on_step=None):
    """Solve ``A W = B`` column by column by conjugate gradients, all columns sharing each product.

    From zero iterates stay in the span of A's powers: a singular system gives the minimum norm.

    Parameters
    ----------
    product : callable
        ``A V`` for V of shape (p, t): one pass over X.
    b : ndarray of shape (p, t)
    tol : float
        Stop when the estimated error of each column of W is at most this share of its norm.
    max_iter : int
    on_step : callable or None
        Called with (n_iter, W, residual).

    Returns
    -------
    Conjugate

    Notes
    -----
    The residual alone says little of W: the error is at most residual / the smallest eigenvalue that matters, which is
    taken from the tridiagonal matrix of the Lanczos process that conjugate gradients carry out (Y. Saad, Iterative
    Methods for Sparse Linear Systems, 2003, section 6.7).
    """
    W, residual = np.zeros_like(b), b.copy()
    direction = residual
    square = size = (residual * residual).sum(axis=0)
    steps, shares = [], []
    n_iter = 0
    while True:
        if on_step is not None:
            on_step(n_iter, W, residual)
        error = _error(W, np.sqrt(square), np.sqrt(size), steps, shares)
        if error <= tol or n_iter >= max_iter:
            return Conjugate(W, n_iter, error)
        image = product(direction)
        curvature = (direction * image).sum(axis=0)
        step = np.where(curvature > 0, square / np.where(curvature > 0, curvature, 1.0), 0.0)
        if not step.any():
            return Conjugate(W, n_iter, error)
        W = W + step * direction
        residual = residual - step * image
        new = (residual * residual).sum(axis=0)
        share = np.where(square > 0, new / np.where(square > 0, square, 1.0), 0.0)
        direction = residual + share * direction
        steps.append(step)
        shares.append(share)
        square, n_iter = new, n_iter + 1


def _error(W, residual, size, steps, shares):
    """Estimate the largest relative error of a column of W, from the norms of its residual and of B."""
    worst = 0.0
    for k in range(W.shape[1]):
        # Below this nothing is left but rounding.
        if residual[k] <= 1e-14 * size[k]:
            continue
        # Estimates cost time of their own: none before the residual has fallen.
        if not steps or residual[k] > 0.1 * size[k]:
            return np.inf
        step, share = (np.array([values[k] for values in part if values[k] > 0]) for part in (steps, shares))
        diagonal = 1.0 / step
        diagonal[1:] += share[: len(step) - 1] / step[:-1]
        values = linalg.eigvalsh_tridiagonal(diagonal, np.sqrt(share[: len(step) - 1]) / step[:-1])
        # Rounding brings back directions in which A is singular: they are none that the answer has a part in.
        smallest = values[values > 1e-14 * values[-1]][0]
        worst = max(worst, residual[k] / smallest / max(np.linalg.norm(W[:, k]), 1e-300))
    return worst
