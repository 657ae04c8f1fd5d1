"""What a solver may ask: the objective at a point, summed over all blocks by whoever holds them."""

from typing import NamedTuple

import numpy as np

from daskdml.utils.portable import portable


class Evaluator:
    """Evaluate an objective over a run's blocks.

    Parameters
    ----------
    objective : see `daskdml.objectives.LinearObjective`
    run : object with ``map_reduce(fn)``
        Folds ``fn(block)`` over the blocks in a fixed order.
    """

    def __init__(self, objective, run):
        self.objective, self.run = objective, run

    def value_gradient(self, theta):
        """Return the `Evaluation` at theta: one pass over X."""
        return self.objective.finish(theta, self.run.map_reduce(self.objective.at(theta, 1)))

    def hessian(self, theta):
        """Return the `Evaluation` at theta with the p x p Hessian: one pass over X, n * p^2 multiplications."""
        return self.objective.finish(theta, self.run.map_reduce(self.objective.at(theta, 2)))

    def many(self, thetas):
        """Return the values at several points from one pass over X."""
        total = self.run.map_reduce(_Several([self.objective.at(theta, 0) for theta in thetas]))
        return [self.objective.finish(theta, part).value for theta, part in zip(thetas, total.parts)]

    def hvp(self, theta, direction):
        """Return the Hessian at theta times a direction: one pass over X."""
        o = self.objective
        product = o.finish_vector(self.run.map_reduce(o.along(theta, direction)))
        return product + o.penalty.curvature(o.scale) * direction

    def hessian_diagonal(self, theta):
        """Return the diagonal of the Hessian at theta: one pass over X."""
        return self.objective.finish_diagonal(self.run.map_reduce(self.objective.diagonal_at(theta)))


class OwnShare:
    """What `daskdml.solvers.minimize_apart` may ask of one rank: its rows' part of an objective, and what all add up.

    Parameters
    ----------
    objective : see `daskdml.objectives.LinearObjective`
    ledger : daskdml.runtime.spmd.apart.Ledger
    weight : float
        Of this rank's rows, in all.
    """

    def __init__(self, objective, ledger, weight):
        self.objective, self.weight, self._reduce = objective, weight / objective.total_weight, ledger.reduce
        self.begin, self.push, self.read = ledger.begin, ledger.push, ledger.read
        self.leave, self.add_up = ledger.leave, ledger.add_up

    def evaluate(self, theta):
        """Return this rank's share of the mean loss, and of the smooth part's gradient."""
        found = self.objective.finish(theta, self._reduce(self.objective.at(theta, 1)))
        return found.loss_value, found.loss_gradient + self.weight * (found.gradient - found.loss_gradient)


class _Several:
    """Several values of a block as one."""

    phases = ("forward",)

    def __init__(self, parts):
        self.parts = parts

    def __call__(self, block):
        return _Partials(tuple(part(block) for part in self.parts))

    def forward(self, X, columns):
        return np.hstack([part.forward(X, columns) for part in self.parts])

    def pointwise(self, raw, y, weight):
        split = np.split(raw, len(self.parts), axis=1)
        return _Partials(tuple(part.pointwise(own, y, weight)[0] for part, own in zip(self.parts, split))), None

    def join(self, partial, pieces):
        return partial


@portable
class _Partials(NamedTuple):
    """Partials of one block at several points; they add up side by side."""

    parts: tuple

    def __add__(self, other):
        return _Partials(tuple(a + b for a, b in zip(self.parts, other.parts)))
