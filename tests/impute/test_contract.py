"""SimpleImputer keeps the contract of transformers, with each of its strategies."""

import sklearn.impute

from daskdml.impute import SimpleImputer
from daskdml.testing import TransformerContract


class TestMean(TransformerContract):
    twin = sklearn.impute.SimpleImputer
    configurations = (
        *({"strategy": strategy} for strategy in ("mean", "median", "most_frequent", "constant")),
        {"add_indicator": True, "keep_empty_features": True},
    )

    def make(self, **params):
        return SimpleImputer(**params)


class TestMedian(TransformerContract):
    twin = sklearn.impute.SimpleImputer
    test_scikit_learns_checks = None  # the same class as above
    test_fit_never_holds_the_table = None  # bins and keys of a median outweigh any table that a test can make

    def make(self, **params):
        return SimpleImputer(strategy="median", add_indicator=True, **params)


class TestMostFrequent(TransformerContract):
    twin = sklearn.impute.SimpleImputer
    takes = "mixed"
    test_scikit_learns_checks = None

    def make(self, **params):
        return SimpleImputer(strategy="most_frequent", **params)


class TestConstant(TransformerContract):
    twin = sklearn.impute.SimpleImputer
    test_scikit_learns_checks = None

    def make(self, **params):
        return SimpleImputer(strategy="constant", fill_value=7.0, **params)
