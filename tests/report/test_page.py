"""HTML and pictures: drawn with no display, complete without a network."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from daskdml.report import FitReport, Record
from daskdml.report.page import Picture, Section, Table, write_page
from daskdml.report.pictures import (
    OURS,
    THEIRS,
    draw_calibration,
    draw_convergence,
    draw_epochs,
    draw_predictions,
    draw_roc,
    draw_scores,
    draw_seconds,
    draw_times,
)


def make_report(n_steps=3, **values):
    report = FitReport("2 workers, 4 blocks, 80 MB, pinned", estimator="Ridge")
    for step in range(n_steps):
        report.append(Record(step=step, passes=step + 1.0, seconds=0.1, gap=10.0 ** (-2 * step), **values))
    return report


def assert_self_contained(html):
    """Nothing is loaded: no script, stylesheet, font or picture from elsewhere (xmlns names are not fetched)."""
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert all(address.startswith("#") for address in addresses), addresses
    assert "<script" not in html and "@import" not in html


def test_notebook_html_has_the_line_a_plot_and_a_row_a_step():
    html = make_report(seconds_compute=0.1)._repr_html_()
    assert "2 workers, 4 blocks, 80 MB, pinned" in html
    assert html.count("<svg") == 2
    assert html.count("<tr>") == 1 + 3
    assert_self_contained(html)


def test_notebook_html_of_a_report_without_steps():
    html = FitReport("in this process: 40 MB")._repr_html_()
    assert "in this process: 40 MB" in html and "<svg" not in html and "<table" not in html


def test_columns_without_a_value_are_left_out():
    html = make_report()._repr_html_()
    assert ">gap</th>" in html and ">moved</th>" not in html and ">objective</th>" not in html


def test_a_long_table_shows_first_and_last_steps():
    html = make_report(100)._repr_html_()
    assert html.count("<tr>") == 1 + 41


def test_text_is_escaped():
    assert "<b>x" not in FitReport("<b>x</b>")._repr_html_()


def test_save_writes_one_page_that_needs_no_network(tmp_path):
    path = make_report().save(tmp_path / "fit.html")
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") and "Fit of Ridge" in html
    assert_self_contained(html)


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys; from daskdml.report import FitReport, Record; r = FitReport('here'); "
        "[r.append(Record(step=i, passes=i, gap=10.0 ** -i)) for i in range(3)]; "
        "assert '<svg' in r._repr_html_(); print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"DISPLAY": ""})
    assert out.stdout.strip() == "False"


def test_convergence_needs_two_positive_values():
    assert draw_convergence([]) is None
    assert draw_convergence([Record(passes=1, gap=0.1)]) is None
    assert draw_convergence([Record(passes=1, gap=0.1), Record(passes=2, gap=0.0)]) is None
    violations = [Record(passes=1, violation=0.1), Record(passes=2, violation=0.01)]
    assert draw_convergence(violations) is not None


def epochs(**measured):
    return [
        Record(step=i, stage="epoch", seconds=float(i), value=1.0 / i, **{name: n * i for name, n in measured.items()})
        for i in (1, 2, 3)
    ]


def text_of(svg):
    """Return what letters a drawing was made of: matplotlib notes each text beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", svg)


def test_epochs_are_drawn_over_seconds_and_where_ranks_talk_over_rounds_and_bytes():
    assert draw_epochs([]) is None and draw_epochs(epochs()[:1]) is None
    assert draw_epochs([Record(value=1.0), Record(value=0.5)]) is None
    alone = text_of(draw_epochs(epochs()))
    assert "seconds" in alone and "loss" in alone and "rounds" not in alone and "score" not in alone
    together = text_of(draw_epochs(epochs(rounds=10, bytes_moved=10**6, score=0.3)))
    assert {"seconds", "rounds", "MB sent by a rank", "loss", "score"} <= set(together)


def test_a_training_shows_its_scores_counts_and_notes():
    report = FitReport("4 workers", records=epochs(rounds=10, score=0.3))
    report.counts, report.notes = {"bytes sent for steps": 2_000_000, "memories lost": 0}, ["went back to epoch 3"]
    report.phases = {"compute": 1.0, "encode": 0.25, "transfer": 0.5}
    html = report._repr_html_()
    assert "bytes sent for steps: 2.0 MB" in html and "memories lost" not in html and "went back to epoch 3" in html
    assert "<th>score" in html.replace(' class="left"', "") and {"encode", "transfer"} <= set(text_of(html))


def test_times_need_something_measured():
    assert draw_times(Record()) is None


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_seconds(["a", "b"], [0.1, 1.0], [0.2, float("nan")]),
        lambda: draw_scores(["a", "b"], [0.9, 0.4], [0.9, float("nan")], "accuracy"),
        lambda: draw_roc([("x", [0, 0.5, 1], [0, 0.9, 1], THEIRS), ("y", [0, 0.5, 1], [0, 0.9, 1], OURS)]),
        lambda: draw_calibration([("x", [0.1, 0.9], [0.2, 0.8], OURS)]),
        lambda: draw_predictions(np.arange(5.0), np.arange(5.0) + 0.1),
    ],
)
def test_pictures_are_well_formed_svg(draw):
    assert ElementTree.fromstring(draw()).tag.endswith("svg")


def test_page_leaves_out_what_a_section_lacks(tmp_path):
    picture = Picture(draw_predictions(np.arange(3.0), np.arange(3.0)), "a caption")
    sections = [Section("Scores", table=Table(["data", "score"], [["wine", "0.98"]])), Section(pictures=(picture,))]
    html = write_page(tmp_path / "page.html", title="T & U", sections=sections).read_text(encoding="utf-8")
    assert "T &amp; U" in html and '<td class="left">wine</td><td>0.98</td>' in html and "a caption" in html
    assert html.count("<h2>") == 1 and 'class="note"' not in html and "<footer>" not in html
