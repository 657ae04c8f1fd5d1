"""Losses against scikit-learn's own and against closed forms."""

import numpy as np
import pytest
from sklearn import metrics

from daskdml.losses import Absolute, Gamma, Logistic, Multinomial, Pinball, Poisson, Squared
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


def test_absolute_is_the_absolute_error():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=(3, 100))
    weight = np.abs(weight)
    mean = metrics.mean_absolute_error(y, raw, sample_weight=weight)
    np.testing.assert_allclose(tile(Absolute(), raw, y, weight, 0)[0], mean * weight.sum(), rtol=1e-13)


@pytest.mark.parametrize("shares", [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.2, 0.3, 0.5], [1e-20, 0.5, 0.5]])
def test_classes_without_rows_have_scikit_learns_baseline(shares):
    """Which is that of a share of one unit in the last place."""
    eps = np.finfo(float).eps
    raw = np.log(np.clip(shares, eps, 1 - eps))
    np.testing.assert_allclose(Multinomial(3).baseline(np.array(shares)), raw - raw.mean(), rtol=1e-14)


@pytest.mark.parametrize("loss", [Logistic(), Poisson(), Gamma()], ids=lambda loss: loss.name)
def test_means_at_an_end_have_scikit_learns_baseline(loss):
    eps = 10 * np.finfo(float).eps
    assert loss.predict(np.array([loss.baseline(0.0)]))[0] == pytest.approx(eps, rel=1e-9, abs=0)
    if loss.name == "logistic":
        assert loss.predict(np.array([-loss.baseline(1.0)]))[0] == pytest.approx(eps, rel=1e-9, abs=0)
    assert loss.predict(np.array([loss.baseline(0.3)]))[0] == pytest.approx(0.3, rel=1e-14)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.75])
def test_pinball_is_the_pinball_loss(quantile):
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=(3, 100))
    weight = np.abs(weight)
    mean = metrics.mean_pinball_loss(y, raw, sample_weight=weight, alpha=quantile)
    np.testing.assert_allclose(tile(Pinball(quantile), raw, y, weight, 0)[0], mean * weight.sum(), rtol=1e-13)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.5, np.nan])
def test_pinball_without_a_minimum_is_refused(quantile):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Pinball(quantile)


@pytest.mark.parametrize("loss, below, above", [(Absolute(), -1.0, 1.0), (Pinball(0.25), -0.25, 0.75)])
def test_slopes_at_the_kink_are_those_below_it(loss, below, above):
    raw = np.array([-1.0, 0.0, 1.0, 3.0, np.nextafter(3.0, 4.0), -2.5])
    y = np.array([0.0, 0.0, 0.0, 3.0, 3.0, -2.5])
    weight = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    _, gradient, hessian = tile(loss, raw, y, weight, 2)
    np.testing.assert_array_equal(gradient, weight * [below, below, above, below, above, below])
    np.testing.assert_array_equal(hessian, weight)


def test_poisson_is_half_the_deviance():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=100), rng.poisson(2.0, 100).astype(float), rng.uniform(size=100)
    mean = metrics.mean_poisson_deviance(y, np.exp(raw), sample_weight=weight)
    # What the deviance leaves out: the loss of a model that knows each count.
    lowest = (weight * (y - y * np.log(np.maximum(y, 1.0)))).sum()
    found = tile(Poisson(), raw, y, weight, 0)[0] - lowest
    np.testing.assert_allclose(found, mean * weight.sum() / 2, rtol=1e-12)


def test_gamma_is_half_the_deviance():
    rng = np.random.default_rng(0)
    raw, y, weight = rng.normal(size=100), rng.gamma(2.0, size=100), rng.uniform(size=100)
    mean = metrics.mean_gamma_deviance(y, np.exp(raw), sample_weight=weight)
    lowest = (weight * (np.log(y) + 1.0)).sum()
    found = tile(Gamma(), raw, y, weight, 0)[0] - lowest
    np.testing.assert_allclose(found, mean * weight.sum() / 2, rtol=1e-12)


# (loss, raw, y, value, gradient, hessian) by arbitrary-precision arithmetic.
EXPONENTIAL = [
    (Poisson(), 0.0, 0.0, 1.0, 1.0, 1.0),
    (Poisson(), 0.0, 3.0, 1.0, -2.0, 1.0),
    (Poisson(), 1.0, 2.0, 0.7182818284590452, 0.7182818284590452, 2.718281828459045),
    (Poisson(), -2.5, 0.0, 0.0820849986238988, 0.0820849986238988, 0.0820849986238988),
    (Poisson(), 5.25, 4.0, 169.56626845863, 186.56626845863, 190.56626845863),
    (Poisson(), -700.0, 0.0, 9.85967654375977e-305, 9.85967654375977e-305, 9.85967654375977e-305),
    (Poisson(), 300.0, 7.0, 1.9424263952412558e130, 1.9424263952412558e130, 1.9424263952412558e130),
    (Gamma(), 0.0, 1.5, 1.5, -0.5, 1.5),
    (Gamma(), 1.0, 2.0, 1.7357588823428847, 0.26424111765711533, 0.7357588823428847),
    (Gamma(), -2.5, 0.25, 0.5456234901758683, -2.0456234901758683, 3.0456234901758683),
    (Gamma(), 5.25, 4.0, 5.2709900735967254, 0.9790099264032744, 0.02099007359672554),
    (Gamma(), -300.0, 2.0, 3.8848527904825117e130, -3.8848527904825117e130, 3.8848527904825117e130),
    (Gamma(), 700.0, 3.0, 700.0, 1.0, 2.9579029631279314e-304),
]


@pytest.mark.parametrize("loss, raw, y, value, gradient, hessian", EXPONENTIAL)
def test_poisson_and_gamma_closed_forms(loss, raw, y, value, gradient, hessian):
    found = tile(loss, np.array([raw]), np.array([y]), np.ones(1), 2)
    np.testing.assert_allclose([found[0], found[1][0], found[2][0]], [value, gradient, hessian], rtol=1e-13)


@pytest.mark.parametrize("raw", [-1e300, -1e4, -705.0, 705.0, 1e4, 1e300])
def test_poisson_and_gamma_do_not_overflow(raw):
    for loss in (Poisson(), Gamma()):
        value, gradient, hessian = tile(loss, np.array([raw]), np.ones(1), np.ones(1), 2)
        assert np.isfinite([value, *gradient, *hessian]).all(), loss.name


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
