"""Trees grown from histograms of binned rows: bins, growth on all ranks' rows, prediction."""

from daskdml.trees.binning import BinRows, Bins
from daskdml.trees.boosting import Boosting, BoostingState
from daskdml.trees.forest import Forest, ForestState, MeanOfTrees, Recipe, WholeRows
from daskdml.trees.given_rows import GivenRows
from daskdml.trees.growth import Settings
from daskdml.trees.predictor import Ensemble
from daskdml.trees.shards import bytes_per_row, histogram_bytes
from daskdml.trees.tree import Tree

__all__ = [
    "BinRows", "Bins", "Boosting", "BoostingState", "Ensemble", "Forest", "ForestState", "GivenRows", "MeanOfTrees",
    "Recipe", "Settings", "Tree", "WholeRows", "bytes_per_row", "histogram_bytes",
]  # fmt: skip
