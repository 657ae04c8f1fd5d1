"""What a fit would cost at several places: the table that ``estimator.plan(X, y)`` returns."""

from dataclasses import dataclass
from typing import NamedTuple

from daskdml.report.units import format_bytes, format_seconds

# More workers than needed are not worth a tenth of the time.
_WORTH = 1.1


class PlanRow(NamedTuple):
    """What a fit would cost at one place.

    Attributes
    ----------
    runtime : {"threads", "tasks", "spmd"}
    n_workers, n_threads : int
        Processes, and threads of each.
    rounds : float
        Times the driver waits for an answer about all rows.
    passes : float
        Rows of X read / number of rows.
    bytes_sent : int
        By one worker in the whole fit.
    memory : int
        Bytes that one process holds.
    seconds : float
        Building kernels left out.
    fits : bool
        Whether the rows stay in memory; if not they are read again in every pass.
    in_files : bool
        Whether they are read again from files of what is made of them.
    """

    runtime: str
    n_workers: int
    n_threads: int
    rounds: float
    passes: float
    bytes_sent: int
    memory: int
    seconds: float
    fits: bool = True
    in_files: bool = False


@dataclass(frozen=True)
class Plan:
    """What a fit would cost in this process and on clusters of several sizes, and what to do.

    Printing shows a table and one sentence; so does a notebook.

    Parameters
    ----------
    estimator : str
        Name of the estimator's class.
    n_samples, n_features : int
    data_bytes : int
        Of X, y and weights.
    rows : tuple of PlanRow
        One a place; that of this process has the runtime "threads".

    Attributes
    ----------
    advice : str

    Examples
    --------
    >>> here = PlanRow("threads", 1, 2, rounds=6, passes=4.1, bytes_sent=0, memory=44_000_000, seconds=0.02)
    >>> there = PlanRow("tasks", 4, 1, rounds=6, passes=4.1, bytes_sent=5_000, memory=10_000_000, seconds=0.3)
    >>> Plan("LogisticRegression", 200_000, 50, 40_000_000, (here, there))
    LogisticRegression on 200,000 x 50, 40 MB
    runtime  workers  threads  rounds  passes    sent  memory  seconds
    threads        1        2       6     4.1     0 B   44 MB    20 ms
    tasks          4        1       6     4.1  5.0 kB   10 MB    0.3 s
    One process is faster: 40 MB of data.
    """

    estimator: str
    n_samples: int
    n_features: int
    data_bytes: int
    rows: tuple[PlanRow, ...]

    @property
    def advice(self):
        """One sentence: where to fit, and why."""
        here = next(row for row in self.rows if row.runtime == "threads")
        kept = [row for row in self.rows if row.fits]
        best = _fewest_workers(kept or self.rows)
        size = format_bytes(self.data_bytes)
        if best is here or ((here.fits or here.in_files) and here.seconds <= _WORTH * best.seconds):
            return f"One process is faster: {size} of data."
        cluster = f"{best.n_workers} worker{'s' * (best.n_workers > 1)} on a cluster"
        if kept and not here.fits:
            return f"{cluster}: {size} do not fit into this process."
        taken = f"{format_seconds(best.seconds)} against {format_seconds(here.seconds)} in this process"
        verb = "are" if best.n_workers > 1 else "is"
        again = "" if kept or best.in_files else f"; {size} fit nowhere and are read again in every pass"
        return f"{cluster} {verb} faster: {taken}{again}."

    def __str__(self):
        header, cells = _cells(self.rows)
        widths = [max(map(len, column)) for column in zip(header, *cells)]
        lines = [
            "  ".join([cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths))])
            for line in [header, *cells]
        ]
        return "\n".join([self._title(), *map(str.rstrip, lines), self.advice])

    __repr__ = __str__

    def _repr_html_(self):
        """Return the table and the advice, for notebooks."""
        from daskdml.report.page import Table, render_table

        return render_table(self._title(), Table(*_cells(self.rows)), self.advice)

    def to_frame(self):
        """Return the rows as a pandas DataFrame, one row a place."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=PlanRow._fields)

    def _title(self):
        return f"{self.estimator} on {self.n_samples:,} x {self.n_features:,}, {format_bytes(self.data_bytes)}"


def _fewest_workers(rows):
    """Return the row of the fewest workers, this process first, among those nearly as fast as the fastest."""
    least = min(row.seconds for row in rows)
    near = [row for row in rows if row.seconds <= _WORTH * least]
    return min(near, key=lambda row: (row.runtime != "threads", row.n_workers, row.seconds))


def _cells(rows):
    """Return the header and the cells of the table."""
    header = ["runtime", "workers", "threads", "rounds", "passes", "sent", "memory", "seconds"]
    cells = [
        [
            row.runtime,
            str(row.n_workers),
            str(row.n_threads),
            f"{row.rounds:.0f}",
            f"{row.passes:.1f}",
            format_bytes(row.bytes_sent),
            format_bytes(row.memory) + ("" if row.fits else " (and files)" if row.in_files else " (read again)"),
            format_seconds(row.seconds),
        ]
        for row in rows
    ]
    return header, cells
