"""Boosting on two worker processes beside lightgbm.dask and xgboost.dask, and beside the same fit in process."""

import contextlib
import functools
import logging
import statistics
import time

from benchmarks.estimators.boosting import BINS, FEATURES, LEAVES, RATE, ROWS, TREES, against, auc, fit, make_rows
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, ratios, take_turns


def run(rows=None, full=False):
    """Two worker processes: 1.6x the faster of lightgbm.dask and xgboost.dask, at most 1.3x the time in process.

    The fit in process takes part in each round, while the workers are idle; how much of the machine was not its own is
    in its note. The same fit without any worker, before they start and after they are gone, is beside it.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Seven rounds.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("boosting_cluster", at_size=rows is None)
    X, y, X_test, y_test = make_rows(rows or ROWS, FEATURES)
    work = f"boosting {len(X):,} x {FEATURES} float32, {TREES} trees of {LEAVES} leaves, 2 worker processes"
    spent = []
    in_process = functools.partial(fit, "daskdml", THREADS, X, y)
    in_process()  # kernels
    alone = take_turns({"alone": in_process}, 3 if full else 1)[0]["alone"]
    with _two_workers(X, y) as (client, parts):
        calls = {
            **{name: functools.partial(_fit_on, name, client, parts) for name in ON_WORKERS},
            "daskdml, in process": lambda: _watched_cpu(in_process, spent),
        }
        for call in calls.values():
            call()  # imports, kernels, connections
        spent.clear()
        seconds, models = take_turns(calls, 7 if full else 1)
        notes = {"daskdml, in process": _whose_cpu(spent)}
        for name in calls:
            if name == "xgboost.dask":
                score = auc(y_test, models[name].get_booster().inplace_predict(X_test))
            else:
                here = models[name].to_local() if name == "lightgbm.dask" else models[name]
                score = auc(y_test, here.predict_proba(X_test)[:, 1])
            sheet.add(work, name, "seconds", seconds[name], quality=("AUC", score), note=notes.get(name, ""))
    alone += take_turns({"alone": in_process}, 3 if full else 1)[0]["alone"]
    note = "before the workers start, and once they are gone"
    sheet.add(work, "daskdml, in process, no workers", "seconds", alone, note=note)
    _peaks(sheet, work, X, y)
    print(f"  {models['daskdml'].fit_report_.phases}", flush=True)
    against(sheet, work, seconds, ("lightgbm.dask", "xgboost.dask"), 1.6)
    slower = ratios(seconds["daskdml"], seconds["daskdml, in process"])
    sheet.add(work, "daskdml, 2 processes against 2 threads", "times the seconds", slower, must=("<=", 1.3))
    return sheet


def _peaks(sheet, work, X, y):
    """Add the most memory that a worker has at a time: no more than the least of the peers."""
    peaks = {}
    for name in ON_WORKERS:
        with _two_workers(X, y) as (client, parts):  # new ones: what others have left in memory is not its own
            call = functools.partial(_fit_on, name, client, parts)
            call()
            peaks[name] = largest_peak(client, call)
            sheet.add(work, name, "bytes of the largest worker at its peak", peaks[name])
    least = peaks["daskdml"] / min(peaks[name] for name in ON_WORKERS[1:])
    sheet.add(work, "daskdml against the least of the peers", "times the bytes at the peak", least, must=("<=", 1.0))


ON_WORKERS = ("daskdml", "lightgbm.dask", "xgboost.dask")


@contextlib.contextmanager
def _two_workers(X, y):
    """Start two workers of one thread that hold the rows; yield the client and both collections."""
    import dask.array as da
    from distributed import Client, LocalCluster

    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        parts = [da.from_array(part, chunks=(len(X) // 10, *part.shape[1:])).persist() for part in (X, y)]
        client.gather(client.map(len, client.futures_of(parts)))
        yield client, parts


def _watched_cpu(call, spent):
    """Call, and append the CPU seconds of this process, of its children and of all others meanwhile."""
    before = _cpu()
    result = call()
    spent.append([after - was for after, was in zip(_cpu(), before)])
    return result


def _cpu():
    import psutil

    own = psutil.Process()
    of_each = [p.cpu_times() for p in (own, *own.children(recursive=True))]
    mine, *children = [times.user + times.system for times in of_each]
    machine = psutil.cpu_times()
    return mine, sum(children), machine.user + machine.nice + machine.system - mine - sum(children)


def _whose_cpu(spent):
    own, workers, others = (max(statistics.median(column), 0.0) for column in zip(*spent))
    return (
        f"the same NumPy rows and parameters as in `boosting`; CPU seconds a fit: its own {own:.1f}, "
        f"of idle workers {workers:.1f}, of other processes {others:.1f}"
    )


def _fit_on(name, client, parts):
    if name == "daskdml":
        return fit(name, THREADS, *parts)
    return {"lightgbm.dask": _lightgbm_dask, "xgboost.dask": _xgboost_dask}[name](client).fit(*parts)


def _lightgbm_dask(client):
    import lightgbm as lgb

    return lgb.DaskLGBMClassifier(
        client=client, n_estimators=TREES, num_leaves=LEAVES, max_bin=BINS, learning_rate=RATE, min_child_weight=1e-3,
        verbose=-1,
    )  # fmt: skip


def _xgboost_dask(client):
    from xgboost import dask as xgb

    model = xgb.DaskXGBClassifier(
        n_estimators=TREES, max_leaves=LEAVES, max_depth=0, max_bin=BINS, learning_rate=RATE, tree_method="hist",
        grow_policy="lossguide", reg_lambda=0.0, min_child_weight=1e-3,
    )  # fmt: skip
    model.client = client
    return model


def largest_peak(client, call):
    """Return the largest resident size of a worker during a call, from 20 looks a second."""
    client.run(_watch)
    call()
    return max(client.run(_seen).values())


_watched = {}


def _watch():
    import threading

    import psutil

    from benchmarks.estimators import boosting_cluster

    boosting_cluster._watched.update(most=0, stop=False)

    def look():
        process = psutil.Process()
        while not boosting_cluster._watched["stop"]:
            boosting_cluster._watched["most"] = max(boosting_cluster._watched["most"], process.memory_info().rss)
            time.sleep(0.05)

    threading.Thread(target=look, daemon=True).start()


def _seen():
    from benchmarks.estimators import boosting_cluster

    boosting_cluster._watched["stop"] = True
    return boosting_cluster._watched["most"]
