"""How a running fit looks: a bar in a terminal, a bar in a notebook, plain lines everywhere else.

A face has ``open(text)``, ``show(text, fraction)`` and ``close(text)``. Whatever happens to the output (a closed pipe,
an encoding that lacks a letter), the fit goes on: a face that fails is dropped.
"""

import html
import math
import sys
import time

_SECONDS_BETWEEN_LINES = 0.5


class Progress:
    """Shows a fit while it runs.

    Parameters
    ----------
    verbose : int or bool
        0 shows nothing. 1 or more draws a bar (rich in a terminal, HTML in a notebook), or prints plain lines, at most
        two a second, when the output is neither.

    Examples
    --------
    >>> from daskdml.report import FitReport, Record
    >>> report = FitReport("in this process: 40 MB")
    >>> with Progress(verbose=0) as progress:
    ...     progress.start(report.where)
    ...     report.append(Record(step=1, passes=3.2, seconds=0.9, gap=3e-9))
    ...     progress.update(report.records[-1])
    ...     progress.finish(report)
    """

    def __init__(self, verbose=0):
        self.verbose = int(verbose)
        self._face = None
        self._tol = self._first = math.nan

    def __enter__(self):
        if self.verbose > 0:
            self._face = _choose_face()
        return self

    def __exit__(self, *exc_info):
        # A fit that raised leaves no half-drawn bar behind.
        self._tell("close", None)
        self._face = None

    def start(self, where, tol=math.nan):
        """Show where the fit runs.

        Parameters
        ----------
        where : str
        tol : float, default=nan
            Gap (or violation, where no gap is known) at which the fit stops; with it the bar knows how full it is.
        """
        self._tol = tol
        self._tell("open", where)

    def update(self, record):
        """Show the step that a record tells of."""
        self._tell("show", str(record), self._fraction(record))

    def finish(self, report):
        """Replace the bar by the report's line."""
        self._tell("close", str(report))
        self._face = None

    def _fraction(self, record):
        """Return the share of the way to `tol` on a log scale, as linear or faster convergence goes, or None."""
        left = record.violation if math.isnan(record.gap) else record.gap
        if not (left > 0 and self._tol > 0):
            return None
        if math.isnan(self._first):
            self._first = max(left, self._tol * 10)
        return min(max(math.log(self._first / left) / math.log(self._first / self._tol), 0.0), 1.0)

    def _tell(self, action, *args):
        if self._face is None:
            return
        try:
            getattr(self._face, action)(*args)
        except (OSError, ValueError):  # closed, broken or unable to encode: UnicodeError is a ValueError
            self._face = None


class _Bar:
    """A rich bar that redraws itself, so that the clock moves during a long pass."""

    def __init__(self, console):
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        self._bar = RichProgress(*columns, console=console, transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("", total=None)
        self._console = console

    def open(self, text):
        self._bar.update(self._task, description=text)
        self._bar.start()

    def show(self, text, fraction):
        total = None if fraction is None else 1.0
        self._bar.update(self._task, description=text, total=total, completed=fraction or 0.0)

    def close(self, text):
        self._bar.stop()
        if text is not None:
            self._console.print(text, markup=False, highlight=False)


class _Cell:
    """A notebook's output cell, redrawn in place; rich would need ipywidgets for this."""

    _HTML = (
        "<div style='font-family:monospace'><progress style='width:14em;vertical-align:middle' {attributes}>"
        "</progress> {text}</div>"
    )

    def __init__(self, display, as_html):
        self._as_html = as_html
        self._handle = display(as_html(""), display_id=True)

    def open(self, text):
        self.show(text, None)

    def show(self, text, fraction):
        attributes = "" if fraction is None else f"value='{fraction:.3f}' max='1'"
        self._handle.update(self._as_html(self._HTML.format(attributes=attributes, text=html.escape(text))))

    def close(self, text):
        self._handle.update(self._as_html(f"<div style='font-family:monospace'>{html.escape(text or '')}</div>"))


class _Lines:
    """Plain lines for files, pipes and worker logs."""

    def __init__(self):
        self._next = 0.0

    def open(self, text):
        _print_line(text)

    def show(self, text, fraction):
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            _print_line(text)

    def close(self, text):
        if text is not None:
            _print_line(text)


def _print_line(text):
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, errors="backslashreplace").decode(encoding), flush=True)


def _choose_face():
    """Pick how to show a fit from where the output goes; None if it goes nowhere."""
    if sys.stdout is None or getattr(sys.stdout, "closed", False):
        return None
    notebook = _notebook_display()
    if notebook is not None:
        return _Cell(*notebook)
    if not sys.stdout.isatty():
        return _Lines()
    from rich.console import Console

    console = Console()
    # A "dumb" terminal (an editor's, a CI log's) cannot move its cursor.
    return _Bar(console) if console.is_terminal and not console.is_dumb_terminal else _Lines()


def _notebook_display():
    """Return IPython's display and HTML if a notebook kernel runs this process, without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    return display, HTML
