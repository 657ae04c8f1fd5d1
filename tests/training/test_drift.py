"""How much rows of ranks differ: what is sorted or shifted is seen, what chance makes is not."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from daskdml.fitting.epochs import MOST_DRIFT
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.runtime.spmd import Program
from daskdml.strategies import AllReduce
from daskdml.testing import SimulatedCluster
from daskdml.training.drift import drift
from daskdml.training.rows import HeldRows, Piece


class Look(Program):
    """One step: what `drift` says of ranks that hold the given rows, each one unit."""

    def __init__(self, parts, kind, n_outputs, center):
        self.rows, self.kind, self.n_outputs, self.center = parts, kind, n_outputs, center

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        X, y = self.rows[comm.rank]
        held = HeldRows([Piece(0, X, y, None)])
        schedule = SimpleNamespace(seed=0, unit_spans=lambda units: (np.zeros(1, int), np.array([len(y)])))
        objective = SimpleNamespace(sizes=(X.shape[1], self.n_outputs))
        training = SimpleNamespace(kind=self.kind, objective=objective, schedule=schedule, center=self.center)
        units = [0] if len(y) else []
        return drift(training, SimpleNamespace(units=units, rows=held, select=held.select), comm)

    def done(self, state):
        return state is not None


def found(parts, kind="classes", n_outputs=3, center=0.0):
    """Return (labels, features) of ranks that hold these rows."""
    n = len(parts)
    return SimulatedCluster(n, rows_per_block=1).run(Look(parts, kind, n_outputs, center), np.zeros((n, 1)))


def rows(seed, n_ranks, n, p=20):
    random = np.random.default_rng(seed)
    return [(random.normal(size=(n, p)), random.integers(0, 3, n)) for _ in range(n_ranks)]


@pytest.mark.parametrize("n", [2, 10, 100, 1000, 6000])
@pytest.mark.parametrize("n_ranks", [2, 8])
def test_rows_in_a_random_order_are_alike(n, n_ranks):
    for seed in range(10):
        assert max(found(rows(seed, n_ranks, n))) <= MOST_DRIFT


@pytest.mark.parametrize("n", [50, 500])
def test_columns_that_are_rarely_other_than_zero_are_alike(n):
    """Of thousands of rare columns some are found on one rank alone: several of their deviations from the mean."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        X = (random.random((16 * n, 3000)) < 1 / (4 * n)).astype(np.float32)
        parts = [(sparse.csr_array(X[k * n : (k + 1) * n]), np.zeros(n)) for k in range(16)]
        assert found(parts)[1] <= MOST_DRIFT


def test_targets_with_long_tails_are_alike():
    for seed in range(10):
        random = np.random.default_rng(seed)
        parts = [(np.zeros((200, 1)), np.exp(2 * random.normal(size=(200, 2)))) for _ in range(8)]
        assert found(parts, "values", 2, np.array([7.0, 8.0]))[0] <= MOST_DRIFT


