"""Dask input: the numbers of the same rows in memory, for any chunking and mixture of kinds, computed at once."""

import inspect

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as theirs
from numpy.testing import assert_allclose

from daskdml import config_context
from daskdml import metrics as ours

N = 307
CHUNKINGS = [(307,), (100, 100, 107), (1, 0, 305, 1), (0, 307, 0), (25,) * 12 + (7,)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=["accuracy", "log loss", "log loss of two", "auc", "auc of many", "mse", "r2"])
def case(request, rng):
    """(name of the metric, y_true, y_other, options); the labels are sorted, so that chunks lack classes."""
    letters = np.sort(rng.choice(list("abcd"), N))
    two = np.sort(rng.choice(["no", "yes"], N))
    floats = np.sort(rng.normal(100, 1, N))
    return {
        "accuracy": ("accuracy_score", letters, rng.choice(list("abcd"), N), {}),
        "log loss": ("log_loss", letters, rng.dirichlet(np.ones(4), N), {}),
        "log loss of two": ("log_loss", two, rng.uniform(size=N), {}),
        "auc": ("roc_auc_score", two, np.round(rng.normal(size=N), 2), {}),
        "auc of many": ("roc_auc_score", letters, rng.dirichlet(np.ones(4), N), {"multi_class": "ovr"}),
        "mse": ("mean_squared_error", floats, floats + rng.normal(size=N), {}),
        "r2": ("r2_score", floats, floats + rng.normal(size=N), {}),
    }[request.param]


def lazily(values, lengths):
    return da.from_array(values, chunks=(lengths, *((k,) for k in values.shape[1:])))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lengths", CHUNKINGS)
def test_any_chunking(case, lengths, weighted, rng):
    name, y, p, options = case
    weight = rng.integers(0, 3, N) if weighted else None
    expected = getattr(theirs, name)(y, p, sample_weight=weight, **options)
    metric = getattr(ours, name)
    lazy_y, lazy_p = lazily(y, lengths), lazily(p, lengths)
    lazy_weight = None if weight is None else lazily(weight, (N,))
    for a, b, w in (
        (lazy_y, lazy_p, lazy_weight),
        (y, lazy_p, weight),
        (lazy_y, p, weight),
        (lazily(y, (300, 7)), lazy_p, weight),
    ):
        got = metric(a, b, sample_weight=w, **options)
        assert isinstance(got, float)
        assert_allclose(got, expected, rtol=1e-12)


def test_unknown_chunks_and_frames(case):
    name, y, p, options = case
    expected = getattr(theirs, name)(y, p, **options)
    table = pd.DataFrame(p if p.ndim == 2 else {"p": p}).assign(y=y)
    frame = dd.from_pandas(table.rename(columns=str), npartitions=4, sort=False)
    columns = [column for column in frame.columns if column != "y"]
    lazy_p = frame[columns[0]] if p.ndim == 1 else frame[columns]
    for a, b in ((frame["y"], lazy_p), (y, lazy_p), (frame["y"], p)):
        assert_allclose(getattr(ours, name)(a, b, **options), expected, rtol=1e-12)
    unknown = lazy_p.to_dask_array()
    assert_allclose(getattr(ours, name)(frame["y"].to_dask_array(), unknown, **options), expected, rtol=1e-12)


def test_weights_alone_are_lazy(case, rng):
    name, y, p, options = case
    weight = rng.uniform(size=N)
    expected = getattr(theirs, name)(y, p, sample_weight=weight, **options)
    got = getattr(ours, name)(y, p, sample_weight=da.from_array(weight, chunks=100), **options)
    assert_allclose(got, expected, rtol=1e-12)


def test_inputs_are_read_once(rng):
    y, p = rng.integers(0, 2, N), rng.uniform(size=N)
    read = []

    def counted(block):
        read.append(len(block))
        return block

    lazy = da.from_array(p, chunks=100).map_blocks(counted, dtype=float, meta=np.empty(0))
    for name in ("accuracy_score", "log_loss", "roc_auc_score", "mean_squared_error", "r2_score"):
        read.clear()
        getattr(ours, name)(y, lazy.round() if name == "accuracy_score" else lazy)
        assert sum(read) == N


def test_errors_name_what_is_wrong(rng):
    y, p = da.from_array(rng.integers(0, 2, N), chunks=100), da.from_array(rng.uniform(size=N), chunks=50)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ours.accuracy_score(y[:-1], p.round())
    with pytest.raises(ValueError, match="mix of multiclass and continuous"):
        ours.accuracy_score(y, p)
    with pytest.raises(ValueError, match="contains NaN"):
        ours.r2_score(y, p.map_blocks(lambda block: block * np.nan))
    with pytest.raises(ValueError, match="greater than 1"):
        ours.log_loss(y, p + 1)
    with pytest.raises(ValueError, match="only one label"):
        ours.log_loss(y * 0, p)
    with pytest.raises(ValueError, match="at least one non-zero"):
        ours.accuracy_score(y, y, sample_weight=np.zeros(N))
    with pytest.warns(UserWarning, match="Only one class"):
        assert np.isnan(ours.roc_auc_score(y * 0, p))
    with pytest.raises(ValueError, match="Mix of label input types"):
        ours.accuracy_score(y, y.astype(str))


