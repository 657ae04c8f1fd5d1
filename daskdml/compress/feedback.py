"""What a codec left out is added to the next array."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.compress.codec import Codec


class Remembered(NamedTuple):
    """What error feedback remembers.

    Attributes
    ----------
    residual : ndarray, or None before the first array
        Of all arrays so far, what has not been sent.
    inner : object
        State of the codec.
    """

    residual: Any
    inner: Any


class ErrorFeedback(Codec):
    """Add what a codec has left out so far to the next array that it encodes.

        y = x + residual,   packet = encode(y),   residual = y - decode(packet)

    The sum of all that was decoded and of the residual is the sum of all arrays: nothing is lost, it comes later.

    Parameters
    ----------
    codec : Codec
        Not one of kind "sum": what each hop leaves out on the way nobody could add to what is next.

    Notes
    -----
    Keeps one array of the size of what is sent. Of an array with NaN or infinities nothing is kept. S. P. Karimireddy,
    Q. Rebjock, S. U. Stich, M. Jaggi, "Error feedback fixes SignSGD and other gradient compression schemes", 2019.

    Examples
    --------
    >>> from daskdml.compress import TopK
    >>> codec, state = ErrorFeedback(TopK(ratio=0.5)), None
    >>> for _ in range(2):
    ...     packet, state = codec.encode(np.array([2.0, 1.5]), state)
    ...     print(codec.decode(packet), state.residual)
    [2. 0.] [0.  1.5]
    [0. 3.] [2. 0.]
    """

    def __init__(self, codec):
        self.codec = codec

    @property
    def name(self):
        """That of the codec."""
        return self.codec.name

    @property
    def reduce_kind(self):
        """That of the codec."""
        return self.codec.reduce_kind

    @property
    def exact(self):
        """Whether the codec is."""
        return self.codec.exact

    @property
    def unbiased(self):
        """Whether its mean over draws is x."""
        return self.codec.exact  # what is sent depends on what was not

    @property
    def by_layer(self):
        """Whether the codec asks for one layer at a time."""
        return self.codec.by_layer

    def start(self, seed=0):
        """Check the parameters; return the state before the first array.

        Parameters
        ----------
        seed : int, default 0
            See `Codec.start`.

        Returns
        -------
        state : Remembered
        """
        if self.codec.reduce_kind == "sum":
            raise ValueError(
                f"ErrorFeedback remembers what a rank itself leaves out, but of {self.codec} each hop on the way "
                "leaves out something: use it without error feedback."
            )
        return Remembered(None, self.codec.start(seed))

    def encode(self, x, state=None):
        """Return (packet, state); see `Codec.encode`.

        Parameters
        ----------
        x : ndarray of float
        state : Remembered, optional

        Returns
        -------
        packet : Packet
        state : Remembered
        """
        state = self.start() if state is None else state
        y = self._with_rest(x, state)
        packet, inner = self.codec.encode(y, state.inner)
        return packet, Remembered(_difference(y, self.codec.decode(packet)), inner)

    def decode(self, packet):
        """Return the array of a packet.

        Parameters
        ----------
        packet : Packet

        Returns
        -------
        ndarray
        """
        return self.codec.decode(packet)

    def rounds(self, x, state):
        """Add up the arrays of all ranks by adding up codes; see `daskdml.compress`.

        Parameters
        ----------
        x : ndarray of float
        state : object

        Returns
        -------
        total, own : ndarray
            What all ranks sent, and what this one did.
        state : object

        Yields
        ------
        ndarray
            Is to be sent back as its sum over all ranks.
        """
        y = self._with_rest(x, state)
        total, own, inner = yield from self.codec.rounds(y, state.inner)
        return total, own, Remembered(_difference(y, own), inner)

    def _with_rest(self, x, state):
        if state.residual is not None and state.residual.shape != x.shape:
            raise ValueError(
                f"A state goes on with arrays of one shape: {state.residual.shape} before, {x.shape} now; keep one for "
                "each layer."
            )
        return x if state.residual is None else x + state.residual


def _difference(y, sent):
    with np.errstate(invalid="ignore"):
        rest = y - sent
    return rest if np.isfinite(rest).all() else np.zeros_like(rest)
