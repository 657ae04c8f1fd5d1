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
    """Return argmin over w >= 0 of ``w^T (G + alpha I) w / 2 - b @ w`` (Lawson and Hanson)."""
    p = len(gram)
    matrix = gram + alpha * np.eye(p)
    scale = 1.0 / np.sqrt(np.where(np.diag(matrix) > 0, np.diag(matrix), 1.0))
    values, vectors = linalg.eigh(matrix * np.outer(scale, scale), check_finite=False)
    kept = values > 16 * p * np.finfo(float).eps * max(values[-1], 1e-300)
    root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    target = (vectors[:, kept].T @ (scale * b)) / np.sqrt(values[kept])
    return scale * optimize.nnls(root, target, maxiter=max(30 * p, 100))[0]


class Conjugate(NamedTuple):
    """What `solve_products` found."""

    W: np.ndarray
    n_iter: int
    residual: float


def solve_products(product, b, *, diagonal=None, start=None, tol, max_iter, on_step=None):
    """Solve ``A W = B`` column by column by conjugate gradients, all columns sharing each product.

    Parameters
    ----------
    product : callable
        ``A V`` for V of shape (p, t): one pass over X.
    b : ndarray of shape (p, t)
    diagonal : ndarray of shape (p, t) or None
        Preconditioner. None keeps iterates in the span of A's powers: from zero, a singular system gives the minimum
        norm.
    start : ndarray of shape (p, t) or None
    tol : float
        Residual norm relative to B's.
    max_iter : int
    on_step : callable or None
        Called with (n_iter, W, relative residual).

    Returns
    -------
    Conjugate
    """
    d = np.ones_like(b) if diagonal is None else diagonal
    W = np.zeros_like(b) if start is None else start.copy()
    residual = b - product(W) if start is not None else b.copy()
    z = residual / d
    p = z.copy()
    rz = (residual * z).sum(axis=0)
    size = np.sqrt((b * b / d).sum(axis=0))
    size = np.where(size > 0, size, 1.0)
    n_iter = 0
    while True:
        relative = float(np.max(np.sqrt(np.maximum(rz, 0)) / size, initial=0.0))
        if on_step is not None:
            on_step(n_iter, W, relative)
        if relative <= tol or n_iter >= max_iter:
            return Conjugate(W, n_iter, relative)
        q = product(p)
        curvature = (p * q).sum(axis=0)
        alpha = np.where(curvature > 0, rz / np.where(curvature > 0, curvature, 1.0), 0.0)
        if not alpha.any():
            return Conjugate(W, n_iter, relative)
        W = W + alpha * p
        residual = residual - alpha * q
        z = residual / d
        new = (residual * z).sum(axis=0)
        p = z + np.where(rz > 0, new / np.where(rz > 0, rz, 1.0), 0.0) * p
        rz, n_iter = new, n_iter + 1
