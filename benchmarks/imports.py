"""Seconds of imports and of the first fit, each in a process of its own."""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks import child
from benchmarks.report import Sheet

MOST_PACKAGE, MOST_ESTIMATOR = 0.2, 0.3
FORBIDDEN = ("dask", "distributed")
ROWS, FEATURES = 30_000, 20


def run(rows=None, full=False):
    """Import within 0.2 s and 0.3 s, without Dask; a second process compiles nothing.

    Parameters
    ----------
    rows : int, optional
        Rows of the first fit; given, imports are timed twice only.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("imports")
    repetitions = 2 if rows else 11 if full else 5
    seconds = [child.call("benchmarks.imports:import_package") for _ in range(repetitions)]
    sheet.add("import daskdml", "daskdml", "seconds", seconds, must=("<=", MOST_PACKAGE))
    for beyond, modules in (
        ("scikit-learn and numba", ["sklearn.base", "numba"]),
        ("scikit-learn's LogisticRegression and numba", ["sklearn.linear_model", "numba"]),
    ):
        found = [child.call("benchmarks.imports:import_estimator", before=modules) for _ in range(repetitions)]
        work = "from daskdml.linear_model import LogisticRegression"
        seconds = [f["seconds"] for f in found]
        sheet.add(work, f"daskdml, beyond {beyond}", "seconds", seconds, must=("<=", MOST_ESTIMATOR))
        sheet.add(work, f"import of {beyond}", "seconds", [f["before"] for f in found])
    loaded = [name for f in found for name in f["loaded"]]
    sheet.add(work, "daskdml", "imports of dask or distributed", len(loaded), must=("==", 0))
    _first_fits(sheet, rows or ROWS)
    return sheet


def _first_fits(sheet, rows):
    with tempfile.TemporaryDirectory() as folder:
        for process in ("first process, empty cache", "second process"):
            before = _cache_files(folder)
            found = child.call("benchmarks.imports:first_fit", env={"NUMBA_CACHE_DIR": folder}, rows=rows)
            work = f"first fit of a process, {rows:,} x {FEATURES}"
            note = f"of these {found['compile']:.2f} s building or loading kernels"
            sheet.add(work, f"daskdml, {process}", "seconds", found["seconds"], note=note)
            # What a process compiles it saves: a file of machine code that is new or newer is a miss.
            missed = len(set(_cache_files(folder).items()) - set(before.items()))
            must = ("==", 0) if process == "second process" else None
            sheet.add(work, f"daskdml, {process}", "kernels compiled", missed, must=must)


def _cache_files(folder):
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*.nbc")}


def import_package():
    """Return the seconds of ``import daskdml``; runs in a child process."""
    start = time.perf_counter()
    import daskdml  # noqa: F401

    return time.perf_counter() - start


def import_estimator(before):
    """Import an estimator after the modules named in ``before``; runs in a child process.

    Returns
    -------
    dict of "seconds", of "before" (seconds of the modules' own import) and "loaded" (those that must not be)
    """
    import importlib

    start = time.perf_counter()
    for name in before:
        importlib.import_module(name)
    middle = time.perf_counter()
    from daskdml.linear_model import LogisticRegression  # noqa: F401

    seconds = time.perf_counter() - middle
    return {"seconds": seconds, "before": middle - start, "loaded": [m for m in FORBIDDEN if m in sys.modules]}


def first_fit(rows):
    """Fit once; runs in a child process.

    Returns
    -------
    dict of "seconds" and "compile"
    """
    from benchmarks.data import Rows, make_table
    from daskdml.linear_model import LogisticRegression

    X, y = make_table(Rows(rows, FEATURES))
    start = time.perf_counter()
    model = LogisticRegression().fit(X, y)
    return {"seconds": time.perf_counter() - start, "compile": model.fit_report_.compile_seconds}
