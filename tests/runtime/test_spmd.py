"""Programs of supersteps: the same bits on threads and simulated workers, whatever dies, hangs, joins or gets lost."""

import random
import threading
import time

import numpy as np
import pytest
from scipy import sparse

import daskdml
from daskdml.compress import FP16
from daskdml.data import Partitioned
from daskdml.runtime.spmd import Meta, Program, SimulatedCluster, driver, program, run_threads, simulate
from daskdml.utils.fold import Fold

ROWS_PER_BLOCK = 256
N, P, STEPS = 96 * ROWS_PER_BLOCK, 6, 25
SLOW = 1e-5  # seconds a row: the steps take half a second and more, in which things can happen


class Descent(Program):
    """Gradient descent with momentum, far from converged: a step that is lost or done twice shows in every bit."""

    def __init__(self, steps=STEPS):
        self.steps = steps

    def init(self, meta):
        return 0, np.zeros(meta.n_features), np.zeros(meta.n_features)

    def step(self, state, local, comm):
        k, w, velocity = state
        gradient = comm.allreduce_blocks({b.index: b.X.T @ (b.X @ w - b.y) for b in local}) / comm.meta.n_samples
        velocity = 0.9 * velocity - 0.01 * gradient
        return k + 1, w + velocity, velocity

    def done(self, state):
        return state[0] >= self.steps


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    return X, X @ rng.normal(size=P) + rng.normal(size=N)


@pytest.fixture(scope="module")
def reference(rows):
    """The definition: a loop over blocks, folded along the tree over their numbers."""
    X, y = rows
    w, velocity = np.zeros(P), np.zeros(P)
    for _ in range(STEPS):
        parts = []
        for start in range(0, N, ROWS_PER_BLOCK):
            A, b = X[start : start + ROWS_PER_BLOCK], y[start : start + ROWS_PER_BLOCK]
            parts.append(A.T @ (A @ w - b))
        while len(parts) > 1:
            parts = [parts[i] + parts[i + 1] if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
        velocity = 0.9 * velocity - 0.01 * (parts[0] / N)
        w = w + velocity
    return w


def run(cluster, rows):
    return cluster.run(Descent(), *rows)


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7, 96, 200])
def test_threads_give_the_bits_of_the_definition(rows, reference, n_ranks):
    data = Partitioned.from_any(*rows)
    blocks = data.chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    outcome = run_threads(Descent(), blocks, Meta(N, P, len(blocks)), n_ranks)
    assert outcome.step == STEPS
    assert outcome.state[1].tobytes() == reference.tobytes()


def virtual(n_workers, **options):
    return SimulatedCluster(n_workers, rows_per_block=ROWS_PER_BLOCK, **options)


class Failing(Descent):
    def step(self, state, local, comm):
        if state[0] == 3 and comm.rank == comm.size - 1:
            raise KeyError("the program did it")
        return super().step(state, local, comm)


def test_what_a_program_raises_on_one_rank_comes_out(rows):
    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    with pytest.raises(KeyError, match="the program did it"):
        run_threads(Failing(), blocks, Meta(N, P, len(blocks)), 3)
    cluster = virtual(5)
    with pytest.raises(KeyError, match="the program did it"):
        cluster.run(Failing(), *rows)
    assert cluster.report.generations == 1  # and it is not tried again


