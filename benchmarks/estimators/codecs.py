"""Accuracy, loss and bytes of networks whose ranks send less: codecs and local steps, on eight simulated ranks.

Simulated: programs, collectives and bytes are those of a real cluster; clock and network are made up, and not measured.
"""

import functools
import math
import time
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.estimators.codec_bytes import ring_bytes
from benchmarks.estimators.networks import HIDDEN, ROWS, make_rows, score
from benchmarks.report import Sheet
from benchmarks.timing import threads
from daskdml.compress import FP16, QSGD, Identity, OneBit, PowerSGD, RandomK, TopK
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.training import replica

RANKS = 8
SEEDS = 3
PERTURBATION = 1e-5
TEST_SHARE = 0.2  # of the digits
MEAN_POINTS = "points beyond dense's, mean of the seeds"
BELOW = 0.5, 5.0  # points that dense ends below the ceiling of the generator: then there is something to lose
# What others are held against has their batches, of which every rank has a part; a fit without a strategy has others,
# and so says how much the draw of batches does.
DENSE, OTHER, CONTROL = "dense", "dense, other batches", f"dense, start times 1 + {PERTURBATION:g}"



class OnEveryRank(AllReduce):
    """Sums of batches of which every rank has a part, as of codecs that leave something out."""

    spreads = True


STRATEGIES = {
    DENSE: OnEveryRank(compression=Identity()),
    CONTROL: OnEveryRank(compression=Identity()),
    OTHER: None,
    "FP16": OnEveryRank(compression=FP16()),
    "QSGD(8)": AllReduce(compression=QSGD(8)),
    "OneBit": AllReduce(compression=OneBit()),
    "OneBit, 50 exact updates": AllReduce(compression=OneBit(), exact_updates=50),
    "TopK(0.01)": AllReduce(compression=TopK(0.01)),
    "TopK(0.01), no feedback": AllReduce(compression=TopK(0.01), error_feedback=False),
    "PowerSGD(2)": AllReduce(compression=PowerSGD(2)),
    "rows, significance 1": AllReduce(significance=1.0),
    "rows, significance 3": AllReduce(significance=3.0),
    "max. 1,000 bytes a round": AllReduce(max_bytes_per_round=1000),
    "RandomK(0.01)": AllReduce(compression=RandomK(0.01)),
    "LocalSGD(8)": LocalSGD(8),
    "LocalSGD(32)": LocalSGD(32),
    "LocalSGD(8), gossip": LocalSGD(8, mixing="gossip"),
    "LocalSGD(8), 2 groups": LocalSGD(8, groups=2),
}
DIGITS_LOGISTIC, DIGITS_HIDDEN, GENERATED = "digits, logistic", "digits, 64-64(relu)-10", "784-128(relu)-10"
_EVERY, _BOTH = (DIGITS_LOGISTIC, DIGITS_HIDDEN, GENERATED), ("sgd", "adam")
# The mean of the seeds in points beyond dense's: the limit, of which problems, of which solvers.
MUST = {
    "FP16": (">=", -0.3, _EVERY, _BOTH),
    "QSGD(8)": (">=", -0.3, _EVERY, _BOTH),
    "OneBit": (">=", -0.3, _EVERY, _BOTH),
    "OneBit, 50 exact updates": (">=", -0.3, _EVERY, _BOTH),
    "TopK(0.01)": (">=", -0.5, _EVERY, ("sgd",)),
    "TopK(0.01), no feedback": ("<=", -3.0, (DIGITS_LOGISTIC,), ("sgd",)),
    "PowerSGD(2)": (">=", -0.3, (GENERATED,), ("sgd",)),
    "LocalSGD(8)": (">=", -0.3, _EVERY, ("sgd",)),
}


class Problem(NamedTuple):
    """What is learnt.

    Attributes
    ----------
    name : str
    hidden : tuple of int
    batch, n_epochs : int
    rates : dict of solver to float
    rows : callable of a seed
        Returns X, y, X_test, y_test and the ceiling of the accuracy, or None.
    """

    name: str
    hidden: tuple
    batch: int
    n_epochs: int
    rates: dict
    rows: Any


