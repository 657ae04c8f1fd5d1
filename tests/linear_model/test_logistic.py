"""LogisticRegression against scikit-learn's, solved to rounding, and against the textbook formula."""

import pickle
import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from packaging.version import parse
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit
from sklearn import datasets
from sklearn import linear_model as reference
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskdml import config_context
from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge

BREAST = StandardScaler().fit_transform(datasets.load_breast_cancer().data), datasets.load_breast_cancer().target
IRIS = datasets.load_iris(return_X_y=True)
DIGITS = datasets.load_digits().data[:600] / 16, datasets.load_digits().target[:600]


def theirs(X, y, sample_weight=None, **params):
    """Fit scikit-learn's to rounding."""
    params = {"solver": "newton-cholesky", "tol": 1e-11, "max_iter": 1000, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.LogisticRegression(**params).fit(X, y, sample_weight)


def same(ours, theirs, tolerance=1e-6):
    """Hold coefficients and intercepts against scikit-learn's, relative to the largest one."""
    for name in ("coef_", "intercept_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.shape == b.shape and a.dtype == np.float64
    a, b = (np.concatenate([m.coef_.ravel(), m.intercept_]) for m in (ours, theirs))
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def objective(model, X, y, C, l1_ratio, weight=None):
    """Evaluate the textbook formula; y holds codes."""
    raw = X @ model.coef_.T + model.intercept_
    weight = np.ones(len(y)) if weight is None else weight
    if raw.shape[1] == 1:
        loss = np.logaddexp(0, raw[:, 0]) - y * raw[:, 0]
    else:
        loss = np.logaddexp.reduce(raw, axis=1) - raw[np.arange(len(y)), y]
    w = model.coef_
    return C * (weight * loss).sum() + l1_ratio * np.abs(w).sum() + (1 - l1_ratio) / 2 * (w**2).sum()


def liblinear(X, y, C=1.0, intercept_scaling=1.0, weight=None):
    """Minimise liblinear's L2 objective by SciPy, to rounding; return coefficients, then the intercept."""
    wide = np.column_stack([X, np.full(len(X), intercept_scaling)])
    weight = np.ones(len(y)) if weight is None else weight

    def value(w):
        raw = wide @ w
        p = expit(raw)
        loss = weight @ (np.logaddexp(0, raw) - y * raw)
        return C * loss + 0.5 * w @ w, C * wide.T @ (weight * (p - y)) + w

    def hessian(w):
        p = expit(wide @ w)
        return C * wide.T @ ((weight * p * (1 - p))[:, None] * wide) + np.eye(len(w))

    w = minimize(value, np.zeros(wide.shape[1]), jac=True, hess=hessian, method="trust-exact", tol=1e-8).x
    # One Newton step more, beyond where differences of values are rounding.
    w = w - np.linalg.solve(hessian(w), value(w)[1])
    return np.append(w[:-1], w[-1] * intercept_scaling)


def violation(model, X, y, C, l1_ratio, intercept_penalised=False):
    """Return how far minus the gradient is from the subdifferential at its farthest, for two classes."""
    wide, w = np.column_stack([X, np.ones(len(X))]), np.append(model.coef_, model.intercept_)
    g = C * wide.T @ (expit(wide @ w) - y)
    free = np.full(len(w), 1.0)
    free[-1] = intercept_penalised
    g += (1 - l1_ratio) * free * w
    off = np.where(w != 0, np.abs(g + l1_ratio * free * np.sign(w)), np.maximum(np.abs(g) - l1_ratio * free, 0))
    # Without an intercept there is no condition on it.
    return (off if model.fit_intercept else off[:-1]).max()


def large(n=60_000, p=10, classes=2, seed=0, scale=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * (10.0 ** np.linspace(-1, 1, p) if scale is None else scale)
    raw = (X / X.std(axis=0)) @ rng.normal(size=(p, classes)) + rng.gumbel(size=(n, classes))
    return X, raw.argmax(axis=1)


# Smooth penalties ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("data", ["breast", "iris", "digits"])
def test_l2(data, C, fit_intercept):
    X, y = {"breast": BREAST, "iris": IRIS, "digits": DIGITS}[data]
    params = {"C": C, "fit_intercept": fit_intercept}
    same(LogisticRegression(**params).fit(X, y), theirs(X, y, **params))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
def test_no_penalty(classes, fit_intercept):
    X, y = large(2000, 6, classes)
    params = {"C": np.inf, "fit_intercept": fit_intercept}
    ours, best = LogisticRegression(**params).fit(X, y), theirs(X, y, **params)
    if classes > 2:
        # A number added to all classes changes nothing: hold the centred coefficients against each other.
        for model in (ours, best):
            model.coef_ = model.coef_ - model.coef_.mean(axis=0)
            model.intercept_ = model.intercept_ - model.intercept_.mean()
    same(ours, best)


@pytest.mark.parametrize("class_weight", [{0: 0.3, 1: 2.0}, {1: 4.0}, "balanced"])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights(class_weight, weighted):
    X, y = BREAST
    weight = np.random.default_rng(0).uniform(0, 3, len(y)) if weighted else None
    ours = LogisticRegression(class_weight=class_weight).fit(X, y, sample_weight=weight)
    same(ours, theirs(X, y, weight, class_weight=class_weight))


@pytest.mark.parametrize("class_weight", [{0: 0.3, 2: 2.0}, "balanced"])
def test_weights_of_three_classes(class_weight):
    X, y = IRIS
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    ours = LogisticRegression(class_weight=class_weight).fit(X, y, sample_weight=weight)
    same(ours, theirs(X, y, weight, class_weight=class_weight))


@pytest.mark.parametrize("intercept_scaling", [0.1, 1.0, 30.0])
def test_objective_of_liblinear(intercept_scaling):
    """The intercept is penalised as the coefficient of a constant feature."""
    X, y = BREAST[0] + 2.0, BREAST[1]
    ours = LogisticRegression(solver="liblinear", intercept_scaling=intercept_scaling).fit(X, y)
    found = liblinear(X, y, intercept_scaling=intercept_scaling)
    theta = np.append(ours.coef_, ours.intercept_)
    assert np.abs(theta - found).max() <= 1e-6 * np.abs(found).max()
    # And it is no worse than what scikit-learn's liblinear finds.
    loose = reference.LogisticRegression(
        solver="liblinear", intercept_scaling=intercept_scaling, tol=1e-10, max_iter=10_000
    ).fit(X, y)
    values = [
        objective(model, X, y, 1.0, 0.0) + 0.5 * (model.intercept_[0] / intercept_scaling) ** 2
        for model in (ours, loose)
    ]
    assert values[0] <= values[1] * (1 + 1e-12)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"])
def test_other_solver_names_change_nothing(solver):
    X, y = BREAST
    np.testing.assert_array_equal(
        LogisticRegression(solver=solver).fit(X, y).coef_, LogisticRegression().fit(X, y).coef_
    )


# Hard columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [3000, 30_000])
def test_means_a_thousand_deviations_away_in_float32(n, classes):
    """The rows that float32 can hold are the data: the same rows in float64 are the reference."""
    X, y = large(n, 5, classes, scale=1.0)
    X = (X + 1000).astype(np.float32)
    centred = X.astype(np.float64) - 1000
    ours = LogisticRegression(tol=1e-7).fit(X, y)
    best = theirs(centred, y)
    assert np.abs(ours.coef_ - best.coef_).max() <= 1e-6 * np.abs(best.coef_).max()
    moved = ours.intercept_ + 1000 * ours.coef_.sum(axis=1)
    np.testing.assert_allclose(moved, best.intercept_, atol=1e-4)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-6), (np.float32, 1e-5)])
