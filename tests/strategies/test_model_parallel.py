"""Models cut into shards: the answers of models that are not, whichever ranks hold them, and whoever dies."""

import itertools
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits

from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.losses import Squared
from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.objectives.network import Network
from daskdml.runtime.shelf import MemoryShelf, Shelf
from daskdml.strategies import AllReduce, Hybrid, ModelParallel
from daskdml.testing import SimulatedCluster
from daskdml.training.sharded import Grid, ShardedReplica
from daskdml.utils.config import config_context

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Hybrid with batch_size"),
]

LAYERS = [(32,), (24, 16), (24, 16, 20)]
GRIDS = [
    (2, ModelParallel()), (3, ModelParallel()), (11, ModelParallel()), (4, Hybrid(2)), (5, Hybrid(2)), (6, Hybrid(3)),
]  # fmt: skip
KINDS = [((32,), ModelParallel()), ((24, 16), ModelParallel()), ((32,), Hybrid(2))]
SLOW = {"rows_per_block": 64, "seconds_per_row": 3e-5}


def digits(n=700):
    X, y = load_digits(return_X_y=True)
    return X[:n] / 16, y[:n]


def model(**params):
    given = {"hidden_layer_sizes": (32,), "max_iter": 3, "random_state": 0, "dtype": "float64", "batch_size": 100}
    return MLPClassifier(**{**given, **params})


def parameters(fitted):
    return np.concatenate([part.ravel() for part in (*fitted.coefs_, *fitted.intercepts_)])


def assert_close(left, right, rtol=1e-9):
    a, b = parameters(left), parameters(right)
    assert np.abs(a - b).max() <= rtol * np.abs(b).max()
    np.testing.assert_allclose(left.loss_curve_, right.loss_curve_, rtol=rtol)


def assert_same_bits(left, right):
    np.testing.assert_array_equal(parameters(left), parameters(right))
    assert left.loss_curve_ == right.loss_curve_
    np.testing.assert_array_equal(left.validation_scores_, right.validation_scores_)


def on(cluster, estimator, X, y, **kwargs):
    with config_context(runtime="threads"):
        return cluster.fit(estimator, X, y, **kwargs)


# The parts of a network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(7, 1), (7, 3), (5, 9, 2), (6, 9, 8, 2), (6, 9, 8, 10, 3)])
@pytest.mark.parametrize("n_shards", [1, 2, 5])
def test_shards_are_all_parameters_once(sizes, n_shards):
    network = Network(sizes, "tanh", Squared(), dtype=np.float64)
    sharded = network.in_shards(n_shards)
    theta, found = np.arange(1.0, network.n_params + 1), np.zeros(network.n_params)
    for k in range(n_shards):
        part = sharded.part_of(theta, k)
        before = found.copy()
        sharded.put(found, k, part)
        assert np.count_nonzero(before != found) == len(part) == sharded.n_params_of(k)
    common = sharded.common_of(theta)
    sharded.put_common(found, common)
    np.testing.assert_array_equal(found, theta)
    assert len(common) == sharded.n_common
    assert sum(sharded.n_decayed_of(k) for k in range(n_shards)) == network.n_decayed


