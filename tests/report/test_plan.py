"""The table of a plan and the one sentence of advice."""

import pickle
import subprocess
import sys

import pytest

from daskdml.report import Plan, PlanRow


def row(runtime, n_workers, seconds, fits=True, memory=50_000_000):
    return PlanRow(runtime, n_workers, 2, 6, 4.1, 5_000 if runtime != "threads" else 0, memory, seconds, fits)


def plan(*rows, data_bytes=40_000_000):
    return Plan("LogisticRegression", 200_000, 50, data_bytes, rows)


SMALL = plan(row("threads", 1, 0.02), row("tasks", 2, 0.3), row("spmd", 2, 0.2))


def test_table_as_documented():
    lines = str(SMALL).splitlines()
    assert lines == [
        "LogisticRegression on 200,000 x 50, 40 MB",
        "runtime  workers  threads  rounds  passes    sent  memory  seconds",
        "threads        1        2       6     4.1     0 B   50 MB    20 ms",
        "tasks          2        2       6     4.1  5.0 kB   50 MB    0.3 s",
        "spmd           2        2       6     4.1  5.0 kB   50 MB    0.2 s",
        "One process is faster: 40 MB of data.",
    ]
    assert repr(SMALL) == str(SMALL)


@pytest.mark.parametrize(
    "rows, advice",
    [
        ((row("threads", 1, 1.0), row("tasks", 8, 2.0)), "One process is faster: 3.1 GB of data."),
        # A tenth of the time is not worth a cluster.
        ((row("threads", 1, 1.0), row("tasks", 8, 0.95)), "One process is faster: 3.1 GB of data."),
        (
            (row("threads", 1, 9.8), row("tasks", 4, 4.0), row("spmd", 8, 2.1)),
            "8 workers on a cluster are faster: 2.1 s against 9.8 s in this process.",
        ),
        # Nor are four workers more.
        (
            (row("threads", 1, 9.8), row("spmd", 4, 2.2), row("spmd", 8, 2.1)),
            "4 workers on a cluster are faster: 2.2 s against 9.8 s in this process.",
        ),
        (
            (row("threads", 1, 9.8), row("spmd", 1, 2.2)),
            "1 worker on a cluster is faster: 2.2 s against 9.8 s in this process.",
        ),
        # What stays in memory goes before what is quick.
        (
            (row("threads", 1, 1.0, fits=False), row("tasks", 4, 0.5, fits=False), row("tasks", 8, 2.0)),
            "8 workers on a cluster: 3.1 GB do not fit into this process.",
        ),
        (
            (row("threads", 1, 9.8, fits=False), row("tasks", 8, 3.0, fits=False)),
            "8 workers on a cluster are faster: 3 s against 9.8 s in this process; 3.1 GB fit nowhere and are read "
            "again in every pass.",
        ),
    ],
)
def test_advice(rows, advice):
    assert plan(*rows, data_bytes=3_100_000_000).advice == advice


def test_table_says_what_is_read_again():
    assert "50 MB (read again)" in str(plan(row("threads", 1, 1.0, fits=False)))


def test_frame_has_a_row_a_place():
    frame = SMALL.to_frame()
    assert list(frame.columns) == list(PlanRow._fields)
    assert frame["runtime"].tolist() == ["threads", "tasks", "spmd"]
    assert frame["seconds"].tolist() == [0.02, 0.3, 0.2]


def test_html_holds_the_table_and_escapes():
    html = Plan("<b>", 10, 2, 100, (row("threads", 1, 1.0),))._repr_html_()
    assert "<b><b>" not in html and "&lt;b&gt;" in html
    assert "<td" in html and "One process is faster: 100 B of data." in html
    assert "http" not in html


def test_plan_is_plain_data():
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    with pytest.raises(AttributeError):
        SMALL.rows = ()


def test_plan_costs_no_import():
    code = (
        "import sys; from daskdml.report import Plan; "
        "print([m for m in ('pandas', 'jinja2', 'dask') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
