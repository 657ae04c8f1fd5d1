"""Logistic regression on rows that lie on a CUDA device, beside the device's own copy bandwidth."""

import math
import statistics

from benchmarks.data import Rows, make_slab
from benchmarks.gap import LogisticObjective
from benchmarks.report import Sheet
from benchmarks.timing import timed

ROWS, FEATURES = 20_000_000, 50
GAP = 1e-8
MOST_FACTOR, MOST_EXTRA = 8.0, 0.1
# Slabs that are generated; the others repeat them with their labels, which costs the objective nothing.
GENERATED_ROWS = 4_000_000


def run(rows=None, full=False):
    """At most 8 (passes x bytes / copy bandwidth) + 0.1 s, warm, with the breakdown.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("gpu_logistic", at_size=rows is None)
    rows = rows or ROWS
    work = f"logistic {rows:,} x {FEATURES} float32 on the device, to {GAP:g}"
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        sheet.skip(work, f"no CUDA device that cupy can use ({type(error).__name__})")
        return sheet
    X, y = _make(cupy, rows)
    objective = LogisticObjective(X, y, xp=cupy)
    objective.solve()
    cold, _ = timed(lambda: _fit(cupy, X, y))
    seconds, model = zip(*[timed(lambda: _fit(cupy, X, y)) for _ in range(9 if full else 5)])
    report = model[-1].fit_report_
    gap = objective.gap(model[-1].coef_, model[-1].intercept_)
    bandwidth = _copy_bandwidth(cupy)
    floor = report.passes * X.nbytes / bandwidth
    sheet.add(work, "daskdml", "seconds", list(seconds), quality=("gap", gap), note=str(report))
    sheet.add(work, "daskdml, first fit of the process", "seconds", cold)
    sheet.add(work, "copying on the device", "GB/s", bandwidth / 1e9)
    sheet.add(work, "reading X in all passes at this rate", "seconds", floor, note=f"{report.passes:.2f} passes")
    last = report.records[-1]
    for part in ("compile", "compute", "reduce", "wait"):
        sheet.add(work, "daskdml", f"seconds, {part}", getattr(last, f"seconds_{part}"))
    sheet.add(work, "daskdml", "gap", gap, must=("<=", GAP))
    share = [s / (MOST_FACTOR * floor + MOST_EXTRA) for s in seconds]
    sheet.add(work, "daskdml", f"share of {MOST_FACTOR:g} x reading + {MOST_EXTRA} s", share, must=("<=", 1.0))
    return sheet


def _fit(cupy, X, y):
    from daskdml.linear_model import LogisticRegression

    model = LogisticRegression(tol=math.sqrt(GAP)).fit(X, y)
    cupy.cuda.Device().synchronize()
    return model


def _make(cupy, rows):
    """Return X and y on the device; rows beyond the generated ones get noise of their own, so that none repeats."""
    spec = Rows(rows, FEATURES)
    X, y = cupy.empty((rows, FEATURES), dtype=cupy.float32), cupy.empty(rows, dtype=cupy.int64)
    made = min(rows, GENERATED_ROWS)
    for i in range(-(-made // spec.slab_rows)):
        part = slice(i * spec.slab_rows, min((i + 1) * spec.slab_rows, rows))
        X[part], y[part] = (cupy.asarray(a) for a in make_slab(spec, i))
    deviation = X[:made].std(axis=0) / 10
    noise = cupy.random.default_rng(0)
    for start in range(made, rows, made):
        n = min(made, rows - start)
        X[start : start + n] = X[:n] + deviation * noise.standard_normal((n, FEATURES), dtype=cupy.float32)
        y[start : start + n] = y[:n]
    return X, y


def _copy_bandwidth(cupy, n_bytes=1_000_000_000, repetitions=20):
    """Return bytes read and written a second by a copy on the device: the median of several."""
    source, target = (cupy.zeros(n_bytes // 4, dtype=cupy.float32) for _ in range(2))
    rates = []
    for _ in range(repetitions):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        cupy.copyto(target, source)
        end.record()
        end.synchronize()
        rates.append(2 * source.nbytes / (cupy.cuda.get_elapsed_time(begin, end) / 1e3))
    return statistics.median(rates)
