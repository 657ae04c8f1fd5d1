"""Checkpoints of programs with tables: what is gone on from is what one process without an end would have had."""

import os
import pathlib
import time
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

import daskdml
from daskdml import config_context
from daskdml.runtime.shelf import Shelf
from daskdml.runtime.tables import saving
from daskdml.runtime.tables.rows import RowTable
from daskdml.runtime.tables.session import Tables
from daskdml.runtime.tables.spec import Layout
from daskdml.strategies import ASP, BSP, SSP
from daskdml.testing import SimulatedCluster

X = da.from_array(np.arange(4000.0).reshape(2000, 2), chunks=(125, 2))  # blocks for several ranks
N_STEPS = 12


class Counts(daskdml.Program):
    """Adds whole numbers that tell steps and rows apart: what is lost or doubled shows to the unit."""

    scale = 1.0

    def __init__(self, consistency=None, ends_at=None, rule=None, shards=None):
        self.consistency, self.ends_at, self.rule, self.shards = consistency, ends_at, rule, shards
        self.sizes = set()

    def fingerprint(self):
        return "counts", str(self.rule)

    def tables(self, meta):
        return {
            "dense": daskdml.DenseTable((50, 3), "float64", start=np.full((50, 3), 7.0), rule=self.rule),
            "sparse": daskdml.SparseTable(2, "float64"),
        }

    def init(self, meta):
        return 0, None

    def step(self, state, blocks, comm):
        step = state[0]
        self.sizes.add(comm.size)
        scale = self.scale
        if step == self.ends_at and comm.rank == comm.size - 1:
            raise InterruptedError("the end of this process")
        dense, sparse = comm.tables["dense"], comm.tables["sparse"]
        dense.get()
        for block in blocks:
            dense.add(np.full((50, 3), scale * (step + 1) * len(block.X)))
            keys = np.arange(block.start, block.start + len(block.X)) * 1_000_003
            sparse.add_rows(keys, np.full((len(keys), 2), scale * 2.0**step))
        comm.tables.push()
        if step + 1 < N_STEPS:
            return step + 1, None
        comm.tables.settle()
        comm.barrier()
        return N_STEPS, (dense.get(), sparse.get_rows(np.arange(2000) * 1_000_003))

    def done(self, state):
        return state[0] == N_STEPS


def run(folder, program, n_threads=2, every=1e-9, **options):
    with config_context(
        checkpoint=str(folder), checkpoint_every=every, n_threads=n_threads, runtime="threads", **options
    ):
        return daskdml.run(program, X)[1]


def shelf_of(folder):
    """Return the shelf that the only interrupted run in a folder has left."""
    (name,) = (entry for entry in os.listdir(folder) if entry.endswith(".parts"))
    return Shelf(folder / name, is_shared=True)


def states_of(shelf):
    """Return the name of the only run that has put down states on a shelf, and after which steps."""
    start = saving.state_name("")
    ((name, steps),) = ((name, steps) for name, steps in shelf.versions().items() if name.startswith(start))
    return name.removeprefix(start), steps


def expected():
    n = N_STEPS * (N_STEPS + 1) / 2 * 2000
    return np.full((50, 3), 7.0 + n), np.full((2000, 2), 2.0**N_STEPS - 1)


@pytest.mark.parametrize("n_before, n_after", [(1, 1), (3, 3), (4, 2), (2, 5)])
@pytest.mark.parametrize("consistency", [BSP(), SSP(2), ASP()], ids=str)
def test_no_push_is_lost_or_doubled(consistency, n_before, n_after, tmp_path):
    """Interrupted twice, gone on from by other numbers of ranks."""
    for ends_at, n in ((4, n_before), (9, n_after)):
        program = Counts(consistency, ends_at)
        with pytest.raises(InterruptedError):
            run(tmp_path, program, n, resume=True)
        assert program.sizes == {n}
    for found, wanted in zip(run(tmp_path, Counts(consistency), n_before, resume=True), expected()):
        np.testing.assert_array_equal(found, wanted)
    assert os.listdir(tmp_path) == []


