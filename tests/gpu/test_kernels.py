"""The cupy twin of the dense kernels, on a real device; skipped where there is none."""

import numpy as np
import pytest

from daskdml.kernels.dense import DensePass
from daskdml.kernels.dense_multi import DenseMultiPass
from daskdml.kernels.pointwise import array_pass
from daskdml.linear_model import LogisticRegression, Ridge
from daskdml.losses import Logistic, Multinomial

cupy = pytest.importorskip("cupy")
pytestmark = pytest.mark.gpu


def rows(dtype, n=70_000, p=17):
    rng = np.random.default_rng(0)
    return rng.normal(1, 2, (n, p)).astype(dtype), rng


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("shifted", [False, True])
def test_one_output_is_the_host_kernels(dtype, rtol, shifted):
    X, rng = rows(dtype)
    y = rng.integers(0, 2, len(X)).astype(np.float32)
    weight, w = rng.uniform(0, 2, len(X)), rng.normal(size=X.shape[1])
    shift = X.mean(axis=0).astype(np.float64) if shifted else None
    host = DensePass(w, 0.3, Logistic(), order=2, shift=shift)(X, y, weight)
    found = array_pass(cupy.asarray(X), y, weight, w, 0.3, Logistic(), 2, shift)
    for a, b in zip(found, host):
        np.testing.assert_allclose(a.get() if hasattr(a, "get") else a, b, rtol=rtol, atol=rtol * len(X))


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float64", 1e-11)])
def test_several_outputs_are_the_host_kernels(dtype, rtol):
    X, rng = rows(dtype)
    y, W, b = rng.integers(0, 3, len(X)).astype(np.float32), rng.normal(size=(X.shape[1], 3)), rng.normal(size=3)
    host = DenseMultiPass(W, b, Multinomial(3), order=2)(X, y)
    found = array_pass(cupy.asarray(X), y, None, W, b, Multinomial(3), 2, None)
    for a, b_ in zip(found, host):
        np.testing.assert_allclose(a.get() if hasattr(a, "get") else a, b_, rtol=rtol, atol=rtol * len(X))


def test_fits_are_the_hosts():
    X, rng = rows("float64")
    y = (X[:, 0] + rng.logistic(size=len(X)) > 0).astype(int)
    host, device = LogisticRegression(tol=1e-8).fit(X, y), LogisticRegression(tol=1e-8).fit(cupy.asarray(X), y)
    np.testing.assert_allclose(device.coef_, host.coef_, rtol=1e-7, atol=1e-8)
    target = X @ rng.normal(size=X.shape[1])
    np.testing.assert_allclose(Ridge().fit(cupy.asarray(X), target).coef_, Ridge().fit(X, target).coef_, rtol=1e-9)
