"""Collectives as generators that do no I/O: threads, a cluster and the simulator carry out the same ones."""

from daskdml.comm.blocks import allreduce_blocks
from daskdml.comm.collectives import (
    TOPOLOGIES,
    allgather,
    allreduce,
    barrier,
    broadcast,
    choose_topology,
    reduce_scatter,
    vote,
)
from daskdml.comm.exchange import exchange

__all__ = [
    "TOPOLOGIES",
    "allgather",
    "allreduce",
    "allreduce_blocks",
    "barrier",
    "broadcast",
    "choose_topology",
    "exchange",
    "reduce_scatter",
    "vote",
]
