"""The record of a fit: one `Record` a step, gathered in a `FitReport`.

Conventions. Whatever adds up (`passes`, `seconds`, `seconds_*`, `bytes_moved`) counts from the start of the fit up to
and including the step. `passes` is rows read divided by rows of the data. `seconds` leaves compiling out: that is paid
once per machine, and stands apart as `seconds_compile`. Unknown numbers are NaN, unknown counts are 0.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from daskdml.report.units import format_number, format_seconds

_NAN = float("nan")


class Record(NamedTuple):
    """What one step of a fit did and where it stands afterwards.

    Attributes
    ----------
    step : int
        Number of the step within its stage, from 0.
    stage : str
        "pilot" for steps on the sample, "full" for steps on all rows, or another word of the solver's.
    passes, seconds : float
        Passes over the data, and seconds without compiling, since the start of the fit.
    value : float
        The objective.
    gap : float
        Bound on, or estimate of, (objective - optimum) / |optimum|.
    violation : float
        Distance of the optimality condition from holding: the largest entry of the gradient, or its distance from the
        penalty's subdifferential.
    step_length : float
        Factor on the solver's direction; 1 is a full step.
    seconds_compile, seconds_compute, seconds_reduce, seconds_wait : float
        Where the time went, in seconds since the start of the fit.
    bytes_moved : int
        Bytes sent between processes since the start of the fit.
    bytes_received : int
        By a rank, likewise; where a fit tells.
    memory : int
        Resident bytes of the process that drives the fit.
    score : float
        Of rows that are not trained on; more is better.
    rounds : int
        Collectives of a rank since the start of the fit.

    Examples
    --------
    >>> Record(step=2, stage="full", passes=3.2, seconds=0.9, gap=3e-9).gap
    3e-09
    """

    step: int = 0
    stage: str = "full"
    passes: float = _NAN
    seconds: float = _NAN
    value: float = _NAN
    gap: float = _NAN
    violation: float = _NAN
    step_length: float = _NAN
    seconds_compile: float = 0.0
    seconds_compute: float = 0.0
    seconds_reduce: float = 0.0
    seconds_wait: float = 0.0
    bytes_moved: int = 0
    bytes_received: int = 0
    memory: int = 0
    score: float = _NAN
    rounds: int = 0

    def __str__(self):
        """One line: stage and step, passes, how far from the optimum, seconds; of an epoch its loss and score."""
        words = _progress_words(self)
        if self.stage == "epoch":
            known = {"loss": self.value, "score": self.score}
            words += [f"{name} {value:.6g}" for name, value in known.items() if not math.isnan(value)]
        return " | ".join([f"{self.stage} step {self.step}", *words, format_seconds(self.seconds)])


@dataclass
class FitReport:
    """Where a fit ran, what each step did, and how it ended.

    Printing shows one line; a notebook shows a table and a convergence plot.

    Parameters
    ----------
    where : str
        Where it ran, in the runtime's words: "4 workers, 48 blocks, 3.1 GB, pinned".
    estimator : str, default=""
        Name of the estimator's class.
    records : list of Record

    Attributes
    ----------
    passes, seconds, value, gap, violation, compile_seconds, bytes_moved : float or int
        Those of the newest record; a fit may set them afterwards, where its last work came after its last step.
    predicted_seconds : float
        What the fit foresaw before its first pass over all rows, time spent until then included; NaN where it did not.
    n_iter : int
        Steps on all rows.
    converged : bool or None
        Whether the stopping rule was met; None while the fit runs.
    stopped_because : str
        The reason, in words.
    phases : dict of str to float
        Seconds by what was done in them, where a fit tells.
    counts : dict of str to float
        What was counted, where a fit tells: rounds between ranks, bytes that a rank sent in each ...
    histograms : dict of str to dict of int to int
        How often something was so many: of a parameter server's "staleness", how many parts of pushes had so many
        pushes of others between what a rank read and its own.
    order : dict or None
        Of a parameter server with ``record=True``, what each shard did in which order, for ``replay``; None where a
        worker died, for then nobody can do the same again.
    notes : list of str
        What a fit did that was not asked for, and why.

    Examples
    --------
    >>> report = FitReport("4 workers, 48 blocks, 3.1 GB, pinned", estimator="LogisticRegression")
    >>> report.append(Record(step=1, passes=3.2, seconds=0.9, gap=3e-9, seconds_compile=4.0))
    >>> report.close(converged=True)
    >>> report
    4 workers, 48 blocks, 3.1 GB, pinned | pass 3.2 | gap 3e-9 | 0.9 s (compile 4 s)
    """

    where: str
    estimator: str = ""
    records: list[Record] = field(default_factory=list)
    passes: float = _NAN
    seconds: float = _NAN
    value: float = _NAN
    gap: float = _NAN
    violation: float = _NAN
    compile_seconds: float = 0.0
    bytes_moved: int = 0
    predicted_seconds: float = _NAN
    n_iter: int = 0
    converged: bool | None = None
    stopped_because: str = ""
    phases: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)
    histograms: dict = field(default_factory=dict)
    order: dict | None = None
    notes: list = field(default_factory=list)

    def append(self, record):
        """Add the record of a step and bring the totals up to it."""
        self.records.append(record)
        self.passes, self.seconds = record.passes, record.seconds
        self.value, self.gap, self.violation = record.value, record.gap, record.violation
        self.compile_seconds, self.bytes_moved = record.seconds_compile, record.bytes_moved
        self.n_iter += record.stage == "full"

    def close(self, *, converged, stopped_because="", **totals):
        """Say how the fit ended.

        Parameters
        ----------
        converged : bool
        stopped_because : str, default=""
        **totals
            Totals that moved after the last record (``passes=``, ``seconds=``, ``n_iter=`` ...).
        """
        for name, total in totals.items():
            if name not in self.__dataclass_fields__:
                raise TypeError(f"FitReport has no total {name!r}; it has {', '.join(self.__dataclass_fields__)}.")
            setattr(self, name, total)
        self.converged, self.stopped_because = converged, stopped_because

    def __str__(self):
        parts = [self.where, *_progress_words(self)]
        if not math.isnan(self.seconds):
            parts.append(format_seconds(self.seconds) + self._beside_seconds())
        if self.converged is False:
            parts.append(f"not converged: {self.stopped_because}" if self.stopped_because else "not converged")
        return " | ".join(parts)

    __repr__ = __str__

    def _beside_seconds(self):
        """Return what stands behind the seconds, in brackets: those predicted, those of compiling."""
        words = []
        if not math.isnan(self.predicted_seconds):
            words.append(f"predicted {format_seconds(self.predicted_seconds)}")
        if self.compile_seconds >= 0.05:
            words.append(f"compile {format_seconds(self.compile_seconds)}")
        return f" ({', '.join(words)})" if words else ""

    def _repr_html_(self):
        """Return a table of the steps and a convergence plot, for notebooks."""
        from daskdml.report.page import render_fit

        return render_fit(self)

    def to_frame(self):
        """Return the records as a pandas DataFrame, one row a step."""
        import pandas as pd

        return pd.DataFrame(self.records, columns=Record._fields)

    def save(self, path):
        """Write the report as one HTML file that needs no network.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        pathlib.Path
        """
        from daskdml.report.page import Section, write_page

        title = f"Fit of {self.estimator}" if self.estimator else "Fit"
        return write_page(path, title=title, lead=str(self), sections=[Section(html=self._repr_html_())])


def _progress_words(state):
    """Say how far a record or report is: passes and the gap, or the violation where no gap is known."""
    words = []
    if not math.isnan(state.passes):
        words.append(f"pass {state.passes:.1f}")
    if not math.isnan(state.gap):
        words.append(f"gap {format_number(state.gap)}")
    elif not math.isnan(state.violation):
        words.append(f"violation {format_number(state.violation)}")
    return words
