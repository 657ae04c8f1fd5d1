"""Generated rows: the same for any chunking, and as random as they claim."""

import dask
import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from daskdml.demo.tasks import N_FEATURES, generate, load_bundled


def test_rows_do_not_depend_on_chunks():
    whole = dask.compute(*generate(1000, 1000))
    pieces = dask.compute(*generate(1000, 137))
    assert whole[0].dtype == np.float32 and whole[0].shape == (1000, N_FEATURES)
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])


def test_another_seed_gives_other_rows():
    first, second = (generate(100, 100, seed=seed)[0].compute() for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_features_have_the_stated_scales_and_correlation():
    X = generate(50_000, 50_000)[0].compute()
    np.testing.assert_allclose(X.std(axis=0), 10.0 ** np.linspace(-1, 1, N_FEATURES), rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(X[:, 3], X[:, 4])[0, 1], 0.8 * 0.6, atol=0.02)


def test_targets_follow_the_stated_probability():
    X, y = dask.compute(*generate(50_000, 25_000))
    weights = np.cos(np.arange(N_FEATURES)) * 2 / np.sqrt(1 + np.arange(N_FEATURES))
    scaled = X / 10.0 ** np.linspace(-1, 1, N_FEATURES)
    np.testing.assert_allclose(y.mean(), expit(0.3 + scaled @ weights).mean(), atol=0.01)
    model = LogisticRegression(C=np.inf).fit(scaled, y)
    np.testing.assert_allclose(model.coef_[0], weights, atol=0.1)


def test_bundled_data_are_those_of_scikit_learn():
    shapes = {name: (kind, X.shape) for name, kind, X, _ in load_bundled()}
    assert shapes["breast cancer"] == ("classification", (569, 30))
    assert shapes["diabetes"] == ("regression", (442, 10))
    assert set(shapes) == {"breast cancer", "digits", "wine", "diabetes"}
