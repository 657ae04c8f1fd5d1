"""Fitted ensembles as models of LightGBM."""

import numpy as np

from daskdml.trees.lightgbm_text import lightgbm_text

MOST_CODE = 65_535  # a set of categories has a bit for each whole number up to the largest
_OBJECTIVES = {
    "squared": "regression", "absolute": "regression_l1", "pinball": "quantile", "poisson": "poisson", "gamma": "gamma",
    "logistic": "binary sigmoid:1", "multinomial": "multiclass num_class:{}",
}  # fmt: skip


def write_model(model, loss, coding, names):
    """Return the text that ``lightgbm.Booster(model_str=...)`` reads.

    Parameters
    ----------
    model : daskdml.trees.Ensemble
    loss : object
        See `daskdml.losses`.
    coding : daskdml.data.codes.Coding or None
    names : sequence of str
        Of all features.

    Raises
    ------
    ValueError
        If categories are not whole numbers from 0 to 65,535, or two features have the same name.
    """
    codes = [None] * len(names) if coding is None else coding.categories
    bins = [None if known is None else _bins_of(known, name) for known, name in zip(codes, names)]
    objective = _OBJECTIVES[loss.name].format(loss.n_outputs)
    return lightgbm_text(model.trees, model.n_outputs, model.baseline, names, objective, bins)


def _bins_of(categories, name):
    """Return the bin of each whole number up to the largest category, -1 where it is none."""
    if categories.dtype == object or not _are_codes(categories):
        shown = ", ".join(map(repr, categories[:3].tolist())) + (", ..." if len(categories) > 3 else "")
        raise ValueError(
            f"The feature {name!r} has the categories {shown}, but LightGBM's are whole numbers from 0 to "
            f"{MOST_CODE:,}; encode it as 0, 1, 2 and so on before the fit, for example with "
            "sklearn.preprocessing.OrdinalEncoder, and name it in categorical_features."
        )
    values = categories.astype(np.int64)
    bins = np.full(int(values.max(initial=-1)) + 1, -1)
    bins[values] = np.arange(len(values))
    return bins


def _are_codes(categories):
    return bool(((categories >= 0) & (categories <= MOST_CODE) & (categories == np.rint(categories))).all())
