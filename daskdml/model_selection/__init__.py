"""Splitting rows: the same rows for any chunking, and no row leaves its chunk."""

from daskdml.model_selection._split import train_test_split

__all__ = ["train_test_split"]
