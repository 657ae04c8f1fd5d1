"""scikit-learn's search and cross-validation, which say in a sentence that they do not take Dask collections."""

import functools

from sklearn import model_selection

from daskdml.data import is_dask


class GridSearchCV(model_selection.GridSearchCV):
    """Search a grid of parameters by cross-validation: scikit-learn's search, on data in memory.

    It chooses ``argmax_params mean_folds score(fit(params, rows outside the fold), rows of the fold)``.

    Parameters
    ----------
    estimator : estimator
    param_grid : dict or list of dict
        Values to try by name of parameter.
    scoring : str, callable, list, tuple or dict, optional
        The estimator's own ``score`` where None.
    n_jobs : int, optional
    refit : bool, str or callable, default True
        Whether, and by which score, the best setting is fitted on all rows.
    cv : int, splitter or iterable, optional
        Five folds where None.
    verbose : int, default 0
    pre_dispatch : int or str, default "2*n_jobs"
    error_score : "raise" or float, default NaN
    return_train_score : bool, default False

    Attributes
    ----------
    best_estimator_, best_params_, best_score_, best_index_
        Of the setting with the best mean score; the first is fitted on all rows.
    cv_results_ : dict of ndarray
        Scores and seconds of each setting and fold.

    Notes
    -----
    scikit-learn selects the rows of folds by position. A Dask collection has no rows by position, or moves nearly all
    of them between workers for each fold, so it is refused, by a sentence instead of an error inside scikit-learn.
    Cost: one fit per fold and parameter setting, and one more with ``refit``.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.linear_model import Ridge
    >>> X = np.arange(20.0)[:, None]
    >>> GridSearchCV(Ridge(), {"alpha": [1e-3, 1e3]}, cv=2).fit(X, X[:, 0]).best_params_
    {'alpha': 0.001}
    """

    def fit(self, X, y=None, **params):
        """Fit each setting on each fold, and the best one on all rows.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
        **params
            Handed on to the estimator and the scorer, such as ``sample_weight``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X, y or a parameter is a Dask collection.
        """
        _refuse_dask("GridSearchCV", X, y, *params.values())
        return super().fit(X, y, **params)


@functools.wraps(model_selection.cross_val_score)
def cross_val_score(estimator, X, y=None, **options):
    _refuse_dask("cross_val_score", X, y, *(options.get("params") or {}).values())
    return model_selection.cross_val_score(estimator, X, y, **options)


def _refuse_dask(name, *tables):
    if any(is_dask(table) for table in tables):
        raise ValueError(
            f"{name} takes data in memory, and got a Dask collection: draw rows that fit (for example with "
            "daskdml.model_selection.train_test_split) and compute them, or fit each setting on one such split and "
            "compare the scores."
        )
