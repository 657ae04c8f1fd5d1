"""Losses against scikit-learn's own and against closed forms."""

import numpy as np
import pytest
from sklearn import metrics

from daskdml.losses import Logistic, Multinomial, Squared
from daskdml.testing.losses import tile


def test_logistic_is_half_the_deviance():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=100) * 3, rng.integers(0, 2, 100).astype(float), rng.uniform(size=100)
    mean = metrics.log_loss(y, 1 / (1 + np.exp(-raw)), sample_weight=weight)
    np.testing.assert_allclose(tile(Logistic(), raw, y, weight, 0)[0], mean * weight.sum(), rtol=1e-13)


def test_multinomial_is_the_log_loss():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=(100, 4)) * 3, rng.integers(0, 4, 100).astype(float), rng.uniform(size=100)
    p = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    mean = metrics.log_loss(y, p, sample_weight=weight, labels=range(4))
    np.testing.assert_allclose(tile(Multinomial(4), raw, y, weight, 0)[0], mean * weight.sum(), rtol=1e-13)


def test_squared_is_half_the_squared_error():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=(3, 100))
    weight = np.abs(weight)
    mean = metrics.mean_squared_error(y, raw, sample_weight=weight)
    np.testing.assert_allclose(tile(Squared(), raw, y, weight, 0)[0], mean * weight.sum() / 2, rtol=1e-13)


# (raw, y, value, gradient, hessian) by arbitrary-precision arithmetic.
LOGISTIC = [
    (0.0, 0.0, 0.6931471805599453, 0.5, 0.25),
    (0.0, 1.0, 0.6931471805599453, -0.5, 0.25),
    (0.0, 0.25, 0.6931471805599453, 0.25, 0.25),
    (2.0, 1.0, 0.12692801104297263, -0.11920292202211755, 0.10499358540350652),
    (-36.0, 0.0, 2.3195228302435694e-16, 2.3195228302435691e-16, 2.3195228302435686e-16),
    (-700.0, 0.0, 9.8596765437597709e-305, 9.8596765437597709e-305, 9.8596765437597709e-305),
    (700.0, 0.0, 700.0, 1.0, 9.8596765437597709e-305),
]


@pytest.mark.parametrize("raw, y, value, gradient, hessian", LOGISTIC)
def test_logistic_closed_forms(raw, y, value, gradient, hessian):
    found = tile(Logistic(), np.array([raw]), np.array([y]), np.ones(1), 2)
    np.testing.assert_allclose([found[0], found[1][0], found[2][0]], [value, gradient, hessian], rtol=1e-13)


def test_two_classes_of_multinomial_are_logistic():
    rng = np.random.default_rng(1)
    raw, y = rng.normal(size=50) * 3, rng.integers(0, 2, 50).astype(float)
    one = tile(Logistic(), raw, y, np.ones(50), 2)
    two = tile(Multinomial(2), np.column_stack([np.zeros(50), raw]), y, np.ones(50), 2)
    np.testing.assert_allclose(two[0], one[0], rtol=1e-14)
    np.testing.assert_allclose(two[1][:, 1], one[1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(two[2][:, 1] * (1 - two[2][:, 1]), one[2], rtol=1e-10)


def test_multinomial_does_not_see_a_common_shift():
    rng = np.random.default_rng(2)
    raw, y = rng.normal(size=(30, 5)), rng.integers(0, 5, 30).astype(float)
    base, moved = (tile(Multinomial(5), raw + c, y, np.ones(30), 2) for c in (0.0, 300.0))
    for a, b in zip(base, moved):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
