"""A benchmark's rows: printed as they come, kept as one CSV, drawn from that CSV, held against what must be shown."""

import csv
import math
import operator
import statistics
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import machine_line

RESULTS = Path(__file__).parent / "results"
#: Ends `Row.who` of a peer's way that was not the fastest: the CSV has them, tables and pictures don't.
TRIED = "(tried)"
_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
_OURS, _THEIRS = "#1f6fb2", "#e8871e"


class Row(NamedTuple):
    """One measured number.

    Attributes
    ----------
    work : str
        What was done, with its size and precision.
    who : str
        Whose way of doing it.
    what : str
        What the number is: "seconds", "passes", "times faster" ...
    value, low, high : float
        Median, smallest and largest of the repetitions.
    repetitions : int
    quality, quality_value : str, float
        The measure of what was reached ("gap"), and its value; empty and NaN where there is none.
    must_show : str
        "<= 4.5"; empty for rows that only inform.
    met : str
        "yes", "no"; "-" at another size than the one the limit is about.
    note : str
    """

    work: str
    who: str
    what: str
    value: float
    low: float
    high: float
    repetitions: int = 1
    quality: str = ""
    quality_value: float = math.nan
    must_show: str = ""
    met: str = ""
    note: str = ""


class Sheet:
    """The rows of one benchmark.

    Parameters
    ----------
    name : str
    at_size : bool, default True
        The data have the size that the limits are about.
    picture : callable of a list of Row, optional
        Returns a figure of them, or None; `draw` if not given.
    """

    def __init__(self, name, at_size=True, picture=None):
        self.name, self.at_size, self.rows, self._draw = name, at_size, [], picture or draw

    def add(self, work, who, what, values, *, quality=None, must=None, note=""):
        """Add a number and print it.

        Parameters
        ----------
        work, who, what, note : str
        values : float or list of float
            One of each repetition.
        quality : tuple (name, value), optional
        must : tuple (comparison, limit), optional
            ("<=", 4.5); the median is compared.
        """
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        median = statistics.median(values)
        met = ""
        if must is not None:
            met = ("yes" if _COMPARE[must[0]](median, must[1]) else "no") if self.at_size else "-"
        row = Row(
            work, who, what, median, min(values), max(values), len(values), *(quality or ("", math.nan)),
            must_show="" if must is None else f"{must[0]} {must[1]:g}", met=met, note=note,
        )  # fmt: skip
        self.rows.append(row)
        print(f"  {_sentence(row)}", flush=True)

    def skip(self, work, note):
        """Say that something could not be measured, and why."""
        self.rows.append(Row(work, "", "not measured", math.nan, math.nan, math.nan, 0, note=note))
        print(f"  {work}: not measured: {note}", flush=True)

    def save(self, folder):
        """Write the CSV and the picture drawn from it; return the CSV's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.csv"
        with path.open("w", newline="") as file:
            file.write(f"# {machine_line()}\n")
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows([_written(value) for value in row] for row in self.rows)
        _, rows = read(path)
        figure = self._draw(rows)
        if figure is not None:
            figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        return path

    def show(self):
        """Print the rows as a table, without the peers' slower ways."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=self.name)
        for heading in ("work", "who", "what", "median (low to high)", "quality", "must show", "met"):
            table.add_column(heading, overflow="fold")
        for row in self.rows:
            if row.who.endswith(TRIED):
                continue
            style = {"yes": "green", "no": "red"}.get(row.met)
            cells = (row.work, row.who, row.what, _range(row), quality_of(row), row.must_show, row.met)
            table.add_row(*map(escape, cells), style=style)
        Console(width=150).print(table)


def _written(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def _range(row):
    if math.isnan(row.value):
        return row.note
    text = f"{row.value:.4g}"
    return text if row.repetitions < 2 else f"{text} ({row.low:.3g} to {row.high:.3g})"


def quality_of(row):
    """Return what was reached: scores with four digits, gaps and what else is small by its size."""
    if not row.quality:
        return ""
    value = row.quality_value
    return f"{row.quality} {value:.4f}" if abs(value) >= 0.01 else f"{row.quality} {value:.1e}"


def _sentence(row):
    parts = [f"{row.work} | {row.who}: {row.what} {_range(row)}", quality_of(row), row.note]
    if row.must_show:
        parts.append(f"must show {row.must_show}: {row.met}")
    return " | ".join(filter(None, parts))


def read(path):
    """Read a CSV.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    machine : str
    rows : list of Row
    """
    with path.open(newline="") as file:
        machine = file.readline().removeprefix("# ").strip()
        rows = []
        for found in csv.DictReader(file):
            numbers = {name: float(found[name]) for name in ("value", "low", "high", "quality_value")}
            rows.append(Row(**{**found, **numbers, "repetitions": int(found["repetitions"])}))
    return machine, rows


def draw(rows):
    """Return the seconds of rows (or what they have most of, where they have none) as bars; None for no numbers."""
    from matplotlib.figure import Figure

    kinds = [row.what for row in rows if not math.isnan(row.value)]
    if not kinds:
        return None
    what = "seconds" if "seconds" in kinds else max(kinds, key=kinds.count)
    rows = [row for row in rows if row.what == what and row.value > 0 and not row.who.endswith(TRIED)]
    figure = Figure(figsize=(9, 1.0 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    errors = [[row.value - row.low for row in rows], [row.high - row.value for row in rows]]
    colors = [_OURS if row.who.startswith("daskdml") else _THEIRS for row in rows]
    axes.barh(places, [row.value for row in rows], xerr=errors, color=colors, height=0.7, ecolor="#444", capsize=2)
    for place, row in zip(places, rows):
        text = " ".join(filter(None, [f" {row.value:.3g}", quality_of(row)]))
        axes.text(row.high, place, text, va="center", fontsize=7)
    axes.set_yticks(places, [f"{row.work}: {row.who}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_xlabel(f"{what}: median, lowest to highest")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
