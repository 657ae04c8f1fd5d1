"""Compiled code on disk: a fit without a place to keep it works, and the next process finds it where there is one."""

import os
import subprocess
import sys

import pytest
from numba import config

FITS = """
import numpy as np
from numba.core import event
from scipy.sparse import csr_matrix

from daskdml.linear_model import LogisticRegression, Ridge

rng = np.random.default_rng(0)
X = rng.normal(size=(400, 4))
y = (X[:, 0] + rng.normal(size=400) > 0).astype(int)
with event.install_recorder("numba:run_pass") as passes:
    model = LogisticRegression().fit(X, y)
    for rows in (X.astype(np.float32), csr_matrix(X)):
        LogisticRegression().fit(rows, y)
    LogisticRegression(l1_ratio=1, C=0.1).fit(X, y + (X[:, 1] > 0))
    Ridge().fit(X, X[:, 0])
assert model.score(X, y) > 0.6
print(len(passes.buffer))
"""
ONE_FIT = """
import numpy as np

from daskdml.linear_model import LogisticRegression

X = np.random.default_rng(0).normal(size=(400, 4))
assert LogisticRegression().fit(X, X[:, 0] > 0).score(X, X[:, 0] > 0) > 0.9
"""


def run(code, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_second_process_compiles_nothing(tmp_path):
    assert int(run(FITS, NUMBA_CACHE_DIR=str(tmp_path))) > 0
    written = files(tmp_path)
    assert any(path.suffix == ".nbc" for path in written)
    assert int(run(FITS, NUMBA_CACHE_DIR=str(tmp_path))) == 0
    assert files(tmp_path) == written


@pytest.mark.slow
@pytest.mark.parametrize("home", ["read-only", "absent"])
def test_fit_works_without_a_home_to_write_to(tmp_path, home):
    scratch, place = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    if home == "read-only":
        place.mkdir(mode=0o555)
    else:
        # Below a file no folder can be made, by root neither.
        place.touch()
        place = place / "nobody"
    run(ONE_FIT, HOME=str(place), XDG_CACHE_HOME=str(place / "cache"), TMPDIR=str(scratch))
    if home == "absent" and not config.DISABLE_JIT:
        assert any(path.suffix == ".nbc" for path in files(scratch))
