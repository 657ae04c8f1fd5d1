"""Every solver keeps the contract."""

from daskdml.solvers import Newton, NewtonCG, ProxNewton
from daskdml.testing import SolverContract


class TestNewton(SolverContract):
    def make(self, objective):
        return Newton(exact=True)


class TestNewtonWithSecants(SolverContract):
    """The Hessian is asked for once, at the start, then corrected."""

    def make(self, objective):
        return Newton(exact=False)


class TestProxNewton(SolverContract):
    takes_l1 = gap_is_a_bound = True

    def make(self, objective):
        return ProxNewton(objective, exact=True)


class TestProxNewtonWithSecants(SolverContract):
    takes_l1 = gap_is_a_bound = True

    def make(self, objective):
        return ProxNewton(objective, exact=False)


class TestNewtonCG(SolverContract):
    def make(self, objective):
        return NewtonCG(objective, 1e-18)


class TestNewtonCGWithL1(SolverContract):
    takes_l1 = gap_is_a_bound = True

    def make(self, objective):
        return NewtonCG(objective, 1e-18)
