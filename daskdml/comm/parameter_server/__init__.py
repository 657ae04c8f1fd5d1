"""A parameter server as state machines that do no I/O: threads, a cluster and the simulator carry their messages.

Tables are cut into shards. Each shard has a chain of nodes, its head first (`replica`); `node` holds the replicas of
one worker, `control` forms the chains of all, `client` is what a worker that trains talks to them with. All of them
take messages and return messages; losing, doubling and changing the order of these costs time, and nothing else.
"""

from daskdml.comm.parameter_server.client import Client, HasLeft, Newcomer, Patience
from daskdml.comm.parameter_server.control import Control, NodeFailed, ShardsLost
from daskdml.comm.parameter_server.messages import CONTROL, Failed, Leave
from daskdml.comm.parameter_server.node import Node
from daskdml.comm.parameter_server.placement import place

__all__ = [
    "CONTROL", "Client", "Control", "Failed", "HasLeft", "Leave", "Newcomer", "Node", "NodeFailed", "Patience",
    "ShardsLost", "place",
]  # fmt: skip
