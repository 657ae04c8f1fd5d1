"""`train_test_split`: exact sizes, the same rows for any chunking, chunks masked in place."""

import functools
import numbers
from math import ceil, floor

import numpy as np

from daskdml.data.kinds import is_sparse, take_rows
from daskdml.model_selection import _draw as draw
from daskdml.model_selection._layout import lay_out
from daskdml.utils.params import Interval, InvalidParameterError
from daskdml.utils.random import as_seed


def train_test_split(*arrays, test_size=None, train_size=None, random_state=None, shuffle=True, stratify=None):
    """Split tables into random train and test rows, without moving a row.

    Parameters
    ----------
    *arrays : array-like, sparse matrix, DataFrame or Dask collection, shape (n, ...)
        Any mixture of kinds and chunkings, of the same rows in the same order.
    test_size, train_size : float, int or None
        A share of the rows (test rounded up, train down) or their number; None is the complement of the other, both
        None are 0.25 and the rest.
    random_state : int, RandomState, Generator or None
        Rows are drawn by a hash of the seed and their global position.
    shuffle : bool, default=True
        Whether to draw rows at random; False takes the first rows for train and the next for test.
    stratify : array-like or Dask collection, shape (n,) or (n, k), default=None
        Strata to share rows among in proportion to their sizes (largest remainder; equal remainders are ordered by a
        hash of the seed).

    Returns
    -------
    list of length 2 * len(arrays)
        Train and test rows of each input, of its own kind (SciPy sparse gives CSR). Dask collections are lazy;
        DataFrames keep their index and divisions, arrays have known chunk sizes. Rows stay in their order, unlike
        scikit-learn's, which come shuffled; collections that were chunked alike still are.

    Raises
    ------
    ValueError
        In scikit-learn's words for sizes that cannot be met, strata of one member or inputs of different lengths.

    Notes
    -----
    The same seed picks the same rows from NumPy and from Dask input, however it is chunked. No row of X is read: of
    Dask input the lengths are computed where unknown (from ``stratify`` if given, else from the index or a vector) and
    ``stratify`` is walked twice, three times if another array is chunked otherwise. About 16 sqrt(n) keys per stratum
    reach the client. Each chunk computes its own mask again when it is needed.

    Examples
    --------
    >>> X, y = np.arange(10).reshape(5, 2), [0, 0, 1, 1, 1]
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=2, shuffle=False)
    >>> X_test.tolist(), y_train
    ([[6, 7], [8, 9]], [0, 0, 1])
    """
    _check_arguments(arrays, test_size, train_size, shuffle, stratify)
    table = lay_out(arrays, stratify)
    n_train, n_test = _sizes(sum(table.reference.lengths), test_size, train_size)
    if shuffle:
        rule, surveys = _draw_rule(table, as_seed(random_state), n_train, n_test)
    else:
        cuts = (n_train - 1, n_train + n_test - 1)
        rule = draw.Rule(None, None, (cuts,))
        surveys = table.survey(None, None, [[(cut, cut) for cut in cuts]])
    roles = (draw.TRAIN, draw.TEST)
    parts = {}
    for layout in dict.fromkeys(table.layouts):
        places = [i for i, one in enumerate(table.layouts) if one is layout]
        members = [arrays[i] for i in places]
        if layout is None:
            whole = np.concatenate(table.reference.map(rule.roles))
            taken = [[_take(one, np.flatnonzero(whole == role)) for one in members] for role in roles]
        else:
            taken = _masked(members, rule, layout, surveys.get(layout))
        parts.update(zip(places, zip(*taken)))
    return [part for i in range(len(arrays)) for part in parts[i]]


def _draw_rule(table, seed, n_train, n_test):
    """Find the keys between which exactly the wanted rows lie; what each chunk holds of them falls out."""
    labels, counts = table.labels, table.counts
    if labels is None:
        ranks = [[n_train, n_train + n_test]]
    else:
        _check_strata(labels, counts, n_train, n_test)
        of_train = draw.stratum_sizes(counts, n_train, seed)
        ranks = np.stack([of_train, of_train + draw.stratum_sizes(counts - of_train, n_test, seed)], axis=1)
    width = 8.0
    while True:
        surveys = table.survey(seed, labels, draw.windows_of(counts, ranks, width))
        cuts = draw.cuts_from(surveys[table.reference], counts, ranks)
        if cuts is not None:
            return draw.Rule(seed, labels, cuts), surveys
        width *= 4  # never needed once in 10^15 draws, but the sizes are a promise


