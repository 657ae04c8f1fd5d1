"""Coefficients of many features with a parameter server: scikit-learn's steps, by one rank or by several."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier as ScikitClassifier
from sklearn.linear_model import SGDRegressor as ScikitRegressor
from sklearn.metrics import log_loss

from daskdml import config_context
from daskdml.compress import FP16
from daskdml.kernels import numbered_rows
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.linear_model._sgd_served import ByServedRows
from daskdml.neural_network import MLPClassifier
from daskdml.runtime.shelf import Shelf
from daskdml.runtime.tables.rows import RowPart, RowTable, SavedRows
from daskdml.strategies import ASP, BSP, SSP, ParameterServer
from daskdml.testing import SimulatedCluster
from daskdml.training import guard, served_rows
from daskdml.training.served_rows import RowGathering, ServedStream
from daskdml.utils.memory import Pages

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = sparse.random(1500, 400, 0.03, format="csr", random_state=RNG)
RAW = X @ RNG.normal(size=400)
Y, CLASSES = RAW > 0, np.digitize(RAW, [-0.5, 0.5])
WEIGHT = RNG.integers(0, 4, len(Y)).astype(float)
SCHEDULES = [("optimal", 0.01), ("invscaling", 0.1), ("constant", 0.05), ("adaptive", 0.1)]
PENALTIES = [(None, 0.0), ("l2", 0.01), ("l1", 0.001), ("elasticnet", 0.005)]


def server(**params):
    return ParameterServer(sparse=True, **params)


def zipf(n, p, n_stored, seed=0):
    """Rows that store features of very different frequency, and classes that are drawn by their margins."""
    rng = np.random.default_rng(seed)
    u = rng.random(n * n_stored)
    columns = np.minimum((p**-0.1 * u + (1 - u)) ** -10.0, p).astype(np.int64) - 1
    columns = rng.permutation(p)[columns].astype(np.int32)
    edges = np.arange(0, n * n_stored + 1, n_stored, dtype=np.int32)
    X = sparse.csr_matrix((np.full(len(columns), n_stored**-0.5), columns, edges), shape=(n, p))
    return X, (rng.random(n) < 1 / (1 + np.exp(-X @ (3 * rng.normal(size=p))))).astype(int)


@pytest.fixture(scope="module")
def drawn():
    X, y = zipf(14_000, 5_000, 15)
    return X[:12_000], y[:12_000], X[12_000:], y[12_000:]


# One process ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty, alpha", PENALTIES)
@pytest.mark.parametrize("learning_rate, eta0", SCHEDULES)
@pytest.mark.parametrize("loss", ["log_loss", "squared_hinge", "modified_huber"])
def test_one_process_takes_the_steps_of_scikit_learn(loss, learning_rate, eta0, penalty, alpha):
    params = {
        "loss": loss, "penalty": penalty, "alpha": alpha or 1e-4, "learning_rate": learning_rate, "eta0": eta0,
        "shuffle": False, "max_iter": 3, "tol": None, "random_state": 0,
    }  # fmt: skip
    expected = ScikitClassifier(**params).fit(X, Y, sample_weight=WEIGHT)
    found = SGDClassifier(strategy=server(), batch_size=130, **params).fit(X, Y, sample_weight=WEIGHT)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-9, atol=1e-13)
    np.testing.assert_array_equal(found.coef_ == 0, expected.coef_ == 0)
    assert (found.t_, found.n_iter_) == (expected.t_, expected.n_iter_)
    assert found.fit_report_.counts["updates"] == 3 * -(-len(Y) // 130)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))


def test_several_classes_stop_together():
    params = {"loss": "log_loss", "shuffle": False, "max_iter": 4, "tol": None, "class_weight": {0: 2.0, 2: 0.5}}
    expected, found = (model.fit(X, CLASSES) for model in (
        ScikitClassifier(**params), SGDClassifier(strategy=server(), **params)))  # fmt: skip
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
    stopped = SGDClassifier("log_loss", max_iter=500, tol=1e-2, random_state=0, strategy=server()).fit(X, CLASSES)
    assert 5 < stopped.n_iter_ < 500 and stopped.fit_report_.stopped_because == "no improvement"


@pytest.mark.parametrize("loss", ["squared_error", "huber", "squared_epsilon_insensitive"])
def test_numbers_are_predicted_as_by_scikit_learn(loss):
    params = {"loss": loss, "shuffle": False, "max_iter": 3, "tol": None}
    expected, found = (model.fit(X, RAW) for model in (
        ScikitRegressor(**params), SGDRegressor(strategy=server(), batch_size=64, **params)))  # fmt: skip
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found.predict(X), expected.predict(X), rtol=1e-9)


def test_it_goes_on_from_coefficients():
    """partial_fit call by call, warm starts, and what is given."""
    params = {"loss": "log_loss", "shuffle": False, "tol": None, "learning_rate": "constant", "eta0": 0.05}
    expected, found = ScikitClassifier(**params), SGDClassifier(strategy=server(shards=3), **params)
    for part in (slice(0, 700), slice(700, 1500)):
        expected.partial_fit(X[part], Y[part], classes=[False, True])
        found.partial_fit(X[part], Y[part], classes=[False, True])
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-13)
    assert found.t_ == expected.t_
    given = RNG.normal(size=400) * (RNG.random(400) < 0.5)
    for model in (expected, found):
        model.set_params(max_iter=2).fit(X, Y, coef_init=given.copy(), intercept_init=[0.3])
        model.set_params(warm_start=True, max_iter=1).fit(X, Y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-12)


def test_rows_held_out_are_scored_by_the_coefficients_that_they_store():
    params = {"loss": "log_loss", "early_stopping": True, "max_iter": 6, "random_state": 0, "tol": None}
    X, y = zipf(3000, 500, 10)
    X = X.astype(np.float32)
    model = SGDClassifier(strategy=server(), **params).fit(X, y)
    way = ByServedRows(model, _RunOf(X), (1,), [(1.0, 1.0)])
    schedule = way.schedule(0, True, 0.1)
    held = np.concatenate([schedule.held_rows(unit) for unit in range(schedule.n_units)])
    held = schedule.mix(held, backwards=True)
    assert 200 < len(held) < 400
    assert model.fit_report_.records[-1].score == pytest.approx((model.predict(X[held]) == y[held]).mean())
    assert model.fit_report_.records[-1].score > 0.6


class _RunOf:
    """What a schedule asks of a run."""

    def __init__(self, X):
        (self.n_samples, self.n_features), self.n_ranks, self.dtype, self.layout = X.shape, 1, X.dtype, "csr"


def test_large_ones_go_by_rows_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("daskdml.linear_model._sgd.LARGE", 400)
    made, begin = [], ServedStream.begin
    monkeypatch.setattr(ServedStream, "begin", lambda self, comm: made.append(begin(self, comm)))
    params = {"random_state": 0, "max_iter": 2, "tol": None, "learning_rate": "constant"}
    for strategy, data, is_by_row in (
        (ParameterServer(), X, True), (ParameterServer(sparse=False), X, False),
        (ParameterServer(), X[:, :399], False), (ParameterServer(), X.toarray(), False),
    ):  # fmt: skip
        made.clear()
        SGDClassifier(strategy=strategy, **params).fit(data, Y)
        assert bool(made) == is_by_row


# Several ranks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", [BSP(), SSP(3), ASP()], ids=str)
@pytest.mark.parametrize("n_ranks", [2, 8])
@pytest.mark.parametrize("params", [{"alpha": 1e-5}, {"alpha": 1e-4, "penalty": "l1"}, {"alpha": 1e-3},
                                    {"alpha": 1e-4, "penalty": "elasticnet", "learning_rate": "constant", "eta0": 1.0},
                                    ], ids=str)  # fmt: skip
def test_several_ranks_find_what_one_finds(params, n_ranks, consistency, drawn):
    """Frequent features, large first steps: sums of all ranks' steps alone would have a log loss of ten."""
    X, y, more, theirs = drawn
    params = {"loss": "log_loss", "max_iter": 2, "tol": None, "random_state": 0, **params}
    alone = ScikitClassifier(**params).fit(X, y)
    model = SGDClassifier(strategy=server(consistency=consistency), batch_size=128 * n_ranks, **params)
    found = SimulatedCluster(n_ranks, rows_per_block=200, seconds_per_row=1e-5).fit(model, X, y)
    expected = log_loss(theirs, alone.predict_proba(more))
    assert log_loss(theirs, found.predict_proba(more)) < 1.05 * expected
    n_zero, expected = (found.coef_ == 0).sum(), (alone.coef_ == 0).sum()
    assert n_zero > (0.95 if params.get("penalty") == "l1" else 0.6) * expected
    lags = found.fit_report_.histograms["staleness"]
    most = np.inf if consistency.bound is None else (n_ranks - 1) * (2 * consistency.bound + 1)
    assert max(lags) <= most and sum(lags.values()) > 0