def test_what_was_put_down_is_what_the_next_process_begins_with(tmp_path):
    begun = []

    class Seen(Counts):
        def resume(self, state):
            begun.append(state)
            return state

    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5), 2)
    run(tmp_path, Seen(), 2, resume=True)
    assert begun == []  # another class: another program
    with pytest.raises(InterruptedError):
        run(tmp_path, Seen(ends_at=5), 2)
    run(tmp_path, Seen(), 3, resume=True)
    assert begun == [(5, None)]
    with pytest.raises(InterruptedError):
        run(tmp_path, Seen(ends_at=5), 2)
    for found, wanted in zip(run(tmp_path, Seen(), 2), expected()):  # without resume it begins anew
        np.testing.assert_array_equal(found, wanted)
    assert len(begun) == 1


@pytest.mark.parametrize("name", ["momentum", "adagrad", "adam"])
def test_moments_go_on(name, tmp_path):
    """One rank: the bits of a process that had no end."""
    rule = daskdml.TableRule(name, rate=0.01)
    whole = run(tmp_path / "a", Counts(rule=rule), 1)
    with pytest.raises(InterruptedError):
        run(tmp_path / "b", Counts(rule=rule, ends_at=6), 1)
    again = run(tmp_path / "b", Counts(rule=rule), 1, resume=True)
    np.testing.assert_array_equal(again[0], whole[0])


def test_tables_stay_cut_as_they_were(tmp_path, monkeypatch):
    """Whatever the program asks for now, and however many workers there are."""
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5, shards=3), 2)
    filled = []
    fill = saving.Saving.fill
    monkeypatch.setattr(
        saving.Saving, "fill", lambda self, store, shard: (filled.append(shard), fill(self, store, shard))
    )
    found = run(tmp_path, Counts(shards=11), 4, resume=True)
    np.testing.assert_array_equal(found[0], expected()[0])
    assert set(filled) == {0, 1, 2}


def test_a_version_without_all_of_its_shards_is_none(tmp_path):
    """The machine died between two files: the version before is gone on from, and nothing newer is left beside it."""
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5), 2)
    shelf = shelf_of(tmp_path)
    run_then, _ = states_of(shelf)
    n_shards = shelf.get(saving.state_name(run_then), 5)[1]
    for shard in range(n_shards - 1):
        shelf.put(saving.shard_name(shard, run_then), 9, {"dense": "of another process"})
    shelf.put(saving.state_name(run_then), 9, ((9, None), n_shards, 4096, {}))
    found, step, _ = saving.begin_on(shelf, 30.0, Counts().tables(None))
    assert found.version == step == 5
    # Half of a version would be made whole by what comes to be put down at the same step.
    assert {v for name, versions in shelf.versions().items() if name != Shelf.SEEN for v in versions} == {5}
    found = run(tmp_path, Counts(), 2, resume=True)
    for own, wanted in zip(found, expected()):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("at", ["first", "last", "state"])
def test_runs_that_share_a_folder_never_mix_their_shards(at, resume, tmp_path, monkeypatch):
    """Halfway through a version of one another comes, which is as far in the end; the two can be told apart."""
    put, has_run = Shelf.put, []
    shards = {"first": (0,), "last": (1, 2), "state": ()}[at]

    def interrupted(self, name, version, value, copies=True):
        put(self, name, version, value, copies)
        starts = tuple(saving.shard_name(shard, "") for shard in shards) or saving.state_name("")
        if name.startswith(starts) and version == 5 and not has_run:
            has_run.append(name)
            monkeypatch.setattr(Counts, "scale", 1000.0)
            with pytest.raises(InterruptedError):
                run(tmp_path, Counts(ends_at=5), 2, resume=resume)
            monkeypatch.setattr(Counts, "scale", 1.0)

    monkeypatch.setattr(Shelf, "put", interrupted)
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5), 2)
    found, step, _ = saving.begin_on(shelf_of(tmp_path), 30.0, Counts().tables(None))
    assert has_run and step == 5
    parts = [shelf_of(tmp_path).get(saving.shard_name(k, found.run_then), 5) for k in range(found.n_shards)]
    dense = np.concatenate([part["dense"]["theta"] for part in parts if "dense" in part])
    rows = np.concatenate([part["sparse"]["rows"] for part in parts])
    assert len(set(rows.ravel())) == len(set(dense)) == 1 and rows.shape == (2000, 2)