def _masked(collections, rule, layout, surveys):
    """Return the train rows and the test rows of Dask collections that share a layout."""
    from daskdml.data.row_masks import mask_rows

    kept = (None, None)
    if surveys is not None:
        taken = np.array([one.taken(rule.cuts) for one in surveys])
        kept = (taken[:, 0].tolist(), (taken[:, 1] - taken[:, 0]).tolist())
    return [
        mask_rows(collections, functools.partial(_has_role, rule, role), layout.lengths, layout.strata, rows)
        for role, rows in zip((draw.TRAIN, draw.TEST), kept)
    ]


def _has_role(rule, role, start, n, strata):
    return rule.roles(start, n, strata) == role


def _take(table, rows):
    if isinstance(table, (list, tuple, range)):
        return [table[row] for row in rows]
    return take_rows(table.tocsr() if is_sparse(table) else table, rows)


def _check_arguments(arrays, test_size, train_size, shuffle, stratify):
    if not arrays:
        raise ValueError("At least one array required as input")
    share = Interval(numbers.Real, 0.0, 1.0, "neither")
    count = Interval(numbers.Integral, 1, None, "left")
    for name, size in (("test_size", test_size), ("train_size", train_size)):
        whole = isinstance(size, numbers.Integral)
        if size is not None and not (count if whole else share).accepts(size):
            raise InvalidParameterError(
                f"The {name!r} parameter of train_test_split must be a float in the range (0.0, 1.0), an int in the "
                f"range [1, inf) or None. Got {size!r} instead."
            )
    if not isinstance(shuffle, (bool, np.bool_)):
        raise InvalidParameterError(
            f"The 'shuffle' parameter of train_test_split must be True or False. Got {shuffle!r} instead."
        )
    if not shuffle and stratify is not None:
        raise ValueError("Stratified train/test split is not implemented for shuffle=False")


def _sizes(n, test_size, train_size):
    """Return the numbers of train and test rows, or raise in scikit-learn's words."""
    if test_size is None and train_size is None:
        test_size = 0.25
    for name, size in (("test_size", test_size), ("train_size", train_size)):
        if isinstance(size, numbers.Integral) and size >= n:
            raise ValueError(
                f"{name}={size} should be either positive and smaller than the number of samples {n} or a float in the "
                "(0, 1) range"
            )
    both_shares = isinstance(test_size, numbers.Real) and isinstance(train_size, numbers.Real)
    both_shares = both_shares and not isinstance(test_size, numbers.Integral)
    if both_shares and not isinstance(train_size, numbers.Integral) and test_size + train_size > 1:
        raise ValueError(
            f"The sum of test_size and train_size = {train_size + test_size}, should be in the (0, 1) range. Reduce "
            "test_size and/or train_size."
        )
    n_test = _rows_of(test_size, n, ceil)
    n_train = _rows_of(train_size, n, floor)
    n_train, n_test = n - n_test if n_train is None else n_train, n - n_train if n_test is None else n_test
    if n_train + n_test > n:
        raise ValueError(
            f"The sum of train_size and test_size = {n_train + n_test}, should be smaller than the number of samples "
            f"{n}. Reduce test_size and/or train_size."
        )
    if n_train == 0:
        raise ValueError(
            f"With n_samples={n}, test_size={test_size} and train_size={train_size}, the resulting train set will be "
            "empty. Adjust any of the aforementioned parameters."
        )
    return n_train, n_test


def _rows_of(size, n, rounded):
    if size is None or isinstance(size, numbers.Integral):
        return size if size is None else int(size)
    return rounded(size * n)


def _check_strata(labels, counts, n_train, n_test):
    if counts.min() < 2:
        raise ValueError(
            "The least populated classes in y have only 1 member, which is too few. The minimum number of groups for "
            f"any class cannot be less than 2. Classes with too few members are: {labels[counts < 2].tolist()}"
        )
    for name, rows in (("train_size", n_train), ("test_size", n_test)):
        if rows < len(labels):
            raise ValueError(f"The {name} = {rows} should be greater or equal to the number of classes = {len(labels)}")
