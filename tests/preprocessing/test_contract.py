"""The transformers keep their contract."""

import numpy as np
from sklearn import preprocessing as reference

from daskdml.preprocessing import OneHotEncoder, StandardScaler, TableEncoder
from daskdml.testing import TransformerContract


class TestStandardScaler(TransformerContract):
    twin = reference.StandardScaler
    configurations = ({}, {"with_mean": False}, {"with_std": False})

    def make(self, **params):
        return StandardScaler(**params)


class TestScalingOnly(TransformerContract):
    """Without centring it takes sparse matrices."""

    twin = reference.StandardScaler
    test_scikit_learns_checks = None  # the same class as above

    def make(self, **params):
        return StandardScaler(with_mean=False, **params)


class TestOneHotEncoder(TransformerContract):
    twin = reference.OneHotEncoder
    takes = "mixed"
    configurations = ({}, {"handle_unknown": "ignore", "sparse_output": False})

    def make(self, **params):
        return OneHotEncoder(**params)


class TestDenseOneHotEncoder(TransformerContract):
    """Rare categories in one column, and a frame for a frame."""

    twin = reference.OneHotEncoder
    takes = "mixed"
    test_scikit_learns_checks = None

    def make(self, **params):
        return OneHotEncoder(sparse_output=False, max_categories=3, **params)


class TestTableEncoder(TransformerContract):
    takes = "mixed"
    configurations = ({}, {"numeric": "passthrough", "impute": "median", "dtype": np.float32})

    def make(self, **params):
        return TableEncoder(**params)


class TestTableEncoderOnNumbers(TransformerContract):
    """A matrix of numbers, dense or sparse, with medians: the fit that takes several passes."""

    test_scikit_learns_checks = None
    test_fit_never_holds_the_table = None  # bins and keys of a median outweigh any table that a test can make

    def make(self, **params):
        return TableEncoder(impute="median", **params)
