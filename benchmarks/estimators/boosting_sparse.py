"""Boosting of skewed columns, of one-hot columns and of CSR beside dense ones."""

import functools

import numpy as np

from benchmarks.estimators.boosting import FEATURES, ROWS, TREES, auc, ours
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, ratios, take_turns, threads


def run(rows=None, full=False):
    """Skewed columns, one-hot columns and CSR: at most 1.5 times the seconds of dense columns a stored value.

    Of dense rows with as many values as a row stores: what a row costs anyway, its gradient and its way down the tree,
    is a third of the time of 28 columns and most of that of 7. Rows that store 7 are held against 28 columns too.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    from scipy import sparse

    sheet = Sheet("boosting_sparse", at_size=rows is None)
    n, rng = rows or ROWS, np.random.default_rng(0)
    m = n + n // 5  # and rows to score
    dense = rng.normal(size=(m, FEATURES)).astype(np.float32)
    few = _one_hot(m, 7, 20, rng)
    plain, plain_few = "dense", "dense, 7 columns"
    tables = {  # with what each is compared
        plain: (dense, ()),
        "90 % of a column in one bin": (np.where(rng.random(dense.shape) < 0.9, np.float32(0), dense), (plain,)),
        "one-hot": (few.toarray(), (plain,)),
        "one-hot in CSR": (_one_hot(m, FEATURES, 10, rng), (plain,)),
        "CSR, a tenth stored": (
            sparse.random(m, 10 * FEATURES, density=0.1, format="csr", dtype=np.float32, random_state=0), (plain,),
        ),
        plain_few: (dense[:, :7].copy(), ()),
        "one-hot in CSR, 7 stored": (few, (plain_few, plain)),
    }  # fmt: skip
    targets = {name: _follow(X, rng) for name, (X, _) in tables.items()}

    def fit(name):
        with threads(THREADS):
            return ours(THREADS, trees=TREES).fit(tables[name][0][:n], targets[name][:n])

    for name, (X, _) in tables.items():
        ours(THREADS, trees=2).fit(X[:20_000], targets[name][:20_000])  # kernels
    seconds, models = take_turns({name: functools.partial(fit, name) for name in tables}, 3 if full else 1)
    work = f"boosting {n:,} rows, {TREES} trees, {THREADS} threads"
    of_value = {name: [s / n / _stored(X) for s in seconds[name]] for name, (X, _) in tables.items()}
    for name, (X, others) in tables.items():
        score = auc(targets[name][n:], models[name].predict_proba(X[n:])[:, 1])
        note = f"{X.shape[1]} columns, {_stored(X):.0f} values stored a row"
        sheet.add(work, name, "seconds", seconds[name], quality=("AUC", score), note=note)
        sheet.add(work, name, "nanoseconds a stored value", [s * 1e9 for s in of_value[name]])
        for other in others:
            sheet.add(work, f"{name} against {other}", "times the seconds a stored value",
                      ratios(of_value[name], of_value[other]), must=("<=", 1.5))  # fmt: skip
    return sheet


def _follow(X, rng):
    """Draw classes whose log odds follow a fifth of the columns."""
    weight = rng.normal(size=X.shape[1]) * (rng.random(X.shape[1]) < 0.2)
    weight[0] = 1.0
    raw = np.asarray(X @ weight)
    return ((raw - raw.mean()) / raw.std() * 2 + rng.logistic(size=len(raw)) > 0).astype(np.float32)


def _one_hot(n, n_groups, n_levels, rng):
    """Return CSR rows with a one in each group of columns."""
    from scipy import sparse

    columns = rng.integers(0, n_levels, (n, n_groups), dtype=np.int32) + n_levels * np.arange(n_groups, dtype=np.int32)
    ones, starts = np.ones(columns.size, np.float32), np.arange(0, columns.size + 1, n_groups)
    return sparse.csr_matrix((ones, columns.ravel(), starts), shape=(n, n_groups * n_levels))


def _stored(X):
    """Return the values that are stored a row."""
    return getattr(X, "nnz", X.size) / X.shape[0]