@pytest.mark.parametrize("consistency", [BSP(), ASP()], ids=str)
def test_a_worker_that_is_behind_reads_what_others_have_left(consistency):
    """Where L2 leaves nothing of a coefficient within a batch: at its own time what came since would be e^700."""
    params = {"loss": "log_loss", "alpha": 1.0, "shuffle": False, "max_iter": 2, "tol": None}
    cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-5, stragglers={0: 6.0})
    found = cluster.fit(SGDClassifier(strategy=server(consistency=consistency), **params), X, Y)
    alone = ScikitClassifier(**params).fit(X, Y)
    assert log_loss(Y, found.predict_proba(X)) < 1.01 * log_loss(Y, alone.predict_proba(X))
    assert np.abs(found.coef_).max() < 2 * np.abs(alone.coef_).max()


def test_without_shares_frequent_features_overshoot(monkeypatch, drawn):
    """What `shares_of_sum` is there for."""
    X, y, more, theirs = drawn
    monkeypatch.setattr(
        numbered_rows, "shares_of_sum", lambda rows, numbers, n, strengths, n_others, empty: (np.ones(n), 1.0)
    )
    model = SGDClassifier("log_loss", alpha=1e-5, max_iter=1, tol=None, strategy=server(), batch_size=1024)
    found = SimulatedCluster(8, rows_per_block=200).fit(model, X, y)
    assert log_loss(theirs, found.predict_proba(more)) > 2


