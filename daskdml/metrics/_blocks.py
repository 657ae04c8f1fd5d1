"""What all metrics share: walking the blocks, the rows' weights, and what a target's values turn out to be."""

import functools
import numbers
from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_consistent_length

from daskdml.data import as_target, as_weight, is_dask
from daskdml.data.kinds import is_dask_frame
from daskdml.utils.params import InvalidParameterError


def fold(partial, y_true, y_other, sample_weight):
    """Add up ``partial(y_true, y_other, weight)`` over all blocks, in block order.

    Parameters
    ----------
    partial : picklable callable of three ndarrays (the weight may be None)
        Its results are added with ``+``.
    y_true, y_other, sample_weight : array-like or Dask collection
        ``y_other`` is what the metric compares with: predictions, probabilities or scores.

    Returns
    -------
    The sum of the partials.

    Notes
    -----
    Reads each input once. Input in memory is a single block and never meets Dask.
    """
    if isinstance(sample_weight, numbers.Real):
        raise InvalidParameterError(
            f"The 'sample_weight' parameter of a metric must be an array-like or None. Got {sample_weight!r} instead."
        )
    if not any(is_dask(one) for one in (y_true, y_other, sample_weight)):
        check_consistent_length(y_true, y_other, sample_weight)
        return _of_rows(partial, y_true, y_other, sample_weight)
    from daskdml import runtime
    from daskdml.data import Partitioned

    # The first collection keeps its chunks and the other moves: a lazy one must not be moved onto one in memory.
    swapped = is_dask(y_true) and not is_dask(y_other)
    kept, moved = (y_true, y_other) if swapped else (y_other, y_true)
    if is_dask_frame(kept) and len(kept.shape) == 1:
        kept = kept.to_frame()  # what keeps its chunks is a table
    data = Partitioned.from_any(kept, moved, sample_weight, matrix=False)
    with runtime.open(data, passes="one") as run:
        return run.map_reduce(functools.partial(_of_block, partial, swapped))


def _of_block(partial, swapped, block):
    y_true, y_other = (block.X, block.y) if swapped else (block.y, block.X)
    return _of_rows(partial, y_true, y_other, block.weight)


def _of_rows(partial, y_true, y_other, weight):
    weight = None if weight is None else as_weight(_vector_of(weight), None)
    if weight is not None:
        check_finite(weight, "sample_weight")
    return partial(_vector_of(y_true), _vector_of(y_other), weight)


def _vector_of(values):
    """One chunk of any kind -> an array of one or two dimensions; a single column is a vector."""
    values = as_target(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


@dataclass(frozen=True)
class Rows:
    """How many rows there were and what they weigh."""

    n: int
    weight: float
    any_weight: bool

    @classmethod
    def of(cls, y, weight):
        if weight is None:
            return cls(len(y), float(len(y)), len(y) > 0)
        return cls(len(y), float(weight.sum()), bool(weight.any()))

    def __add__(self, other):
        return Rows(self.n + other.n, self.weight + other.weight, self.any_weight or other.any_weight)

    def check(self):
        """Raise if there is nothing to average over."""
        if self.n == 0:
            raise ValueError(
                "Found empty input array (e.g., `y_true` or `y_pred`) while a minimum of 1 sample is required."
            )
        if not self.any_weight:
            raise ValueError("Sample weights must contain at least one non-zero number.")

    def mean(self, total):
        """Divide a weighted sum by the weights' sum."""
        if self.weight == 0:
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
        return total / self.weight


@dataclass(frozen=True)
class Target:
    """What a target's values are, as far as seen: enough to tell scikit-learn's type of target at the end.

    ``kinds`` holds "number" or "string" (labels in a vector), "indicator" (a matrix of at most two integers),
    "multiclass-multioutput", "continuous", "continuous-multioutput" or "unknown"; ``labels`` the distinct values of
    labels, sorted.
    """

    kinds: frozenset
    labels: np.ndarray

    @classmethod
    def of(cls, y, name, *, labels):
        """Look at one block; ``labels`` says whether its distinct values are wanted (a sort)."""
        none = np.empty(0)
        if len(y) == 0:
            return cls(frozenset(), none)
        kind = _kind_of(y, name)
        if kind == "indicator" or (labels and kind in ("number", "string")):
            return cls(frozenset([kind]), _distinct(y, name))
        return cls(frozenset([kind]), none)

    def __add__(self, other):
        kinds = self.kinds | other.kinds
        if {"number", "string"} <= kinds:
            raise ValueError("Mix of label input types (string and number)")
        return Target(kinds, union(self.labels, other.labels))

    def type(self):
        """Name the type of target, in scikit-learn's words."""
        for kind in ("unknown", "continuous-multioutput", "continuous", "multiclass-multioutput"):
            if kind in self.kinds:
                return kind
        if "indicator" in self.kinds:
            return "multilabel-indicator" if len(self.labels) <= 2 else "multiclass-multioutput"
        return "binary" if len(self.labels) <= 2 else "multiclass"


def union(a, b):
    """Merge two sorted arrays of distinct labels; an empty one has no say in the dtype."""
    if len(a) == 0 or len(b) == 0:
        return b if len(a) == 0 else a
    return a if len(a) == len(b) and (a == b).all() else np.union1d(a, b)


def _kind_of(y, name):
    vector = y.ndim == 1
    if y.ndim > 2:
        return "unknown"
    if y.dtype.kind == "f":
        check_finite(y, name)
        if (y != np.floor(y)).any():
            return "continuous" if vector else "continuous-multioutput"
    if vector:
        if y.dtype.kind == "O":
            return _kind_of_objects(y, name)
        return "string" if y.dtype.kind in "USTO" else "number"
    return "indicator" if len(_distinct(y, name)) <= 2 else "multiclass-multioutput"


def _kind_of_objects(y, name):
    kinds = {
        "string" if issubclass(one, str) else "number" if issubclass(one, (numbers.Number, np.bool_)) else "unknown"
        for one in set(map(type, y))
    }
    if "string" in kinds and len(kinds) > 1:
        raise ValueError(f"{name} mixes strings with numbers or missing values; labels must be all of one kind.")
    return "unknown" if len(kinds) != 1 else kinds.pop()


def _distinct(y, name):
    try:
        return np.unique(y)
    except TypeError as error:
        message = f"{name} holds labels that cannot be sorted; labels must be all strings or all numbers."
        raise ValueError(message) from error


def check_finite(values, name):
    """Raise scikit-learn's sentence if a float array holds NaN or infinity."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    what = "NaN" if np.isnan(values).any() else f"infinity or a value too large for {values.dtype!r}"
    raise ValueError(f"Input {name} contains {what}.")


def check_argument(function, name, value, allowed, described):
    """Raise in scikit-learn's words unless ``allowed`` (a truth value) holds for an argument."""
    if not allowed:
        raise InvalidParameterError(f"The {name!r} parameter of {function} must be {described}. Got {value!r} instead.")