def test_features_over_decades(dtype, tolerance):
    X, y = large(5000, 8, scale=10.0 ** np.linspace(-3, 4, 8))
    X = X.astype(dtype)
    # Without a penalty the answer moves with the units: the reference solves the scaled columns.
    size = X.std(axis=0, dtype=np.float64)
    ours = LogisticRegression(C=np.inf).fit(X, y)
    best = theirs(X / size, y, C=np.inf)
    np.testing.assert_allclose(ours.coef_ * size, best.coef_, atol=tolerance * np.abs(best.coef_).max())
    np.testing.assert_allclose(ours.intercept_, best.intercept_, atol=tolerance)


def test_constant_and_repeated_columns():
    X, y = large(2000, 4, scale=1.0)
    X = np.column_stack([X, np.full(2000, 3.0), np.zeros(2000), X[:, 0]])
    same(LogisticRegression().fit(X, y), theirs(X, y))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-6), (np.float32, 2e-6)])
def test_above_the_size_of_the_pilot(classes, dtype, tolerance):
    X, y = large(60_000, 10, classes)
    X = X.astype(dtype)
    ours = LogisticRegression(tol=1e-8).fit(X, y)
    same(ours, theirs(X.astype(np.float64), y), tolerance)
    assert ours.fit_report_.passes <= 10


@pytest.mark.parametrize("memory", ["pinned", "mmap", "stream"])
@pytest.mark.parametrize("columns", [(10,), (3, 6, 1)], ids=["whole", "panels"])
@pytest.mark.parametrize("classes", [2, 3])
def test_however_blocks_wait(memory, columns, classes):
    """In memory, on disk or read again each pass; whole rows or panels of columns."""
    import dask.array as da

    X, y = large(60_000, 10, classes)
    with config_context(memory=memory):
        ours = LogisticRegression(tol=1e-8).fit(da.from_array(X, chunks=(7000, columns)), da.from_array(y, chunks=9000))
    same(ours, theirs(X, y))
    assert memory == "pinned" or memory in str(ours.fit_report_)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kept", [slice(3, None, 20), slice(0, 500)], ids=["every twentieth", "the first"])
