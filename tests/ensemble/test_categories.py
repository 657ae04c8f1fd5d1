"""Categorical features: scikit-learn's trees, on every kind of table, cut in any way."""

import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn import ensemble as reference

from daskdml import config_context
from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.testing import SimulatedCluster
from daskdml.testing.tables import cuts, dense, partitions
from daskdml.trees import binning

PARAMS = {"max_iter": 2, "early_stopping": False, "max_leaf_nodes": 8, "min_samples_leaf": 5}


def columns(n=3000, n_categories=12, missing=0.1, seed=0):
    """Return numbers, the numbers of categories (-1 for missing ones), and targets that tell all of them apart."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 20, n).astype(np.float64)
    category = rng.integers(0, n_categories, n)
    effect = rng.permutation(n_categories + 1) ** 1.5 * (10 / n_categories)
    y = effect[category] + 0.37 * number * (category % 3 == 1) + 0.01 * rng.normal(size=n)
    category[rng.random(n) < missing] = -1
    number[rng.random(n) < missing] = np.nan
    return number, category, y


def words_of(category):
    """Return words whose order is not that of the numbers, None for -1."""
    words = np.array([f"w{i * 7919 % 1009:04d}" for i in range(category.max() + 1)] + [None], dtype=object)
    return words[category]


def frame_of(number, category, **others):
    return pd.DataFrame({"number": number, "word": pd.Categorical(words_of(category)), **others})


def trees_of(model):
    return [tree for iteration in model._model.trees for tree in iteration]


def bits(model):
    parts = [part for tree in trees_of(model) for part in tree]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in (*parts, model._model.baseline))


def pair(kind="Regressor", **params):
    """Return our estimator and scikit-learn's of the same parameters."""
    ours = {"Regressor": HistGradientBoostingRegressor, "Classifier": HistGradientBoostingClassifier}[kind]
    params = {**PARAMS, **params}
    return ours(**params), getattr(reference, ours.__name__)(**params)


def same_trees(ours, theirs):
    """Compare all nodes, walking down both trees together; scikit-learn puts categories before numbers.

    Of an odd number of categories one cut in two is tried from both sides, and the last bit of a sum says which of them
    scikit-learn calls left.
    """
    mask = theirs.is_categorical_
    place = [*np.flatnonzero(mask), *np.flatnonzero(~mask)]
    predictors = [predictor for iteration in theirs._predictors for predictor in iteration]
    n_sets = 0
    for tree, predictor in zip(trees_of(ours), predictors, strict=True):
        stack = [(0, 0)]
        while stack:
            i, j = stack.pop()
            node = predictor.nodes[j]
            assert bool(tree.is_leaf[i]) == bool(node["is_leaf"])
            assert tree.count[i] == node["count"]
            if tree.is_leaf[i]:
                assert tree.value[i] == pytest.approx(node["value"], rel=1e-5, abs=1e-7)
                continue
            assert tree.feature[i] == place[node["feature_idx"]]
            assert (tree.categories[i] >= 0) == bool(node["is_categorical"])
            sides = [node["left"], node["right"]]
            if node["is_categorical"]:
                words = predictor.raw_left_cat_bitsets[node["bitset_idx"]].astype("<u4")
                theirs_left = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
                theirs_left[255], ours_left = node["missing_go_to_left"], tree.left_bins[tree.categories[i]].copy()
                ours_left[255] = tree.missing_left[i]
                n_sets += 1
                if (ours_left & theirs_left).any():
                    np.testing.assert_array_equal(ours_left, theirs_left)
                else:
                    sides = sides[::-1]
            else:
                assert tree.threshold[i] == node["num_threshold"]
                assert bool(tree.missing_left[i]) == bool(node["missing_go_to_left"])
            stack += zip((tree.left[i], tree.left[i] + 1), sides)
    assert n_sets > 0


# scikit-learn's trees -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_categories", [2, 12, 40, 255])
@pytest.mark.parametrize("missing", [0, 0.1])
def test_regression_trees_are_scikit_learns(n_categories, missing):
    number, category, y = columns(6000, n_categories, missing)
    X = frame_of(number, category)
    ours, theirs = (model.fit(X, y) for model in pair())
    same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)
    np.testing.assert_array_equal(ours.is_categorical_, theirs.is_categorical_)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classification_trees_are_scikit_learns(n_classes):
    number, category, y = columns(seed=1)
    X, y = frame_of(number, category), np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    ours, theirs = (model.fit(X, y) for model in pair("Classifier", max_leaf_nodes=4))
    same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-5)


