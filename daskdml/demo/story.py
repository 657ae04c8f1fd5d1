"""The demo in order: start workers, fit, compare, write the page."""

import contextlib
import logging
import os
import signal
import threading

import numpy as np

from daskdml import __version__
from daskdml.demo import contest, show, table, tasks
from daskdml.utils.config import config_context

_CHUNK_ROWS = 62_500
_HELD_OUT_SHARE = 0.25
# Of the memory that is free; above it the encoded rows are not copied into this process for scikit-learn.
_MEMORY_SHARE = 0.2
_MOST_COLUMNS_SAID = 12


def run_bundled(path, *, n_rows, n_workers, say):
    """Fit scikit-learn's bundled data and generated rows, and write the report.

    Parameters
    ----------
    path : pathlib.Path
        Of the HTML report.
    n_rows : int
        Rows to generate.
    n_workers : int
        Worker processes; scikit-learn gets as many threads.
    say : callable
        Takes a line of progress.

    Returns
    -------
    list of Result
    """
    say(_opening(n_workers))
    with _open_cluster(n_workers) as client:
        say("the workers are ready; the first fit also compiles, once per machine")
        results = []
        for name, kind, X, y in tasks.load_bundled():
            results.append(_compete_in_memory(name, kind, X, y))
            say(show.tell(results[-1]))
        results.append(_compete_generated(client, n_rows, say))
        say(show.tell(results[-1]))
    show.write_report(path, results, n_workers=n_workers)
    return results


def run_file(path, *, data, target, task, n_workers, say):
    """Fit the user's own file, and write the report.

    Parameters
    ----------
    path, n_workers, say
        As in `run_bundled`.
    data : str
        Parquet or CSV file, folder or glob.
    target : str
        Column to predict.
    task : {"auto", "classification", "regression"}

    Returns
    -------
    list of Result
        One result.

    Raises
    ------
    BadInput
    """
    say(_opening(n_workers))
    frame = table.open_table(data)
    X, y = table.split_target(frame, target)
    with _open_cluster(n_workers) as client:
        say(f"reading {target!r} in {frame.npartitions} partitions of {data}")
        found = table.look_at_target(y, task)
        reason = "since" if task == "auto" else "as asked;"
        say(f"{found.n_rows:,} rows, {len(X.columns)} columns; {found.kind}, {reason} {target!r} holds {found.why}")
        if found.n_missing:
            say(f"{found.n_missing:,} rows without a target are left out")
            X, y = table.split_target(frame.dropna(subset=[target]), target)
        result, encoder = _compete_table(client, os.path.basename(os.path.normpath(data)), found, X, y, say)
        say(show.tell(result))
    show.write_report(path, [result], n_workers=n_workers, encoder=encoder)
    return [result]


def _opening(n_workers):
    return f"daskdml {__version__}: starting {n_workers} worker processes on this machine"


@contextlib.contextmanager
def _open_cluster(n_workers):
    """Start workers; meanwhile scikit-learn, and fits in this process, have as many threads as there are workers."""
    from distributed import Client, LocalCluster
    from threadpoolctl import threadpool_limits

    # No dashboard, and the scheduler's own pages on any free port: a fixed one may be taken.
    quiet = {"silence_logs": logging.CRITICAL, "dashboard_address": None}
    quiet["scheduler_kwargs"] = {"dashboard_address": "127.0.0.1:0"}
    with contextlib.ExitStack() as stack:
        with _interrupts_ignored():
            cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, **quiet)
            stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        stack.enter_context(config_context(n_threads=n_workers))
        stack.enter_context(threadpool_limits(n_workers))
        yield client


@contextlib.contextmanager
def _interrupts_ignored():
    """Ignore Ctrl-C until the end of the block; processes started in it inherit that for good.

    A terminal sends Ctrl-C to the workers as well. So only this process hears it, and closes them in order.
    """
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _split(X, y, kind):
    from daskdml.model_selection import train_test_split

    stratify = y if kind == "classification" else None
    return train_test_split(X, y, test_size=_HELD_OUT_SHARE, stratify=stratify, random_state=0)


def _compete_in_memory(name, kind, X, y):
    Xa, Xb, ya, yb = _split(X, y, kind)
    return contest.compete(name, kind, (Xa, ya), (Xb, yb), in_memory=(Xa, ya, Xb, yb))


def _compete_generated(client, n_rows, say):
    """Fit generated rows where the workers hold them, and their copy in this process with scikit-learn."""
    X, y = client.persist(tasks.generate(n_rows, _CHUNK_ROWS))
    say(f"generating {n_rows:,} rows of {X.shape[1]} float32 features on the workers")
    Xa, Xb, ya, yb = client.persist(_split(X, y, "classification"))
    in_memory = client.gather(client.compute([Xa, ya, Xb, yb]))
    del X, y
    say("fitting them with daskdml on the workers, then their copy in this process with scikit-learn")
    return contest.compete("generated", "classification", (Xa, ya), (Xb, yb), in_memory=in_memory, n_rows=n_rows)


def _compete_table(client, name, found, X, y, say):
    """Encode a table and fit it; where the encoded rows fit into memory they are kept, and scikit-learn gets a copy."""
    from daskdml.preprocessing import TableEncoder

    Xa, Xb, ya, yb = _split(X, y, found.kind)
    encoder = TableEncoder().fit(Xa)
    Xa, Xb = encoder.transform(Xa), encoder.transform(Xb)
    n_features = len(encoder.get_feature_names_out())
    n_bytes = found.n_rows * n_features * 8
    say(f"{len(X.columns)} columns encoded as {n_features} numbers a row")
    lines = encoder.describe().splitlines()
    for line in lines[:_MOST_COLUMNS_SAID]:
        say(f"    {line}")
    if len(lines) > _MOST_COLUMNS_SAID:
        say(f"    and {len(lines) - _MOST_COLUMNS_SAID} more, see the report")
    in_memory = None
    if n_bytes <= _MEMORY_SHARE * _free_memory():
        Xa, Xb, ya, yb = client.persist([Xa, Xb, ya, yb])
        in_memory = [_plain(part) for part in client.gather(client.compute([Xa, ya, Xb, yb]))]
    else:
        say("the encoded rows would not fit into this process's memory: scikit-learn is left out")
    held_out = None if in_memory else [_plain(part) for part in _first_rows(Xb, yb)]
    result = contest.compete(
        name,
        found.kind,
        (Xa, ya),
        (Xb, yb),
        in_memory=in_memory,
        held_out=held_out,
        n_rows=found.n_rows,
        encoded=True,
    )
    return result, encoder


def _first_rows(X, y):
    """Return rows of the first partition, enough for a picture."""
    import dask

    return [part[: contest.MOST_HELD_OUT_ROWS] for part in dask.compute(X.partitions[0], y.partitions[0])]


def _free_memory():
    import psutil

    return psutil.virtual_memory().available


def _plain(part):
    """Return a Series as an array scikit-learn takes; text as Python strings."""
    if getattr(part, "ndim", 2) != 1:
        return part
    return np.asarray(part, dtype=None if part.dtype.kind in "biuf" else object)
