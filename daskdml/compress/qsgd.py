"""Few bits a number, rounded up or down at random."""

import numbers
from typing import NamedTuple

import numpy as np

from daskdml.compress.codec import Codec, largest_of
from daskdml.kernels.quantising import quantise
from daskdml.utils.params import Interval, Options
from daskdml.utils.random import row_hash

STREAM = 31


class Draws(NamedTuple):
    """Where a codec is in its draws.

    Attributes
    ----------
    seed, step : int
    """

    seed: int
    step: int = 0

    def next(self):
        """Return the state after one more array."""
        return self._replace(step=self.step + 1)


class QSGD(Codec):
    """Round to a few levels of the largest number of each bucket, up or down at random.

    Of number i in bucket b::

        decode(encode(x))_i = s_b / L * floor(L x_i / s_b + u_i),   s_b = max |x| in bucket b,   L = 2^(bits - 1) - 1

    with u a hash of (seed, step, i), uniform in [0, 1): the mean over draws is x, and no entry is off by more than
    ``s_b / L``.

    Parameters
    ----------
    bits : {2, 4, 8}, default 8
    bucket : int, default 512
        Numbers that share a scale.

    Notes
    -----
    ``bits / 8 + 4 / bucket`` bytes a number. Every rank gets the packets of all others, so that with float32 and P
    ranks a ring without compression sends ``64 / bits / P`` times as much: with 8 bits no gain from eight ranks on.
    D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic, "QSGD: Communication-efficient SGD via gradient quantization
    and encoding", 2017, with the largest number for the norm.

    Examples
    --------
    >>> packet, _ = QSGD(bits=4, bucket=4).encode(np.array([1.0, 0.5, -0.5, 0.0]))
    >>> QSGD(bits=4, bucket=4).decode(packet).round(2)[[0, 3]], packet.nbytes
    (array([1., 0.]), 14)
    """

    name = "qsgd"
    reduce_kind = "gather"
    unbiased = True
    _constraints = {"bits": [Options({2, 4, 8})], "bucket": [Interval(numbers.Integral, 1, None)]}

    def __init__(self, bits=8, bucket=512):
        self.bits, self.bucket = bits, bucket

    def finer(self):
        """Return a codec of twice the bits, or None from eight on.

        Returns
        -------
        Codec or None
        """
        return QSGD(2 * self.bits, self.bucket) if self.bits < 8 else None

    def start(self, seed=0):
        """Check the parameters; return the state before the first array.

        Parameters
        ----------
        seed : int, default 0
            See `Codec.start`.

        Returns
        -------
        state : object
        """
        super().start(seed)
        return Draws(seed)

    def _encode(self, x, state):
        flat = np.ascontiguousarray(x).reshape(-1)
        codes, scales = np.zeros(flat.size, np.int8), np.zeros(-(-flat.size // self.bucket), np.float32)
        largest = largest_of(flat)
        if largest > 0:
            key = row_hash(state.seed, STREAM, [state.step])[0]
            quantise(flat, largest, self.bucket, self._levels, key, codes, scales)
        return (pack(codes, self.bits), scales, np.array([largest])), state.next()

    def _decode(self, arrays, shape):
        packed, scales, largest = arrays
        n = int(np.prod(shape))
        parts = unpack(packed, self.bits, n) / self._levels * scales.astype(np.float64)[np.arange(n) // self.bucket]
        return np.clip(parts, -1.0, 1.0) * largest[0]  # scales are rounded up

    @property
    def _levels(self):
        return 2 ** (self.bits - 1) - 1


def pack(codes, bits):
    """Put signed codes of 2, 4 or 8 bits into bytes, the first ones lowest.

    Examples
    --------
    >>> unpack(pack(np.array([-1, 0, 1, 1, -1], np.int8), 2), 2, 5)
    array([-1,  0,  1,  1, -1], dtype=int8)
    """
    if bits == 8:
        return codes
    each = 8 // bits
    fields = np.zeros(-(-codes.size // each) * each, np.uint8)
    fields[: codes.size] = codes.view(np.uint8) & (2**bits - 1)
    fields = fields.reshape(-1, each)
    return np.bitwise_or.reduce(fields << (bits * np.arange(each, dtype=np.uint8)), axis=1, dtype=np.uint8)


def unpack(packed, bits, n):
    """Return the n codes of `pack`."""
    if bits == 8:
        return packed
    each = 8 // bits
    fields = packed[:, None] >> (bits * np.arange(each, dtype=np.uint8))
    # The sign is the highest bit of a field: moved to that of a byte, and back.
    return (fields << (8 - bits)).astype(np.uint8).view(np.int8).reshape(-1)[:n] >> (8 - bits)
