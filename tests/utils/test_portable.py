"""Values as structure and raw arrays: what goes in comes out, and nothing else does."""

import dataclasses
import json
from typing import NamedTuple

import numpy as np
import pytest

from daskdml.utils.portable import JOINED_BYTES, Parcel, from_frames, pack, portable, to_frames, unpack


@portable
class State(NamedTuple):
    step: int
    w: np.ndarray


@portable
@dataclasses.dataclass
class Node:
    name: str
    children: list


VALUES = {
    "none": None,
    "numbers": (True, 3, -(2**63), 2**70, -(2**70), 0.1, float("inf")),
    "text": ("text", "\N{SNOWMAN}", b"\x00\xff", bytearray(b"a")),
    "nested": {"a": [1, (2, {"b": {3, 4}})], (1, 2): frozenset({"x"}), 5: []},
    "empty": ((), [], {}, set(), b"", "", np.empty((0, 3)), np.empty(0, dtype="U3")),
    "scalars": (np.float32(0.1), np.int8(-3), np.bool_(True), np.str_("a"), np.complex128(1j), np.datetime64("2020")),
    "record": State(3, np.arange(4.0)),
    "dataclass": Node("a", [Node("b", []), State(0, np.zeros(1))]),
    "objects": np.array([None, "a", 3, (1.5, np.arange(2))], dtype=object).reshape(2, 2),
}
ARRAYS = {
    "bool": np.array([True, False]),
    "float16": np.arange(3, dtype="f2"),
    "big-endian": np.arange(3, dtype=">f8"),
    "uint8": np.arange(200, dtype="u1").reshape(10, 20),
    "complex": np.array([1 + 2j]),
    "text": np.array(["a", "\N{SNOWMAN}bc"]),
    "bytes": np.array([b"a", b"bc"]),
    "dates": np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
    "spans": np.array([1, 2], dtype="m8[ms]"),
    "F": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "slice": np.arange(20.0).reshape(4, 5)[::2, 1::2],
    "no axis": np.array(3.0),
    "nan": np.array([np.nan, -0.0, np.inf]),
}


def there_and_back(value):
    """Through JSON and bytes, as in a checkpoint; every frame at an odd address, as in a message."""
    parcel = pack(value)
    described, frames = to_frames(parcel.arrays)
    header, described = json.loads(json.dumps([parcel.header, described]))
    shifted = [memoryview(b"\x00" + bytes(frame))[1:] for frame in frames]
    return unpack(Parcel(header, from_frames(described, shifted)))


def assert_same(found, value):
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype and found.shape == value.shape
        if value.dtype == object:
            for a, b in zip(found.ravel(), value.ravel()):
                assert_same(a, b)
        else:
            assert found.tobytes() == np.ascontiguousarray(value).tobytes() and found.flags.aligned
    elif isinstance(value, dict):
        assert list(found) == list(value)
        for key in value:
            assert_same(found[key], value[key])
    elif isinstance(value, (tuple, list)):
        assert len(found) == len(value)
        for a, b in zip(found, value):
            assert_same(a, b)
    elif dataclasses.is_dataclass(value):
        assert_same([*vars(found).values()], [*vars(value).values()])
    else:
        assert found == value


@pytest.mark.parametrize("value", [*VALUES.values(), *ARRAYS.values()], ids=[*VALUES, *ARRAYS])
def test_what_goes_in_comes_out(value):
    assert_same(there_and_back(value), value)


def test_small_arrays_share_a_frame_and_large_ones_do_not():
    many, large = list(ARRAYS.values()), [np.zeros(JOINED_BYTES, dtype=np.uint8), np.ones(3)]
    assert len(to_frames(pack(many).arrays)[1]) == 1 and len(to_frames(pack(large).arrays)[1]) == 2
    assert_same(there_and_back(many), many)
    assert_same(there_and_back(large), large)


def test_bytes_are_those_of_the_arrays():
    assert pack({"w": np.zeros((3, 4)), "k": [np.zeros(2, dtype="f4"), 7]}).nbytes == 96 + 8


def test_what_was_packed_cannot_be_changed_on_the_way():
    (array,) = pack(np.zeros(3)).arrays
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


class Unknown:
    pass


class Child(State):
    pass


@pytest.mark.parametrize("value", [Unknown(), Child(1, np.zeros(1)), lambda: 0, [Unknown], np.zeros(1, dtype="f4,i4")])
def test_other_values_are_a_sentence(value):
    with pytest.raises(TypeError, match="cannot travel between ranks or stand in a checkpoint"):
        pack({"state": value})


def test_only_what_has_fields_can_be_made_portable():
    with pytest.raises(TypeError, match="NamedTuples and dataclasses"):
        portable(Unknown)


@pytest.mark.parametrize(
    "header",
    [["record", "os:system", ["true"]], ["eval", "1"], ["array", "<f8", 3], ["dict", [1]], ["tuple"], ["array"]],
)
def test_headers_that_do_not_fit_are_refused(header):
    with pytest.raises(ValueError, match="not known here|no packed value"):
        unpack(Parcel(header, (np.zeros(2),)))


@pytest.mark.parametrize(
    "described, sizes",
    [
        ([["|O", [1]]], [8]), ([["<f8", [2]]], [8]), ([["<f8", [-1, -1]]], [8]), ([["<f8", [1]]], []),
        ([["V8", [1]]], [8]), ([["<f8", [1]], ["<f8", [1]]], [17]), ([["<f8", [1]]], [8, 8]), ([["<f8", ["1"]]], [8]),
    ],
)
def test_frames_that_do_not_fit_are_refused(described, sizes):
    with pytest.raises(ValueError, match="refused|came"):
        from_frames(described, [bytes(n) for n in sizes])
