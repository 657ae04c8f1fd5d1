"""What all codecs share: parameters, packets, and numbers that are none."""

import numpy as np
from sklearn.base import BaseEstimator

from daskdml.compress.packet import Packet
from daskdml.utils.params import check_params


class Codec(BaseEstimator):
    """Makes a packet of an array, and an array of a packet; see the conventions in `daskdml.compress`.

    A subclass has ``name``, the facts below, and `_encode` and `_decode`, which see finite numbers only: NaN and
    infinities travel beside them, with their places.

    Attributes
    ----------
    reduce_kind : {"sum", "gather", "linear"}
        How the arrays of several ranks are added up: on their way, each hop decoding and encoding again; by every rank,
        which gets all packets; or as codes, which are linear in the array.
    exact : bool
        Whether ``decode(encode(x))`` has the bits of x.
    unbiased : bool
        Whether its mean over the codec's own draws is x.
    by_layer : bool
        Whether it asks for the weights of one layer at a time, as a matrix.
    """

    exact = False
    unbiased = False
    by_layer = False
    _constraints: dict = {}

    def start(self, seed=0):
        """Check the parameters; return the state before the first array.

        Parameters
        ----------
        seed : int, default 0
            Of the codec's draws. Where codes are added up ("linear") it is the same on all ranks; elsewhere ranks, and
            layers, should differ, or what they round off adds up.
        """
        check_params(self, self._constraints)
        return None

    def finer(self):
        """Return a codec that leaves out less, or None for sending arrays as they are.

        Returns
        -------
        Codec or None
        """
        return None

    def encode(self, x, state=None):
        """Return (packet, state).

        Parameters
        ----------
        x : ndarray of float
        state : object
            What `start` or the last call returned; None for the former.

        Returns
        -------
        packet : Packet
        state : object
        """
        state = self.start() if state is None else state
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"{type(self).__name__} takes arrays of float32 or float64, got {x.dtype}.")
        flat = x.reshape(-1)
        places = np.flatnonzero(~np.isfinite(flat))
        values = flat[places]
        if len(places):
            x = np.where(np.isfinite(x), x, x.dtype.type(0))
        arrays, state = self._encode(x, state)
        return Packet(self.name, x.shape, x.dtype.str, (*arrays, places, values)), state

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
        *arrays, places, values = packet.arrays
        x = self._decode(arrays, packet.shape).astype(packet.dtype, order="C").reshape(packet.shape)
        x.reshape(-1)[places] = values
        return x

    def _encode(self, x, state):
        """Return the arrays of a packet and the next state."""
        raise NotImplementedError

    def _decode(self, arrays, shape):
        """Return what `_encode` made the arrays of, about: an ndarray of as many numbers."""
        raise NotImplementedError


def largest_of(x):
    """Return max |x| as a float, 0.0 for no numbers: what scales are relative to, so that none of them overflows."""
    return float(np.max(np.abs(x), initial=0.0))
