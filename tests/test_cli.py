"""The ``daskdml`` command: answers at once, refuses bad input in one sentence, and runs the demo."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskdml
from daskdml.cli import main


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def assert_refused(result, *words):
    """Exit code 2, one sentence holding the words, no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for word in words:
        assert word in last


@pytest.fixture
def people(tmp_path):
    """A mixed table with a yes/no target."""
    rng = np.random.default_rng(0)
    n = 400
    age = rng.integers(18, 80, n).astype(float)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, age),
            "city": rng.choice(["Kyiv", "Lima", "Oslo"], n),
            "income": rng.lognormal(10, 0.5, n),
            "paid": np.where(age + rng.normal(0, 15, n) > 50, "yes", "no"),
        }
    )
    path = tmp_path / "people.parquet"
    frame.to_parquet(path)
    return frame, path


def test_version():
    result = run("--version")
    assert result.exit_code == 0 and daskdml.__version__ in result.output


def test_help_needs_no_heavy_import():
    code = (
        "import sys\n"
        "from daskdml.cli import main\n"
        "try: main(['demo', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'dask', 'distributed', 'sklearn', 'pandas', 'matplotlib', 'numba'} & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_data_and_target_go_together(tmp_path):
    assert_refused(run("demo", "--data", tmp_path / "x.csv"), "--data", "--target")
    assert_refused(run("demo", "--target", "paid"), "--target", "--data")


def test_missing_file(tmp_path):
    path = tmp_path / "none.parquet"
    assert_refused(run("demo", "--data", path, "--target", "paid", "--report", tmp_path / "r.html"), str(path))


def test_unknown_column_names_the_closest(people, tmp_path):
    result = run("demo", "--data", people[1], "--target", "payd", "--report", tmp_path / "r.html")
    assert_refused(result, "'payd'", "did you mean paid", "income")


@pytest.mark.parametrize("name", ["data.txt", "data"])
def test_unknown_format(tmp_path, name):
    (tmp_path / name).write_text("a,b\n1,2\n")
    result = run("demo", "--data", tmp_path / name, "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "neither Parquet nor CSV", ".parquet")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_empty_file(tmp_path, ending):
    path = tmp_path / f"empty.{ending}"
    path.touch()
    result = run("demo", "--data", path, "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "is empty")


def test_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "broken.parquet"
    path.write_text("this is text")
    result = run("demo", "--data", path, "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "can't be read as Parquet")


def test_folder_without_data(tmp_path):
    (tmp_path / "folder").mkdir()
    result = run("demo", "--data", tmp_path / "folder", "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "no Parquet or CSV file")


def test_target_alone(tmp_path):
    pd.DataFrame({"b": [0, 1]}).to_parquet(tmp_path / "x.parquet")
    result = run("demo", "--data", tmp_path / "x.parquet", "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "nothing to learn from")


def test_report_that_is_a_folder(tmp_path):
    assert_refused(run("demo", "--report", tmp_path), "is a folder")


def test_report_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert_refused(run("demo", "--report", tmp_path / "file" / "r.html"), "can't be written")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("target", [["x"] * 40, [7] * 40, [None] * 40])
def test_target_without_two_values(tmp_path, target):
    frame = pd.DataFrame({"a": range(40), "b": pd.Series(target, dtype=object if target[0] is None else None)})
    frame.to_parquet(tmp_path / "x.parquet")
    result = run("demo", "--data", tmp_path / "x.parquet", "--target", "b", "--report", tmp_path / "r.html")
    assert_refused(result, "'b'")


@pytest.mark.slow
@pytest.mark.cluster
def test_demo_on_bundled_and_generated_data(tmp_path):
    report = tmp_path / "demo.html"
    result = run("demo", "--rows", 20_000, "--report", report)
    assert result.exit_code == 0, result.output
    for name in ("breast cancer", "digits", "wine", "diabetes", "generated", str(report.name)):
        assert name in result.output.replace("\n", "")
    html = report.read_text(encoding="utf-8")
    assert html.count("<svg") >= 4 and "20,000" in html


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_demo_on_a_users_file(people, tmp_path, kind):
    frame, path = people
    if kind == "csv":
        path = tmp_path / "people.csv"
        frame.to_csv(path, index=False)
    report = tmp_path / "own.html"
    result = run("demo", "--data", path, "--target", "paid", "--report", report)
    assert result.exit_code == 0, result.output
    assert "classification" in result.output and "400 rows, 3 columns" in result.output
    assert "<svg" in report.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.cluster
def test_demo_chooses_regression_for_amounts(people, tmp_path):
    result = run("demo", "--data", people[1], "--target", "income", "--report", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "regression, since 'income' holds many float64 values" in result.output


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("target", ["paid", "income"])
def test_demo_leaves_scikit_learn_out_where_memory_is_short(people, tmp_path, monkeypatch, target):
    monkeypatch.setattr("daskdml.demo.story._MEMORY_SHARE", 0.0)
    result = run("demo", "--data", people[1], "--target", target, "--report", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "scikit-learn is left out" in result.output
    assert "<svg" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.cluster
def test_quick_start(people, tmp_path, cluster_client):
    """The README's snippet, on generated files."""
    import dask.dataframe as dd
    from sklearn.pipeline import make_pipeline

    from daskdml.linear_model import LogisticRegression
    from daskdml.model_selection import train_test_split
    from daskdml.preprocessing import TableEncoder

    (tmp_path / "trips").mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(people[0])), 4)):
        people[0].iloc[part].to_parquet(tmp_path / "trips" / f"{i}.parquet")

    df = dd.read_parquet(f"{tmp_path}/trips/*.parquet")
    X, y = df.drop(columns="paid"), df["paid"]
    Xa, Xb, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
    model = make_pipeline(TableEncoder(), LogisticRegression(verbose=1)).fit(Xa, ya)
    score = model.score(Xb, yb)
    assert 0.7 < score <= 1
    assert "pass" in str(model[-1].fit_report_)
    assert "<svg" in model[-1].fit_report_._repr_html_()

    predicted = df.assign(p=model.predict(X)).compute()
    assert list(predicted.index) == list(people[0].index)
    assert set(predicted["p"]) == {"no", "yes"}

    theirs = model[-1].to_sklearn()
    encoded = model[0].transform(Xb).compute()
    assert (theirs.predict(encoded) == yb.compute()).mean() == pytest.approx(score)
