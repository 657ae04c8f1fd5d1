"""The same gradient descent on several platforms inside one library: who holds the parameters, and what travels.

Driver-held: as Spark's MLlib and loops over ``client.submit`` do it. In each step the driver sends the parameters with
one task for each worker, gets their gradients, adds them up and takes the step. All-reduce: ``MLPClassifier``, of which
workers hold replicas and add gradients up among each other. Parameter server: the same class, of which workers push
gradients to shards that lie with all of them, and read parameters from there, in step. All learn from the same batches,
micro-batch by micro-batch with the same kernels, from the same first coefficients: what is compared is the platform
alone.
"""

import functools
import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from benchmarks.estimators.networks import CLASSES, FEATURES, HIDDEN, ROWS, make_rows
from benchmarks.estimators.networks_cluster import cluster_of
from benchmarks.report import Sheet
from benchmarks.timing import ratios
from benchmarks.wire import totals, watch
from daskdml.strategies import ParameterServer

WORKERS = CORES = 2
MODELS = {"multinomial logistic": (), f"784-{HIDDEN}(relu)-10": (HIDDEN,)}
# Rows of a batch: epochs that are measured of driver-held parameters and of all-reduce, which are shorter, after one
# that is not. Batches of 1,024 make 59 steps of an epoch, of 8,192 eight.
BATCHES = {1024: (6, 40), 8192: (30, 60)}
RATE, ALPHA = 0.1, 1e-4
MOST_APART = 1e-6
ALL_REDUCE = "daskdml, all-reduce"
SERVER = "daskdml, parameter server in step"
SHARES = "share of a step: computing", "share of a step: packing and sending", "share of a step: the rest"


class Task(NamedTuple):
    """What is learnt, and where.

    Attributes
    ----------
    client : distributed.Client
    X, y : dask.array
    held : list of Future
        A `Part` of each worker, for loops of the driver.
    network : daskdml.objectives.network.Network
    hidden : tuple of int
    schedule : daskdml.training.Schedule
    batch : int
    """

    client: Any
    X: Any
    y: Any
    held: list
    network: Any
    hidden: tuple
    schedule: Any
    batch: int


class Run(NamedTuple):
    """What came of a run.

    Attributes
    ----------
    theta : ndarray
    seconds : list of float
        Of each epoch but the first.
    compute, wire : float
        Seconds of these epochs in which the slower worker, or rank 0, computed and the step was taken; and of packing
        and sending, None where the processes' own counts have it.
    sent : float or None
        Bytes that rank 0 sent in these epochs, None likewise.
    """

    theta: np.ndarray
    seconds: list
    compute: float
    wire: Any = None
    sent: Any = None


