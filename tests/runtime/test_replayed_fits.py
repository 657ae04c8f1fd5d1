"""Fits as functions of their passes: told what those returned they give the same bits, in virtual time, from files."""

import os
import warnings

import dask.array as da
import numpy as np
import pytest
from numpy.random import RandomState
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from daskdml import config_context
from daskdml.linear_model import LinearRegression, LogisticRegression, Ridge
from daskdml.runtime.checkpoint import Checkpoint
from daskdml.runtime.journal import Journal
from daskdml.runtime.run import Run
from daskdml.testing import SimulatedCluster

N, P = 30_000, 8


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    return X, X @ np.arange(P) + rng.logistic(size=N)


def logistic(y):
    return (y > 0).astype(int)


def thirds(y):
    return np.array(["low", "mid", "top"])[np.digitize(y, [-5, 5])]


CASES = {
    "logistic": (LogisticRegression(), logistic),
    "pilot": (LogisticRegression(), logistic),
    "l1": (LogisticRegression(C=1e-3, l1_ratio=1.0), logistic),
    "labels": (LogisticRegression(), thirds),
    "balanced": (LogisticRegression(class_weight="balanced"), logistic),
    "no penalty": (LogisticRegression(C=np.inf), logistic),
    "ols": (LinearRegression(), np.asarray),
    "positive": (LinearRegression(positive=True), np.asarray),
    "ridge": (Ridge(), np.asarray),
    "many": (Ridge(alpha=[0.1, 1.0]), lambda y: np.column_stack([y, -y])),
}


def bits(model):
    return np.ravel(model.coef_).tobytes() + np.ravel(model.intercept_).tobytes()


def problem(name, rows):
    X, y = rows
    model, targets = CASES[name]
    if name == "pilot":
        # Above 20,000 rows and 200 a parameter the fit begins on a pilot, which only rank 0 holds.
        X, y = np.concatenate([X] * 8), np.concatenate([y] * 8)
    return model, X, targets(y)


# Virtual workers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_fit_on_virtual_workers_has_the_bits_of_one(name, rows):
    model, X, y = problem(name, rows)
    one, many = SimulatedCluster(1, rows_per_block=1024), SimulatedCluster(7, rows_per_block=1024)
    expected = bits(one.fit(model, X, y))
    assert bits(many.fit(model, X, y)) == expected
    assert many.report.generations == 1 and many.report.rounds >= 1 and max(many.report.bytes_sent.values()) > 0
    moment = many.report.seconds / 2
    dying = SimulatedCluster(7, rows_per_block=1024, kills=[(moment, 0), (moment, 3)], joins=[(moment * 1.5, 9)])
    assert bits(dying.fit(model, X, y)) == expected
    assert dying.report.generations >= 2


def test_two_hundred_virtual_workers(rows):
    model, X, y = problem("logistic", rows)
    one, many = (SimulatedCluster(n, rows_per_block=128, seed=3) for n in (1, 200))
    expected = bits(one.fit(model, X, y))
    assert bits(many.fit(model, X, y)) == expected
    assert len(many.report.bytes_sent) == 200


def test_sparse_rows_and_weights_on_virtual_workers(rows):
    X, y = rows
    X, weight = sparse.csr_array(np.where(np.abs(X) > 1, X, 0.0)), np.linspace(0.5, 2.0, N)
    found = [
        SimulatedCluster(n, rows_per_block=1024).fit(LogisticRegression(), X, logistic(y), sample_weight=weight)
        for n in (1, 5)
    ]
    assert bits(found[0]) == bits(found[1])


def test_a_generator_draws_one_pilot_for_all_ranks(rows):
    model, X, y = problem("pilot", rows)
    found = [
        SimulatedCluster(n, rows_per_block=1024).fit(clone(model).set_params(random_state=RandomState(3)), X, y)
        for n in (1, 5)
    ]
    assert bits(found[0]) == bits(found[1])


def test_warnings_and_errors_of_ranks_come_out(rows):
    X, y = rows
    cluster = SimulatedCluster(5, rows_per_block=1024)
    with pytest.warns(ConvergenceWarning, match="max_iter") as caught:
        cluster.fit(LogisticRegression(max_iter=1), X, logistic(y))
    assert len(caught) == 1 and caught[0].filename == cluster.fit.__code__.co_filename
    X = X.copy()
    X[20_000, 3] = np.nan
    with pytest.raises(ValueError, match="First in row 20000"):
        cluster.fit(LogisticRegression(), X, logistic(y))


