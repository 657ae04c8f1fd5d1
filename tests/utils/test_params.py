"""Parameter constraints: what is accepted, and the sentence that refuses the rest."""

import numbers

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.utils import _param_validation as skl

from daskdml.utils.params import Dtype, Interval, InvalidParameterError, Options, check_params


class Toy(BaseEstimator):
    def __init__(self, x=None):
        self.x = x


def accepts(constraint, value):
    try:
        check_params(Toy(value), {"x": [constraint]})
    except InvalidParameterError:
        return False
    return True


@pytest.mark.parametrize(
    "constraint, good, bad",
    [
        (None, [None], [0, False, "None"]),
        ("boolean", [True, False, np.bool_(True)], [0, 1, "True", None]),
        (Interval(numbers.Real, 0, 1), [0, 1, 0.5, np.float32(0.5)], [-0.1, 1.1, np.nan, True, "0.5", None, np.inf]),
        (Interval(numbers.Real, 0, 1, "neither"), [0.5], [0, 1]),
        (Interval(numbers.Real, 0, 1, "left"), [0, 0.5], [1]),
        (Interval(numbers.Real, 0, 1, "right"), [1, 0.5], [0]),
        (Interval(numbers.Real, 0, None, "neither"), [1e-300, np.inf, 10**400], [0, -np.inf]),
        (Interval(numbers.Integral, 1, None), [1, np.int64(5)], [0, 1.0, True]),
        (Options({"a", "b", None}), ["a", None], ["c", 1, ["a"], np.array(["a"])]),
        (Dtype(), [np.float32, "float32", float, np.dtype("i4")], ["foo", 3.5]),
        (Dtype((np.float32, np.float64)), [np.float32, "float64", float], ["foo", int, "i4"]),
        (dict, [{}], [[]]),
        (callable, [len], [3]),
        ("array-like", [[1], (1,), np.ones(2)], [1, "ab", {"a": 1}]),
        ("random_state", [None, 0, np.random.RandomState(0), np.random.default_rng(0)], ["0", 0.5]),
    ],
    ids=str,
)
def test_constraints(constraint, good, bad):
    for value in good:
        assert accepts(constraint, value), value
    for value in bad:
        assert not accepts(constraint, value), value


def test_message_names_the_parameter_the_choices_and_the_value():
    constraints = {"x": [Interval(numbers.Real, 0, None, "neither"), Options({"auto", "none"}), None]}
    message = (
        "The 'x' parameter of Toy must be a float in the range (0.0, inf] or one of 'auto', 'none' or None. "
        "Got -3 instead."
    )
    with pytest.raises(InvalidParameterError) as error:
        check_params(Toy(-3), constraints)
    assert str(error.value) == message
    assert isinstance(error.value, ValueError) and isinstance(error.value, TypeError)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (Interval(numbers.Real, 0, None, "neither"), skl.Interval(numbers.Real, 0, None, closed="right")),
        (Interval(numbers.Real, 0, 1), skl.Interval(numbers.Real, 0, 1, closed="both")),
        (Interval(numbers.Real, 0, 1, "neither"), skl.Interval(numbers.Real, 0, 1, closed="neither")),
        (Interval(numbers.Real, None, 2.5, "left"), skl.Interval(numbers.Real, None, 2.5, closed="neither")),
        (Interval(numbers.Integral, 1, None, "left"), skl.Interval(numbers.Integral, 1, None, closed="left")),
    ],
    ids=str,
)
def test_intervals_are_told_as_scikit_learn_tells_them(ours, theirs):
    assert str(ours) == str(theirs)
    for value in (-1, 0, 1, 2, 3):
        assert ours.accepts(value) == (value in theirs)
    assert ours.accepts(np.inf) == ("inf]" in str(ours))


def test_parameters_without_constraints_pass():
    check_params(Toy(object()), {})
