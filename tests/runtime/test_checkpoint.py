"""Checkpoints: what was written is read, bit for bit, or refused in a sentence."""

import os
import pickle
import uuid
from typing import NamedTuple

import fsspec
import numpy as np
import pytest
import scipy.sparse as sp

import daskdml
from daskdml import config_context
from daskdml.data import Block
from daskdml.runtime.checkpoint import Checkpoint, rows_digest
from daskdml.utils.portable import portable

FINGERPRINT = {"kind": "Descent", "shape": "100 rows, 3 features", "hash of all rows": "ab12"}


@portable
class State(NamedTuple):
    step: int
    w: np.ndarray
    notes: dict


STATE = State(
    3, np.random.default_rng(0).normal(size=(7, 7)), {"classes": np.array(["a", "b"]), "loss": (0.1, None, 2**80)}
)


@pytest.fixture(params=["path", "file", "memory"])
def url(request, tmp_path):
    path = tmp_path / "deep" / "fit.ckpt"
    name = uuid.uuid4().hex
    return {"path": path, "file": f"file://{path}", "memory": f"memory://{name}/fit.ckpt"}[request.param]


def test_what_was_written_is_read(url):
    checkpoint = Checkpoint(url, FINGERPRINT)
    assert checkpoint.read() is None
    checkpoint.write(1, State(0, np.zeros(1), {}))
    checkpoint.write(17, STATE)
    step, state = Checkpoint(url, FINGERPRINT).read()
    assert step == 17 and type(state) is State and state.step == 3
    assert state.w.tobytes() == STATE.w.tobytes() and state.w.flags.aligned
    assert state.notes["loss"] == STATE.notes["loss"] and state.notes["classes"].tolist() == ["a", "b"]
    checkpoint.remove_or_warn()
    assert checkpoint.read() is None
    checkpoint.remove_or_warn()


@pytest.mark.parametrize("state", [None, 0, (0, np.zeros(3)), [], {"a": [1.5, "x"]}, b"raw", np.empty((0, 3))])
def test_states_of_any_kind(tmp_path, state):
    checkpoint = Checkpoint(tmp_path / "fit", FINGERPRINT)
    checkpoint.write(0, state)
    found = checkpoint.read()
    assert repr(found) == repr((0, state))


def test_no_pickle_is_in_it(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit", FINGERPRINT)
    with pytest.raises(TypeError, match="cannot travel between ranks or stand in a checkpoint"):
        checkpoint.write(0, object())
    assert checkpoint.read() is None
    (tmp_path / "fit").write_bytes(pickle.dumps(STATE._asdict()))
    with pytest.raises(ValueError, match="is no checkpoint of this version"):
        checkpoint.read()


def test_a_changed_byte_anywhere_is_noticed(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit", FINGERPRINT)
    checkpoint.write(5, STATE)
    content = (tmp_path / "fit").read_bytes()
    for at in [*range(0, len(content), 7), len(content) - 1]:
        damaged = bytearray(content)
        damaged[at] ^= 1
        (tmp_path / "fit").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged|no checkpoint"):
            checkpoint.read()


@pytest.mark.parametrize("n", [0, 5, 21, 25, 30, 200, -1])
def test_a_file_that_was_cut_off_is_noticed(tmp_path, n):
    checkpoint = Checkpoint(tmp_path / "fit", FINGERPRINT)
    checkpoint.write(5, STATE)
    content = (tmp_path / "fit").read_bytes()
    (tmp_path / "fit").write_bytes(content[:n])
    with pytest.raises(ValueError, match="damaged|no checkpoint"):
        checkpoint.read()


def test_other_data_are_a_sentence(tmp_path):
    Checkpoint(tmp_path / "fit", FINGERPRINT).write(5, STATE)
    other = Checkpoint(tmp_path / "fit", {**FINGERPRINT, "hash of all rows": "cd34"})
    with pytest.raises(ValueError, match="another fit: its hash of all rows is ab12, here it is cd34.*resume=False"):
        other.read()


def test_a_death_while_writing_leaves_the_file_before(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "fit", FINGERPRINT)
    checkpoint.write(5, STATE)
    monkeypatch.setattr(os, "replace", _die)
    monkeypatch.setattr("shutil.move", _die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(6, STATE)
    monkeypatch.undo()
    assert Checkpoint(tmp_path / "fit", FINGERPRINT).read()[0] == 5


def _die(*args, **kwargs):
    raise KeyboardInterrupt


# Rows ----------------------------------------------------------------------------------------------------------------


def block(X, y=None, weight=None):
    return Block(X, y, weight, 0, 0)


def test_the_hash_tells_rows_apart():
    X, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    other = X.copy()
    other[2, 1] = np.nextafter(other[2, 1], 9)
    kinds = [
        block(X), block(X, y), block(X, y, y * 1.0), block(other), block(X.astype("f4")), block(X.reshape(2, 3)),
        block(sp.csr_matrix(X)), block((X[:, :1], X[:, 1:])), block(X, np.array(["a", "b", "c"], dtype=object)),
        block(X, np.array(["a", "b", "d"], dtype=object)),
    ]  # fmt: skip
    assert len({rows_digest(kind) for kind in kinds}) == len(kinds)
    assert rows_digest(block(np.asfortranarray(X))) == rows_digest(block(X))  # what counts are values


class Count(daskdml.Program):
    """Sums rows; dies at a step, once."""

    def __init__(self, until, dies_at=None):
        self.until, self.dies_at = until, dies_at

    def fingerprint(self):
        return self.until

    def init(self, meta):
        return 0, np.zeros(meta.n_features)

    def step(self, state, blocks, comm):
        k, total = state
        if k == self.dies_at:
            raise KeyError("the program did it")
        return k + 1, 0.5 * total + comm.allreduce_blocks({b.index: b.X.sum(axis=0) for b in blocks})

    def done(self, state):
        return state[0] == self.until


def test_a_program_in_process_goes_on_from_its_checkpoint(url):
    X = np.random.default_rng(0).normal(size=(3000, 2))
    expected = daskdml.run(Count(10), X)
    options = {"runtime": "threads", "n_threads": 1, "checkpoint": str(url), "checkpoint_every": 1e-9}
    with config_context(**options):
        with pytest.raises(KeyError):
            daskdml.run(Count(10, dies_at=6), X)
        folder = fsspec.core.url_to_fs(str(url))
        assert len(folder[0].ls(folder[1])) == 1
        with config_context(resume=True):
            assert daskdml.run(Count(10), X + 1e-9)[1].tobytes() != expected[1].tobytes()
            found = daskdml.run(Count(10, dies_at=0), X)  # it does not begin anew
    assert found[1].tobytes() == expected[1].tobytes()
    assert not folder[0].ls(folder[1])
