"""Codecs: what makes a packet of an array, and an array of a packet.

Conventions. ``encode(x, state) -> (packet, state)`` and ``decode(packet)``; states go from array to array, of one rank,
and ``start(seed)`` makes the first. NaN and infinities arrive as such, for a rank must see that another one failed. A
codec never changes its own parameters: it is a scikit-learn estimator, to be cloned and searched over. Facts are
attributes: ``exact``, ``unbiased``, ``by_layer`` (asks for the matrix of one layer at a time), and how the arrays of
several ranks are added up, ``reduce_kind``:

* "sum": on their way, each hop decoding and encoding again;
* "gather": by every rank, which gets the packets of all;
* "linear": as codes. ``rounds(x, state)`` is a generator that yields arrays, is sent back their sum over all ranks, and
  returns (sum of what all ranks sent, what this rank did, state).

To add a codec: one file like these, one line below; `daskdml.testing.CodecContract` then tests it.
"""

from daskdml.compress.feedback import ErrorFeedback
from daskdml.compress.fp16 import FP16
from daskdml.compress.identity import Identity
from daskdml.compress.one_bit import OneBit
from daskdml.compress.packet import Packet
from daskdml.compress.power_sgd import PowerSGD
from daskdml.compress.qsgd import QSGD
from daskdml.compress.rows import SignificantRows
from daskdml.compress.sparse import RandomK, TopK

__all__ = [
    "FP16", "QSGD", "ErrorFeedback", "Identity", "OneBit", "Packet", "PowerSGD", "RandomK", "SignificantRows", "TopK",
]  # fmt: skip
