"""scikit-learn estimators that train on data bigger than a machine.

Rooms are imported when they are first named (``daskdml.linear_model``), so that ``import daskdml`` costs milliseconds.
"""

import importlib

from daskdml.utils.config import config_context, get_config, set_config

__version__ = "0.1.0"

_ROOMS = (
    "compress",
    "ensemble",
    "impute",
    "linear_model",
    "metrics",
    "model_selection",
    "neural_network",
    "preprocessing",
    "strategies",
    "testing",
    "tree",
    "wrappers",
)

_PROGRAMS = ("DenseTable", "Program", "SparseTable", "TableRule", "run")

__all__ = ["__version__", "config_context", "get_config", "set_config", *_PROGRAMS, *_ROOMS]


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"daskdml.{name}")
    if name in _PROGRAMS:
        return getattr(importlib.import_module("daskdml.runtime.spmd"), name)
    raise AttributeError(f"module 'daskdml' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
