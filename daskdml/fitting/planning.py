"""What a fit would cost, before it: what an estimator says that it will do, timed on a few blocks of the rows."""

import contextlib
import functools
from typing import NamedTuple

from daskdml import runtime
from daskdml.data import target_summary
from daskdml.fitting.fit import aligned
from daskdml.report import Plan, PlanRow
from daskdml.runtime import costs
from daskdml.runtime.blas import one_blas_thread

WORKERS = (1, 2, 4, 8)


class Planned:
    """Mixin: the method ``plan`` of an estimator that has ``_plan``."""

    def plan(self, X, y=None, sample_weight=None):
        """Say what `fit` would cost in this process and on clusters of several sizes, without fitting.

        Parameters
        ----------
        X, y, sample_weight : as `fit` takes them

        Returns
        -------
        Plan
            A table of rounds, passes, bytes, memory and seconds, and a sentence of advice; see `PlanRow` for what the
            columns are.

        Raises
        ------
        ValueError
            As `fit` does for bad parameters and shapes; for bad values of X, and of lazy y, where the rows that are
            looked at have them.

        Notes
        -----
        Reads at most three lazy chunks, no further one after half a second, and times passes over a dozen blocks, or
        trees that are grown on them. Building kernels is left out, and so are the second pass that least squares make
        where columns are nearly dependent, and the trees that early stopping saves.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from daskdml.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> LogisticRegression().plan(X, y).advice
        'One process is faster: 6.0 kB of data.'
        """
        return self._plan(X, y, sample_weight)


class Expected(NamedTuple):
    """What one fit will do.

    Attributes
    ----------
    n_rounds, n_passes : float
        See `daskdml.runtime.costs.Load`.
    fn : callable of one Block
        What most passes compute.
    work_per_row : int
        Multiplications of one row in it.
    pass_seconds : float
        Of one pass over all rows, on one thread.
    partial_bytes : int
    pilot_rows : int
        Rows that come to this process.
    pilot_passes : float
        Passes over them / number of rows.
    pilot_seconds : float
        Of these passes, on one thread.
    solve_seconds : float
        Of what no thread can help with.
    kept_row_bytes : float or None
        Of what is made of a row and kept instead of it.
    least_row_bytes : float or None
        Of what stays in memory of that where the rest is files; None where it cannot be.
    n_reductions : float
        See `daskdml.runtime.costs.Load`.
    each_bytes, thread_bytes, met_bytes : int
        See `daskdml.runtime.costs.Load`.
    n_tasks : int or None
        What no more threads than that can be at; None for row blocks.
    runtimes : tuple of str
        Those that the fit may run on.
    """

    n_rounds: float
    n_passes: float
    fn: object
    work_per_row: int
    pass_seconds: float
    partial_bytes: int
    pilot_rows: int = 0
    pilot_passes: float = 0.0
    pilot_seconds: float = 0.0
    solve_seconds: float = 0.0
    kept_row_bytes: float | None = None
    least_row_bytes: float | None = None
    n_reductions: float = 0.0
    each_bytes: int = 0
    thread_bytes: int = 0
    met_bytes: int = 0
    n_tasks: int | None = None
    runtimes: tuple = costs.RUNTIMES


class Planning:
    """One plan under way: the rows looked at, and the checks that a fit makes of them.

    Attributes
    ----------
    sample : daskdml.runtime Sample
    features : namespace
        With ``n_features_in_`` and, where there are names, ``feature_names_in_``.
    """

    def __init__(self, data, sample, features):
        self.data, self.sample, self.features = data, sample, features

    def targets(self, kind):
        """Check y and weights, all of them where they are in memory; return their `TargetSummary`."""
        summary = (self.sample.everything or self.sample.run).map_reduce(
            functools.partial(target_summary, kind=kind), reads_x=False
        )
        # A few rows without weight say nothing about the others.
        return summary if self.sample.everything is None and summary.fault is None else summary.check()

    def finish(self, estimator, found):
        """Return the `Plan` of what a fit is expected to do.

        Parameters
        ----------
        estimator : estimator
        found : Expected
        """
        sample = self.sample
        share = sample.thread_share(found.fn, found.work_per_row)
        row_bytes = sample.n_bytes / sample.n_samples
        pilot_blocks = max(1, round(found.pilot_rows * sample.n_blocks / sample.n_samples))
        pilot_slots = costs.slots_of(1, sample.n_threads, pilot_blocks, share)
        load = costs.Load(
            n_rounds=found.n_rounds,
            n_passes=found.n_passes,
            data_bytes=sample.n_bytes,
            partial_bytes=found.partial_bytes,
            pass_seconds=found.pass_seconds,
            n_blocks=found.n_tasks or sample.n_blocks,
            solve_seconds=found.solve_seconds + found.pilot_seconds / pilot_slots,
            pilot_passes=found.pilot_passes,
            pilot_bytes=round(found.pilot_rows * row_bytes),
            read_seconds=sample.read_seconds,
            held_by=sample.held_by,
            kept_bytes=_times(found.kept_row_bytes, sample.n_samples),
            least_bytes=_times(found.least_row_bytes, sample.n_samples),
            n_reductions=found.n_reductions,
            each_bytes=found.each_bytes,
            thread_bytes=found.thread_bytes,
            met_bytes=found.met_bytes,
        )
        slowness = sample.worker_slowness(found.fn, found.work_per_row)
        on_cluster = load._replace(pass_seconds=load.pass_seconds * slowness)
        rows = [
            costs.predict(
                load if name == "threads" else on_cluster, name, n_workers, n_threads, memory_limit=limit,
                thread_share=share,
            )
            for name, n_workers, n_threads, limit in sample.places(WORKERS) if name in found.runtimes
        ]  # fmt: skip
        return Plan(
            type(estimator).__name__, sample.n_samples, sample.n_features, sample.n_bytes,
            tuple(PlanRow(**row._asdict()) for row in rows),
        )  # fmt: skip


def _times(row_bytes, n_rows):
    return None if row_bytes is None else round(row_bytes * n_rows)


@contextlib.contextmanager
def planning(estimator, X, y, sample_weight, matrix=True):
    """Open a plan: check names and shapes as `fitting` does, align the inputs, take a few blocks of them."""
    data, features = aligned(estimator, X, y, sample_weight, matrix)
    with one_blas_thread():
        sample = runtime.Sample(data)
        yield Planning(data, sample, features)
