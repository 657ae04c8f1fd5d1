"""What a topology may ask of whoever carries it out: five moves, each yielded by a generator, none of which is I/O.

Values are NumPy arrays; a packet is what a codec makes of one. Between two ranks packets arrive in the order in which
they were sent, and sending waits for nobody.

A final value is sealed once, passed on as it is, and opened by everyone, its owner too: with a lossy codec replicas
stay equal to the bit. Were the owner to keep what it sealed, one rank could take another branch and the group would
wait for ever.
"""

from typing import Any, NamedTuple

import numpy as np

from daskdml.utils.portable import portable


class Send(NamedTuple):
    """Encode a value and send it; answers None. ``exact`` values (indices) are sent as they are, whatever the codec."""

    to: int
    value: np.ndarray
    exact: bool = False


class Recv(NamedTuple):
    """Wait for the next packet from a rank; answers the packet."""

    source: int


class Seal(NamedTuple):
    """Encode a value; answers the packet."""

    value: np.ndarray


class Pass(NamedTuple):
    """Send a packet as it is; answers None."""

    to: int
    packet: Any


class Open(NamedTuple):
    """Decode a packet; answers the value."""

    packet: Any


@portable
class Bundle(NamedTuple):
    """Several packets in one message."""

    packets: tuple

    @property
    def nbytes(self):
        """Bytes of the packets."""
        return sum(packet.nbytes for packet in self.packets)


def open_all(packets):
    """Open packets; returns the list of their values."""
    values = []
    for packet in packets:
        values.append((yield Open(packet)))
    return values
