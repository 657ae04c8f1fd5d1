"""The user's file: opened, refused, and its task chosen from the target."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from daskdml.demo.table import BadInput, look_at_target, open_table, split_target


def as_target(values, npartitions=3):
    return dd.from_pandas(pd.Series(values, name="t"), npartitions=npartitions)


@pytest.mark.parametrize(
    "values, kind, n_classes",
    [
        (["a", "b"] * 10, "classification", 2),
        ([True, False] * 10, "classification", 2),
        (pd.Categorical(["u", "v", "w"] * 10), "classification", 3),
        ([0, 1] * 10, "classification", 2),
        ([0.0, 1.0, 2.0] * 10, "classification", 3),
        (list(range(20)) * 2, "classification", 20),
        (list(range(21)), "regression", None),
        ([0.5, 1.5] * 10, "regression", None),
        ([0.0, np.inf] * 10, "regression", None),
    ],
)
def test_task_is_chosen_by_the_target(values, kind, n_classes):
    found = look_at_target(as_target(values))
    assert (found.kind, found.n_classes) == (kind, n_classes)
    assert found.n_rows == len(values) and found.n_missing == 0


def test_rows_without_a_target_are_counted_and_no_class():
    found = look_at_target(as_target(["a", None, "b", None, "a", "b"]))
    assert (found.n_rows, found.n_missing, found.n_classes) == (4, 2, 2)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_user_may_choose_the_task(task):
    assert look_at_target(as_target(list(range(30)) * 2), task).kind == task
    assert look_at_target(as_target([0, 1] * 10), task).kind == task


@pytest.mark.parametrize(
    "values, words",
    [
        (["a"] * 5, "one class only"),
        ([3.0] * 5, "one value only"),
        ([None, None], "the data are empty"),
        ([f"name {i}" for i in range(1500)], "more than 1000 different"),
        (["a", "b", "b"], "'a' in one row only"),
        ([0, 1, 1], "give --task regression"),
        (pd.date_range("2020", periods=5), "must hold classes or numbers"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(values, words):
    with pytest.raises(BadInput, match=words):
        look_at_target(as_target(values))


def test_words_are_no_amounts():
    with pytest.raises(BadInput, match="regression needs numbers"):
        look_at_target(as_target(["a", "b"] * 3), "regression")


def test_split_takes_the_target_out():
    frame = dd.from_pandas(pd.DataFrame({"a": [1], "t": [2]}), npartitions=1)
    X, y = split_target(frame, "t")
    assert list(X.columns) == ["a"] and y.name == "t"


def test_folder_glob_and_file_read_the_same(tmp_path):
    whole = pd.DataFrame({"a": range(6), "t": list("xyxyxy")})
    for i in range(3):
        whole.iloc[2 * i : 2 * i + 2].to_csv(tmp_path / f"{i}.csv", index=False)
    whole.to_csv(tmp_path / "whole.csv.gz", index=False)
    for path in (tmp_path / "whole.csv.gz", f"{tmp_path}/?.csv"):
        frame = open_table(str(path)).compute()
        assert frame["a"].tolist() == list(range(6)) and frame["t"].tolist() == list("xyxyxy")
    with pytest.raises(BadInput, match="mixes formats"):
        open_table(str(tmp_path))


def test_parquet_folder(tmp_path):
    (tmp_path / "parts").mkdir()
    for i in range(2):
        pd.DataFrame({"a": [i], "t": ["x"]}).to_parquet(tmp_path / "parts" / f"{i}.parquet")
    assert len(open_table(str(tmp_path / "parts"))) == 2


def test_a_file_whose_rows_are_missing(tmp_path):
    (tmp_path / "head.csv").write_text("a,t\n")
    with pytest.raises(BadInput):
        look_at_target(split_target(open_table(str(tmp_path / "head.csv")), "t")[1])