def test_r2_of_chunks_is_sound_far_from_zero(rng):
    y = rng.normal(size=N)
    p = y + 0.1 * rng.normal(size=N)
    exact = 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)
    shifted = [da.from_array(one + 2.0**30, chunks=13) for one in (y, p)]
    assert_allclose(ours.r2_score(*shifted), exact, rtol=1e-6)
    assert ours.r2_score(da.full(100, 0.1, chunks=7), da.full(100, 0.2, chunks=7)) == 0.0


def test_auc_over_the_byte_cap_says_what_to_do(rng):
    y, s = rng.integers(0, 2, 1000), rng.normal(size=1000)
    lazy_y, lazy_s = da.from_array(y, chunks=100), da.from_array(s, chunks=100)
    with pytest.raises(ValueError, match="max_bytes=5000 bytes.*pass bins="):
        ours.roc_auc_score(lazy_y, lazy_s, max_bytes=5000)
    assert_allclose(ours.roc_auc_score(y, s, max_bytes=5000), theirs.roc_auc_score(y, s))
    few = lazy_s.round(1)
    assert_allclose(ours.roc_auc_score(lazy_y, few, max_bytes=5000), theirs.roc_auc_score(y, few.compute()))
    with pytest.warns(UserWarning, match="only known to within"):
        got = ours.roc_auc_score(lazy_y, lazy_s, max_bytes=5000, bins=200)
    assert abs(got - theirs.roc_auc_score(y, s)) < 5e-3


def test_runtimes_give_the_same_bits(case):
    name, y, p, options = case
    a, b = lazily(y, CHUNKINGS[1]), lazily(p, CHUNKINGS[1])
    results = set()
    for runtime in ("debug", "threads"):
        for n_threads in (1, 2):
            with config_context(runtime=runtime, n_threads=n_threads):
                results.add(getattr(ours, name)(a, b, **options))
    assert len(results) == 1


@pytest.mark.cluster
def test_on_a_cluster(case, cluster_client):
    name, y, p, options = case
    expected = getattr(theirs, name)(y, p, **options)
    a, b = lazily(y, CHUNKINGS[1]), lazily(p, CHUNKINGS[2])
    on_workers = getattr(ours, name)(a, b, **options)
    assert_allclose(on_workers, expected, rtol=1e-12)
    with config_context(runtime="threads"):
        assert getattr(ours, name)(a, b, **options) == on_workers
    persisted = dask.persist(a, b)
    assert getattr(ours, name)(*persisted, **options) == on_workers


@pytest.mark.skipif(
    "y_proba" not in inspect.signature(theirs.log_loss).parameters, reason="signatures are those of scikit-learn 1.9"
)
@pytest.mark.parametrize("name", ours.__all__)
def test_signatures_are_scikit_learns(name):
    mine, its = (list(inspect.signature(getattr(room, name)).parameters.values()) for room in (ours, theirs))
    extra = mine[len(its) :]
    assert [(one.name, one.kind, one.default) for one in mine[: len(its)]] == [
        (one.name, one.kind, one.default) for one in its
    ]
    # What we add comes last, by name only, and may be left out.
    assert all(one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in extra)
    assert [one.name for one in extra] == (["bins", "max_bytes"] if name == "roc_auc_score" else [])


def test_old_name_of_probabilities(rng):
    y, p = rng.integers(0, 2, N), rng.uniform(size=N)
    for labels in (y, lazily(y, (300, 7))):
        with pytest.warns(FutureWarning, match="`y_pred` was renamed to `y_proba`"):
            assert ours.log_loss(y_true=labels, y_pred=p) == pytest.approx(theirs.log_loss(y, p), rel=1e-12)
    with pytest.raises(ValueError, match="Cannot use both"):
        ours.log_loss(y, p, y_pred=p)
    with pytest.raises(ValueError, match="'y_proba' parameter of log_loss must be an array-like. Got None"):
        ours.log_loss(y)


def test_a_number_is_no_weight_of_a_metric(rng):
    y = rng.integers(0, 2, N)
    for room, labels in ((theirs, y), (ours, y), (ours, lazily(y, (300, 7)))):
        with pytest.raises(ValueError, match="'sample_weight' parameter of .* must be an array-like or None. Got 2.0"):
            room.accuracy_score(labels, y, sample_weight=2.0)


def test_unknown_chunks_of_other_lengths(case):
    name, y, p, options = case
    expected = getattr(theirs, name)(y, p, **options)
    rows = pd.Series(y)
    chosen = da.from_array(np.ones(N, bool), chunks=40)
    unknown = da.from_array(y, chunks=40)[chosen]
    lazy = lazily(p, (200, 100, 7))
    for truth in (unknown, dd.from_pandas(rows, npartitions=2), dd.from_pandas(rows, npartitions=5).clear_divisions()):
        assert getattr(ours, name)(truth, lazy, **options) == pytest.approx(expected, rel=1e-9)
        lost = lazy[da.from_array(np.ones(N, bool), chunks=((200, 100, 7),))]
        assert getattr(ours, name)(truth, lost, **options) == pytest.approx(expected, rel=1e-9)
