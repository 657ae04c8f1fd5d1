"""What classifiers share: weights of classes, and labels and probabilities from raw values."""

import dataclasses
import functools
import numbers

import numpy as np

from daskdml.kernels import exact
from daskdml.losses import Logistic, Multinomial


def check_classes(classes):
    """Raise ValueError for fewer than two classes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    """
    if len(classes) < 2:
        only = classes[:1].tolist()[0] if len(classes) else "none"
        raise ValueError(
            "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{only!r}"
        )


def class_weights(given, summary):
    """Return the factor of each class's weights, or None for ones.

    Parameters
    ----------
    given : dict, "balanced" or None
        As the parameter ``class_weight`` has it; classes that a dict leaves out have 1.
    summary : daskdml.data TargetSummary
        Of all rows.

    Returns
    -------
    ndarray of float64, shape (n_classes,), or None

    Raises
    ------
    ValueError
        If a key looks like a misspelt class, or a factor is no finite number >= 0.
    """
    if given is None:
        return None
    classes = summary.classes
    if isinstance(given, str):
        # scikit-learn's: n / (n_classes * weight of the class), n being the total weight.
        factors, weights = np.zeros(len(classes)), summary.weights
        return np.divide(weights.sum(), len(classes) * weights, where=weights > 0, out=factors)
    missing = [label for label in classes.tolist() if label not in given]
    # scikit-learn's rule: other keys are harmless unless they look like a misspelt class.
    if missing and given and len(classes) - len(missing) != len(given):
        raise ValueError(
            f"The classes, {missing}, are not in class_weight, whose keys are {list(given)}: name them, or name no "
            f"class that y does not hold (it holds {classes.tolist()})."
        )
    by_class = np.ones(len(classes))
    for k, label in enumerate(classes.tolist()):
        value = given.get(label, 1.0)
        if not (isinstance(value, numbers.Real) and 0 <= value < np.inf):
            raise ValueError(f"class_weight must hold finite numbers >= 0, got {value!r} for class {label!r}.")
        by_class[k] = value
    return by_class


def with_exact_weights(summary, run):
    """Return a summary whose weights of classes are rounded once: the same bits for any chunks of the same rows.

    Parameters
    ----------
    summary : daskdml.data TargetSummary
    run : daskdml.runtime Run
        Of the same rows, y being the numbers of classes.
    """
    totals = run.map_reduce(functools.partial(_class_totals, len(summary.classes)), _added, reads_x=False)
    return dataclasses.replace(summary, weights=np.array([exact.as_float(total) for total in totals]))


def _class_totals(n_classes, block):
    weight = np.ones(len(block.y)) if block.weight is None else block.weight
    return [exact.exact_sum(weight[block.y == c]) for c in range(n_classes)]


def _added(a, b):
    return [x + y for x, y in zip(a, b)]


def label_rows(classes, raw):
    """Return the most probable class of each row.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    raw : ndarray
        Log odds of the second of two classes, (n,) or (n, 1), or a value of each class, (n, n_classes).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> label_rows(np.array(["no", "yes"]), np.array([-1.0, 2.0]))
    array(['no', 'yes'], dtype='<U3')
    """
    if raw.ndim == 2 and raw.shape[1] > 1:
        return classes[raw.argmax(axis=1)]
    return classes[(raw.ravel() > 0).astype(np.intp)]


def probabilities(raw):
    """Return the probability of each class.

    Parameters
    ----------
    raw : ndarray
        See `label_rows`.

    Returns
    -------
    ndarray of shape (n, n_classes)
    """
    if raw.ndim == 2 and raw.shape[1] > 1:
        return Multinomial(raw.shape[1]).predict(raw)
    raw = raw.ravel()
    # Each from its own side: 1 - p would round small probabilities of class 0 to zero.
    return np.column_stack([Logistic().predict(-raw), Logistic().predict(raw)])


def log_probabilities(raw):
    """Return the logarithm of `probabilities`, finite where that rounds to zero.

    Parameters
    ----------
    raw : ndarray
        See `label_rows`.

    Returns
    -------
    ndarray of shape (n, n_classes)
    """
    if raw.ndim == 2 and raw.shape[1] > 1:
        shifted = raw - raw.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    raw = raw.ravel()
    return np.column_stack([-np.logaddexp(0, raw), -np.logaddexp(0, -raw)])