def test_weights_that_leave_little_of_the_pilot(kept, classes):
    X, y = large(60_000, 6, classes)
    weight = np.zeros(60_000)
    weight[kept] = 2.0
    ours = LogisticRegression(tol=1e-8).fit(X, y, sample_weight=weight)
    same(ours, theirs(X[kept], y[kept], weight[kept]))


def test_default_tol_above_the_size_of_the_pilot():
    """The certificate: a relative gap of tol squared."""
    X, y = large(60_000, 10)
    ours, best = LogisticRegression().fit(X, y), theirs(X, y)
    values = [objective(model, X, y, 1.0, 0.0) for model in (ours, best)]
    assert values[0] <= values[1] * (1 + 1e-8)
    assert ours.fit_report_.gap <= 1e-8
    assert ours.fit_report_.passes <= 6


def test_pilot_that_misleads():
    """A pilot without the rare rows that matter: the fit on all rows corrects it."""
    X, y = large(60_000, 4, scale=1.0)
    rare = np.arange(60_000) % 5000 == 17
    X = np.column_stack([X, np.where(rare, 300.0, 0.0) * np.random.default_rng(1).normal(size=60_000)])
    same(LogisticRegression(tol=1e-8).fit(X, y), theirs(X, y))


@pytest.mark.parametrize("C", [np.inf, 1.0])
@pytest.mark.parametrize("first", [0, 1, 3, 12])
def test_rare_category_that_the_pilot_misses(first, C):
    """Eight rows of 60,000, none to three of them in the pilot: without a penalty it knows no curvature for them."""
    X, y = large(60_000, 6, scale=1.0)
    rare = np.zeros(60_000)
    rare[first : first + 8] = 1
    y[first : first + 8] = [0, 1, 1, 1, 0, 1, 1, 0]
    X = np.column_stack([X, rare])
    best = theirs(X, y, C=C)
    same(LogisticRegression(C=C, tol=1e-9).fit(X, y), best)
    quick = LogisticRegression(C=C).fit(X, y)
    values = [objective(model, X, y, min(C, 1e15), 0.0) for model in (quick, best)]
    assert values[0] <= values[1] * (1 + 1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e-3])
@pytest.mark.parametrize("n, k, seed", [(60_000, 6, 0), (60_000, 12, 3), (200_000, 12, 1), (30_000, 2, 2)])
def test_rare_category_of_which_the_pilot_sees_one_class(n, k, seed, size, dtype):
    """The pilot's optimum lies at infinity, that of all rows does not; a column's unit makes no difference."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = (rng.random(n) < 1 / (1 + np.exp(-X @ [1, -1, 0.5, 0]))).astype(int)
    X[:, 3] = 0.0
    X[rng.choice(np.flatnonzero(y == 1), k - 1, replace=False), 3] = size
    X[np.flatnonzero(y == 0)[0], 3] = size
    X = X.astype(dtype)
    scale = np.array([1, 1, 1, float(X[:, 3].max())])
    best = theirs(X / scale, y, C=np.inf)
    ours = LogisticRegression(C=np.inf).fit(X, y)
    assert ours.fit_report_.converged
    raw = [model.decision_function(A.astype(float)) for model, A in ((ours, X), (best, X / scale))]
    loss = [np.mean(np.logaddexp(0, r) - y * r) for r in raw]
    assert loss[0] <= loss[1] * (1 + 1e-8)


@pytest.mark.parametrize("n, k", [(30_000, 3), (60_000, 20), (200_000, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pure_category_that_is_left_out_separates(n, k, seed):
    """Dummies of all categories but one: in none of them alone, and in hardly a row, is seen that the one is pure."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = (rng.random(n) < 1 / (1 + np.exp(-X @ [1, -1, 0.5]))).astype(int)
    category = rng.integers(1, 5, n)
    category[rng.choice(np.flatnonzero(y == 1), k, replace=False)] = 0
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(np.hstack([X, np.eye(5)[category][:, 1:]]), y)


def test_two_columns_of_four_rows_that_separate_together():
    X, y = large(60_000, 3)
    pair = np.zeros((60_000, 2))
    pair[np.flatnonzero(y == 1)[:2]] = [[1, 0], [2, 1]]
    pair[np.flatnonzero(y == 0)[:2]] = [[1, 1], [1, 1.5]]
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(np.hstack([X, pair]), y)


