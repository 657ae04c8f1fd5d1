"""The tables of docs/benchmarks.md, written from the CSVs of full-size runs so that the page never goes stale."""

import math
import re
from pathlib import Path

from benchmarks.report import RESULTS, TRIED, quality_of, read

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BEGIN, _END = "<!-- tables begin: written by `python -m benchmarks table` -->", "<!-- tables end -->"


def render_tables(folder=RESULTS):
    """Return one section of Markdown per CSV: the machine, what must be shown, what was measured.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    str
    """
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        return "No full-size run is kept yet."
    return "\n\n".join(map(_section, paths))


def _section(path):
    machine, rows = read(path)
    lines = [f"### {path.stem}", "", f"{machine}.", ""]
    lines += ["| work | who | what | median (lowest to highest) | quality | must show | met |", "|" + "---|" * 7]
    for row in rows:
        if row.who.endswith(TRIED):
            continue  # the CSV has them
        value = row.note if math.isnan(row.value) else f"{row.value:.3g}"
        if row.repetitions > 1:
            value += f" ({row.low:.3g} to {row.high:.3g})"
        who = row.who if not row.note or math.isnan(row.value) else f"{row.who} ({row.note})"
        cells = row.work, who, row.what, value, quality_of(row), row.must_show, row.met
        lines.append(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |")
    if path.with_suffix(".svg").exists():
        lines += ["", f"![{path.stem}](../benchmarks/results/{path.stem}.svg)"]
    return "\n".join(lines)


def is_stale(page=PAGE, folder=RESULTS):
    """Say whether the tables on the page are other than what the CSVs give."""
    return page.read_text(encoding="utf-8") != _replaced(page.read_text(encoding="utf-8"), folder)


def write_tables(page=PAGE, folder=RESULTS):
    """Replace the tables on the page."""
    page.write_text(_replaced(page.read_text(encoding="utf-8"), folder), encoding="utf-8")


def _replaced(text, folder):
    # A function, because table cells may hold backslashes.
    section = f"{_BEGIN}\n\n{render_tables(folder)}\n\n{_END}"
    return re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: section, text, flags=re.DOTALL)
