"""What clients, nodes and the control of a parameter server tell each other: plain values, none of which is code."""

from typing import Any, NamedTuple

from daskdml.utils.portable import portable

CONTROL = "control"  # the address of the one that forms chains


@portable
class Operation(NamedTuple):
    """What every replica of a shard does at the same place of its order.

    Attributes
    ----------
    kind : {"push", "enter", "leave"}
        Of a client.
    client : str
    sequence : int
        Of the client's pushes to this shard, from 1; 0 where a client enters or leaves.
    clock : int
        Clocks that the client has completed with this push.
    update : object
        For the shard's store; None says only that the clock is completed.
    """

    kind: str
    client: str
    sequence: int
    clock: int
    update: Any


# From a client to a node of a chain: pushes to its head ---------------------------------------------------------------


@portable
class Push(NamedTuple):
    """Add an update; ``epoch`` is that of the shard's chain as the client knows it."""

    shard: int
    epoch: int
    operation: Operation


@portable
class Pull(NamedTuple):
    """Ask for values with so many clocks of every client, and the own pushes up to a sequence, in them.

    ``version`` is that of what the client has.
    """

    shard: int
    epoch: int
    client: str
    request: int
    least_clock: int
    sequence: int
    what: Any
    version: int


# To a client ---------------------------------------------------------------------------------------------------------


@portable
class Ack(NamedTuple):
    """Every replica has this client's pushes up to a sequence, the last of which was the n-th of all; -1 if unknown."""

    shard: int
    client: str
    sequence: int
    n_pushes: int


@portable
class Value(NamedTuple):
    """Answers a `Pull`: ``value`` at ``version``, None if it has it, after so many pushes, its own up to ``sequence``.

    A version belongs to its epoch: what a head that died had applied, and nobody else, has the next one's numbers too.
    """

    shard: int
    epoch: int
    client: str
    request: int
    version: int
    n_pushes: int
    sequence: int
    value: Any


@portable
class Refuse(NamedTuple):
    """A push or pull of another epoch than this node's, -1 if it has no such shard, or of a client that has left."""

    shard: int
    client: str
    epoch: int
    has_left: bool


# From node to node ---------------------------------------------------------------------------------------------------


@portable
class Copy(NamedTuple):
    """The next operation of the order, for the next replica of the chain."""

    shard: int
    epoch: int
    version: int
    operation: Operation


@portable
class Confirm(NamedTuple):
    """The sender and all behind it have the operations up to a version."""

    shard: int
    epoch: int
    node: str
    version: int


@portable
class Snapshot(NamedTuple):
    """All of a shard at a version, for a node that is to be the next replica of the chain."""

    shard: int
    epoch: int
    source: str
    state: dict


# Between the control and nodes ---------------------------------------------------------------------------------------


@portable
class Directory(NamedTuple):
    """Who holds what: the chain of each shard, its head first, and the epoch in which it was formed."""

    number: int
    epochs: dict
    chains: dict


@portable
class Enter(NamedTuple):
    """Ask the control to let a client in; answered by `Entered`."""

    client: str


@portable
class Entered(NamedTuple):
    """Every shard knows the client, which begins at this clock."""

    client: str
    clock: int
    directory: Directory


@portable
class Leave(NamedTuple):
    """Tell the control that a client pushes no more."""

    client: str


@portable
class Meets(NamedTuple):
    """Tell the control that a client waits for all others, for the n-th time, and pushes nothing before they come."""

    client: str
    number: int
    clock: int


@portable
class Resting(NamedTuple):
    """Say who waits for the others: (number, clock) of each client as in `Meets`; those who have gone on among them."""

    clients: dict


@portable
class Failed(NamedTuple):
    """Tell the control that a node cannot hold what it is to hold, and why."""

    why: str


@portable
class AskDirectory(NamedTuple):
    """Ask the control for the directory."""

    name: str


@portable
class Recruit(NamedTuple):
    """Tell the tail of a chain to bring a node up to date."""

    shard: int
    epoch: int
    node: str


@portable
class Recruited(NamedTuple):
    """The node has all that the tail has, and nothing is acknowledged without it any more."""

    shard: int
    epoch: int
    node: str


@portable
class Yield(NamedTuple):
    """Tell the head of a chain to take in no more operations until the chain is formed anew."""

    shard: int
    epoch: int


@portable
class Yielded(NamedTuple):
    """All replicas of the chain are equal, and stay so."""

    shard: int
    epoch: int


@portable
class Enrol(NamedTuple):
    """Tell the head of a chain that a client enters or leaves."""

    shard: int
    epoch: int
    kind: str
    client: str


@portable
class Enrolled(NamedTuple):
    """Every replica knows it; ``clock`` is the one at which the client has entered."""

    shard: int
    kind: str
    client: str
    clock: int