def test_only_what_a_batch_stores_travels(drawn):
    """Twelve bytes a coefficient in each direction, and as many for the copy, beside what messages take."""
    X, y, *_ = drawn
    model = SGDClassifier("log_loss", max_iter=2, tol=None, random_state=0, strategy=server(shards=2), batch_size=2048)
    counts = SimulatedCluster(2, rows_per_block=200).fit(model, X, y).fit_report_.counts
    n_read = counts["coefficients read"]
    assert n_read < 0.4 * 2 * X.nnz  # each once a batch
    # Half of what is read and pushed is on the other worker, and all of its copies: 6 + 6 + 12 bytes, in one direction.
    sent = counts["bytes sent for steps"] + counts["bytes received for steps"]
    assert sent / 2 < 1.5 * 24 * n_read / 2 * 1.1


def test_no_worker_holds_much_of_the_model(monkeypatch):
    """A quarter of it on eight workers, the copies of others' shards among it; the caller maps a file."""
    n_bytes, n_features = {}, 3_000_000
    X, y = zipf(2000, 1000, 10)
    X = sparse.csr_matrix((X.data, X.indices * 2999, X.indptr), shape=(2000, n_features))

    def count(self, state, comm, is_last, save=ServedStream.save):
        shards = self._tables.wire.node.replicas.values()
        n_bytes[comm.rank] = sum(part.rows.nbytes for shard in shards for part in shard.store.parts.values()
                                 if hasattr(part, "rows"))  # fmt: skip
        save(self, state, comm, is_last)

    monkeypatch.setattr(ServedStream, "save", count)
    monkeypatch.setattr(served_rows, "MAPPED_BYTES", 1 << 20)
    model = SGDClassifier("log_loss", max_iter=1, tol=None, strategy=ParameterServer(consistency=SSP(3)))
    found = SimulatedCluster(8, rows_per_block=50).fit(model, X, y)
    assert len(n_bytes) == 8 and max(n_bytes.values()) < 0.3 * 8 * n_features
    assert sum(n_bytes.values()) >= 2 * 8 * n_features
    assert Pages(found.coef_).are_mapped and not isinstance(found.coef_, np.memmap)
    assert set(np.flatnonzero(found.coef_[0]) % 2999) == {0}
    assert found.score(X, y) > 0.6


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_a_worker_dies_and_another_comes(penalty, drawn):
    X, y, more, theirs = drawn
    params = {"loss": "log_loss", "alpha": 1e-4, "penalty": penalty, "max_iter": 3, "tol": None, "random_state": 0}
    cluster = SimulatedCluster(4, rows_per_block=200, seconds_per_row=1e-5, kills=[(0.05, 1)], joins=[(0.06, 9)])
    model = SGDClassifier(strategy=server(consistency=SSP(2)), batch_size=512, **params)
    found = cluster.fit(model, X, y)
    expected = log_loss(theirs, ScikitClassifier(**params).fit(X, y).predict_proba(more))
    assert log_loss(theirs, found.predict_proba(more)) < 1.05 * expected
    losses = [record.value for record in found.fit_report_.records]
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0] < 1.0


