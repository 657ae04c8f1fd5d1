"""HTML of reports: a fit as a fragment for notebooks, and whole pages that need no network."""

import math
from pathlib import Path
from typing import NamedTuple

from daskdml.report.pictures import draw_convergence, draw_epochs, draw_times
from daskdml.report.units import format_bytes, format_number, format_seconds

_MOST_ROWS = 40  # of a fit's table; a longer one shows its first and last steps


class Table(NamedTuple):
    """A table of text: the columns in `left` stand left, the others right, as numbers do."""

    header: list[str]
    rows: list[list[str]]
    left: tuple[int, ...] = (0,)


class Picture(NamedTuple):
    """A drawing with what it shows."""

    svg: str
    caption: str


class Section(NamedTuple):
    """One part of a page; whatever is empty is left out. Only `html` is taken as it is, the rest is escaped."""

    heading: str = ""
    text: str = ""
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()
    note: str = ""
    html: str = ""


def render_fit(report):
    """Render a `FitReport` as an HTML fragment: its line, a convergence plot, where the time went, its steps.

    Parameters
    ----------
    report : FitReport

    Returns
    -------
    str
    """
    records, drawn = report.records, []
    if records:
        # Of other fits phases lie within each other.
        phases = report.phases if records[-1].stage == "epoch" else None
        drawn = [draw_convergence(records), draw_epochs(records), draw_times(records[-1], phases)]
    return _template("fit.html").render(
        line=str(report), estimator=report.estimator, svgs=[svg for svg in drawn if svg], table=_steps(records),
        counts=", ".join([*_counts(report.counts), *_spreads(report.histograms)]), notes=report.notes,
    )  # fmt: skip


def render_table(title, table, line):
    """Render a `Table` as an HTML fragment, with a title above it and a line below.

    Parameters
    ----------
    title : str
    table : Table
    line : str

    Returns
    -------
    str
    """
    return _template("table_fragment.html").render(title=title, table=table, line=line)


def write_page(path, *, title, lead="", sections=(), foot=""):
    """Write sections as one HTML page with everything inside it.

    Parameters
    ----------
    path : str or path-like
        An existing file is replaced.
    title, lead : str
    sections : sequence of Section
    foot : str, default=""

    Returns
    -------
    pathlib.Path
        Where the page is.
    """
    path = Path(path)
    text = _template("page.html").render(title=title, lead=lead, sections=sections, foot=foot)
    path.write_text(text, encoding="utf-8")
    return path


def _template(name):
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("daskdml.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _steps(records):
    """Return the records as a table; a column nothing was recorded for is left out."""
    columns = [
        ("stage", lambda record: record.stage),
        ("step", lambda record: str(record.step)),
        ("passes", lambda record: _blank(record.passes, "{:.2f}".format)),
        ("objective", lambda record: _blank(record.value, "{:.10g}".format)),
        ("score", lambda record: _blank(record.score, "{:.6g}".format)),
        ("gap", lambda record: _blank(record.gap, format_number)),
        ("violation", lambda record: _blank(record.violation, format_number)),
        ("step length", lambda record: _blank(record.step_length, format_number)),
        ("seconds", lambda record: _blank(record.seconds, format_seconds)),
        ("compile", lambda record: format_seconds(record.seconds_compile) if record.seconds_compile else ""),
        ("compute", lambda record: format_seconds(record.seconds_compute) if record.seconds_compute else ""),
        ("reduce", lambda record: format_seconds(record.seconds_reduce) if record.seconds_reduce else ""),
        ("wait", lambda record: format_seconds(record.seconds_wait) if record.seconds_wait else ""),
        ("rounds", lambda record: f"{record.rounds:,}" if record.rounds else ""),
        ("moved", lambda record: format_bytes(record.bytes_moved) if record.bytes_moved else ""),
        ("memory", lambda record: format_bytes(record.memory) if record.memory else ""),
    ]
    cells = [(name, [show(record) for record in records]) for name, show in columns]
    cells = [(name, column) for name, column in cells if any(column)]
    rows = [list(row) for row in zip(*(column for _, column in cells))]
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        rows = [*rows[:half], ["…"] * len(cells), *rows[-half:]]
    return Table([name for name, _ in cells], rows)


def _counts(counts):
    """Return what was counted in words; what was never there is left out."""
    shown = [(name, format_bytes(n) if name.startswith("bytes") else f"{n:,.6g}") for name, n in counts.items() if n]
    return [f"{name}: {text}" for name, text in shown]


def _spreads(histograms):
    """Return of each histogram the mean, what 95 % are not above, and the most, in words."""
    words = []
    for name, found in histograms.items():
        values, n, seen, high = sorted(found), sum(found.values()), 0, 0
        for high in values:
            seen += found[high]
            if seen >= 0.95 * n:
                break
        mean = sum(value * found[value] for value in values) / n
        words.append(f"{name}: {mean:.3g}, 95 % up to {high}, most {values[-1]}")
    return words


def _blank(value, show):
    return "" if math.isnan(value) else show(value)
