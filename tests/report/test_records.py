"""Records and the line a fit prints."""

import math
import pickle
import subprocess
import sys

import pytest

from daskdml.report import FitReport, Record


def make_report(n_steps=3):
    report = FitReport("4 workers, 48 blocks, 3.1 GB, pinned", estimator="LogisticRegression")
    report.append(Record(step=0, stage="pilot", passes=0.01, seconds=0.1, value=0.7, gap=1e-2))
    for step in range(n_steps):
        report.append(
            Record(
                step=step,
                passes=1.2 + step,
                seconds=0.3 * (step + 1),
                value=0.5,
                gap=3 * 10.0 ** (-3 * step - 3),
                violation=1e-4,
                step_length=1.0,
                seconds_compile=4.0,
                seconds_compute=0.2 * (step + 1),
                seconds_reduce=0.01,
                seconds_wait=0.02,
                score=0.9,
                rounds=7,
                bytes_moved=1000,
                memory=300_000_000,
            )
        )
    return report


def test_one_line_as_documented():
    report = make_report()
    report.close(converged=True)
    assert str(report) == "4 workers, 48 blocks, 3.1 GB, pinned | pass 3.2 | gap 3e-9 | 0.9 s (compile 4 s)"
    assert repr(report) == str(report)


def test_line_before_the_first_step_is_where_it_runs():
    assert str(FitReport("in this process: 40 MB")) == "in this process: 40 MB"


def test_line_says_when_the_fit_did_not_converge():
    report = make_report()
    report.close(converged=False, stopped_because="100 steps were too few")
    assert str(report).endswith("| not converged: 100 steps were too few")


def test_line_falls_back_on_the_violation_where_no_gap_is_known():
    report = FitReport("in this process: 40 MB")
    report.append(Record(passes=1, seconds=0.02, violation=2e-5))
    assert str(report) == "in this process: 40 MB | pass 1.0 | violation 2e-5 | 20 ms"


def test_totals_are_those_of_the_newest_record_and_steps_on_all_rows_count():
    report = make_report(2)
    newest = report.records[-1]
    assert (report.passes, report.seconds, report.gap) == (newest.passes, newest.seconds, newest.gap)
    assert (report.compile_seconds, report.bytes_moved) == (4.0, 1000)
    assert report.n_iter == 2
    report.close(converged=True, passes=3.5)
    assert report.passes == 3.5


def test_close_refuses_a_total_that_does_not_exist():
    with pytest.raises(TypeError, match="no total 'epochs'"):
        make_report().close(converged=True, epochs=3)


def test_defaults_of_a_record_are_unknown():
    record = Record()
    assert all(math.isnan(value) for value in (record.passes, record.seconds, record.value, record.gap))
    assert record.bytes_moved == record.memory == 0


def test_pickles_small():
    report = make_report()
    data = pickle.dumps(report)
    assert len(data) < 2000
    back = pickle.loads(data)
    assert str(back) == str(report) and back.records[1:] == report.records[1:]  # the first holds NaN, unequal to itself


def test_frame_has_one_row_a_step():
    frame = make_report().to_frame()
    assert list(frame.columns) == list(Record._fields)
    assert len(frame) == 4 and frame["stage"].tolist() == ["pilot", "full", "full", "full"]


def test_import_is_cheap():
    code = (
        "import sys, daskdml.report; "
        "heavy = {'rich', 'pandas', 'matplotlib', 'jinja2', 'dask', 'distributed', 'sklearn'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