# Files ---------------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """As if the process had died."""


def crash_at(monkeypatch, k):
    """Let the k-th pass over all rows that is computed, not replayed, crash."""
    passes, finish = [], Run._finish_pass

    def counted(self, start, busy_before, reads_x):
        finish(self, start, busy_before, reads_x)
        if self._parent is None:
            passes.append(1)
            if len(passes) == k:
                raise Crash

    monkeypatch.setattr(Run, "_finish_pass", counted)
    return passes


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [3, 4, 6])
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(name, k, rows, tmp_path, monkeypatch):
    model, X, y = problem(name, rows)
    url = str(tmp_path / "deep" / "fit.checkpoint")
    with config_context(checkpoint=url, checkpoint_every=1e-9):
        with monkeypatch.context() as patch:
            passes = crash_at(patch, None)
            expected = bits(model.fit(X, y))
        n_passes = len(passes)
        k = min(k, n_passes)
        with monkeypatch.context() as patch:
            crash_at(patch, k)
            with pytest.raises(Crash):
                model.fit(X, y)
        with monkeypatch.context() as patch, config_context(resume=True):
            passes = crash_at(patch, None)
            assert bits(model.fit(X, y)) == expected
    # Saved before the crash: all passes but the one that summarises y, the hash of all rows and the last one.
    assert len(passes) == n_passes - (k - 3)
    assert not os.path.exists(url)


def test_a_checkpoint_of_other_rows_or_parameters_is_refused(rows, tmp_path, monkeypatch):
    model, X, y = problem("logistic", rows)
    other = X.copy()
    other[17, 2] = np.nextafter(other[17, 2], 1.0)
    with config_context(checkpoint=tmp_path / "fit", checkpoint_every=1e-9):
        with monkeypatch.context() as patch:
            crash_at(patch, 5)
            with pytest.raises(Crash):
                model.fit(X, y)
        with config_context(resume=True):
            with pytest.raises(ValueError, match="its hash of all rows is"):
                model.fit(other, y)
            with pytest.raises(ValueError, match="its kind is LogisticRegression"):
                LogisticRegression(C=2.0).fit(X, y)
            with pytest.raises(ValueError, match="its shape is 30,000 rows"):
                model.fit(X[1:], y[1:])
        model.fit(X, y)  # without resume it begins anew


def test_a_checkpoint_is_no_pickle_and_travels_between_runtimes(rows, tmp_path, monkeypatch):
    """Written by threads, gone on from by virtual workers, with Dask's default pickle module out of reach."""
    model, X, y = problem("pilot", rows)
    expected = bits(model.fit(X, y))
    url = tmp_path / "fit"
    with config_context(checkpoint=url, checkpoint_every=1e-9):
        with monkeypatch.context() as patch:
            crash_at(patch, 5)
            with pytest.raises(Crash):
                model.fit(X, y)
        assert b"daskdml checkpoint" in url.read_bytes()[:40] and b"\x80\x05" not in url.read_bytes()[:40]
        monkeypatch.setattr("pickle.loads", None)
        with config_context(resume=True):
            assert bits(SimulatedCluster(3).fit(model, X, y)) == expected


def test_streamed_rows_resume_too(rows, tmp_path, monkeypatch):
    X, y = rows
    X, y = da.from_array(X, chunks=(7000, P)), da.from_array(logistic(y), chunks=7000)
    with config_context(memory="stream", checkpoint=tmp_path / "fit", checkpoint_every=1e-9):
        expected = bits(LogisticRegression().fit(X, y))
        with monkeypatch.context() as patch:
            crash_at(patch, 6)
            with pytest.raises(Crash):
                LogisticRegression().fit(X, y)
        with config_context(resume=True):
            assert bits(LogisticRegression().fit(X, y)) == expected


def test_a_journal_of_another_fit_is_refused():
    journal = Journal([("Gram", 1.0)])
    with pytest.raises(ValueError, match="pass 1 was Gram, now it is sum"):
        journal(sum, None, None)


def test_without_the_option_nothing_is_written(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Checkpoint, "write", None)
    model, X, y = problem("logistic", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, y)
    assert not list(tmp_path.iterdir())
