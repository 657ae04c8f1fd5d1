"""LinearRegression and Ridge against scikit-learn's and against the normal equations in extended precision."""

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn import datasets
from sklearn import linear_model as reference
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskdml import config_context
from daskdml.linear_model import LinearRegression, Ridge

DIABETES = datasets.load_diabetes(return_X_y=True)


def same(ours, theirs, tolerance=1e-6):
    assert ours.coef_.shape == theirs.coef_.shape and ours.coef_.dtype == np.float64
    assert np.shape(ours.intercept_) == np.shape(theirs.intercept_)
    scale = np.abs(theirs.coef_).max()
    assert np.abs(ours.coef_ - theirs.coef_).max() <= tolerance * scale
    size = max(1, np.abs(theirs.intercept_).max())
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=tolerance * size)


def rows(n=2000, p=8, targets=None, seed=0, condition=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    if condition > 1:
        u, _, v = np.linalg.svd(X, full_matrices=False)
        X = np.sqrt(n) * (u * np.geomspace(1, 1 / condition, p)) @ v
    W = rng.normal(size=(p, targets) if targets else p)
    noise = rng.normal(size=(n, targets) if targets else n)
    return X, X @ W + 3.0 + 0.5 * noise


def exact(X, y, alpha=0.0, weight=None, fit_intercept=True):
    """Solve the normal equations in extended precision, by elimination with pivots."""
    X, y = X.astype(np.longdouble), y.astype(np.longdouble)
    weight = np.ones(len(y), dtype=np.longdouble) if weight is None else weight.astype(np.longdouble)
    if fit_intercept:
        mean_x, mean_y = (weight @ X) / weight.sum(), (weight @ y) / weight.sum()
        X, y = X - mean_x, y - mean_y
    A = np.column_stack([X.T @ (X * weight[:, None]) + alpha * np.eye(X.shape[1]), X.T @ (weight * y)])
    p = len(A)
    for j in range(p):
        pivot = j + np.abs(A[j:, j]).argmax()
        A[[j, pivot]] = A[[pivot, j]]
        A[j] /= A[j, j]
        others = np.arange(p) != j
        A[others] -= A[others, j][:, None] * A[j]
    coef = A[:, -1]
    return coef.astype(float), float(mean_y - mean_x @ coef) if fit_intercept else 0.0


# Plain ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_linear_regression(weighted, targets, fit_intercept):
    X, y = rows(targets=targets)
    weight = np.random.default_rng(0).uniform(0, 3, len(X)) if weighted else None
    ours = LinearRegression(fit_intercept=fit_intercept).fit(X, y, sample_weight=weight)
    same(ours, reference.LinearRegression(fit_intercept=fit_intercept).fit(X, y, weight), 1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_ridge(alpha, weighted, targets, fit_intercept):
    X, y = rows(targets=targets)
    weight = np.random.default_rng(0).uniform(0, 3, len(X)) if weighted else None
    params = {"alpha": alpha, "fit_intercept": fit_intercept}
    ours = Ridge(**params).fit(X, y, sample_weight=weight)
    same(ours, reference.Ridge(**params, solver="cholesky").fit(X, y, weight), 1e-10)


@pytest.mark.parametrize("alpha", [["a"], [1.0, np.nan], [-1.0], [None], -1.0, np.inf, "x", 1j], ids=str)
def test_alpha_that_is_no_strength_is_a_sentence(alpha):
    with pytest.raises(ValueError, match="alpha.* must (hold|be)"):
        Ridge(alpha=alpha).fit(*rows())


def test_alpha_per_target():
    X, y = rows(targets=3)
    alpha = np.array([0.1, 10.0, 1000.0])
    same(Ridge(alpha=alpha).fit(X, y), reference.Ridge(alpha=alpha).fit(X, y), 1e-10)
    with pytest.raises(ValueError, match="Number of targets and number of penalties do not correspond: 2 != 3"):
        Ridge(alpha=[1.0, 2.0]).fit(X, y)


def test_alpha_of_zero_is_least_squares():
    X, y = rows()
    same(Ridge(alpha=0).fit(X, y), reference.LinearRegression().fit(X, y), 1e-10)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge()], ids=["ols", "ridge"])
def test_real_data(model):
    X, y = DIABETES
    twin = getattr(reference, type(model).__name__)()
    same(model.fit(X, y), twin.fit(X, y), 1e-9)
    np.testing.assert_allclose(model.predict(X), twin.predict(X), rtol=1e-9)
    assert model.score(X, y) == pytest.approx(twin.score(X, y), rel=1e-10)