@pytest.mark.parametrize("sizes", [(7, 3), (5, 9, 2), (6, 9, 8, 2), (6, 9, 8, 10, 3)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_gradients_of_shards_are_central_differences(sizes, activation):
    random = np.random.default_rng(0)
    network = Network(sizes, activation, Squared(), dtype=np.float64)
    sharded = network.in_shards(2)
    theta = random.normal(size=network.n_params)
    X, y, weight = random.normal(size=(11, sizes[0])), random.normal(size=(11, sizes[-1])), random.uniform(size=11)
    spans = [slice(0, 4), slice(4, 11)]

    def one_by_one(n_items, work):
        for i in range(n_items):
            work(i)

    def total(fold):
        return fold.result()

    def loss(theta):
        return 0.5 * float(weight @ np.square(network.raw(theta, X) - y).sum(axis=1))

    flats = {k: sharded.part_of(theta, k) for k in range(2)}
    rows = sharded.rows(flats, sharded.common_of(theta), [X[span] for span in spans], one_by_one)
    found = sharded.forward(rows, total)
    np.testing.assert_allclose(found.raw, network.raw(theta, X), rtol=1e-12)
    delta = weight[:, None] * (found.raw - y)
    slopes = sharded.backward(rows, found, delta, total)
    gradient = np.zeros(network.n_params)
    for m in range(2):
        one = np.zeros(network.n_params)
        for k in range(2):
            out = np.empty(sharded.n_params_of(k))
            sharded.gradient(rows, found, slopes, k, m, out)
            sharded.put(one, k, out)
        common = np.zeros(sharded.n_common)
        sharded.common_gradient(slopes, m, common)
        sharded.put_common(one, common)
        gradient += one
    step = 1e-6
    expected = [(loss(theta + step * e) - loss(theta - step * e)) / (2 * step) for e in np.eye(len(theta))]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_the_first_parameters_are_those_of_the_whole_network():
    network = Network((5, 90, 12, 3), "relu", Squared(), dtype=np.float64)
    sharded = network.in_shards(4)
    theta = network.start(3)
    flats, common = sharded.start(3, [0, 1, 3])
    for k, flat in flats.items():
        np.testing.assert_array_equal(flat, sharded.part_of(theta, k))
    np.testing.assert_array_equal(common, sharded.common_of(theta))


@pytest.mark.parametrize("size, n_groups, n_shards", [(1, 1, 8), (4, 1, 8), (5, 2, 3), (7, 3, 8), (9, 2, 5)])
def test_every_group_holds_every_shard_once(size, n_groups, n_shards):
    grids = [Grid(size, rank, n_groups, n_shards) for rank in range(size)]
    for members in grids[0].groups:
        held = [k for rank in members for k in grids[rank].shards_of(rank)]
        assert held == list(range(n_shards))
    assert [rank for members in grids[0].groups for rank in members] == list(range(size))
    for grid, k in itertools.product(grids, range(n_shards)):
        assert [k in grids[owner].shards_of(owner) for owner in grid.owners(k)] == [True] * n_groups


# Answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
def test_the_model_is_the_one_of_all_reduce(layers):
    X, y = digits()
    whole = model(hidden_layer_sizes=layers).fit(X, y)
    assert_close(model(hidden_layer_sizes=layers, strategy=ModelParallel()).fit(X, y), whole)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("n_ranks, strategy", GRIDS)
def test_bits_do_not_depend_on_ranks(layers, n_ranks, strategy):
    X, y = digits()
    params = {"hidden_layer_sizes": layers, "early_stopping": len(layers) == 2, "batch_size": 300}
    alone = model(strategy=ModelParallel(), **params).fit(X, y)
    found = on(SimulatedCluster(n_ranks, rows_per_block=64), model(strategy=clone(strategy), **params), X, y)
    assert_same_bits(found, alone)


@pytest.mark.parametrize("layers", [(32,), (24, 16)])
@pytest.mark.parametrize(
    "params",
    [
        {"shuffle": False}, {"solver": "sgd", "momentum": 0.5, "nesterovs_momentum": False}, {"alpha": 1.0},
        {"batch_growth": 2.0, "batch_size": 50}, {"strategy": Hybrid(2, accumulate=3)}, {"activation": "logistic"},
        {"learning_rate_scaling": "linear", "batch_growth": 1.5, "warm_up": 1.0}, {"n_iter_no_change": 1, "tol": 1.0},
    ],
)  # fmt: skip
def test_parameters_act_as_they_do_without_shards(layers, params):
    X, y = digits(400)
    strategy = params.get("strategy", Hybrid(2))
    params = {**params, "hidden_layer_sizes": layers, "max_iter": 3}
    whole = model(**{**params, "strategy": AllReduce(accumulate=strategy.accumulate)}).fit(X, y)
    found = on(SimulatedCluster(4, rows_per_block=64), model(**{**params, "strategy": clone(strategy)}), X, y)
    assert_close(found, whole)
    assert found.n_iter_ == whole.n_iter_


@pytest.mark.parametrize("layers", [(32,), (24, 16)])
@pytest.mark.parametrize("strategy", [ModelParallel(), Hybrid(2)])
def test_sparse_rows(layers, strategy):
    X, y = digits(400)
    X[X < 0.3] = 0
    whole = model(hidden_layer_sizes=layers).fit(X, y)
    found = on(
        SimulatedCluster(4, rows_per_block=64), model(hidden_layer_sizes=layers, strategy=clone(strategy)),
        sparse.csr_matrix(X), y,
    )  # fmt: skip
    assert_close(found, whole)


@pytest.mark.parametrize("layers", [(32,), (24, 16)])
def test_several_outputs_and_weights(layers):
    random = np.random.default_rng(0)
    X, weight = random.normal(size=(300, 9)), random.integers(0, 3, 300).astype(float)
    y = np.stack([X[:, 0] ** 2, X[:, 1] - X[:, 2]], axis=1)
    params = {"hidden_layer_sizes": layers, "max_iter": 4, "random_state": 1, "dtype": "float64", "batch_size": 64}
    whole = MLPRegressor(**params).fit(X, y, weight)
    found = MLPRegressor(strategy=ModelParallel(), **params)
    on(SimulatedCluster(3, rows_per_block=64), found, X, y, sample_weight=weight)
    assert_close(found, whole)


@pytest.mark.parametrize("layers", [(32,), (24, 16)])
@pytest.mark.parametrize("strategy", [ModelParallel(), Hybrid(2)])
def test_validation_rows_held_out_and_given(layers, strategy):
    X, y = digits()
    for params, given in [
        ({"early_stopping": True, "n_iter_no_change": 1, "max_iter": 8}, {}), ({}, {"X_val": X[:90], "y_val": y[:90]}),
    ]:  # fmt: skip
        params = {"hidden_layer_sizes": layers, **params}
        whole = model(**params).fit(X, y, **given)
        found = model(strategy=clone(strategy), **params)
        on(SimulatedCluster(5, rows_per_block=64), found, X, y, **given)
        assert found.validation_scores_ == pytest.approx(whole.validation_scores_)
        assert_close(found, whole)


def test_rows_larger_than_what_is_mixed_stay_where_they_are(monkeypatch):
    monkeypatch.setattr("daskdml.training.schedule.MIXED_BYTES", 0)
    X, y = digits()
    for layers, strategy in itertools.product([(32,), (24, 16)], [ModelParallel(), Hybrid(2)]):
        whole = model(hidden_layer_sizes=layers, batch_size=300).fit(X, y)
        found = model(hidden_layer_sizes=layers, batch_size=300, strategy=clone(strategy))
        assert_close(on(SimulatedCluster(5, rows_per_block=64), found, X, y), whole)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_and_warm_start_go_on(solver):
    X, y = digits(400)
    for kind in ("partial_fit", "warm_start"):
        fitted = []
        for strategy in (AllReduce(), ModelParallel()):
            own = model(strategy=strategy, solver=solver, warm_start=kind == "warm_start")
            for _ in range(3):
                own = own.partial_fit(X, y, classes=np.unique(y)) if kind == "partial_fit" else own.fit(X, y)
            fitted.append(own)
        assert_close(*fitted)


# Deaths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [0.05, 0.1, 0.25, 0.4, 0.6])
@pytest.mark.parametrize("layers, strategy", KINDS)
def test_a_death_changes_no_bit(layers, strategy, second):
    X, y = digits()
    params = {"hidden_layer_sizes": layers, "max_iter": 12, "early_stopping": True}
    alone = model(strategy=ModelParallel(), **params).fit(X, y)
    cluster = SimulatedCluster(5, kills=[(second, 2)], joins=[(second + 0.2, 9)], **SLOW)
    found = on(cluster, model(strategy=clone(strategy), **params), X, y)
    assert cluster.report.generations > 1
    assert_same_bits(found, alone)
    assert found.fit_report_.counts["memories lost"] == 0


def test_deaths_of_neighbours_begin_anew_and_are_counted():
    X, y = digits()
    alone = model(strategy=ModelParallel(), max_iter=12).fit(X, y)
    cluster = SimulatedCluster(5, kills=[(0.4, 2), (0.4, 3)], **SLOW)
    found = on(cluster, model(strategy=ModelParallel(), max_iter=12), X, y)
    assert_same_bits(found, alone)
    assert found.fit_report_.counts["memories lost"] == 1


def test_shards_on_a_shared_shelf_survive_all(tmp_path):
    """A fit that is broken off goes on from what was put down, shard by shard."""
    X, y = digits()
    alone = model(strategy=ModelParallel(), max_iter=12).fit(X, y)
    broken = SimulatedCluster(3, kills=[(0.4, 0), (0.4, 1), (0.4, 2)], **SLOW)
    with config_context(checkpoint=str(tmp_path), checkpoint_every=0.01, resume=True):
        with pytest.raises(RuntimeError):
            on(broken, model(strategy=ModelParallel(), max_iter=12), X, y)
        (folder,) = tmp_path.glob("*.parts")
        names = sorted(path.name.split("@")[0] for path in folder.iterdir())
        n_shards = alone._network.in_shards().n_shards
        assert set(names) == {"state", "seen-by-all", *(f"shard-{k}" for k in range(n_shards))}
        cluster = SimulatedCluster(4, **SLOW)
        found = on(cluster, model(strategy=ModelParallel(), max_iter=12), X, y)
    fresh = SimulatedCluster(4, **SLOW)
    on(fresh, model(strategy=ModelParallel(), max_iter=12), X, y)
    assert cluster.report.rounds < fresh.report.rounds / 2
    assert_same_bits(found, alone)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_joins_a_lone_one_costs_no_steps():
    X, y = digits()
    alone = model(strategy=ModelParallel(), max_iter=12).fit(X, y)
    cluster = SimulatedCluster(1, joins=[(0.15, 1), (0.3, 2)], **SLOW)
    found = on(cluster, model(strategy=ModelParallel(), max_iter=12), X, y)
    assert cluster.report.generations == 3 and cluster.report.steps == 12
    assert found.fit_report_.counts["memories lost"] == 0
    assert_same_bits(found, alone)


def test_a_second_death_finds_copies_of_what_the_first_one_held(monkeypatch):
    """Before any step of the new group has ended: copies are made when it forms."""
    X, y = digits()
    alone = model(strategy=ModelParallel(), max_iter=12).fit(X, y)
    step = ShardedReplica.step_along
    cluster = SimulatedCluster(5, kills=[(0.3, 2)], **SLOW)

    def step_and_die(self, comm, *args):
        if comm.generation == 2 and comm.rank == 1:
            monkeypatch.setattr(ShardedReplica, "step_along", step)
            simulation = comm._transport.simulation
            simulation.at(simulation.now, simulation.kill, comm._transport.rank.worker.name)
        return step(self, comm, *args)

    monkeypatch.setattr(ShardedReplica, "step_along", step_and_die)
    found = on(cluster, model(strategy=ModelParallel(), max_iter=12), X, y)
    assert cluster.report.generations == 3
    assert found.fit_report_.counts["memories lost"] == 0
    assert_same_bits(found, alone)


def test_a_folder_that_workers_do_not_see_is_refused(tmp_path, monkeypatch):
    X, y = digits(200)
    monkeypatch.setattr(Shelf, "versions", lambda self: {})
    with config_context(checkpoint=str(tmp_path)), pytest.raises(ValueError, match="is not seen by all workers"):
        on(SimulatedCluster(2, rows_per_block=64), model(strategy=ModelParallel()), X, y)


def test_shards_that_cannot_be_put_down_do_not_end_a_fit(monkeypatch):
    X, y = digits()
    alone = model(strategy=ModelParallel(), max_iter=6).fit(X, y)

    def fail(self, name, version, value, copies=True):
        if name.startswith("shard"):
            raise OSError("No space left on device")
        put(self, name, version, value, copies)

    put = MemoryShelf.put
    monkeypatch.setattr(MemoryShelf, "put", fail)
    found = on(SimulatedCluster(3, kills=[(0.25, 1)], **SLOW), model(strategy=ModelParallel(), max_iter=6), X, y)
    assert_same_bits(found, alone)


# Parameters -----------------------------------------------------------------------------------------------------------


def test_too_many_shards_are_refused():
    X, y = digits(100)
    with pytest.raises(ValueError, match="n_shards=33 is more than the network can be cut into"):
        model(strategy=ModelParallel(n_shards=33)).fit(X, y)
    with pytest.raises(ValueError, match="ranks_per_model"):
        model(strategy=Hybrid(0)).fit(X, y)


def test_a_batch_that_has_work_for_one_group_alone_is_warned_of():
    X, y = digits(100)
    with pytest.warns(UserWarning, match="has work for one group"):
        model(strategy=Hybrid(2), max_iter=1).fit(X, y)


def test_how_many_rows_of_an_automatic_batch_there_are_at_most_is_said():
    """Networks have 200, SGD's estimators a fiftieth of few rows: both are known after the data only."""
    for kind in (MLPClassifier, SGDClassifier):
        with pytest.warns(UserWarning, match="batch_size='auto': a step of at most 200 rows has work for one group"):
            Hybrid(2).check(kind())
        with pytest.warns(UserWarning, match="batch_size=256: a step of 256 rows has work for one group"):
            Hybrid(2).check(kind(batch_size=256))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Hybrid(2).check(kind(batch_size=300))
            Hybrid(2, accumulate=2).check(kind())
            ModelParallel().check(kind())


def test_strategies_are_estimators():
    assert clone(Hybrid(3, n_shards=4)).get_params() == {"ranks_per_model": 3, "n_shards": 4, "accumulate": 1}
    assert clone(ModelParallel(n_shards=4)).get_params() == {"n_shards": 4, "accumulate": 1}
    own = model(strategy=ModelParallel()).set_params(strategy__accumulate=2)
    assert own.strategy.accumulate == 2


# Linear models, cut by features ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "params",
    [
        {}, {"penalty": "l1"}, {"average": True}, {"early_stopping": True, "average": 3}, {"shuffle": False},
        {"loss": "log_loss", "penalty": "elasticnet", "learning_rate": "invscaling"}, {"fit_intercept": False},
    ],
    ids=str,
)  # fmt: skip
def test_linear_models_are_those_of_all_reduce(make, params):
    X, y = digits()
    params = {"random_state": 0, "max_iter": 4, "tol": None, "batch_size": 300, **params}
    whole = SGDClassifier(strategy=AllReduce(), **params).fit(make(X), y)
    alone = SGDClassifier(strategy=ModelParallel(), **params).fit(make(X), y)
    np.testing.assert_allclose(alone.coef_, whole.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alone.intercept_, whole.intercept_, rtol=1e-9, atol=1e-12)
    for n_ranks, strategy in ((3, ModelParallel()), (4, Hybrid(2)), (9, ModelParallel())):
        found = SGDClassifier(strategy=strategy, **params)
        on(SimulatedCluster(n_ranks, rows_per_block=64), found, make(X), y)
        np.testing.assert_array_equal(found.coef_, alone.coef_)
        np.testing.assert_array_equal(found.intercept_, alone.intercept_)
        assert found.n_iter_ == alone.n_iter_


def test_of_rows_cut_by_features_only_margins_travel_in_steps():
    """Columns travel once; then a rank sends what its features add to raw predictions, and gets those of all."""
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 400))
    y = X[:, 0] + X[:, 1]
    sent = {}
    for epochs in (1, 5):
        model = SGDRegressor(strategy=ModelParallel(), random_state=0, max_iter=epochs, tol=None, batch_size=300)
        sent[epochs] = on(SimulatedCluster(2, rows_per_block=256), model, X, y).fit_report_.counts
    assert sent[5]["bytes sent for rows"] == pytest.approx(sent[1]["bytes sent for rows"], rel=0.01)
    # One number a row forwards, summed and handed back, against 400 of the row itself.
    assert sent[5]["bytes sent for steps"] / 5 < 3000 * 8 * 8 < X.nbytes / 40


