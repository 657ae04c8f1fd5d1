"""Checks of estimator parameters: constraints are data beside the class, checked once at the door of ``fit``."""

import numbers
from typing import NamedTuple

import numpy as np


class InvalidParameterError(ValueError, TypeError):
    """A parameter has a type or a value that the estimator does not take."""


class Interval(NamedTuple):
    """Numbers between two bounds; ``closed`` says which bounds belong to it."""

    type: type
    low: float | None
    high: float | None
    closed: str = "both"

    def accepts(self, value):
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, self.type):
            return False
        if value != value:
            return False
        if self.low is not None and (value < self.low or (value == self.low and self.closed in ("right", "neither"))):
            return False
        return not (
            self.high is not None
            and (value > self.high or (value == self.high and self.closed in ("left", "neither")))
        )

    def __str__(self):
        kind = "an int" if self.type is numbers.Integral else "a float"
        left = "[" if self.closed in ("both", "left") and self.low is not None else "("
        # Without an upper bound infinity itself is let in, and no int is that.
        unbounded = "]" if self.type is not numbers.Integral else ")"
        right = unbounded if self.high is None else "]" if self.closed in ("both", "right") else ")"
        low, high = self._shown(self.low, "-inf"), self._shown(self.high, "inf")
        return f"{kind} in the range {left}{low}, {high}{right}"

    def _shown(self, bound, infinite):
        if bound is None:
            return infinite
        return bound if self.type is numbers.Integral else float(bound)


class Options(NamedTuple):
    """One of a set of values."""

    values: frozenset | set | tuple

    def accepts(self, value):
        return isinstance(value, (str, int, float, type(None))) and value in self.values

    def __str__(self):
        return "one of " + ", ".join(sorted(map(repr, self.values)))


class Dtype(NamedTuple):
    """What NumPy takes for a dtype; one of some, where they are given."""

    allowed: tuple = ()

    def accepts(self, value):
        try:
            found = np.dtype(value)
        except (TypeError, ValueError):
            return False
        return not self.allowed or found in self.allowed

    def __str__(self):
        return " or ".join(np.dtype(one).name for one in self.allowed) or "a NumPy dtype or the name of one"


def check_params(estimator, constraints):
    """Check every parameter of an estimator against its constraints.

    Parameters
    ----------
    estimator : object with ``get_params``
    constraints : dict of str to list
        For each parameter the alternatives it may satisfy: a type, None, ``"boolean"``, ``"array-like"``,
        ``"random_state"``, ``callable``, an `Interval`, `Options` or `Dtype`.

    Raises
    ------
    InvalidParameterError
        Naming the parameter, what it may be and what it was.
    """
    check_values(type(estimator).__name__, estimator.get_params(deep=False), constraints)


def check_values(owner, values, constraints):
    """Check parameters of something that is no estimator, likewise.

    Parameters
    ----------
    owner : str
        What messages call it.
    values : dict
    constraints : dict of str to list

    Raises
    ------
    InvalidParameterError
    """
    for name, value in values.items():
        allowed = constraints.get(name)
        if allowed is not None and not any(_accepts(one, value) for one in allowed):
            choices = " or ".join(_describe(one) for one in allowed)
            raise InvalidParameterError(f"The {name!r} parameter of {owner} must be {choices}. Got {value!r} instead.")


def _accepts(constraint, value):
    if constraint is None:
        return value is None
    if constraint == "boolean":
        return isinstance(value, (bool, np.bool_))
    if constraint == "array-like":
        return (hasattr(value, "__len__") or hasattr(value, "__array__")) and not isinstance(value, (str, bytes, dict))
    if constraint == "random_state":
        generators = (np.random.RandomState, np.random.Generator)
        return value is None or isinstance(value, (numbers.Integral, *generators)) or value is np.random
    if constraint is callable:
        return callable(value)
    if isinstance(constraint, type):
        return isinstance(value, constraint)
    return constraint.accepts(value)


def _describe(constraint):
    if constraint is None:
        return "None"
    if constraint == "boolean":
        return "True or False"
    if constraint == "array-like":
        return "array-like"
    if constraint == "random_state":
        return "an int, a NumPy random generator or None"
    if constraint is callable:
        return "callable"
    if isinstance(constraint, type):
        return f"an instance of {constraint.__name__}"
    return str(constraint)