def run(rows=None, full=False):
    """Samples a second, CPU use, share of packing and sending, and bytes of three platforms; the same coefficients.

    Two processes of one thread on one machine; the driver and the scheduler share a third. A step's seconds are those
    of epochs after the first. CPU seconds are of all processes, less those of a run of one epoch; bytes of the driver
    are those of a whole run. What driver-held parameters spend on packing and sending `benchmarks.wire` counts on the
    way of a step: in the driver's process, with the scheduler's, and in the worker that spends more. For the other two
    it is "encode" and "transfer" of the fit report, of a rank's own thread, and "the rest" waits for the other rank,
    and for answers of the server. Both ranks being on one machine, all-reduce sends through shared memory, which Dask's
    own messages do not, and those of tables neither.

    Parameters
    ----------
    rows : int, optional
        Instead of 60,000.
    full : bool, default False
        Three rounds and both sizes of batches; else one round of the smaller ones.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("platforms", at_size=rows is None and full, picture=draw)
    X, y, *_ = make_rows(rows or ROWS, n_test=1)
    with cluster_of(WORKERS, X, y) as (client, parts):
        watch()
        client.run(watch)
        for (name, hidden), batch in ((model, batch) for model in MODELS.items() for batch in BATCHES):
            if full or batch == min(BATCHES):
                task = _task(client, parts, X, y, hidden, batch)
                work = f"{name}, sgd, {len(X):,} x {FEATURES} float32, batches of {batch:,}, {WORKERS} processes"
                _compare(sheet, work, task, X, y, BATCHES[batch], 3 if full else 1)
    return sheet


def _task(client, parts, X, y, hidden, batch):
    """Put rows where loops of the driver want them: as the ranks of a fit have them after their first batch."""
    from daskdml.losses import Multinomial
    from daskdml.objectives.network import Network
    from daskdml.training import Schedule
    from daskdml.utils.random import as_seed

    network = Network((FEATURES, *hidden, CLASSES), "relu", Multinomial(CLASSES), ALPHA)
    schedule = Schedule.of(len(X), batch, as_seed(0), is_mixed=True)
    workers, held = sorted(client.scheduler_info()["workers"]), []
    edges = schedule.n_units * np.arange(len(workers) + 1) // len(workers)
    for worker, a, b in zip(workers, edges, edges[1:]):
        first, stop = schedule.unit_spans(np.arange(a, b))
        rows = schedule.mix(np.arange(first[0], stop[-1]), backwards=True)
        own = client.scatter((X[rows], y[rows].astype(np.float64)), workers=[worker], hash=False)
        held.append(client.submit(Part, network, schedule, int(a), int(b), own, workers=[worker], pure=False))
    client.gather(client.map(len, held))
    return Task(client, *parts, held, network, hidden, schedule, batch)


class Part:
    """The rows of a worker, in the order that strata are cut from, and the plan of the epoch.

    Parameters
    ----------
    network : daskdml.objectives.network.Network
    schedule : daskdml.training.Schedule
    first, stop : int
        Units that it has.
    rows : (ndarray, ndarray)
        Their X and y.
    """

    def __init__(self, network, schedule, first, stop, rows):
        from daskdml.training.rows import HeldRows, Piece

        self.network, self.schedule, self.first, self.stop = network, schedule, first, stop
        self.held = HeldRows([Piece(0, *rows, None)])
        self.epoch, self.work = -1, network.workspace(schedule.micro_rows)
        self.X = np.empty((schedule.micro_rows, rows[0].shape[1]), np.float32)
        self.spare = []  # arrays of gradients: new ones would cost as much as a product of matrices

    def __len__(self):
        return len(self.held.y)

    def plan(self, epoch):
        """Look up which rows are in which batch."""
        schedule = self.schedule
        batches, micro, units, places = schedule.slices(epoch, 0, schedule.n_batches)
        own = (self.first <= units) & (units < self.stop)
        rows, edges = schedule.rows_of(epoch, units[own], places[own])
        self.selection = self.held.select(rows - schedule.unit_spans([self.first])[0][0])
        self.epoch, self.slices = epoch, {}
        for batch, k, first, stop in zip(batches[own].tolist(), micro[own].tolist(), edges, edges[1:]):
            self.slices.setdefault(batch, []).append((k, first, stop))
        self.sizes = np.bincount(batches, minlength=schedule.n_batches)

    def gradient(self, theta, epoch, batch):
        """Return the sum of the gradients of own micro-batches; behind it losses, rows, and the seconds it took.

        Added up as daskdml's ranks do: equal numbers are to have equal bits.
        """
        from daskdml.utils.fold import Fold

        start = time.perf_counter()
        if epoch != self.epoch:
            self.plan(epoch)
        fold, d = Fold(int(self.sizes[batch]), self._add), self.network.n_params
        for k, first, stop in self.slices.get(batch, ()):
            X, y = self.selection.X(first, stop, self.X), self.selection.y[first:stop]
            out = self.spare.pop() if self.spare else np.empty(d + 2, np.float32)
            out[d:] = self.network.gradient(theta, X, y, None, out, self.work), len(y)
            fold.add(k, out)
        total = functools.reduce(self._add, (fold.nodes[node] for node in sorted(fold.nodes)))
        self.spare.append(total)
        return np.append(total, np.float32(time.perf_counter() - start))

    def _add(self, left, right):
        """Add up into the left one and keep the other."""
        np.add(left, right, out=left)
        self.spare.append(right)
        return left


def _gradient(part, theta, epoch, batch):
    return part.gradient(theta, epoch, batch)


def _driver_held(task, n_epochs, scatters=False):
    """Train with the parameters in this process: one task for each worker in each step."""
    from daskdml.solvers.descent import Momentum

    client, network, d = task.client, task.network, task.network.n_params
    workers = [list(client.who_has([part]).values())[0] for part in task.held]
    theta, moments, transform = network.start(0), [np.zeros(d, np.float32)], Momentum(0.0, False)
    seconds, compute, n_updates = [], 0.0, 0
    for epoch in range(n_epochs):
        started, computed = time.perf_counter(), 0.0
        for batch in range(task.schedule.n_batches):
            sent = client.scatter(theta, broadcast=True, hash=False) if scatters else theta
            found = [
                client.submit(_gradient, part, sent, epoch, batch, workers=worker, pure=False)
                for part, worker in zip(task.held, workers)
            ]
            parts = client.gather(found)
            begun = time.perf_counter()
            total, n_updates = functools.reduce(np.add, parts), n_updates + 1
            decay = network.n_decayed, ALPHA, 1.0 / float(total[d + 1])
            transform.step(theta, total[:d], moments, RATE, n_updates, decay, None)
            computed += max(float(part[-1]) for part in parts) + time.perf_counter() - begun
        if epoch:
            seconds.append(time.perf_counter() - started)
            compute += computed
    return Run(theta, seconds, compute)


def _fit(strategy, task, n_epochs):
    """Fit daskdml's network; nothing of a step passes the driver."""
    from daskdml import config_context
    from daskdml.neural_network import MLPClassifier

    model = MLPClassifier(
        task.hidden, solver="sgd", momentum=0.0, nesterovs_momentum=False, learning_rate_init=RATE, alpha=ALPHA,
        batch_size=task.batch, max_iter=n_epochs, random_state=0, tol=0.0, n_iter_no_change=n_epochs + 1,
        strategy=strategy,
    )  # fmt: skip
    # As many epochs as asked for are no convergence.
    with task.client.as_current(), config_context(runtime="spmd"), warnings.catch_warnings(action="ignore"):
        model.fit(task.X, task.y)
    records = model.fit_report_.records
    first, last = records[0], records[-1]
    return Run(
        task.network.flatten(model.coefs_, model.intercepts_), np.diff([record.seconds for record in records]).tolist(),
        last.seconds_compute - first.seconds_compute, last.seconds_reduce - first.seconds_reduce,
        last.bytes_moved - first.bytes_moved,
    )  # fmt: skip