# Hard ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1e3, 1e5, 1e6])
def test_ill_conditioned_columns(condition):
    """What a Gram matrix alone would lose, the residual pass gives back."""
    X, y = rows(3000, 10, condition=condition)
    ours = LinearRegression().fit(X, y)
    coef, intercept = exact(X, y)
    assert np.abs(ours.coef_ - coef).max() <= 1e-6 * np.abs(coef).max()
    assert abs(ours.intercept_ - intercept) <= 1e-6 * max(1, abs(intercept))
    # Two thirds of a pass are the thousand rows for the shift, read twice.
    assert ours.fit_report_.passes <= {1e3: 1.7, 1e5: 2.7, 1e6: 3.7}[condition]


def test_ill_conditioned_by_units():
    """Columns over five decades; beyond six, small ones are left out as in scikit-learn 1.9."""
    X, y = rows(3000, 6)
    units = 10.0 ** np.arange(-2, 4)
    ours = LinearRegression().fit(X * units, y)
    coef, _ = exact(X, y)
    np.testing.assert_allclose(ours.coef_ * units, coef, rtol=1e-8)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(alpha=5.0)], ids=["ols", "ridge"])
@pytest.mark.parametrize("n", [2000, 60_000])
def test_means_a_thousand_deviations_away_in_float32(model, n):
    X, y = rows(n, 5)
    X = (X + 1000).astype(np.float32)
    ours = model.fit(X, y)
    coef, intercept = exact(X, y, alpha=getattr(model, "alpha", 0.0))
    assert np.abs(ours.coef_ - coef).max() <= 1e-6 * np.abs(coef).max()
    assert abs(ours.intercept_ - intercept) <= 1e-6 * abs(intercept)


def test_targets_far_from_zero():
    X, y = rows()
    ours = LinearRegression().fit(X, y + 1e9)
    coef, _ = exact(X, y + 1e9)
    np.testing.assert_allclose(ours.coef_, coef, atol=1e-6 * np.abs(coef).max())


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 2])
def test_rank_deficient_gives_the_least_norm(targets, fit_intercept):
    X, y = rows(500, 6, targets)
    X = np.column_stack([X, X[:, 0] + X[:, 1], X[:, 2], np.zeros(500), np.full(500, 2.0)])
    ours = LinearRegression(fit_intercept=fit_intercept).fit(X, y)
    theirs = reference.LinearRegression(fit_intercept=fit_intercept).fit(X, y)
    same(ours, theirs, 1e-7)
    assert ours.rank_ == theirs.rank_
    np.testing.assert_allclose(ours.singular_, theirs.singular_, rtol=1e-6, atol=1e-5 * theirs.singular_[0])


@pytest.mark.parametrize("model", [LinearRegression(), LinearRegression(fit_intercept=False)])
def test_more_columns_than_rows_gives_the_least_norm(model):
    X, y = rows(30, 100)
    same(model.fit(X, y), reference.LinearRegression(fit_intercept=model.fit_intercept).fit(X, y), 1e-6)


def test_ridge_with_more_columns_than_rows():
    X, y = rows(50, 300)
    same(Ridge(alpha=0.1).fit(X, y), reference.Ridge(alpha=0.1, solver="svd").fit(X, y), 1e-7)


# Non-negative --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [None, 2])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_positive_linear_regression(targets, fit_intercept):
    X, y = rows(targets=targets)
    params = {"positive": True, "fit_intercept": fit_intercept}
    ours = LinearRegression(**params).fit(X, y)
    assert ours.coef_.min() == 0.0
    same(ours, reference.LinearRegression(**params).fit(X, y), 1e-7)


def test_positive_ridge():
    """Optimality: where a coefficient is positive the slope is zero, elsewhere it does not point inwards."""
    X, y = rows()
    ours = Ridge(alpha=10.0, positive=True).fit(X, y)
    slope = X.T @ (X @ ours.coef_ + ours.intercept_ - y) + 10.0 * ours.coef_
    assert ours.coef_.min() == 0.0 < ours.coef_.max()
    assert np.abs(slope[ours.coef_ > 0]).max() <= 1e-6 * np.abs(X.T @ y).max()
    assert slope[ours.coef_ == 0].min() >= -1e-6 * np.abs(X.T @ y).max()
    same(ours, reference.Ridge(alpha=10.0, positive=True, tol=1e-12, max_iter=100_000).fit(X, y), 1e-4)


