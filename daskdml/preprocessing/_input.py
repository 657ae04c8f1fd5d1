"""The door of the transformers that take tables: names and shape are checked, columns keep their types."""

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from daskdml.data import check_features, is_dask, is_frame, refuse_unread


def check_table(estimator, X, *, reset, accept_sparse=False):
    """Check names, shape and kind of a table.

    Parameters
    ----------
    estimator : estimator
        Gets ``n_features_in_`` and ``feature_names_in_`` when `reset`, is compared with X otherwise.
    X : array-like, frame or Dask collection of shape (n_samples, n_features)
    reset : bool
    accept_sparse : bool, default=False

    Returns
    -------
    X itself if it is a frame or a Dask collection, else an ndarray of X's dtype (object for lists with words) or a
    sparse matrix.
    """
    if is_dask(X) or is_frame(X):
        # Not scikit-learn's own check, which would compute the former and refuses names that occur twice in the latter.
        check_features(estimator, X, reset=reset)
        return X
    refuse_unread(X)
    formats = ("csr", "csc") if accept_sparse else False
    plain = check_array(X, dtype=None, accept_sparse=formats, ensure_all_finite="allow-nan")
    if not hasattr(X, "dtype") and np.issubdtype(plain.dtype, np.str_):
        # A list of lists with words and numbers: as one NumPy dtype the numbers would be words too.
        plain = check_array(X, dtype=object)
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return plain