PLATFORMS = {
    ALL_REDUCE: functools.partial(_fit, None),
    SERVER: functools.partial(_fit, ParameterServer(moves_rows=False)),  # the same batches as of all-reduce
    "driver-held, parameters in the tasks": _driver_held,
    "driver-held, parameters scattered": functools.partial(_driver_held, scatters=True),
}
ONCE = ("driver-held, parameters scattered",)  # slower: measured in the first round only


class Found(NamedTuple):
    """What a run came to, an epoch or a step; bytes of the driver's process and of a worker."""

    rate: float
    step: float
    cpu_use: float
    cpu: float
    compute: float
    wire: float
    driver_sent: float
    driver_received: float
    worker_sent: float


def _measure(platform, task, n_epochs):
    """Run one epoch, and then some more; return the difference as a `Found`."""
    runs, counts = [], []
    for n in (1, 1 + n_epochs):
        before = _totals(task.client)
        runs.append(platform(task, n))
        counts.append([after.since(other) for after, other in zip(_totals(task.client), before)])
    driver, *workers = (after.since(one) for one, after in zip(*counts))
    found, wall, n_steps = runs[1], sum(runs[1].seconds), n_epochs * task.schedule.n_batches
    cpu = driver.cpu + sum(worker.cpu for worker in workers)
    wire = found.wire
    if wire is None:
        wire = driver.seconds + max(worker.seconds for worker in workers)
    sent = max(worker.sent for worker in workers) if found.sent is None else found.sent
    epoch = float(np.median(found.seconds))
    all_steps = (1 + n_epochs) * task.schedule.n_batches
    return Found(
        task.schedule.n_samples / epoch, epoch / task.schedule.n_batches, cpu / wall / CORES, cpu / n_epochs,
        found.compute / wall, wire / wall, counts[1][0].sent / all_steps, counts[1][0].received / all_steps,
        sent / n_steps,
    )  # fmt: skip


