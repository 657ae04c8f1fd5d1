"""Seconds that ``plan`` predicts for boosting and forests beside those that ``fit`` takes, on two threads."""

from benchmarks.estimators import forest
from benchmarks.estimators.boosting import FEATURES, LEAVES, TREES, make_rows, ours
from benchmarks.estimators.plan import compare
from benchmarks.report import Sheet
from benchmarks.timing import THREADS, threads

BOOSTING_ROWS, FOREST_ROWS = (200_000, 1_000_000), 100_000


def run(rows=None, full=False):
    """Predicted seconds are within a factor of two of the actual ones, with warm kernels.

    Boosting with the settings of `boosting`, which are its defaults without early stopping: how many trees that saves
    no plan knows. Forests to the depth of `forest`, and with their defaults, whose trees grow until leaves are pure.

    Parameters
    ----------
    rows : int, optional
        Rows of the largest size instead of a million; the others shrink with it.
    full : bool, default False
        More repetitions.

    Returns
    -------
    Sheet
    """
    from daskdml.ensemble import RandomForestClassifier

    sheet = Sheet("plan_trees", at_size=rows is None)
    share = (rows or BOOSTING_ROWS[-1]) / BOOSTING_ROWS[-1]
    works = [(ours(THREADS), n, f"{TREES} trees of {LEAVES} leaves") for n in BOOSTING_ROWS]
    works += [
        (forest.ours(0), FOREST_ROWS, f"{forest.TREES} trees of depth {forest.DEPTH}"),
        (RandomForestClassifier(random_state=0), FOREST_ROWS, "defaults"),
    ]
    for model, n, settings in works:
        X, y, *_ = make_rows(int(n * share), FEATURES, n_test=1)
        with threads(THREADS):
            compare(sheet, model, (X, y), "threads", 1, THREADS, 5 if full else 1, settings)
    return sheet
