"""Codecs: what makes a packet of an array, and an array of a packet."""

from daskdml.compress.fp16 import FP16
from daskdml.compress.identity import Identity
from daskdml.compress.packet import Packet

__all__ = ["FP16", "Identity", "Packet"]