def test_ranks_meet_when_it_is_time_and_seldom_before(tmp_path, monkeypatch):
    """Twelve quick steps and a minute: after 1, 2, 4, ... more of them, for the next ones may be slow."""
    met, put = [], []
    after, write = saving.Saver.after, saving.Saver._put

    def counted(self, step, state):
        met.append(step) if step >= self._next and self._comm.rank == 0 else None
        after(self, step, state)

    monkeypatch.setattr(saving.Saver, "after", counted)
    monkeypatch.setattr(saving.Saver, "_put", lambda self, *args: (put.append(args[0]), write(self, *args)))
    run(tmp_path, Counts(), 2, every=60)
    assert met == [1, 3, 7] and put == []


def test_a_full_disk_leaves_the_last_version(tmp_path, monkeypatch, caplog):
    put = Shelf.put

    def fails(self, name, version, value, copies=True):
        if name.startswith(saving.shard_name(1, "")) and version == 5:
            with monkeypatch.context() as patch:  # when the file is written, and half of it there
                patch.setattr(os, "fsync", full)
                return put(self, name, version, value, copies)
        return put(self, name, version, value, copies)

    def full(number):
        raise OSError("No space left on device")

    monkeypatch.setattr(Shelf, "put", fails)
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5), 2)
    assert "No space left on device" in caplog.text and "the last version stays" in caplog.text
    assert not [name for name in shelf_of(tmp_path)._fs.ls(shelf_of(tmp_path)._path, detail=False) if "@5" in name]
    monkeypatch.undo()
    found = run(tmp_path, Counts(), 2, resume=True)
    np.testing.assert_array_equal(found[0], expected()[0])


def test_pushes_that_wait_for_others_are_not_forgotten_in_silence(tmp_path, caplog):
    """In step, and one rank has pushed more often: its updates are in no table yet, and no version is put down."""

    class Uneven(Counts):
        def step(self, state, blocks, comm):
            found = super().step(state, blocks, comm)
            if comm.rank == 1 and state[0] == 2:
                comm.tables["dense"].add(np.ones((50, 3)))
                comm.tables.push()
            return found

    with pytest.raises(InterruptedError):
        run(tmp_path, Uneven(BSP(), ends_at=6), 2)
    assert "different numbers of times" in caplog.text


def test_a_quick_first_step_says_nothing_of_the_others(tmp_path):
    class Slower(Counts):
        def step(self, state, blocks, comm):
            time.sleep(0.03 if state[0] else 0.0)
            return super().step(state, blocks, comm)

    with pytest.raises(InterruptedError):
        run(tmp_path, Slower(ends_at=11), 2, every=0.1)
    assert max(states_of(shelf_of(tmp_path))[1]) >= 3


@pytest.mark.parametrize("consistency", [BSP(), SSP(2), ASP()], ids=str)
def test_ranks_that_end_sooner_are_waited_for(consistency, tmp_path, caplog):
    """Each when it has seen enough: those that go on read, and come to their meetings, all the same."""

    class Sooner(Counts):
        def step(self, state, blocks, comm):
            comm.tables["dense"].get()
            comm.tables["dense"].add(np.ones((50, 3)))
            comm.tables.push()
            time.sleep(0.01 * comm.rank)
            return state[0] + 1 if state[0] < 3 + 4 * comm.rank else N_STEPS, None

    assert run(tmp_path, Sooner(consistency), 3) is None
    assert os.listdir(tmp_path) == []
    assert "not put down any more" in caplog.text


def test_what_is_not_pushed_yet_is_waited_for(tmp_path, caplog):
    """Pushed every third step: it is in no table before."""

    class Seldom(Counts):
        def step(self, state, blocks, comm):
            if state[0] == self.ends_at:
                raise InterruptedError
            dense = comm.tables["dense"]
            dense.add(np.full((50, 3), float(sum(len(block.X) for block in blocks))))
            if state[0] % 3 == 2:
                comm.tables.push()
            comm.tables.settle()
            comm.barrier()
            return state[0] + 1, dense.get()

    with pytest.raises(InterruptedError):
        run(tmp_path, Seldom(ends_at=8), 2)
    assert states_of(shelf_of(tmp_path))[1] == [6] and "not pushed yet" in caplog.text
    np.testing.assert_array_equal(run(tmp_path, Seldom(), 3, resume=True), np.full((50, 3), 7.0 + N_STEPS * 2000))


