"""Every walker of X keeps the contract, with every loss it may be handed."""

import numpy as np
import pytest

from daskdml.kernels.csr import CSRPass
from daskdml.kernels.dense import DensePass
from daskdml.kernels.dense_multi import DenseMultiPass
from daskdml.kernels.pointwise import apply_loss, array_pass
from daskdml.losses import Logistic, Multinomial, Squared
from daskdml.testing import KernelContract
from daskdml.testing.kernels import CSR


class TestDenseLogistic(KernelContract):
    loss = Logistic()

    def make(self, w, b, order, **options):
        return DensePass(w, b, self.loss, order=order, **options)


class TestDenseSquared(TestDenseLogistic):
    loss = Squared()


class TestDenseMultinomial(KernelContract):
    loss = Multinomial(4)

    def make(self, w, b, order, **options):
        return DenseMultiPass(w, b, self.loss, order=order, **options)


class TestCSRLogistic(KernelContract):
    loss = Logistic()
    layouts = CSR
    takes_shift = takes_wide = False

    def make(self, w, b, order):
        return CSRPass(w, b, self.loss, order=order)


class TestCSRSquared(TestCSRLogistic):
    loss = Squared()


class _Arrays:
    """The whole-array twin of the dense kernels, run by NumPy in place of cupy."""

    def __init__(self, w, b, loss, order, shift=None):
        self.point = w, b, loss, order, shift

    def __call__(self, X, y, weight=None):
        value, gradient, gradient_sum, curvature = array_pass(X, y, weight, *self.point)
        return value, gradient, gradient_sum, curvature


class TestArrays(KernelContract):
    loss = Logistic()
    takes_wide = False
    # Float32 sums over all rows of a slab.
    tolerance = {"float32": 2e-6, "float64": 4e-15}

    def make(self, w, b, order, **options):
        return _Arrays(w, b, self.loss, order, **options)


class TestMultinomialArrays(TestArrays):
    loss = Multinomial(4)


class _TwoPhases:
    """Margins first, then the loss: what a block of column panels goes through."""

    def __init__(self, w, b, loss, order):
        self.point = w, b, loss, order

    def __call__(self, X, y, weight=None):
        w, b, loss, order = self.point
        X = np.asarray(X, dtype=np.float64)
        value, g, h = apply_loss(X @ w + b, y, weight, loss, order)
        return (value, X.T @ g, g.sum(axis=0), h if order == 2 else None)


class TestPointwise(KernelContract):
    loss = Logistic()
    takes_shift = takes_wide = False

    def make(self, w, b, order):
        return _TwoPhases(w, b, self.loss, order)


@pytest.mark.parametrize("loss", [Logistic(), Squared()], ids=lambda loss: loss.name)
def test_csr_equals_dense(loss):
    """A CSR block gives what its dense twin gives."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40)) * (rng.random((300, 40)) < 0.2)
    y = rng.integers(0, 2, 300).astype(np.float32)
    w = rng.normal(size=40)
    from scipy import sparse

    thin = CSRPass(w, 0.1, loss, order=2)(sparse.csr_matrix(X), y)
    full = DensePass(w, 0.1, loss, order=2)(X, y)
    for a, b in zip(thin, full):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
