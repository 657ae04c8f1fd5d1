"""Scorers as `scoring`: the score of staged predictions, on the rows that are held out or given."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, make_scorer, mean_pinball_loss, roc_auc_score

from daskdml.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from daskdml.testing import SimulatedCluster
from daskdml.trees.boosting import held_out_share, is_held_out

N = 6000


def rows(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 5))
    return X, X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=N)


X, Z = rows()
LABELS = np.array(["low", "middle", "top"])
TARGETS = {"two": LABELS[:2][(Z > 0).astype(int)], "three": LABELS[np.digitize(Z, [-1, 1])], "number": Z}
SCORERS = [
    ("two", "accuracy"), ("two", "roc_auc"), ("two", "neg_log_loss"), ("two", None), ("three", "f1_macro"),
    ("three", "roc_auc_ovr"), ("number", "r2"), ("number", "neg_mean_absolute_error"), ("number", None),
    ("number", make_scorer(mean_pinball_loss, greater_is_better=False, alpha=0.2)),
]  # fmt: skip


def make(kind, **params):
    model = HistGradientBoostingRegressor if kind == "number" else HistGradientBoostingClassifier
    return model(max_iter=8, early_stopping=True, max_leaf_nodes=8, **params)


class Stage(BaseEstimator):
    """A fitted model as it was after some iterations."""

    def __init__(self, model, k):
        self.model, self.k = model, k
        self.classes_ = getattr(model, "classes_", None)

    def fit(self, X, y):
        return self

    def predict(self, X):
        return list(self.model.staged_predict(X))[self.k]


class StageOfClassifier(ClassifierMixin, Stage):
    def predict_proba(self, X):
        return list(self.model.staged_predict_proba(X))[self.k]

    def decision_function(self, X):
        return list(self.model.staged_decision_function(X))[self.k]


class StageOfRegressor(RegressorMixin, Stage):
    pass


def expected(model, scoring, X, y, **weight):
    kind = StageOfClassifier if hasattr(model, "classes_") else StageOfRegressor
    stages = [kind(model, k) for k in range(model.n_iter_)]
    if scoring is None:
        return [stage.score(X, y, **weight) for stage in stages]
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
    return [scorer(stage, X, y, **weight) for stage in stages]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind, scoring", SCORERS)
def test_scores_of_given_rows(kind, scoring, weighted):
    y, half = TARGETS[kind], N // 2
    w = np.random.default_rng(1).integers(0, 4, N).astype(float) if weighted else None
    weights = {"sample_weight": w[:half], "sample_weight_val": w[half:]} if weighted else {}
    model = make(kind, scoring=scoring).fit(X[:half], y[:half], X_val=X[half:], y_val=y[half:], **weights)
    counts = np.ones(half, bool) if w is None else w[half:] > 0
    weight = {} if w is None else {"sample_weight": w[half:][counts]}
    np.testing.assert_allclose(
        model.validation_score_[1:], expected(model, scoring, X[half:][counts], y[half:][counts], **weight), rtol=1e-10
    )
    counts = np.ones(half, bool) if w is None else w[:half] > 0
    weight = {} if w is None else {"sample_weight": w[:half][counts]}
    np.testing.assert_allclose(
        model.train_score_[1:], expected(model, scoring, X[:half][counts], y[:half][counts], **weight), rtol=1e-10
    )


@pytest.mark.parametrize("kind, scoring", [("two", "roc_auc"), ("number", "r2")])
def test_scores_of_rows_that_are_held_out(kind, scoring):
    y = TARGETS[kind]
    model = make(kind, scoring=scoring, random_state=3, validation_fraction=0.2).fit(X, y)
    held = is_held_out(3, 0, N, held_out_share(3, N, N // 5))
    for scores, chosen in ((model.validation_score_, held), (model.train_score_, ~held)):
        np.testing.assert_allclose(scores[1:], expected(model, scoring, X[chosen], y[chosen]), rtol=1e-10)


def test_without_validation_rows_the_others_are_scored():
    model = make("two", scoring="accuracy", validation_fraction=None).fit(X, TARGETS["two"])
    assert not len(model.validation_score_)
    np.testing.assert_allclose(model.train_score_[1:], expected(model, "accuracy", X, TARGETS["two"]), rtol=1e-12)


def test_of_many_rows_some_are_scored(monkeypatch):
    monkeypatch.setattr("daskdml.trees.boosting.SCORED_ROWS", 1000)
    model = make("two", scoring="accuracy").fit(X, TARGETS["two"])
    whole = expected(model, "accuracy", X, TARGETS["two"])
    assert not np.array_equal(model.train_score_[1:], whole)
    np.testing.assert_allclose(model.train_score_[1:], whole, atol=0.06)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", ["two", "three"])
@pytest.mark.parametrize("weighted", [False, True])
def test_any_workers_give_the_same_bits(kind, given, weighted, monkeypatch):
    """Also of the rows that are drawn to be scored."""
    monkeypatch.setattr("daskdml.trees.boosting.SCORED_ROWS", 1000)
    monkeypatch.setattr("daskdml.trees.boosting.MOST_SCORED", 300)
    y, w = TARGETS[kind], np.random.default_rng(1).choice([0.0, 0.3, 2.0], N)
    params = {"X_val": X[:500], "y_val": y[:500]} if given else {}
    options = {"class_weight": "balanced"} if weighted else {}
    if weighted:
        params |= {"sample_weight": w, **({"sample_weight_val": w[:500]} if given else {})}
    found = []
    for n_workers in (1, 2, 5):
        cluster = SimulatedCluster(n_workers, rows_per_block=512, kills=[(0.05, 0)] if n_workers == 5 else ())
        model = cluster.fit(make(kind, scoring="neg_log_loss", **options), X, y, **params)
        found.append((model.validation_score_.tobytes(), model.train_score_.tobytes()))
        assert np.isfinite(model.validation_score_).all() and np.isfinite(model.train_score_).all()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("weighted", [False, True])
def test_classes_weigh_in_scores_of_rows_of_the_data(weighted):
    """As scikit-learn has it: rows of X_val have their own weights only."""
    y, half = (Z > 1.5).astype(int), N // 2
    w = np.random.default_rng(1).uniform(0, 2, N) if weighted else np.ones(N)
    weights = {"sample_weight": w[:half], "sample_weight_val": w[half:]} if weighted else {}
    by_class = np.array([1.0, 7.0])
    model = make("two", scoring="accuracy", class_weight={1: 7.0})
    model.fit(X[:half], y[:half], X_val=X[half:], y_val=y[half:], **weights)
    for scores, rows, weight in (
        (model.train_score_, slice(half), w[:half] * by_class[y[:half]]),
        (model.validation_score_, slice(half, N), w[half:]),
    ):  # fmt: skip
        found = expected(model, "accuracy", X[rows], y[rows], sample_weight=weight)
        np.testing.assert_allclose(scores[1:], found, rtol=1e-10)


def test_as_many_rows_are_scored_as_was_said_whatever_their_weights(monkeypatch):
    monkeypatch.setattr("daskdml.trees.boosting.SCORED_ROWS", 1000)
    for weight in (np.where(np.arange(N) % 3 == 0, 5.0, 0.0), np.where(np.arange(N) % 3 == 0, 0.5, 0.0)):
        seen = []

        def count(model, X, y, sample_weight):
            seen.append(len(y))
            assert (sample_weight > 0).all()
            return 0.5

        make("number", scoring=count, validation_fraction=0.25).fit(X, Z, sample_weight=weight)
        assert seen[0] == pytest.approx(1000, rel=0.15) and seen[1] == pytest.approx(N / 12, rel=0.2)


def test_a_class_that_few_scored_rows_lack_ends_no_fit(monkeypatch):
    """Of the rows that trees are grown on, by which nobody stops; of the others it is an error."""
    monkeypatch.setattr("daskdml.trees.boosting.SCORED_ROWS", 20)
    y = np.zeros(N, int)
    y[::600] = 1
    model = make("two", scoring="neg_log_loss").fit(X, y, X_val=X[:601], y_val=y[:601])
    assert np.isnan(model.train_score_).all() and np.isfinite(model.validation_score_).all()
    with pytest.raises(ValueError, match="label"):
        make("two", scoring="neg_log_loss").fit(X, y, X_val=X[1:500], y_val=y[1:500])


def test_boosting_stops_where_the_score_gets_no_better():
    y = TARGETS["two"]
    model = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.5, scoring="roc_auc", early_stopping=True, n_iter_no_change=3, tol=0.0
    ).fit(X, y)
    scores = model.validation_score_
    assert model.n_iter_ < 300 and scores[-4] >= scores[-3:].max()
    assert roc_auc_score(y, model.decision_function(X)) > 0.8


def test_what_is_refused():
    with pytest.raises(ValueError, match="no_such_score"):
        make("two", scoring="no_such_score").fit(X, TARGETS["two"])
    with pytest.raises(ValueError, match="scoring"):
        make("two", scoring=3).fit(X, TARGETS["two"])
    with pytest.raises(ValueError, match="takes no sample_weight"):
        make("two", scoring=lambda model, X, y: 0.5).fit(X, TARGETS["two"], sample_weight=np.linspace(0.1, 1, N))


def test_a_function_scores_too():
    model = make("number", scoring=lambda model, X, y: -abs(model.predict(X) - y).max()).fit(X, Z)
    assert np.isfinite(model.validation_score_).all() and (model.validation_score_ < 0).all()
