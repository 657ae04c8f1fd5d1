"""Ranks that talk to each other: an all-reduce, a superstep of a GLM, 200 steps of L-BFGS, beside tasks and dask-ml."""

import functools
import logging
import statistics
import time

import numpy as np

from benchmarks.report import Sheet
from benchmarks.timing import threads, timed
from daskdml import Program, config_context, run
from daskdml.comm import choose_topology

BLOCKS, ROWS_PER_BLOCK, FEATURES = 64, 1000, 50
STEPS = 200
MOST_MS, LEAST_MB, MOST_OVERHEAD_MS = 1.2, 250.0, 4.0
LEAST_TASKS, LEAST_DASK_ML, LEAST_LBFGS = 5.0, 100.0, 3.0


def measure(rows=None, full=False):
    """Latency and bandwidth of all-reduces, overhead of a superstep, L-BFGS by ranks and by tasks.

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
    from distributed import Client, LocalCluster

    sheet = Sheet("ranks", at_size=rows is None)
    with (
        threads(1),
        LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        X, y = _persisted(client, max(1, rows // BLOCKS) if rows else ROWS_PER_BLOCK)
        _allreduces(sheet, X, full)
        _supersteps(sheet, X, y, full)
        _lbfgs(sheet, X, y, full)
    _ring(sheet)
    _virtual(sheet, rows)
    return sheet


def _persisted(client, rows_per_block):
    import dask.array as da

    rng = np.random.default_rng(0)
    X = rng.normal(size=(BLOCKS * rows_per_block, FEATURES))
    y = (X @ np.linspace(-1, 1, FEATURES) + rng.logistic(size=len(X)) > 0).astype(np.float64)
    lazy = da.from_array(X, chunks=(rows_per_block, FEATURES)), da.from_array(y, chunks=rows_per_block)
    there = client.persist(lazy)
    client.gather(client.map(len, client.futures_of(there)))
    return there


# All-reduce ----------------------------------------------------------------------------------------------------------


class Allreduces(Program):
    """Time one all-reduce after the other."""

    def __init__(self, n, repetitions, topology):
        self.n, self.repetitions, self.topology = n, repetitions, topology

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        x, seconds = np.ones(self.n), []
        for _ in range(self.repetitions):
            start = time.perf_counter()
            comm.allreduce(x, topology=self.topology)
            seconds.append(time.perf_counter() - start)
        chosen = self.topology or choose_topology(comm.size, x.nbytes, comm.latency, comm.bandwidth)
        return seconds, chosen, comm.latency, comm.bandwidth

    def done(self, state):
        return state is not None


def _allreduces(sheet, X, full):
    for n, repetitions in ((50, 400), (10_000, 200), (1_000_000, 40)):
        for topology in (None, "tree", "doubling", "ring"):
            with config_context(runtime="spmd"):
                found = [run(Allreduces(n, repetitions, topology), X) for _ in range(5 if full else 2)]
            seconds = [statistics.median(some) for some, *_ in found]
            _, chosen, latency, bandwidth = found[-1]
            who = f"daskdml, {chosen}" + (" (chosen)" if topology is None else "")
            note = f"measured alpha {latency * 1e3:.2f} ms, beta {bandwidth / 1e6:.0f} MB/s" if topology is None else ""
            work = f"all-reduce of {n:,} doubles, 2 ranks"
            if n == 1_000_000:
                must = (">=", LEAST_MB) if topology is None else None
                sheet.add(work, who, "MB/s", [n * 8 / s / 1e6 for s in seconds], must=must, note=note)
            else:
                must = ("<=", MOST_MS) if topology is None and n == 50 else None
                sheet.add(work, who, "p50 ms", [s * 1e3 for s in seconds], must=must, note=note)


# A superstep of a GLM ------------------------------------------------------------------------------------------------


class Supersteps(Program):
    """Time the sums over blocks of ``fn(block)``, and the same without the exchange."""

    def __init__(self, fn, steps):
        self.fn, self.steps = fn, steps

    def init(self, meta):
        return [], []

    def step(self, state, local, comm):
        alone, whole = state
        comm.barrier()
        start = time.perf_counter()
        values = {block.index: self.fn(block) for block in local}
        middle = time.perf_counter()
        comm.barrier()
        again = time.perf_counter()
        values = {block.index: self.fn(block) for block in local}
        comm.allreduce_values(values, _add)
        return alone + [middle - start], whole + [time.perf_counter() - again]

    def done(self, state):
        return len(state[0]) == self.steps


def _add(left, right):
    return left + right


def _supersteps(sheet, X, y, full):
    import dask
    from dask_glm.families import Logistic

    from daskdml.data import Partitioned
    from daskdml.runtime import open

    work = f"GLM superstep, {BLOCKS} blocks of {X.chunks[0][0]:,} x {FEATURES}, 2 workers"
    fn, theta = _objective(X).at(np.zeros(FEATURES + 1), 1), np.zeros(FEATURES)
    ranks, tasks, peer, computes = [], [], [], []
    for _ in range(5 if full else 2):
        with config_context(runtime="spmd"):
            alone, whole = run(Supersteps(fn, 60), X, y)
        computes.append(statistics.median(alone[10:]) * 1e3)
        ranks.append(statistics.median(whole[10:]) * 1e3 - computes[-1])
        with config_context(runtime="tasks"), open(Partitioned.from_any(X, y)) as place:
            tasks.append(_median(lambda: place.map_reduce(fn), 20) - computes[-1])
        loss = functools.partial(Logistic.pointwise_loss, theta, X, y)
        gradient = functools.partial(Logistic.pointwise_gradient, theta, X, y)
        peer.append(_median(lambda: dask.compute(loss(), gradient()), 3) - computes[-1])
    sheet.add(work, "daskdml, compute alone", "ms", computes)
    sheet.add(work, "daskdml, ranks", "ms above compute", ranks, must=("<=", MOST_OVERHEAD_MS))
    sheet.add(work, "daskdml, tasks", "ms above compute", tasks)
    sheet.add(work, "dask-ml (dask-glm)", "ms above compute", peer)
    times = [a / b for a, b in zip(tasks, ranks)], [a / b for a, b in zip(peer, ranks)]
    sheet.add(work, "tasks against ranks", "times less overhead", times[0], must=(">=", LEAST_TASKS))
    sheet.add(work, "dask-ml against ranks", "times less overhead", times[1], must=(">=", LEAST_DASK_ML))


def _objective(X):
    from daskdml.losses import Logistic
    from daskdml.objectives import LinearObjective
    from daskdml.penalties import ElasticNet

    return LinearObjective(Logistic(), ElasticNet(l1=0.0, l2=1e-6), X.shape[1], X.shape[0], fit_intercept=True)


def _median(work, repetitions):
    return statistics.median(timed(work)[0] for _ in range(repetitions)) * 1e3


# L-BFGS --------------------------------------------------------------------------------------------------------------


def minimise(place, objective):
    """Take 200 steps of SciPy's L-BFGS: a body for `Run.iterate`."""
    from scipy.optimize import minimize

    from daskdml.objectives import Evaluator

    evaluator = Evaluator(objective, place)

    def value_gradient(theta):
        found = evaluator.value_gradient(theta)
        return found.value, found.gradient

    # Columns of very different sizes, so that it is not done before.
    options = {"maxiter": STEPS, "ftol": 0.0, "gtol": 0.0}
    found = minimize(value_gradient, np.zeros(objective.n_params), jac=True, method="L-BFGS-B", options=options)
    return found.x, found.nit, found.nfev


