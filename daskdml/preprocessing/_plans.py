"""What becomes of each column of a table: decided once from its summary, applied to every chunk."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from daskdml.data.statistics import column_moments, locate
from daskdml.preprocessing._categories import keep_frequent
from daskdml.preprocessing._columns import DATE_PARTS, PANEL_WIDTH, kind_of_values, panel

# From this share of its rows on, a column of words that look like numbers is remarked upon.
NOTABLE_SHARE = 0.9


class Numbers(NamedTuple):
    """What is known of the numbers in one column (five of a datetime), each an array of that length."""

    present: int
    missing: int
    mean: np.ndarray
    variance: np.ndarray
    fill: np.ndarray


class ColumnPlan(NamedTuple):
    """How one column is encoded; plain data.

    ``suffixes`` are what the names of the outputs add to the column's, none for a dropped column. Numbers: part
    ``parts[k]`` of the column becomes ``(value - shift[k]) / scale[k]``, missing values being ``fill[k]``. Categories:
    value ``categories[i]`` sets output ``groups[i]``.
    """

    name: str
    kind: str
    n_missing: int
    n_distinct: int | None
    treatment: str
    suffixes: tuple = ()
    parts: tuple = ()
    fill: tuple = ()
    shift: tuple = ()
    scale: tuple = ()
    indicator: bool = False
    categories: np.ndarray | None = None
    groups: np.ndarray | None = None
    takes_numbers: bool = False


def numbers_in(kinds, moments, medians, n_rows):
    """Cut moments (and medians) of a panel into `Numbers` of columns, as a dict by position of the column."""
    found, first = {}, 0
    fill = moments.mean if medians is None else medians
    for j, kind in enumerate(kinds):
        width = PANEL_WIDTH.get(kind, 0)
        if width:
            at = slice(first, first + width)
            present = int(moments.weight[first])
            found[j] = Numbers(present, n_rows - present, moments.mean[at], moments.variance[at], fill[at])
            first += width
    return found


def plan_column(name, kind, numbers, counts, options, centre=True):
    """Decide what becomes of a column.

    Parameters
    ----------
    name : str
    kind : str
        See `daskdml.preprocessing._columns`.
    numbers : Numbers or None
    counts : daskdml.data.statistics.ValueCounts or None
        One of the two is given.
    options : object with the parameters of TableEncoder
    centre : bool, default=True
        Whether standardising may shift.

    Returns
    -------
    ColumnPlan
    """
    if kind == "object" and not counts.overflow:
        kind = kind_of_values(counts.values.tolist())
        if kind != "category":
            numbers = _numbers_counted(name, kind, counts, options.impute)
    if kind in PANEL_WIDTH:
        return _plan_numbers(name, kind, numbers, options, centre)
    return _plan_categories(name, counts, options)


def _numbers_counted(name, kind, counts, impute):
    """Return the `Numbers` of a column of Python objects from the counts of its values."""
    values = panel([counts.values], [kind], [name], in_fit=True)
    if np.isinf(values).any():
        raise ValueError(f"Input X contains infinity or a value too large for dtype('float64') in column {name!r}.")
    moments = column_moments(values, counts.counts.astype(np.float64))
    fill = moments.mean if impute == "mean" else [_median(column, counts.counts) for column in values.T]
    missing = counts.n_none + counts.n_nan
    return Numbers(int(counts.counts.sum()), missing, moments.mean, moments.variance, np.asarray(fill))


def _median(values, counts):
    order = np.argsort(values)
    upto = np.cumsum(counts[order])
    middle = [(upto[-1] - 1) // 2, upto[-1] // 2]
    return values[order][np.searchsorted(upto, middle, side="right")].mean()


def _plan_numbers(name, kind, numbers, options, centre):
    missing = numbers.missing
    plan = ColumnPlan(name, kind, missing, None, "dropped: all missing")
    if numbers.present == 0:
        return plan
    varies = tuple(np.flatnonzero(numbers.variance > 0).tolist())
    indicator = bool(missing and options.add_indicator)
    if not varies and not indicator:
        return plan._replace(treatment="dropped: constant")
    labels = ["_" + part for part in DATE_PARTS] if kind == "datetime" else [""]
    standardised = [
        kind != "boolean" and (options.numeric == "standardise" or labels[part] == "_seconds") for part in varies
    ]
    shift = [numbers.mean[part] if yes and centre else 0.0 for part, yes in zip(varies, standardised)]
    scale = [np.sqrt(numbers.variance[part]) if yes else 1.0 for part, yes in zip(varies, standardised)]
    words = []
    if varies:
        what = {"number": "numbers", "boolean": "0 or 1", "datetime": ", ".join(DATE_PARTS[part] for part in varies)}
        scaled = "standardised" if centre else "scaled"
        words.append(what[kind] if kind != "number" or not any(standardised) else scaled)
        if kind == "datetime" and options.numeric == "standardise":
            words.append(scaled)
        if missing:
            value = f" {numbers.fill[0]:.6g}" if kind != "datetime" else ""
            words.append(f"missing filled with the {options.impute}{value}")
    else:
        words.append("constant where present, only whether it is missing kept")
    return plan._replace(
        treatment=", ".join(words),
        suffixes=tuple(labels[part] for part in varies) + ("_missing",) * indicator,
        parts=varies,
        fill=tuple(numbers.fill[part] for part in varies),
        shift=tuple(shift),
        scale=tuple(scale),
        indicator=indicator,
    )


def _plan_categories(name, counts, options):
    missing = counts.n_none + counts.n_nan
    distinct = None if counts.overflow else len(counts.values)
    plan = ColumnPlan(name, "category", missing, distinct, "dropped: all missing")
    if counts.overflow:
        return plan._replace(treatment="dropped: more than 1,000,000 distinct values")
    if not len(counts.values):
        return plan
    if len(counts.values) == 1 and not missing:
        return plan._replace(treatment="dropped: constant")
    values, times = _in_order(counts)
    most = options.max_categories
    infrequent = keep_frequent(times, counts.n_rows, None, most if most is not None and len(values) > most else None)
    frequent = np.setdiff1d(np.arange(len(values)), infrequent)
    groups = np.full(len(values), len(frequent))
    groups[frequent] = np.arange(len(frequent))
    suffixes = [f"_{values[i]}" for i in frequent] + ["_infrequent"] * bool(len(infrequent))
    words = [f"one of {len(values)} values"]
    if len(infrequent):
        words.append(f"the {len(infrequent)} rarest together")
    if missing:
        # None and NaN are one thing here, whichever of them fit has met.
        values = np.append(values, np.array([None, np.nan], dtype=object))
        groups = np.append(groups, [len(suffixes)] * 2)
        suffixes.append("_missing")
        words.append("missing is a value")
    if _share_like_numbers(counts) >= NOTABLE_SHARE:
        words.append("words that look like numbers: convert the column if it holds quantities")
    return plan._replace(
        treatment=", ".join(words),
        suffixes=tuple(suffixes),
        categories=values,
        groups=groups,
        takes_numbers=not all(isinstance(value, (str, bytes, type(None))) or value != value for value in values),
    )


def _share_like_numbers(counts):
    """Return the share of the present rows that hold words which could be read as numbers."""
    like = sum(count for value, count in zip(counts.values.tolist(), counts.counts) if _like_number(value))
    return like / counts.counts.sum()


def _like_number(value):
    try:
        return isinstance(value, str) and np.isfinite(float(value))
    except ValueError:
        return False


def _in_order(counts):
    """Return values as objects, ascending, by their text where they cannot be compared, and their counts."""
    values = np.empty(len(counts.values), dtype=object)
    values[:] = counts.values.tolist()
    try:
        order = np.argsort(values, kind="stable")
    except TypeError:
        order = np.argsort([str(value) for value in values], kind="stable")
    return values[order], counts.counts[order]


def output_names(names, plans):
    """Return the names of all outputs; one that is taken already gets a number."""
    out, taken = [], set()
    for name, plan in zip(names, plans):
        for suffix in plan.suffixes:
            wanted = candidate = f"{name}{suffix}"
            number = 2
            while candidate in taken:
                candidate, number = f"{wanted}_{number}", number + 1
            taken.add(candidate)
            out.append(candidate)
    return out


def encode(columns, plans, dtype):
    """Encode the columns of one chunk.

    Parameters
    ----------
    columns : list of ndarray or pandas.Series, each of length n
    plans : list of ColumnPlan
    dtype : numpy dtype

    Returns
    -------
    ndarray of shape (n, number of outputs)
    """
    n = len(columns[0])
    out = np.zeros((n, sum(len(plan.suffixes) for plan in plans)), dtype)
    first = 0
    for column, plan in zip(columns, plans):
        if plan.categories is not None:
            groups = np.append(plan.groups, -1)[locate(column, plan.categories)]
            rows = np.flatnonzero(groups >= 0)
            out[rows, first + groups[rows]] = 1
        elif plan.suffixes:
            values = panel([column], [plan.kind], [plan.name])
            if np.isinf(values).any():
                raise ValueError(f"Input X contains infinity in column {plan.name!r}.")
            missing = np.isnan(values)
            for k, part in enumerate(plan.parts):
                filled = np.where(missing[:, part], plan.fill[k], values[:, part])
                out[:, first + k] = (filled - plan.shift[k]) / plan.scale[k]
            if plan.indicator:
                out[:, first + len(plan.parts)] = missing[:, 0]
        first += len(plan.suffixes)
    return out


def encode_sparse(X, plans, dtype):
    """Encode one CSR chunk of numbers: stored values are filled and scaled, zeros stay zeros."""
    X = X.tocsc()
    column = np.repeat(np.arange(X.shape[1]), np.diff(X.indptr))
    fill = np.array([plan.fill[0] if plan.parts else 0.0 for plan in plans])
    scale = np.array([plan.scale[0] if plan.parts else 1.0 for plan in plans])
    missing = np.isnan(X.data)
    data = np.where(missing, fill[column], X.data) / scale[column]
    if np.isinf(data).any():
        raise ValueError(f"Input X contains infinity in column {plans[column[np.isinf(data).argmax()]].name!r}.")
    form = type(X)
    values = form((data.astype(dtype), X.indices, X.indptr), shape=X.shape)
    flags = form((missing.astype(dtype), X.indices, X.indptr), shape=X.shape)
    kept = [j for j, plan in enumerate(plans) if plan.parts]
    flagged = [j for j, plan in enumerate(plans) if plan.indicator]
    # Each indicator stands right after its column, as in the dense encoding.
    order = np.argsort([2 * j for j in kept] + [2 * j + 1 for j in flagged], kind="stable")
    flags = flags[:, flagged]
    flags.eliminate_zeros()
    return sparse.hstack([values[:, kept], flags], format="csc")[:, order].tocsr()
