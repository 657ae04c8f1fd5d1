"""Targets of several columns of 0 and 1, one for each label that a row may have, against scikit-learn's."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_multilabel_classification
from sklearn.neural_network import MLPClassifier as Known

from daskdml.neural_network import MLPClassifier
from daskdml.strategies import ModelParallel

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_multilabel_classification(300, 10, n_classes=4, random_state=0)
SAME = {"hidden_layer_sizes": (16,), "max_iter": 8, "random_state": 0, "shuffle": False, "batch_size": 50}


def fitted(**params):
    return MLPClassifier(dtype="float64", **{**SAME, **params}).fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_scikit_learns_coefficients_and_answers(solver):
    known, model = Known(solver=solver, **SAME).fit(X, Y), fitted(solver=solver)
    for left, right in zip(known.coefs_, model.coefs_):
        np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(model.predict(X), known.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), known.predict_proba(X), rtol=1e-6)
    np.testing.assert_allclose(model.predict_log_proba(X), known.predict_log_proba(X), rtol=1e-5)
    assert model.score(X, Y) == known.score(X, Y)
    assert model.loss_ == pytest.approx(known.loss_)
    assert model.out_activation_ == known.out_activation_ == "logistic"
    np.testing.assert_array_equal(model.to_sklearn().predict(X), known.predict(X))


def test_calls_of_partial_fit():
    known, model = Known(**SAME), MLPClassifier(dtype="float64", **SAME)
    for _ in range(3):
        known.partial_fit(X, Y, classes=np.arange(4))
        model.partial_fit(X, Y, classes=np.arange(4))
    np.testing.assert_allclose(model.coefs_[0], known.coefs_[0], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="3 columns"):
        model.partial_fit(X, Y[:, :3])


def test_chunks_frames_and_shards_give_the_same():
    alone = fitted()
    chunks = da.from_array(X, chunks=(70, 10)), da.from_array(Y, chunks=(70, 4))
    chunked = MLPClassifier(dtype="float64", **SAME).fit(*chunks)
    framed = MLPClassifier(dtype="float64", **SAME).fit(pd.DataFrame(X), pd.DataFrame(Y))
    for other in (chunked, framed):
        np.testing.assert_array_equal(other.coefs_[0], alone.coefs_[0])
    np.testing.assert_array_equal(chunked.predict(chunks[0]).compute(), alone.predict(X))
    np.testing.assert_allclose(fitted(strategy=ModelParallel()).coefs_[0], alone.coefs_[0], rtol=1e-9, atol=1e-12)


def test_scores_are_of_rows_with_all_labels_right():
    model = MLPClassifier(dtype="float64", **SAME).fit(X, Y, X_val=X[:80], y_val=Y[:80])
    assert model.validation_scores_[-1] == pytest.approx((model.predict(X[:80]) == Y[:80]).all(axis=1).mean())


@pytest.mark.parametrize("bad", [2 * Y, Y + 0.5, Y - 1])
def test_other_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="of several columns says which labels"):
        MLPClassifier(**SAME).fit(X, bad)


def test_a_fit_does_not_go_on_with_targets_of_another_kind():
    model = MLPClassifier(warm_start=True, **SAME).fit(X, Y.argmax(axis=1))
    with pytest.raises(ValueError, match="warm_start=False"):
        model.fit(X, Y)
    model = MLPClassifier(warm_start=True, **SAME).fit(X, Y)
    with pytest.raises(ValueError, match="warm_start=False"):
        model.fit(X, Y[:, :3])
