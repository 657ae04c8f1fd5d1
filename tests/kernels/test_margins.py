"""Losses of linear models against their formulas in scikit-learn's guide, and their slopes against differences."""

import numpy as np
import pytest

from daskdml.kernels.margins import apply_margins
from daskdml.kernels.sequential import LOSSES

EPSILON = 0.3
FORMULAS = {
    "hinge": lambda y, p: np.maximum(0, 1 - y * p), "perceptron": lambda y, p: np.maximum(0, -y * p),
    "squared_hinge": lambda y, p: np.maximum(0, 1 - y * p) ** 2,
    "modified_huber": lambda y, p: np.where(y * p >= -1, np.maximum(0, 1 - y * p) ** 2, -4 * y * p),
    "log_loss": lambda y, p: np.logaddexp(0, p) - y * p, "squared_error": lambda y, p: (y - p) ** 2 / 2,
    "huber": lambda y, p: np.where(
        np.abs(y - p) <= EPSILON, (y - p) ** 2 / 2, EPSILON * np.abs(y - p) - EPSILON**2 / 2),
    "epsilon_insensitive": lambda y, p: np.maximum(0, np.abs(y - p) - EPSILON),
    "squared_epsilon_insensitive": lambda y, p: np.maximum(0, np.abs(y - p) - EPSILON) ** 2,
}  # fmt: skip
losses = pytest.mark.parametrize("loss", LOSSES)
NO_LABELS = np.empty(0, np.int64)


def rows(n=40, k=3):
    rng = np.random.default_rng(0)
    return 2 * rng.normal(size=(n, k)), rng.integers(0, 3, n).astype(float), rng.uniform(0.5, 2.0, n)


def apply(raw, y, weight, loss, labels, factors):
    gradient = np.full_like(raw, np.nan)
    return apply_margins(raw, y, weight, loss, EPSILON, labels, factors, gradient), gradient


@losses
@pytest.mark.parametrize("is_weighted", [False, True])
def test_each_output_tells_its_class_from_the_others(loss, is_weighted):
    raw, y, weight = rows()
    labels, factors = np.array([2, 0, 1]), np.array([[3.0, 1.0], [0.5, 2.0], [1.0, 1.0]])
    is_own = y[:, None] == labels
    target = np.where(is_own, 1.0, 0.0 if loss == "log_loss" else -1.0)
    times = np.where(is_own, *factors.T) * (weight[:, None] if is_weighted else 1.0)
    value, gradient = apply(raw, y, weight if is_weighted else None, loss, labels, factors)
    assert value == pytest.approx((times * FORMULAS[loss](target, raw)).sum(), rel=1e-12)
    slopes = (FORMULAS[loss](target, raw + 1e-6) - FORMULAS[loss](target, raw - 1e-6)) / 2e-6
    np.testing.assert_allclose(gradient, times * slopes, rtol=1e-6, atol=1e-8)


@losses
def test_numbers_are_targets_themselves(loss):
    raw, _, weight = rows(k=1)
    y = np.where(np.arange(len(raw)) % 2, 1.0, -1.0) if loss in LOSSES[:5] else raw[::-1, 0].copy()
    value, gradient = apply(raw, y, weight, loss, NO_LABELS, np.ones((1, 2)))
    assert value == pytest.approx(weight @ FORMULAS[loss](y, raw[:, 0]), rel=1e-12)
    assert gradient.shape == raw.shape and np.isfinite(gradient).all()


def test_slopes_are_cut():
    raw = np.array([[1e300], [-1e300]])
    value, gradient = apply(raw, np.zeros(2), None, "squared_error", NO_LABELS, np.ones((1, 2)))
    assert value == np.inf and gradient.ravel().tolist() == [1e12, -1e12]
