"""Call a function of the benchmarks in a process of its own: its imports, its memory and its limits are its own too.

``python -m benchmarks.child benchmarks.imports:first_fit '{"rows": 100}'`` prints what comes back as JSON, last.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def call(function, *, env=None, **arguments):
    """Call a function in a child process and return what it returned, by way of JSON.

    Parameters
    ----------
    function : str
        "package.module:name".
    env : dict, optional
        Added to the environment.
    **arguments
        What JSON can carry.

    Returns
    -------
    object

    Raises
    ------
    RuntimeError
        If the child failed; with the end of what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{function} failed in its own process ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(function, arguments):
    """Import and call the function; print its result."""
    module, _, name = function.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
