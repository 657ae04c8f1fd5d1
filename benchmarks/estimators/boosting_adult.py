"""Boosting on census income, where it is there: words, missing values and long tails, scored on its own test file."""

import gzip
import io
from pathlib import Path

from benchmarks.estimators.boosting import auc
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, take_turns, threads

DATA = Path(__file__).parents[3] / "shared" / "data"
LEAST_AUC = 0.925


def run(rows=None, full=False):
    """An AUC of at least 0.925 on the 16,281 rows of the test file, with the estimator's defaults.

    Parameters
    ----------
    rows : int, optional
        The first so many of the 32,561 rows to train on.
    full : bool, default False
        Seeds 0, 1 and 2; early stopping draws its own rows by them.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("boosting_adult", at_size=rows is None)
    absent = [name for name in map(_file, ("data", "test")) if not (DATA / name).exists()]
    if absent:
        sheet.skip("boosting of census income", f"skipped: no {' and no '.join(absent)} in shared/data")
        return sheet
    (X, y), (X_test, y_test) = (_read(DATA / _file(name)) for name in ("data", "test"))
    X, y = X[:rows], y[:rows]
    work = f"boosting of census income, {len(X):,} x {X.shape[1]}, words as categories, defaults, {THREADS} threads"
    sides = _sides()
    seconds, scores = {name: [] for name in sides}, {name: [] for name in sides}
    with threads(THREADS):
        for make in sides.values():
            make(0).fit(X, y)  # kernels
        for seed in range(3 if full else 1):
            took, models = take_turns({name: lambda make=make: make(seed).fit(X, y) for name, make in sides.items()}, 1)
            for name in sides:
                seconds[name] += took[name]
                scores[name].append(auc(y_test, models[name].predict_proba(X_test)[:, 1]))
    for name in sides:
        sheet.add(work, name, "seconds", seconds[name])
        must = (">=", LEAST_AUC) if name == "daskdml" else None
        sheet.add(work, name, f"AUC of {len(X_test):,} test rows", scores[name], must=must)
    return sheet


def _sides():
    from sklearn import ensemble as theirs

    from daskdml import ensemble as ours

    kinds = {"daskdml": ours.HistGradientBoostingClassifier, "scikit-learn": theirs.HistGradientBoostingClassifier}
    return {name: lambda seed, kind=kind: kind(random_state=seed) for name, kind in kinds.items()}


def _file(name):
    return f"adult.{name}.gz"


def _read(path):
    """Return the columns of one file, words as categories, and whether income is above 50,000."""
    import pandas as pd

    # Some copies break long lines after a comma; the test file begins with a comment.
    text = gzip.decompress(path.read_bytes()).decode().replace(",\n", ", ")
    lines = [line for line in text.splitlines() if line and not line.startswith("|")]
    table = pd.read_csv(io.StringIO("\n".join(lines)), header=None, skipinitialspace=True, na_values="?")
    X = table.iloc[:, :-1].set_axis([f"c{j}" for j in range(table.shape[1] - 1)], axis=1)
    words = [name for name, kind in X.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return X.astype(dict.fromkeys(words, "category")), table.iloc[:, -1].str.startswith(">50K").to_numpy()
