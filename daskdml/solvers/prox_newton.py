"""Proximal Newton: a quadratic model of the smooth part plus the L1 term, minimised at no pass over X."""

import numpy as np

from daskdml.solvers.minimize import Proposal


class ProxNewton:
    """Minimise a smooth objective plus an L1 penalty.

    The model's matrix is the exact Hessian at a point (a pilot's, or all rows'), afterwards kept up by BFGS updates.
    The certificate is the objective's duality gap, a bound.

    Parameters
    ----------
    objective : object with ``penalty``, ``scale`` and ``gap(theta, evaluation)``
    exact : bool
        Ask for the Hessian at each point instead of updating it.

    References
    ----------
    Lee, Sun, Saunders, "Proximal Newton-type methods for minimizing composite functions", SIAM J. Optim. 24 (2014).
    """

    needs = ("value_gradient", "many", "hessian")

    def __init__(self, objective, exact):
        self.objective, self.exact = objective, exact

    def evaluate(self, evaluators, theta):
        """Ask for the gradient, and for the Hessian if it is to be exact."""
        return evaluators.hessian(theta) if self.exact else evaluators.value_gradient(theta)

    def prepare(self, state, evaluators):
        """Take the Hessian at this point if there is no model."""
        if state.model is not None:
            return state
        evaluation = state.evaluation if state.evaluation.hessian is not None else evaluators.hessian(state.theta)
        return state._replace(evaluation=evaluation, model=evaluation.hessian)

    def propose(self, state, evaluators):
        """Propose the step to the minimum of the quadratic model plus the penalty."""
        theta, evaluation, hessian = state
        penalty, scale = self.objective.penalty, self.objective.scale
        g = evaluation.gradient
        target = self.minimum(hessian, g, theta, theta)
        step = target - theta
        l1 = penalty.l1 * scale
        slope = float(g @ step + l1 @ (np.abs(target) - np.abs(theta)))
        return Proposal(step, slope, self.objective.gap(theta, evaluation), penalty.violation(theta, g, scale))

    def minimum(self, model, gradient, theta, near):
        """Return the minimum of the penalty and the model that has this gradient at theta; searched from ``near``."""
        objective = self.objective
        return objective.penalty.minimize_quadratic(model, model @ theta - gradient, near, objective.scale)

    def product(self, model, direction):
        """Return the model's matrix times a direction."""
        return model @ direction

    def learn(self, state, step, evaluation):
        """Update the matrix by BFGS, or drop it if it is to be exact."""
        if self.exact:
            return None
        change = evaluation.gradient - state.evaluation.gradient
        along = state.model @ step
        curvature, model_curvature = step @ change, step @ along
        if curvature <= 1e-12 * np.linalg.norm(step) * np.linalg.norm(change) or model_curvature <= 0:
            return state.model
        return state.model + np.outer(change, change) / curvature - np.outer(along, along) / model_curvature
