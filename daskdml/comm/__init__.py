"""Collectives as generators that do no I/O: threads, a cluster and the simulator carry out the same ones."""

from daskdml.comm.blocks import allreduce_blocks
from daskdml.comm.collectives import (
    TOPOLOGIES,
    allgather,
    allreduce,
    among,
    barrier,
    broadcast,
    choose_topology,
    reduce_scatter,
    vote,
)
from daskdml.comm.exchange import exchange
from daskdml.comm.gossip import gossip
from daskdml.comm.values import allreduce_values, broadcast_value, gather_values

__all__ = [
    "TOPOLOGIES",
    "allgather",
    "allreduce",
    "allreduce_blocks",
    "allreduce_values",
    "among",
    "barrier",
    "broadcast",
    "broadcast_value",
    "choose_topology",
    "exchange",
    "gather_values",
    "gossip",
    "reduce_scatter",
    "vote",
]
