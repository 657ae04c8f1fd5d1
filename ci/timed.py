"""Run a command and hold it to two limits: seconds to its first line of output, and seconds in all.

    python ci/timed.py --first 10 --total 120 -- daskdml demo

The output is passed on. Exits with the command's own status, or 1 if a limit was missed.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=float, required=True, help="seconds until the first line")
    parser.add_argument("--total", type=float, required=True, help="seconds until the end; then it is killed")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    start = time.perf_counter()
    first = None
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(options.command, start_new_session=True, **pipes)
    # The whole group: the command may have started processes that hold its output open.
    killer = threading.Timer(options.total, lambda: os.killpg(process.pid, signal.SIGKILL))
    killer.start()
    for line in process.stdout:
        if first is None and line.strip():
            first = time.perf_counter() - start
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    status = process.wait()
    killer.cancel()
    total = time.perf_counter() - start

    shown = "never" if first is None else f"after {first:.1f} s"
    print(f"first line {shown} (limit {options.first:g} s), end after {total:.1f} s (limit {options.total:g} s)")
    if status:
        return status if status > 0 else 1
    return int(first is None or first > options.first or total > options.total)


if __name__ == "__main__":
    sys.exit(main())