def digits(seed):
    """Return scikit-learn's digits, cut into rows to train and to test on by the seed; nobody knows their ceiling."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        (X / 16).astype(np.float32), y, test_size=TEST_SHARE, random_state=seed, stratify=y
    )
    return X, y, X_test, y_test, None


def problems(rows=None, full=False):
    """Return the problems: digits by a linear and by a hidden layer, and in full the generator of `networks`.

    Digits for forty epochs, and beside it for half of them: what waits to be sent has not been made up for by then.
    """
    n_epochs = 40 if full else 2
    of_digits = [
        Problem(DIGITS_LOGISTIC, (), 64, n_epochs, {"sgd": 0.1, "adam": 0.02}, digits),
        Problem(DIGITS_HIDDEN, (64,), 64, n_epochs, {"sgd": 0.1, "adam": 0.005}, digits),
    ]
    if not full:
        return of_digits
    half = [
        one._replace(name=f"{one.name}, half of the epochs", n_epochs=n_epochs // 2, rates={"sgd": one.rates["sgd"]})
        for one in of_digits
    ]
    n = rows or ROWS
    generated = Problem(f"{n:,} x 784, {GENERATED}", (HIDDEN,), 256, 3, {"sgd": 0.02, "adam": 0.001},
                        functools.partial(make_rows, n))  # fmt: skip
    return [*of_digits, *half, generated]


def run(rows=None, full=False, only=(), seeds=SEEDS):
    """Accuracy and log loss beside dense of the same seed, and bytes at the transport of the rank that sends most.

    A difference is to be read beside two controls: "dense, start times 1 + 1e-05" does the same sums from a start that
    is larger by that, and tells whether the rate is stable; "dense, other batches" is a fit without a strategy, of
    which a batch of up to 256 rows is one micro-batch, and tells what the draw of batches does. Elsewhere each rank has
    a part of every batch, and equal seeds have equal batches and first coefficients.

    Parameters
    ----------
    rows : int, optional
        Of the generator.
    full : bool, default False
        Forty epochs of digits instead of two, three seeds instead of one, and the generator.
    only : sequence of str
        What is measured has one of these in "problem, solver, strategy"; and dense, which it is held against.
    seeds : int, default 3
        In full.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("codecs", at_size=rows is None and full, picture=draw)
    for problem in problems(rows, full):
        for solver in problem.rates:
            labels = {name: f"{problem.name}, {solver}, {name}" for name in STRATEGIES}
            names = [name for name, label in labels.items() if not only or any(part in label for part in only)]
            if names:
                names = [DENSE, *(name for name in names if name != DENSE)]
                _measure(sheet, problem, solver, names, range(seeds if full else 1))
    return sheet


class Found(NamedTuple):
    """What a fit came to: accuracy of test rows, log loss of those trained on, bytes, and seconds that it took here."""

    accuracy: float
    loss: float
    bytes_sent: int
    seconds: float


