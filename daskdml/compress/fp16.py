"""Half precision."""

import numpy as np

from daskdml.compress.codec import Codec
from daskdml.compress.packet import Packet


class FP16(Codec):
    """Round to half precision, relative to the largest entry.

    ``decode(encode(x)) = s * half(x / s)`` with s the power of two next above ``max |x|``: an entry is off by at most
    ``|x_i| / 2048 + s / 2**25``. Without s, entries above 65504 would become infinite.

    Notes
    -----
    A quarter of the bytes of float64, half of those of float32. Infinite entries and NaN stay what they are.

    Examples
    --------
    >>> packet, _ = FP16().encode(np.array([1e9, 1.0, -3e8]))
    >>> FP16().decode(packet).round(-6), packet.nbytes
    (array([ 1.e+09,  0.e+00, -3.e+08]), 14)
    """

    name = "fp16"
    reduce_kind = "sum"

    def encode(self, x, state=None):
        """Return (packet, state).

        Parameters
        ----------
        x : ndarray of float
        state : None
            Nothing is remembered; error feedback is a codec around this one.

        Returns
        -------
        packet : Packet
        state : None
        """
        largest = np.max(np.abs(x, dtype=np.float64), initial=0.0, where=np.isfinite(x))
        # 2**1024 is infinite already.
        scale = np.ldexp(1.0, min(int(np.frexp(largest)[1]), 1023)) if largest else 1.0
        half = (x / scale).astype(np.float16)
        return Packet(self.name, x.shape, x.dtype.str, (half, np.array([scale]))), state

    def decode(self, packet):
        """Return the array of a packet, in its own dtype.

        Parameters
        ----------
        packet : Packet

        Returns
        -------
        ndarray
        """
        packet.check(self.name)
        half, scale = packet.arrays
        with np.errstate(over="ignore"):
            x = half.astype(np.float64) * scale[0]
        if np.dtype(packet.dtype).kind == "f":
            most = np.finfo(packet.dtype).max  # what was rounded up to a power of two may be beyond it
            x = np.where(np.isinf(half), x, np.clip(x, -most, most))
        return x.astype(packet.dtype).reshape(packet.shape)
