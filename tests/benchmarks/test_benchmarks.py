"""The benchmarks measure what they say: the reference is the minimum, the fastest peer wins, pages follow the CSVs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Find `benchmarks` beside the tests; last on the path, so that an installed daskdml stays the tested one."""
    monkeypatch.syspath_prepend(str(ROOT))
    sys.path.append(sys.path.pop(0))


def generated(target, n=2000, p=6):
    from benchmarks.data import Rows, make_table

    return make_table(Rows(n, p, target), np.float64)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("standardised", [False, True])
def test_reference_is_sklearns_minimum(n_classes, standardised):
    from benchmarks.gap import LogisticObjective

    X, y = generated("binary" if n_classes == 2 else n_classes)
    objective = LogisticObjective(X, y, C=0.1, n_classes=n_classes, standardised=standardised)
    coef, intercept = objective.solve()
    mean, scale = (X.mean(axis=0), X.std(axis=0)) if standardised else (0.0, 1.0)
    theirs = LogisticRegression(C=0.1, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit((X - mean) / scale, y)
    their_coef = theirs.coef_ / scale
    their_intercept = theirs.intercept_ - np.sum(their_coef * mean, axis=1)
    assert -1e-13 < objective.gap(their_coef, their_intercept) < 1e-10
    np.testing.assert_allclose(coef, their_coef, rtol=1e-5, atol=1e-6 * np.abs(their_coef).max())


def test_reference_of_sparse_rows():
    from benchmarks.data import make_sparse
    from benchmarks.gap import LogisticObjective

    X, y = make_sparse(2000, 300, 20)
    objective = LogisticObjective(X, y)
    objective.solve()
    theirs = LogisticRegression(tol=1e-10, max_iter=1000, solver="newton-cg").fit(X, y)
    assert -1e-13 < objective.gap(theirs.coef_, theirs.intercept_) < 1e-9


def test_value_is_the_definition():
    from benchmarks.gap import LogisticObjective

    X, y = generated("binary", n=100)
    coef, intercept = np.linspace(-0.1, 0.1, 6), 0.3
    raw = X @ coef + intercept
    expected = np.mean(np.log(1 + np.exp(raw)) - y * raw) + coef @ coef / (2 * 0.5 * 100)
    assert LogisticObjective(X, y, C=0.5).value(coef, intercept) == pytest.approx(expected, rel=1e-13)


def test_rows_are_the_same_however_they_are_made():
    from benchmarks.data import Rows, make_lazy, make_table

    spec = Rows(150_000, 5)
    X, y = make_table(spec)
    lazy_X, lazy_y = make_lazy(spec)
    np.testing.assert_array_equal(lazy_X.compute(scheduler="sync"), X)
    np.testing.assert_array_equal(lazy_y.compute(scheduler="sync"), y)
    np.testing.assert_array_equal(make_table(spec._replace(rows=110_000), np.float64)[0], X[:110_000])
    sizes = X.std(axis=0)
    assert 80 < sizes.max() / sizes.min() < 125


class FakeObjective:
    """The gap of a fake solution is its first number."""

    def gap(self, coef, intercept):
        return coef


def test_best_peer_is_the_fastest_that_reaches_the_gap(monkeypatch):
    from benchmarks import peers

    seconds = {"slow": 3.0, "fast": 1.0, "never": 0.5}
    reach = {"slow": 1e-9, "fast": 1e-9, "never": 1e-3}

    def candidate(name):
        return peers.Candidate(name, lambda tol, max_iter: (name, tol), FakeObjective())

    def timed(work):
        name, tol = work()
        return seconds[name], (max(tol, reach[name]), 0.0)

    monkeypatch.setattr(peers, "timed", timed)
    best = peers.find_best([candidate(name) for name in seconds], 1e-6)
    assert best.reached and best.trial.candidate.name == "fast" and best.trial.tol == 1e-6
    # Three trials that come no nearer end the ladder.
    assert [trial.tol for trial in best.tried if trial.candidate.name == "never"] == [1e-2, 1e-3, 1e-4, 1e-5]
    assert not peers.find_best([candidate("never")], 1e-6).reached


def test_csv_and_picture(tmp_path):
    from benchmarks.report import Sheet, read

    sheet = Sheet("x")
    sheet.add("work", "daskdml", "seconds", [1.0, 3.0, 2.0], quality=("gap", 1e-9))
    sheet.add("work", "daskdml", "passes", 4.0, must=("<=", 4.5))
    sheet.add("work", "daskdml", "times faster", 4.0, must=(">=", 12))
    sheet.skip("other", "not installed, see [bench]")
    path = sheet.save(tmp_path)
    machine, rows = read(path)
    assert "python" in machine and "cores" in machine
    assert (rows[0].value, rows[0].low, rows[0].high, rows[0].repetitions) == (2.0, 1.0, 3.0, 3)
    assert [row.met for row in rows] == ["", "yes", "no", ""]
    assert path.with_suffix(".svg").read_text().startswith("<?xml")
    sheet.show()


def test_limits_are_left_open_at_other_sizes():
    from benchmarks.report import Sheet

    sheet = Sheet("x", at_size=False)
    sheet.add("work", "daskdml", "passes", 9.0, must=("<=", 4.5))
    assert sheet.rows[0].met == "-"


def test_absent_data_are_said_to_be(monkeypatch, tmp_path):
    from benchmarks.estimators import boosting_adult

    monkeypatch.setattr(boosting_adult, "DATA", tmp_path)
    (row,) = boosting_adult.run().rows
    assert row.what == "not measured" and "skipped: no adult.data.gz and no adult.test.gz" in row.note


def test_first_fit_of_csr_rows_keeps_codes_of_stored_values():
    from scipy import sparse

    from benchmarks.estimators.boosting import _CSR
    from daskdml.trees.binning import LEAST_SPARSITY

    X = eval(_CSR.format(rows=5000), {"sparse": sparse, "np": np, "rng": np.random.default_rng(0)})
    assert X.format == "csr" and X.nnz / X.shape[0] * LEAST_SPARSITY < X.shape[1]


def test_simulated_collectives_are_noted():
    from benchmarks.engine import boosting_scaling
    from benchmarks.report import Sheet

    sheet = Sheet("x", at_size=False)
    boosting_scaling._simulated(sheet, 3, 1e-4, 1.25e9, 1e-7, 5000)
    assert sheet.rows[0].note == "histograms: reduce-scatter by features of 64 bits, 100%"
    assert "by the rate of 5,000 rows a worker" in sheet.rows[2].note


def test_ceiling_is_that_of_the_best_linear_rule():
    """Of equal classes with isotropic noise it is linear; what learns it from many rows comes near, and not beyond."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    from benchmarks.estimators.networks import make_rows

    X, y, X_test, y_test, ceiling = make_rows(15_000, seed=1, n_test=5000)
    found = LinearDiscriminantAnalysis(solver="lsqr").fit(X, y).score(X_test, y_test)
    assert 0.9 < ceiling < 0.98 and ceiling - 0.05 < found < ceiling + 0.003


def test_networks_say_where_torch_is_absent(monkeypatch):
    import importlib.util

    from benchmarks.estimators import networks

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    rows = networks.run(rows=1000).rows
    assert rows[0].what == "not measured" and "torch is not installed" in rows[0].note
    assert {row.who for row in rows[1:]} == {"daskdml", "scikit-learn", "daskdml against scikit-learn"}


def test_bytes_of_codecs_are_those_of_the_rank_that_sends_most():
    from benchmarks.estimators.codec_bytes import gradient_of, most_bytes, ring_bytes
    from daskdml.compress import QSGD, Identity

    shape = 40, 12
    assert most_bytes(Identity(), 4, shape=shape) == ring_bytes(4, shape) == 2 * 3 / 4 * 40 * 12 * 4
    packet, _ = QSGD().encode(gradient_of(0, shape), QSGD().start(0))
    assert 3 * packet.nbytes <= most_bytes(QSGD(), 4, shape=shape) < 3 * packet.nbytes + 200


def test_control_of_codecs_differs_by_the_perturbation_alone():
    from benchmarks.estimators import codecs

    problem = codecs.problems()[0]._replace(n_epochs=1)
    X, y, *_ = problem.rows(seed=0)
    models, sent = zip(*(
        codecs.fit(problem, "sgd", None, 0, X, y, start=start)
        for start in (None, *(codecs.perturbed(problem.hidden, X, 0, by) for by in (0.0, codecs.PERTURBATION)))
    ))  # fmt: skip
    coefs = [model.coefs_[0] for model in models]
    assert coefs[0].tobytes() == coefs[1].tobytes() and 0 < np.abs(coefs[2] - coefs[0]).max() < 1e-4
    assert len(set(sent)) == 1


def test_time_passes_on_simulated_workers_as_their_rows_do(capsys):
    """Scores are those of one process, seconds are those of rows where messages take none."""
    from benchmarks.engine import networks_scaling
    from benchmarks.estimators.networks import make_rows

    data, way = make_rows(2048, n_test=300), networks_scaling.Way("batches of 1,024", 1024, 0.1)
    scores, _ = networks_scaling._fitted(way, data, networks_scaling.EPOCHS)
    one, four = (networks_scaling._simulated(data, way, size, 1e-3, 0.0, 1e12, scores) for size in (1, 4))
    assert one.scores == four.scores == scores and len(one.seconds) == networks_scaling.EPOCHS
    assert networks_scaling._epoch(one.seconds) == pytest.approx(2.048, rel=0.1)
    assert networks_scaling._epoch(four.seconds) == pytest.approx(2.048 / 4, rel=0.15)


def test_strategies_of_the_codecs_table_are_all_measured(capsys):
    """Each has a payload and bytes at the transport; what leaves out most sends least."""
    from benchmarks.estimators import codecs

    problem = codecs.problems()[0]._replace(n_epochs=1)
    X, y, X_test, y_test, _ = problem.rows(seed=0)
    gains = {name: codecs._payload_gain(problem, "sgd", name, X, y) for name in codecs.STRATEGIES}
    assert gains["dense"] == gains["dense, other batches"] == 1 and gains["FP16"] == pytest.approx(2, rel=0.02)
    assert gains["rows, significance 3"] > gains["rows, significance 1"] > 1
    # A thousand bytes of 640 numbers, the places of which take two bytes each.
    assert 2560 / 1000 <= gains["max. 1,000 bytes a round"] < 2560 / 990
    sent = {
        name: codecs._try(problem, "sgd", name, 0, X, y, X_test, y_test).bytes_sent
        for name in ("dense", "rows, significance 3", "TopK(0.01)")
    }
    assert sent["dense"] > 2 * max(sent["rows, significance 3"], sent["TopK(0.01)"])


def test_page_follows_the_csvs(tmp_path):
    from benchmarks.pages import PAGE, is_stale, write_tables
    from benchmarks.report import Sheet

    assert not is_stale(), "run: python -m benchmarks table"
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    sheet = Sheet("x")
    sheet.add("some work", "daskdml", "passes", 4.0, must=("<=", 4.5))
    sheet.save(tmp_path)
    assert is_stale(page, tmp_path)
    write_tables(page, tmp_path)
    assert not is_stale(page, tmp_path) and "some work" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.cluster
def test_short_form_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--rows", "3000", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    names = {"one_pass", "logistic", "least_squares", "memory", "cluster", "imports"}
    assert {path.stem for path in tmp_path.rglob("*.csv")} == names
