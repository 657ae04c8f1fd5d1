"""Time to a test score on 1, 2 and 4 processes, and to 256 simulated workers; larger batches and larger rates.

Simulated: programs and collectives are those of a real cluster; the clock and the network are made up, by what is
measured here: seconds of a row on one process, latency and bandwidth of messages between two.
"""

import contextlib
import statistics
import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from benchmarks.engine.network_strategies import MEAN_SLOWNESS, first
from benchmarks.estimators.networks import HIDDEN, make_rows
from benchmarks.estimators.networks_cluster import cluster_of
from benchmarks.report import Sheet
from daskdml import Program, config_context, run
from daskdml.strategies import AllReduce

EPOCHS, SLACK = 12, 0.002  # the score: so much below the best one of batches of 256
CORES = 2
PROCESSES, SIMULATED = (1, 2, 4), (1, 2, 4, 8, 16, 64, 256)
MICRO_ROWS = 256  # see `daskdml.training.Schedule`
MOST_IDLE = 4  # simulated workers for each that has work
# From so many simulated workers on, so many epochs are computed: a step of 256 takes 200,000 messages, half a minute.
MANY, FEW = 64, 2
ROUND_TRIPS = 60
TO_SCORE, ANY = "seconds to the score", "any number of workers"
GAP_AT_SCORE, GAP_AT_END = "train-test gap at the score, points", f"train-test gap after {EPOCHS} epochs, points"


class Way(NamedTuple):
    """How a network is trained.

    Attributes
    ----------
    name : str
    batch : int
        Rows of ``batch_size``.
    rate : float
    warm_up : float
    scaling : {"linear"} or None
    accumulate : int
    """

    name: str
    batch: int
    rate: float
    warm_up: float = 0.0
    scaling: Any = None
    accumulate: int = 1

    @property
    def rows(self):
        """Rows of a step."""
        return self.batch * self.accumulate

    def model(self, n_epochs=EPOCHS):
        """Return the estimator."""
        from daskdml.neural_network import MLPClassifier

        return MLPClassifier(
            (HIDDEN,), solver="sgd", learning_rate_init=self.rate, warm_up=self.warm_up, batch_size=self.batch,
            learning_rate_scaling=self.scaling, strategy=AllReduce(accumulate=self.accumulate), max_iter=n_epochs,
            tol=0.0, n_iter_no_change=n_epochs + 1, random_state=0,
        )  # fmt: skip


WAYS = (
    Way("batches of 256", 256, 0.02),
    Way("batches of 4,096, same rate", 4096, 0.02),
    Way("batches of 4,096, 16 times the rate", 4096, 0.32, warm_up=1.0),
    Way("batches of 16,384, same rate", 16384, 0.02),
    Way("batches of 16,384, 64 times the rate", 16384, 1.28, warm_up=1.0),
    # What the library scales itself; a micro-batch is of some rank, so that ranks have more and fewer of sixteen.
    Way("16 batches of 256 a step, linear scaling", 256, 0.02, warm_up=1.0, scaling="linear", accumulate=16),
)


def scaling(rows=None, full=False):
    """Seconds to the same test score, and by how much training rows score better then; no limit is asked for.

    All workers come to the same bits of the same batches: scores and gaps belong to a way of training and not to a
    number of workers. Seconds are those of the ranks' clock from their start, scores after each epoch included. A
    simulated worker's row takes what it does in the fastest epoch on one process, drawn for each batch from 0.91 to
    1.09 times that; a message takes latency and the time of its bytes, and nothing of its workers' processors.

    Parameters
    ----------
    rows : int, optional
        Instead of 60,000.
    full : bool, default False
        Three rounds, 4 processes too, and up to 256 simulated workers instead of 8.

    Returns
    -------
    Sheet
    """
    sheet, n = Sheet("networks_scaling", rows is None and full, picture=draw), rows or (60_000 if full else 16_384)
    data = make_rows(n, n_test=5_000)
    work = f"{n:,} x 784, 784-{HIDDEN}(relu)-10, sgd"
    learnt, target = _learn(sheet, work, data)
    ways = [way for way in WAYS if way in learnt]
    sizes = PROCESSES if full else PROCESSES[:2]
    real, links = _real(data, ways, sizes, 3 if full else 1)
    link = tuple(statistics.median(part) for part in zip(*links))
    sheet.add(work, "measured, 2 processes", "ms of an empty message", 1e3 * link[0])
    sheet.add(work, "measured, 2 processes", "MB/s of a gradient's bytes", link[1] / 1e6)
    for way in ways:
        _compare(sheet, f"{work}, {way.name}", way, data, {size: real[way, size] for size in sizes}, link, target,
                 learnt[way], SIMULATED if full else SIMULATED[:4])  # fmt: skip
    return sheet