def test_old_versions_go(tmp_path):
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=9), 2)
    assert {version for name, found in shelf_of(tmp_path).versions().items() if name != Shelf.SEEN
            for version in found} == {9}  # fmt: skip


class Other(Counts):
    """Whose tables are said elsewhere."""

    others = {}

    def tables(self, meta):
        return {**super().tables(meta), **self.others}


@pytest.mark.parametrize("other", [
    {"dense": daskdml.DenseTable((3, 50), "float64")}, {"dense": daskdml.DenseTable((50, 3), "float32")},
    {"dense": daskdml.DenseTable((50, 3), "float64", rule=daskdml.TableRule("adam", rate=0.1))},
    {"sparse": daskdml.SparseTable(3, "float64")}, {"new": daskdml.SparseTable(3, "float64")},
    {"ruled": daskdml.DenseTable(9, rule=daskdml.TableRule("adagrad"))}, {"rows": RowTable(101)},
    {"rows": RowTable(100, n_decaying=1)},
])  # fmt: skip
def test_other_tables_are_refused(other, tmp_path, monkeypatch):
    before = {"ruled": daskdml.DenseTable(9, rule=daskdml.TableRule("momentum")), "rows": RowTable(100)}
    monkeypatch.setattr(Other, "others", before)
    other = {**before, **other}
    with pytest.raises(InterruptedError):
        run(tmp_path, Other(ends_at=5), 2)
    monkeypatch.setattr(Other, "others", other)
    with pytest.raises(ValueError, match="is of the tables .* the program asks for .*resume=False"):
        run(tmp_path, Other(), 2, resume=True)


def test_another_rate_is_no_other_table(tmp_path, monkeypatch):
    for rate, ends_at in ((0.5, 5), (0.25, None)):
        rule = daskdml.TableRule("momentum", rate=rate)
        monkeypatch.setattr(Other, "others", {"ruled": daskdml.DenseTable(9, rule=rule)})
        if ends_at is None:
            np.testing.assert_array_equal(run(tmp_path, Other(), 2, resume=True)[0], expected()[0])
            continue
        with pytest.raises(InterruptedError):
            run(tmp_path, Other(ends_at=ends_at), 2)


@pytest.mark.parametrize("how, words", [("damaged", "is damaged"), ("gone", "not in the folder .* any more")])
def test_a_shard_that_cannot_be_read_is_an_error_in_words(how, words, tmp_path, monkeypatch):
    with pytest.raises(InterruptedError):
        run(tmp_path, Counts(ends_at=5), 2)
    begin_on = saving.begin_on

    def begin(shelf, *args):
        found = begin_on(shelf, *args)
        name = saving.shard_name(0, found[0].run_then)
        if how == "gone":
            shelf.drop(name)
        else:
            pathlib.Path(shelf._path, f"{name}@5.whole").write_bytes(b"daskdml checkpoint 1\nxxxx")
        return found

    monkeypatch.setattr(saving, "begin_on", begin)
    with pytest.raises(ValueError, match=words):
        run(tmp_path, Counts(), 2, resume=True)


def test_a_folder_that_not_all_see_is_refused(tmp_path, monkeypatch):
    begin_on = saving.begin_on

    def begin(shelf, *args):
        shelf.drop(Shelf.SEEN)  # as a folder of that name on another machine is
        return begin_on(shelf, *args)

    monkeypatch.setattr(saving, "begin_on", begin)
    with pytest.raises(ValueError, match="is not seen by all workers"):
        run(tmp_path, Counts(), 2)


