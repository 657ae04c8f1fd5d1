"""Benchmarks of what carries fits: ranks, tasks, the simulator, and what faults cost."""