def test_rows_move_away_from_a_slow_worker(drawn):
    X, y, more, theirs = drawn
    strategy = server(consistency=SSP(2))
    model = SGDClassifier("log_loss", max_iter=4, tol=None, random_state=0, strategy=strategy, batch_size=512)
    cluster = SimulatedCluster(4, rows_per_block=200, seconds_per_row=1e-4, stragglers={0: 4.0})
    found = cluster.fit(model, X, y)
    assert found.fit_report_.counts["rows moved"] > 1000
    assert log_loss(theirs, found.predict_proba(more)) < 0.6


def test_recorded_orders_are_followed_again_to_the_bit(drawn):
    X, y, *_ = drawn
    params = {"max_iter": 2, "tol": None, "random_state": 0, "batch_size": 512}
    strategy = server(consistency=ASP(), moves_rows=False, record=True, reads_ahead=True)
    cluster = SimulatedCluster(4, rows_per_block=200, seconds_per_row=1e-5, latency=1e-4)
    first = cluster.fit(SGDClassifier("log_loss", strategy=strategy, **params), X, y)
    again = clone(strategy).set_params(record=False, replay=first.fit_report_.order)
    cluster = SimulatedCluster(4, rows_per_block=200, seconds_per_row=1e-5, latency=5e-3)
    second, other = (cluster.fit(SGDClassifier("log_loss", strategy=one, **params), X, y) for one in (again, strategy))
    np.testing.assert_array_equal(second.coef_, first.coef_)
    np.testing.assert_array_equal(second.intercept_, first.intercept_)
    assert not np.array_equal(other.coef_, first.coef_)


def test_workers_without_rows_of_a_batch_wait_for_nobody():
    """Rows in their order lie on one of them; more workers than rows; rows that store nothing."""
    X, y = zipf(600, 100, 5)
    X[::7] = 0
    X.eliminate_zeros()
    for n_ranks, n, shuffle in ((4, 600, False), (4, 3, True), (3, 20, True)):
        model = SGDClassifier("log_loss", shuffle=shuffle, max_iter=2, tol=None, strategy=server(), batch_size=16)
        y[:2] = 0, 1
        found = SimulatedCluster(n_ranks, rows_per_block=1 if n < 600 else 50).fit(model, X[:n], y[:n])
        assert np.isfinite(found.coef_).all()


