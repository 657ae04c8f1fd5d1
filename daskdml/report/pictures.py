"""Pictures as SVG text: drawn off-screen, without pyplot and its process-wide state, and small enough to stand inline.

`OURS` and `THEIRS` are the two colours of every comparison, told apart by colour-blind readers too.
"""

import io
import math

_MOST_POINTS = 2000
OURS, THEIRS, QUIET = "#1f6fb2", "#e8871e", "#8a8f98"


def draw_convergence(records):
    """Draw how far each step was from the optimum over passes, on a log scale.

    Parameters
    ----------
    records : list of Record
        Steps with a gap are drawn; where none has one, their violation is.

    Returns
    -------
    str or None
        SVG; None if fewer than two steps have something to draw.
    """
    name = "gap" if any(record.gap > 0 for record in records) else "violation"
    steps = [(record, getattr(record, name)) for record in records]
    steps = [(record, left) for record, left in steps if 0 < left < math.inf and record.passes >= 0]
    if len(steps) < 2:
        return None
    figure, axes = _figure(4.6, 2.7)
    # Two lines, not one: the sample's optimum is not that of all rows.
    for on_pilot, fill, label in ((True, "white", "on a sample of the rows"), (False, OURS, "on all rows")):
        points = [(record.passes, left) for record, left in steps if (record.stage == "pilot") == on_pilot]
        if points:
            axes.plot(*zip(*points), "o-", color=OURS, markerfacecolor=fill, markersize=5, linewidth=1.4, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("passes over the data")
    axes.set_ylabel({"gap": "relative gap to the optimum", "violation": "violation of optimality"}[name])
    _legend(axes)
    return _svg(figure)


def draw_epochs(records):
    """Draw the loss of each epoch, and the score where there is one, over seconds, rounds and bytes of each direction.

    Parameters
    ----------
    records : list of Record
        Those of epochs are drawn; without rounds, of one process, over seconds alone.

    Returns
    -------
    str or None
        SVG; None if fewer than two epochs have a loss.
    """
    epochs = [record for record in records if record.stage == "epoch" and math.isfinite(record.value)]
    if len(epochs) < 2:
        return None
    measures = [("seconds", [record.seconds for record in epochs])]
    if epochs[-1].rounds:
        measures.append(("rounds", [record.rounds for record in epochs]))
        measures.append(("MB sent by a rank", [record.bytes_moved / 1e6 for record in epochs]))
        measures.append(("MB received by a rank", [record.bytes_received / 1e6 for record in epochs]))
    figure, panels = _figure(2.4 + 2.2 * len(measures), 2.5, len(measures))
    losses, scores = [record.value for record in epochs], [record.score for record in epochs]
    for i, (axes, (name, at)) in enumerate(zip(panels, measures)):
        (line,) = axes.plot(at, losses, "-", color=OURS, linewidth=1.4, label="loss")
        axes.set_xlabel(name)
        axes.set_ylabel("loss" if i == 0 else "")
        lines = [line]
        if any(math.isfinite(score) for score in scores):
            beside = axes.twinx()
            beside.spines["top"].set_visible(False)
            beside.tick_params(labelsize=8, color=QUIET)
            lines += beside.plot(at, scores, "--", color=THEIRS, linewidth=1.4, label="score of rows not trained on")
            beside.set_ylabel("score" if i == len(measures) - 1 else "", size=9)
        if i == 0:
            axes.legend(handles=lines, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
    return _svg(figure)


PHASES = {
    "compile": QUIET, "compute": OURS, "update": "#4b93cf", "score": "#b7cde3", "encode": "#e8871e",
    "transfer": "#f2b56b", "reduce": "#7fb3dd", "wait": "#d9dde3", "save": "#9aa7b5",
}  # fmt: skip


def draw_times(record, phases=None):
    """Draw where the time of a fit went, as one bar; None if nothing was measured.

    Parameters
    ----------
    record : Record
        The last one.
    phases : dict of str to float, optional
        Seconds by what was done in them, instead of the record's.

    Returns
    -------
    str or None
        SVG.
    """
    known = {
        "compile": record.seconds_compile, "compute": record.seconds_compute, "reduce": record.seconds_reduce,
        "wait": record.seconds_wait,
    }  # fmt: skip
    if phases:
        known = {"compile": record.seconds_compile, **phases}
    parts = [(name, known[name], color) for name, color in PHASES.items() if known.get(name, 0.0) > 0]
    if not parts:
        return None
    figure, axes = _figure(4.6, 1.1)
    left = 0.0
    for name, seconds, color in parts:
        axes.barh([0], [seconds], left=left, color=color, label=name, height=0.5)
        left += seconds
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 0.95), borderpad=0)
    return _svg(figure)


