"""Loss + linear map + penalty: block partials, their sum, and its meaning."""

from daskdml.objectives.evaluator import Evaluator
from daskdml.objectives.linear import Evaluation, LinearObjective, Partial

__all__ = ["Evaluation", "Evaluator", "LinearObjective", "Partial"]
