"""Transformers that fill missing values, at scikit-learn's module path."""

from daskdml.impute._simple import SimpleImputer

__all__ = ["SimpleImputer"]
