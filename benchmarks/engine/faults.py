"""One of three workers is killed in the middle of a fit: what becomes of it, here and with xgboost and lightgbm."""

import os
import re
import signal
import statistics
import threading
import time

from benchmarks import child
from benchmarks.report import Sheet

ROWS, FEATURES, WORKERS = 300_000, 28, 3
MOST_RECOVERY = 5.0
LIMIT = 90.0  # seconds after which a fit counts as hanging
CONTENDERS = ("daskdml", "xgboost", "lightgbm")


def measure(rows=None, full=False):
    """Seconds without a kill and with one, what came of it, and how long daskdml stood still.

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
    sheet = Sheet("faults", at_size=rows is None)
    work = f"{rows or ROWS:,} x {FEATURES}, {WORKERS} workers"
    for who in CONTENDERS:
        quiet = child.call("benchmarks.engine.faults:fit", who=who, rows=rows or ROWS, kill_after=None, limit=LIMIT)
        name = {"daskdml": "daskdml, gradient descent", "xgboost": "xgboost.dask", "lightgbm": "lightgbm.dask"}[who]
        note = "300 steps" if who == "daskdml" else "200 trees of 31 leaves"
        sheet.add(f"{work}, nobody dies", name, "seconds", quiet["seconds"], note=note)
        found = [_with_a_kill(who, rows or ROWS, quiet["seconds"] * share) for share in _shares(full)]
        _show(sheet, f"{work}, one is killed", name, found, quiet)
    return sheet


def _shares(full):
    return (0.3, 0.4, 0.5, 0.6, 0.7) if full else (0.5,)


def _with_a_kill(who, rows, kill_after):
    start = time.perf_counter()
    try:
        return child.call("benchmarks.engine.faults:fit", who=who, rows=rows, kill_after=kill_after, limit=LIMIT)
    except TimeoutError:
        return {"seconds": time.perf_counter() - start, "end": "hangs", "pause": None, "answer": None}
    except RuntimeError as error:
        named = re.findall(r"^[\w.]+(?:Error|Exception)\b", str(error), re.MULTILINE)
        end = f"error: {named[-1] if named else 'of no name'}"
        return {"seconds": time.perf_counter() - start, "end": end, "pause": None, "answer": None}


def _show(sheet, work, name, found, quiet):
    ends = sorted({some["end"] for some in found})
    note = "; ".join(f"{sum(some['end'] == end for some in found)} of {len(found)}: {end}" for end in ends)
    same = all(some["answer"] == quiet["answer"] for some in found)
    finished = [some for some in found if some["end"] == "finished"]
    sheet.add(
        work, name, "share of fits that finish", len(finished) / len(found), note=note,
        must=("==", 1.0) if name.startswith("daskdml") else None,
        quality=("same bits as without", float(same)) if finished else None,
    )  # fmt: skip
    if finished:
        sheet.add(work, name, "seconds", [some["seconds"] for some in finished])
    pauses = [some["pause"] for some in finished if some["pause"] is not None]
    if pauses:
        sheet.add(work, name, "seconds without a step", pauses, must=("<=", MOST_RECOVERY))


def fit(who, rows, kill_after):
    """Fit once on a cluster of its own; kill a worker some seconds after the start.

    Parameters
    ----------
    who : {"daskdml", "xgboost", "lightgbm"}
    rows : int
    kill_after : float or None

    Returns
    -------
    dict
        ``seconds``, ``end``, ``pause`` (the longest time between two steps, where it is known), ``answer``.
    """
    import dask.array as da
    from distributed import Client, LocalCluster

    with (
        LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        rng = da.random.default_rng(0)
        X = rng.normal(size=(rows, FEATURES), chunks=(rows // 12, FEATURES))
        y = (X[:, 0] + X[:, 1] ** 2 + rng.normal(size=rows, chunks=rows // 12) > 1).astype("i8")
        _FITS[who](client, X[: rows // 20], y[: rows // 20], None)  # what is compiled and imported is, by now
        X, y = client.persist([X, y])
        client.gather(client.map(len, client.futures_of([X, y])))
        victim = min(client.run(os.getpid).values())
        start = time.perf_counter()
        pause, answer = _FITS[who](client, X, y, None if kill_after is None else (kill_after, victim))
        return {"seconds": time.perf_counter() - start, "end": "finished", "pause": pause, "answer": answer}


def _kill_later(kill):
    if kill is not None:
        timer = threading.Timer(kill[0], os.kill, (kill[1], signal.SIGKILL))
        timer.daemon = True
        timer.start()


def _daskdml(client, X, y, kill):
    import numpy as np

    import daskdml

    class Descent(daskdml.Program):
        def init(self, meta):
            return 0, np.zeros(meta.n_features), (time.time(),), 1

        def step(self, state, blocks, comm):
            k, w, times, _ = state
            values = {b.index: b.X.T @ (1 / (1 + np.exp(-b.X @ w)) - b.y) for b in blocks}
            gradient = comm.allreduce_blocks(values) / comm.meta.n_samples
            return k + 1, w - 0.1 * gradient, (*times[-300:], time.time()), comm.generation

        def done(self, state):
            return state[0] == 300

    _kill_later(kill)
    with daskdml.config_context(runtime="spmd"):
        _, w, times, generation = daskdml.run(Descent(), X, y)
    if kill is not None and generation < 2:
        raise RuntimeError("The kill hit no rank.")
    gaps = [b - a for a, b in zip(times[1:], times[2:])]
    return max(gaps) - statistics.median(gaps), w.tobytes().hex()


def _xgboost(client, X, y, kill):
    from xgboost import dask as dxgb

    data = dxgb.DaskQuantileDMatrix(client, X, y)
    _kill_later(kill)
    params = {"objective": "binary:logistic", "max_leaves": 31, "max_depth": 0, "grow_policy": "lossguide"}
    found = dxgb.train(client, params, data, num_boost_round=200)
    return None, len(found["booster"].get_dump())


def _lightgbm(client, X, y, kill):
    import lightgbm

    _kill_later(kill)
    model = lightgbm.DaskLGBMClassifier(client=client, n_estimators=200, num_leaves=31, verbose=-1, time_out=1)
    model.fit(X, y)
    return None, model.booster_.num_trees()


_FITS = {"daskdml": _daskdml, "xgboost": _xgboost, "lightgbm": _lightgbm}
