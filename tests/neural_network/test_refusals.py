"""What networks refuse before they train on any row: in sentences that say what was got, and what is allowed."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from daskdml.linear_model import SGDClassifier
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.training import training

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(60, 4)), RANDOM.normal(size=(60, 2))
CLASSES, LABELS = RANDOM.integers(0, 3, 60), (Y > 0).astype(int)


@pytest.fixture(autouse=True)
def no_step(monkeypatch):
    def step(*args):
        raise AssertionError("a row was trained on")

    monkeypatch.setattr(training.Training, "step", step)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, SGDClassifier])
@pytest.mark.parametrize(
    "strategy, message",
    [(AllReduce, r"such as AllReduce\(\), or None; got <class"), (LocalSGD, r"such as LocalSGD\(\)"),
     ("allreduce", r"such as AllReduce\(\), or None; got 'allreduce'"), (8, ".*got 8"),
     (int, r"such as AllReduce\(\).*'int'")],
    ids=str,
)  # fmt: skip
def test_what_is_no_strategy(kind, strategy, message):
    model, y = kind(strategy=strategy), CLASSES % 2
    for call in (model.fit, *([model.plan] if hasattr(model, "plan") else [])):
        with pytest.raises(ValueError, match="one of daskdml.strategies, " + message):
            call(X, y)


@pytest.mark.parametrize(
    "y, y_val, message",
    [
        (CLASSES, CLASSES + 1, r"holds the classes \[3\], which are none of those of y, \[0, 1, 2\]; leave"),
        (CLASSES, CLASSES.astype(str), r"holds the classes \['0', '1', '2'\]"),
        (CLASSES, LABELS, "as many columns as y, 1, got 2"), (LABELS, CLASSES, "as many columns as y, 2, got 1"),
        (LABELS, LABELS[:, [0, 1, 1]], "as many columns as y, 2, got 3"), (LABELS, 2 * LABELS, "by 0 and 1"),
        (CLASSES, CLASSES + 0.5, "continuous"), (CLASSES, CLASSES[:30], "inconsistent numbers"),
        (Y, Y[:, 0], "as many columns as y, 2, got 1; give it those of y"),
        (Y[:, 0], Y, "as many columns as y, 1, got 2"),
        (Y[:, 0], CLASSES.astype(str), "must hold numbers"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("is_lazy", [False, True])
def test_validation_targets_of_another_kind(y, y_val, message, is_lazy):
    model = MLPRegressor() if y.dtype == float else MLPClassifier()
    rows = [part if not is_lazy else da.from_array(part, chunks=(20, *part.shape[1:])) for part in (X, y, X, y_val)]
    with pytest.raises(ValueError, match="X_val, y_val: .*" + message):
        model.fit(*rows[:2], X_val=rows[2], y_val=rows[3])


def test_validation_rows_of_another_shape():
    frame = pd.DataFrame(X).add_prefix("c")
    bad = X.copy()
    bad[3, 1] = np.nan
    for rows, X_val, message in (
        (X, X[:, :3], "X has 3 features, but MLPClassifier is expecting 4"), (X, X[0], "2D array"),
        (frame, frame.add_prefix("c"), "feature names should match"), (X, bad, "contains NaN"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="X_val, y_val: .*" + message):
            MLPClassifier().fit(rows, CLASSES, X_val=X_val, y_val=CLASSES[: len(X_val)])
    with pytest.raises(ValueError, match="X_val, y_val: Sample weights must contain at least one"):
        MLPClassifier().fit(X, CLASSES, X_val=X, y_val=CLASSES, sample_weight_val=np.zeros(60))


def test_no_rows_to_stop_by():
    for model, message in (
        (MLPClassifier(early_stopping=True, validation_fraction=0.0), "holds out none.*X_val and y_val"),
        (MLPRegressor(early_stopping=True, validation_fraction=1.0), "validation_fraction"),
        (SGDClassifier(early_stopping=True, validation_fraction=0.0), "validation_fraction"),
        (SGDClassifier(early_stopping=True, validation_fraction=0.0, strategy=AllReduce()), "validation_fraction"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model.fit(X, CLASSES % 2)
    # Rows that are given need none that are held out, and neither does what never stops.
    for params, given in (({"early_stopping": True}, {"X_val": X, "y_val": CLASSES}), ({}, {})):
        with pytest.raises(AssertionError, match="trained on"):
            MLPClassifier(validation_fraction=0.0, **params).fit(X, CLASSES, **given)
    MLPClassifier(early_stopping=True, validation_fraction=0.0, solver="lbfgs", max_iter=300).fit(X, CLASSES)