def _compare(sheet, where, way, data, real, link, target, learnt, simulated):
    """Add the rows of one way of training: real processes, simulated ones of as many, and more."""
    row_seconds, gap = min(found.row for found in real[1]), learnt.gap
    others = sum(found.scores != learnt.scores for runs in real.values() for found in runs)
    sheet.add(where, "real processes against one thread here", "fits of other scores", others, must=("==", 0))
    sheet.add(where, "measured, 1 process", "microseconds a row", 1e6 * row_seconds)
    known = {}
    for size, runs in real.items():
        epoch = _show(sheet, where, f"daskdml, {size} process{'es' * (size > 1)}", runs, target, gap)
        # More processes than cores share them.
        slow = max(1.0, size / CORES)
        found = _simulated(data, way, size, row_seconds * slow, *link, learnt.scores)
        if slow == 1:
            known[size] = found
        note = "" if slow == 1 else f"a row takes {slow:g} times as long: {CORES} cores"
        sheet.add(where, f"{size} simulated against real", "times the seconds of an epoch",
                  _epoch(found.seconds) / epoch, note=note)  # fmt: skip
    for size in simulated:
        if size <= max(MOST_IDLE * way.rows // MICRO_ROWS, 8):
            found = known.get(size) or _simulated(data, way, size, row_seconds, *link, learnt.scores)
            busy = min(size, way.rows // MICRO_ROWS)
            note = f"of a step's micro-batches each is of one: {busy} have work" if busy < size else ""
            _show(sheet, where, f"{size} simulated worker{'s' * (size > 1)}", [found], target, gap, note)


class Learnt(NamedTuple):
    """What a way of training comes to, whatever the workers: scores after each epoch, and the gap at the score."""

    scores: list
    gap: float


class Curve(NamedTuple):
    """A fit: seconds and score after each epoch, and the seconds of a row in the fastest but the first."""

    seconds: list
    scores: list
    row: float = float("nan")


def _epoch(seconds):
    """Return the seconds of an epoch after the first."""
    return float(np.median(np.diff(seconds)))


def _learn(sheet, work, data):
    """Return what each way that reaches the score comes to, by fits in this process, and the score."""
    X, *_, ceiling = data
    found, target = {}, None
    for way in WAYS:
        where = f"{work}, {way.name}"
        if way.rows > len(X):
            sheet.skip(where, f"a step of {way.rows:,} rows is more than all of {len(X):,}")
            continue
        scores, gap = _fitted(way, data, EPOCHS)
        target = max(scores) - SLACK if target is None else target
        epoch = first(np.arange(1, EPOCHS + 1), scores, target)
        note = f"accuracy {scores[-1]:.4f} of test rows, the best {max(scores):.4f}; the Bayes rule {ceiling:.4f}"
        sheet.add(where, ANY, GAP_AT_END, 100 * gap, note=note)
        if np.isfinite(epoch):
            _, gap = _fitted(way, data, int(epoch))
            note = f"after {epoch:.0f} epochs, the first with {target:.4f} or better"
            sheet.add(where, ANY, GAP_AT_SCORE, 100 * gap, note=note)
            found[way] = Learnt(scores, gap)
        else:
            note = f"not reached in {EPOCHS} epochs, of which the best had {max(scores):.4f}"
            sheet.add(where, ANY, TO_SCORE, np.inf, quality=(GAP_AT_END, 100 * gap), note=note)
    return found, target


def _fitted(way, data, n_epochs):
    """Return test scores after each epoch, and by how much the rows trained on score better at the end."""
    X, y, X_test, y_test, _ = data
    with warnings.catch_warnings(action="ignore"):
        model = way.model(n_epochs).fit(X, y, X_val=X_test, y_val=y_test)
    return model.validation_scores_, model.score(X, y) - model.validation_scores_[-1]


def _show(sheet, work, who, runs, target, gap, note=""):
    """Add seconds to the score and seconds of an epoch; return the latter."""
    times = [first(found.seconds, found.scores, target) for found in runs]
    sheet.add(work, who, TO_SCORE, times, quality=("gap, points", 100 * gap), note=note)
    epochs = [_epoch(found.seconds) for found in runs]
    sheet.add(work, who, "seconds of an epoch", epochs)
    return statistics.median(epochs)


# Real processes ------------------------------------------------------------------------------------------------------


class RoundTrips(Program):
    """Measure latency and bandwidth between two ranks: of messages of nothing, and of a gradient's bytes."""

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        found = []
        for n in (1, self.n_bytes):
            packet, seconds = np.zeros(n, np.uint8), []
            for _ in range(ROUND_TRIPS):
                start = time.perf_counter()
                for sender in (0, 1):
                    if comm.rank == sender:
                        comm.send(1 - sender, packet)
                    else:
                        comm.receive(sender)
                seconds.append((time.perf_counter() - start) / 2)
            # The first ones open the shorter way between two processes of a machine.
            found.append(float(np.median(seconds[ROUND_TRIPS // 3 :])))
        empty, long = comm.broadcast(np.array(found))
        return float(empty), float(self.n_bytes / max(long - empty, 1e-9))

    def done(self, state):
        return state is not None


def _real(data, ways, sizes, n_rounds):
    """Return the curves of fits by (Way, processes), and (latency, bandwidth) measured in each round.

    All clusters stand side by side and take turns.
    """
    X, y, X_test, y_test, _ = data
    found, links = {(way, size): [] for way in ways for size in sizes}, []
    n_bytes = 4 * (784 * HIDDEN + HIDDEN * 10)
    with contextlib.ExitStack() as stack:
        clusters = {size: stack.enter_context(cluster_of(size, X, y)) for size in sizes}
        for size in sizes:
            _fit(*clusters[size], ways[0].model(1), X_test, y_test)  # imports, kernels, connections
        for _ in range(n_rounds):
            client, (parts, _) = clusters[2]
            with client.as_current(), config_context(runtime="spmd"):
                links.append(run(RoundTrips(n_bytes), parts))
            for way in ways:
                for size in sizes:
                    found[way, size].append(_fit(*clusters[size], way.model(), X_test, y_test))
    return found, links


def _fit(client, parts, model, X_test, y_test):
    """Return the `Curve` of a fit on a cluster."""
    with client.as_current(), config_context(runtime="spmd"), warnings.catch_warnings(action="ignore"):
        model.fit(*parts, X_val=X_test, y_val=y_test)
    return _curve(model, len(parts[0]))


def _curve(model, n_rows):
    records = model.fit_report_.records
    seconds = [record.seconds for record in records]
    row = float(np.diff(seconds).min()) / n_rows if len(records) > 1 else float("nan")
    return Curve(seconds, model.validation_scores_, row)


def _simulated(data, way, size, row_seconds, latency, bandwidth, scores):
    """Return the `Curve` of a fit on simulated workers; says how long that took.

    Of many workers a few epochs are computed, and the others take what the last one of them does: any number of workers
    comes to the same scores.
    """
    from daskdml.testing import SimulatedCluster

    X, y, X_test, y_test, _ = data
    n_epochs, started = EPOCHS if size < MANY else FEW, time.perf_counter()
    cluster = SimulatedCluster(
        size, latency=latency, bandwidth=bandwidth, seconds_per_row=row_seconds / MEAN_SLOWNESS,
        rows_per_block=max(len(X) // (4 * size), 1),
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        model = cluster.fit(way.model(n_epochs), X, y, X_val=X_test, y_val=y_test)
    print(f"  {way.name}, {size} simulated workers: {time.perf_counter() - started:.0f} s", flush=True)
    found = _curve(model, len(X))
    if found.scores != scores[:n_epochs]:
        raise RuntimeError(f"{size} simulated workers came to other scores: {found.scores}, not {scores[:n_epochs]}.")
    seconds = found.seconds + [found.seconds[-1] + _epoch(found.seconds) * k for k in range(1, EPOCHS - n_epochs + 1)]
    return found._replace(seconds=seconds, scores=scores)


def draw(rows):
    """Return a picture of seconds to the score against workers, real and simulated, and of each way's gap beside it."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.what != "not measured"]
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    ways = list(dict.fromkeys(row.work for row in rows if row.what == GAP_AT_END))
    for i, work in enumerate(ways):
        label, color = work.split("sgd, ")[-1], f"C{i}"
        of_way = [row for row in rows if row.work == work]
        times = [row for row in of_way if row.what == TO_SCORE and np.isfinite(row.value)]
        for kind, style in (("process", "s-"), ("simulated", "o--")):
            points = sorted((int(row.who.removeprefix("daskdml, ").split()[0]), row.value)
                            for row in times if kind in row.who)  # fmt: skip
            if points:
                name = f"{label}, {'real' if kind == 'process' else 'simulated'}"
                left.plot(*zip(*points), style, color=color, label=name, markersize=4, linewidth=1)
        for what, alpha in ((GAP_AT_END, 0.4), (GAP_AT_SCORE, 1.0)):
            right.barh(i, sum(row.value for row in of_way if row.what == what), color=color, alpha=alpha, height=0.7)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("workers")
    left.set_ylabel("seconds to the score; what never reached it is left out")
    left.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    right.set_yticks(range(len(ways)), [work.split("sgd, ")[-1] for work in ways], fontsize=7)
    right.invert_yaxis()
    right.set_xlabel(f"train-test gap, points; pale: after {EPOCHS} epochs")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
