"""Carries out passes over row blocks: threads of this process, tasks of a Dask cluster, or a plain loop."""

from .fold import Fold
from .opening import open
from .run import Run

__all__ = ["Fold", "Run", "open"]
