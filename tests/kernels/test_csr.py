"""CSR: Hessian products and column sums, which the shared contract does not ask for."""

import numpy as np
import pytest
from scipy import sparse

from daskdml.kernels.csr import CSRPass, squared_column_sums
from daskdml.losses import Logistic, Squared
from daskdml.testing.kernels import CSR, lay_out


def block(dtype="float64", n=300, p=30):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.2)
    X[[0, n - 1]] = 0.0
    X[:, 5] = 0.0
    return X.astype(dtype), rng.integers(0, 2, n).astype(np.float32), rng.uniform(0.5, 2, n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", CSR)
@pytest.mark.parametrize("loss", [Logistic(), Squared()], ids=lambda loss: loss.name)
def test_hessian_product(loss, layout, dtype):
    X, y, weight = block(dtype)
    rng = np.random.default_rng(1)
    w, d = rng.normal(size=(2, 30))
    h = loss.arrays(X.astype(float) @ w + 0.2, y, weight, 2)[2]
    along = h * (X.astype(float) @ d + 0.7)
    walk = CSRPass(w, 0.2, loss, order=2, direction=d, direction_b=0.7)
    _, product, product_sum, _ = walk(lay_out(X, layout), y, weight)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(product, X.astype(float).T @ along, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(product_sum, along.sum(), rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", CSR)
def test_squared_column_sums(layout, dtype):
    X, _, weight = block(dtype)
    found = squared_column_sums(lay_out(X, layout), weight)
    np.testing.assert_allclose(found, weight @ X.astype(float) ** 2, rtol=1e-12 if dtype == "float64" else 1e-6)


def test_entries_stored_twice_add_up():
    """SciPy's reading of duplicates."""
    X = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 3))
    w = np.array([0.3, -0.2, 5.0])
    y = np.array([0.0, 1.0])
    found = CSRPass(w, 0.0, Logistic())(X, y)
    value, g, _ = Logistic().arrays(X.toarray() @ w, y, np.ones(2), 1)
    np.testing.assert_allclose(found[0], value, rtol=1e-13)
    np.testing.assert_allclose(found[1], X.toarray().T @ g, rtol=1e-13)


def test_unsorted_indices():
    X = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3))
    w = np.array([0.3, -0.2, 5.0])
    found = CSRPass(w, 0.0, Squared())(X, np.zeros(2))
    np.testing.assert_allclose(found[1], X.toarray().T @ (X.toarray() @ w), rtol=1e-13)