def test_rare_categories_and_weights():
    number, category, y = columns(seed=3)
    category[:7], category[7:11] = 20, 21  # too few to be told from others
    X, weight = frame_of(number, category), np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    for weights in (None, weight):
        ours, theirs = (model.fit(X, y, sample_weight=weights) for model in pair())
        same_trees(ours, theirs)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


@pytest.mark.parametrize("missing", [0, 0.1])
def test_unknown_categories_are_missing(missing):
    """Also those of rows without weight are known, and those that only the dtype declares are not."""
    number, category, y = columns(missing=missing)
    weight = np.ones(len(y))
    category[:40], weight[:40] = 12, 0.0
    X = frame_of(number, category)
    X["word"] = X["word"].cat.add_categories(["declared"])
    ours, theirs = (model.fit(X, y, sample_weight=weight) for model in pair(max_leaf_nodes=None))
    assert "declared" not in ours._coding.categories[1] and len(ours._coding.categories[1]) == 13
    rows = pd.DataFrame({"number": 7.0, "word": [*words_of(np.arange(-1, 13)), "declared", "never met", np.nan]})
    for dtype in (object, "category"):
        new = rows.assign(word=rows["word"].astype(dtype))
        np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-6)
    found = ours.predict(rows)
    assert found[0] == found[-1] == found[-2] == found[-3]


def test_one_category_and_none():
    number, category, y = columns()
    for column in (np.zeros(len(y), int), np.full(len(y), -1)):
        X = pd.DataFrame({"number": number, "word": pd.Categorical(np.array(["a", None], dtype=object)[column])})
        ours, theirs = (model.fit(X, y) for model in pair())
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


def test_one_category_and_missing_values():
    """As if it were a number. scikit-learn's tree is the same, but sends all rows of the category to the right."""
    number, category, y = columns()
    y = y + np.where(category < 3, 5.0, 0.0)
    X = np.column_stack([np.where(category < 3, np.nan, 7.0), number])
    params = {**PARAMS, "min_samples_leaf": 20}
    ours = HistGradientBoostingRegressor(**params, categorical_features=[0]).fit(X, y)
    theirs = reference.HistGradientBoostingRegressor(**params).fit(X, y)
    assert any((tree.categories >= 0).any() for tree in trees_of(ours))
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


def test_interactions_and_importances():
    number, category, y = columns()
    X = frame_of(number, category)
    model = HistGradientBoostingRegressor(**PARAMS, interaction_cst="no_interactions").fit(X, y)
    for tree in trees_of(model):
        assert len(set(tree.feature[tree.feature >= 0])) == 1
    model = HistGradientBoostingRegressor(**PARAMS).fit(X, y)
    assert model.feature_importances_.sum() == pytest.approx(1) and model.feature_importances_[1] > 0.5


# What may be said -----------------------------------------------------------------------------------------------------


def test_how_features_are_marked():
    number, category, y = columns(missing=0)
    X = pd.DataFrame({"number": number, "code": category * 1.5 - 3})
    expected, theirs = (model.set_params(categorical_features=["code"]).fit(X, y) for model in pair())
    same_trees(expected, theirs)
    for table, given in (
        (X, [1]), (X, [False, True]), (X, np.array(["code"])), (X, pd.Index(["code"])), (X, np.array(["code"], object)),
        (X, [1, 1]), (X.to_numpy(), np.array([1])), (X.to_numpy(), (False, True)), (X.to_numpy().tolist(), [1]),
        (pl.from_pandas(X), ["code"]), (dd.from_pandas(X, npartitions=3), ["code"]),
    ):  # fmt: skip
        model = HistGradientBoostingRegressor(**PARAMS, categorical_features=given).fit(table, y)
        assert bits(model) == bits(expected), f"{type(table)}, {given}"
        assert model.is_categorical_.tolist() == [False, True]
        np.testing.assert_array_equal(dense(model.predict(table)), expected.predict(X))
    for table, given in (
        (X, None), (X, "from_dtype"), (X.to_numpy(), "from_dtype"), (X, []), (X, [False, False]),
        (X.astype({"code": "category"}).astype(float), "from_dtype"),
    ):  # fmt: skip
        model = HistGradientBoostingRegressor(**PARAMS, categorical_features=given).fit(table, y)
        assert model.is_categorical_ is None and bits(model) != bits(expected)


