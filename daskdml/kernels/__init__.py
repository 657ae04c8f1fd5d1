"""Compiled code. Each file is one kernel: what it computes, its plain-Python body, how it is compiled.

Kernels are single-threaded and release the GIL: threads take blocks. They know nothing of Dask, models or penalties.
"""
