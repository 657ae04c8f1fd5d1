"""Transformers of features, at scikit-learn's module path."""

from daskdml.preprocessing._encoder import OneHotEncoder
from daskdml.preprocessing._scaler import StandardScaler
from daskdml.preprocessing._table import TableEncoder

__all__ = ["OneHotEncoder", "StandardScaler", "TableEncoder"]
