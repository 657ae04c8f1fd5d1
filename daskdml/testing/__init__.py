"""Contracts: test classes to subclass, one for each kind of thing a room holds.

A loss, penalty, kernel, solver, estimator or transformer of your own is tested by a class with one method, ``make``,
in a file that pytest collects; what it inherits are the promises that the rest of the library relies on. Pytest is
imported with the first contract, so this module costs nothing where it is not installed.

>>> from daskdml.losses import Squared
>>> from daskdml.testing import LossContract
>>> class TestSquared(LossContract):
...     def make(self):
...         return Squared()
>>> TestSquared().test_gradient_is_the_derivative()
"""

import importlib
import sys

_HOMES = {
    "ClassifierContract": "classifiers",
    "CodecContract": "topologies",
    "EstimatorContract": "estimators",
    "KernelContract": "kernels",
    "LossContract": "losses",
    "PenaltyContract": "penalties",
    "RegressorContract": "regressors",
    "SimulatedCluster": "daskdml.runtime.spmd.simulate",
    "SolverContract": "solvers",
    "TopologyContract": "topologies",
    "TransformerContract": "transformers",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'daskdml.testing' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = _HOMES[name]
    module = home if "." in home else f"{__name__}.{home}"
    if module not in sys.modules and module.startswith(__name__):
        import pytest

        # Before the import: only then do failing assertions show their values.
        pytest.register_assert_rewrite(module)
    return getattr(importlib.import_module(module), name)


def __dir__():
    return __all__
