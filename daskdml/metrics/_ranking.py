"""Area under the ROC curve: exact by merging sorted scores, or bracketed with a bounded number of cells."""

import functools
import itertools
import numbers
import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import column_or_1d

from daskdml.data import is_dask
from daskdml.metrics._blocks import Rows, Target, check_argument, check_finite, fold
from daskdml.metrics._ranks import Cells, area_under_curve

_WIDE = 1e-3


def roc_auc_score(
    y_true,
    y_score,
    *,
    average="macro",
    sample_weight=None,
    max_fpr=None,
    multi_class="raise",
    labels=None,
    bins=None,
    max_bytes=2**28,
):
    """Area under the ROC curve: the chance that a positive row scores above a negative one, ties counting half.

    Parameters
    ----------
    y_true : array-like or Dask collection, shape (n,) or (n, n_labels)
        Labels (two: the greater one is positive; more: see ``multi_class``), or a 0/1 indicator matrix.
    y_score : array-like or Dask collection of float, shape (n,) or (n, n_classes)
        Scores or probabilities; for more than two classes probabilities that sum to one.
    average : {"macro", "weighted", "micro", "samples"} or None, default="macro"
        How classes or labels are averaged, as in scikit-learn; "samples" averages over the rows of an indicator matrix.
        Ignored for two classes.
    sample_weight : array-like or Dask collection, shape (n,), default=None
    max_fpr : float in (0, 1], default=None
        Standardised area up to this false positive rate (McClish, 1989).
    multi_class : {"raise", "ovr", "ovo"}, default="raise"
        Each class against the rest, or all pairs of classes (Hand and Till, 2001).
    labels : array-like, default=None
        For more than two classes: all labels, sorted, one per column of ``y_score``.
    bins : int, default=None
        None is exact. An int of at least 2 keeps at most so many distinct scores per column, by dropping low bits of
        all scores alike; see Notes.
    max_bytes : int, default=268435456
        Most bytes that merged scores of Dask input may take (20 per distinct score and label and column).

    Returns
    -------
    float, or ndarray of shape (n_classes,) for ``average=None``

    Raises
    ------
    ValueError
        If the distinct scores of Dask input take more than ``max_bytes``, or as scikit-learn does.

    Warns
    -----
    UndefinedMetricWarning
        With one class only; the score is nan.
    UserWarning
        If with ``bins`` the answer is known no better than to 0.001.

    Notes
    -----
    One pass. Exact: every block sends its distinct scores with their weights per label.

    With ``bins`` rows in one cell count as ties. The true area differs by at most
    sum_cells positive * negative / (2 P N): about 1 / (2 bins) at worst where scores spread evenly over cells, and
    exactly 0 while there are no more than ``bins`` distinct scores. Cells are narrow near 0 and near 1. The answer does
    not depend on the chunking.

    Examples
    --------
    >>> roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    _check_arguments(average, max_fpr, multi_class, bins, max_bytes)
    if not any(is_dask(one) for one in (y_true, y_score, sample_weight)):
        max_bytes = None  # nothing is sent anywhere
    by_row = average == "samples"
    of = functools.partial(_Scores.of, bins=bins, max_bytes=max_bytes, by_row=by_row)
    scores = fold(of, y_true, y_score, sample_weight)
    scores.check()
    kind = scores.true.type()
    if kind == "multiclass" or (kind == "binary" and scores.ndim == 2 and scores.n_columns > 2):
        if max_fpr is not None and max_fpr != 1.0:
            raise ValueError(
                "Partial AUC computation not available in multiclass setting, 'max_fpr' must be set to `None`, "
                f"received `max_fpr={max_fpr}` instead"
            )
        return _multiclass(scores, average, multi_class, labels, sample_weight is not None)
    if kind == "binary":
        if scores.ndim != 1:
            shape = (scores.rows.n, scores.n_columns)
            raise ValueError(f"y should be a 1d array, got an array of shape {shape} instead.")
        present = scores.code_of(scores.true.labels[-1]) if len(scores.true.labels) == 2 else np.zeros(1, dtype=bool)
        return _one_score(scores.columns[0], present, ~present, max_fpr)
    if kind != "multilabel-indicator":
        raise ValueError(f"{kind} format is not supported")
    if by_row:
        return scores.row_mean()
    positive = scores.true.labels > 0
    return _averaged(scores.columns, [positive] * scores.n_columns, average, max_fpr)


def _check_arguments(average, max_fpr, multi_class, bins, max_bytes):
    name = "roc_auc_score"
    averages = ("micro", "macro", "samples", "weighted", None)
    described = "a str among {'macro', 'micro', 'samples', 'weighted'} or None"
    check_argument(name, "average", average, average in averages, described)
    described = "a float in the range (0.0, 1.0] or None"
    in_range = max_fpr is None or (isinstance(max_fpr, numbers.Real) and 0 < max_fpr <= 1)
    check_argument(name, "max_fpr", max_fpr, in_range, described)
    ways = ("raise", "ovr", "ovo")
    check_argument(name, "multi_class", multi_class, multi_class in ways, "a str among {'ovo', 'ovr', 'raise'}")
    enough = bins is None or (isinstance(bins, numbers.Integral) and bins >= 2)
    check_argument(name, "bins", bins, enough, "an int in the range [2, inf) or None")
    enough = isinstance(max_bytes, numbers.Integral) and max_bytes >= 1
    check_argument(name, "max_bytes", max_bytes, enough, "an int in the range [1, inf)")


def _one_score(cells, positive, negative, max_fpr):
    area, bound = area_under_curve(cells, positive, negative, max_fpr)
    if np.isnan(area):
        warnings.warn(
            "Only one class is present in y_true. ROC AUC score is not defined in that case.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
    if bound > _WIDE:
        warnings.warn(f"The ROC AUC is only known to within {bound:.1g}; raise bins.", UserWarning, stacklevel=3)
    return float(area)


def _averaged(columns, positives, average, max_fpr=None):
    """Score each column, then average; ``positives[c]`` says which codes are positive in column ``c``."""
    if average == "micro":
        return _one_score(*_flattened(columns, positives), max_fpr)
    support = np.array([cells.weights[mask[cells.codes]].sum() for cells, mask in zip(columns, positives)])
    if average == "weighted" and np.isclose(support.sum(), 0):
        return 0.0
    scores = np.array([_one_score(cells, mask, ~mask, max_fpr) for cells, mask in zip(columns, positives)])
    if average is None:
        return scores
    if average == "macro":
        return float(scores.mean())
    return float(np.average(np.where(support == 0, 0.0, scores), weights=support))


def _flattened(columns, positives):
    """All columns as one, with code 1 for positive entries."""
    whole = None
    for cells, mask in zip(columns, positives):
        cells = cells.recoded(mask)
        whole = cells if whole is None else whole.merge(cells, None)
    return whole, np.array([False, True]), np.array([True, False])


def _multiclass(scores, average, multi_class, labels, weighted):
    if multi_class == "raise":
        raise ValueError("multi_class must be in ('ovo', 'ovr')")
    if scores.ndim != 2:
        raise ValueError(
            "`y_score` needs to be of shape `(n_samples, n_classes)`, since `y_true` contains multiple classes. Got "
            f"`y_score.shape=({scores.rows.n},)`."
        )
    if not scores.sums_to_one:
        raise ValueError(
            "Target scores need to be probabilities for multiclass roc_auc, i.e. they should sum up to 1.0 over classes"
        )
    allowed = ("micro", "macro", "weighted", None) if multi_class == "ovr" else ("macro", "weighted", None)
    if average not in allowed:
        raise ValueError(f"average must be one of {allowed} for multiclass problems")
    if average is None and multi_class == "ovo":
        raise NotImplementedError("average=None is not implemented for multi_class='ovo'.")
    positives = [scores.code_of(one) for one in _classes_of(scores, labels)]
    if multi_class == "ovr":
        return _averaged(scores.columns, positives, average)
    if weighted:
        raise ValueError(
            "sample_weight is not supported for multiclass one-vs-one ROC AUC, 'sample_weight' must be None in this "
            "case."
        )
    return _one_against_one(scores.columns, positives, average)


def _one_against_one(columns, positives, average):
    """Mean over pairs of classes of the two areas, each class's column taken as the score (Hand and Till)."""
    counts = [columns[0].weights[mask[columns[0].codes]].sum() for mask in positives]
    held = [c for c, mask in enumerate(positives) if mask.any()]
    pairs = list(itertools.combinations(held, 2))
    areas = [
        sum(_one_score(columns[c], positives[c], positives[d], None) for c, d in ((a, b), (b, a))) / 2 for a, b in pairs
    ]
    prevalence = [counts[a] + counts[b] for a, b in pairs] if average == "weighted" else None
    return float(np.average(areas, weights=prevalence))


