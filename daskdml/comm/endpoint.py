"""One rank's side of the moves that need no waiting: packets made of values, and values of packets."""

import numpy as np

from daskdml.comm.moves import Open, Pass, Seal, Send


class Raw:
    """The codec that sends arrays as they are."""

    exact = True

    def encode(self, x, state=None):
        """Return (packet, state): a read-only view of the array, and the state."""
        packet = np.asarray(x).view()
        packet.flags.writeable = False
        return packet, state

    def decode(self, packet):
        """Return the array."""
        return packet


_RAW = Raw()


class Endpoint:
    """Encode and decode for one rank, with the codec's state between calls.

    Parameters
    ----------
    codec : codec, optional
        Makes packets; None sends arrays as they are.
    state : object, optional
        Of the codec.
    """

    def __init__(self, codec=None, state=None):
        self.codec, self.state = codec or _RAW, state

    def __call__(self, move):
        """Return the packet of a Send, Seal or Pass, the value of an Open."""
        if isinstance(move, Pass):
            return move.packet
        if isinstance(move, Open):
            return (_RAW if isinstance(move.packet, np.ndarray) else self.codec).decode(move.packet)
        if isinstance(move, Send) and move.exact:
            return _RAW.encode(move.value)[0]
        if isinstance(move, (Send, Seal)):
            packet, self.state = self.codec.encode(move.value, self.state)
            return packet
        raise TypeError(f"A topology yields Send, Recv, Seal, Pass or Open; got {move!r}.")
