"""What weights are: whole numbers that say how often a row counts, or anything else."""

MOST_TIMES = 15  # that a row may count: four bits


def weight_facts(run):
    """Return the largest weight, whether all are whole numbers up to 15, and their sum if they are.

    Parameters
    ----------
    run : daskdml.runtime Run

    Returns
    -------
    float, bool, int
    """
    return run.map_reduce(_facts, _both, reads_x=False)


def _facts(block):
    if block.weight is None:
        return 1.0, True, block.n_rows
    most = float(block.weight.max(initial=0.0))
    are_whole = most <= MOST_TIMES and bool((block.weight == block.weight.round()).all())
    return most, are_whole, int(block.weight.sum()) if are_whole else 0


def _both(a, b):
    return max(a[0], b[0]), a[1] and b[1], a[2] + b[2]