def test_calls_of_partial_fit_go_on_with_averages():
    X, y = digits(300)
    fitted = []
    for strategy in (AllReduce(), ModelParallel()):
        model = SGDClassifier(strategy=strategy, random_state=0, average=True, batch_size=50)
        for _ in range(3):
            model.partial_fit(X, y, classes=np.unique(y))
        fitted.append(model)
    np.testing.assert_allclose(fitted[1].coef_, fitted[0].coef_, rtol=1e-9, atol=1e-12)


def test_groups_share_the_micro_batches_of_a_batch():
    """Ranks take the same seconds however many hold the model between them, where rows take long."""
    X, y = np.tile(digits()[0], (3, 1)), np.tile(digits()[1], 3)
    taken = []
    for strategy in (Hybrid(4), Hybrid(2), Hybrid(1)):
        cluster = SimulatedCluster(4, rows_per_block=64, seconds_per_row=1e-2)
        on(cluster, model(strategy=strategy, batch_size=1024), X, y)
        taken.append(cluster.report.seconds)
    # The rows of a rank are those of its group, divided by the ranks that hold the model between them.
    assert taken[0] == pytest.approx(taken[1], rel=0.3) and taken[2] == pytest.approx(taken[1], rel=0.3)


@pytest.mark.parametrize("strategy", [ModelParallel(), Hybrid(2)], ids=str)
def test_scores_are_those_of_averages(strategy):
    X, y = digits()
    found = []
    for one in (AllReduce(), strategy):
        linear = SGDClassifier("log_loss", average=True, early_stopping=True, strategy=one, batch_size=32, max_iter=6,
                               learning_rate="constant", eta0=1.0, random_state=0, n_iter_no_change=10)  # fmt: skip
        on(SimulatedCluster(4, rows_per_block=64), linear, X, y)
        found.append([record.score for record in linear.fit_report_.records])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
    assert len(set(found[0])) > 1


@pytest.mark.parametrize("strategy", [ModelParallel(), Hybrid(2)], ids=str)
def test_the_best_epoch_outlives_a_death(strategy):
    """One that comes long after it: nothing is better until the end."""
    X, y = digits()
    params = {"early_stopping": True, "n_iter_no_change": 50, "max_iter": 16, "learning_rate_init": 0.2}
    alone = model(solver="sgd", strategy=strategy, **params).fit(X, y)
    best = int(np.argmax(alone.validation_scores_))
    assert best < 12
    whole = SimulatedCluster(4, **SLOW)
    on(whole, model(solver="sgd", strategy=strategy, **params), X, y)
    cluster = SimulatedCluster(4, kills=[(0.9 * whole.report.seconds, 2)], **SLOW)
    found = on(cluster, model(solver="sgd", strategy=strategy, **params), X, y)
    assert cluster.report.generations == 2
    assert_same_bits(found, alone)
