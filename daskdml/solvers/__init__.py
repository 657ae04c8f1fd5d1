"""Minimise through evaluators only: no X, no Dask, no knowledge of where rows live."""

from daskdml.solvers.apart import minimize_apart
from daskdml.solvers.minimize import Proposal, Result, State, minimize
from daskdml.solvers.newton import Newton
from daskdml.solvers.newton_cg import NewtonCG
from daskdml.solvers.prox_newton import ProxNewton

__all__ = ["Newton", "NewtonCG", "Proposal", "ProxNewton", "Result", "State", "minimize", "minimize_apart"]
