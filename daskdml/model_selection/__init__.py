"""Splitting rows: the same rows for any chunking, and no row leaves its chunk. Searches, on data in memory."""

from daskdml.model_selection._search import GridSearchCV, cross_val_score
from daskdml.model_selection._split import train_test_split

__all__ = ["GridSearchCV", "cross_val_score", "train_test_split"]
