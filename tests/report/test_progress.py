"""Progress: silent, plain lines, a bar; and never in the way of the fit."""

import io
import subprocess
import sys
import types

import pytest

from daskdml.report import FitReport, Progress, Record


def run_fit(progress, n_steps=3):
    report = FitReport("in this process: 40 MB")
    with progress:
        progress.start(report.where, tol=1e-8)
        for step in range(n_steps):
            report.append(Record(step=step, passes=step + 1.0, seconds=0.1, gap=10.0 ** (-3 * step)))
            progress.update(report.records[-1])
        report.close(converged=True)
        progress.finish(report)
    return report


def test_silent_without_verbose(capsys):
    run_fit(Progress(0))
    assert capsys.readouterr().out == ""


def test_plain_lines_when_not_a_terminal(capsys):
    report = run_fit(Progress(1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "in this process: 40 MB"
    assert lines[1] == "full step 0 | pass 1.0 | gap 1 | 0.1 s"
    assert lines[-1] == str(report)
    assert not any("\x1b" in line for line in lines)


def test_plain_lines_are_limited_in_rate(capsys):
    run_fit(Progress(1), n_steps=1000)
    assert len(capsys.readouterr().out.splitlines()) < 10


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_bar_in_a_terminal_ends_as_the_report_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", terminal)
    report = run_fit(Progress(1))
    assert "\x1b" in terminal.getvalue()
    assert terminal.getvalue().splitlines()[-1].endswith(str(report))


def test_a_fit_that_raises_leaves_no_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(KeyError), Progress(1) as progress:
        progress.start("here")
        raise KeyError
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is shown again


def test_fraction_goes_from_nothing_to_full_with_the_gap():
    progress = Progress(1)
    progress._tol = 1e-8
    fractions = [progress._fraction(Record(gap=gap)) for gap in (1.0, 1e-4, 1e-8, 1e-12)]
    assert fractions == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert progress._fraction(Record()) is None


def test_cell_of_a_notebook_is_redrawn_in_place(monkeypatch):
    drawn = []
    handle = types.SimpleNamespace(update=drawn.append)
    shell = types.SimpleNamespace(kernel=object())
    display = types.ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda html, display_id: drawn.append(html) or handle
    ipython = types.ModuleType("IPython")
    ipython.get_ipython, ipython.display = (lambda: shell), display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    report = run_fit(Progress(1))
    assert "in this process: 40 MB" in drawn[1]
    assert "value='0.375'" in drawn[3]
    assert str(report) in drawn[-1] and "<progress" not in drawn[-1]


@pytest.mark.parametrize("stream", ["None", "io.StringIO()", "open(os.devnull, 'w')"])
def test_closed_output_does_not_break_a_fit(stream):
    code = (
        "import io, os, sys\n"
        f"sys.stdout = {stream}\n"
        "if sys.stdout is not None: sys.stdout.close()\n"
        "from daskdml.report import FitReport, Progress, Record\n"
        "with Progress(1) as progress:\n"
        "    progress.start('here')\n"
        "    progress.update(Record(step=1))\n"
        "    progress.finish(FitReport('here'))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


def test_output_closed_during_a_fit_does_not_break_it(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(1) as progress:
        progress.start("here")
        stream.close()
        progress.update(Record(step=1))
        progress.finish(FitReport("here"))


def test_letters_the_encoding_lacks_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(1) as progress:
        progress.start("größe")
    stream.flush()
    assert stream.buffer.getvalue() == b"gr\\xf6\\xdfe\n"
