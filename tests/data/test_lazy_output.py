"""Output containers act in memory and leave Dask collections alone."""

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin

from daskdml.data.lazy_output import LazyOutputMixin


class Same(LazyOutputMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X


def test_container_in_memory_only():
    import dask.array as da
    import pandas as pd

    X = np.ones((4, 2))
    lazy = da.from_array(X, chunks=2)
    with config_context(transform_output="pandas"):
        assert isinstance(Same().fit_transform(X), pd.DataFrame)
        assert Same().fit_transform(lazy) is lazy
    estimator = Same().set_output(transform="pandas").fit(X)
    assert isinstance(estimator.transform(X), pd.DataFrame) and estimator.transform(lazy) is lazy
    assert estimator.set_output(transform="default").transform(X) is X
