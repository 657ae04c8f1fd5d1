"""The contest is fair: same rows, same parameters, and differences that are computed, not assumed."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from daskdml.demo import contest, show


def compete(kind, X, y):
    train, test = (X[::2], y[::2]), (X[1::2], y[1::2])
    return contest.compete("task", kind, train, test, in_memory=(*train, *test))


@pytest.fixture(scope="module")
def wine():
    return compete("classification", *load_wine(return_X_y=True))


@pytest.mark.slow
def test_difference_is_that_of_the_coefficients(wine):
    X, y = load_wine(return_X_y=True)
    theirs = LogisticRegression(C=contest.C, tol=contest.TOL, max_iter=1000, solver="newton-cholesky")
    theirs.fit(StandardScaler().fit_transform(X[::2]), y[::2])
    expected = np.abs(wine.ours.model[-1].coef_ - theirs.coef_).max() / np.abs(theirs.coef_).max()
    assert wine.difference == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert wine.difference < 1e-4


@pytest.mark.slow
def test_both_sides_get_the_same_parameters(wine):
    ours, theirs = (side.model[-1].get_params() for side in (wine.ours, wine.theirs))
    for name in ("C", "tol", "max_iter", "l1_ratio", "fit_intercept", "class_weight"):
        assert ours[name] == theirs[name] or (ours[name], theirs[name]) == (0.0, None)
    assert [type(step).__name__ for _, step in wine.ours.model.steps] == [
        type(step).__name__ for _, step in wine.theirs.model.steps
    ]


@pytest.mark.slow
def test_page_of_several_classes_and_of_amounts(wine, tmp_path):
    diabetes = compete("regression", *load_diabetes(return_X_y=True))
    for result, words in ((wine, "came true"), (diabetes, "on the line is exact")):
        show.write_report(tmp_path / "page.html", [result], n_workers=2)
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert words in html and f"{result.ours.score:.4f}" in html


def test_clock_stamps_lines():
    lines = []
    show.start_clock(lines.append)("starting")
    assert lines == ["   0.0 s  starting"]
