"""Mean squared error and the coefficient of determination."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_array

from daskdml.metrics._blocks import Rows, check_argument, check_finite, fold


def mean_squared_error(y_true, y_pred, *, sample_weight=None, multioutput="uniform_average"):
    """Mean of squared residuals: sum_i w_i (y_i - p_i)^2 / sum_i w_i, per output, then averaged.

    Parameters
    ----------
    y_true, y_pred : array-like or Dask collection of float, shape (n,) or (n, n_outputs)
    sample_weight : array-like or Dask collection, shape (n,), default=None
    multioutput : {"raw_values", "uniform_average"} or array-like of shape (n_outputs,), default="uniform_average"
        How outputs are averaged; an array holds their weights.

    Returns
    -------
    float, or ndarray of shape (n_outputs,) for "raw_values"

    Raises
    ------
    ValueError
        If lengths or numbers of outputs differ, values are not finite, or all weights are zero.

    Notes
    -----
    One pass; sums are float64 whatever the input. A block sends four floats per output.

    Examples
    --------
    >>> mean_squared_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.375
    """
    _check_multioutput("mean_squared_error", multioutput, ("raw_values", "uniform_average"), none=False)
    moments = fold(_Moments.of, y_true, y_pred, sample_weight)
    moments.rows.check()
    errors = moments.rows.mean(moments.residual)
    weights = _output_weights(multioutput, len(errors))
    if isinstance(multioutput, str) and multioutput == "raw_values":
        return errors
    return float(np.average(errors, weights=weights))


def r2_score(y_true, y_pred, *, sample_weight=None, multioutput="uniform_average", force_finite=True):
    """Share of the variance that is explained: 1 - sum_i w_i (y_i - p_i)^2 / sum_i w_i (y_i - mean(y))^2.

    Parameters
    ----------
    y_true, y_pred : array-like or Dask collection of float, shape (n,) or (n, n_outputs)
    sample_weight : array-like or Dask collection, shape (n,), default=None
    multioutput : {"raw_values", "uniform_average", "variance_weighted"}, array-like of shape (n_outputs,) or None
        How outputs are averaged, default "uniform_average"; an array holds their weights; None is uniform.
    force_finite : bool, default=True
        For a constant ``y_true``: 1 where the prediction is perfect and 0 where not; False gives nan and -inf.

    Returns
    -------
    float, or ndarray of shape (n_outputs,) for "raw_values"

    Raises
    ------
    ValueError
        If lengths or numbers of outputs differ, values are not finite, or all weights are zero.

    Warns
    -----
    UndefinedMetricWarning
        With fewer than two rows; the score is nan.

    Notes
    -----
    One pass. Blocks send their mean and squared deviations about it, and two blocks merge by Chan, Golub and LeVeque's
    update, so a mean far from zero costs no digits.

    Examples
    --------
    >>> round(r2_score([3, -0.5, 2, 7], [2.5, 0.0, 2, 8]), 6)
    0.948608
    """
    named = ("raw_values", "uniform_average", "variance_weighted")
    _check_multioutput("r2_score", multioutput, named, none=True)
    is_flag = isinstance(force_finite, (bool, np.bool_))
    check_argument("r2_score", "force_finite", force_finite, is_flag, "True or False")
    moments = fold(_Moments.of, y_true, y_pred, sample_weight)
    if moments.rows.n == 1:
        message = "R^2 score is not well-defined with less than two samples."
        warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
        return float("nan")
    moments.rows.check()
    residual, deviation = moments.residual, moments.deviation
    weights = _output_weights(multioutput, len(residual))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 1 - residual / deviation
    if force_finite:
        scores = np.where(residual == 0, 1.0, np.where(deviation == 0, 0.0, scores))
    if isinstance(multioutput, str) and multioutput == "raw_values":
        return scores
    if isinstance(multioutput, str) and multioutput == "variance_weighted" and deviation.any():
        weights = deviation
    return float(np.average(scores, weights=weights))


def _check_multioutput(function, multioutput, named, *, none):
    allowed = multioutput in named if isinstance(multioutput, str) else hasattr(multioutput, "__len__")
    described = f"a str among {set(named)} or an array-like" + (" or None" if none else "")
    check_argument(function, "multioutput", multioutput, allowed or (none and multioutput is None), described)


def _output_weights(multioutput, n_outputs):
    if multioutput is None or isinstance(multioutput, str):
        return None
    weights = check_array(multioutput, ensure_2d=False)
    if n_outputs == 1:
        raise ValueError("Custom weights are useful only in multi-output cases.")
    if len(weights) != n_outputs:
        raise ValueError(f"There must be equally many custom weights ({len(weights)}) as outputs ({n_outputs}).")
    return weights


@dataclass(frozen=True)
class _Moments:
    """Per output: squared residuals, and y's mean and squared deviations about it, all weighted."""

    rows: Rows
    residual: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, y_true, y_pred, weight):
        y_true, y_pred = _outputs_of(y_true, "y_true"), _outputs_of(y_pred, "y_pred")
        if y_true.shape[1] != y_pred.shape[1]:
            outputs = f"{y_true.shape[1]}!={y_pred.shape[1]}"
            raise ValueError(f"y_true and y_pred have different number of output ({outputs})")
        rows = Rows.of(y_true, weight)
        weight = np.ones(len(y_true)) if weight is None else weight
        residual = weight @ (y_true - y_pred) ** 2
        if rows.weight == 0:
            return cls(rows, residual, np.zeros_like(residual), np.zeros_like(residual))
        # About the first row: a constant column then has a deviation of exactly zero, not of rounding.
        shifted = y_true - y_true[0]
        centre = weight @ shifted / rows.weight
        return cls(rows, residual, y_true[0] + centre, weight @ (shifted - centre) ** 2)

    def __add__(self, other):
        rows = self.rows + other.rows
        if len(self.residual) != len(other.residual):
            raise ValueError(
                f"Blocks differ in their number of outputs: {len(self.residual)} and {len(other.residual)}."
            )
        share = other.rows.weight / rows.weight if rows.weight else 0.0
        apart = other.mean - self.mean
        # A block without weight has no mean: it must not pull the other's.
        apart = np.where(self.rows.weight == 0 or other.rows.weight == 0, 0.0, apart)
        mean = other.mean if self.rows.weight == 0 else self.mean + share * apart
        return _Moments(
            rows,
            self.residual + other.residual,
            mean,
            self.deviation + other.deviation + share * self.rows.weight * apart**2,
        )


def _outputs_of(y, name):
    if y.dtype.kind not in "fiub":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must hold numbers; got dtype {y.dtype}.") from error
    check_finite(y, name)
    y = y.astype(np.float64, copy=False)
    return y[:, None] if y.ndim == 1 else y