# Watched -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worse, why", [(0.0, "from where it is"), (1e9, "lest it is what waits")])
def test_a_guard_tightens_staleness(worse, why, drawn, monkeypatch):
    """Whatever it takes for too large a loss, or for none: in the end ranks are in step, and learn as one does."""
    monkeypatch.setattr(guard, "WORSE", worse)
    X, y, others, theirs = drawn
    params = {"loss": "log_loss", "alpha": 1e-5, "max_iter": 12, "n_iter_no_change": 99, "random_state": 0}
    own = {"tol": 10.0, "batch_size": 500}
    cluster = SimulatedCluster(4, rows_per_block=200, seconds_per_row=1e-5, hiccups=(0.1, 10.0))
    strategy = server(consistency=SSP(4), guard=True)
    model = cluster.fit(SGDClassifier(strategy=strategy, **params, **own), X, y)
    notes = [note for note in model.fit_report_.notes if why in note]
    assert [f"SSP(staleness={n})" in note for n, note in zip((2, 1, 0), notes)] == [True] * 3
    assert len(notes) == 3 and model.n_iter_ == 12
    loose = cluster.fit(SGDClassifier(strategy=server(consistency=SSP(4)), **params, **own), X, y)
    lags = [one.fit_report_.histograms["staleness"] for one in (model, loose)]
    n_stale = [sum(n for lag, n in found.items() if lag > 6) for found in lags]
    assert 0 < n_stale[0] < 0.6 * n_stale[1]
    alone = ScikitClassifier(tol=None, **params).fit(X, y)
    assert log_loss(theirs, model.predict_proba(others)) < 1.1 * log_loss(theirs, alone.predict_proba(others))
    one = SGDClassifier(strategy=strategy, **params, **own).fit(X, y)
    assert one.fit_report_.notes == []  # nobody to be behind


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, strategy, message",
    [
        ({"average": True}, {}, "average.*Leave it at False"),
        ({}, {"compression": FP16()}, "compression"),
        ({}, {"groups": 2}, "groups.*Leave it at None"),
        ({}, {"guard": True, "consistency": BSP()}, "guard.*has none"),
        ({"learning_rate": "pa1", "loss": "hinge"}, {}, "pa1"),
        ({}, {"sparse": "often"}, "sparse"),
    ],
)  # fmt: skip
def test_refused(params, strategy, message):
    with pytest.raises(ValueError, match=message):
        SGDClassifier(strategy=ParameterServer(**{"sparse": True, **strategy}), **params).fit(X, Y)


def test_refused_rows_and_models():
    with pytest.raises(ValueError, match="csr_matrix"):
        SGDClassifier(strategy=server()).fit(X.toarray(), Y)
    with pytest.raises(ValueError, match="linear models of sparse rows"):
        MLPClassifier(strategy=server()).fit(X, Y)
    with pytest.raises(ValueError, match="Floating-point"):
        SGDClassifier("squared_error", strategy=server(), max_iter=5).fit(X * 1e200, Y)


# Checkpoints ---------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """What ends a fit from outside."""


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.parametrize("after", [1, 3])
def test_another_process_goes_on_from_an_epoch(after, penalty, tmp_path, monkeypatch, drawn):
    """In step and of the same workers to the same bits: also when shards are cut into others."""
    X, y, *_ = drawn
    X = X * 0.3
    params = {"loss": "log_loss", "penalty": penalty, "alpha": 1e-3, "max_iter": 5, "tol": None, "random_state": 0}
    model = SGDClassifier(strategy=server(moves_rows=False), batch_size=512, **params)
    whole = SimulatedCluster(3, rows_per_block=200).fit(clone(model), X, y)

    def save(self, state, comm, is_last, save=ServedStream.save):
        if state.epoch == after and state.batch:
            raise Interrupted
        return save(self, state, comm, is_last)

    with config_context(checkpoint=str(tmp_path / "fit"), checkpoint_every=1e-9):
        with monkeypatch.context() as patch:
            patch.setattr(ServedStream, "save", save)
            with pytest.raises(Interrupted):
                SimulatedCluster(3, rows_per_block=200).fit(clone(model), X, y)
        names = {path.name.partition("@")[0] for path in tmp_path.rglob("*.whole")}
        assert {"state", "rows-0", "rows-1"} <= names
        with config_context(resume=True):
            epochs, close = set(), ServedStream.close
            monkeypatch.setattr(
                ServedStream, "close", lambda self, state, *args: epochs.add(state.epoch) or close(self, state, *args)
            )
            found = SimulatedCluster(3, rows_per_block=200).fit(clone(model), X, y)
    assert epochs == set(range(after, 5))
    np.testing.assert_array_equal(found.coef_, whole.coef_)
    np.testing.assert_array_equal(found.intercept_, whole.intercept_)
    assert found.n_iter_ == whole.n_iter_ == 5 and found.t_ == whole.t_
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_results_of_a_fit_that_its_caller_has_not_seen_are_not_mixed_with_later_ones(tmp_path, monkeypatch, drawn):
    """It had ended after more epochs, on other workers: its parts are of a later version, and cut otherwise."""
    X, y, *_ = drawn
    model = SGDClassifier("log_loss", max_iter=4, tol=None, random_state=0, strategy=server(), batch_size=512)

    def take(self, name, value):
        raise Interrupted

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch:
            patch.setattr(RowGathering, "take", take)
            with pytest.raises(Interrupted):
                SimulatedCluster(3, rows_per_block=200).fit(clone(model), X, y)
        names = {path.name for path in tmp_path.rglob("result-*")}
        assert len(names) >= 2
        for path in list(tmp_path.rglob("result-*")):  # as if it had stopped later than this one will
            path.rename(path.with_name(path.name.partition("@")[0] + "@99.whole"))
        found = SimulatedCluster(2, rows_per_block=200).fit(clone(model), X, y)
    whole = SimulatedCluster(2, rows_per_block=200).fit(clone(model), X, y)
    assert np.corrcoef(found.coef_[0], whole.coef_[0])[0, 1] > 0.95
    assert found.score(X, y) == pytest.approx(whole.score(X, y), abs=0.02)


