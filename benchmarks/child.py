"""Call a function of the benchmarks in a process of its own: its imports, its memory and its limits are its own too.

``python -m benchmarks.child benchmarks.imports:first_fit '{"rows": 100}'`` prints what comes back as JSON, last.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def call(function, *, env=None, limit=None, **arguments):
    """Call a function in a child process and return what it returned, by way of JSON.

    Parameters
    ----------
    function : str
        "package.module:name".
    env : dict, optional
        Added to the environment.
    limit : float, optional
        Seconds after which the child and all its children are killed.
    **arguments
        What JSON can carry.

    Returns
    -------
    object

    Raises
    ------
    RuntimeError
        If the child failed; with the end of what it printed.
    TimeoutError
        If it took longer than ``limit``.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    child = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise TimeoutError(f"{function} took longer than {limit} s") from None
    if child.returncode:
        raise RuntimeError(f"{function} failed in its own process ({child.returncode}):\n{err[-2000:]}")
    return json.loads(out.splitlines()[-1])


def main(function, arguments):
    """Import and call the function; print its result."""
    module, _, name = function.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