def _measure(sheet, problem, solver, names, seeds):
    found, ceilings = {name: [] for name in names}, []
    for seed in seeds:
        X, y, X_test, y_test, ceiling = problem.rows(seed=seed)
        ceilings.append(ceiling)
        for name in names:
            found[name].append(_try(problem, solver, name, seed, X, y, X_test, y_test))
    n_steps = problem.n_epochs * -(-len(X) // problem.batch)
    work = f"{problem.name}, {solver}, {problem.n_epochs} epochs of batches of {problem.batch}, {RANKS} simulated ranks"
    if None not in ceilings:
        below = [100 * (ceiling - dense.accuracy) for ceiling, dense in zip(ceilings, found[DENSE])]
        note = f"of the Bayes rule, {np.mean(ceilings):.4f}: something is left to lose"
        for must in ((">=", BELOW[0]), ("<=", BELOW[1])):
            sheet.add(work, DENSE, "points below the ceiling", below, must=must, note=note)
    ring = ring_bytes(RANKS, (_network(problem.hidden, X).n_params,))
    note = "2 (P - 1) / P of a gradient; dense is added up by the topology that is chosen, which may send more"
    sheet.add(work, "exact ring", "bytes sent in a step by the rank that sends most", ring, note=note)
    for name, fits in found.items():
        accuracy, loss, sent, seconds = zip(*fits)
        gain = _payload_gain(problem, solver, name, X, y)
        note = f"payload {gain:.3g} times smaller than gradients; simulated in {np.mean(seconds):.0f} s"
        sheet.add(work, name, "accuracy of test rows", list(accuracy), quality=("loss", float(np.mean(loss))))
        sheet.add(work, name, "log loss of the rows trained on", list(loss))
        if name != DENSE:
            apart = [100 * (one - dense.accuracy) for one, dense in zip(accuracy, found[DENSE])]
            sheet.add(work, name, "points beyond dense's", apart)
            sheet.add(work, name, MEAN_POINTS, float(np.mean(apart)), must=_must(problem, solver, name),
                      note=_error(apart))  # fmt: skip
            apart = [one - dense.loss for one, dense in zip(loss, found[DENSE])]
            sheet.add(work, name, "log loss beyond dense's", apart, note=f"mean {np.mean(apart):.2g}, {_error(apart)}")
        sheet.add(work, name, "bytes sent in a step by the rank that sends most", [n / n_steps for n in sent],
                  quality=("times fewer than the ring", ring * n_steps / max(sent)), note=note)  # fmt: skip


def _must(problem, solver, name):
    """Return what the mean of the seeds must show, or None."""
    if name not in MUST:
        return None
    comparison, limit, names, solvers = MUST[name]
    is_asked = solver in solvers and any(problem.name.endswith(one) for one in names)
    return (comparison, limit) if is_asked else None


def _error(apart):
    """Return the standard error of a mean in words, of several."""
    return f"standard error {np.std(apart, ddof=1) / np.sqrt(len(apart)):.1g}" if len(apart) > 1 else ""


def _try(problem, solver, name, seed, X, y, X_test, y_test):
    started = time.perf_counter()
    start = perturbed(problem.hidden, X, seed, PERTURBATION) if name == CONTROL else None
    model, sent = fit(problem, solver, STRATEGIES[name], seed, X, y, start=start)
    accuracy, _ = score(model.predict_proba(X_test), y_test)
    _, loss = score(model.predict_proba(X), y)
    found = Found(accuracy, loss, sent, time.perf_counter() - started)
    print(f"  {problem.name}, {solver}, {name}, seed {seed}: {found}", flush=True)
    return found


def fit(problem, solver, strategy, seed, X, y, *, start=None):
    """Fit on simulated ranks.

    Parameters
    ----------
    problem : Problem
    solver : {"sgd", "adam"}
    strategy : object of daskdml.strategies, or None
    seed : int
    X, y : ndarrays
    start : (coefs, intercepts), optional
        Instead of the first ones that the seed draws.

    Returns
    -------
    model : MLPClassifier
    n_bytes : int
        That the rank that sends most sent, without the rows that find their places before the first batch.
    """
    from daskdml.neural_network import MLPClassifier
    from daskdml.testing import SimulatedCluster

    model = MLPClassifier(
        problem.hidden, solver=solver, learning_rate_init=problem.rates[solver], momentum=0.9, batch_size=problem.batch,
        max_iter=problem.n_epochs, random_state=seed, tol=0.0, n_iter_no_change=problem.n_epochs + 1,
        strategy=strategy, warm_start=start is not None,
    )  # fmt: skip
    if start is not None:
        _begin_with(model, *start, np.unique(y))
    cluster, before = SimulatedCluster(RANKS, rows_per_block=-(-len(X) // RANKS)), {}

    def meet(pieces, schedule, comm, *rest):
        found = _meet(pieces, schedule, comm, *rest)
        before[comm.rank] = comm.bytes_sent
        return found

    with threads(1), mock.patch.object(replica, "meet", meet):
        cluster.fit(model, X, y)
    sent = cluster.report.bytes_sent
    return model, max(sent[rank] - moved for rank, moved in before.items())


_meet = replica.meet


def perturbed(hidden, X, seed, relative):
    """Return the first coefficients and intercepts of a seed; those of the last layer are larger by a relative number.

    Of the last layer, because all of these matter: a weight of the first may belong to a pixel that is always 0.
    """
    network = _network(hidden, X)
    theta = network.start(seed)
    coefs, intercepts = network.coefs(theta), network.intercepts(theta)
    coefs[-1] *= np.float32(1 + relative)
    return coefs, intercepts


def _network(hidden, X, n_classes=10):
    from daskdml.losses import Multinomial
    from daskdml.objectives.network import Network

    return Network((X.shape[1], *hidden, n_classes), "relu", Multinomial(n_classes))


def _begin_with(model, coefs, intercepts, classes):
    """Let a model go on from coefficients that no fit has found."""
    model.coefs_, model.intercepts_, model.classes_ = coefs, intercepts, classes
    model.n_features_in_, model._state = coefs[0].shape[0], None


def _payload_gain(problem, solver, name, X, y):
    """Return how many times fewer bytes than a gradient of the coefficients a rank makes of one, at the start.

    Without what its way to other ranks multiplies them by. Of local steps: of a gradient for every step, and of
    parameters and moments for all of them; groups send a gradient for every step as well.
    """
    strategy = STRATEGIES[name]
    network = _network(problem.hidden, X)
    if isinstance(strategy, LocalSGD):
        n_arrays = {"sgd": 2, "adam": 3}[solver]
        return 1 / (n_arrays / strategy.steps + (strategy.groups is not None))
    codec = None if strategy is None else strategy.codec(network.n_decayed)
    if codec is None:
        return 1.0
    gradient, n = np.empty(network.n_params, np.float32), problem.batch
    network.gradient(network.start(0), X[:n], y[:n].astype(np.float64), None, gradient, network.workspace(n))
    layers = network.coefs(gradient) if codec.by_layer else [gradient[: network.n_decayed]]
    return 4 * network.n_decayed / sum(codec.encode(layer, codec.start(0))[0].nbytes for layer in layers)


def draw(rows):
    """Return a picture of what each strategy loses, points beyond dense's, against the bytes that it saves."""
    from matplotlib.figure import Figure

    works = list(dict.fromkeys(row.work for row in rows))
    n_columns = min(2, len(works))
    figure = Figure(figsize=(6 * n_columns, 3.6 * math.ceil(len(works) / n_columns)), layout="constrained")
    for axes, work in zip(figure.subplots(-(-len(works) // n_columns), n_columns, squeeze=False).flat, works):
        of_work = [row for row in rows if row.work == work]
        saved = {row.who: row.quality_value for row in of_work if row.what.startswith("bytes")}
        axes.axhline(0.0, color="#444", linewidth=0.8)
        for row in of_work:
            if row.what != "points beyond dense's":
                continue
            color = "#888" if row.who in (CONTROL, OTHER) else "#1f6fb2"
            reach = [[row.value - row.low], [row.high - row.value]]
            axes.errorbar(saved[row.who], row.value, reach, marker="o", color=color, capsize=2)
            axes.annotate(row.who, (saved[row.who], row.value), (4, 4), textcoords="offset points", fontsize=6,
                          rotation=30)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.margins(x=0.3, y=0.1)
        axes.set_title(work.removesuffix(f", {RANKS} simulated ranks"), fontsize=8)
        axes.set_xlabel("times fewer bytes than a ring (rank that sends most)", fontsize=8)
        axes.set_ylabel("points beyond dense's: median, range of seeds", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
