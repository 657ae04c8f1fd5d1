"""Linear models on arrays of a stand-in for cupy: fits and predictions are the host's, and nothing is mixed."""

import numpy as np
import pytest

from daskdml.linear_model import LogisticRegression, Ridge


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_classes(cupy, n_classes, weighted):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(3000, 8)), random.integers(0, n_classes, 3000)
    weight = random.uniform(0.5, 2, 3000) if weighted else None
    host = LogisticRegression(tol=1e-8).fit(X, y, weight)
    device = LogisticRegression(tol=1e-8).fit(cupy.asarray(X), y, weight)
    np.testing.assert_allclose(device.coef_, host.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(device.predict(cupy.asarray(X)), host.predict(X))
    np.testing.assert_allclose(device.predict_proba(cupy.asarray(X)), host.predict_proba(X), rtol=1e-6)


def test_numbers(cupy):
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 8))
    y = X @ random.normal(size=8)
    host, device = Ridge().fit(X, y), Ridge().fit(cupy.asarray(X), y)
    np.testing.assert_allclose(device.coef_, host.coef_, rtol=1e-9)
    np.testing.assert_allclose(device.predict(cupy.asarray(X)), host.predict(X), rtol=1e-9)
