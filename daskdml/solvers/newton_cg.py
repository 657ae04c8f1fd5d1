"""Newton steps by conjugate gradients: for more parameters than a Hessian could be formed for.

Costs one pass per Hessian product. Preconditioned by the Hessian's diagonal.
"""

from typing import NamedTuple

import numpy as np

from daskdml.solvers.minimize import Proposal


class Diagonal(NamedTuple):
    """The Hessian's diagonal at the point, and the violation at the first point (what accuracies are relative to)."""

    diagonal: np.ndarray
    first: float


class NewtonCG:
    """Minimise a smooth objective, with or without an L1 penalty, through Hessian products.

    Without L1 the step solves H d = -g to a relative accuracy that tightens as the gradient shrinks (Eisenstat and
    Walker, "Choosing the forcing terms in an inexact Newton method", SIAM J. Sci. Comput. 17, 1996). With L1 a proximal
    step in the diagonal metric first decides which coordinates are zero and the signs of the others; the Newton
    equations are then solved on that support, and coordinates that would cross zero stop there.

    Parameters
    ----------
    objective : object with ``penalty``, ``scale``, ``gap``
    tol : float
        The relative gap aimed at: conjugate gradients never work for much less.
    max_inner : int, default 250
        Hessian products a step at most.
    preconditioned : bool, default True
        False keeps the steps in the span of the gradients: of many minima, the one of least norm is reached from zero.
    """

    needs = ("value_gradient", "many", "hvp", "hessian_diagonal")
    exact = True

    def __init__(self, objective, tol, max_inner=250, preconditioned=True):
        self.objective, self.tol, self.max_inner, self.preconditioned = objective, tol, max_inner, preconditioned

    def evaluate(self, evaluators, theta):
        """Ask for the gradient."""
        return evaluators.value_gradient(theta)

    def prepare(self, state, evaluators):
        """Ask for the Hessian's diagonal at this point."""
        if state.model is not None and state.model.diagonal is not None:
            return state
        first = 0.0 if state.model is None else state.model.first
        if not self.preconditioned:
            return state._replace(model=Diagonal(np.ones(state.theta.size), first))
        diagonal = evaluators.hessian_diagonal(state.theta)
        floor = 1e-12 * max(diagonal.max(initial=0.0), 1e-300)
        return state._replace(model=Diagonal(np.maximum(diagonal, floor), first))

    def propose(self, state, evaluators):
        """Propose an inexact Newton step; half its decrement estimates the gap (with L1 the duality gap bounds it)."""
        theta, evaluation, (diagonal, first) = state
        penalty, scale = self.objective.penalty, self.objective.scale
        l1 = penalty.l1 * scale
        g = evaluation.gradient
        if penalty.smooth:
            kept, signs, base = np.ones(theta.size, dtype=bool), np.zeros(theta.size), theta
            pseudo = g
        else:
            base = penalty.prox(theta - g / diagonal, 1.0 / diagonal, scale)
            signs = np.sign(np.where(base != 0, base, 0))
            kept = (base != 0) | (scale == 0)
            pseudo = np.where(kept, g + l1 * np.sign(np.where(theta != 0, theta, signs)), 0.0)
        size = float(np.sqrt(pseudo[kept] @ (pseudo[kept] / diagonal[kept])))
        first = first or size
        # No tighter than what the wanted gap asks of the gradient's norm (gap = norm^2 / 2 in this metric).
        wanted = np.sqrt(2 * self.tol * abs(evaluation.value)) * 0.3 / max(size, 1e-300)
        accuracy = min(0.5, max(np.sqrt(size / max(first, 1e-300)), wanted, 1e-10))
        inner = self._solve(theta, kept, pseudo, diagonal, accuracy, evaluators)
        if penalty.smooth:
            target, gap = theta + inner, -0.5 * float(g @ inner)
        else:
            target = np.where(kept, theta + inner, 0.0)
            target = np.where((scale > 0) & (np.sign(target) != signs), 0.0, target)
            gap = self.objective.gap(theta, evaluation)
        step = target - theta
        slope = float(g @ step + l1 @ (np.abs(target) - np.abs(theta)))
        if slope >= 0:
            step = base - theta
            slope = float(g @ step + l1 @ (np.abs(base) - np.abs(theta)))
        return Proposal(step, slope, max(gap, 0.0), penalty.violation(theta, g, scale))

    def _solve(self, theta, kept, g, diagonal, accuracy, evaluators):
        """Solve H d = -g on the kept coordinates by preconditioned conjugate gradients."""
        d = np.zeros_like(g)
        residual = np.where(kept, -g, 0.0)
        z = residual / diagonal
        p = z.copy()
        rz = first = residual @ z
        for _ in range(self.max_inner):
            if rz <= accuracy**2 * first or rz <= 0:
                break
            product = np.where(kept, evaluators.hvp(theta, p), 0.0)
            curvature = p @ product
            if curvature <= 0:
                break
            alpha = rz / curvature
            d += alpha * p
            residual -= alpha * product
            z = residual / diagonal
            rz, old = residual @ z, rz
            p = z + (rz / old) * p
        return d

    def learn(self, state, step, evaluation):
        """Drop the diagonal: it belongs to the old point; keep what accuracies are relative to."""
        theta, evaluation, (diagonal, first) = state
        if first == 0.0:
            g = evaluation.gradient
            first = float(np.sqrt(g @ (g / diagonal)))
        return Diagonal(None, first)
