"""Codecs keep the contract."""

import numpy as np

from daskdml.compress import FP16, Identity
from daskdml.testing import CodecContract


class TestIdentity(CodecContract):
    def make(self):
        return Identity()

    def bound(self, x):
        return np.zeros_like(x)


class TestFP16(CodecContract):
    def make(self):
        return FP16()

    def bound(self, x):
        return np.abs(x) / 2048 + np.max(np.abs(x), initial=0.0) / 2**24


def test_fp16_takes_a_quarter_of_the_bytes():
    assert FP16().encode(np.ones(1000))[0].nbytes == 2008