def _lbfgs(sheet, X, y, full):
    from daskdml.data import Partitioned
    from daskdml.runtime import open

    X = X * np.geomspace(1, 300, FEATURES)
    objective, seconds, found = _objective(X), {"spmd": [], "tasks": []}, {}
    for _ in range(3 if full else 1):
        for runtime, some in seconds.items():
            with config_context(runtime=runtime), open(Partitioned.from_any(X, y)) as place:
                body = functools.partial(minimise, objective=objective)
                took, found[runtime] = timed(lambda: place.iterate(body, STEPS))
                some.append(took)
    work = f"L-BFGS, {found['spmd'][1]} steps, {found['spmd'][2]} passes, {X.shape[0]:,} x {FEATURES}, 2 workers"
    same = float(np.abs(found["spmd"][0] - found["tasks"][0]).max())
    sheet.add(work, "daskdml, ranks", "seconds", seconds["spmd"], quality=("difference", same))
    sheet.add(work, "daskdml, tasks", "seconds", seconds["tasks"])
    ratios = [a / b for a, b in zip(seconds["tasks"], seconds["spmd"])]
    sheet.add(work, "tasks against ranks", "times faster", ratios, must=(">=", LEAST_LBFGS))


# Virtual workers -----------------------------------------------------------------------------------------------------


def _ring(sheet):
    from daskdml.testing import SimulatedCluster

    n, size = 10_000_000, 8
    cluster = SimulatedCluster(size, rows_per_block=256)
    took, _ = timed(lambda: cluster.run(Allreduces(n, 1, "ring"), np.zeros((size * 256, 1))))
    shares = [sent / (n * 8) for sent in cluster.report.bytes_sent.values()]
    limit = 2 * (size - 1) / size
    sheet.add(
        f"all-reduce of {n:,} doubles, {size} simulated ranks", "daskdml, ring", "vectors sent per rank", shares,
        must=("==", limit), note=f"2 (P - 1) / P; {took:.1f} s of wall time",
    )  # fmt: skip


def _virtual(sheet, rows):
    from daskdml.linear_model import LogisticRegression
    from daskdml.testing import SimulatedCluster

    n, p = 200 * 256, 20
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    y = X[:, 0] + rng.logistic(size=n) > 0
    models, seconds = [], []
    for size in (1, 200):
        cluster = SimulatedCluster(size, rows_per_block=256)
        took, model = timed(lambda: cluster.fit(LogisticRegression(), X, y))
        models.append(model)
        seconds.append(took)
    difference = float(np.abs(models[0].coef_ - models[1].coef_).max())
    work = f"logistic {n:,} x {p}, 200 simulated workers"
    note = f"{cluster.report.seconds:.2f} virtual seconds"
    sheet.add(work, "daskdml", "seconds", seconds[1], must=("<=", 10.0), note=note)
    sheet.add(work, "daskdml", "difference from one worker", difference, must=("==", 0.0))
