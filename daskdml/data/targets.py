"""Targets and weights: read into arrays, summarised block by block, and labels turned into codes.

A block function never raises on bad values: it writes them down as a fault of its `TargetSummary`, so that the first
fault in row order is reported whichever block was first to finish.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.data.kinds import (
    is_cupy,
    is_dask_frame,
    is_narwhal,
    is_pandas,
    is_sparse,
    n_rows,
    refuse_unread,
)

# Integer labels spread over fewer values than this are counted by addressing instead of hashing.
TABLE_SPAN = 1 << 16
INCONSISTENT = "Found input variables with inconsistent numbers of samples: {}"
WEIGHT_SHAPE = "Sample weights must be 1D array or scalar, got {ndim}D array; pass one number for each row of X."


def as_target(y):
    """Return an in-memory target as an ndarray of its own type, (n,) or (n, k).

    Parameters
    ----------
    y : array_like, Series or DataFrame
        Nullable numbers become plain ones (missing: NaN), categories and strings objects.

    Returns
    -------
    ndarray
        A view where y is an array already.
    """
    refuse_unread(y)
    if is_sparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required. Use '.toarray()' to convert it.")
    if is_cupy(y):  # targets are summed up and encoded on the host
        y = y.get()
    if is_pandas(y):
        y = _from_pandas(y)
    elif is_narwhal(y):
        import narwhals as nw

        y = nw.from_native(y, allow_series=True, eager_only=True).to_numpy()
    y = np.asarray(y)
    if y.dtype.kind == "c":
        raise ValueError("Complex data not supported\ny holds complex numbers; pass their real and imaginary parts.")
    if y.ndim not in (1, 2):
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
    if y.dtype.kind == "O":
        y = _plain_objects(y)
    return np.require(y, requirements=["A"])


def as_vector(y):
    """Return a target of one column as a vector: the very y where it is one, lazily on Dask input.

    Parameters
    ----------
    y : array_like, Series, DataFrame or Dask collection, shape (n,) or (n, 1)

    Returns
    -------
    array, Series or Dask collection, shape (n,)
        Whatever has no shape to look at is returned as it is.

    Raises
    ------
    ValueError
        For several columns.

    Examples
    --------
    >>> as_vector(np.array([[1], [2]]))
    array([1, 2])
    """
    refuse_unread(y)
    table = np.asarray(y) if isinstance(y, (list, tuple)) else y
    shape = getattr(table, "shape", ())
    if len(shape) != 2:
        return y
    if shape[1] != 1:
        n = shape[0] if isinstance(shape[0], int) else "n"  # a Dask DataFrame would have to be read to know
        raise ValueError(f"y should be a 1d array, got an array of shape ({n}, {shape[1]}) instead.")
    if is_pandas(table) or is_dask_frame(table):
        return table.iloc[:, 0]
    return as_target(table)[:, 0] if is_narwhal(table) else table[:, 0]


def _from_pandas(y):
    kinds = list(y.dtypes) if len(y.shape) == 2 else [y.dtype]
    plain = [getattr(kind, "numpy_dtype", None) for kind in kinds]
    if all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in plain):
        missing = bool(np.any(np.asarray(y.isna())))
        dtype = np.float64 if missing else np.result_type(*plain)
        return y.to_numpy(dtype=dtype, na_value=np.nan) if missing else y.to_numpy(dtype=dtype)
    return y.to_numpy()


def _plain_objects(y):
    """Turn an object array of numbers into a numeric one; strings and unknown things stay objects."""
    from pandas.api.types import infer_dtype

    dtype = {"integer": np.int64, "boolean": np.bool_, "floating": np.float64, "mixed-integer-float": np.float64}
    found = dtype.get(infer_dtype(y.ravel(), skipna=False))
    return y if found is None else y.astype(found)


def as_weight(weight, n):
    """Return sample weights as float64 of shape (n,); values are looked at later, by `target_summary`.

    Parameters
    ----------
    weight : array_like, shape (n,)
    n : int or None
        Rows they belong to; None compares nothing.
    """
    weight = as_target(weight)
    if weight.ndim != 1:
        raise ValueError(WEIGHT_SHAPE.format(ndim=weight.ndim))
    if weight.dtype.kind not in "fiub":
        raise ValueError(f"Sample weights must be numbers, got values of type {weight.dtype}.")
    if n is not None and weight.shape != (n,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n,)}!")
    return np.require(weight, np.float64, ["C", "A"])  # kernels take no strides


@dataclass(frozen=True, eq=False)
class TargetSummary:
    """What one pass over y and the weights tells; summaries of disjoint rows add up.

    Parameters
    ----------
    n_rows : int
    weight : float
        Sum of the weights; the number of rows without weights.
    classes : ndarray of shape (c,) or None
        Sorted labels ("classes" only).
    counts, weights : ndarray of shape (c,) or None
        Rows and sum of weights per class.
    low, high, total : ndarray of shape () or (k,), or None
        Least value, greatest value and weighted sum of y per output ("values" only).
    fault : tuple (block index, sentence) or None
        First thing wrong, in row order.
    """

    n_rows: int = 0
    weight: float = 0.0
    classes: Any = None
    counts: Any = None
    weights: Any = None
    low: Any = None
    high: Any = None
    total: Any = None
    fault: Any = None

    def __add__(self, other):
        if not isinstance(other, TargetSummary):
            return NotImplemented
        faults = [s.fault for s in (self, other) if s.fault is not None]
        n_rows, weight = self.n_rows + other.n_rows, self.weight + other.weight
        fault = min(faults, default=None)
        if fault is None and _mixed(self.classes, other.classes):
            fault = (0, "Unknown label type: unknown. y mixes numbers and strings; make all labels of one type.")
        if fault is not None:
            return TargetSummary(n_rows, weight, fault=fault)
        classes = _merge_classes(self, other)
        values = [
            _both(fold, getattr(self, name), getattr(other, name))
            for fold, name in ((np.minimum, "low"), (np.maximum, "high"), (np.add, "total"))
        ]
        return TargetSummary(n_rows, weight, *classes, *values)

    def check(self):
        """Raise ValueError with the first fault; else return self."""
        if self.fault is not None:
            raise ValueError(self.fault[1])
        if self.n_rows and not self.weight > 0:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return self


def _both(fold, a, b):
    return b if a is None else a if b is None else fold(a, b)


def _mixed(a, b):
    return a is not None and b is not None and (a.dtype.kind in "OUS") != (b.dtype.kind in "OUS")


def _merge_classes(a, b):
    if a.classes is None or b.classes is None:
        some = b if a.classes is None else a
        return some.classes, some.counts, some.weights
    if a.classes.dtype == b.classes.dtype and np.array_equal(a.classes, b.classes):
        return a.classes, a.counts + b.counts, a.weights + b.weights
    classes, place = np.unique(np.concatenate([a.classes, b.classes]), return_inverse=True)
    counts, weights = np.zeros(len(classes), dtype=np.int64), np.zeros(len(classes))
    for part, at in ((a, place[: len(a.classes)]), (b, place[len(a.classes) :])):
        counts[at] += part.counts
        weights[at] += part.weights
    return classes, counts, weights


def target_summary(block, kind):
    """Summarise y and the weights of one block.

    Parameters
    ----------
    block : Block or Chunk
    kind : {"classes", "values", "none"}
        Labels, numbers, or weights only.

    Returns
    -------
    TargetSummary
        Bad values are its `fault`; ``summary.check()`` raises.

    Examples
    --------
    >>> from daskdml.data.blocks import Block
    >>> summary = target_summary(Block(None, np.array([1, 0, 1]), None, 0, 0), "classes")
    >>> summary.classes, summary.counts
    (array([0, 1]), array([1, 2]))
    """
    index, start = getattr(block, "index", 0), getattr(block, "start", 0)
    y, weight = block.y, block.weight
    n = next((len(part) for part in (y, weight) if part is not None), None)
    n = n_rows(block.X) if n is None else n
    sentence = _bad_weight(weight, index, start)
    if sentence is None and kind != "none":
        sentence = _bad_target(y, kind, index, start)
    sum_weight = float(n if weight is None else weight.sum())
    if sentence is not None:
        return TargetSummary(n, sum_weight, fault=(index, sentence))
    if n == 0 or kind == "none":
        return TargetSummary(n, sum_weight)
    if kind == "classes":
        return TargetSummary(n, sum_weight, *_count_classes(_flat(y), weight))
    y = y.astype(np.float64, copy=False)
    total = y.sum(axis=0) if weight is None else weight @ y
    return TargetSummary(n, sum_weight, low=y.min(axis=0), high=y.max(axis=0), total=np.asarray(total))


def _flat(y):
    return y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y


def _where(bad, index, start):
    row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
    return f"row {start + row}, in block {index}"


def _bad_weight(weight, index, start):
    if weight is None or len(weight) == 0:
        return None
    least = weight.min()
    if least < 0:
        place = _where(weight < 0, index, start)
        return f"Negative values in data passed to `sample_weight`: {least} at {place}."
    if not np.isfinite(weight.sum()):
        bad = ~np.isfinite(weight)
        what = "NaN" if np.isnan(weight).any() else "infinity or a value too large for dtype('float64')"
        return f"Input sample_weight contains {what}. It is at {_where(bad, index, start)}." if bad.any() else None
    return None


def _bad_target(y, kind, index, start):
    """Return the sentence for NaN, infinity or the wrong kind of values in y, or None."""
    if kind == "classes":
        y = _flat(y)
        if y.ndim != 1:
            return f"y should be a 1d array, got an array of shape {y.shape} instead."
    if y.dtype.kind in "iub" or y.size == 0:
        return None
    if y.dtype.kind == "f":
        return _bad_floats(y, kind, index, start)
    if kind == "values":
        return _bad_text(y)
    if y.dtype.kind == "O":
        return _bad_labels(y, index, start)
    return None if y.dtype.kind in "US" else f"Unknown label type: unknown. y holds values of type {y.dtype}."


def _bad_floats(y, kind, index, start):
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(y.sum()) or np.isfinite(y).all()
    if not finite:
        bad = ~np.isfinite(y)
        what = "NaN" if np.isnan(y).any() else f"infinity or a value too large for {y.dtype!r}"
        return f"Input y contains {what}. It is at {_where(bad, index, start)}."
    if kind == "classes" and not _two_values(y) and (y != np.rint(y)).any():
        return _CONTINUOUS
    if kind == "classes" and ((y.min() != np.rint(y.min())) or (y.max() != np.rint(y.max()))):
        return _CONTINUOUS
    return None


_CONTINUOUS = (
    "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes on a "
    "regression target with continuous values."
)


def _bad_text(y):
    return (
        "y must hold numbers for a regression, or 0 and 1 for labels of several columns, got values of type "
        f"{y.dtype}; convert them with y.astype(float)."
    )


def _bad_labels(y, index, start):
    import pandas as pd

    missing = pd.isna(y)
    if missing.any():
        return f"Input y contains NaN. It is at {_where(missing, index, start)}."
    found = pd.api.types.infer_dtype(y, skipna=False)
    if found not in ("string", "bytes"):
        return f"Unknown label type: unknown. y holds {found} objects; make all labels numbers or all strings."
    return None


def _two_values(y):
    return np.count_nonzero(y == y.min()) + np.count_nonzero(y == y.max()) >= len(y)


def _count_classes(y, weight):
    """Return sorted labels, rows per label and weight per label, without sorting the rows."""
    if y.dtype.kind in "fiub":
        low, high = y.min(), y.max()
        upper = y == high
        n_upper = np.count_nonzero(upper)
        if low == high:
            return _finish(y[:1].copy(), np.array([len(y)]), weight, None)
        if n_upper + np.count_nonzero(y == low) == len(y):
            counts = np.array([len(y) - n_upper, n_upper])
            return _finish(np.array([low, high], dtype=y.dtype), counts, weight, upper)
        if y.dtype.kind in "iu" and int(high) - int(low) < TABLE_SPAN:
            codes = _offsets(y, low)
            counts = np.bincount(codes)
            present = np.flatnonzero(counts)
            first = np.zeros(len(counts), dtype=y.dtype)
            first[codes] = y
            sums = counts if weight is None else np.bincount(codes, weight)
            return first[present], counts[present], sums[present].astype(np.float64)
    import pandas as pd

    codes, classes = pd.factorize(y if y.dtype.kind in "fiub" else y.astype(object), sort=True)
    counts = np.bincount(codes, minlength=len(classes))
    return _finish(np.asarray(classes, dtype=y.dtype), counts, weight, codes)


def _offsets(y, low):
    """Return ``y - low`` as indices, whatever integer type y has and its own subtraction would overflow."""
    if y.dtype == np.uint64 and low >= 0:
        return (y - np.uint64(low)).astype(np.intp)
    return y.astype(np.int64) - int(low)


def _finish(classes, counts, weight, codes):
    if weight is None:
        return classes, counts, counts.astype(np.float64)
    if codes is None:
        return classes, counts, np.array([weight.sum()])
    return classes, counts, np.bincount(codes, weight, minlength=len(classes))


def encode_classes(classes, y):
    """Return the position of every label in the sorted classes.

    Parameters
    ----------
    classes : ndarray, shape (c,)
        Sorted labels, as in ``TargetSummary.classes``.
    y : ndarray, shape (n,) or (n, 1)

    Returns
    -------
    ndarray of float32, shape (n,)
        Kernels read targets as floats.

    Raises
    ------
    ValueError
        Naming a label that is none of the classes.

    Examples
    --------
    >>> encode_classes(np.array(["no", "yes"]), np.array(["yes", "no"]))
    array([1., 0.], dtype=float32)
    """
    y = _flat(as_target(y))
    classes = np.asarray(classes)
    numeric = y.dtype.kind in "fiub" and classes.dtype.kind in "fiub"
    if not numeric:
        return _encode_objects(classes, y)
    if len(classes) == 2:
        upper = y == classes[1]
        if np.count_nonzero(upper) + np.count_nonzero(y == classes[0]) != len(y):
            _refuse_label(y[(y != classes[0]) & (y != classes[1])][0], classes)
        return upper.astype(np.float32)
    if y.dtype.kind in "iu" and classes.dtype.kind in "iu" and int(classes[-1]) - int(classes[0]) < TABLE_SPAN:
        return _encode_by_table(classes, y)
    codes = np.searchsorted(classes, y)
    np.minimum(codes, len(classes) - 1, out=codes)
    wrong = classes[codes] != y
    if wrong.any():
        _refuse_label(y[wrong][0], classes)
    return codes.astype(np.float32)


def _encode_by_table(classes, y):
    low, high = int(classes[0]), int(classes[-1])
    if len(y) and (y.min() < low or y.max() > high):
        _refuse_label(y[(y < low) | (y > high)][0], classes)
    table = np.full(high - low + 1, np.nan, dtype=np.float32)
    table[_offsets(classes, low)] = np.arange(len(classes))
    codes = table[_offsets(y, low)]
    if np.isnan(codes.sum()):
        _refuse_label(y[np.isnan(codes)][0], classes)
    return codes


def _encode_objects(classes, y):
    import pandas as pd

    codes = pd.Index(classes.astype(object), dtype=object).get_indexer(pd.Index(y.astype(object), dtype=object))
    if len(codes) and codes.min() < 0:
        _refuse_label(y[codes < 0][0], classes)
    return codes.astype(np.float32)


def announced_classes(given, known=None):
    """Return the classes that there will be, as calls of ``partial_fit`` announce them.

    Parameters
    ----------
    given : array_like or None
        The argument ``classes``, which a first call must have.
    known : ndarray, optional
        What calls before have announced.

    Returns
    -------
    ndarray of shape (n_classes,)
        Sorted.

    Raises
    ------
    ValueError
        As scikit-learn does: without classes at the first call, and where a later one has others.

    Examples
    --------
    >>> announced_classes(["b", "a", "b"])
    array(['a', 'b'], dtype='<U1')
    """
    if known is None and given is None:
        raise ValueError("classes must be passed on the first call to partial_fit.")
    if known is None:
        return np.unique(np.asarray(given))
    if given is not None and not np.array_equal(known, np.unique(np.asarray(given))):
        raise ValueError(f"`classes={given!r}` is not the same as on last call to partial_fit, was: {known!r}")
    return known


def _refuse_label(label, classes):
    shown = ", ".join(repr(c) for c in classes[:5].tolist()) + (", ..." if len(classes) > 5 else "")
    label = label.item() if isinstance(label, np.generic) else label
    raise ValueError(f"y contains the label {label!r}, which is none of the {len(classes)} classes {shown}.")
