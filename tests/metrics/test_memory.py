"""Input in memory: values, warnings and errors are scikit-learn's, and Dask is never met."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as theirs
from numpy.testing import assert_allclose
from sklearn.exceptions import UndefinedMetricWarning

from daskdml import metrics as ours

N = 211


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def weights_of(rng, kind):
    return {
        "none": None,
        "floats": rng.uniform(0.1, 2, N),
        "some zero": rng.integers(0, 3, N),
        "negative": rng.normal(1, 0.2, N),
    }[kind]


@pytest.mark.parametrize("weights", ["none", "floats", "some zero"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("labels", [np.array([0, 1]), np.array([True, False]), np.array(list("abc")), np.arange(5.0)])
def test_accuracy(rng, labels, normalize, weights):
    y, p = rng.choice(labels, N), rng.choice(labels, N)
    options = dict(normalize=normalize, sample_weight=weights_of(rng, weights))
    assert_allclose(ours.accuracy_score(y, p, **options), theirs.accuracy_score(y, p, **options), rtol=1e-12)


def test_accuracy_of_indicators_needs_whole_rows(rng):
    y, p = rng.integers(0, 2, (2, N, 3))
    assert ours.accuracy_score(y, p) == theirs.accuracy_score(y, p)


@pytest.mark.parametrize("weights", ["none", "floats", "some zero"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [2, 5])
def test_log_loss(rng, k, normalize, weights):
    y, p = rng.choice(list("abcde")[:k], N), rng.dirichlet(np.ones(k), N)
    p[0] = np.eye(k)[0]  # clipped
    options = dict(normalize=normalize, sample_weight=weights_of(rng, weights))
    assert_allclose(ours.log_loss(y, p, **options), theirs.log_loss(y, p, **options), rtol=1e-12)
    if k == 2:
        assert_allclose(ours.log_loss(y, p[:, 1], **options), theirs.log_loss(y, p[:, 1], **options), rtol=1e-12)


def test_log_loss_with_labels_that_y_lacks(rng):
    y, p = rng.choice([1, 5], N), rng.dirichlet(np.ones(3), N)
    assert_allclose(ours.log_loss(y, p, labels=[1, 3, 5]), theirs.log_loss(y, p, labels=[1, 3, 5]), rtol=1e-12)
    with pytest.raises(ValueError, match="different number of classes: 2 vs 3"):
        ours.log_loss(y, p)
    with pytest.raises(ValueError, match="not belonging to the passed labels"):
        ours.log_loss(y, p, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="number of classes in labels is different"):
        ours.log_loss(y, p, labels=[1, 2, 3, 5])


def test_log_loss_of_an_indicator_matrix(rng):
    y, p = np.eye(3, dtype=int)[rng.integers(0, 3, N)], rng.dirichlet(np.ones(3), N)
    assert_allclose(ours.log_loss(y, p), theirs.log_loss(y, p), rtol=1e-12)


def test_log_loss_of_float32_clips_at_its_own_eps():
    p = np.array([0.0, 1.0, 0.3], dtype=np.float32)
    assert_allclose(ours.log_loss([1, 1, 0], p), theirs.log_loss([1, 1, 0], p), rtol=1e-6)


def test_log_loss_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="values greater than 1: 1.5"):
        ours.log_loss([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match="values lower than 0"):
        ours.log_loss([0, 1], [0.5, -0.5])
    with pytest.raises(ValueError, match="contains NaN"):
        ours.log_loss([0, 1], [0.5, np.nan])
    with pytest.raises(ValueError, match="only one label"):
        ours.log_loss([0, 0], [0.5, 0.5])
    with pytest.warns(UserWarning, match="do not sum to one"):
        ours.log_loss([0, 1], [[0.5, 0.2], [0.5, 0.2]])


@pytest.mark.parametrize("weights", ["none", "floats", "some zero"])
@pytest.mark.parametrize("max_fpr", [None, 1.0, 0.3, 0.001])
@pytest.mark.parametrize("scores", ["continuous", "ties", "negative", "float32"])
def test_roc_auc_of_two_classes(rng, scores, max_fpr, weights):
    y = rng.choice(["no", "yes"], N)
    s = rng.normal(size=N) + (y == "yes")
    s = {"continuous": s, "ties": np.round(s), "negative": -np.exp(s), "float32": s.astype(np.float32)}[scores]
    options = dict(max_fpr=max_fpr, sample_weight=weights_of(rng, weights))
    assert_allclose(ours.roc_auc_score(y, s, **options), theirs.roc_auc_score(y, s, **options), rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("average", ["macro", "weighted", "micro", None])
@pytest.mark.parametrize("way", ["ovr", "ovo"])
def test_roc_auc_of_many_classes(rng, way, average, weighted):
    y, p = rng.choice(list("abcd"), N), rng.dirichlet(np.ones(4), N)
    options = dict(average=average, multi_class=way, sample_weight=weights_of(rng, "floats") if weighted else None)
    try:
        expected = theirs.roc_auc_score(y, p, **options)
    except (ValueError, NotImplementedError) as error:
        with pytest.raises(type(error)) as caught:
            ours.roc_auc_score(y, p, **options)
        assert str(caught.value) == str(error)
    else:
        assert_allclose(ours.roc_auc_score(y, p, **options), expected, rtol=1e-12)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro", "samples", None])
@pytest.mark.parametrize("weights", ["none", "floats"])
def test_roc_auc_of_indicators(rng, average, weights):
    y, s = rng.integers(0, 2, (N, 3)), np.round(rng.normal(size=(N, 3)), 1)
    y[:, 0], y[:, 1] = 1, 0  # every row has both
    y[0, 2] = 1
    if average != "samples":
        y = rng.integers(0, 2, (N, 3))
    options = dict(average=average, sample_weight=weights_of(rng, weights))
    assert_allclose(ours.roc_auc_score(y, s, **options), theirs.roc_auc_score(y, s, **options), rtol=1e-12)


def test_roc_auc_refuses_in_the_same_words(rng):
    y, p = rng.integers(0, 3, N), rng.dirichlet(np.ones(3), N)
    cases = [
        (y, p, {}),
        (y, p * 2, {"multi_class": "ovr"}),
        (y, p, {"multi_class": "ovr", "max_fpr": 0.5}),
        (y, p, {"multi_class": "ovr", "labels": [0, 1]}),
        (y, p, {"multi_class": "ovr", "labels": [0, 2, 1]}),
        (y, p, {"multi_class": "ovr", "labels": [0, 0, 1]}),
        (y, p, {"multi_class": "ovr", "labels": [0, 1, 5]}),
        (y, np.c_[p, 1 - p.sum(1)], {"multi_class": "ovr"}),
        (y + 0.5, p[:, 0], {}),
        (y > 1, p[:, :2], {}),
        (y > 1, p[:, 0], {"max_fpr": 1.5}),
        (y > 1, p[:, 0], {"multi_class": "both"}),
    ]
    for y_true, scores, options in cases:
        with pytest.raises(ValueError) as expected:
            theirs.roc_auc_score(y_true, scores, **options)
        with pytest.raises(ValueError) as got:
            ours.roc_auc_score(y_true, scores, **options)
        if "parameter of" not in str(expected.value):
            assert str(got.value) == str(expected.value)


def test_roc_auc_of_many_classes_needs_a_column_each():
    with pytest.raises(ValueError, match="needs to be of shape `.n_samples, n_classes.`"):
        ours.roc_auc_score([0, 1, 2], [0.1, 0.2, 0.3], multi_class="ovr")


def test_roc_auc_of_one_class_warns_and_is_nan():
    with pytest.warns(UndefinedMetricWarning, match="Only one class"):
        assert np.isnan(ours.roc_auc_score([1, 1], [0.1, 0.2]))


@pytest.mark.parametrize("weights", ["none", "floats", "some zero"])
@pytest.mark.parametrize("multioutput", ["raw_values", "uniform_average", "variance_weighted", [0.2, 0.3, 0.5], None])
@pytest.mark.parametrize("name", ["mean_squared_error", "r2_score"])
def test_regression(rng, name, multioutput, weights):
    if name == "mean_squared_error" and multioutput in ("variance_weighted", None):
        with pytest.raises(ValueError, match="The 'multioutput' parameter of mean_squared_error must be"):
            ours.mean_squared_error([1, 2], [1, 2], multioutput=multioutput)
        return
    y = rng.normal(5, [1, 2, 3], (N, 3))
    p = y + rng.normal(size=(N, 3))
    options = dict(multioutput=multioutput, sample_weight=weights_of(rng, weights))
    assert_allclose(getattr(ours, name)(y, p, **options), getattr(theirs, name)(y, p, **options), rtol=1e-12)


@pytest.mark.parametrize("force_finite", [True, False])
@pytest.mark.parametrize("y, p", [([-2, -2], [-2, -2]), ([-2, -2], [-2, -1]), ([0.1] * 7, [0.1] * 6 + [0.2])])
def test_r2_of_a_constant(y, p, force_finite):
    expected = {True: float(y == p), False: np.nan if y == p else -np.inf}[force_finite]
    assert_allclose(ours.r2_score(y, p, force_finite=force_finite), expected)


def test_r2_of_one_row_warns_and_is_nan():
    with pytest.warns(UserWarning, match="less than two samples"):
        assert np.isnan(ours.r2_score([1.0], [2.0]))


def test_r2_keeps_its_digits_far_from_zero(rng):
    y = rng.normal(size=N)
    p = y + 0.1 * rng.normal(size=N)
    exact = 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)
    assert_allclose(ours.r2_score(y + 2.0**30, p + 2.0**30), exact, rtol=1e-6)


@pytest.mark.parametrize("function", ["accuracy_score", "log_loss", "roc_auc_score", "mean_squared_error", "r2_score"])
def test_bad_rows(function):
    metric = getattr(ours, function)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        metric([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        metric([0, 1], [0, 1], sample_weight=[1, 1, 1])
    with pytest.raises(ValueError, match="at least one non-zero"):
        metric([0, 1], [0, 1], sample_weight=[0, 0])
    with pytest.raises(ValueError, match="(?i)empty|minimum of 1"):
        metric([], [])
    with pytest.raises(ValueError, match="sample_weight contains NaN"):
        metric([0, 1], [0, 1], sample_weight=[1, np.nan])


def test_weights_that_cancel_cannot_be_normalised():
    with pytest.raises(ZeroDivisionError, match="sum to zero"):
        ours.accuracy_score([0, 1], [0, 1], sample_weight=[1, -1])


def test_bad_labels():
    with pytest.raises(ValueError, match="mix of multiclass and continuous"):
        ours.accuracy_score([0, 1, 2], [0.5, 1, 2])
    with pytest.raises(ValueError, match="continuous is not supported"):
        ours.accuracy_score([0.5, 1], [0.5, 1])
    with pytest.raises(ValueError, match="Mix of label input types"):
        ours.accuracy_score(["a", "b"], [0, 1])
    with pytest.raises(ValueError, match="mixes strings"):
        ours.accuracy_score(np.array(["a", 1], dtype=object), np.array(["a", "b"], dtype=object))
    with pytest.raises(ValueError, match="mixes strings with numbers or missing values"):
        ours.accuracy_score(pd.Series(["a", None]), ["a", "b"])
    with pytest.raises(ValueError, match="number of output"):
        ours.mean_squared_error([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="'normalize' parameter"):
        ours.accuracy_score([0, 1], [0, 1], normalize="yes")


@pytest.mark.parametrize("kind", ["list", "pandas", "polars", "column", "categorical", "nullable"])
def test_kinds_of_input(rng, kind):
    y, p = rng.integers(0, 2, (2, 50))
    names = np.array(["no", "yes"])

    def make(values):
        if kind == "list":
            return values.tolist()
        if kind == "column":
            return values[:, None]
        if kind == "polars":
            return pytest.importorskip("polars").Series(values)
        series = pd.Series(values, index=np.arange(len(values))[::-1])
        return {"pandas": series, "categorical": series.astype("category"), "nullable": series}[kind]

    expected = theirs.accuracy_score(y, p)
    assert ours.accuracy_score(make(y), make(p)) == expected
    assert ours.accuracy_score(make(names[y]), make(names[p])) == expected
    assert ours.roc_auc_score(make(names[y]), make(p * 0.3)) == theirs.roc_auc_score(y, p)
    if kind == "nullable":
        assert ours.accuracy_score(pd.Series(y, dtype="Int64"), p) == expected
        assert ours.accuracy_score(pd.Series(names[y], dtype="string"), names[p]) == expected
    elif kind != "categorical":
        assert_allclose(ours.r2_score(make(y * 1.0), make(p * 1.0)), theirs.r2_score(y, p))


def test_results_are_floats(rng):
    y, p = rng.integers(0, 2, (2, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("accuracy_score", "log_loss", "roc_auc_score", "mean_squared_error", "r2_score"):
            assert isinstance(getattr(ours, name)(y, p), float)


def test_memory_never_meets_dask():
    code = (
        "import sys; from daskdml import metrics as m; y = [0, 1]; m.accuracy_score(y, y); m.roc_auc_score(y, y);"
        "assert not {'dask', 'distributed'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
