"""One program on every rank: threads of this process, workers of a cluster, or workers in virtual time."""

from daskdml.runtime.spmd.program import Comm, GroupChanged, Meta, Outcome, Program
from daskdml.runtime.spmd.run import run
from daskdml.runtime.spmd.simulate import SimulatedCluster
from daskdml.runtime.spmd.threads import run_threads
from daskdml.runtime.tables.rules import TableRule
from daskdml.runtime.tables.spec import DenseTable, SparseTable

__all__ = [
    "Comm", "DenseTable", "GroupChanged", "Meta", "Outcome", "Program", "SimulatedCluster", "SparseTable",
    "TableRule", "run", "run_threads",
]  # fmt: skip
