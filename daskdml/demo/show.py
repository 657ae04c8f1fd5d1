"""Results of the demo for people: a line, a table in the terminal, an HTML page with pictures."""

import os
import platform
import time

import numpy as np

from daskdml import __version__
from daskdml.demo.contest import ALPHA, TOL, C
from daskdml.report.page import Picture, Section, Table, write_page
from daskdml.report.pictures import (
    OURS,
    THEIRS,
    draw_calibration,
    draw_predictions,
    draw_roc,
    draw_scores,
    draw_seconds,
)
from daskdml.report.units import format_number, format_seconds

_HEADER = [
    "data",
    "rows x features",
    "score",
    "sklearn score",
    "seconds",
    "sklearn seconds",
    "first fit",
    "coef. differ by",
]
_MODELS = {
    "classification": f"logistic regression (C={C:g}, tol={TOL:g})",
    "regression": f"ridge regression (alpha={ALPHA:g})",
}
_SCORES = {"classification": "accuracy", "regression": "R2"}
_CURVE_POINTS = 300
_CALIBRATION_BINS = 10


def start_clock(echo):
    """Return a function that echoes a line with the seconds since now before it."""
    start = time.monotonic()

    def say(text):
        echo(f"{time.monotonic() - start:6.1f} s  {text}")

    return say


def tell(result):
    """Say a result: one line for the comparison, one for the fit."""
    ours, theirs = result.ours, result.theirs
    beside = "" if theirs is None else f" (scikit-learn {_score(theirs)} in {format_seconds(theirs.seconds)})"
    line = f"{result.name}: {_SCORES[result.kind]} {_score(ours)} in {format_seconds(ours.seconds)}{beside}"
    return f"{line}\n{'':10}{result.report}"


def print_table(results):
    """Print results as a rich table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:
        console = Console(width=100)  # a file has no width
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(_HEADER):
        table.add_column(name, justify="right" if i else "left", no_wrap=i < 2)
    for row in _rows(results):
        table.add_row(*row)
    console.print(table)
    console.print(_reading_note(results), style="dim", markup=False, highlight=False)


def write_report(path, results, *, n_workers, encoder=None):
    """Write the demo's page.

    Parameters
    ----------
    path : pathlib.Path
    results : list of Result
        The last one gets its own section with pictures.
    n_workers : int
    encoder : TableEncoder, optional
        What encoded the user's table: the page says what it chose for each column.
    """
    last = results[-1]
    sections = [_comparison(results), Section(f"{_title(last)}: held-out rows", pictures=_held_out_pictures(last))]
    if encoder is not None:
        sections.append(_choices(encoder))
    sections.append(Section(f"{_title(last)}: the fit, step by step", html=last.report._repr_html_()))
    write_page(
        path,
        title="daskdml beside scikit-learn",
        lead=f"Arrays in memory are fitted in the calling process, Dask collections on {n_workers} worker processes of "
        f"one machine; scikit-learn gets the same rows in memory, and {n_workers} threads.",
        sections=[section for section in sections if section != Section(section.heading)],
        foot=_made_by(),
    )


def _rows(results):
    rows = []
    for result in results:
        ours, theirs = result.ours, result.theirs
        rows.append(
            [
                _name(result),
                f"{result.n_rows:,} x {result.n_features}",
                _score(ours),
                "-" if theirs is None else _score(theirs),
                format_seconds(ours.seconds),
                "-" if theirs is None else format_seconds(theirs.seconds),
                format_seconds(ours.first_seconds),
                format_number(result.difference),
            ]
        )
    return rows


def _comparison(results):
    names = [_name(result) for result in results]
    ours = [result.ours for result in results]
    theirs = [result.theirs for result in results]
    scores = draw_scores(
        names, [side.score for side in ours], [_nan(side, "score") for side in theirs], "score on held-out rows"
    )
    seconds = draw_seconds(names, [side.seconds for side in ours], [_nan(side, "seconds") for side in theirs])
    notes = [f"{result.name}: {side.note}." for result in results for side in (result.ours, result.theirs) if side]
    notes = [note for note in notes if not note.endswith(": .")]
    return Section(
        "The same answers, and the time they took",
        text=_reading_note(results),
        table=Table(_HEADER, _rows(results)),
        pictures=(
            Picture(scores, "Accuracy, or R2 where marked. A dot within its ring: both libraries agree."),
            Picture(seconds, "Warm fits; the first one stands apart in the table."),
        ),
        note=" ".join(notes),
    )


def _reading_note(results):
    kinds = sorted({result.kind for result in results})
    models = " or ".join(_MODELS[kind] for kind in kinds)
    preparations = " or ".join(sorted({result.preparation for result in results}))
    scores = " or ".join(_SCORES[kind] for kind in kinds)
    return (
        f"Both sides: the same split, {preparations}, then {models}. Score: {scores} on held-out rows. "
        "Seconds: a warm fit; the first fit, which may compile, stands apart. Coefficients: the largest difference, "
        "relative to the largest coefficient."
    )


def _held_out_pictures(result):
    """Draw how well held-out rows are predicted: ROC and calibration, or predicted against true targets."""
    X, y = result.held_out
    y = np.asarray(y)
    if result.kind == "regression":
        return (Picture(draw_predictions(y, result.ours.model.predict(X)), "Held-out rows; on the line is exact."),)
    classes = result.ours.model.classes_
    hits = y[:, None] == classes
    sides = [("scikit-learn", result.theirs, THEIRS), ("daskdml", result.ours, OURS)]
    sides = [(label, np.asarray(side.model.predict_proba(X)), color) for label, side, color in sides if side]
    calibration = [(label, *_calibration(hits.ravel(), found.ravel()), color) for label, found, color in sides]
    pictures = [Picture(draw_calibration(calibration), "How often what was predicted with a probability came true.")]
    if len(classes) == 2:
        curves = [(label, *_roc(hits[:, 1], found[:, 1]), color) for label, found, color in sides]
        caption = f"ROC curve for {classes[1]!s}. A line within a band: both libraries agree."
        pictures.insert(0, Picture(draw_roc(curves), caption))
    return tuple(pictures)


def _roc(hit, probability):
    from sklearn.metrics import roc_curve

    false_rates, true_rates, _ = roc_curve(hit, probability)
    keep = np.unique(np.linspace(0, len(false_rates) - 1, _CURVE_POINTS).astype(int))
    return false_rates[keep], true_rates[keep]


def _calibration(hit, probability):
    from sklearn.calibration import calibration_curve

    observed, predicted = calibration_curve(hit, probability, n_bins=_CALIBRATION_BINS)
    return predicted, observed


def _choices(encoder):
    found = encoder.report_
    rows = [[_cell(value) for value in row] for row in found.itertuples(index=False)]
    return Section("How each column was encoded", table=Table(list(found.columns), rows, left=(0, 1, 4)))


def _cell(value):
    """Write a cell of a pandas table: counts that pandas keeps as floats, and missing ones, too."""
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}"
    return "" if value is None else str(value)


def _title(result):
    return f"{result.name} ({result.n_rows:,} rows)"


def _name(result):
    return result.name + (" (R2)" if result.kind == "regression" else "")


def _score(side):
    return f"{side.score:.4f}"


def _nan(side, name):
    return float("nan") if side is None else getattr(side, name)


def _made_by():
    import dask
    import sklearn

    versions = f"daskdml {__version__}, scikit-learn {sklearn.__version__}, dask {dask.__version__}"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})"
    return f"{versions}, {machine}, {time.strftime('%Y-%m-%d %H:%M')}."
