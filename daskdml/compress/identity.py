"""No compression."""

from daskdml.compress.codec import Codec
from daskdml.compress.packet import Packet


class Identity(Codec):
    """Send arrays as they are: ``decode(encode(x)) = x``, to the bit.

    Examples
    --------
    >>> import numpy as np
    >>> packet, _ = Identity().encode(np.array([0.1, 0.2]))
    >>> Identity().decode(packet)
    array([0.1, 0.2])
    """

    name = "identity"
    reduce_kind = "sum"
    exact = True
    unbiased = True

    def encode(self, x, state=None):
        """Return (packet, state).

        Parameters
        ----------
        x : ndarray
        state : None
            Nothing is remembered.

        Returns
        -------
        packet : Packet
        state : None
        """
        return Packet(self.name, x.shape, x.dtype.str, (x,)), state

    def decode(self, packet):
        """Return the array of a packet.

        Parameters
        ----------
        packet : Packet

        Returns
        -------
        ndarray
        """
        packet.check(self.name)
        return packet.arrays[0]