@pytest.mark.parametrize("every", [20_000, 6000, 700])
@pytest.mark.parametrize("seed", [0, 1])
def test_rare_class(every, seed):
    """A class of so few rows that the pilot may hold none of them."""
    X, y = large(60_000, 4, scale=1.0)
    y = np.where(np.arange(60_000) % every == 5, 1, 0)
    same(LogisticRegression(tol=1e-8, random_state=seed).fit(X, y), theirs(X, y))


def test_random_state_changes_the_answer_within_tol_only():
    X, y = large(60_000, 10)
    a, b = (LogisticRegression(tol=1e-8, random_state=seed).fit(X, y) for seed in (1, 2))
    assert (a.coef_ != b.coef_).any()
    same(a, b)


# L1 and elastic net --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("C", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("data", ["breast", "iris"])
def test_l1(data, C, l1_ratio):
    X, y = {"breast": BREAST, "iris": (IRIS[0] - IRIS[0].mean(axis=0), IRIS[1])}[data]
    ours = LogisticRegression(C=C, l1_ratio=l1_ratio).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = reference.LogisticRegression(
            C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-7, max_iter=3000, random_state=0
        ).fit(X, y)
    assert objective(ours, X, y, C, l1_ratio) <= objective(best, X, y, C, l1_ratio) * (1 + 1e-6)
    assert 0 <= ours.fit_report_.gap <= 1e-6
    if l1_ratio == 1.0 and C < 10:
        assert 0 < np.count_nonzero(ours.coef_ == 0)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_l1_against_liblinear(fit_intercept):
    X, y = BREAST
    params = {"C": 0.1, "l1_ratio": 1.0, "solver": "liblinear", "fit_intercept": fit_intercept}
    ours = LogisticRegression(**params).fit(X, y)
    best = reference.LogisticRegression(**params, tol=1e-10, max_iter=10_000, random_state=0).fit(X, y)

    def value(model):
        # liblinear penalises the intercept too.
        return objective(model, X, y, 0.1, 1.0) + np.abs(model.intercept_).sum()

    assert value(ours) <= value(best) * (1 + 1e-12)
    assert violation(ours, X, y, 0.1, 1.0, intercept_penalised=True) <= 1e-6


def test_strong_l1_leaves_nothing():
    for X, y in (BREAST, IRIS):
        for fit_intercept in (True, False):
            model = LogisticRegression(C=1e-5, l1_ratio=1, fit_intercept=fit_intercept).fit(X, y)
            assert not model.coef_.any()


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_l1_above_the_size_of_the_pilot(dtype, l1_ratio):
    """The bound of the report holds: the optimum, found by scikit-learn on the rows without repeats, is no lower."""
    X, y = large(3000, 8, scale=1.0)
    X = X.astype(dtype)
    many = np.tile(X, (15, 1)), np.tile(y, 15)
    ours = LogisticRegression(C=0.002, l1_ratio=l1_ratio).fit(*many)
    best = theirs(X.astype(float), y, C=0.03, l1_ratio=l1_ratio, solver="saga", random_state=0)
    assert violation(best, X.astype(float), y, 0.03, l1_ratio) <= 1e-6
    assert ours.fit_report_.gap <= (1e-8 if dtype == np.float64 else 1e-6)
    a, b = (objective(model, X.astype(float), y, 0.03, l1_ratio) for model in (ours, best))
    assert a <= b * (1 + 2e-8)
    np.testing.assert_array_equal(ours.coef_ == 0, best.coef_ == 0)


# Too many columns for a Hessian --------------------------------------------------------------------------------------


def thin(n=3000, p=2000, per_row=15, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, p, (n, per_row))
    X = sparse.csr_matrix((rng.normal(size=n * per_row), columns.ravel(), np.arange(n + 1) * per_row), shape=(n, p))
    y = (X @ (rng.normal(size=p) * (rng.random(p) < 0.1)) + 0.5 * rng.logistic(size=n) > 0).astype(int)
    return X, y


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_sparse_with_many_columns(C):
    X, y = thin()
    same(LogisticRegression(C=C).fit(X, y), theirs(X, y, C=C, solver="newton-cg", tol=1e-12))


def test_sparse_with_many_columns_and_three_classes():
    X, y = thin(2000, 800)
    y = y + (X[:, :400].sum(axis=1).A1 > 0)
    same(LogisticRegression().fit(X, y), theirs(X, y, solver="newton-cg", tol=1e-12))


@pytest.mark.parametrize("C", [1e-4, 0.5])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_with_many_columns_and_l1(C, fit_intercept):
    X, y = thin()
    params = {"C": C, "l1_ratio": 1, "fit_intercept": fit_intercept}
    ours = LogisticRegression(**params).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = reference.LogisticRegression(**params, solver="saga", tol=1e-6, max_iter=1000).fit(X, y)
    assert objective(ours, X, y, C, 1.0) <= objective(best, X, y, C, 1.0) * (1 + 1e-6)
    assert ours.fit_report_.gap <= 1e-6