# Where messages take their time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", [BSP(), SSP(2), ASP()], ids=str)
@pytest.mark.parametrize(
    "change", [{}, {"kills": [(0.15, 1)]}, {"joins": [(0.1, 9)], "latency": (1e-4, 5e-2)}], ids=str
)
def test_each_version_is_of_one_time(consistency, change, tmp_path, monkeypatch):
    """Of integers: whoever is slow, dies, comes or has no rank, what is put down has all pushes of as many steps."""
    shelf = Shelf(tmp_path, is_shared=True)
    shelf.put(Shelf.SEEN, 2**62, True)
    program, found, put = Counts(consistency, shards=9), [], saving.Saver._put
    meta = SimpleNamespace(n_features=2)
    monkeypatch.setattr(Counts, "_saving", saving.begin_on(shelf, 1e-9, program.tables(meta))[0])

    def look(self, step, state):
        put(self, step, state)
        if self._comm.rank == 0:
            run_then = self._run
            state, n_shards, *_ = shelf.get(saving.state_name(run_then), step)
            parts = [shelf.get(saving.shard_name(shard, run_then), step) for shard in range(n_shards)]
            dense = np.concatenate([part["dense"]["theta"] for part in parts if "dense" in part])
            rows = np.concatenate([part["sparse"]["rows"] for part in parts])
            found.append((self._comm.generation, step, dense, rows))

    monkeypatch.setattr(saving.Saver, "_put", look)
    cluster = SimulatedCluster(4, rows_per_block=125, seconds_per_row=2e-5, hiccups=(0.2, 8.0), **change)
    cluster.run(program, np.zeros((500, 2)))  # four blocks: whoever comes has no rank
    assert len(found) >= 8 and len({step for _, step, *_ in found}) == len(found)
    for generation, step, dense, rows in found:
        assert dense.shape == (150,) and rows.shape == (500, 2)
        if generation == 1:  # later what was pushed in a step that is done again counts twice
            assert set(dense.tolist()) == {7.0 + 500 * step * (step + 1) / 2} and set(rows.ravel()) == {2.0**step - 1}


class Unequal(Counts):
    """Rank 1 pushes, and reads, twice in a step."""

    def step(self, state, blocks, comm):
        for _ in range(1 + (comm.rank == 1)):
            comm.tables["dense"].get()
            comm.tables["dense"].add(np.ones((50, 3)))
            comm.tables.push()
        return state[0] + 1, None


@pytest.mark.parametrize("where", ["threads", "workers"])
@pytest.mark.parametrize("consistency", [BSP(), SSP(0), SSP(2), ASP()], ids=str)
def test_unequal_numbers_of_pushes_are_no_hang(consistency, where, tmp_path, monkeypatch):
    """One reads what another has yet to push, and that one waits to put tables down, for ever: unless nobody does."""
    program = Unequal(consistency)

    def fit():
        if where == "threads":
            return run(tmp_path, program, 2)
        shelf = Shelf(tmp_path, is_shared=True)
        shelf.put(Shelf.SEEN, 2**62, True)
        saved = saving.begin_on(shelf, 1e-9, program.tables(None))[0]
        monkeypatch.setattr(Unequal, "_saving", saved)
        return SimulatedCluster(2, rows_per_block=125).run(program, np.zeros((500, 2)))

    if consistency.bound is None:
        assert fit() == (N_STEPS, None) if where == "workers" else fit() is None
        return
    with pytest.raises(RuntimeError, match="Push equally often in each step.*leave checkpoint out"):
        fit()


def test_a_group_that_follows_another_puts_down_at_once_whatever_the_file_system_says(tmp_path, monkeypatch):
    """One that fails at the moment of a death ends no run; and groups that die sooner than it is time are put down."""
    shelf = Shelf(tmp_path, is_shared=True)
    shelf.put(Shelf.SEEN, 2**62, True)
    program, put, write, versions = Counts(), [], saving.Saver._put, Shelf.versions
    monkeypatch.setattr(Counts, "_saving", saving.begin_on(shelf, 1e9, program.tables(None))[0])

    def look(self, step, state):
        put.append(self._comm.generation)
        write(self, step, state)

    def fails(self):
        if init and init[-1] > 1:
            raise OSError("Stale file handle")
        return versions(self)

    init, begin = [], saving.Saver.__init__

    def begun(self, saved, step, comm, is_collective):
        init.append(comm.generation)
        begin(self, saved, step, comm, is_collective)
        init.pop()

    monkeypatch.setattr(saving.Saver, "_put", look)
    monkeypatch.setattr(saving.Saver, "__init__", begun)
    monkeypatch.setattr(Shelf, "versions", fails)
    cluster = SimulatedCluster(4, rows_per_block=125, seconds_per_row=2e-5, kills=[(0.02, 1)])
    cluster.run(program, np.zeros((500, 2)))
    assert cluster.report.generations == 2 and set(put) == {2} and len(put) == 3


