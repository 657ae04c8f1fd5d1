"""Seconds of competing calls, taken in turns, with the same number of threads on every side."""

import contextlib
import gc
import time
import warnings

THREADS = 2


@contextlib.contextmanager
def threads(n):
    """Give every side n threads: BLAS and OpenMP by threadpoolctl, ours by its own option.

    Parameters
    ----------
    n : int
    """
    from threadpoolctl import threadpool_limits

    from daskdml import config_context

    with threadpool_limits(limits=n), config_context(n_threads=n), warnings.catch_warnings():
        # What a solver says about convergence is measured here, as the gap.
        warnings.simplefilter("ignore")
        yield


def timed(work):
    """Call a function of no arguments; return (seconds, what it returned)."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def microseconds(work, n, repetitions=5):
    """Return the microseconds of one call of a function of no arguments: of each repetition the mean over n calls."""
    work()
    found = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in range(n):
            work()
        found.append((time.perf_counter() - start) / n * 1e6)
    return found


def take_turns(works, repetitions):
    """Time each of several calls once a round, so that a slow minute of the machine is shared by all.

    Parameters
    ----------
    works : dict {name: callable of no arguments}
    repetitions : int
        Rounds.

    Returns
    -------
    seconds : dict {name: list of float}
        In the order of the rounds: entry i of one name is paired with entry i of another.
    results : dict {name: object}
        What each call returned last.
    """
    seconds, results = {name: [] for name in works}, {}
    for _ in range(repetitions):
        for name, work in works.items():
            # The previous result is let go first: two of them would be more memory than a user has.
            results.pop(name, None)
            took, results[name] = timed(work)
            seconds[name].append(took)
    return seconds, results


def ratios(theirs, ours):
    """Return theirs / ours, pair by pair."""
    return [t / o for t, o in zip(theirs, ours)]
