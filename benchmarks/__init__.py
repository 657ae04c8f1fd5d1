"""Benchmarks beside peers: same data and threads, in turns, quality beside time, a CSV behind each picture."""

import os

# Before any OpenMP runtime is loaded: idle threads of one side must not spin while the other side is timed.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
