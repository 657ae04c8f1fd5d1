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
from daskdml.comm.values import allreduce_values, broadcast_value, gather_values

__all__ = [
    "TOPOLOGIES",
    "allgather",
    "allreduce",
    "allreduce_blocks",
    "allreduce_values",
    "barrier",
    "broadcast",
    "broadcast_value",
    "choose_topology",
    "exchange",
    "gather_values",
    "reduce_scatter",
    "vote",
]
