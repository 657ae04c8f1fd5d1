"""Networks: gradients against differences, losses and predictions against scikit-learn's."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._base import binary_log_loss, log_loss, poisson_loss, squared_loss

from daskdml.kernels.layers import ACTIVATIONS
from daskdml.losses import Logistic, Multinomial, Poisson, Squared
from daskdml.objectives.network import Network

N, P = 12, 3
HIDDEN = [(), (4,), (4, 3)]
OUTPUTS = {
    "logistic": (Logistic(), 1), "three labels": (Logistic(), 3), "multinomial": (Multinomial(3), 3),
    "squared": (Squared(), 1), "two targets": (Squared(), 2), "poisson": (Poisson(), 1),
}  # fmt: skip
FORMULAS = {
    "identity": lambda z: z, "logistic": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}  # fmt: skip
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
outputs = pytest.mark.parametrize("output", OUTPUTS)
hidden_layers = pytest.mark.parametrize("hidden", HIDDEN, ids=str)
weighted = pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
layouts = pytest.mark.parametrize("layout", [np.asarray, sparse.csr_array], ids=["dense", "csr"])


def make(output, activation="tanh", hidden=(4,), dtype=np.float64, n=N):
    """Return a network, parameters and rows."""
    loss, k = OUTPUTS[output]
    network = Network((P, *hidden, k), activation, loss, alpha=0.1, dtype=dtype)
    rng = np.random.default_rng(5)
    X = (rng.normal(size=(n, P)) * (rng.random((n, P)) < 0.8)).astype(dtype)
    theta = (0.7 * rng.normal(size=network.n_params)).astype(dtype)
    draw = {
        "logistic": lambda: rng.integers(0, 2, n), "three labels": lambda: rng.integers(0, 2, (n, 3)),
        "multinomial": lambda: rng.integers(0, 3, n), "squared": lambda: rng.normal(size=n),
        "two targets": lambda: rng.normal(size=(n, 2)), "poisson": lambda: rng.poisson(2, n),
    }  # fmt: skip
    return network, theta, X, draw[output]().astype(np.float64), rng.uniform(0.5, 2.0, n)


def gradient(network, theta, X, y, weight, work=None):
    out = np.full(network.n_params, np.nan, network.dtype)
    value = network.gradient(theta, X, y, weight, out, work or network.workspace(X.shape[0]))
    assert isinstance(value, float) and out.dtype == network.dtype
    return value, out


def layers_of(network, theta):
    """Cut theta by its definition: the coefficients of all layers, then all intercepts."""
    at, coefs, intercepts = 0, [], []
    for a, b in zip(network.sizes, network.sizes[1:]):
        coefs.append(theta[at : at + a * b].reshape(a, b))
        at += a * b
    for b in network.sizes[1:]:
        intercepts.append(theta[at : at + b])
        at += b
    assert at == len(theta)
    return coefs, intercepts


def forward(network, theta, X):
    """Return raw predictions and what goes into the activations."""
    coefs, intercepts = layers_of(network, theta)
    a, before = X, []
    for coef, intercept in zip(coefs[:-1], intercepts[:-1]):
        before.append(a @ coef + intercept)
        a = FORMULAS[network.activation](before[-1])
    return a @ coefs[-1] + intercepts[-1], before


def textbook(network, theta, X, y, weight):
    """Sum up the losses."""
    raw, _ = forward(network, theta, X)
    weight = np.ones(len(X)) if weight is None else weight
    if network.loss.name == "multinomial":
        losses = np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(len(X)), y.astype(int)]
    else:
        y = y.reshape(raw.shape)
        formulas = {"logistic": np.log1p(np.exp(raw)) - y * raw, "squared": (raw - y) ** 2 / 2,
                    "poisson": np.exp(raw) - y * raw}  # fmt: skip
        losses = formulas[network.loss.name].sum(axis=1)
    return weight @ losses


@activations
@outputs
@hidden_layers
def test_gradients_are_central_differences(activation, output, hidden):
    """Of the losses by their formulas; with weights and without, dense and CSR."""
    network, theta, X, y, weights = make(output, activation, hidden)
    if activation == "relu":  # not across a kink
        assert all(np.abs(z).min() > 1e-4 for z in forward(network, theta, X)[1])
    for weight in (None, weights):
        differences, step = np.empty(len(theta)), 1e-5
        for j in range(len(theta)):
            unit = step * (np.arange(len(theta)) == j)
            up, down = (textbook(network, theta + move, X, y, weight) for move in (unit, -unit))
            differences[j] = (up - down) / (2 * step)
        for rows in (X, sparse.csr_array(X)):
            value, found = gradient(network, theta, rows, y, weight)
            assert value == pytest.approx(textbook(network, theta, X, y, weight), rel=1e-12)
            np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-6 * np.abs(differences).max())


@activations
@outputs
def test_float32_is_float64_but_for_rounding(activation, output):
    network, theta, X, y, weight = make(output, activation, (4, 3), np.float32)
    exact = Network(network.sizes, activation, network.loss, dtype=np.float64)
    value, expected = gradient(exact, theta.astype(np.float64), X.astype(np.float64), y, weight)
    for rows in (X, sparse.csr_array(X)):
        found_value, found = gradient(network, theta, rows, y, weight)
        assert found_value == pytest.approx(value, rel=3e-6)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        assert network.raw(theta, rows).dtype == np.float32


@outputs
@weighted
def test_losses_are_counted_as_scikit_learn_counts_them(output, is_weighted):
    network, theta, X, y, weight = make(output)
    weight = weight if is_weighted else None
    raw = forward(network, theta, X)[0]
    y2 = y.reshape(N, -1)
    share, odds = 1 / (1 + np.exp(-raw)), np.exp(raw)
    known = {
        "logistic": lambda: binary_log_loss(y2, share, weight),
        "three labels": lambda: binary_log_loss(y2, share, weight),
        "multinomial": lambda: log_loss(np.eye(3)[y.astype(int)], odds / odds.sum(axis=1, keepdims=True), weight),
        "squared": lambda: squared_loss(y2, raw, weight),
        "two targets": lambda: squared_loss(y2, raw, weight),
        "poisson": lambda: poisson_loss(y2, odds, weight),
    }  # fmt: skip
    value, _ = gradient(network, theta, X, y, weight)
    total = N if weight is None else weight.sum()
    assert network.scikit_learn_loss(value, y, weight) / total == pytest.approx(known[output](), rel=1e-12)


@activations
@outputs
@layouts
def test_halves_of_a_batch_add_up(activation, output, layout):
    """In a workspace that is larger than each of them, and used again."""
    network, theta, X, y, weights = make(output, activation, (4, 3))
    X, work = layout(X), network.workspace(N + 5)
    for weight in (None, weights):
        whole, expected = gradient(network, theta, X, y, weight, work)
        parts = [
            gradient(network, theta, X[part], y[part], None if weight is None else weight[part], work)
            for part in (slice(0, 5), slice(5, N))
        ]
        assert sum(value for value, _ in parts) == pytest.approx(whole, rel=1e-13)
        np.testing.assert_allclose(parts[0][1] + parts[1][1], expected, rtol=1e-12, atol=1e-12)


@outputs
def test_weights_are_repetitions_of_rows(output):
    network, theta, X, y, _ = make(output, "relu")
    times = np.arange(N) % 4
    value, expected = gradient(network, theta, np.repeat(X, times, axis=0), np.repeat(y, times, axis=0), None)
    found_value, found = gradient(network, theta, X, y, times.astype(np.float64))
    assert found_value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@outputs
def test_nothing_that_is_given_is_changed(output):
    network, theta, X, y, weight = make(output)
    given = theta, X, y, weight
    kept = [part.copy() for part in given]
    for part in given:
        part.flags.writeable = False
    gradient(network, *given)
    network.raw(theta, X)
    for part, before in zip(given, kept):
        np.testing.assert_array_equal(part, before)


@activations
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_spoils_the_sum_of_losses(activation, dtype):
    for output in OUTPUTS:
        network, theta, X, y, weight = make(output, activation, (4, 3), dtype)
        X[4, 1] = np.nan
        assert np.isnan(gradient(network, theta, X, y, weight)[0])
        assert np.isnan(network.raw(theta, X)[4]).all() and np.isfinite(np.delete(network.raw(theta, X), 4, 0)).all()


@activations
@hidden_layers
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_parameters_are_those_scikit_learn_draws(activation, hidden, n_classes, dtype):
    X = np.random.default_rng(0).normal(size=(12, P)).astype(dtype)
    y = np.arange(12) % n_classes
    k, loss = (1, Logistic()) if n_classes == 2 else (3, Multinomial(3))
    network = Network((P, *hidden, k), activation, loss, dtype=dtype)
    for seed in (0, 1, 2**32 - 1):
        # With steps of next to nothing.
        known = MLPClassifier(
            hidden, activation=activation, alpha=0.0, learning_rate_init=1e-300, max_iter=1, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            known.fit(X, y)
        theta = network.start(seed)
        assert theta.dtype == dtype and theta.shape == (network.n_params,)
        coefs, intercepts = layers_of(network, theta)
        for one, other in zip((*coefs, *intercepts), (*known.coefs_, *known.intercepts_), strict=True):
            np.testing.assert_array_equal(one, other)


def test_seeds_of_more_than_32_bits_are_taken():
    network = make("squared")[0]
    assert np.isfinite(network.start(2**63 + 11)).all()
    assert (network.start(3) != network.start(4)).all()


@hidden_layers
@outputs
def test_flatten_undoes_coefs_and_intercepts(hidden, output):
    network, theta, *_ = make(output, hidden=hidden)
    coefs, intercepts = network.coefs(theta), network.intercepts(theta)
    for one, other in zip((*coefs, *intercepts), (part for parts in layers_of(network, theta) for part in parts)):
        np.testing.assert_array_equal(one, other)
        assert np.shares_memory(one, theta)
    assert [coef.shape for coef in coefs] == list(network.shapes)
    np.testing.assert_array_equal(network.flatten(coefs, intercepts), theta)
    assert network.n_decayed == sum(coef.size for coef in coefs)
    assert network.n_params == len(theta) == network.n_decayed + sum(part.size for part in intercepts)
    single = Network(network.sizes, "tanh", network.loss, dtype=np.float32)
    assert single.flatten(coefs, intercepts).dtype == np.float32


@activations
@hidden_layers
@layouts
@pytest.mark.parametrize("k", [1, 2])
def test_raw_predictions_are_scikit_learns(activation, hidden, layout, k):
    network, theta, X, *_ = make("squared" if k == 1 else "two targets", activation, hidden)
    twin = MLPRegressor(hidden_layer_sizes=hidden, activation=activation, max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        twin.fit(np.zeros((4, P)), np.ones((4, k)) if k > 1 else np.ones(4))
    twin.coefs_, twin.intercepts_ = network.coefs(theta), network.intercepts(theta)
    found = network.raw(theta, layout(X))
    assert found.shape == (N, k) and found.dtype == np.float64
    np.testing.assert_allclose(found, twin.predict(X).reshape(N, k), rtol=1e-12, atol=1e-13)
