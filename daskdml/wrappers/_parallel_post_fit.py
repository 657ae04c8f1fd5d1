"""Fit in memory, predict on everything."""

import functools

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from daskdml import metrics
from daskdml.data import apply_rows, check_features, is_dask
from daskdml.wrappers._output import output_of

# scoring name: (metric, method whose result it takes, sign)
SCORINGS = {
    "accuracy": (metrics.accuracy_score, "predict", 1),
    "r2": (metrics.r2_score, "predict", 1),
    "neg_mean_squared_error": (metrics.mean_squared_error, "predict", -1),
    "neg_log_loss": (metrics.log_loss, "predict_proba", -1),
    "roc_auc": (metrics.roc_auc_score, "scores", 1),
}


def _model_has(method):
    def has(self):
        getattr(self._model_or_recipe(), method)  # its AttributeError says what is missing
        return True

    return has


class ParallelPostFit(MetaEstimatorMixin, BaseEstimator):
    """Any fitted scikit-learn model, chunk by chunk and lazily over Dask collections.

    Parameters
    ----------
    estimator : scikit-learn compatible model
        Fitted already, or to be fitted in memory by `fit`.
    scoring : str, callable or None, default=None
        What `score` gives. None: accuracy of a classifier, R2 of a regressor, the model's own score else. On Dask input
        a str is one of "accuracy", "neg_log_loss", "roc_auc", "r2", "neg_mean_squared_error"; a callable is called as
        ``scoring(self, X, y)``.

    Attributes
    ----------
    estimator_ : the model that `fit` fitted; not set for a model that came fitted.
    classes_, n_features_in_, feature_names_in_, ...
        Every fitted attribute of the model.

    See Also
    --------
    daskdml.linear_model : Models that also train on Dask collections.

    Notes
    -----
    A model above 1 MB is one value of the graph, sent once to each worker, not a part of every task. What a method will
    give (columns, type) is found on one made-up row; no row of the data is read before the result is computed. Chunks
    arrive at the model as they are: a model that was fitted on DataFrames gets DataFrame partitions. Models inside run
    with their own ``n_jobs`` inside each task.

    Examples
    --------
    >>> import numpy as np, dask.array as da
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.array([[-1.0], [1.0]]), np.array(["no", "yes"])
    >>> model = ParallelPostFit(LogisticRegression()).fit(X, y)
    >>> lazy = model.predict(da.from_array(np.array([[-2.0], [3.0], [4.0]]), chunks=2))
    >>> lazy.compute().tolist()
    ['no', 'yes', 'yes']
    """

    def __init__(self, estimator, scoring=None):
        self.estimator = estimator
        self.scoring = scoring

    def fit(self, X, y=None, **fit_params):
        """Fit a clone of the model, in memory.

        Parameters
        ----------
        X, y : in-memory input
        **fit_params
            Passed on.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            On Dask input: the model inside cannot train on it.
        """
        for name, values in (("X", X), ("y", y), *fit_params.items()):
            if is_dask(values):
                raise TypeError(
                    f"ParallelPostFit fits its model in memory, but {name} is a Dask {type(values).__name__}; fit on "
                    "rows in memory (compute a sample), or use a model of daskdml, which trains on Dask collections."
                )
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        return self

    @available_if(_model_has("predict"))
    def predict(self, X):
        """Predict with the model; lazily on Dask input, chunks and index kept."""
        return self._apply("predict", X)

    @available_if(_model_has("predict_proba"))
    def predict_proba(self, X):
        """Predict probabilities with the model; lazily on Dask input, one column per class."""
        return self._apply("predict_proba", X)

    @available_if(_model_has("predict_log_proba"))
    def predict_log_proba(self, X):
        """Predict logarithms of probabilities with the model; lazily on Dask input."""
        return self._apply("predict_log_proba", X)

    @available_if(_model_has("decision_function"))
    def decision_function(self, X):
        """Compute the model's decision function; lazily on Dask input."""
        return self._apply("decision_function", X)

    @available_if(_model_has("transform"))
    def transform(self, X):
        """Transform with the model; lazily on Dask input."""
        return self._apply("transform", X)

    @available_if(_model_has("transform"))
    def fit_transform(self, X, y=None, **fit_params):
        """Fit in memory and transform the same rows."""
        return self.fit(X, y, **fit_params).transform(X)

    @available_if(_model_has("get_feature_names_out"))
    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns that `transform` gives."""
        return self._model().get_feature_names_out(input_features)

    @available_if(_model_has("score"))
    def score(self, X, y=None, sample_weight=None):
        """Score the model with `scoring`, over all rows.

        Parameters
        ----------
        X, y, sample_weight : any input
            ``y`` and the weights may be chunked otherwise than X.

        Returns
        -------
        float
            Computed, also on Dask input, in one pass.
        """
        model = self._model()
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if callable(self.scoring):
            return self.scoring(self, X, y, **weights)
        if any(map(is_dask, (X, y, sample_weight))):
            return self._score_lazily(X, y, sample_weight)
        if self.scoring is None:
            return model.score(X, y, **weights)
        from sklearn.metrics import get_scorer

        return get_scorer(self.scoring)(model, X, y, **weights)

    def _score_lazily(self, X, y, sample_weight):
        kind = get_tags(self._model()).estimator_type
        scoring = self.scoring or {"classifier": "accuracy", "regressor": "r2"}.get(kind)
        if scoring not in SCORINGS:
            raise ValueError(
                f"On Dask input the scoring of ParallelPostFit must be one of {', '.join(sorted(SCORINGS))} or a "
                f"callable; got {scoring!r}."
            )
        metric, method, sign = SCORINGS[scoring]
        if method != "scores":
            extra = {"labels": self.classes_} if method == "predict_proba" else {}
            return sign * metric(y, getattr(self, method)(X), sample_weight=sample_weight, **extra)
        scores = self._scores(X)
        many = {"multi_class": "ovr", "labels": self.classes_} if len(self.classes_) > 2 else {}
        return metric(y, scores, sample_weight=sample_weight, **many)

    def _scores(self, X):
        """What ranks rows: the decision function of two classes, or probabilities."""
        if len(self.classes_) > 2:
            return self.predict_proba(X)
        if hasattr(self, "decision_function"):
            return self.decision_function(X)
        output = output_of(self._model(), "predict_proba", X)
        return apply_rows(functools.partial(_second_column, self._model()), X, kind="vector", dtype=output.dtype)

    def _apply(self, method, X):
        model = self._model()
        if not is_dask(X):
            return getattr(model, method)(X)
        if len(X.shape) == 2 and hasattr(model, "n_features_in_"):
            check_features(model, X, reset=False)
        output = output_of(model, method, X)
        return apply_rows(functools.partial(_call, model, method, output.kind), X, **output._asdict())

    def _model(self):
        """Return the fitted model, or raise NotFittedError."""
        if "estimator_" in vars(self):
            return self.estimator_
        try:
            check_is_fitted(self.estimator)
        except NotFittedError as error:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with in-memory data, or pass a "
                "fitted model."
            ) from error
        return self.estimator

    def _model_or_recipe(self):
        return vars(self).get("estimator_", self.estimator)

    def __getattr__(self, name):
        # Fitted attributes only: parameters and methods are this object's own.
        if name.endswith("_") and not name.startswith("_") and name != "estimator_" and "estimator" in vars(self):
            return getattr(self._model_or_recipe(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self):
        try:
            self._model()
        except NotFittedError:
            return False
        return True

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "transformer_tags", "target_tags"):
            setattr(tags, name, getattr(inner, name))
        tags.input_tags = inner.input_tags
        tags.non_deterministic = inner.non_deterministic
        return tags


def _call(model, method, kind, chunk):
    result = getattr(model, method)(chunk)
    return result if kind == "same" or not hasattr(result, "iloc") else np.asarray(result)


def _second_column(model, chunk):
    return np.asarray(model.predict_proba(chunk))[:, 1]