def _totals(client):
    """Return what the driver's process and each worker have counted."""
    return [totals(), *(found for _, found in sorted(client.run(totals).items()))]


def _compare(sheet, work, task, X, y, epochs, n_rounds):
    """Let platforms take turns and add the rows of one model and size of batches."""
    found, names = {name: [] for name in PLATFORMS}, list(PLATFORMS)
    few, many = epochs
    # As many epochs of each, and with that imports, kernels and connections.
    thetas = {name: platform(task, 1 + few).theta for name, platform in PLATFORMS.items()}
    for i in range(n_rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if i == 0 or name not in ONCE:
                found[name].append(_measure(PLATFORMS[name], task, many if name in (ALL_REDUCE, SERVER) else few))
    losses = {name: _loss(task.network, theta, X, y) for name, theta in thetas.items()}
    for name, some in found.items():
        _show(sheet, work, name, some, losses[name], 1 + few)
    for name in names[1:]:
        against = f"{ALL_REDUCE} against {name}"
        pairs = ratios([one.step for one in found[name]], [one.step for one in found[ALL_REDUCE]])
        sheet.add(work, against, "times the samples a second", pairs)
        apart = abs(losses[name] / losses[ALL_REDUCE] - 1)
        others = np.count_nonzero(thetas[name].view("u4") != thetas[ALL_REDUCE].view("u4"))
        note = f"coefficients of other bits: {others}"
        sheet.add(work, against, "relative difference of the loss", apart, must=("<=", MOST_APART), note=note)


def _show(sheet, work, name, some, loss, n_epochs):
    """Add the rows of one platform."""
    rates, steps, uses, cpu, compute, wire, *traffic = (list(part) for part in zip(*some))
    rest = [1 - a - b for a, b in zip(compute, wire)]
    sheet.add(work, name, "samples a second", rates, quality=("loss", loss), note=f"loss after {n_epochs} epochs")
    sheet.add(work, name, "ms of a step", [1e3 * step for step in steps])
    sheet.add(work, name, f"CPU use, share of {CORES} cores", uses)
    sheet.add(work, name, "CPU seconds an epoch", cpu, note="driver, scheduler and workers")
    for what, share in zip(SHARES, (compute, wire, rest)):
        sheet.add(work, name, what, share)
    parts = "sent by the driver", "received by the driver", "sent by a worker"
    for what, n_bytes in zip(parts, traffic):
        sheet.add(work, name, f"bytes of a step {what}", n_bytes)


def _loss(network, theta, X, y):
    """Return the log loss of all rows."""
    raw = network.raw(theta, X).astype(np.float64)
    raw -= raw.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(len(y)), y]))


def draw(rows):
    """Return a picture of a step's milliseconds, cut into computing, messages and the rest, with CPU use beside it."""
    from matplotlib.figure import Figure

    values = {(row.work, row.who, row.what): row.value for row in rows}
    bars = list(dict.fromkeys((row.work, row.who) for row in rows if row.what == "ms of a step"))
    figure = Figure(figsize=(10, 1.2 + 0.4 * len(bars)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    places, start = np.arange(len(bars)), np.zeros(len(bars))
    for what, color in zip(SHARES, ("#1f6fb2", "#e8871e", "#c9c9c9")):
        part = np.array([values[*bar, "ms of a step"] * values[*bar, what] for bar in bars])
        left.barh(places, part, left=start, color=color, height=0.7, label=what.removeprefix("share of a step: "))
        start += part
    for place, end, bar in zip(places, start, bars):
        left.text(end, place, f" {values[*bar, 'samples a second']:,.0f} samples/s", va="center", fontsize=7)
    use = f"CPU use, share of {CORES} cores"
    right.barh(places, [values[*bar, use] for bar in bars], color="#888", height=0.7)
    labels = [f"{work.split(', sgd')[0]}, {work.split(', ')[-2]}: {who}" for work, who in bars]
    left.set_yticks(places, labels, fontsize=7)
    left.invert_yaxis()
    left.margins(x=0.25)
    left.set_xlabel("ms of a step")
    left.legend(fontsize=7)
    right.set_xlim(0, 1)
    right.set_xlabel(use)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