@pytest.mark.parametrize("n_ranks", [2, 5])
def test_other_numbers_of_workers_go_on_from_an_epoch(n_ranks, tmp_path, monkeypatch, drawn):
    X, y, more, theirs = drawn
    params = {"loss": "log_loss", "alpha": 1e-4, "max_iter": 4, "tol": None, "random_state": 0}
    model = SGDClassifier(strategy=server(consistency=SSP(2)), batch_size=512, **params)

    def save(self, state, comm, is_last, save=ServedStream.save):
        if state.epoch == 2 and state.batch:
            raise Interrupted
        return save(self, state, comm, is_last)

    with config_context(checkpoint=str(tmp_path), checkpoint_every=1e-9, resume=True):
        with monkeypatch.context() as patch:
            patch.setattr(ServedStream, "save", save)
            with pytest.raises(Interrupted):
                SimulatedCluster(3, rows_per_block=200).fit(clone(model), X, y)
        # What has begun from a checkpoint goes to recruits as any other: the checkpoint may be gone by then.
        changes = {"kills": [(0.1, 1)], "joins": [(0.1, 9)]} if n_ranks == 5 else {}
        cluster = SimulatedCluster(n_ranks, rows_per_block=200, seconds_per_row=1e-5, **changes)
        found = cluster.fit(clone(model), X, y)
    expected = log_loss(theirs, ScikitClassifier(**params).fit(X, y).predict_proba(more))
    assert log_loss(theirs, found.predict_proba(more)) < 1.05 * expected
    assert found.n_iter_ == 4 and len(found.fit_report_.records) == 4


def test_what_was_put_down_is_cut_into_other_shards(tmp_path):
    rng, shelf = np.random.default_rng(0), Shelf(str(tmp_path), is_shared=True)
    table = RowTable(100, 2, n_decaying=1)
    whole = np.zeros((100, 2))
    for number in range(3):
        part = RowPart(table, number, 3)
        part.rows[:] = rng.normal(size=part.rows.shape)
        part.log_scale = -2.0 * number
        numbers = table.numbers_of(number, 3)
        whole[numbers] = part.rows * [np.exp(2.0 * number), 1.0]
        shelf.put(f"rows-{number}", 7, part.state())
    for n_parts in (1, 3, 4):
        again = RowTable(100, 2, n_decaying=1, start=SavedRows(str(tmp_path), [f"rows-{k}" for k in range(3)], 7))
        for number in range(n_parts):
            part = RowPart(again, number, n_parts)
            part.rescale(0.0)
            np.testing.assert_allclose(part.rows, whole[again.numbers_of(number, n_parts)], rtol=1e-12)
