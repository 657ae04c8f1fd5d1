"""One program on every rank: threads of this process, or workers in virtual time."""

from daskdml.runtime.spmd.program import Comm, GroupChanged, Meta, Outcome, Program
from daskdml.runtime.spmd.simulate import SimulatedCluster
from daskdml.runtime.spmd.threads import run_threads

__all__ = ["Comm", "GroupChanged", "Meta", "Outcome", "Program", "SimulatedCluster", "run_threads"]
