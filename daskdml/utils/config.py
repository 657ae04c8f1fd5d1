"""Options that belong to a run, not to an estimator: where a fit runs and how it keeps its blocks.

Constructors keep scikit-learn's parameters; everything about placement comes from here. Values are looked up in this
order: an enclosing `config_context`, `set_config`, Dask's configuration (``daskdml.runtime`` ...), the defaults below.
"""

import contextlib
import numbers
import os
import sys
from contextvars import ContextVar

DEFAULTS = {
    "runtime": "auto",
    "memory": "auto",
    "n_threads": None,
    "scratch_dir": None,
    "timeout": 60.0,
    "checkpoint": None,
    "checkpoint_every": 30.0,
    "resume": False,
}
ALLOWED = {
    "runtime": ("auto", "threads", "tasks", "spmd", "debug"),
    "memory": ("auto", "pinned", "mmap", "stream"),
}

_global: dict = {}
_local: ContextVar[dict | None] = ContextVar("daskdml_config", default=None)


def get_config():
    """Return the options in force as a dict.

    Examples
    --------
    >>> get_config()["runtime"]
    'auto'
    """
    options = {**DEFAULTS, **_from_dask(), **_global, **(_local.get() or {})}
    _check_together(options)
    return options


def set_config(**options):
    """Set options for this process, until changed again.

    None gives an option back to Dask's configuration and the defaults.

    Parameters
    ----------
    runtime : {"auto", "threads", "tasks", "spmd", "debug"}
        Where blocks are computed. "auto" stays in this process unless a `distributed.Client` is current and the data
        are a Dask collection, of more than 32 MiB in a fit of many passes; then it takes what is predicted to be
        faster, one task per worker and pass ("tasks") or one task per worker and fit, between which sums travel
        ("spmd"). "debug" is a plain Python loop that pdb can step through.
    memory : {"auto", "pinned", "mmap", "stream"}
        How blocks wait between passes: in memory, as files in scratch space, or read again from their source. Bins of
        boosting: as files for "mmap", in memory for "pinned", else as there is room.
    n_threads : int or None
        Threads of the in-process pool; None is one per core this process may use.
    scratch_dir : str or None
        Folder for "mmap" blocks; None is the worker's own folder, or the system's temporary folder in process.
    timeout : float, default 60
        Seconds after which a worker that is silent though connected (stopped, or cut off) is taken out of the cluster.
    checkpoint : str or None
        Where fits of many passes write how far they are: a folder, as a path or any URL that fsspec knows. Each fit has
        a file there, named after its rows and parameters, which is removed when the fit has ended well.
    checkpoint_every : float, default 30
        Seconds between two writings; also between the states that a fit on a cluster brings to this process, from
        which it goes on if all workers die at once.
    resume : bool, default False
        Go on from the checkpoint, if there is one of the same rows and parameters; else begin anew. Needs
        ``checkpoint``, set before or with it.

    Examples
    --------
    >>> set_config(n_threads=2)
    >>> get_config()["n_threads"]
    2
    >>> set_config(n_threads=None)
    """
    _check(options)
    changed = _given({**_global, **options})
    _check_together({**DEFAULTS, **_from_dask(), **changed, **(_local.get() or {})})
    _global.update(changed)
    for name in set(_global) - set(changed):
        del _global[name]


@contextlib.contextmanager
def config_context(**options):
    """Set options inside a ``with`` block, for this thread or task only.

    Takes the parameters of `set_config`. None gives an option back, inside the block, to `set_config` and what stands
    behind it.

    Examples
    --------
    >>> with config_context(runtime="debug"):
    ...     get_config()["runtime"]
    'debug'
    """
    _check(options)
    merged = _given({**(_local.get() or {}), **options})
    _check_together({**DEFAULTS, **_from_dask(), **_global, **merged})
    token = _local.set(merged)
    try:
        yield
    finally:
        _local.reset(token)


def _given(options):
    return {name: value for name, value in options.items() if value is not None}


def _check(options):
    for name, value in options.items():
        if name not in DEFAULTS:
            raise ValueError(f"daskdml has no option {name!r}; it has {', '.join(DEFAULTS)}.")
        if value is None:
            continue
        if name in ALLOWED and value not in ALLOWED[name]:
            raise ValueError(f"The option {name!r} must be one of {', '.join(ALLOWED[name])}; got {value!r}.")
        is_count = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if name == "n_threads" and not (is_count and value >= 1):
            raise ValueError(f"The option 'n_threads' must be None or an int of at least 1; got {value!r}.")
        if name in ("scratch_dir", "checkpoint") and not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"The option {name!r} must be None or a path; got {value!r}.")
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if name in ("timeout", "checkpoint_every") and not (is_number and value > 0):
            raise ValueError(f"The option {name!r} must be a number of seconds above 0; got {value!r}.")
        if name == "resume" and not isinstance(value, bool):
            raise ValueError(f"The option 'resume' must be True or False; got {value!r}.")


def _check_together(options):
    if options["resume"] and options["checkpoint"] is None:
        raise ValueError("The option resume=True needs checkpoint, the folder that the fit before wrote to; got None.")


def _from_dask():
    """Read ``daskdml.*`` from Dask's configuration, without importing Dask for users who have none."""
    if "dask" not in sys.modules and not _dask_configured():
        return {}
    import dask.config

    found = {name: dask.config.get(f"daskdml.{name.replace('_', '-')}", None) for name in DEFAULTS}
    found = {name: value for name, value in found.items() if value is not None}
    _check(found)
    return found


def _dask_configured():
    if any(name.startswith("DASK_DASKDML") for name in os.environ):
        return True
    folders = (os.environ.get("DASK_CONFIG"), "~/.config/dask", "/etc/dask")
    return any(folder and os.path.isdir(os.path.expanduser(folder)) for folder in folders)
