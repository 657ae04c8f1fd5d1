"""Handwritten digits of 28 x 28 pixels, where they are there: the classic network beside scikit-learn's."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn import neural_network as theirs

from daskdml.neural_network import MLPClassifier

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def mnist():
    """Return 8,000 images to train on and 2,000 others, their pixels in [0, 1]."""
    files = [DATA / f"t10k-{name}.gz" for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if not all(path.exists() for path in files):
        pytest.skip("the images are not here")
    images, labels = (gzip.decompress(path.read_bytes()) for path in files)
    X = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8)
    turn = np.random.default_rng(0).permutation(len(X))
    return X[turn[:8000]], y[turn[:8000]], X[turn[8000:]], y[turn[8000:]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("params", [{}, {"batch_size": 32}, {"solver": "sgd", "learning_rate_init": 0.1}], ids=str)
def test_as_good_as_scikit_learn(mnist, params):
    """784-128(relu)-10, five epochs: within a point, means of three seeds."""
    X, y, X_test, y_test = mnist
    scores = []
    for kind in (MLPClassifier, theirs.MLPClassifier):
        models = [kind((128,), max_iter=5, random_state=seed, **params).fit(X, y) for seed in range(3)]
        scores.append(np.mean([model.score(X_test, y_test) for model in models]))
    assert scores[0] > scores[1] - 0.01 and scores[0] > 0.9