class Calls(Program):
    """Every call once."""

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        rank = np.array([float(comm.rank)])
        everyone = np.arange(comm.size)
        assert comm.allreduce(rank)[0] == everyone.sum() and comm.allreduce(rank, "max")[0] == comm.size - 1
        gathered = comm.allgather(np.full(comm.rank, comm.rank))
        assert np.concatenate(gathered).tolist() == np.repeat(everyone, everyone).tolist()
        assert comm.broadcast(rank, root=comm.size - 1)[0] == comm.size - 1
        assert comm.vote(comm.rank == 0) and not comm.vote(False)
        rounded = [comm.allreduce(rank + 0.1, topology=name, compression=FP16()) for name in ("tree", "ring", None)]
        for x in rounded:
            np.testing.assert_allclose(x, everyone.sum() + 0.1 * comm.size, rtol=2e-3)
            assert len({other.tobytes() for other in comm.allgather(x)}) == 1
        with pytest.raises(ValueError, match="central, tree, ring, halving with a lossy codec, got 'doubling'"):
            comm.allreduce(rank, topology="doubling", compression=FP16())
        with pytest.raises(ValueError, match="one of central, tree, doubling, ring, halving, got 'star'"):
            comm.allreduce(rank, topology="star")
        after = (comm.rank + 1) % comm.size
        comm.send(after, rank)
        assert comm.receive((comm.rank - 1) % comm.size)[0] == (comm.rank - 1) % comm.size
        assert comm.broadcast_value({"rank": comm.rank}) == {"rank": 0}
        gathered = comm.gather_values(comm.rank)
        assert gathered == (list(everyone) if comm.rank == 0 else None)
        scattered = comm.reduce_scatter(np.arange(10.0))
        comm.barrier()
        gathered = np.concatenate(comm.allgather(scattered))
        np.testing.assert_array_equal(gathered, np.arange(10.0) * comm.size)
        assert comm.rounds == 17
        return comm.size

    def done(self, state):
        return state is not None


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_calls(rows, size):
    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    assert run_threads(Calls(), blocks, Meta(N, P, len(blocks)), size).state == size
    assert virtual(size).run(Calls(), *rows) == size


class Careless(Program):
    """Changes what it was given, and what it gave, at once."""

    def init(self, meta):
        return 0, 0.0

    def step(self, state, local, comm):
        total, size = 0.0, comm.size
        for topology in ("central", "tree", "doubling", "ring", "halving"):
            x = np.full(5, 1.0 + comm.rank)
            found = comm.allreduce(x, topology=topology)
            x[:] = np.nan
            total += found[0]
            found *= np.nan
        for call in (comm.broadcast, comm.broadcast_value):
            x = np.full(5, 1.0 + comm.rank)
            found = call(x)
            x[:] = np.nan
            total += found[0]
        x = np.full(5, 1.0 + comm.rank)
        found = comm.gather_values(x)
        x[:] = np.nan
        comm.barrier()
        assert found is None or [x[0] for x in found] == list(range(1, size + 1))
        x = np.full(size, 1.0 + comm.rank)
        mine = comm.reduce_scatter(x)
        x[:] = np.nan
        pieces = comm.allgather(mine)
        mine[:] = np.nan
        total += sum(piece.sum() for piece in pieces)
        for piece in pieces:
            piece[:] = np.nan
        return state[0] + 1, comm.allreduce(np.array([total]))[0]

    def done(self, state):
        return state[0] == 3


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_what_was_sent_and_what_came_may_be_changed_at_once(rows, size):
    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    triangle = size * (size + 1) / 2
    expected = size * (5 * triangle + 2 + size * triangle)
    for _ in range(5):
        assert run_threads(Careless(), blocks, Meta(N, P, len(blocks)), size).state[1] == expected
    assert virtual(size).run(Careless(), *rows)[1] == expected


class Astray(Program):
    """Rank 1 makes another call than the others."""

    def __init__(self, how):
        self.how = how

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        odd = comm.rank == 1
        if self.how == "shape":
            return comm.allreduce(np.ones(1 if odd else 5), topology="tree")
        if self.how == "operation":
            return comm.allreduce(np.ones(5), "max" if odd else "sum")
        if self.how == "call":
            return comm.broadcast(np.ones(5), root=1) if odd else comm.allreduce(np.ones(5))
        if self.how == "blocks":
            return comm.allreduce_blocks({b.index: np.ones(1 if odd else 5) for b in local})
        if odd:
            comm.barrier()
        return comm.allreduce(np.ones(5))

    def done(self, state):
        return state is not None


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("how", ["shape", "operation", "call", "blocks", "one more"])
def test_ranks_that_make_different_calls_are_told_so(how, size, rows):
    """Arrays of one and of five numbers do add up: to a sum that nobody asked for."""
    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="Ranks are in different calls: rank . is in call 1, .* is in call 1"):
            run_threads(Astray(how), blocks, Meta(N, P, len(blocks)), size)
    with pytest.raises(RuntimeError, match="Ranks are in different calls"):
        virtual(size).run(Astray(how), *rows)


