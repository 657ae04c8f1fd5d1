"""The same trees, bit for bit: any number of threads, workers and chunks, with deaths."""

import dask.array as da
import numpy as np
import pytest

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.runtime.local import LocalRun
from daskdml.testing import SimulatedCluster
from daskdml.trees import Boosting

N = 20_000


def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 7))
    X[:, 1] = np.round(X[:, 1], 1)
    X[rng.random(X.shape) < 0.05] = np.nan
    z = np.nan_to_num(X)
    return X, z[:, 0] * z[:, 1] + np.sin(z[:, 2] * 2) + z[:, 3] + 0.5 * rng.normal(size=N), rng.uniform(0.5, 2, N)


def bits(model):
    parts = [part for iteration in model._model.trees for tree in iteration for part in tree]
    parts += [model._model.baseline, model.train_score_, model.validation_score_]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


CASES = {
    "two classes": (HistGradientBoostingClassifier, {"rounding": "stochastic"}, lambda raw: raw > 0, False),
    "four classes": (
        HistGradientBoostingClassifier, {"max_features": 0.6, "subsample": 0.7, "rounding": "stochastic"},
        lambda raw: np.digitize(raw, [-1, 0, 1]), True,
    ),
    "squared error": (HistGradientBoostingRegressor, {}, lambda raw: raw, True),
    "absolute error": (HistGradientBoostingRegressor, {"loss": "absolute_error"}, lambda raw: raw, False),
    "quantile": (
        HistGradientBoostingRegressor, {"loss": "quantile", "quantile": 0.7, "max_leaf_nodes": None, "max_depth": 4},
        lambda raw: raw, True,
    ),
    "poisson": (HistGradientBoostingRegressor, {"loss": "poisson", "max_leaf_nodes": 100}, np.abs, False),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    """A function that fits, with how X, y and weights are given, and the bits of the fit in memory."""
    kind, params, targets, is_weighted = CASES[request.param]
    X, raw, weight = rows()
    arrays = (X, targets(raw), weight if is_weighted else None)

    def fit(given=lambda part: part, how=lambda model, *data: model.fit(*data)):
        model = kind(max_iter=3, random_state=0, **params)
        return bits(how(model, *(None if part is None else given(part) for part in arrays)))

    return fit, fit()


def test_threads(case):
    fit, expected = case
    for n in (1, 3):
        with config_context(n_threads=n):
            assert fit() == expected


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
def test_chunks(case, memory):
    fit, expected = case
    for chunks in ((N,), (1, N - 1), (7000, 0, 6000, 7000), (500,) * 40):
        with config_context(memory=memory):
            assert fit(lambda part, c=chunks: da.from_array(part, chunks=(c, -1)[: part.ndim])) == expected


@pytest.mark.parametrize("n_workers", [1, 2, 5, 9])
def test_workers(case, n_workers):
    fit, expected = case
    cluster = SimulatedCluster(n_workers, rows_per_block=1024)

    def there(model, X, y, weight):
        return cluster.fit(model, X, y, sample_weight=weight)

    assert fit(how=there) == expected
    assert cluster.report.generations == 1


def test_deaths(case, monkeypatch):
    """Before the first tree and between trees, where others must make raw predictions of the dead one's rows again."""
    fit, expected = case
    begun, predict = [], Boosting.predict

    def note(self, shards, state):
        begun.append(len(state.trees))
        predict(self, shards, state)

    def on(cluster):
        return fit(how=lambda model, X, y, weight: cluster.fit(model, X, y, sample_weight=weight))

    undisturbed = SimulatedCluster(4, rows_per_block=1024, seconds_per_row=0.0)
    assert on(undisturbed) == expected
    monkeypatch.setattr(Boosting, "predict", note)
    for share in (0.1, 0.6, 0.9):
        kills = [(share * undisturbed.report.seconds, 1)]
        cluster = SimulatedCluster(4, rows_per_block=1024, kills=kills, seconds_per_row=0.0)
        assert on(cluster) == expected
        assert cluster.report.generations == 2
    assert max(begun) == 2


@pytest.mark.parametrize("n_workers", [None, 1, 4])
def test_bins_that_have_no_room_are_files(case, n_workers, monkeypatch):
    """In this process, and of several ranks of which one dies."""
    fit, expected = case
    where, mode_of = [], LocalRun.mode_of

    def with_little(run, row_bytes, rest_bytes, file_bytes, beside=0):
        """There is room for all but the bins."""
        if n_workers is not None:
            return "mmap"  # simulated ones ask for rows in memory
        limit = (run.n_samples * rest_bytes + beside) / run.most_pinned + 1
        monkeypatch.setattr("daskdml.runtime.local.process_limit", lambda: limit)
        return mode_of(run, row_bytes, rest_bytes, file_bytes, beside)

    monkeypatch.setattr(LocalRun, "mode_of", with_little)
    for name in ("_PIECE", "_LEAST_PIECE"):  # columns in several pieces, the last one shorter
        monkeypatch.setattr(f"daskdml.trees.kept_rows.{name}", 999)

    def on(model, X, y, weight):
        if n_workers is None:
            model.fit(X, y, weight)
        else:
            kills = [(0.002, 1)] * (n_workers > 1)
            cluster = SimulatedCluster(n_workers, rows_per_block=1024, kills=kills)
            model = cluster.fit(model, X, y, sample_weight=weight)
            assert cluster.report.generations == 1 + len(kills)
        where.append(model.fit_report_.where)
        return model

    assert fit(how=on) == expected
    assert where[0].endswith(", bins in files")


def test_memory_for_columns(case, monkeypatch):
    """Where memory is short bins are kept once; leaves are divided the same."""
    fit, expected = case
    from daskdml.ensemble import _keeping

    monkeypatch.setattr(_keeping, "COLUMNS_SHARE", 0.0)
    assert fit() == expected
