"""Weights of classes are scikit-learn's; labels and probabilities follow from raw values."""

import numpy as np
import pytest
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.utils.class_weight import compute_class_weight

from daskdml.data import Block, target_summary
from daskdml.fitting import check_classes, class_weights, label_rows, log_probabilities, probabilities

Y = np.array(["ash", "elm", "elm", "fir", "elm", "ash"])
CLASSES = np.unique(Y)
SUMMARY = target_summary(Block(None, Y, None, 0, 0), "classes")


@pytest.mark.parametrize("given", ["balanced", {"elm": 2.5}, {"ash": 0, "elm": 1, "fir": 3, "oak": 9}, {}])
def test_weights_of_classes_are_scikit_learns(given):
    np.testing.assert_allclose(class_weights(given, SUMMARY), compute_class_weight(given, classes=CLASSES, y=Y))


def test_balanced_weights_go_by_the_weight_of_rows():
    """A class without weight gets none."""
    weight = np.array([2.0, 0.5, 0.0, 1.0, 1.0, 0.0])
    weighted = target_summary(Block(None, Y, weight, 0, 0), "classes")
    np.testing.assert_allclose(class_weights("balanced", weighted), 4.5 / (3 * np.array([2.0, 1.5, 1.0])))
    assert class_weights(None, weighted) is None
    weighted = target_summary(Block(None, Y, np.where(Y == "fir", 0.0, 1.0), 0, 0), "classes")
    np.testing.assert_allclose(class_weights("balanced", weighted), [5 / 6, 5 / 9, 0.0])


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "many", None])
def test_what_is_no_weight_is_refused(value):
    with pytest.raises(ValueError, match="class_weight must hold finite numbers >= 0, got .* for class 'elm'"):
        class_weights({"elm": value}, SUMMARY)
    with pytest.raises(ValueError, match=r"classes, \['fir'\], are not in class_weight, whose keys are"):
        class_weights({"ash": 1.0, "elm": 1.0, "fri": 2.0}, SUMMARY)


def test_one_class_is_refused():
    check_classes(CLASSES)
    for classes, only in ((CLASSES[:1], "'ash'"), (CLASSES[:0], "'none'")):
        with pytest.raises(ValueError, match=f"at least 2 classes .* only one class: {only}"):
            check_classes(classes)


def test_two_classes():
    raw = np.array([-800.0, -40.0, 0.0, 1e-9, 3.0, 800.0])
    for shape in ((6,), (6, 1)):
        given = raw.reshape(shape)
        assert label_rows(CLASSES[:2], given).tolist() == ["ash"] * 3 + ["elm"] * 3
        np.testing.assert_allclose(probabilities(given), np.column_stack([expit(-raw), expit(raw)]), rtol=1e-14)
        expected = np.column_stack([log_expit(-raw), log_expit(raw)])
        np.testing.assert_allclose(log_probabilities(given), expected, rtol=1e-14)


def test_several_classes():
    raw = np.random.default_rng(0).normal(size=(50, 3)) * 300
    assert label_rows(CLASSES, raw).tolist() == CLASSES[raw.argmax(axis=1)].tolist()
    np.testing.assert_allclose(probabilities(raw), softmax(raw, axis=1), rtol=1e-12)
    np.testing.assert_allclose(log_probabilities(raw), log_softmax(raw, axis=1), rtol=1e-12, atol=1e-14)