def test_bad_values_are_scikit_learns_sentences():
    number, category, y = columns(n=200)
    X = np.column_stack([number, category])
    frame = pd.DataFrame(X, columns=["a", "b"])
    for given, table in (
        ([b"hello", b"world"], X), (np.array([b"hello", 1.3], dtype=object), X), ([0.5], X), ([0, -1], X), ([2], X),
        ([True], X), ([True] * 3, X), (["a"], X), (["a", "c"], frame), (np.array([1], np.uint8), X),
        ([None, "a"], frame),
    ):  # fmt: skip
        ours, theirs = pair(categorical_features=given)
        with pytest.raises(ValueError) as said:
            theirs.fit(table, y)
        with pytest.raises(ValueError) as found:
            ours.fit(table, y)
        assert str(found.value) == str(said.value)
    with pytest.raises(ValueError, match="categorical_features.*must be array-like or one of 'from_dtype' or None"):
        HistGradientBoostingRegressor(categorical_features="b").fit(X, y)
    with pytest.raises(ValueError, match="^Categorical features cannot have monotonic constraints.$"):
        HistGradientBoostingRegressor(categorical_features=[1], monotonic_cst=[0, 1]).fit(X, y)
    HistGradientBoostingRegressor(categorical_features=[1], monotonic_cst=[1, 0]).fit(X, y)


def test_too_many_categories_are_named():
    number, category, y = columns(n=500, n_categories=30, missing=0)
    X, array = frame_of(number, category), np.column_stack([number, category])
    text = r"Categorical feature {} is expected to have a cardinality <= 29 but actually has more categories"
    for table in (X, dd.from_pandas(X, npartitions=7), pl.from_pandas(X)):
        with pytest.raises(ValueError, match=text.format("'word'")):
            HistGradientBoostingRegressor(max_bins=29).fit(table, y)
        assert HistGradientBoostingRegressor(**PARAMS, max_bins=30).fit(table, y).is_categorical_[1]
    for table in (array, da.from_array(array, chunks=(60, 2)), sparse.csr_matrix(array)):
        with pytest.raises(ValueError, match=text.format("at index 1")):
            HistGradientBoostingRegressor(max_bins=29, categorical_features=[1]).fit(table, y)


def test_what_cannot_be_sorted_is_a_sentence():
    number, category, y = columns(n=200)
    column = np.where(category % 2 == 0, category.astype(object), "odd")
    frame = pd.DataFrame({"a": number, "b": pd.Series(column, dtype=object)})
    for table in (np.column_stack([number.astype(object), column]), frame):
        with pytest.raises(TypeError, match=r"uniformly strings or numbers. Got \['int', 'str'\]"):
            HistGradientBoostingRegressor(categorical_features=[1]).fit(table, y)


def test_words_that_are_not_marked_name_the_cure():
    number, category, y = columns(n=200)
    X = frame_of(number, category, town=["Bern", "Oslo"] * 100)
    for table in (X, pl.from_pandas(X), dd.from_pandas(X, npartitions=3)):
        with pytest.raises(ValueError, match="'town'.*TableEncoder"):
            HistGradientBoostingRegressor().fit(table, y)
    model = HistGradientBoostingRegressor(**PARAMS, categorical_features=["word", "town"]).fit(X, y)
    with pytest.raises(ValueError, match="'number'.*TableEncoder"):
        model.predict(X.assign(number="ten"))


# Kinds of tables ------------------------------------------------------------------------------------------------------


def mixed():
    """Return a frame with all that may stand beside each other, the same in scikit-learn's eyes, and targets."""
    number, category, y = columns(n=1500)
    rng = np.random.default_rng(0)
    y = y + 3.0 * (category % 5 == 2)
    X = frame_of(
        number, category, flag=rng.random(len(y)) < 0.5, whole=pd.array(rng.integers(0, 9, len(y)), dtype="Int64"),
        digit=pd.Categorical(category % 5, categories=[4, 3, 2, 1, 0, 9], ordered=True),
        narrow=rng.integers(0, 5, len(y)).astype(np.float32),
    )  # fmt: skip
    X.loc[::17, "whole"] = pd.NA
    X.index = np.arange(len(y)) * 10
    return X, y