@pytest.mark.parametrize("size", [2, 5])
def test_one_rank_that_fails_after_its_last_call_fails_all(size, rows):
    """The first report that comes is believed: nobody may be done before all are."""

    class Late(Astray):
        def step(self, state, local, comm):
            total = comm.allreduce(np.ones(1))
            if comm.rank == size - 1:
                time.sleep(0.02)
                raise ArithmeticError("late")
            return total

    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    with pytest.raises(ArithmeticError, match="late"):
        run_threads(Late(""), blocks, Meta(N, P, len(blocks)), size)
    with pytest.raises(ArithmeticError, match="late"):
        virtual(size).run(Late(""), *rows)


def test_blocks_of_other_shapes_are_a_sentence(rows):
    class Uneven(Astray):
        def step(self, state, local, comm):
            return comm.allreduce_blocks({b.index: np.ones(1 + b.index % 2) for b in local})

    with pytest.raises(ValueError, match=r"arrays of one shape, got \(1,\) and \(2,\)"):
        virtual(2).run(Uneven(""), *rows)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda comm: comm.allreduce(np.ones(2), "mean"), "operation must be one of sum, max, min, got 'mean'"),
        (lambda comm: comm.reduce_scatter(np.ones(2), "mean"), "operation must be one of sum, max, min"),
        (lambda comm: comm.receive(-1), "int from 0 to 1, got -1"),
        (lambda comm: comm.receive(2), "int from 0 to 1, got 2"),
        (lambda comm: comm.send(2, np.ones(2)), "int from 0 to 1, got 2"),
        (lambda comm: comm.send(-1, np.ones(2)), "int from 0 to 1, got -1"),
        (lambda comm: comm.broadcast(np.ones(2), root=3), "int from 0 to 1, got 3"),
        (lambda comm: comm.allreduce_values({}, max), "a value for each block"),
        (lambda comm: comm.allreduce_blocks({}), "a value for each block"),
        (lambda comm: comm.allreduce(np.array(["a"])), "take numbers, got an array of <U1"),
    ],
)
def test_wrong_arguments_are_a_sentence(call, match, rows):
    class Wrong(Astray):
        def step(self, state, local, comm):
            return call(comm)

    with pytest.raises((ValueError, TypeError), match=match):
        virtual(2).run(Wrong(""), *rows)


@pytest.mark.parametrize("what", [Descent, "descent", None])
def test_what_is_no_program_is_refused(what, rows):
    with pytest.raises(TypeError, match="instance of a subclass of daskdml.Program"):
        daskdml.run(what, *rows)


