"""Seconds that ``plan`` predicts beside those that ``fit`` takes: threads, tasks and spmd, small and large rows."""

import contextlib
import logging
import math
import statistics

from benchmarks.data import Rows, make_lazy, make_table
from benchmarks.report import Sheet
from benchmarks.timing import ratios, take_turns, threads

SIZES = ((20_000, 50), (100_000, 10), (100_000, 200), (200_000, 50), (300_000, 200), (1_000_000, 50))
MOST_OFF = 2.0
CLUSTERS = ((2, 1), (1, 2))  # workers, threads of each: what two cores can carry


def run(rows=None, full=False):
    """Predicted seconds are within a factor of two of the actual ones, with warm kernels.

    Parameters
    ----------
    rows : int, optional
        Rows of the largest size instead of a million; the others shrink with it.
    full : bool, default False
        All sizes, and more repetitions.

    Returns
    -------
    Sheet
    """
    from daskdml import config_context

    sheet = Sheet("plan", at_size=rows is None)
    sizes = [(n * (rows or 1_000_000) // 1_000_000, p) for n, p in (SIZES if full else SIZES[-3:])]
    repetitions = 7 if full else 3
    for spec in [Rows(n, p, target) for target in ("binary", "regression") for n, p in sizes]:
        table = make_table(spec)
        for n_threads in (1, 2):
            with threads(n_threads):
                compare(sheet, _model(spec), table, "threads", 1, n_threads, repetitions)
    runtimes = [name for name in ("tasks", "spmd") if _is_there(sheet, name)]
    for n_workers, n_threads in CLUSTERS:
        with _cluster(n_workers, n_threads) as client:
            for spec in [Rows(n, p, target) for target in ("binary", "regression") for n, p in sizes]:
                persisted = client.persist(make_lazy(spec))
                client.gather(client.map(len, client.futures_of(persisted)))  # wait for them
                for runtime in runtimes:
                    with threads(2), config_context(runtime=runtime):
                        compare(sheet, _model(spec), persisted, runtime, n_workers, n_threads, repetitions)
    return sheet


@contextlib.contextmanager
def _cluster(n_workers, n_threads):
    from distributed import Client, LocalCluster

    # Workers that lose the scheduler at the end would say so.
    options = {"threads_per_worker": n_threads, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers, **options) as cluster, Client(cluster) as client:
        yield client


def _is_there(sheet, runtime):
    """Tell whether this version has a runtime; the sheet says where it does not."""
    from daskdml import config_context

    try:
        with config_context(runtime=runtime):
            return True
    except ValueError as error:
        sheet.skip(f"plan of {runtime}", str(error))
        return False


def _model(spec):
    from daskdml.linear_model import LogisticRegression, Ridge

    return (Ridge if spec.target == "regression" else LogisticRegression)()


def compare(sheet, model, table, runtime, n_workers, n_threads, repetitions, settings=""):
    """Add what is predicted for a fit, what it takes, and by how much they differ.

    Parameters
    ----------
    sheet : Sheet
    model : estimator
        One that has ``plan``.
    table : tuple (X, y)
    runtime : {"threads", "tasks", "spmd"}
    n_workers, n_threads, repetitions : int
    settings : str, default ""
        The model's, to be named.
    """
    place, predicted, foreseen = (runtime, n_workers, n_threads), [], []

    def plan():
        predicted.append(next(row for row in model.plan(*table).rows if row[:3] == place).seconds)

    def fit():
        report = model.fit(*table).fit_report_
        foreseen.append(report.predicted_seconds / report.seconds)

    fit()
    foreseen.clear()
    seconds, _ = take_turns({"plan": plan, "fit": fit}, repetitions)
    n, p = table[0].shape
    work = ", ".join(filter(None, [f"{type(model).__name__} {n:,} x {p}", settings]))
    where = f"{runtime}, {n_workers} x {n_threads}" if runtime != "threads" else f"{n_threads} threads"
    sheet.add(work, f"daskdml, {where}", "seconds", seconds["fit"])
    sheet.add(work, f"plan, {where}", "seconds", predicted)
    sheet.add(work, f"plan, {where}", "seconds to plan", seconds["plan"])
    _hold(sheet, work, f"plan, {where}", ratios(predicted, seconds["fit"]))
    if not math.isnan(foreseen[0]):
        _hold(sheet, work, f"fit itself, {where}", foreseen)


def _hold(sheet, work, who, shares):
    """Add how far predicted seconds are from those of the fit beside them, as a factor."""
    note = f"predicted / actual = {statistics.median(shares):.2f}"
    sheet.add(work, who, "times off", [max(share, 1 / share) for share in shares], must=("<=", MOST_OFF), note=note)