def unlike(X):
    """Return X in partitions whose columns of categories have other categories each, or are plain words."""
    pieces = []
    for i, rows in enumerate(np.split(np.arange(len(X)), np.cumsum(cuts(len(X)))[:-1])):
        piece = X.iloc[rows]
        word = piece["word"].cat.remove_unused_categories()
        word = word.cat.reorder_categories(word.cat.categories[::-1].tolist(), ordered=True)
        digit = piece["digit"].cat.remove_unused_categories().cat.as_unordered()
        pieces.append(piece.assign(word=word.astype(object) if i == 3 else word, digit=digit))
    return dd.from_map(_take, range(len(pieces)), pieces=pieces, meta=X.iloc[:0])


TABLES = {
    "polars": pl.from_pandas,
    "polars enum": lambda X: pl.from_pandas(X).with_columns(pl.col("word").cast(pl.Enum(X["word"].cat.categories))),
    "pyarrow": lambda X: pl.from_pandas(X).to_arrow(),
    "dask": lambda X: partitions(X, cuts(len(X))),
    "dask unknown": lambda X: dd.from_pandas(X.astype({"word": object}), npartitions=4).astype({"word": "category"}),
    "dask unlike": unlike,
    "dask one-row partitions": lambda X: partitions(X, (1,) * 20 + (len(X) - 20,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_kind_of_table_does_not_matter(kind):
    X, y = mixed()
    table = TABLES[kind](X)
    marked = {"categorical_features": ["word", "digit"]} if "polars" in kind or kind == "pyarrow" else {}
    expected = HistGradientBoostingClassifier(**PARAMS, **marked).fit(X, y > 3)
    model = HistGradientBoostingClassifier(**PARAMS, **marked).fit(table, y > 3)
    assert bits(model) == bits(expected)
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        found = getattr(model, name)(table)
        assert hasattr(found, "dask") == kind.startswith("dask")
        np.testing.assert_array_equal(dense(found), getattr(expected, name)(X))
    if kind.startswith("dask"):
        assert list(model.predict(table).compute().index) == list(X.index)
    else:
        for name in ("staged_predict", "staged_predict_proba", "staged_decision_function"):
            np.testing.assert_array_equal(list(getattr(model, name)(table)), list(getattr(expected, name)(X)))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[X.columns[::-1]])


def test_a_mixed_table_has_scikit_learns_trees():
    X, y = mixed()
    ours, theirs = (model.fit(X, y) for model in pair())
    same_trees(ours, theirs)


def test_dtypes_of_polars_are_told():
    X, y = mixed()
    table = TABLES["polars enum"](X).with_columns(pl.col("digit").cast(pl.Int64).cast(pl.String).cast(pl.Categorical))
    model = HistGradientBoostingRegressor(**PARAMS).fit(table, y)
    assert model.is_categorical_.tolist() == (X.dtypes == "category").tolist()
    assert HistGradientBoostingRegressor(**PARAMS).fit(table.to_arrow(), y).is_categorical_.tolist() == [
        False, True, False, False, True, False,
    ]  # fmt: skip


ARRAYS = {
    "fortran": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "int": lambda X: X.astype(np.int16),
    "object": lambda X: X.astype(object),
    "dask": lambda X: da.from_array(X, chunks=((700, 0, 2300), 1)),
    "dask unknown": lambda X: da.from_array(X, chunks=(700, 1))[da.ones(3000, chunks=700) > 0],
    "dask object": lambda X: da.from_array(X.astype(object), chunks=(800, 2)),
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_array,
    "dask csr": lambda X: da.from_array(X, chunks=(800, 2)).map_blocks(sparse.csr_matrix),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_with_categories(kind):
    number, category, y = columns(missing=0 if kind == "int" else 0.1)
    X = np.column_stack([np.nan_to_num(number), np.where(category < 0, np.nan, category * 3 - 10)])
    ours, theirs = (model.fit(X, y) for model in pair(categorical_features=[1]))
    same_trees(ours, theirs)
    table = ARRAYS[kind](X)
    model = HistGradientBoostingRegressor(**PARAMS, categorical_features=[1]).fit(table, y)
    assert bits(model) == bits(ours)
    np.testing.assert_array_equal(dense(model.predict(table)), ours.predict(X))
    new = X[:20].copy()
    new[:, 1] = np.linspace(-12, 20, 20).round(1)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-6)
    np.testing.assert_array_equal(ours.predict(sparse.csr_matrix(new)), ours.predict(new))
    if kind in ("csr", "csc"):
        np.testing.assert_array_equal(list(ours.staged_predict(table)), list(ours.staged_predict(X)))


def test_words_in_arrays_and_lists():
    number, category, y = columns(missing=0)
    X = np.column_stack([number.astype(object), words_of(category)])
    ours, theirs = (model.fit(X, y) for model in pair(categorical_features=[1]))
    same_trees(ours, theirs)
    for table in (X.tolist(), X.astype(str), da.from_array(X, chunks=(700, 1))):
        model = HistGradientBoostingRegressor(**PARAMS, categorical_features=[1]).fit(table, y)
        assert bits(model) == bits(ours)
        np.testing.assert_array_equal(dense(model.predict(table)), ours.predict(X))
    np.testing.assert_array_equal(ours.predict(X.tolist()[:3]), ours.predict(X)[:3])
    with pytest.raises(ValueError, match="no numbers"):
        HistGradientBoostingRegressor().fit(X, y)


@pytest.mark.parametrize("kind", ["intervals", "days", "flags", "text", "tuples", "arrow words", "nullable"])
def test_categories_of_any_type(kind):
    number, category, y = columns(missing=0)
    values = {
        "intervals": pd.IntervalIndex.from_breaks(np.arange(13.0)),
        "days": pd.date_range("2020-02-27", periods=12),
        "flags": [False, True] * 6,
        "text": [f"t{i}" for i in range(10, 22)],
        "tuples": [(i // 4, i % 4) for i in range(12)],
        "arrow words": pd.array([f"t{i}" for i in range(10, 22)], dtype="string[pyarrow]"),
        "nullable": pd.array(range(12), dtype="Int8"),
    }[kind]
    column = pd.Series(pd.Index(values, tupleize_cols=False)).take(category).reset_index(drop=True)
    X = pd.DataFrame({"number": number, "thing": column})
    X.loc[:50, "thing"] = None if kind != "flags" else False
    found = []
    for dtype in ("category", None):
        table = X if dtype is None else X.assign(thing=X["thing"].astype(dtype))
        for given in (table, partitions(table, cuts(len(table)))):
            if kind in ("tuples", "intervals") and dtype is None and not isinstance(given, pd.DataFrame):
                continue  # Dask has no such columns
            model = HistGradientBoostingRegressor(**PARAMS, categorical_features=["thing"]).fit(given, y)
            found.append((bits(model), dense(model.predict(given)).tobytes()))
    assert len(set(found)) == 1
    shuffled = X.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(model.predict(shuffled), pd.Series(model.predict(X), X.index)[shuffled.index])


# Chunks, workers ------------------------------------------------------------------------------------------------------


N = 20_000


@pytest.fixture
def case(monkeypatch):
    """Rows of which the sample misses categories, values and holes; and the bits of the fit in memory."""
    monkeypatch.setattr(binning, "SAMPLE_ROWS", 1000)
    number, category, y = columns(N, 50)
    category[N // 2 : N // 2 + 12] = 60
    X = frame_of(number, category, real=np.random.default_rng(0).normal(size=N))
    return X, y, bits(make().fit(X, y))


def make():
    return HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=15, random_state=0, rounding="stochastic")


@pytest.mark.parametrize("memory", ["auto", "stream", "mmap"])
def test_chunks(case, memory):
    X, y, expected = case
    for lengths in ((N,), (1, N - 1), (7000, 0, 6000, 7000), (500,) * 40):
        lazy = partitions(X, lengths)
        targets = da.from_array(y, chunks=(lengths,))
        with config_context(memory=memory):
            assert bits(make().fit(lazy, targets)) == expected


@pytest.mark.parametrize("n_workers", [1, 3])
def test_workers(case, n_workers):
    X, y, expected = case
    cluster = SimulatedCluster(n_workers, rows_per_block=1024)
    assert bits(cluster.fit(make(), X, y)) == expected
    assert bits(cluster.fit(make(), partitions(X, cuts(N)), y)) == expected


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_deaths(case, share):
    X, y, expected = case
    quiet = SimulatedCluster(3, rows_per_block=1024, seconds_per_row=0.0)
    assert bits(quiet.fit(make(), X, y)) == expected
    kills = [(share * quiet.report.seconds, 1)]
    cluster = SimulatedCluster(3, rows_per_block=1024, kills=kills, seconds_per_row=0.0)
    assert bits(cluster.fit(make(), X, y)) == expected
    assert cluster.report.generations == 2


@pytest.mark.cluster
@pytest.mark.parametrize("memory", ["pinned", "stream", "mmap"])
def test_on_a_cluster(case, cluster_client, memory):
    X, y, expected = case
    lazy = unlike_words(X)
    with config_context(memory=memory):
        model = make().fit(lazy, y)
    assert "workers" in model.fit_report_.where
    assert bits(model) == expected
    found = model.predict(lazy).compute()
    np.testing.assert_array_equal(found, make().fit(X, y).predict(X))
    with config_context(runtime="spmd"):
        assert bits(make().fit(pl.from_pandas(X), y)) == expected


def unlike_words(X):
    pieces = []
    for rows in np.split(np.arange(len(X)), [3000, 3001, 3001, 15_000]):
        piece = X.iloc[rows]
        pieces.append(piece.assign(word=piece["word"].cat.remove_unused_categories().cat.as_ordered()))
    return dd.from_map(_take, range(len(pieces)), pieces=pieces, meta=X.iloc[:0])


def _take(i, pieces):
    return pieces[i]


def test_prediction_on_dask_reads_nothing():
    X, y = mixed()
    model = HistGradientBoostingRegressor(**PARAMS).fit(X, y)

    def explode(rows):
        raise AssertionError("computed")

    lazy = dd.from_pandas(X, npartitions=2).map_partitions(explode, meta=X.iloc[:0])
    assert hasattr(model.predict(lazy), "dask")


# Models ---------------------------------------------------------------------------------------------------------------


def test_pickled_models_predict_the_same():
    X, y = mixed()
    model = HistGradientBoostingRegressor(**PARAMS).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert bits(again) == bits(model)


def test_rows_alone():
    X, y = mixed()
    model = HistGradientBoostingRegressor(**PARAMS).fit(X, y)
    expected = model.predict(X)
    for i in (0, 7, 17, 1499):
        assert model.predict(X.iloc[[i]])[0] == expected[i]
    with pytest.raises(ValueError, match="0 sample"):
        model.predict(X.iloc[:0])


def test_input_is_left_alone():
    number, category, y = columns()
    X = np.column_stack([number, category])
    X.flags.writeable = False
    kept = X.copy()
    model = HistGradientBoostingRegressor(**PARAMS, categorical_features=[1]).fit(X, y)
    model.predict(X)
    np.testing.assert_array_equal(X, kept)


def test_warm_start_keeps_categories():
    X, y = mixed()
    params = {"random_state": 0, "max_leaf_nodes": 8}
    whole = HistGradientBoostingRegressor(max_iter=4, **params).fit(X, y)
    parts = HistGradientBoostingRegressor(max_iter=2, warm_start=True, **params).fit(X, y)
    parts.set_params(max_iter=4).fit(X, y)
    assert bits(parts) == bits(whole)
    parts.set_params(max_iter=5).fit(X.assign(word=X["word"].cat.add_categories("new").fillna("new")), y)
    assert "new" not in parts._coding.categories[1]
    with pytest.raises(ValueError, match="goes on with the categorical features"):
        parts.set_params(max_iter=6, categorical_features=["word", "digit", "flag"]).fit(X, y)


def test_a_fit_without_categories_forgets_them():
    X, y = mixed()
    model = HistGradientBoostingRegressor(**PARAMS).fit(X, y)
    numbers = X[["number", "narrow"]]
    model.fit(numbers, y)
    assert model.is_categorical_ is None
    assert bits(model) == bits(HistGradientBoostingRegressor(**PARAMS).fit(numbers, y))
    assert len(model.predict(numbers)) == len(y)
