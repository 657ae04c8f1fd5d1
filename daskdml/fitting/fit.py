"""One fit under way: opens it at the door, keeps its clock and its report, and carries it to where the rows are."""

import contextlib
import functools
import time
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.exceptions import DataConversionWarning

from daskdml import runtime
from daskdml.data import Partitioned, as_vector, check_features, target_summary
from daskdml.kernels.compile import compile_seconds
from daskdml.report import FitReport, Progress, Record
from daskdml.runtime import costs
from daskdml.runtime.checkpoint import digest_of

# Parameters that change nothing of the answer, and the generator, whose seed stands for it.
_IDLE_PARAMS = ("verbose", "n_jobs", "random_state")


class Fit:
    """One fit under way: its run, its report, its clock.

    Attributes
    ----------
    run : daskdml.runtime Run
    report : FitReport
    features : namespace with ``n_features_in_`` and perhaps ``feature_names_in_``
    warnings : list of (str, category)
        To be issued where the user called.
    what : str
        The estimator and its parameters, exactly: checkpoints must agree in it.
    """

    def __init__(self, run, report, progress, features, *, what="", elapsed=0.0):
        self.run, self.report, self.progress, self.features = run, report, progress, features
        self.warnings = []
        self.what = what
        self._started, self._compiled = time.perf_counter() - elapsed, compile_seconds()

    def carry_out(self, body, n_passes, stacklevel, facts=(), server=None):
        """Return ``body(fit)``, a function that makes many passes: with this fit, or on ranks with theirs.

        Parameters
        ----------
        body : callable of a Fit
            Picklable, and a function of what its passes return.
        n_passes : float
            That it is expected to make: where few, it is not worth the start of ranks.
        stacklevel : int
            Of the warnings that it leaves behind, as seen from the caller.
        facts : object
            What else body computes with, beside rows and parameters: checkpoints must agree in it.
        server : daskdml.runtime.spmd.apart.Server, optional
            See `daskdml.runtime.run.Run.iterate`.
        """
        elapsed = time.perf_counter() - self._started
        what = self.what + digest_of(facts)
        found, report, texts = self.run.iterate(_Body(body, self, elapsed), n_passes, what, server)
        if report is not self.report:
            vars(self.report).update({**vars(report), "bytes_moved": self.run.bytes_moved})
            for record in report.records:
                self.progress.update(record)
            self.progress.finish(report)
        for text, category in texts:
            warnings.warn(text, category, stacklevel=stacklevel + 1)
        return found

    def record(self, stage, step, state, proposal):
        """Write down one point visited."""
        timings, value = self.run.timings, float(state.evaluation.value)
        compiled = self._compile_seconds()
        record = Record(
            step=step, stage=stage, passes=self.run.passes, seconds=time.perf_counter() - self._started - compiled,
            value=value, gap=proposal.gap / abs(value) if value else proposal.gap, violation=proposal.violation,
            seconds_compile=compiled, seconds_compute=timings["compute"], seconds_reduce=timings["reduce"],
            seconds_wait=timings["wait"], bytes_moved=self.run.bytes_moved, memory=_resident_bytes(),
        )  # fmt: skip
        self.report.append(record)
        self.progress.update(record)

    def foresee(self, n_passes, seconds_per_row, partial_bytes, step_seconds=0.0):
        """Write down when the fit will have ended, if that many passes over all rows are still to come.

        Parameters
        ----------
        n_passes : int
        seconds_per_row : float
            Of one thread in such a pass, as this fit has measured it on its sample.
        partial_bytes : int
            Of what a pass sums up.
        step_seconds : float, default 0.0
            Beside each pass, in this process.
        """
        run = self.run
        if run.mode == "stream" or run.by_columns:
            return  # such passes read, or send, what the sample did not
        load = costs.Load(n_passes, n_passes, 0, partial_bytes, seconds_per_row * run.n_samples, run.n_blocks)
        slots = costs.slots_of(run.n_workers, run.threads_per_worker, run.n_blocks)
        left = costs.passes_seconds(load, run.runtime, run.n_workers, slots) + n_passes * step_seconds
        self.report.predicted_seconds = time.perf_counter() - self._started - self._compile_seconds() + left

    def close(self, *, converged, stopped_because, n_iter):
        """Write down how it ended."""
        compiled = self._compile_seconds()
        self.report.close(
            converged=converged, stopped_because=stopped_because, n_iter=n_iter, passes=self.run.passes,
            seconds=time.perf_counter() - self._started - compiled, compile_seconds=compiled,
        )  # fmt: skip
        self.progress.finish(self.report)

    def _compile_seconds(self):
        return max(self.run.timings["compile"], compile_seconds() - self._compiled)

    def targets(self, kind, beside=None):
        """Check y and weights in one pass over them, before any pass over X; return their `TargetSummary`.

        Where ``beside`` is given, a function of a block that looks at X too, return also the sum of what it returns.
        """
        summarise = functools.partial(target_summary, kind=kind)
        if beside is None:
            return self.run.map_reduce(summarise, reads_x=False).check()
        summary, found = self.run.map_reduce(functools.partial(_both_of, summarise, beside), _add_both)
        return summary.check(), found

    def refuse_nonfinite(self):
        """Raise for the first NaN or infinity in X; if there is none, the arithmetic overflowed."""
        self.run.locate_nonfinite()
        raise ValueError(
            "The objective is not finite although X is: its values are too large for float64 arithmetic. "
            "Divide the largest columns by their size, for example with daskdml.preprocessing.StandardScaler."
        )


