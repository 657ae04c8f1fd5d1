"""LocalSGD: what averaging does to parameters."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from daskdml.neural_network import MLPClassifier
from daskdml.strategies import LocalSGD
from daskdml.testing import SimulatedCluster


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_thousand_averages_do_not_stretch_parameters():
    """Three thirds of float32 are 1 + 3e-8, by which a thousand averages would make all parameters 2e-5 larger."""
    X, y = load_digits(return_X_y=True)
    found = []
    for dtype in ("float32", "float64"):
        model = MLPClassifier(
            (16,), solver="sgd", learning_rate_init=1e-4, momentum=0.0, alpha=0.0, batch_size=30, max_iter=100, tol=0,
            n_iter_no_change=1000, random_state=0, strategy=LocalSGD(1), dtype=dtype,
        )  # fmt: skip
        SimulatedCluster(3, rows_per_block=64).fit(model, X[:300] / 16, y[:300])
        assert model.fit_report_.counts["updates"] == 1000
        found.append(np.concatenate([part.ravel() for part in model.coefs_]).astype(np.float64))
    single, double = found
    assert abs(single @ double / (double @ double) - 1) < 1e-6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_ranks_weigh_as_much_as_the_rows_they_have_seen(monkeypatch):
    """One step each from the same start: the mean by rows of steps along means is the step along the mean of all."""
    X, y = load_digits(return_X_y=True)
    params = {
        "hidden_layer_sizes": (8,), "solver": "sgd", "learning_rate_init": 0.1, "momentum": 0.0, "alpha": 0.0,
        "dtype": "float64", "max_iter": 1, "random_state": 0, "batch_size": 100,
    }  # fmt: skip
    counts, average = [], LocalSGD._average
    monkeypatch.setattr(LocalSGD, "_average", lambda *args: counts.append(args[3]) or average(*args))
    model = MLPClassifier(strategy=LocalSGD(1), **params)
    # A hundred rows are four micro-batches, not three: one rank has two of them.
    SimulatedCluster(3, rows_per_block=20).fit(model, X[:100] / 16, y[:100])
    assert sorted(counts) == [25, 25, 50]
    exact = MLPClassifier(**params).fit(X[:100] / 16, y[:100])
    for ours, theirs in zip(model.coefs_, exact.coefs_):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