def test_how_many_are_true(rows):
    class Count(Astray):
        def step(self, state, local, comm):
            flags = np.array([True, comm.rank > 0])
            return comm.allreduce(flags), comm.allgather(comm.reduce_scatter(flags))

    total, parts = virtual(3).run(Count(""), *rows)
    assert total.tolist() == [3, 2] == np.concatenate(parts).tolist()


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, pytest.fail.Exception, SystemExit])
def test_whatever_a_step_raises_ends_the_program(error, rows):
    class Ends(Astray):
        def step(self, state, local, comm):
            comm.barrier()
            raise error("that is all")

    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    with pytest.raises(error, match="that is all"):
        run_threads(Ends(""), blocks, Meta(N, P, len(blocks)), 3)
    with pytest.raises(error, match="that is all"):
        virtual(3).run(Ends(""), *rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_workers": 0}, {"n_workers": "3"}, {"n_workers": 2.5}, {"loss": 1.0}, {"loss": -0.1}, {"bandwidth": 0},
        {"latency": (2e-3, 1e-3)}, {"latency": -1}, {"save_every": 0}, {"rows_per_block": 0}, {"seconds_per_row": -1.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_cluster_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be"):
        SimulatedCluster(**{"n_workers": 2, **wrong})


class Writing(Descent):
    def local(self, blocks):
        for block in blocks:
            block.X[:] = 0.0
        return blocks


def test_rows_cannot_be_written_to(rows):
    X, y = rows
    before = X.copy()
    for kind in (np.asarray, sparse.csr_array):
        with pytest.raises((ValueError, TypeError, NotImplementedError)):
            virtual(2).run(Writing(), kind(X), y)
    assert (X == before).all()


class Silent(Descent):
    """Never talks to anybody, and waits for a moment in every step."""

    def step(self, state, local, comm):
        time.sleep(0.01)
        return state[0] + 1, state[1], state[2]


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_a_step_that_talks_to_nobody_can_be_ended(rows, n_ranks):
    """And its states are handed out while it goes on, those of a single rank too, which runs in this very thread."""
    blocks = Partitioned.from_any(*rows).chunks[0].blocks(0, 0, ROWS_PER_BLOCK)
    error, seen, before = KeyError("stop"), [], set(threading.enumerate())

    def on_saved(step, state):
        seen.append(step)
        raise error

    with pytest.raises(KeyError, match="stop"):
        run_threads(Silent(10**6), blocks, Meta(N, P, len(blocks)), n_ranks, save_every=0.05, on_saved=on_saved)
    assert seen and not [t for t in set(threading.enumerate()) - before if "_run" in t.name]


# Simulated workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [1, 7, 64])
def test_simulated_workers_give_the_bits_of_the_definition(rows, reference, n_workers):
    cluster = virtual(n_workers)
    assert run(cluster, rows)[1].tobytes() == reference.tobytes()
    assert cluster.report.generations == 1 and cluster.report.steps == STEPS and cluster.report.refused == 0


def test_two_hundred_workers(rows, reference):
    cluster = virtual(200)
    assert run(cluster, rows)[1].tobytes() == reference.tobytes()


def test_equal_seeds_give_equal_traces(rows):
    def trace(seed):
        cluster = virtual(9, seconds_per_row=SLOW, loss=0.05, kills=[(0.3, 4)], joins=[(0.4, 20)], seed=seed)
        run(cluster, rows)
        return cluster.report

    assert trace(1) == trace(1) and trace(1).trace != trace(2).trace


def test_stragglers_cost_time_and_no_bit(rows, reference):
    quick = virtual(4, seconds_per_row=SLOW)
    slow = virtual(4, seconds_per_row=SLOW, stragglers={2: 20.0})
    assert run(quick, rows)[1].tobytes() == run(slow, rows)[1].tobytes() == reference.tobytes()
    assert slow.report.seconds > 5 * quick.report.seconds


def test_bytes_are_counted_where_they_are_sent():
    """A ring moves 2 (P - 1) / P of a vector per rank."""

    class Ring(Calls):
        def step(self, state, local, comm):
            return comm.allreduce(np.full(80_000, float(comm.rank)))

    cluster = virtual(8, latency=(1e-5, 2e-5))
    total = cluster.run(Ring(), np.ones((8 * ROWS_PER_BLOCK, 1)))
    assert (total == 28.0).all()
    assert cluster.report.bytes_sent == dict.fromkeys(range(8), 2 * 7 * 80_000)


def test_all_dead_and_a_new_one_goes_on_from_the_saved_state(rows, reference):
    cluster = virtual(4, seconds_per_row=SLOW, kills=[(0.5, w) for w in range(4)], joins=[(2.0, 9)])
    assert run(cluster, rows)[1].tobytes() == reference.tobytes()
    assert cluster.report.generations == 2


def test_all_dead_for_good_is_a_sentence(rows):
    with pytest.raises(RuntimeError, match="Nobody can go on"):
        run(virtual(2, seconds_per_row=SLOW, kills=[(0.5, 0), (0.5, 1)]), rows)


# Schedules drawn at random -------------------------------------------------------------------------------------------


def schedule(seed):
    """Return a cluster to which anything may happen; where no worker is spared, one joins."""
    draw = random.Random(seed)
    n = draw.choice([2, 3, 5, 9, 17, 33])
    doomed = draw.sample(range(n), draw.randint(0, n))
    moments = [draw.uniform(0.0, 2.0) for _ in doomed]
    if draw.random() < 0.3:
        moments = [moments[0]] * len(doomed) if doomed else []
    fates = [draw.random() < 0.7 for _ in doomed]
    joins = [(draw.uniform(0.0, 2.0), 100 + k) for k in range(draw.randint(len(doomed) == n, 2))]
    return virtual(
        n, seconds_per_row=SLOW, loss=draw.choice([0.0, 0.02, 0.1]),
        stragglers={w: 20.0 for w in range(n) if draw.random() < 0.1},
        kills=[(t, w) for t, w, dies in zip(moments, doomed, fates) if dies],
        suspects=[(t, w) for t, w, dies in zip(moments, doomed, fates) if not dies],
        joins=joins, save_every=draw.choice([1, 5, 100]), seed=seed,
    )  # fmt: skip


def fuzz(rows, reference, seeds, generations=None):
    """Return the seeds whose history does not end with the reference's bits."""
    bad = []
    for seed in seeds:
        cluster = schedule(seed)
        if bits_of(cluster, rows) != reference.tobytes():
            bad.append(seed)
        elif generations is not None:
            generations.append(cluster.report.generations)
    return bad


def test_every_history_ends_with_the_bits_of_the_reference(rows, reference):
    generations = []
    assert fuzz(rows, reference, range(60), generations) == []
    assert np.mean(generations) > 2 and max(generations) >= 5  # or nothing was tried


@pytest.mark.slow
def test_a_thousand_histories(rows, reference):
    assert fuzz(rows, reference, range(1000, 2000)) == []


# Faults put into the shipped code must be caught ---------------------------------------------------------------------


def test_what_comes_from_a_generation_that_is_over_is_not_kept():
    station, packet = program.Station(), np.zeros(3)
    assert station.put(1, 0, 0, packet) and station.put(2, 0, 0, packet) and station.n_bytes == 48
    station.retire(1)
    assert not station.has(1, 0) and not station.put(1, 1, 0, packet) and station.n_bytes == 24
    assert station.has(2, 0)


def test_without_fencing_histories_go_wrong(rows, reference, monkeypatch):
    """Mutant: what was sent in a generation that is over is handed out in the next, in place of its own packets."""
    take, stale = program.Station.take, []

    def unfenced(self, generation, source):
        old = [key for key in self._packets if key[0] < generation and key[1] == source and self._packets[key]]
        if not old:
            return take(self, generation, source)
        stale.append(old[0])
        take(self, generation, source)
        return take(self, *old[0])

    def forgetful(self, generation):
        self.retired = max(self.retired, generation - 1)

    monkeypatch.setattr(program.Station, "take", unfenced)
    monkeypatch.setattr(program.Station, "retire", forgetful)
    # Most such packets say that they are of another call; not one of a call with the same number.
    monkeypatch.setattr(program.Labelled, "__new__", _fitting_anywhere(program.Labelled.__new__))
    wrong = [seed for seed in range(60) if bits_of(schedule(seed), rows) not in (None, reference.tobytes())]
    assert stale and wrong


class Anything(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, other):
        return False


def _fitting_anywhere(new):
    return lambda cls, what, packet: new(cls, Anything(what), packet)


def bits_of(cluster, rows):
    """The bits that a history ends with, None if it ends otherwise."""
    try:
        return run(cluster, rows)[1].tobytes()
    except Exception:
        return None


def test_a_dropped_block_is_caught(rows, reference, monkeypatch):
    """Mutant: of the blocks that a death loses, one is not placed again."""
    assign = simulate.assign

    def short(held, lost, *args):
        was_placed = any(held.values())
        return assign(held, lost[: len(lost) - was_placed], *args)

    monkeypatch.setattr(simulate, "assign", short)
    assert fuzz(rows, reference, range(20))


def test_a_repeated_step_is_caught(rows, reference, monkeypatch):
    """Mutant: the next generation begins at the state of the step before, but counts on."""
    advance = driver.Driver._advance

    def late(self, step, state):
        before = self.state
        advance(self, step, state)
        if isinstance(state, tuple) and before is not None and state[0] < STEPS:
            self.state = (state[0], *before[1:])

    monkeypatch.setattr(driver.Driver, "_advance", late)
    assert fuzz(rows, reference, range(20))


def test_sums_in_the_order_of_arrival_are_caught(rows, reference, monkeypatch):
    """Mutant: values are added as they come, instead of at their places in the tree over blocks."""

    def as_they_come(self, level, i, value):
        root = (self.n_blocks - 1).bit_length(), 0
        self.nodes[root] = self.combine(self.nodes[root], value) if root in self.nodes else value

    monkeypatch.setattr(Fold, "place", as_they_come)
    assert fuzz(rows, reference, range(20))
    assert len({bits_of(schedule(seed), rows) for seed in range(20)}) > 1  # what comes first depends on who is there


# The driver by itself ------------------------------------------------------------------------------------------------


def outcome(kind, step, error=None):
    return program.Outcome(kind, step, f"state {step}", error)


def running(workers="ab"):
    """Return a driver whose first group has begun."""
    one = driver.Driver(workers, "state 0")
    assert one.begin() == [driver.Place(tuple(workers))]
    owners = {worker: [i] for i, worker in enumerate(workers)}
    assert one.on(driver.Placed(owners)) == [driver.Start(1, owners, 0, "state 0")]
    return one


def test_the_most_advanced_state_is_gone_on_from():
    one = running("abc")
    assert one.on(driver.Lost("b")) == [driver.Abort(1)]
    assert one.on(driver.Returned(1, "a", outcome("aborted", 4))) == []
    assert one.on(driver.Returned(1, "c", outcome("aborted", 5))) == [driver.Place(("a", "c"))]
    (start,) = one.on(driver.Placed({"a": [0], "c": [1, 2]}))
    assert start == driver.Start(2, {"a": [0], "c": [1, 2]}, 5, "state 5")


def test_what_a_rank_that_is_done_returns_counts_even_if_its_last_step_was_saved_before():
    one = running()
    one.on(driver.Saved(1, 7, "saved at 7"))
    assert one.on(driver.Returned(1, "a", outcome("done", 7))) == [driver.Finish(7, "state 7")]


def test_what_comes_from_a_group_that_is_over_is_refused():
    one = running()
    one.on(driver.Lost("b"))
    one.on(driver.Returned(1, "a", outcome("aborted", 2)))
    one.on(driver.Placed({"a": [0, 1]}))
    assert one.on(driver.Returned(1, "a", outcome("done", 9))) == []
    assert one.on(driver.Saved(1, 9, "state 9")) == [] and one.step == 2
    assert one.on(driver.Returned(2, "b", outcome("done", 9))) == []  # never a rank of this group
    assert one.on(driver.Returned(2, "a", outcome("done", 9))) == [driver.Finish(9, "state 9")]


def test_blocks_that_were_placed_with_a_dead_worker_are_placed_again():
    one = driver.Driver("ab", "state 0")
    one.begin()
    assert one.on(driver.Lost("b")) == [driver.Place(("a",))]
    assert one.on(driver.Placed({"a": [0], "b": [1]})) == []
    assert one.on(driver.Placed({"a": [0, 1]}))[0].generation == 1


def test_a_worker_that_joins_becomes_a_rank_when_the_step_has_ended_if_joins_are_taken():
    one = running()
    assert one.on(driver.Joined("c")) == [driver.Pause(1)]
    assert one.on(driver.Returned(1, "a", outcome("aborted", 4))) == [driver.Abort(1)]
    assert one.on(driver.Returned(1, "b", outcome("aborted", 4))) == [driver.Place(("a", "b", "c"))]
    full = driver.Driver("ab", "state 0", most_ranks=2)
    full.begin()
    full.on(driver.Placed({"a": [0], "b": [1]}))
    assert full.on(driver.Joined("c")) == []
    one = driver.Driver("ab", "state 0", takes_joins=False)
    one.begin()
    one.on(driver.Placed({"a": [0], "b": [1]}))
    assert one.on(driver.Joined("c")) == []
    one.on(driver.Lost("b"))
    assert one.on(driver.Returned(1, "a", outcome("aborted", 1))) == [driver.Place(("a", "c"))]


def test_an_error_of_the_program_ends_it_at_once():
    one, error = running(), KeyError("no")
    assert one.on(driver.Returned(1, "a", outcome("failed", 3, error))) == [driver.Abort(1), driver.Fail(error)]
    assert one.on(driver.Lost("b")) == [] and one.on(driver.Returned(1, "b", outcome("done", 9))) == []


def test_rows_that_kill_one_worker_after_the_other_are_a_sentence():
    one = driver.Driver(range(9), "state 0")
    (place,) = one.begin()
    for victim in range(3):
        one.on(driver.Placed({worker: [worker] for worker in place.workers}))
        one.on(driver.Lost(victim))
        for worker in range(victim + 1, 9):
            actions = one.on(driver.Returned(one.generation, worker, outcome("aborted", 0)))
        (place,) = actions
    one.on(driver.Placed({worker: [worker] for worker in place.workers}))
    abort, fail = one.on(driver.Lost(3))
    assert abort == driver.Abort(4) and "died 4 times in step 1, the last one at 3" in str(fail.error)


def test_without_workers_it_waits_for_one():
    one = running("a")
    assert one.on(driver.Lost("a")) == [driver.Abort(1)]
    assert one.on(driver.Joined("b")) == [driver.Place(("b",))]


def cut_off(one, step=0, times=1):
    """End the groups of two workers that nobody left and nobody joined; return the last actions."""
    for _ in range(times):
        one.on(driver.Returned(one.generation, "a", outcome("aborted", step)))
        assert one.on(driver.Returned(one.generation, "b", outcome("aborted", -1))) == [driver.Place(("a", "b"))]
        actions = one.on(driver.Placed({"a": [0], "b": [1]}))
    return actions


def test_workers_that_are_cut_off_from_each_other_are_a_sentence():
    one = running()
    (start,) = cut_off(one, times=3)
    assert start.generation == 4
    abort, fail = cut_off(one)
    assert "lost contact with each other 4 times in step 1" in str(fail.error) and 'runtime="tasks"' in str(fail.error)
    assert one.on(driver.Joined("c")) == []


def test_groups_that_come_further_or_have_a_cause_do_not_count_as_cut_off():
    one = running()
    for step in range(1, 20):
        (start,) = cut_off(one, step)
        assert start.step == step
    cut_off(one, 19, times=3)
    one.on(driver.Joined("c"))
    one.on(driver.Returned(one.generation, "a", outcome("aborted", 19)))
    one.on(driver.Returned(one.generation, "b", outcome("aborted", 19)))
    one.on(driver.Placed({"a": [0], "b": [1]}))
    assert one.on(driver.Lost("c")) == []
    cut_off(one, 19)
    (start,) = cut_off(one, 19, times=3)
    assert isinstance(start, driver.Start)


def test_blocks_on_a_worker_that_came_and_went_unseen_are_placed_again():
    one = driver.Driver("ab", "state 0")
    one.begin()
    assert one.on(driver.Placed({"a": [0], "z": [1]})) == [driver.Place(("a", "b"))]
    assert one.on(driver.Placed({"a": [0], "b": [1]}))[0].generation == 1


def test_only_the_answer_to_the_last_place_counts():
    """Or the worker that joined last would have no blocks, and nobody would notice."""
    one = driver.Driver("ab", "state 0")
    one.begin()
    assert one.on(driver.Joined("c")) == [driver.Place(("a", "b", "c"))]
    assert one.on(driver.Placed({"a": [0], "b": [1, 2]})) == []
    owners = {"a": [0], "b": [1], "c": [2]}
    assert one.on(driver.Placed(owners)) == [driver.Start(1, owners, 0, "state 0")]
    assert one.on(driver.Placed({"a": [0], "b": [1, 2]})) == [] and one.generation == 1


class Overlapped(Program):
    """Sums that travel while a rank computes."""

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        own = np.full(1000, comm.rank + 1.0)
        started = comm.allreduce(own, wait=False)
        with pytest.raises(RuntimeError, match="before the next call"):
            comm.barrier()
        total = started.finish()
        part = comm.reduce_scatter(own, wait=False).finish()
        assert (total == comm.size * (comm.size + 1) / 2).all()
        return total, np.concatenate(comm.allgather(part))

    def done(self, state):
        return state is not None


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
def test_a_sum_may_travel_while_a_rank_computes(n_ranks):
    cluster = SimulatedCluster(n_ranks, rows_per_block=256)
    total, scattered = cluster.run(Overlapped(), np.zeros((256 * n_ranks, 2)))
    np.testing.assert_array_equal(total, scattered)
    assert total[0] == n_ranks * (n_ranks + 1) / 2
