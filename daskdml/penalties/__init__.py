"""Penalties on the coefficients, in the solver's scaled coordinates.

The solver works in ``u`` with ``coef = scale * u`` (columns are divided by their deviation). So every method takes
``scale``, one number a coordinate, 0 for what is not penalised (the intercept). A penalty has ``value``, ``gradient``
and ``curvature`` of its smooth part, ``prox`` of the rest, ``violation`` (distance of minus the gradient to the
subdifferential: the stopping rule), ``conjugate`` (for the duality gap) and ``smooth``.
"""

from daskdml.penalties._elastic_net import ElasticNet

__all__ = ["ElasticNet"]
