"""Carries out passes over row blocks: threads of this process, tasks of a Dask cluster, or a plain loop."""

from .opening import open
from .run import Run
from .sampling import Sample

__all__ = ["Run", "Sample", "open"]
