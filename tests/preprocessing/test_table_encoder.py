"""TableEncoder against its definition: every kind of column, in memory and chunk by chunk."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from daskdml import config_context
from daskdml.preprocessing import OneHotEncoder, StandardScaler, TableEncoder
from daskdml.testing.tables import cuts, partitions

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def objects_stay_objects(request):
    """Keep Dask from turning columns of objects into strings, but where that is the point."""
    import dask

    with dask.config.set({"dataframe.convert-string": "as_dask_reads" in request.node.name}):
        yield


N = 96


def mixed():
    """One column of every kind there is, most of them with missing values."""
    rng = np.random.default_rng(0)
    hours = pd.date_range("2023-12-30 22:00", periods=N, freq="h")
    frame = pd.DataFrame(
        {
            "float": rng.normal(1e6, 1, N),
            "int": rng.integers(0, 5, N),
            "nullable int": pd.array(rng.integers(0, 3, N), dtype="Int64"),
            "text": rng.choice(["x", "y", "z"], N),
            "object": rng.choice(np.array(["u", "v", None], dtype=object), N),
            "category": pd.Categorical(rng.choice(list("pqr"), N), categories=list("pqrs")),
            "flag": rng.random(N) < 0.3,
            "nullable flag": pd.array(rng.random(N) < 0.3, dtype="boolean"),
            "local time": hours.tz_localize("Europe/Berlin"),
            "time": hours,
            "span": pd.to_timedelta(rng.integers(0, 1000, N), unit="s"),
            "constant": 1.5,
            "constant or missing": np.where(np.arange(N) % 3 == 0, np.nan, 2.0),
            "one word": "same",
            "one day": pd.Timestamp("2024-02-29"),
            "empty": np.nan,
            "no words": np.full(N, None, dtype=object),
            "objects: numbers": np.array([1, 2.5, None, 4] * (N // 4), dtype=object),
            "objects: days": [datetime.date(2020, 1, 1 + k % 28) for k in range(N)],
            "objects: flags": np.array([True, False, None, True] * (N // 4), dtype=object),
            "objects: mixed": np.array([1, "a", None, 2.5] * (N // 4), dtype=object),
        },
        index=np.arange(N) + 500,
    )
    frame.loc[::7, "float"] = np.nan
    frame.loc[::11, "nullable int"] = pd.NA
    frame.loc[::9, "nullable flag"] = pd.NA
    frame.loc[505, "time"] = pd.NaT
    frame.loc[::13, "category"] = None
    return frame


def lazily(frame):
    return partitions(frame, cuts(len(frame)))


def kinds(encoder):
    return {plan.name: plan.kind for plan in encoder.columns_}


def test_kinds_and_names():
    encoder = TableEncoder().fit(mixed())
    assert kinds(encoder) == {
        **dict.fromkeys(["float", "int", "nullable int", "span", "constant", "constant or missing", "empty"], "number"),
        **dict.fromkeys(["text", "object", "category", "one word", "no words", "objects: mixed"], "category"),
        **dict.fromkeys(["flag", "nullable flag", "objects: flags"], "boolean"),
        **dict.fromkeys(["local time", "time", "one day", "objects: days"], "datetime"),
        "objects: numbers": "number",
    }
    names = list(encoder.get_feature_names_out())
    assert names[:9] == [
        *["float", "float_missing", "int", "nullable int", "nullable int_missing"],
        *["text_x", "text_y", "text_z", "object_u"],
    ]
    # The category "s" is declared but never occurs.
    values = ("p", "q", "r", "missing")
    assert [name for name in names if name.startswith("category")] == [f"category_{value}" for value in values]
    assert [name for name in names if name.startswith("time")] == [
        f"time_{part}" for part in ("year", "month", "day", "hour", "seconds", "missing")
    ]
    assert [name for name in names if name.startswith("constant")] == ["constant or missing_missing"]
    assert not [name for name in names if name.startswith(("one", "empty", "no words"))]
    assert len(set(names)) == len(names)


def test_numbers_by_definition():
    frame = mixed()
    out = TableEncoder().fit_transform(frame)
    x = frame["float"]
    expected = (x.fillna(x.mean()) - x.mean()) / x.std(ddof=0)
    np.testing.assert_allclose(out["float"], expected, atol=1e-9)
    np.testing.assert_array_equal(out["float_missing"], x.isna())
    seconds = frame["span"].dt.total_seconds()
    np.testing.assert_allclose(out["span"], (seconds - seconds.mean()) / seconds.std(ddof=0), atol=1e-12)

    plain = TableEncoder(numeric="passthrough", impute="median", add_indicator=False).fit_transform(frame)
    np.testing.assert_array_equal(plain["float"], x.fillna(x.median()))
    np.testing.assert_array_equal(plain["objects: numbers"], [1, 2.5, 2.5, 4] * (N // 4))
    assert not [name for name in plain if name.endswith("missing") and name.startswith(("float", "nullable"))]


def test_booleans_by_definition():
    frame = mixed()
    out = TableEncoder().fit_transform(frame)
    np.testing.assert_array_equal(out["flag"], frame["flag"].astype(float))
    flags = frame["nullable flag"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    np.testing.assert_allclose(out["nullable flag"], np.where(np.isnan(flags), np.nanmean(flags), flags), rtol=1e-12)
    np.testing.assert_array_equal(out["objects: flags_missing"], [0, 0, 1, 0] * (N // 4))


def test_datetimes_by_definition():
    frame = mixed()
    out = TableEncoder(numeric="passthrough").fit_transform(frame)
    local = frame["local time"]
    for part in ("year", "month", "day", "hour"):
        np.testing.assert_array_equal(out[f"local time_{part}"], getattr(local.dt, part))
    seconds = local.map(lambda time: time.timestamp())
    np.testing.assert_allclose(out["local time_seconds"], (seconds - seconds.mean()) / seconds.std(ddof=0), atol=1e-9)
    hour = frame["time"].dt.hour
    np.testing.assert_allclose(out["time_hour"], hour.fillna(hour.mean()), rtol=1e-12)
    np.testing.assert_array_equal(out["objects: days_day"], [1 + k % 28 for k in range(N)])


def test_categories_by_definition():
    frame = mixed()
    out = TableEncoder().fit_transform(frame)
    for column, values in {"text": "xyz", "object": "uv", "category": "pqr"}.items():
        for value in values:
            np.testing.assert_array_equal(out[f"{column}_{value}"], (frame[column] == value).astype(float))
    np.testing.assert_array_equal(out["category_missing"], frame["category"].isna())
    np.testing.assert_array_equal(out["objects: mixed_1"], [1, 0, 0, 0] * (N // 4))


def test_rare_values_share_a_column():
    words = ["a"] * 50 + ["b"] * 30 + ["c"] * 3 + ["d"] * 2 + [None] * 11
    frame = pd.DataFrame({"w": words})
    encoder = TableEncoder(max_categories=3).fit(lazily(frame))
    assert list(encoder.get_feature_names_out()) == ["w_a", "w_b", "w_infrequent", "w_missing"]
    out = encoder.transform(frame)
    np.testing.assert_array_equal(out.sum(), [50, 30, 5, 11])
    assert list(TableEncoder(max_categories=4).fit(frame).get_feature_names_out()) == [
        f"w_{value}" for value in ("a", "b", "c", "d", "missing")
    ]
    many = pd.DataFrame({"w": [f"w{k}" for k in range(N)]})
    assert len(TableEncoder(max_categories=None).fit(many).get_feature_names_out()) == N


def test_unknown_and_newly_missing_values():
    frame = pd.DataFrame({"w": ["a", "b", "c"] * 10, "x": np.arange(30.0)})
    encoder = TableEncoder().fit(frame)
    out = encoder.transform(pd.DataFrame({"w": ["new", None, "a"], "x": [np.nan, 14.5, 14.5]}))
    np.testing.assert_array_equal(out, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    # None and NaN are one thing, whichever of them was met first.
    seen = TableEncoder().fit(pd.DataFrame({"w": np.array(["a", "b", None], dtype=object)}))
    out = seen.transform(pd.DataFrame({"w": np.array([np.nan, None, pd.NA], dtype=object)}))
    np.testing.assert_array_equal(out["w_missing"], [1, 1, 1])


@pytest.mark.parametrize(
    "options",
    [{}, {"impute": "median", "numeric": "passthrough"}, {"max_categories": 2, "dtype": np.float32}],
    ids=str,
)
def test_dask_frame_is_pandas(options):
    frame = mixed()
    whole, chunked = TableEncoder(**options).fit(frame), TableEncoder(**options).fit(lazily(frame))
    assert chunked.describe() == whole.describe()
    expected, out = whole.transform(frame), chunked.transform(lazily(frame))
    assert list(out.columns) == list(expected.columns) and list(out.dtypes) == list(expected.dtypes)
    assert out.npartitions == 5
    pd.testing.assert_frame_equal(out.compute(), expected, rtol=1e-12, atol=1e-12)


def test_strings_and_categories_as_dask_reads_them():
    """Dask turns objects into pyarrow strings, and has categories it does not know."""
    import dask.dataframe as dd

    frame = pd.DataFrame({"w": list("abc") * 8, "x": np.arange(24.0)})
    lazy = dd.from_pandas(frame, npartitions=3)
    lazy["c"] = lazy["w"].astype("category")
    assert not lazy["c"].cat.known
    encoder = TableEncoder().fit(lazy)
    assert list(encoder.get_feature_names_out()) == ["w_a", "w_b", "w_c", "x", "c_a", "c_b", "c_c"]
    expected = TableEncoder().fit_transform(frame.assign(c=frame.w.astype("category")))
    np.testing.assert_allclose(encoder.transform(lazy).compute(), expected, rtol=1e-12)


def test_polars_in_polars_out():
    import polars as pl

    frame = mixed().drop(columns=["objects: mixed", "objects: numbers"])
    table = pl.from_pandas(frame)
    encoder = TableEncoder().fit(table)
    out = encoder.transform(table)
    assert isinstance(out, pl.DataFrame)
    expected = TableEncoder().fit_transform(frame)
    assert out.columns == list(expected.columns)
    np.testing.assert_allclose(out.to_numpy(), expected, rtol=1e-9, atol=1e-9)


def test_plain_numbers_follow_the_rules_for_numbers():
    rng = np.random.default_rng(4)
    X = np.c_[rng.normal(5, 2, (N, 3)), np.ones(N)]
    expected = StandardScaler().fit_transform(X[:, :3])
    np.testing.assert_allclose(TableEncoder().fit_transform(X), expected, rtol=1e-9, atol=1e-12)
    X[::5, 1] = np.nan
    out = TableEncoder(numeric="passthrough", impute="median").fit_transform(X)
    filled = np.where(np.isnan(X[:, 1]), np.nanmedian(X[:, 1]), X[:, 1])
    np.testing.assert_array_equal(out, np.c_[X[:, 0], filled, np.isnan(X[:, 1]), X[:, 2]])


@pytest.mark.parametrize("impute", ["mean", "median"])
def test_sparse_numbers_are_scaled_not_centred(impute):
    rng = np.random.default_rng(5)
    X = rng.normal(5, 2, (N, 4)) * (rng.random((N, 4)) < 0.4)
    X[:, 2] = 0
    X[::10, 1] = np.nan
    encoder = TableEncoder(impute=impute).fit(sparse.csr_matrix(X))
    out = encoder.transform(sparse.csr_matrix(X))
    assert sparse.issparse(out)
    fill = (np.nanmean if impute == "mean" else np.nanmedian)(X[:, 1])
    filled = np.where(np.isnan(X[:, 1]), fill, X[:, 1]) / np.nanstd(X[:, 1])
    expected = np.c_[X[:, 0] / X[:, 0].std(), filled, np.isnan(X[:, 1]), X[:, 3] / X[:, 3].std()]
    np.testing.assert_allclose(out.toarray(), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="fitted on sparse data"):
        encoder.transform(X)


def test_lists_and_object_arrays_keep_numbers_numbers():
    rows = [[1.0, "a"], [2.0, "b"], [3.0, "a"]]
    for table in (rows, np.array(rows, dtype=object)):
        encoder = TableEncoder().fit(table)
        assert [plan.kind for plan in encoder.columns_] == ["number", "category"]
        assert list(encoder.get_feature_names_out()) == ["x0", "x1_a", "x1_b"]
        assert list(encoder.get_feature_names_out(["p", "q"])) == ["p", "q_a", "q_b"]


def test_names_that_collide_get_numbers():
    frame = pd.DataFrame({"w": ["missing", None, "a"] * 3, "w_a": np.arange(9.0)})
    names = list(TableEncoder().fit(frame).get_feature_names_out())
    assert names == ["w_a", "w_missing", "w_missing_2", "w_a_2"]


def test_report_says_what_became_of_each_column(capsys):
    encoder = TableEncoder(verbose=1).fit(lazily(mixed()))
    assert capsys.readouterr().out.strip() == encoder.describe()
    lines = encoder.describe().splitlines()
    assert len(lines) == mixed().shape[1] and "dropped: constant" in encoder.describe()
    report = encoder.report_.set_index("column")
    assert report.loc["empty", "treatment"] == "dropped: all missing"
    assert report.loc["text", "distinct"] == 3 and report.loc["float", "missing"] == mixed()["float"].isna().sum()
    assert report["outputs"].sum() == len(encoder.get_feature_names_out())


def test_numbers_that_came_as_words_are_remarked_upon():
    frame = pd.DataFrame({"n": [str(k) for k in range(30)] + ["n/a"], "w": ["a", "b", "c"] * 10 + ["1"]})
    treatment = TableEncoder().fit(frame).report_["treatment"]
    assert "look like numbers" in treatment[0] and "look like numbers" not in treatment[1]


def test_one_pass_over_the_data():
    read = []

    def count(part):
        read.append(len(part))
        return part

    lazy = lazily(mixed()).map_partitions(count, meta=mixed().iloc[:0])
    with config_context(runtime="debug"):
        TableEncoder().fit(lazy)
    assert sum(read) == N


@pytest.mark.parametrize("make", [lambda frame: frame, lazily], ids=["pandas", "dask"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda frame: frame.assign(other=1), "unseen at fit time:\n- other"),
        (lambda frame: frame.assign(float="word"), "'float' was of kind number in fit and"),
        (lambda frame: frame.assign(text=3), "'text' was of kind category in fit and is of kind number now"),
        (lambda frame: frame.assign(time="noon"), "'time' was of kind datetime in fit and"),
    ],
    ids=["extra", "number", "text", "time"],
)
def test_changed_columns_are_one_sentence(make, change, message):
    encoder = TableEncoder().fit(make(mixed()))
    with pytest.raises(ValueError, match=message):
        out = encoder.transform(make(change(mixed())))
        # Before pandas 3 words have the dtype of any object: only their values tell.
        if hasattr(out, "compute"):
            out.compute()


def test_changed_objects_are_found_when_computed():
    frame = mixed()[["objects: numbers", "objects: days"]]
    encoder = TableEncoder().fit(frame)
    for column, value in (("objects: numbers", "word"), ("objects: days", 3)):
        changed = frame.astype(object)
        changed.loc[520, column] = value
        with pytest.raises(ValueError, match=f"Column '{column}' was of kind"):
            encoder.transform(changed)
        with pytest.raises(ValueError, match=f"Column '{column}' was of kind"):
            encoder.transform(lazily(changed)).compute()


def test_bad_input_is_one_sentence():
    infinite = mixed().assign(int=np.r_[np.inf, np.ones(N - 1)])
    for table in (infinite, lazily(infinite)):
        with pytest.raises(ValueError, match="infinity"):
            TableEncoder().fit(table)
    with pytest.raises(ValueError, match="infinity in column 'int'"):
        TableEncoder().fit(mixed()).transform(infinite)
    with pytest.raises(ValueError, match="Complex data not supported"):
        TableEncoder().fit(pd.DataFrame({"z": [1j, 2j]}))
    with pytest.raises(TypeError, match="must be a string or a number"):
        TableEncoder().fit(pd.DataFrame({"z": [[1], [2]]}))
    for options in ({"numeric": "rank"}, {"impute": "mode"}, {"max_categories": 0}, {"dtype": int}, {"verbose": -1}):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}' parameter of TableEncoder"):
            TableEncoder(**options).fit(mixed())


def test_dropping_everything_is_said():
    with pytest.warns(UserWarning, match="dropped every column"):
        assert TableEncoder().fit_transform(pd.DataFrame({"x": [1, 1]})).shape == (2, 0)


def test_too_many_distinct_words_are_dropped(monkeypatch):
    monkeypatch.setattr("daskdml.preprocessing._table.MAX_DISTINCT", 20)
    frame = pd.DataFrame({"id": [f"id{k % 24}" for k in range(N)], "w": list("ab") * (N // 2)})
    for table in (frame, lazily(frame)):
        encoder = TableEncoder().fit(table)
        assert list(encoder.get_feature_names_out()) == ["w_a", "w_b"]
        assert "distinct values" in encoder.columns_[0].treatment and encoder.columns_[0].suffixes == ()


def test_works_in_a_pipeline_and_gives_polars():
    import polars as pl

    frame = mixed()
    y = frame["flag"].to_numpy()
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, y)
    assert model.score(frame, y) == 1.0
    encoder = clone(model[0]).set_output(transform="polars").fit(frame)
    assert isinstance(encoder.transform(frame), pl.DataFrame)


@pytest.mark.skipif(not (DATA / "adult.data.gz").exists(), reason="the Adult census data are not here")
def test_adult_census():
    columns = (
        "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
        "capital-loss hours-per-week native-country income"
    ).split()
    read = {"names": columns, "skipinitialspace": True, "na_values": "?"}
    # The first record of the training file is broken over two lines.
    train = pd.read_csv(DATA / "adult.data.gz", skiprows=2, **read)
    test = pd.read_csv(DATA / "adult.test.gz", skiprows=1, **read)
    y, y_test = train.pop("income") == ">50K", test.pop("income") == ">50K."
    encoder = TableEncoder().fit(train)
    lazy = TableEncoder().fit(lazily(train))
    assert lazy.describe() == encoder.describe()
    assert sum(kind == "number" for kind in kinds(encoder).values()) == 6
    assert {"workclass_missing", "native-country_missing", "sex_Female", "age"} <= set(encoder.get_feature_names_out())
    model = LogisticRegression(max_iter=1000).fit(encoder.transform(train), y)
    assert model.score(encoder.transform(test), y_test) > 0.85
    np.testing.assert_allclose(lazy.transform(lazily(test)).compute(), encoder.transform(test), rtol=1e-9, atol=1e-12)


@pytest.mark.cluster
def test_on_a_cluster(cluster_client):
    frame = mixed()
    encoder = TableEncoder(impute="median").fit(lazily(frame))
    with config_context(runtime="threads"):
        in_process = TableEncoder(impute="median").fit(lazily(frame))
    assert encoder.describe() == in_process.describe()
    pd.testing.assert_frame_equal(encoder.transform(lazily(frame)).compute(), in_process.transform(frame))


def test_every_datetime_may_have_a_timezone_of_its_own():
    zones = [datetime.timezone(datetime.timedelta(hours=h)) for h in (-5, 0, 9)]
    times = [datetime.datetime(2020 + i % 2, 1 + i % 12, 1 + i, i, tzinfo=zones[i % 3]) for i in range(20)]
    times[4] = None
    frame = pd.DataFrame({"t": pd.Series(times, dtype=object)})
    present = [time for time in times if time is not None]
    for table in (frame, partitions(frame, cuts(20))):
        encoder = TableEncoder(numeric="passthrough").fit(table)
        out = encoder.transform(table)
        out = (out.compute() if hasattr(out, "compute") else out).drop(index=4)
        for part in ("year", "month", "day", "hour"):
            assert out[f"t_{part}"].tolist() == [getattr(time, part) for time in present]
        seconds = np.array([time.timestamp() for time in present])
        np.testing.assert_allclose(np.corrcoef(out["t_seconds"], seconds)[0, 1], 1)
        assert out["t_missing"].sum() == 0


def test_dates_that_no_one_can_read_are_refused_in_fit():
    frame = pd.DataFrame({"t": pd.Series([np.datetime64("2020-01-01"), datetime.date(2020, 1, 2)], dtype=object)})
    with pytest.raises(ValueError, match="Column 't' looks like one of kind datetime, but .* give them one type"):
        TableEncoder().fit(frame)


def test_names_may_occur_twice():
    frame = pd.DataFrame([[1.0, "u"], [2.0, "v"], [4.0, "u"]], columns=["a", "a"])
    for encoder, names in ((TableEncoder(), ["a", "a_u", "a_v"]), (OneHotEncoder(sparse_output=False), None)):
        other = frame.set_axis(["a", "b"], axis=1)
        found, expected = encoder.fit_transform(frame), clone(encoder).fit_transform(other)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        assert names is None or list(found.columns) == names


def test_a_series_is_no_table():
    import dask.dataframe as dd

    series = pd.Series([1.0, 2.0], name="a")
    for column in (series, dd.from_pandas(series, npartitions=1)):
        with pytest.raises(ValueError, match="^Expected (a 2-dimensional container|2D array)") as error:
            TableEncoder().fit(column)
        assert "Dask Series Structure" not in str(error.value)


@pytest.mark.parametrize(
    "encoder, match",
    [
        (TableEncoder(dtype="foo"), "TableEncoder must be float32 or float64. Got 'foo' instead"),
        (TableEncoder(dtype=int), "TableEncoder must be float32 or float64. Got <class 'int'> instead"),
        (OneHotEncoder(dtype="foo"), "OneHotEncoder must be a NumPy dtype or the name of one. Got 'foo' instead"),
    ],
    ids=str,
)
def test_dtypes_that_are_none(encoder, match):
    with pytest.raises(ValueError, match="^The 'dtype' parameter of " + match):
        encoder.fit(pd.DataFrame({"a": [1.0, 2.0]}))


def test_warning_names_the_line_that_called_fit():
    with pytest.warns(UserWarning, match="dropped every column") as found:
        TableEncoder().fit(pd.DataFrame({"a": [1.0, 1.0]}))
    assert found[0].filename == __file__
