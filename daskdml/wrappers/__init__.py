"""Wrappers that carry models of other libraries over Dask collections."""

from daskdml.wrappers._parallel_post_fit import ParallelPostFit

__all__ = ["ParallelPostFit"]
