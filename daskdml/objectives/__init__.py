"""Loss + linear map + penalty: block partials, their sum, and its meaning."""

from daskdml.objectives.evaluator import Evaluator, OwnShare
from daskdml.objectives.linear import Evaluation, LinearObjective, Partial

__all__ = ["Evaluation", "Evaluator", "LinearObjective", "OwnShare", "Partial"]
