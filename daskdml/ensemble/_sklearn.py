"""Fitted boosting as scikit-learn's own."""

import numpy as np

_MOST_COUNT = (1 << 32) - 1  # of rows, that a node of scikit-learn's has a field for


def make_twin(estimator, kind):
    """Return scikit-learn's estimator with the trees of a fitted one.

    Parameters
    ----------
    estimator : HistGradientBoostingClassifier or HistGradientBoostingRegressor
    kind : class of scikit-learn

    Notes
    -----
    Trees have no public way into scikit-learn's, nor have the encoders of categories. So a fit of a few rows, in which
    every class and every category stands, makes all of them; our trees then take the place of the one that it grew.
    """
    model, coding = estimator._model, estimator._coding
    params = estimator.get_params(deep=False)
    params = {name: params[name] for name in kind().get_params(deep=False)}
    # Of the parameters only what predictions are made by: others may ask for more than a few rows have.
    needed = {name: params[name] for name in ("loss", "quantile") if name in params}
    mask = None if coding is None else coding.is_categorical
    twin = kind(max_iter=1, max_bins=255, early_stopping=False, random_state=0, categorical_features=mask, **needed)
    twin.fit(*_few_rows(estimator))
    twin.set_params(**params)
    # scikit-learn puts categories first; it sorts them too, so that each has the number that it has here.
    columns = np.arange(estimator.n_features_in_)
    if coding is not None:
        columns = np.argsort(np.argsort(~coding.is_categorical, kind="stable"))
    stub = twin._predictors[0][0]
    twin._predictors = [[_predictor(tree, stub, columns) for tree in iteration] for iteration in model.trees]
    twin._baseline_prediction = np.reshape(model.baseline, (1, model.n_outputs))
    for name in ("train_score_", "validation_score_", "do_early_stopping_", "_fitted_with_sw"):
        setattr(twin, name, getattr(estimator, name))
    return twin


def _few_rows(estimator):
    """Return X with every category and y with every class, twice: scikit-learn wonders at classes of one row."""
    coding, p = estimator._coding, estimator.n_features_in_
    classes = getattr(estimator, "classes_", np.array([1.0, 2.0]))
    known = [None] * p if coding is None else coding.categories
    n = max(2 * len(classes), *(0 if one is None else len(one) for one in known))
    y = np.resize(classes, n)
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and all(one is None or one.dtype != object for one in known):
        return np.column_stack([np.zeros(n) if one is None else _filled(one, n) for one in known]), y
    import pandas as pd

    columns = [np.zeros(n) if one is None else pd.Categorical(_filled(one, n), categories=one) for one in known]
    frame = pd.DataFrame(dict(enumerate(columns)))  # a column of words and one of numbers each keep their type
    if names is not None:
        frame.columns = names
    return frame, y


def _filled(categories, n):
    return np.resize(categories, n) if len(categories) else np.full(n, np.nan)


def _predictor(tree, stub, columns):
    """Return a tree as scikit-learn's of the type of another one."""
    nodes, is_leaf = np.zeros(tree.n_nodes, stub.nodes.dtype), tree.is_leaf
    for name, values in (
        ("value", tree.value), ("count", np.minimum(tree.count, _MOST_COUNT)), ("gain", tree.gain),
        ("depth", tree.depths), ("feature_idx", np.where(is_leaf, 0, columns[tree.feature])),
        ("num_threshold", tree.threshold), ("missing_go_to_left", tree.missing_left),
        ("left", np.where(is_leaf, 0, tree.left)), ("right", np.where(is_leaf, 0, tree.left + 1)),
        ("is_leaf", is_leaf), ("bin_threshold", tree.bin), ("is_categorical", tree.categories >= 0),
        ("bitset_idx", np.maximum(tree.categories, 0)),
    ):  # fmt: skip
        nodes[name] = values
    # Eight words of 32 bits, of which the lowest comes first.
    bits = np.packbits(tree.left_bins, axis=1, bitorder="little").view("<u4").astype(np.uint32)
    bits = bits.reshape(len(tree.left_bins), 8)
    return type(stub)(nodes, bits, bits)
