"""Small data sets, scaled for descent."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris


@pytest.fixture(scope="session")
def cancer():
    """Return 569 rows of two classes, 0 and 1."""
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0) / 3, y


@pytest.fixture(scope="session")
def iris():
    """Return 150 rows of three classes with names, in a random order."""
    X, y = load_iris(return_X_y=True)
    turn = np.random.default_rng(0).permutation(len(X))
    return ((X - X.mean(axis=0)) / X.std(axis=0))[turn], np.array(["ash", "birch", "cedar"])[y[turn]]


@pytest.fixture(scope="session")
def diabetes():
    """Return 200 rows of a regression."""
    X, y = load_diabetes(return_X_y=True)
    return X[:200] * 10, y[:200] / 100
