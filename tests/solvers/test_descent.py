"""Steps of all parameters in parts, and what a transform hands to the kernels."""

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from daskdml.solvers import descent
from daskdml.solvers.descent import Adam, Momentum, Plain
from daskdml.utils.portable import pack, unpack

KNOWN = [Momentum(), Momentum(0.5, False), Adam(), Adam(0.5, 0.9, 1e-3)]
TRANSFORMS = [*KNOWN, Plain(l2=0.3), Plain("optimal", alpha=0.2, start=9.0, l1=0.1, intercept_rate=0.01, average=2)]
transforms = pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
N, STEPS = 1000, 4


def steps(transform, dtype="float32", n_decayed=600, part=None, monkeypatch=None, order=list):
    """Step several times; return parameters, moments and in how many parts each step was taken."""
    rng, counts = np.random.default_rng(0), []

    def each(n_items, work):
        counts.append(n_items)
        for i in order(range(n_items)):
            work(i)

    if part is not None:
        monkeypatch.setattr(descent, "PART", part)
    theta = rng.normal(size=N).astype(dtype)
    moments = [np.zeros(N, dtype) for _ in range(transform.n_moments)]
    for t in range(1, STEPS + 1):
        gradient = (32 * rng.normal(size=N)).astype(dtype)
        transform.step(theta, gradient, moments, 0.1 / t, t, (n_decayed, 0.2, 1 / 32), each)
    return [theta, *moments], counts


@transforms
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_decayed", [0, 1, 63, 64, 600, 999, 1000])
def test_parts_give_the_bits_of_one_piece(transform, dtype, n_decayed, monkeypatch):
    expected, counts = steps(transform, dtype, n_decayed)
    assert counts == []
    for part in (64, 128, 250, 333, 500, 999):
        found, counts = steps(transform, dtype, n_decayed, part, monkeypatch)
        assert counts == [-(-N // part)] * STEPS
        for one, other in zip(found, expected, strict=True):
            assert one.tobytes() == other.tobytes()


@transforms
def test_parts_may_be_taken_in_any_order(transform, monkeypatch):
    expected, _ = steps(transform, part=64, monkeypatch=monkeypatch)
    found, _ = steps(transform, part=64, monkeypatch=monkeypatch, order=lambda items: list(items)[::-1])
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("transform", KNOWN, ids=str)
@pytest.mark.parametrize("part", [None, 100])
def test_steps_are_scikit_learns(transform, part, monkeypatch):
    (theta, *moments), _ = steps(transform, "float64", 600, part, monkeypatch)
    rng = np.random.default_rng(0)
    known = [rng.normal(size=N)]
    if isinstance(transform, Adam):
        oracle = AdamOptimizer(known, 0.1, *transform)
    else:
        oracle = SGDOptimizer(known, 0.1, momentum=transform.factor, nesterov=transform.is_nesterov)
    for t in range(1, STEPS + 1):
        gradient = 32 * rng.normal(size=N)
        oracle.learning_rate_init = oracle.learning_rate = 0.1 / t
        oracle.update_params(known, [(gradient + 0.2 * known[0] * (np.arange(N) < 600)) / 32])
    np.testing.assert_allclose(theta, known[0], rtol=1e-11, atol=1e-13)
    expected = (oracle.ms, oracle.vs) if isinstance(transform, Adam) else (oracle.velocities,)
    for one, (other,) in zip(moments, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("average", [0, 1, 3])
def test_plain_steps_by_their_formulas(average):
    """Rates of four schedules, both penalties, and the mean of parameters from some step on."""
    rates = {
        "constant": lambda t: 0.1, "adaptive": lambda t: 0.1, "invscaling": lambda t: 0.1 / t**0.3,
        "optimal": lambda t: 1 / (0.2 * (9 + t - 1)),
    }  # fmt: skip
    for schedule, rate in rates.items():
        transform = Plain(schedule, 0.3, 0.2, 9.0, 0.15, 0.05, 0.5, average)
        rng = np.random.default_rng(0)
        theta = rng.normal(size=N)
        known, seen, moments = theta.copy(), [], [np.zeros(N)] * transform.n_moments
        for t in range(1, STEPS + 1):
            gradient = rng.normal(size=N)
            transform.step(theta, gradient, moments, 0.1, t, (600, 99.0, 0.5), None)
            w, b = known[:600], known[600:]
            w = (1 - rate(t) * 0.15) * w - rate(t) * 0.5 * gradient[:600]
            w = np.sign(w) * np.maximum(np.abs(w) - rate(t) * 0.05, 0)
            known = np.concatenate([w, b - 0.5 * rate(t) * 0.5 * gradient[600:]])
            seen.append(known)
            expected = np.mean(seen[average - 1 :], axis=0) if 0 < average <= t else known
            np.testing.assert_allclose(transform.learnt(theta, moments, t), expected, rtol=1e-12, atol=1e-14)


def test_a_penalty_shrinks_to_zero_and_not_beyond():
    """Rates of which the first are large would turn coefficients around otherwise: scikit-learn's stop at zero too."""
    theta = np.array([3.0, -2.0, 1.0])
    Plain("constant", l2=4.0).step(theta, np.zeros(3), [], 0.5, 1, (2, 0.0, 1.0), None)
    assert theta.tolist() == [0.0, 0.0, 1.0]


@transforms
def test_transforms_travel(transform):
    assert unpack(pack(transform)) == transform
