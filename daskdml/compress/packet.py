"""An encoded array, which names its codec."""

from typing import NamedTuple

from daskdml.utils.portable import portable


@portable
class Packet(NamedTuple):
    """An encoded array.

    Attributes
    ----------
    codec : str
        Name of the codec that can open it.
    shape : tuple of int
        Of the array.
    dtype : str
        Of the array, as NumPy spells it.
    arrays : tuple of ndarray
        What travels.

    Examples
    --------
    >>> from daskdml.compress import Identity
    >>> Identity().encode(np.zeros(3))[0].nbytes
    24
    """

    codec: str
    shape: tuple
    dtype: str
    arrays: tuple

    @property
    def nbytes(self):
        """Bytes of what travels, without the header."""
        return sum(array.nbytes for array in self.arrays)

    def check(self, codec):
        """Raise a ValueError if another codec made this packet.

        Parameters
        ----------
        codec : str
            The name it must have.
        """
        if self.codec != codec:
            raise ValueError(f"A packet of codec {self.codec!r} cannot be opened by codec {codec!r}.")
