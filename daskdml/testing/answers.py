"""Compare what was learned, whatever it is made of: numbers, words, arrays, frames, lists and tuples of them."""

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator


def learned(model):
    """Return the public fitted attributes of an estimator by name.

    Parameters
    ----------
    model : fitted estimator

    Returns
    -------
    dict
        Those that end in an underscore, properties included.
    """
    names = (name for name in dir(model) if name.endswith("_") and not name.startswith("_") and hasattr(model, name))
    return {name: getattr(model, name) for name in names}


def same_answer(found, expected, rtol=0.0, where=""):
    """Raise `AssertionError` unless two answers are the same, floats to a tolerance.

    Two numbers are close when they differ by ``rtol`` of the larger, or by ``rtol`` of the largest of their array. NaN
    equals NaN; the type that holds a value does not matter.

    Parameters
    ----------
    found, expected : anything an estimator learns or returns
    rtol : float, default 0.0
        0 asks for the same bits.
    where : str
        For the message.
    """
    found, expected = _plain(found), _plain(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), f"{where}: {sorted(found)} instead of {sorted(expected)}"
        for key in expected:
            same_answer(found[key], expected[key], rtol, f"{where} {key}")
    elif isinstance(expected, list) or isinstance(found, list):
        assert _has_length(found) and _has_length(expected), f"{where}: {found!r} instead of {expected!r}"
        assert len(found) == len(expected), f"{where}: {len(found)} values instead of {len(expected)}"
        for i, pair in enumerate(zip(found, expected)):
            same_answer(*pair, rtol, f"{where}[{i}]")
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        assert found.shape == expected.shape, f"{where}: shape {found.shape} instead of {expected.shape}"
        size = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * size, err_msg=where)
    else:
        assert found is expected or found == expected, f"{where}: {found!r} instead of {expected!r}"


def _plain(value):
    """Return a value as a dict, a list, an ndarray of numbers, or a single thing that is no number."""
    if isinstance(value, BaseEstimator):
        return learned(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    value = value.toarray() if sparse.issparse(value) else value
    value = value.to_numpy() if hasattr(value, "to_numpy") else value
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        value = np.asarray(value)
        if value.dtype.kind in "OUSmM":
            return value.tolist()
        # The bits of any number but a large integer, and those are exact either way.
        return value.astype(np.float64)
    # pandas.NA and NaT equal nothing, not even themselves.
    return np.asarray(np.nan) if repr(value) in ("<NA>", "NaT") else value


def _has_length(value):
    return isinstance(value, list) or isinstance(value, np.ndarray) and value.ndim > 0
