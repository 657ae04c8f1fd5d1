"""One loss-and-gradient pass over dense rows, beside the two BLAS products alone and beside the read bandwidth."""

import numpy as np

from benchmarks.data import Rows, make_table
from benchmarks.report import Sheet
from benchmarks.timing import ratios, take_turns, threads

ROWS, FEATURES = 2_000_000, 50
MOST_BLAS_SHARE = 0.75
LEAST_BANDWIDTH_SHARE = {"float64": 0.65, "float32": 0.55}
LEAST_SPEED_UP = 1.4
# Rows of X that stay in the second-level cache between the two products: BLAS at its best.
CACHED_ROWS = 1024


def run(rows=None, full=False):
    """Measure the pass in both precisions.

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
    sheet = Sheet("one_pass", at_size=rows is None)
    for dtype in ("float64", "float32"):
        _measure(sheet, rows or ROWS, dtype, 25 if full else 9)
    return sheet


def _measure(sheet, rows, dtype, repetitions):
    X, y = make_table(Rows(rows, FEATURES), dtype)
    w = np.random.default_rng(0).standard_normal(FEATURES) / np.abs(X[:1000]).max(axis=0) / 10
    one, two = _our_pass(X, y, w, 1), _our_pass(X, y, w, 2)
    g = np.full(rows, 0.5, dtype=dtype)
    works = {
        "ours 1": one,
        "ours 2": two,
        "blas": lambda: (X @ w.astype(dtype), X.T @ g),
        "blas in cache": lambda: _products_by_rows(X, w.astype(dtype), g),
        "read 1": _reader(X, 1),
        "read 2": _reader(X, 2),
    }
    parts = _parts(X, y, w)
    works |= parts
    with threads(1):
        _, results = take_turns(works, 1)  # compiles
        seconds, _ = take_turns(works, repetitions)
    error = _error(results["ours 1"], X, y, w)
    work = f"pass over {rows:,} x {FEATURES} {dtype}"
    for name, who in (
        ("ours 1", "daskdml, 1 thread"),
        ("ours 2", "daskdml, 2 threads"),
        ("blas", "BLAS, two products alone, 1 thread"),
        ("blas in cache", f"BLAS, two products by {CACHED_ROWS} rows, 1 thread"),
        ("read 1", "reading X alone, 1 thread"),
        ("read 2", "reading X alone, 2 threads"),
    ):
        quality = ("gradient error", error) if name.startswith("ours") else None
        sheet.add(work, who, "seconds", seconds[name], quality=quality)
    for name in parts:
        sheet.add(work, name, "ns a row", [s / rows * 1e9 for s in seconds[name]], note="a part of the pass, 1 thread")
    for n in (1, 2):
        sheet.add(
            work, f"memory bus, {n} threads", "GB/s", [X.nbytes / s / 1e9 for s in seconds[f"read {n}"]]
        )
    sheet.add(
        work, "daskdml / BLAS, 1 thread", "share of the time", ratios(seconds["ours 1"], seconds["blas"]),
        must=("<=", MOST_BLAS_SHARE),
    )  # fmt: skip
    sheet.add(
        work, "daskdml / BLAS in cache, 1 thread", "share of the time",
        ratios(seconds["ours 1"], seconds["blas in cache"]),
    )  # fmt: skip
    sheet.add(
        work, "daskdml, 1 thread", "share of the read bandwidth", ratios(seconds["read 1"], seconds["ours 1"]),
        must=(">=", LEAST_BANDWIDTH_SHARE[dtype]), note="bytes of X alone",
    )  # fmt: skip
    sheet.add(
        work, "daskdml, 2 threads", "share of the read bandwidth", ratios(seconds["read 2"], seconds["ours 2"])
    )
    sheet.add(
        work, "daskdml, 2 threads against 1", "times faster", ratios(seconds["ours 1"], seconds["ours 2"]),
        must=(">=", LEAST_SPEED_UP),
    )  # fmt: skip


def _parts(X, y, w):
    """Return what a pass is made of, each part alone: where the time goes that reading does not take."""
    import numba

    from daskdml.data import rows_per_block
    from daskdml.kernels.compile import FLAGS
    from daskdml.kernels.dense import DensePass, _tile_rows
    from daskdml.kernels.pointwise import apply_loss
    from daskdml.kernels.simd import LANES, dot_rows, padded, spread, sum_rows
    from daskdml.losses import Logistic

    n, p = X.shape
    lanes, step = LANES[X.dtype.name], rows_per_block(p, X.dtype)
    spread_w = spread(w.astype(X.dtype), p, X.dtype)
    raw, sums, labels = np.zeros(n), np.zeros(padded(p, X.dtype)), y.astype(np.float64)
    tile = _tile_rows(p * X.itemsize)

    @numba.njit(nogil=True, fastmath=FLAGS, error_model="numpy")
    def walk(X, w, raw, sums, first, second):
        n, p = X.shape
        flat = X.reshape(-1)
        for start in range(0, n // tile * tile, tile):
            if first:
                dot_rows(flat, start * p, p, tile, p, w, lanes, raw, 0)
            if second:
                sum_rows(flat, start * p, p, tile, p, raw, lanes, sums)

    tiny = DensePass(w, 0.1, Logistic())
    return {
        "rows times w": lambda: walk(X, spread_w, raw, sums, True, False),
        "rows times w, then their weighted sum": lambda: walk(X, spread_w, raw, sums, True, True),
        "the loss": lambda: apply_loss(raw, labels, None, Logistic(), 1),
        "calls of the kernel": lambda: [tiny(X[:8], labels[:8]) for _ in range(-(-n // step))],
    }


def _our_pass(X, y, w, n_threads):
    """Return the call that walks all blocks once and adds up in block order."""
    from daskdml.data import rows_per_block
    from daskdml.kernels.dense import DensePass
    from daskdml.losses import Logistic
    from daskdml.runtime.threads import for_each

    step = rows_per_block(X.shape[1], X.dtype)
    starts = range(0, len(X), step)
    labels = y.astype(np.float64)

    def call():
        walk = DensePass(w, 0.1, Logistic())
        partials = [None] * len(starts)

        def block(i):
            rows = slice(starts[i], starts[i] + step)
            partials[i] = walk(X[rows], labels[rows])

        for_each(len(starts), block, n_threads)
        return sum(part[0] for part in partials), sum(part[1] for part in partials)

    return call


def _products_by_rows(X, w, g):
    total = np.zeros_like(w)
    for start in range(0, len(X), CACHED_ROWS):
        part = X[start : start + CACHED_ROWS]
        part @ w
        total += part.T @ g[start : start + CACHED_ROWS]
    return total


def _reader(X, n_threads):
    """Return the call that reads every value of X and does next to nothing with it."""
    import numba

    from daskdml.runtime.threads import for_each

    @numba.njit(nogil=True, fastmath=True)
    def add_up(values):
        total = values.dtype.type(0)
        for i in range(values.size):
            total += values[i]
        return total

    parts = np.array_split(X.reshape(-1), 64)
    return lambda: for_each(len(parts), lambda i: add_up(parts[i]), n_threads)


def _error(result, X, y, w):
    """Return the largest error of the gradient, relative to its largest entry, by the formula in float64."""
    gradient = np.zeros(X.shape[1])
    for start in range(0, len(X), 100_000):
        part = X[start : start + 100_000].astype(np.float64)
        residual = 1 / (1 + np.exp(-(part @ w + 0.1))) - y[start : start + 100_000]
        gradient += part.T @ residual
    return float(np.abs(result[1] - gradient).max() / np.abs(gradient).max())
