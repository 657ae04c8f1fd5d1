"""Linear models of which batches are trained on: values by their definition, gradients against differences."""

import numpy as np
import pytest
from scipy import sparse

from daskdml.kernels.sequential import LOSSES
from daskdml.objectives.linear_batches import LinearBatches, MarginLoss

N, P = 15, 4
LAYOUTS = {"dense": np.asarray, "csr": sparse.csr_array, "float32": np.float32}


def make(loss, k, is_weighted):
    """Return a model, parameters and rows, away from where losses have kinks."""
    rng = np.random.default_rng(k)
    labels = None if k == 1 and loss in LOSSES[5:] else (1,) if k == 1 else tuple(range(k))
    factors = [(1.0 + j, 1.0 / (1 + j)) for j in range(k)]
    model = LinearBatches(P, MarginLoss(loss, 0.2), labels, factors, l2=0.3, l1=0.1)
    theta, X = rng.normal(size=model.n_params), rng.normal(size=(N, P)).astype(np.float32).astype(float)
    y = rng.normal(size=N) if labels is None else rng.integers(0, max(k, 2), N).astype(float)
    return model, theta, X, y, rng.uniform(0.5, 2.0, N) if is_weighted else None


def gradient(model, theta, X, y, weight):
    out = np.full(model.n_params + 3, np.nan)
    value = model.gradient(theta, X, y, weight, out, model.workspace(N + 5))
    assert np.isnan(out[model.n_params :]).all()
    return value, out[: model.n_params]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
def test_gradients_are_derivatives(loss, k, is_weighted):
    model, theta, X, y, weight = make(loss, k, is_weighted)
    value, found = gradient(model, theta, X, y, weight)
    for i in range(model.n_params):
        step = np.zeros(model.n_params)
        step[i] = 1e-6
        ends = [gradient(model, theta + sign * step, X, y, weight)[0] for sign in (1, -1)]
        assert found[i] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same(layout):
    model, theta, X, y, weight = make("log_loss", 3, True)
    expected = gradient(model, theta, X, y, weight)
    value, found = gradient(model, theta, LAYOUTS[layout](X), y, weight)
    assert value == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(found, expected[1], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(model.raw(theta, LAYOUTS[layout](X)), model.raw(theta, X), rtol=1e-12, atol=1e-14)


def test_parameters_are_coefficients_of_each_output_and_then_intercepts():
    model, theta, X, *_ = make("hinge", 3, False)
    np.testing.assert_allclose(model.raw(theta, X), X @ theta[:12].reshape(P, 3) + theta[12:])
    assert (model.n_params, model.n_decayed, model.sizes, model.shapes) == (15, 12, (4, 3), ((4, 3),))
    assert model.dtype == np.float64 and not model.start(0).any()


def test_values_are_means_over_rows_and_outputs_with_both_penalties():
    model, theta, X, y, weight = make("hinge", 3, True)
    W = theta[:12]
    assert model.weight_of(y, weight) == N  # whatever rows weigh
    assert model.penalty(W, 7) == pytest.approx(7 / 3 * (0.15 * W @ W + 0.1 * np.abs(W).sum()))
    assert model.scikit_learn_loss(6.0, y, weight) == 2.0
