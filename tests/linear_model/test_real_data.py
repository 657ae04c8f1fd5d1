"""Real tables, where they are there: census income and handwritten digits, against scikit-learn's coefficients."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from sklearn import linear_model as reference

from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge

DATA = Path(__file__).parents[3] / "shared" / "data"


def opened(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return gzip.open(path)


@pytest.fixture(scope="module")
def adult():
    """Numbers and indicator columns of the 32,561 rows, and whether income is above 50,000."""
    import pandas as pd

    with opened("adult.data.gz") as file:
        # Some copies break long lines after a comma.
        text = file.read().decode().replace(",\n", ", ")
    frame = pd.read_csv(io.StringIO(text), header=None, skipinitialspace=True, na_values="?").dropna()
    X = pd.get_dummies(frame.iloc[:, :-1], drop_first=True).astype(np.float64)
    return X.set_axis([f"c{j}" for j in range(X.shape[1])], axis=1), frame.iloc[:, -1]


@pytest.fixture(scope="module")
def digits():
    """4,000 of MNIST's test digits as float32 in [0, 1]."""
    with opened("t10k-images-idx3-ubyte.gz") as images, opened("t10k-labels-idx1-ubyte.gz") as labels:
        X = np.frombuffer(images.read(), dtype=np.uint8, offset=16).reshape(-1, 784)
        y = np.frombuffer(labels.read(), dtype=np.uint8, offset=8)
    return (X[:4000] / 255).astype(np.float32), y[:4000]


def close(ours, theirs, tolerance):
    assert np.abs(ours.coef_ - theirs.coef_).max() <= tolerance * np.abs(theirs.coef_).max()


def test_income(adult):
    """Features over six decades and words as labels; more rows than a pilot has."""
    X, y = adult
    ours = LogisticRegression(tol=1e-8, C=0.1).fit(X, y)
    size = X.std().to_numpy()
    theirs = reference.LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-9, max_iter=200).fit(X, y)
    assert list(ours.classes_) == ["<=50K", ">50K"]
    np.testing.assert_allclose(ours.coef_ * size, theirs.coef_ * size, atol=1e-5 * np.abs(theirs.coef_ * size).max())
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-4)


def test_income_from_dask(adult):
    import dask.dataframe as dd

    X, y = adult
    lazy = dd.from_pandas(X, npartitions=5, sort=False), dd.from_pandas(y, npartitions=5, sort=False)
    here, there = (LogisticRegression(tol=1e-8).fit(*data) for data in ((X, y), lazy))
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-8 * np.abs(here.coef_).max())
    assert there.score(*lazy) == pytest.approx(here.score(X, y), abs=1e-4)


def test_hours(adult):
    X, _ = adult
    y, X = X.iloc[:, 5].to_numpy(), X.drop(columns=X.columns[5]).to_numpy()
    # As they come, columns a million times smaller than the largest are taken for rounding.
    X = X / X.std(axis=0)
    for ours, theirs in ((LinearRegression(), reference.LinearRegression()), (Ridge(), reference.Ridge())):
        ours.fit(X, y), theirs.fit(X, y)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)


@pytest.mark.slow
def test_ten_digits(digits):
    """Ten classes, constant columns at the rim, float32."""
    X, y = digits
    ours = LogisticRegression(C=0.01).fit(X, y)
    theirs = reference.LogisticRegression(C=0.01, tol=1e-9, max_iter=5000).fit(X.astype(np.float64), y)
    close(ours, theirs, 1e-5)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-3)


def test_two_digits(digits):
    """Separable: only the penalty makes it finite."""
    X, y = digits
    rows = np.isin(y, [4, 9])
    ours = LogisticRegression(C=0.1).fit(X[rows], y[rows])
    theirs = reference.LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10, max_iter=200).fit(
        X[rows].astype(np.float64), y[rows]
    )
    close(ours, theirs, 1e-6)
    assert list(ours.classes_) == [4, 9]