@pytest.mark.parametrize("layout", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shifted_features_are_seen(layout, dtype):
    """One of twenty columns, of one rank of four, by a deviation: and its mean is three quarters of one from all's."""
    for seed in range(3):
        parts = [(X.astype(dtype), y) for X, y in rows(seed, 4, 2000)]
        parts[2][0][:, 7] += 1.0
        labels, features = found([(layout(X), y) for X, y in parts])
        assert labels <= MOST_DRIFT and 0.5 < features < 0.75


@pytest.mark.parametrize("n", [50, 500])
def test_sorted_labels_are_seen(n):
    """Ranks of one class each: two thirds of their labels are those of others."""
    parts = [(X, np.full(n, k)) for k, (X, _) in enumerate(rows(0, 3, n))]
    labels, features = found(parts)
    assert MOST_DRIFT < labels <= 2 / 3 and features <= MOST_DRIFT
    assert labels > 2 / 3 - 3 / np.sqrt(n)


def test_two_classes_have_one_output():
    parts = [(X, np.full(500, k)) for k, (X, _) in enumerate(rows(0, 2, 500))]
    assert 0.3 < found(parts, n_outputs=1)[0] <= 0.5


@pytest.mark.parametrize("center", [0.0, 100.0])
def test_shifted_targets_are_seen(center):
    """Deviations are of the targets of all rows, those between ranks among them."""
    random = np.random.default_rng(0)
    parts = [(np.zeros((1000, 2)), center + 2.0 * k + random.normal(size=1000)) for k in range(2)]
    labels, features = found(parts, "values", 1, center)
    assert features == 0 and 0.5 < labels < 1 / np.sqrt(2)
    alike = [(np.zeros((1000, 2)), center + random.normal(size=1000)) for k in range(2)]
    assert found(alike, "values", 1, center)[0] <= MOST_DRIFT


def test_one_of_several_labels_is_seen():
    random = np.random.default_rng(0)
    parts = [(np.zeros((800, 1)), (random.random((800, 3)) < 0.3).astype(float)) for _ in range(4)]
    assert found(parts, "labels", 3)[0] <= MOST_DRIFT
    parts[1][1][:, 2] = 1.0
    assert found(parts, "labels", 3)[0] > 0.5


def test_ranks_without_rows_and_constant_columns_differ_from_nobody():
    parts = rows(0, 3, 100)
    for X, _ in parts:
        X[:, 3] = 1e9
    parts.append((np.empty((0, 20)), np.empty(0, int)))
    assert max(found(parts)) <= MOST_DRIFT


def test_columns_far_from_zero():
    """Float32 has few digits left there: sums of squares are float64's."""
    parts = [((1000 + X).astype(np.float32), y) for X, y in rows(0, 4, 1000)]
    for layout in (np.asarray, sparse.csr_array):
        assert found([(layout(X), y) for X, y in parts])[1] <= MOST_DRIFT
    parts[0][0][:, 0] += 1.0
    for layout in (np.asarray, sparse.csr_array):
        assert 0.4 < found([(layout(X), y) for X, y in parts])[1] < 0.75


def test_few_of_many_rows_are_looked_at(monkeypatch):
    """The rows of both ranks go up and down: those that are looked at are drawn, not every second one."""
    monkeypatch.setattr("daskdml.training.drift.ROWS", 1000)
    seen, select = [], HeldRows.select

    def noting(self, chosen):
        seen.append(len(chosen))
        return select(self, chosen)

    monkeypatch.setattr(HeldRows, "select", noting)
    wave = np.tile([0.0, 1.0], 5000)[:, None]
    assert found([(wave, np.zeros(10_000)), (1 - wave, np.zeros(10_000))])[1] <= MOST_DRIFT
    assert seen == [1000, 1000]


def test_of_wide_rows_fewer_are_looked_at(monkeypatch):
    """Not a copy of some gigabytes before the first step."""
    monkeypatch.setattr("daskdml.training.drift.BYTES", 8 * 20 * 300)
    seen, select = [], HeldRows.select

    def noting(self, chosen):
        seen.append(len(chosen))
        return select(self, chosen)

    monkeypatch.setattr(HeldRows, "select", noting)
    assert max(found(rows(0, 2, 1000))) <= MOST_DRIFT
    assert seen == [300, 300]


def sorted_rows(kind, n=6000):
    """Rows in the order of their targets, and rows in a random order."""
    random = np.random.default_rng(0)
    y = np.sort(random.integers(0, 5, n)) if kind is MLPClassifier or kind is SGDClassifier else np.linspace(-1, 1, n)
    X = np.column_stack([y + random.normal(size=n), random.normal(size=(n, 4))]).astype(np.float32)
    mixed = random.permutation(n)
    return (X, y), (X[mixed], y[mixed])


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor])
def test_batches_of_sorted_rows_are_told_of(kind, size, monkeypatch):
    """Above a gigabyte rows stay where they are: batches are of rows that lie together then, whatever the strategy."""
    is_network = kind.__name__.startswith("MLP")
    monkeypatch.setattr(
        f"daskdml.{'neural_network._base' if is_network else 'linear_model._sgd'}.is_mixable", lambda *given: False
    )
    in_order, mixed = sorted_rows(kind)
    model = kind(batch_size=50, max_iter=1, random_state=0, strategy=AllReduce())

    def says(rows, **params):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = SimulatedCluster(size, rows_per_block=64).fit(clone(model).set_params(**params), *rows)
        said = [str(one.message) for one in caught if "rows that lie near each other" in str(one.message)]
        assert said == [note for note in fitted.fit_report_.notes if "near each other" in note]
        return said

    (text,) = says(in_order)
    assert "shuffle='rows'" in text and "shares of the labels by up to 0." in text
    assert not says(mixed) and not says(in_order, shuffle=False) and not says(in_order, shuffle="rows")


def test_batches_of_rows_in_a_random_order_are_alike(monkeypatch):
    """For many columns, batches and classes: what chance makes of few rows is no difference."""
    monkeypatch.setattr("daskdml.neural_network._base.is_mixable", lambda *given: False)
    for seed in range(10):
        random = np.random.default_rng(seed)
        X, y = random.normal(size=(8000, 100)) * (random.random((8000, 100)) < 0.05), random.integers(0, 40, 8000)
        model = MLPClassifier((2,), batch_size=[8, 64, 256][seed % 3], max_iter=1, random_state=seed).fit(X, y)
        assert model.fit_report_.notes == []