class _Body:
    """A function of a run, which does with it what another does with a `Fit`; on a rank the fit is made anew."""

    def __init__(self, body, fit, elapsed):
        self.body, self.fit, self.elapsed = body, fit, elapsed
        self.estimator, self.features = fit.report.estimator, fit.features

    def __getstate__(self):
        return {**vars(self), "fit": None}

    def __call__(self, run):
        fit = self.fit
        if fit is None or run is not fit.run:
            report = FitReport(run.where, estimator=self.estimator)
            fit = Fit(run, report, Progress(), self.features, elapsed=self.elapsed)
        return self.body(fit), fit.report, fit.warnings


def _both_of(first, second, block):
    return first(block), second(block)


def _add_both(a, b):
    return a[0] + b[0], a[1] + b[1]


@contextlib.contextmanager
def fitting(estimator, X, y, sample_weight, *, verbose=0, gap=float("nan"), passes="many", matrix=True):
    """Open a fit: check names and shapes, align the inputs, choose where to run and say so.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight : as given to its ``fit``
    verbose : int, default 0
    gap : float, default nan
        Relative gap at which the fit will stop: it tells the progress bar how far there is to go.
    passes : {"many", "few"}, default "many"
        See `daskdml.runtime.open`.
    matrix : bool or callable, default True
        See `daskdml.data.Partitioned.from_any`.

    Yields
    ------
    Fit
        Nothing of it is on the estimator yet: a fit that fails leaves the estimator as it was.
    """
    data, features = aligned(estimator, X, y, sample_weight, matrix)
    with Progress(int(verbose)) as progress, runtime.open(data, passes=passes) as run:
        report = FitReport(run.where, estimator=type(estimator).__name__)
        progress.start(run.where, gap)
        params = {n: _exactly(v) for n, v in estimator.get_params(deep=False).items() if n not in _IDLE_PARAMS}
        yield Fit(run, report, progress, features, what=f"{report.estimator}({params})")


def _exactly(param):
    """Return a parameter as text that no other value of it has: arrays print with few digits, and not whole."""
    return digest_of(np.asarray(param)) if hasattr(param, "__array__") else repr(param)


def aligned(estimator, X, y, sample_weight, matrix=True):
    """Check names and shapes; return the inputs as `Partitioned`, and the namespace of features of `Fit`."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None; pass one target value for each row of X."
        )
    features = SimpleNamespace()
    data = Partitioned.from_any(X, y, sample_weight, matrix=matrix)
    check_features(features, X, reset=True)
    return data, features


def time_rows(run, walk, repetitions=1):
    """Return what ``walk()`` does, and the seconds that one thread took in it for each row of the run that it read.

    The shortest of several repetitions, for walks of a tenth of a millisecond: on a worker other threads hold Python's
    lock for five at a time.
    """
    taken = []
    for _ in range(repetitions):
        seconds, n_rows = run.busy_seconds, run.rows_read
        found = walk()
        taken.append((run.busy_seconds - seconds) * run.n_threads / (run.rows_read - n_rows))
    return found, min(taken)


def _resident_bytes():
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096
    except OSError:
        return 0


def one_dimensional(y):
    """Flatten a column vector with scikit-learn's warning; leave all else as it is."""
    vector = as_vector(y)
    if vector is not y:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples, ), "
            "for example using ravel().",
            DataConversionWarning, stacklevel=3,
        )  # fmt: skip
    return vector