def test_sparse_above_the_size_of_the_pilot():
    X, y = thin(40_000, 700, 10)
    ours = LogisticRegression(tol=1e-7).fit(X, y)
    same(ours, theirs(X, y, solver="newton-cg", tol=1e-10), 1e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_wide_and_short(fit_intercept):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3500))
    y = (X[:, 0] > 0).astype(int)
    params = {"C": 1e-3, "fit_intercept": fit_intercept}
    same(LogisticRegression(**params).fit(X, y), theirs(X, y, **params, solver="newton-cg", tol=1e-13))


# Warnings and starts -------------------------------------------------------------------------------------------------


def test_separable_without_penalty_warns():
    X = np.linspace(-1, 1, 50)[:, None]
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(X, (X[:, 0] > 0.1).astype(int))
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(np.column_stack([X, X**2]), np.digitize(X[:, 0], [-0.3, 0.3]))


def test_not_separable_without_penalty_does_not_warn():
    X, y = large(2000, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticRegression(C=np.inf).fit(X, y)


def rare_category(n, classes=2, separated=True, seed=0):
    """Return (X, y) whose last column is 1 in eight rows, of one class or of all; nothing else separates."""
    X, y = large(n, 6, classes, seed, scale=1.0)
    rows = np.arange(n) < 8
    y[rows] = classes - 1 if separated else np.arange(8) % classes
    return np.column_stack([X, rows]), y


def dropped_category(n, classes=2, separated=True, seed=0):
    """Return (X, y) with five categories, the first of them without a column and perhaps of one class."""
    X, y = large(n, 4, classes, seed, scale=1.0)
    category = np.random.default_rng(seed).integers(0, 5, n)
    y = np.where((category == 0) & separated, 0, y)
    return np.column_stack([X, category[:, None] == np.arange(1, 5)]), y


@pytest.mark.parametrize("as_given", [np.asarray, np.float32, sparse.csr_matrix], ids=["float64", "float32", "csr"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [3000, 60_000])
@pytest.mark.parametrize("data", [rare_category, dropped_category])
def test_separable_in_some_rows(data, n, classes, as_given):
    """The loss falls for ever along a direction that few rows know of: it warns; where they disagree it does not."""
    X, y = data(n, classes)
    with pytest.warns(ConvergenceWarning, match="separable by .* no finite optimum"):
        model = LogisticRegression(C=np.inf).fit(as_given(X), y)
    assert not model.fit_report_.converged
    X, y = data(n, classes, separated=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LogisticRegression(C=np.inf).fit(as_given(X), y).fit_report_.converged


def test_the_column_that_separates_is_named():
    import pandas as pd

    X, y = rare_category(3000)
    with pytest.warns(ConvergenceWarning, match="the column.s. 'rare' of X"):
        LogisticRegression(C=np.inf).fit(pd.DataFrame(X, columns=[*"abcdef", "rare"]), y)


@pytest.mark.parametrize("n", [3000, 60_000])
def test_separable_in_some_rows_of_column_chunks(n):
    import dask.array as da

    for separated in (True, False):
        X, y = rare_category(n, 3, separated)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            LogisticRegression(C=np.inf).fit(da.from_array(X, chunks=(n // 3, (4, 3))), y)
        assert any("separable" in str(warning.message) for warning in caught) == separated


def test_rows_without_weight_do_not_count_against_separation():
    X, y = rare_category(3000)
    y[0] = 0
    weight = (np.arange(3000) > 0).astype(float)
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(X, y, sample_weight=weight)


def test_cut_without_an_intercept():
    """A column of ones and twos separates only with an intercept."""
    X, y = rare_category(3000)
    X[:, -1] += 1
    with pytest.warns(ConvergenceWarning, match="separable"):
        LogisticRegression(C=np.inf).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticRegression(C=np.inf, fit_intercept=False).fit(X, y)


@pytest.mark.parametrize("n", [3000, 60_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda X, rng: (X, 8 * X[:, 0] + 4 * X[:, 1]),
        lambda X, rng: (X, 40 * X[:, 0]),
        lambda X, rng: (X, np.full(len(X), -6.0)),
        lambda X, rng: (rng.standard_cauchy(X.shape), X[:, 0]),
        lambda X, rng: (np.exp(3 * X), X[:, 0]),
        lambda X, rng: (np.column_stack([np.sinh(3 * X[:, 0]), X[:, 1:]]), X[:, 0]),
        lambda X, rng: (X * 10.0 ** np.arange(-3, 3), 2 * X[:, 0]),
        lambda X, rng: (np.column_stack([X, X[:, 0] + X[:, 1], np.ones(len(X))]), X[:, 0]),
    ],
    ids=["strong", "very strong", "rare class", "cauchy", "lognormal", "sinh", "decades", "dependent"],
)
def test_hard_but_not_separable_does_not_warn(n, make):
    rng = np.random.default_rng(0)
    X, raw = make(rng.normal(size=(n, 6)), rng)
    y = (raw + rng.logistic(size=n) > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticRegression(C=np.inf).fit(X, y)


def test_too_few_steps_warn():
    X, y = large(60_000, 10)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 step.*max_iter"):
        model = LogisticRegression(max_iter=1, tol=1e-10).fit(X, y)
    assert model.n_iter_[0] == 1 and not model.fit_report_.converged


@pytest.mark.parametrize("n", [500, 60_000])
def test_warm_start(n):
    X, y = large(n, 6)
    model = LogisticRegression(warm_start=True, tol=1e-8).fit(X, y)
    cold, coef = model.n_iter_[0], model.coef_
    model.fit(X, y)
    assert model.n_iter_[0] < max(cold, 2)
    assert np.abs(model.coef_ - coef).max() <= 1e-6 * np.abs(coef).max()
    # Rows of another shape, and other classes, start afresh.
    same(model.fit(X[:, :3], y), theirs(X[:, :3], y))
    three = np.where(X[:, 0] > X[:, 0].std(), 2, y)
    same(model.fit(X, three), theirs(X, three))


def test_warm_start_from_a_far_point():
    X, y = BREAST
    model = LogisticRegression(warm_start=True).fit(X, y)
    model.coef_ = np.full_like(model.coef_, 50.0)
    same(model.fit(X, y), theirs(X, y))


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new",
    [
        ({"penalty": "l2"}, {}),
        ({"penalty": "l1"}, {"l1_ratio": 1}),
        ({"penalty": "elasticnet", "l1_ratio": 0.4}, {"l1_ratio": 0.4}),
        ({"penalty": None}, {"C": np.inf}),
    ],
    ids=str,
)
def test_deprecated_penalty(old, new):
    X, y = large(500, 4)
    with warnings.catch_warnings(), pytest.warns(FutureWarning, match="'penalty' is deprecated"):
        warnings.filterwarnings("ignore", "Inconsistent values")
        ours = LogisticRegression(**old).fit(X, y)
    np.testing.assert_array_equal(ours.coef_, LogisticRegression(**new).fit(X, y).coef_)


def test_deprecated_n_jobs():
    with pytest.warns(FutureWarning, match="n_jobs"):
        LogisticRegression(n_jobs=2).fit(*BREAST)


@pytest.mark.parametrize(
    "params, match",
    [
        ({"solver": "liblinear", "C": np.inf}, "not supported for the liblinear"),
        ({"dual": True}, "dual=True"),
        ({"class_weight": {0: 1.0, 5: 2.0}}, r"classes, \[1\], are not in class_weight, whose keys are \[0, 5\]"),
        ({"class_weight": {0: 0, 1: 0}}, "weights of all rows are zero"),
        ({"class_weight": {0: 0, 1: 1}}, "all the weight is on the class 1"),
        ({"solver": "liblinear", "l1_ratio": 0.5}, "L2 or an L1 penalty only, got elastic net"),
        ({"class_weight": {0: -1.0}}, ">= 0"),
    ],
    ids=str,
)
def test_refused_combinations(params, match):
    with pytest.raises(ValueError, match=match):
        LogisticRegression(**params).fit(*BREAST)


@pytest.mark.parametrize(
    "params",
    [
        {"penalty": "l2", "l1_ratio": 0.5}, {"penalty": None, "l1_ratio": 0.5}, {"penalty": "l1", "l1_ratio": 0.5},
        {"penalty": "l1"}, {"penalty": "l2", "l1_ratio": None}, {"C": np.inf, "l1_ratio": 0.5}, {"l1_ratio": None},
        {"penalty": None, "C": 2.0}, {"penalty": "l2"}, {"penalty": "elasticnet", "l1_ratio": 0.5}, {"l1_ratio": 0.5},
        {"penalty": None}, {"penalty": "l1", "l1_ratio": 1}, {"C": np.inf, "l1_ratio": 1},
    ],
    ids=str,
)  # fmt: skip
def test_warnings_of_inconsistent_penalties_are_scikit_learns(params):
    if np.isinf(params.get("C", 1.0)) and parse(sklearn.__version__) < parse("1.9"):
        pytest.skip("scikit-learn 1.8 takes an infinite C for a mistake")
    X, y = large(300, 3, scale=1.0)
    said = []
    for model in (LogisticRegression(solver="saga", **params), reference.LogisticRegression(solver="saga", **params)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.set_params(max_iter=1000).fit(X, y)
        text = " | ".join(str(warning.message) for warning in caught)
        phrases = ("only used when penalty is", "Inconsistent values", "l1_ratio=None'", "ignore the C", "deprecated")
        said.append([phrase in text for phrase in phrases])
    assert said[0] == said[1]


@pytest.mark.parametrize("class_weight", [{0: 1, 1: 2, 5: 1}, {1: 3}, {}], ids=str)
def test_class_weight_with_other_keys(class_weight):
    same(LogisticRegression(class_weight=class_weight).fit(*BREAST), theirs(*BREAST, class_weight=class_weight))


def test_all_weight_on_one_class_of_a_penalised_model():
    """No intercept, or liblinear's: there is an optimum."""
    X, y = BREAST
    params = {"class_weight": {0: 0, 1: 1}, "fit_intercept": False}
    same(LogisticRegression(**params).fit(X, y), theirs(X, y, **params))
    ours = LogisticRegression(class_weight={0: 0, 1: 1}, solver="liblinear").fit(X, y)
    found = liblinear(X, y, weight=y.astype(float))
    assert np.abs(np.append(ours.coef_, ours.intercept_) - found).max() <= 1e-6 * np.abs(found).max()


def test_liblinear_refuses_three_classes():
    with pytest.raises(ValueError, match="does not support multiclass"):
        LogisticRegression(solver="liblinear").fit(*IRIS)


def test_parameters_are_scikit_learns():
    ours, best = LogisticRegression().get_params(), reference.LogisticRegression().get_params()
    assert best.keys() <= ours.keys()
    for name, value in best.items():
        assert ours[name] == value, name


# Around it -----------------------------------------------------------------------------------------------------------


def test_in_scikit_learns_tools():
    X, y = BREAST
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.01, 1.0]})
    assert search.fit(X, y).best_score_ > 0.95
    scores = cross_val_score(LogisticRegression(), X, y, scoring="roc_auc")
    expected = cross_val_score(reference.LogisticRegression(tol=1e-10, max_iter=1000), X, y, scoring="roc_auc")
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("data", [BREAST, IRIS], ids=["breast", "iris"])
def test_predictions_are_scikit_learns(data):
    X, y = data
    ours, best = LogisticRegression().fit(X, y), theirs(X, y)
    for name in ("decision_function", "predict_proba", "predict_log_proba"):
        np.testing.assert_allclose(getattr(ours, name)(X), getattr(best, name)(X), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), best.predict(X))
    assert ours.score(X, y) == best.score(X, y)
    assert ours.n_iter_.dtype == np.int32 and ours.n_iter_.shape == (1,)


def test_prediction_from_a_pickle_touches_no_dask(tmp_path):
    model = LogisticRegression().fit(*BREAST)
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(model))
    code = (
        f"import pickle, sys, numpy as np\nmodel = pickle.load(open({str(path)!r}, 'rb'))\n"
        "before = set(sys.modules)\nmodel.predict(np.zeros((3, 30))); model.predict_proba(np.zeros((3, 30)))\n"
        "print(*[name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == []


def test_prediction_of_one_row_is_quick():
    from time import perf_counter

    model = LogisticRegression().fit(*BREAST)
    row = BREAST[0][:1]
    best = np.inf
    for _ in range(200):
        start = perf_counter()
        model.predict(row)
        best = min(best, perf_counter() - start)
    assert best < 100e-6


@pytest.mark.parametrize(
    "params, solver",
    [
        ({}, "lbfgs"), ({"solver": "newton-cholesky"}, "newton-cholesky"), ({"C": np.inf, "l1_ratio": 1}, "lbfgs"),
        ({"l1_ratio": 0.5}, "saga"), ({"l1_ratio": 1, "solver": "newton-cg"}, "saga"), ({"l1_ratio": 1.0}, "saga"),
        ({"penalty": "l1"}, "saga"), ({"l1_ratio": 1, "solver": "liblinear"}, "liblinear"),
        ({"solver": "liblinear", "dual": True}, "liblinear"),
    ],
    ids=str,
)  # fmt: skip
def test_the_twin_can_be_fitted_again(params, solver):
    """And comes to where ours is."""
    X, y = BREAST
    ours = LogisticRegression(C=params.pop("C", 0.1), **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if np.isinf(ours.C):
            X, y = large(1000, 4)
        twin = ours.fit(X, y).to_sklearn()
        assert twin.solver == solver
        np.testing.assert_array_equal(twin.coef_, ours.coef_)
        cross_val_score(twin, X, y, cv=2)
        twin.set_params(tol=1e-8, max_iter=20_000).fit(X, y)
    np.testing.assert_allclose(twin.coef_, ours.coef_, atol=1e-3 * np.abs(ours.coef_).max())


@pytest.mark.parametrize(
    "model, method",
    [
        (LogisticRegression(), "to_sklearn"), (LinearRegression(), "to_sklearn"), (Ridge(), "to_sklearn"),
        (LogisticRegression(), "sparsify"), (LogisticRegression(), "densify"),
    ],
)  # fmt: skip
def test_what_needs_a_fit_says_so(model, method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(model, method)()


@pytest.mark.parametrize("data", [BREAST, IRIS], ids=["breast", "iris"])
def test_sparsify_and_densify(data):
    import dask.array as da

    X, y = data
    model = LogisticRegression(l1_ratio=1, C=0.1, warm_start=True).fit(X, y)
    theirs_too = model.to_sklearn().sparsify()
    coef, raw, p = model.coef_, model.decision_function(X), model.predict_proba(X)
    assert model.sparsify() is model and isinstance(model.coef_, type(theirs_too.coef_))
    for one in (model, pickle.loads(pickle.dumps(model)), model.sparsify()):
        np.testing.assert_array_equal(one.coef_.toarray(), coef)
        np.testing.assert_array_equal(one.decision_function(X), raw)
        np.testing.assert_array_equal(one.predict_proba(X), p)
        np.testing.assert_array_equal(one.predict(da.from_array(X, chunks=(50, 2))).compute(), one.predict(X))
    assert one.score(X, y) == model.to_sklearn().score(X, y)
    np.testing.assert_allclose(np.squeeze(model.to_sklearn().decision_function(X)), raw)
    assert model.densify() is model
    np.testing.assert_array_equal(model.coef_, coef)
    # A warm start from sparse coefficients; a fit leaves dense ones.
    assert isinstance(model.sparsify().fit(X, y).coef_, np.ndarray)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)


def test_verbose_draws_and_says_where(capsys):
    LogisticRegression(verbose=1).fit(*BREAST)
    out = "".join(capsys.readouterr())
    assert "in this process" in out and "gap" in out


@pytest.mark.cluster
def test_on_a_cluster(cluster_client):
    """On workers: the bits of the in-process fit of the same chunks."""
    import dask.array as da

    X, y = large(60_000, 10, 3)
    lazy = da.from_array(X, chunks=(9000, -1)), da.from_array(y, chunks=9000)
    there = LogisticRegression(tol=1e-7).fit(*lazy)
    assert "2 workers" in str(there.fit_report_)
    with config_context(runtime="threads"):
        here = LogisticRegression(tol=1e-7).fit(*lazy)
    np.testing.assert_array_equal(there.coef_, here.coef_)
    np.testing.assert_array_equal(there.intercept_, here.intercept_)
    assert (there.predict(lazy[0]).compute() == here.predict(X)).all()


def test_values_whose_squares_overflow_are_refused():
    """Zero coefficients would be a wrong answer without a word."""
    X, y = np.random.default_rng(0).normal(size=(300, 4)), np.arange(300) % 2
    with pytest.raises(ValueError, match="too large for float64"):
        LogisticRegression().fit(X * 1e200, y)


# What y may be -------------------------------------------------------------------------------------------------------


def test_a_column_of_any_kind_is_a_target():
    X, y = BREAST
    expected = LogisticRegression().fit(X, y)
    frame = pd.DataFrame({"y": y})
    for column in (y[:, None], frame, pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        with pytest.warns(DataConversionWarning, match="column-vector y"):
            np.testing.assert_array_equal(LogisticRegression().fit(X, column).coef_, expected.coef_)


def test_what_is_no_target_is_refused_in_one_sentence():
    X, y = BREAST
    with pytest.raises(TypeError, match="^Expected a Dask array or DataFrame, got Delayed; make one with from_delayed"):
        LogisticRegression().fit(X, dask.delayed(y))
    two = dd.from_pandas(pd.DataFrame({"y": y, "z": 0}), npartitions=2)
    with pytest.raises(ValueError, match=r"^y should be a 1d array, got an array of shape \(n, 2\) instead\.$"):
        LogisticRegression().fit(X, two)


def test_chunks_narrower_than_promised_are_named():
    promised = da.from_array(BREAST[0], chunks=(200, -1))
    lazy = promised.map_blocks(lambda chunk: chunk[:, :3], dtype=float, meta=np.empty((0, 30)))
    for model in (LogisticRegression(), Ridge()):
        with pytest.raises(ValueError, match=r"^Chunk \d: X has 3 columns where its metadata promise 30; state"):
            model.fit(lazy, BREAST[1])


def test_no_parameter_range_ends_before_what_is_accepted():
    with pytest.raises(ValueError) as ours:
        LogisticRegression(C=0).fit(*BREAST)
    with pytest.raises(ValueError) as theirs:
        reference.LogisticRegression(C=0).fit(*BREAST)
    assert str(ours.value) == str(theirs.value)
