"""Small problems for solvers: quadratics with a known minimum, and linear models on one block of rows."""

from types import SimpleNamespace

import numpy as np

from daskdml.data import Block
from daskdml.objectives import Evaluation, Evaluator, LinearObjective
from daskdml.penalties import ElasticNet


class Quadratic:
    """Objective and evaluators of ``1/2 u^T H u - c^T u + constant + penalty(u)``, counting what it is asked.

    Parameters
    ----------
    hessian : ndarray of shape (p, p)
        Symmetric, positive semi-definite.
    linear : ndarray of shape (p,)
    penalty : see `daskdml.penalties`, optional

    Attributes
    ----------
    asked : list of str
        Names of the methods called so far.
    scale : ndarray of ones, shape (p,)
    """

    def __init__(self, hessian, linear, penalty=None):
        self.matrix, self.linear, self.penalty = hessian, linear, penalty or ElasticNet()
        self.scale = np.ones(linear.size)
        self.best = np.linalg.lstsq(hessian, linear, rcond=None)[0]
        # So that the minimum is 1: gaps are relative to the value.
        self.constant = 1.0 + 0.5 * self.linear @ self.best
        self.asked = []

    def value_gradient(self, u):
        """Return the Evaluation at u."""
        self.asked.append("value_gradient")
        return self._at(u)

    def hessian(self, u):
        """Return the Evaluation at u with its Hessian."""
        self.asked.append("hessian")
        return self._at(u)._replace(hessian=self.matrix + np.diag(self.penalty.curvature(self.scale)))

    def many(self, points):
        """Return the values at several points."""
        self.asked.append("many")
        return [self._at(u).value for u in points]

    def hvp(self, u, direction):
        """Return the Hessian times a direction."""
        self.asked.append("hvp")
        return self.matrix @ direction + self.penalty.curvature(self.scale) * direction

    def hessian_diagonal(self, u):
        """Return the diagonal of the Hessian."""
        self.asked.append("hessian_diagonal")
        return np.diag(self.matrix) + self.penalty.curvature(self.scale)

    def gap(self, u, evaluation):
        """Return the distance of the value from the lowest one known: exact without a penalty."""
        return max(evaluation.value - 1.0, 0.0)

    def _at(self, u):
        g = self.matrix @ u - self.linear
        loss = 0.5 * u @ (g - self.linear) + self.constant
        value = loss + self.penalty.value(u, self.scale)
        return Evaluation(value, g + self.penalty.gradient(u, self.scale), loss, g)


class OneBlock:
    """A run of one block in memory: what `daskdml.objectives.Evaluator` needs of a runtime."""

    def __init__(self, X, y, weight=None):
        self.block, self.passes = Block(X, y, weight, 0, 0), 0

    def map_reduce(self, fn):
        """Return ``fn(block)`` and count the pass."""
        self.passes += 1
        return fn(self.block)


def linear_problem(X, y, loss, penalty, *, weight=None, **options):
    """Return objective, evaluators, run and starting point of a linear model on rows in memory.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, p)
    y : ndarray of shape (n,)
    loss : see `daskdml.losses`
    penalty : see `daskdml.penalties`
    weight : ndarray of shape (n,), optional
    **options
        Of `LinearObjective`.

    Returns
    -------
    SimpleNamespace of objective, evaluators, run, start
    """
    total = len(y) if weight is None else weight.sum()
    objective = LinearObjective(loss, penalty, X.shape[1], total, **options)
    run = OneBlock(X, y, weight)
    evaluators = Evaluator(objective, run)
    return SimpleNamespace(
        objective=objective, evaluators=evaluators, run=run, start=np.zeros(objective.n_params)
    )