def _classes_of(scores, labels):
    found = scores.true.labels
    if labels is None:
        if len(found) != scores.n_columns:
            raise ValueError("Number of classes in y_true not equal to the number of columns in 'y_score'")
        return found
    labels = column_or_1d(labels)
    classes = np.unique(labels)
    if len(classes) != len(labels):
        raise ValueError("Parameter 'labels' must be unique")
    if not np.array_equal(classes, labels):
        raise ValueError("Parameter 'labels' must be ordered")
    if len(classes) != scores.n_columns:
        raise ValueError(
            f"Number of given labels, {len(classes)}, not equal to the number of columns in 'y_score', "
            f"{scores.n_columns}"
        )
    if not set(found.tolist()) <= set(classes.tolist()):
        raise ValueError("'y_true' contains labels not in parameter 'labels'")
    return classes


@dataclass(frozen=True)
class _Scores:
    """The sorted cells of every score column; codes are positions in ``true.labels``."""

    rows: Rows
    true: Target
    columns: tuple
    ndim: int
    n_columns: int
    sums_to_one: bool
    row_areas: Rows  # for average="samples": its weight is the weighted sum of the rows' areas
    bins: int | None
    max_bytes: int | None
    too_big: bool = False

    @classmethod
    def of(cls, y_true, scores, weight, *, bins, max_bytes, by_row):
        check_finite(scores, "y_score")
        scores = scores.astype(np.float64, copy=False)
        true = Target.of(y_true, "y_true", labels=True)
        table = scores[:, None] if scores.ndim == 1 else scores
        if y_true.ndim == 2 and y_true.shape != table.shape:
            raise ValueError(f"y_true has {y_true.shape[1]} columns and y_score has {table.shape[1]}; they must agree.")
        areas = Rows(0, 0.0, False)
        columns = ()
        if by_row and y_true.ndim == 2:
            areas = Rows.of(y_true, _row_areas(y_true, table) * (1.0 if weight is None else weight))
        elif len(true.labels) or len(y_true) == 0:
            codes = np.searchsorted(true.labels, y_true)
            codes = [codes[:, c] if codes.ndim == 2 else codes for c in range(table.shape[1])]
            columns = tuple(Cells.of(table[:, c], codes[c], weight, bins) for c in range(table.shape[1]))
        sums = scores.ndim == 1 or np.allclose(1, table.sum(axis=1))
        rows = Rows.of(y_true, weight)
        return cls(rows, true, columns, scores.ndim, table.shape[1], bool(sums), areas, bins, max_bytes)._capped()

    def __add__(self, other):
        if (self.ndim, self.n_columns) != (other.ndim, other.n_columns):
            raise ValueError(f"y_score has {self.n_columns} columns in one block and {other.n_columns} in another.")
        true = self.true + other.true
        ours, theirs = (
            [cells.recoded(np.searchsorted(true.labels, one.true.labels)) for cells in one.columns]
            for one in (self, other)
        )
        return _Scores(
            self.rows + other.rows,
            true,
            tuple(a.merge(b, self.bins) for a, b in zip(ours, theirs)),
            self.ndim,
            self.n_columns,
            self.sums_to_one and other.sums_to_one,
            self.row_areas + other.row_areas,
            self.bins,
            self.max_bytes,
            self.too_big or other.too_big,
        )._capped()

    def _capped(self):
        """Drop the cells for good once they outgrow the cap."""
        held = sum(cells.nbytes for cells in self.columns)
        if not self.too_big and (self.max_bytes is None or held <= self.max_bytes):
            return self
        return replace(self, columns=(), too_big=True)

    def check(self):
        self.rows.check()
        if self.too_big:
            raise ValueError(
                f"The distinct scores take more than max_bytes={self.max_bytes} bytes, the most that are merged "
                "exactly; pass bins= (100_000, say) for an answer with a stated bound, or raise max_bytes."
            )

    def code_of(self, label):
        """Mark the code of one label; all False if no row has it."""
        return self.true.labels == label

    def row_mean(self):
        mean = self.rows.mean(self.row_areas.weight)
        if np.isnan(mean):
            warnings.warn(
                "Only one class is present in y_true. ROC AUC score is not defined in that case.",
                UndefinedMetricWarning,
                stacklevel=3,
            )
        return float(mean)


def _row_areas(y, scores):
    """Area under the curve of every row on its own: pairs won by a positive label, ties half."""
    positive = y > 0
    won = np.zeros(len(y))
    for c in range(y.shape[1]):
        ahead = (scores[:, c, None] > scores) + 0.5 * (scores[:, c, None] == scores)
        won += positive[:, c] * (ahead * ~positive).sum(axis=1)
    n_positive = positive.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return won / (n_positive * (y.shape[1] - n_positive))