def test_parts_beside_tables_are_refused(tmp_path):
    class Both(Counts):
        keeps_parts = True

    with pytest.raises(ValueError, match="put what the parts hold into tables"):
        run(tmp_path, Both(), 2)


def test_a_program_is_what_it_was_after_a_run(tmp_path):
    program = Counts(ends_at=3)
    before = dict(vars(program))
    with pytest.raises(InterruptedError):
        run(tmp_path, program, 2)
    assert vars(program) == before


# What a worker has not heard of yet ----------------------------------------------------------------------------------


def behind(n_shards=2):
    """Return the tables of a rank beside a node that does not know that shard 1 has been moved away, and its wire."""
    store = SimpleNamespace(state=lambda: "own")
    heads = {shard: SimpleNamespace(is_head=True, epoch=0, store=store) for shard in (0, 1)}
    client = SimpleNamespace(directory=SimpleNamespace(number=3, epochs={0: 0, 1: 4}), retry="retry", staleness=2)
    wire = SimpleNamespace(node=SimpleNamespace(replicas=heads), asked=[])
    wire.act = lambda call, *args: wire.asked.append(call)

    def wait(condition):
        assert not condition()
        client.directory.number = 5
        assert condition()

    wire.wait = wait
    return Tables(client, Layout({}, n_shards), wire), wire


@pytest.mark.parametrize("newest, is_behind", [(3, False), (5, True)])
def test_ranks_agree_on_the_newest_chains(newest, is_behind):
    tables, wire = behind()
    tables.agree(SimpleNamespace(allreduce=lambda own, how: np.maximum(own, newest)))
    assert tables.client.directory.number == newest and bool(wire.asked) == is_behind


def test_a_head_that_was_moved_away_puts_nothing_down(monkeypatch):
    """It holds what it had; whoever has the shard now is asked for it."""
    tables, _ = behind()
    bounds = []

    def pull(wanted):
        bounds.append(tables.client.staleness)
        return dict.fromkeys(wanted, "of the new head")

    monkeypatch.setattr(tables, "_pull", pull)
    comm = SimpleNamespace(size=1, rank=0, allreduce=lambda own: own)
    assert dict(tables.held_shards(comm)) == {0: "own", 1: "of the new head"}
    # Without a bound: a rank that is behind waits for this one, and it for that one's clock.
    assert bounds == [None] and tables.client.staleness == 2


def test_a_shard_is_put_down_when_all_that_was_pushed_is_with_those_who_have_it(tmp_path):
    did = []
    tables = SimpleNamespace(
        settle=lambda: did.append("settle"), agree=lambda comm: did.append("agree"), layout=Layout({}, 1),
        held_shards=lambda comm: did.append("held") or [(0, {})],
    )  # fmt: skip
    comm = SimpleNamespace(
        rank=0, generation=2, tables=tables, clock=time.monotonic, barrier=lambda: did.append("barrier"),
        vote=lambda flag: flag,
    )  # fmt: skip
    saving.Saver(saving.Saving(str(tmp_path), 1.0, "this"), 0, comm, True)._put(3, "state")
    assert did == ["settle", "barrier", "agree", "held"]
    assert Shelf(tmp_path, is_shared=True).get(saving.state_name("this"), 3)[0] == "state"


def test_who_leaves_does_so_when_its_pushes_are_acknowledged():
    tables, wire = behind()
    tables.client.n_unacknowledged, tables.client.name = 2, "rank 0"

    def wait(condition):
        assert not condition() and not wire.asked
        tables.client.n_unacknowledged = 0
        assert condition()

    wire.wait = wait
    wire.act = lambda call: wire.asked.extend(call())
    tables.leave()
    assert [type(message).__name__ for _, message in wire.asked] == ["Leave"]
