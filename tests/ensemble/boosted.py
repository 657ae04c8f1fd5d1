"""What tests of boosting in several layouts share: a table, and that two models are the same to the last bit."""

import numpy as np


def table(n, p, seed=0):
    """Return rows of many, of few and of missing values, p at least 9, and targets that follow some."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    X[:, 1] = np.round(X[:, 1])
    X[:, 3] = np.round(X[:, 3], 1)
    z = X[:, 0] * X[:, 5] + X[:, 3] + (X[:, 8] > 0.5) + 0.3 * rng.normal(size=n)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X, z


def same_models(a, b):
    """Compare all parts of all trees, and the scores."""
    assert a.n_iter_ == b.n_iter_
    np.testing.assert_array_equal(a.train_score_, b.train_score_)
    np.testing.assert_array_equal(a.validation_score_, b.validation_score_)
    for ours, theirs in zip(a._model.trees, b._model.trees, strict=True):
        for tree, other in zip(ours, theirs, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(tree, other, strict=True))
