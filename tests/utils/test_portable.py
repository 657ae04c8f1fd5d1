"""Packed values come back as they were; what is no plain value is refused."""

import json
from typing import NamedTuple

import numpy as np
import pytest

from daskdml.utils.portable import JOINED_BYTES, from_frames, pack, portable, to_frames, unpack


@portable
class Pair(NamedTuple):
    left: object
    right: object


ARRAYS = [
    np.arange(3), np.zeros((0, 4)), np.array(2.5), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(9)[::2],
    np.array([True, False, True]), np.array(["a", "längst"]), np.array([b"x", b"yz"]), np.array([1 + 2j]),
    np.array(["2020-01-01", "NaT"], dtype="M8[D]"), np.arange(2, dtype=">i4"), np.arange(5, dtype=np.float16),
]  # fmt: skip
VALUES = [
    None, True, 3, -1.5, float("inf"), "text", 2**80, b"bytes", bytearray(b"xy"), (1, "a", None), [1, [2, (3,)]],
    {"a": 1, 2: {"b": ()}}, {3, 1}, frozenset("ab"), np.float32(1.5), np.int64(7), np.str_("s"),
    Pair(np.arange(2), Pair(1, None)), np.array(["a", None, 3], dtype=object),
]  # fmt: skip


def travel(value):
    """Pack a value, write it as JSON and bytes, and read it again."""
    parcel = pack(value)
    described, frames = json.loads(json.dumps(to_frames(parcel.arrays)[0])), to_frames(parcel.arrays)[1]
    arrays = from_frames(described, [bytes(frame) for frame in frames])
    return unpack(parcel._replace(header=json.loads(json.dumps(parcel.header)), arrays=arrays))


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist().__repr__() == b.tolist().__repr__()
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("value", ARRAYS + VALUES, ids=repr)
def test_values_come_back_as_they_were(value):
    assert same(travel(value), value)


def test_many_arrays_share_a_frame_and_large_ones_do_not():
    assert all(map(same, travel(ARRAYS), ARRAYS))
    assert len(to_frames(pack(ARRAYS).arrays)[1]) == 1
    large = [np.zeros(JOINED_BYTES, dtype=np.uint8), np.ones(3)]
    assert len(to_frames(pack(large).arrays)[1]) == 2 and all(map(same, travel(large), large))


def test_arrays_are_aligned_wherever_the_bytes_were():
    """Dask reads several arrays into one buffer; NumPy multiplies 40 times slower at odd addresses."""
    described, (frame,) = to_frames([np.arange(4.0)])
    shifted = memoryview(b"x" + bytes(frame))[1:]
    (array,) = from_frames(described, [shifted])
    assert array.flags.aligned and array.tolist() == [0, 1, 2, 3]


def test_arrays_that_arrive_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        travel(np.zeros(3))[0] = 1


class Unknown(NamedTuple):
    x: int


@pytest.mark.parametrize("value", [Unknown(1), object(), [lambda: 0], np.zeros(2, dtype=[("a", int)])], ids=repr)
def test_other_things_are_refused_by_name(value):
    with pytest.raises(TypeError, match="cannot travel between ranks or stand in a checkpoint"):
        pack(value)


def test_only_classes_with_fields_are_portable():
    with pytest.raises(TypeError, match="NamedTuples and dataclasses"):
        portable(dict)


@pytest.mark.parametrize(
    "described, frames",
    [
        ([["|O", [1]]], [bytes(8)]),
        ([["<f8", [2]]], [bytes(8)]),
        ([["<f8", [-1]]], [bytes(8)]),
        ([["<f8", [1]], ["<f8", [1]]], [bytes(17)]),
        ([["<f8", [1]]], [bytes(8), bytes(8)]),
        ([["<f8", ["1"]]], [bytes(8)]),
        ([["no type", [1]]], [bytes(8)]),
    ],
)
def test_frames_that_are_no_plain_arrays_are_refused(described, frames):
    with pytest.raises((ValueError, TypeError)):
        from_frames(described, frames)


@pytest.mark.parametrize(
    "header", [["record", "os:system", ["ls"]], ["array", "<f8", 5], ["eval", "1"], ["objects", [3], [1]], ["int", []]]
)
def test_headers_that_make_no_sense_are_refused(header):
    with pytest.raises(ValueError, match="no packed value|is not known here"):
        unpack(pack(None)._replace(header=header))
