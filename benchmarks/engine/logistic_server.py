"""Whether logistic regression gains by ranks that come near the optimum at their own pace, where some are slow."""

import numpy as np

from benchmarks.report import Sheet
from benchmarks.timing import ratios
from daskdml.strategies import ASP, BSP, SSP, ParameterServer

FEATURES, ROWS_PER_RANK, SEEDS = 30, 7_500, 8
PASS_SECONDS = 1.0  # of a rank that is not slow; messages take up to a thousandth of that
HICCUPS = 0.05, 10.0
L1 = {"l1_ratio": 1.0, "C": 0.01}
PROBLEMS = {"two classes, L2": (2, {}), "two classes, L1": (2, L1), "five classes, L2": (5, {})}
WAYS = {
    "in step": None,
    "BSP": ParameterServer(consistency=BSP()),
    "SSP(3)": ParameterServer(consistency=SSP(3)),
    "ASP": ParameterServer(consistency=ASP()),
}
SAME = 2e-8  # of the objective: what both are certified to, and a bit


def measure(rows, full):
    """Virtual seconds and passes of fits on 8 and 64 simulated workers, of whose passes 5 % take ten times as long.

    Parameters
    ----------
    rows : int, optional
        For each rank, instead of 7,500.
    full : bool, default False
        Eight seeds instead of two.

    Returns
    -------
    Sheet
    """
    sheet, each = Sheet("logistic_server", rows is None and full), rows or ROWS_PER_RANK
    for n_ranks in (8, 64):
        for name, (n_classes, params) in PROBLEMS.items():
            _compare(sheet, n_ranks, each, name, n_classes, params, range(SEEDS if full else 2))
    return sheet


def _compare(sheet, n_ranks, each, name, n_classes, params, seeds):
    from daskdml.linear_model import LogisticRegression

    rng, n = np.random.default_rng(0), n_ranks * each
    X = rng.normal(size=(n, FEATURES)).astype(np.float32)
    raw = 1.5 * X @ rng.normal(size=(FEATURES, n_classes)) / FEATURES**0.5
    y = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    best = LogisticRegression(**params, tol=1e-7, max_iter=500).fit(X, y).fit_report_.value
    work, in_step = f"{n:,} x {FEATURES}, {name}, {n_ranks} simulated workers, 5 % of passes 10x slow", None
    for who, strategy in WAYS.items():
        found = [_fit(LogisticRegression(**params, strategy=strategy), X, y, n_ranks, each, seed) for seed in seeds]
        seconds, passes, values = (list(part) for part in zip(*found))
        in_step = in_step or seconds
        pairs = ratios(seconds, in_step)
        sheet.add(work, who, "virtual seconds", seconds)
        sheet.add(work, who, "times the seconds in step, of all seeds", [sum(seconds) / sum(in_step)],
                  note=f"by seeds {min(pairs):.2f} to {max(pairs):.2f}")  # fmt: skip
        sheet.add(work, who, "passes over all rows", passes)
        worst = max(abs(value / best - 1) for value in values)
        sheet.add(work, who, "objective beyond the optimum", [worst], must=("<=", SAME))


def _fit(model, X, y, n_ranks, each, seed):
    from daskdml.testing import SimulatedCluster

    cluster = SimulatedCluster(
        n_ranks, seconds_per_row=PASS_SECONDS / each, hiccups=HICCUPS, seed=seed, rows_per_block=each // 4
    )
    report = cluster.fit(model, X, y).fit_report_
    return cluster.report.seconds, report.passes, report.value
