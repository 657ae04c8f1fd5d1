"""How boosting keeps its bins: twice in memory, once, or in files."""

from daskdml.kernels.binning import row_bytes
from daskdml.trees import bytes_per_row, histogram_bytes
from daskdml.utils.memory import bytes_of_row

COLUMNS_SHARE = 0.5  # of the memory: where rows need more, bins are kept once


def check_room(run, n_outputs):
    """Refuse dense rows that have no room as bins, in memory or as files, before anything is read for it."""
    if run.layout != "csr":
        p = run.n_features
        run.mode_of(*_bytes_of(run, n_outputs), row_bytes(p) + p)


def replace_by_bins(run, kept, n_bins, n_outputs, max_leaf_nodes):
    """Replace the rows of a run by their bins.

    Parameters
    ----------
    run : daskdml.runtime Run
    kept : daskdml.trees.binning.Kept
    n_bins : int
        Of all features.
    n_outputs : int
    max_leaf_nodes : int or None

    Returns
    -------
    bool
        Whether bins are to be kept by columns too.
    """
    beside = run.n_workers * histogram_bytes(n_bins, max_leaf_nodes, run.threads_per_worker)
    once = _bytes_of(run, n_outputs, kept.n_stored)
    in_files = bytes_of_row(*kept[1:]) + (run.n_features if kept.n_stored is None else 0)  # and by columns
    mode = run.mode_of(*once, in_files, beside)
    twice = _apart(run, n_outputs) + bytes_per_row(run.n_features, n_outputs, True, kept.n_stored)
    by_columns = mode == "pinned" and run.has_room(twice, beside, COLUMNS_SHARE)
    run.replace_rows(*kept, mode=mode)
    return by_columns


def _bytes_of(run, n_outputs, n_stored=None):
    """Return the bytes of a row with its bins in memory, and with its bins in files."""
    p, apart = run.n_features, _apart(run, n_outputs)
    return [apart + bytes_per_row(p, n_outputs, False, n_stored, in_files) for in_files in (False, True)]


def _apart(run, n_outputs):
    """Return what a row takes more whose features several workers have."""
    if run.panels is None:
        return 0
    of_tiles = sum(row_bytes(columns.stop - columns.start) + 16 for columns in run.panels)
    return (run.n_workers - 1) * bytes_per_row(0, n_outputs) + 3 * (of_tiles - row_bytes(run.n_features))
