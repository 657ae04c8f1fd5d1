"""What workers run to grow trees. Imports neither scikit-learn nor pandas, which would take 130 MB of each worker."""

from daskdml.programs.boosting import BoostingProgram
from daskdml.programs.forests import ForestProgram, single_rows
from daskdml.programs.row_facts import FactsOfRows, RowFacts
from daskdml.programs.timing import GrowForest, GrowTrees

__all__ = [
    "BoostingProgram", "FactsOfRows", "ForestProgram", "GrowForest", "GrowTrees", "RowFacts", "single_rows",
]  # fmt: skip