def draw_seconds(names, ours, theirs):
    """Draw the seconds of two libraries side by side, one pair of bars a task; on a log scale where they differ much.

    Parameters
    ----------
    names : list of str
    ours, theirs : list of float
        NaN leaves a bar out.

    Returns
    -------
    str
        SVG.
    """
    figure, axes = _figure(4.9, 0.9 + 0.5 * len(names))
    rows = range(len(names))
    present = [seconds for seconds in (*ours, *theirs) if seconds > 0]
    wide = max(present) > 20 * min(present)
    if wide:
        axes.set_xscale("log")
        axes.set_xlim(min(present) / 2, max(present) * 4)
    else:
        axes.set_xlim(0, max(present) * 1.2)
    for values, offset, color, label in ((ours, -0.19, OURS, "daskdml"), (theirs, 0.19, THEIRS, "scikit-learn")):
        axes.barh([row + offset for row in rows], values, height=0.34, color=color, label=label)
        for row, seconds in zip(rows, values):
            if seconds > 0:
                place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{seconds:.2g} s", (seconds, row + offset), fontsize=8, **place)
    _name_rows(axes, names)
    axes.set_xlabel("seconds to fit" + (", log scale" if wide else ""))
    _legend_above(axes)
    return _svg(figure)


def draw_scores(names, ours, theirs, label):
    """Draw the held-out scores of two libraries on one line a task: equal scores are a dot within a ring."""
    figure, axes = _figure(4.9, 0.9 + 0.42 * len(names))
    rows = range(len(names))
    axes.plot(theirs, rows, "o", markersize=11, markerfacecolor="none", color=THEIRS, mew=1.8, label="scikit-learn")
    axes.plot(ours, rows, "o", markersize=5.5, color=OURS, label="daskdml")
    for row, score in zip(rows, ours):
        axes.annotate(f"{score:.4f}", (score, row), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    known = [score for score in (*ours, *theirs) if score == score]
    axes.set_xlim(min(0.45, min(known) - 0.1), 1.04)
    _name_rows(axes, names)
    axes.set_xlabel(label)
    _legend_above(axes)
    return _svg(figure)


def draw_roc(curves):
    """Draw ROC curves.

    Parameters
    ----------
    curves : list of (str, array_like, array_like, str)
        Label, false positive rates, true positive rates, colour; the first is drawn widest, so that a later curve lying
        on it leaves its border visible.

    Returns
    -------
    str
        SVG.
    """
    figure, axes = _figure(3.4, 3.1)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    for width, (label, false_rates, true_rates, color) in zip((4.0, 1.4), curves):
        axes.plot(false_rates, true_rates, color=color, linewidth=width, label=label, solid_joinstyle="round")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    _legend(axes, loc="lower right")
    return _svg(figure)


def draw_calibration(curves):
    """Draw how often what was predicted with a probability came true; takes what `draw_roc` takes."""
    figure, axes = _figure(3.4, 3.1)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    for width, (label, predicted, observed, color) in zip((4.0, 1.4), curves):
        axes.plot(predicted, observed, color=color, linewidth=width, label=label, marker="o", markersize=width + 1.5)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed share")
    _legend(axes, loc="upper left")
    return _svg(figure)


def draw_predictions(true, predicted):
    """Draw predicted against true targets of a regression, of at most 2000 rows spread over all."""
    step = -(-len(true) // _MOST_POINTS)
    true, predicted = true[::step], predicted[::step]
    figure, axes = _figure(3.4, 3.1)
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=":")
    axes.plot(true, predicted, ".", color=OURS, alpha=0.6, markersize=5, markeredgewidth=0)
    axes.set_xlabel("true target")
    axes.set_ylabel("predicted target")
    return _svg(figure)


def _figure(width, height, n_panels=None):
    """Return a figure and its axes, a list of them for a number of panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, n_panels or 1, squeeze=False)[0].tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, color=QUIET)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
        axes.grid(True, color="#e6e8ec", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels if n_panels else panels[0]


def _name_rows(axes, names):
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _legend(axes, loc="best"):
    axes.legend(frameon=False, fontsize=8, loc=loc)


def _legend_above(axes):
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)


def _svg(figure):
    """Return a figure as an ``<svg>`` element that can stand inside a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
