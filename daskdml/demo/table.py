"""The user's own file: read as a Dask DataFrame, checked, and its task chosen from the target."""

import difflib
import glob
import os
from collections import Counter
from typing import NamedTuple

MOST_INTEGER_CLASSES = 20
MOST_CLASSES = 1000
_PARQUET = (".parquet", ".parq", ".pq")
_CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip")


class BadInput(ValueError):
    """A file, column or target that the demo can't use, in one sentence."""


class Target(NamedTuple):
    """What a look at the target column found.

    Attributes
    ----------
    kind : str
        "classification" or "regression".
    why : str
        The reason for that choice, in words.
    n_rows, n_missing : int
        Rows with a target, rows without.
    n_classes : int or None
    """

    kind: str
    why: str
    n_rows: int
    n_missing: int
    n_classes: int | None


def open_table(path):
    """Open a Parquet or CSV file, a folder of either, or a glob, without reading its rows.

    Parameters
    ----------
    path : str

    Returns
    -------
    dask.dataframe.DataFrame

    Raises
    ------
    BadInput
        If nothing is there, or it can't be read.
    """
    import dask.dataframe as dd

    found, ending = _find(path)
    try:
        if ending == "parquet":
            return dd.read_parquet(found)
        # A compressed file can't be cut. Missing integers of a later block would change a column's type.
        blocksize = "default" if ending == "csv" else None
        return dd.read_csv(found, blocksize=blocksize, assume_missing=True, sample=1_000_000)
    except Exception as error:
        raise BadInput(f"{path} can't be read as {_FORMAT[ending]}: {first_line(error)}") from error


_FORMAT = {"parquet": "Parquet", "csv": "CSV", "packed csv": "compressed CSV"}


def _find(path):
    """Return what to hand to Dask (a name, or a list of names) and its format."""
    if "://" in path:
        names = [path]
    elif os.path.isdir(path):
        names = sorted(name for name in glob.glob(os.path.join(path, "**"), recursive=True) if _ending(name))
    else:
        names = sorted(glob.glob(path)) or ([path] if os.path.exists(path) else [])
    if not names and os.path.isdir(path):
        raise BadInput(f"The folder {path} holds no Parquet or CSV file ({', '.join(_PARQUET + _CSV)}).")
    if not names:
        raise BadInput(f"There is no file {path} (seen from {os.getcwd()}).")
    endings = {_ending(name) for name in names}
    if endings == {""}:
        raise BadInput(f"{path} is neither Parquet nor CSV by its name; it must end in {', '.join(_PARQUET + _CSV)}.")
    if len(endings) > 1:
        raise BadInput(f"{path} mixes formats; name one of them, for example '{path}/*.parquet'.")
    empty = [name for name in names if "://" not in name and os.path.isfile(name) and os.path.getsize(name) == 0]
    if empty:
        raise BadInput(f"{empty[0]} is empty.")
    return names, endings.pop()


def _ending(name):
    name = name.lower()
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(_CSV[0]):
        return "csv"
    return "packed csv" if name.endswith(_CSV[1:]) else ""


def split_target(frame, target):
    """Take the target column out of a frame.

    Returns
    -------
    X, y : dask.dataframe.DataFrame and Series

    Raises
    ------
    BadInput
        Naming the closest columns, if `target` is none.
    """
    columns = [str(name) for name in frame.columns]
    if target not in columns:
        close = difflib.get_close_matches(target, columns, n=3)
        shown = ", ".join(columns[:10]) + (f" and {len(columns) - 10} more" if len(columns) > 10 else "")
        hint = f"did you mean {' or '.join(close)}? It has" if close else "it has"
        raise BadInput(f"The data have no column {target!r}; {hint} {shown}.")
    if len(columns) == 1:
        raise BadInput(f"The data have no column besides the target {target!r}: there is nothing to learn from.")
    return frame.drop(columns=target), frame[target]


def look_at_target(y, task="auto"):
    """Read the target column once and choose between classification and regression.

    Text, booleans, categories and at most 20 distinct whole numbers are classes; other numbers are amounts.

    Parameters
    ----------
    y : dask.dataframe.Series
    task : {"auto", "classification", "regression"}, default="auto"
        What the user asks for.

    Returns
    -------
    Target

    Raises
    ------
    BadInput
        For no rows, one class, too many classes, a class of one row, or a target that is neither classes nor numbers.
    """
    import dask
    import pandas as pd

    types = pd.api.types
    number = types.is_numeric_dtype(y.dtype) and not types.is_bool_dtype(y.dtype)
    if types.is_datetime64_any_dtype(y.dtype) or types.is_timedelta64_dtype(y.dtype):
        raise BadInput(f"The target {y.name!r} holds {y.dtype}; it must hold classes or numbers.")
    if task == "regression" and not number:
        raise BadInput(f"The target {y.name!r} holds {y.dtype} values; regression needs numbers.")
    parts = dask.compute(*(dask.delayed(_look_at_part)(part) for part in y.to_delayed()))
    n_rows, n_missing = sum(part[0] for part in parts), sum(part[1] for part in parts)
    counts = sum((part[2] for part in parts), Counter())
    if n_rows == 0:
        raise BadInput(f"The target {y.name!r} has no value in any row: the data are empty.")
    if len(counts) == 1:
        kind = "value" if number else "class"
        raise BadInput(f"The target {y.name!r} has one {kind} only ({next(iter(counts))!r}); it takes at least two.")
    few = len(counts) <= MOST_INTEGER_CLASSES and all(float(value).is_integer() for value in counts) if number else True
    if task == "regression" or (task == "auto" and not few):
        why = f"{'many ' if len(counts) > MOST_INTEGER_CLASSES else ''}{y.dtype} values"
        return Target("regression", why, n_rows, n_missing, None)
    _check_classes(y, counts, number)
    why = f"{len(counts)} distinct whole numbers" if number and few else f"{y.dtype} values"
    return Target("classification", why, n_rows, n_missing, len(counts))


def _check_classes(y, counts, number):
    """Refuse classes that can't be learnt and held out."""
    amounts = "; if they are amounts, give --task regression" if number else ""
    if len(counts) > MOST_CLASSES:
        raise BadInput(f"The target {y.name!r} holds more than {MOST_CLASSES} different {y.dtype} values{amounts}.")
    value, least = min(counts.items(), key=lambda item: item[1])
    if least < 2:
        raise BadInput(
            f"The target {y.name!r} holds {value!r} in one row only; a class takes two rows, one to hold out{amounts}."
        )


def _look_at_part(part):
    """Return (rows with a target, rows without, count of each value) of a partition."""
    present = part.dropna()
    counts = present.value_counts().head(MOST_CLASSES + 1)
    return len(present), len(part) - len(present), Counter(dict(zip(counts.index.tolist(), counts.tolist())))


def first_line(error):
    """Return the first line of an exception's text, or its type's name if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
