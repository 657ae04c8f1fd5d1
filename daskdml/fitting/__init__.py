"""What every estimator's fit shares: the way in (names, shapes, where it runs), its clock and report, and its plan."""

from daskdml.fitting.classes import (
    check_classes,
    class_weights,
    label_rows,
    log_probabilities,
    probabilities,
    with_exact_weights,
)  # fmt: skip
from daskdml.fitting.epochs import Follower, histogram_of, order_of, report_epochs, report_training
from daskdml.fitting.fit import Fit, aligned, fitting, one_dimensional, time_rows
from daskdml.fitting.forest_kinds import ClassesOfTrees, NumbersOfTrees
from daskdml.fitting.forests import GrownTrees
from daskdml.fitting.holding import HoldsTrees
from daskdml.fitting.planning import Expected, Planned, Planning, planning
from daskdml.fitting.scores import ScoredByAccuracy, ScoredByR2

__all__ = [
    "ClassesOfTrees", "Expected", "Fit", "Follower", "GrownTrees", "HoldsTrees", "NumbersOfTrees", "Planned",
    "Planning", "ScoredByAccuracy", "ScoredByR2", "aligned", "check_classes", "class_weights", "fitting",
    "histogram_of", "label_rows", "log_probabilities", "one_dimensional", "order_of", "planning", "probabilities",
    "report_epochs", "report_training", "time_rows", "with_exact_weights",
]  # fmt: skip