@pytest.mark.parametrize("correlated", [False, True])
def test_positive_with_many_columns(correlated):
    """A thousand columns are solved in seconds, to the optimality conditions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 1000))
    if correlated:
        X += 3 * rng.normal(size=(3000, 1))
    y = X @ np.maximum(rng.normal(size=1000), 0) + rng.normal(size=3000)
    for ours, alpha in ((Ridge(alpha=10.0, positive=True), 10.0), (LinearRegression(positive=True), 0.0)):
        coef = ours.fit(X, y).coef_
        slope = X.T @ (X @ coef + ours.intercept_ - y) + alpha * coef
        size = np.abs(X.T @ (y - y.mean())).max()
        assert coef.min() == 0.0 and np.abs(slope[coef > 0]).max() <= 1e-9 * size
        assert slope[coef == 0].min() >= -1e-9 * size
        assert ours.fit_report_.seconds < 20


def test_positive_beside_dependent_columns():
    """Without a unique answer the objective is still the lowest: that of scipy's non-negative least squares."""
    X, y = rows(300, 6)
    X = np.hstack([X, X[:, :3], X @ np.ones((6, 1))])
    ours = LinearRegression(positive=True).fit(X, y)
    Xc, yc = X - X.mean(axis=0), y - y.mean()
    lowest = optimize.nnls(Xc, yc)[1] ** 2
    assert ((Xc @ ours.coef_ - yc) ** 2).sum() <= lowest * (1 + 1e-9)


# Sparse, wide, long --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse(kind, fit_intercept):
    X, y = rows(800, 30)
    X = X * (np.random.default_rng(1).random(X.shape) < 0.2)
    for ours in (LinearRegression(fit_intercept=fit_intercept), Ridge(fit_intercept=fit_intercept)):
        twin = getattr(reference, type(ours).__name__)(fit_intercept=fit_intercept).fit(X, y)
        same(ours.fit(kind(X), y), twin, 1e-8)


@pytest.mark.parametrize("targets", [None, 2])
def test_sparse_with_many_columns(targets):
    """Beyond the Gram matrix: conjugate gradients on products."""
    rng = np.random.default_rng(0)
    X = sparse.random(2000, 4000, density=0.01, random_state=0, format="csr", data_rvs=rng.standard_normal)
    y = X @ (rng.normal(size=(4000, targets) if targets else 4000)) + 1.0
    ours = Ridge(alpha=1.0, tol=1e-6).fit(X, y)
    same(ours, reference.Ridge(alpha=1.0, solver="sparse_cg", tol=1e-13).fit(X, y), 1e-6)
    assert ours.solver_ == "sparse_cg"


def test_dense_with_many_columns():
    X, y = rows(60, 5500)
    ours = Ridge(alpha=1.0, tol=1e-6).fit(X, y)
    same(ours, reference.Ridge(alpha=1.0, solver="svd").fit(X, y), 1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-6)])
@pytest.mark.parametrize("model", [LinearRegression(), Ridge()], ids=["ols", "ridge"])
def test_one_pass_over_many_rows(model, dtype, tolerance):
    X, y = rows(100_000, 12)
    X = X.astype(dtype)
    twin = getattr(reference, type(model).__name__)().fit(X.astype(np.float64), y)
    same(model.fit(X, y), twin, tolerance)
    assert model.fit_report_.passes <= 1.1


# Around it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, match",
    [
        ({"alpha": [-1.0, 1.0, 1.0]}, "alpha"),
        ({"alpha": np.nan}, "alpha"),
        ({"solver": "lbfgs"}, "positive=True"),
        ({"solver": "svd", "positive": True}, "positive"),
    ],
    ids=str,
)
def test_refused_parameters(params, match):
    X, y = rows(targets=3)
    with pytest.raises(ValueError, match=match):
        Ridge(**params).fit(X, y)


@pytest.mark.parametrize("name", ["LinearRegression", "Ridge"])
def test_parameters_are_scikit_learns(name):
    ours, theirs = ({"LinearRegression": LinearRegression, "Ridge": Ridge}[name](), getattr(reference, name)())
    assert ours.get_params().keys() >= theirs.get_params().keys()
    for key, value in theirs.get_params().items():
        assert ours.get_params()[key] == value, key


def test_in_scikit_learns_pipeline():
    X, y = DIABETES
    ours, theirs = (make_pipeline(StandardScaler(), module.Ridge()).fit(X, y) for module in (reference, _Ours))
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)


class _Ours:
    Ridge = Ridge


@pytest.mark.cluster
@pytest.mark.parametrize("model", [LinearRegression(), Ridge()], ids=["ols", "ridge"])
def test_on_a_cluster(cluster_client, model):
    import dask.array as da

    X, y = rows(60_000, 10, 2)
    lazy = da.from_array(X, chunks=(9000, -1)), da.from_array(y, chunks=(9000, -1))
    there = model.fit(*lazy)
    assert "2 workers" in str(there.fit_report_)
    coef, intercept = there.coef_, there.intercept_
    with config_context(runtime="threads"):
        here = model.fit(*lazy)
    np.testing.assert_array_equal(coef, here.coef_)
    np.testing.assert_array_equal(intercept, here.intercept_)
