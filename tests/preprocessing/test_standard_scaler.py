"""StandardScaler beyond the contract: scales, weights, pieces, inverse, refusals."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import preprocessing as reference
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from daskdml import config_context
from daskdml.preprocessing import StandardScaler
from daskdml.testing.tables import DENSE, LAZY, SPARSE, dense


def table(n=200, dtype=np.float64, holes=True):
    rng = np.random.default_rng(0)
    X = rng.normal([0, 1e6, -3, 0, 7], [1, 1, 1e-3, 100, 0], (n, 5)).astype(dtype)
    if holes:
        X[rng.random(n) < 0.2, 0] = np.nan
        X[:, 3] *= rng.random(n) < 0.5
    return X


def same(ours, theirs, rtol=1e-12):
    for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
        expected, found = getattr(theirs, name), getattr(ours, name)
        assert (expected is None) == (found is None), name
        if expected is not None:
            assert np.shape(expected) == np.shape(found), name
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("options", [{}, {"with_mean": False}, {"with_std": False}])
@pytest.mark.parametrize("kind", ["numpy", "dask array"])
def test_is_scikit_learns_at_every_scale(kind, options):
    X = table()
    theirs = reference.StandardScaler(**options).fit(X)
    ours = StandardScaler(**options).fit(DENSE[kind](X))
    # The column with a mean of a million deviations: scikit-learn's own rounding allows 1e-9 of the variance.
    same(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(dense(ours.transform(DENSE[kind](X))), theirs.transform(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", {**DENSE, **SPARSE})
def test_inverse_transform_gives_back(kind):
    X = {**DENSE, **SPARSE}[kind](table() * (np.random.default_rng(1).random((200, 5)) < 0.3))
    scaler = StandardScaler(with_mean=kind in DENSE).fit(X)
    back = scaler.inverse_transform(scaler.transform(X))
    assert hasattr(back, "compute") == (kind in LAZY)
    assert sparse.issparse(back.compute() if kind in LAZY else back) == (kind in SPARSE)
    np.testing.assert_allclose(dense(back), dense(X), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kind", sorted(SPARSE))
def test_centring_sparse_data_is_refused(kind):
    X = SPARSE[kind](table(holes=False))
    with pytest.raises(ValueError, match="Cannot center sparse matrices: pass `with_mean=False` instead"):
        StandardScaler().fit(X)


def test_weights_are_scikit_learns():
    import dask.array as da

    X, weight = table(), np.random.default_rng(2).integers(0, 4, 200)
    theirs = reference.StandardScaler().fit(X, sample_weight=weight)
    same(StandardScaler().fit(X, sample_weight=weight), theirs, rtol=1e-9)
    lazy = da.from_array(weight, chunks=77)
    same(StandardScaler().fit(DENSE["dask array"](X), sample_weight=lazy), theirs, rtol=1e-9)
    # The definition: an integer weight is that many copies of the row.
    repeated = StandardScaler().fit(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(StandardScaler().fit(X, sample_weight=weight).var_, repeated.var_, rtol=1e-9, atol=1e-15)


def test_a_mean_of_many_deviations_costs_no_digits():
    """The variance of x + c is that of x: known exactly for integers."""
    x = np.random.default_rng(3).integers(-5, 6, (100_000, 1)).astype(np.float64)
    exact = np.float64(np.sum(x**2) / len(x) - (np.sum(x) / len(x)) ** 2)
    for shift in (1e6, 1e9, -1e12):
        scaler = StandardScaler().fit(DENSE["dask array"](x + shift))
        assert scaler.var_[0] == pytest.approx(exact, rel=1e-12)
        assert scaler.mean_[0] - shift == pytest.approx(x.mean(), abs=1e-15 * abs(shift))


def test_partial_fit_is_fit_on_all_rows():
    X = table()
    pieces = StandardScaler()
    for piece in (X[:50], DENSE["dask array"](X[50:120]), X[120:]):
        pieces.partial_fit(piece)
    same(pieces, StandardScaler().fit(X))
    assert pieces.fit(X[:50]).n_samples_seen_.max() == 50


@pytest.mark.parametrize("constant", [0.1, 1e15, -3.0])
def test_constant_features_keep_scale_one(constant):
    X = np.c_[np.full(1001, constant), np.arange(1001.0)]
    scaler = StandardScaler().fit(DENSE["dask array"](X))
    assert scaler.var_[0] == 0 and scaler.scale_[0] == 1
    assert not dense(scaler.transform(DENSE["dask array"](X)))[:, 0].any()


def test_float32_stays_float32():
    X = table(dtype=np.float32, holes=False)
    for kind in DENSE:
        out = StandardScaler().fit(DENSE[kind](X)).transform(DENSE[kind](X))
        assert dense(out).dtype == np.float32, kind
        assert kind not in ("dask array", "dask columns") or out.dtype == np.float32
    assert StandardScaler().fit(X).mean_.dtype == np.float64


def test_in_place_is_for_memory_only():
    import dask.array as da

    scaler = StandardScaler(copy=False).fit(table())
    X = table()
    scaler.transform(da.from_array(X, chunks=-1)).compute()
    np.testing.assert_array_equal(X, table())
    assert np.shares_memory(scaler.transform(X), X)


def test_one_pass_over_the_data():
    import dask.array as da

    read = []

    def count(block):
        read.append(len(block))
        return block

    X = da.from_array(table(), chunks=(50, 5)).map_blocks(count, dtype=float, meta=np.empty((0, 0)))
    with config_context(runtime="debug"):
        StandardScaler().fit(X)
    assert sum(read) == 200


@pytest.mark.parametrize("kind", ["numpy", "dask array", "dask frame", "dask unknown"])
def test_infinity_is_refused(kind):
    X = table()
    X[123, 1] = np.inf
    with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large for dtype\('float64'\)"):
        StandardScaler().fit(DENSE[kind](X))


def test_infinity_in_known_chunks_is_located():
    X = table()
    X[123, 1] = -np.inf
    with pytest.raises(ValueError, match="First in row 123"):
        StandardScaler().fit(DENSE["dask array"](X))


@pytest.mark.parametrize(
    "weight, message",
    [
        (np.zeros(200), "at least one non-zero"),
        (np.ones(199), "sample_weight.shape|inconsistent"),
        (np.r_[np.nan, np.ones(199)], "sample_weight contains NaN"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "dask array"])
def test_bad_weights_are_refused(kind, weight, message):
    with pytest.raises(ValueError, match=message):
        StandardScaler().fit(DENSE[kind](table()), sample_weight=weight)


def test_works_in_a_pipeline():
    X = table()
    pipeline = make_pipeline(StandardScaler(with_mean=False), StandardScaler())
    for kind in DENSE:
        out = clone(pipeline).fit_transform(DENSE[kind](X))
        np.testing.assert_allclose(np.nanmean(dense(out), axis=0), 0, atol=1e-8)


@pytest.mark.cluster
def test_same_bits_on_a_cluster(cluster_client):
    X = DENSE["dask array"](table())
    on_cluster = StandardScaler().fit(X)
    with config_context(runtime="threads"):
        in_process = StandardScaler().fit(X)
    for name in ("mean_", "var_", "scale_"):
        np.testing.assert_array_equal(getattr(on_cluster, name), getattr(in_process, name))


@pytest.mark.parametrize("kind", [*DENSE, *SPARSE])
def test_infinity_is_refused_where_rows_are_transformed(kind):
    X = table(holes=False)
    scaler = StandardScaler(with_mean=False).fit(X)
    for bad in (np.inf, -np.inf):
        spoiled = X.copy()
        spoiled[150, 1] = bad
        spoiled[3, 0] = np.nan
        for method in (scaler.transform, scaler.inverse_transform):
            with pytest.raises(ValueError, match="Input (X )?contains infinity or a value too large for dtype"):
                dense(method({**DENSE, **SPARSE}[kind](spoiled)))
    spoiled[150, 1] = np.nan
    expected = reference.StandardScaler(with_mean=False).fit(X).transform(spoiled)
    np.testing.assert_allclose(dense(scaler.transform({**DENSE, **SPARSE}[kind](spoiled))), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", [*DENSE])
def test_a_number_weighs_every_row(kind):
    X = table()
    theirs = reference.StandardScaler().fit(X, sample_weight=np.full(len(X), 2.5))
    same(StandardScaler().fit(DENSE[kind](X), sample_weight=2.5), theirs, rtol=1e-9)
