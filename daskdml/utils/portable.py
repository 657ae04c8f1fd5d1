"""Values as plain structure and raw arrays: what travels between ranks and stands in checkpoints, without pickle.

A value is None, a number, a string, bytes, an array of numbers or strings, a tuple, list, dict or set of values, or a
NamedTuple or dataclass that was made `portable`. Reading runs no code but the constructors of those.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

_registered: dict = {}
_KINDS = "biufcSU"  # of arrays that are their bytes
JOINED_BYTES = 1 << 18


class Parcel(NamedTuple):
    """A value that is packed.

    Attributes
    ----------
    header : list
        Its structure: lists, strings and numbers, as JSON and msgpack know them.
    arrays : tuple of ndarray
        C-contiguous, read-only.
    """

    header: list
    arrays: tuple

    @property
    def nbytes(self):
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)


def portable(cls):
    """Let values hold instances of a NamedTuple or dataclass: a class decorator.

    Its module must be imported by every process that reads such values; a class of a notebook never is.

    Raises
    ------
    TypeError
        If the class has no fields to be taken apart into.
    """
    if not (hasattr(cls, "_fields") or hasattr(cls, "__dataclass_fields__")):
        raise TypeError(f"portable() takes NamedTuples and dataclasses, got {cls!r}.")
    name = f"{cls.__module__}:{cls.__qualname__}"
    # The newest counts: a notebook defines its classes again.
    _registered[name] = cls
    return cls


def pack(value, *, copies=True):
    """Return a value as a `Parcel`.

    Parameters
    ----------
    value : object
    copies : bool, default True
        Copy arrays: what is packed may be on its way while its owner changes the original.

    Raises
    ------
    TypeError
        For anything that the module's docstring does not list.

    Examples
    --------
    >>> parcel = pack({"w": np.zeros(3), "steps": 2})
    >>> parcel.nbytes, unpack(parcel)["steps"]
    (24, 2)
    """
    arrays = []
    header = _pack(value, arrays)
    return Parcel(header, tuple(_settled(array, copies) for array in arrays))


def unpack(parcel):
    """Return the value of a parcel; its arrays are read-only views.

    Raises
    ------
    ValueError
        If the parcel does not fit together, or names a class that is not known here.
    """
    try:
        return _unpack(parcel.header, parcel.arrays)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"This is no packed value of this version of daskdml: {error!r}.") from error


def _pack(value, arrays):
    kind = type(value)
    if value is None or kind in (bool, float, str) or (kind is int and -(2**63) <= value < 2**63):
        return value
    if kind is int:
        return ["int", str(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return _pack_array(np.asarray(value), arrays, "scalar" if isinstance(value, np.generic) else "array")
    if kind in (bytes, bytearray):
        return [kind.__name__, *_pack_array(np.frombuffer(value, np.uint8), arrays, "array")]
    if kind in (tuple, list, set, frozenset):
        members = sorted(value, key=repr) if kind in (set, frozenset) else value
        return [kind.__name__, [_pack(member, arrays) for member in members]]
    if kind is dict:
        return ["dict", [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]]
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _registered.get(name) is kind:
        fields = getattr(value, "_fields", None) or value.__dataclass_fields__
        return ["record", name, [_pack(getattr(value, field), arrays) for field in fields]]
    raise TypeError(
        f"A {kind.__module__}.{kind.__qualname__} cannot travel between ranks or stand in a checkpoint; use numbers, "
        "strings, NumPy arrays, and tuples, lists, dicts and sets of them."
    )


def _pack_array(array, arrays, kind):
    if array.dtype.kind == "O":
        return ["objects", list(array.shape), [_pack(x, arrays) for x in array.ravel().tolist()]]
    if array.dtype.kind in "mM":
        return [kind, array.dtype.str, *_pack_array(array.view(np.int64), arrays, "array")[1:]]
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"An array of {array.dtype} cannot travel between ranks or stand in a checkpoint.")
    arrays.append(array)
    return [kind, array.dtype.str, len(arrays) - 1]


def _settled(array, copies):
    """Return an array in C order that cannot be written to."""
    array = np.array(array, order="C") if copies else np.ascontiguousarray(array).reshape(array.shape).view()
    array.flags.writeable = False
    return array


def _unpack(node, arrays):
    if not isinstance(node, (list, tuple)):
        return node
    kind, *rest = node
    return _READERS[kind](arrays, *rest)


def _array(arrays, dtype, *rest):
    array = arrays[rest[-1]]
    return array if np.dtype(dtype) == array.dtype else array.view(dtype)


def _objects(arrays, shape, members):
    found = np.empty(math.prod(shape), dtype=object)
    if len(members) != len(found):
        raise IndexError(f"{len(found)} objects are described, but {len(members)} came")
    found[:] = [_unpack(member, arrays) for member in members]
    return found.reshape(shape)


def _record(arrays, name, members):
    if name not in _registered:
        raise ValueError(f"The class {name} is not known here; import the module that defines it.")
    return _registered[name](*[_unpack(member, arrays) for member in members])


def _members(make):
    return lambda arrays, members: make(_unpack(member, arrays) for member in members)


_READERS = {
    "int": lambda arrays, digits: int(digits),
    "array": _array,
    "scalar": lambda arrays, *rest: _array(arrays, *rest)[()],
    "objects": _objects,
    "bytes": lambda arrays, *rest: _array(arrays, *rest[1:]).tobytes(),
    "bytearray": lambda arrays, *rest: bytearray(_array(arrays, *rest[1:]).tobytes()),
    **{kind.__name__: _members(kind) for kind in (tuple, list, set, frozenset)},
    "dict": lambda arrays, pairs: {_unpack(k, arrays): _unpack(v, arrays) for k, v in pairs},
    "record": _record,
}


def to_frames(arrays):
    """Describe arrays as (list of [dtype, shape], list of memoryviews of their bytes).

    Small ones share one frame, in which each begins at a multiple of 8 bytes: a transport takes as long for a frame as
    for kilobytes.
    """
    frames = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    if len(frames) > 1 and sum(frame.nbytes for frame in frames) <= JOINED_BYTES:
        frames = [memoryview(b"".join(part for frame in frames for part in (frame, bytes(-frame.nbytes % 8))))]
    return described, frames


def from_frames(described, frames):
    """Return the arrays that `to_frames` described, read-only; views of the frames where these are aligned.

    Raises
    ------
    ValueError
        If a frame has another length than its description says, or the description is of objects.
    """
    kinds = [_plain(*one) for one in described]
    frames = [memoryview(frame).cast("B") for frame in frames]
    if len(frames) == 1 and len(kinds) > 1:
        sizes = [n_bytes for _, _, n_bytes in kinds]
        starts = [0, *itertools.accumulate(n_bytes + -n_bytes % 8 for n_bytes in sizes)]
        if starts[-1] != frames[0].nbytes:
            raise ValueError(f"Arrays of {starts[-1]} bytes are described, but {frames[0].nbytes} came.")
        joined = _aligned(frames[0], 8).data
        frames = [joined[start : start + n_bytes] for start, n_bytes in zip(starts, sizes)]
    if len(frames) != len(kinds):
        raise ValueError(f"{len(kinds)} arrays are described, but {len(frames)} frames came.")
    return tuple(_from_frame(*kind, frame) for kind, frame in zip(kinds, frames))


@functools.lru_cache(100)
def _dtype(name):
    return np.dtype(str(name))


def _plain(dtype, shape):
    """Return (dtype, shape, bytes) of an array that is plain numbers or strings."""
    dtype, shape = _dtype(dtype), tuple(shape)
    if dtype.kind not in _KINDS or dtype.fields or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"Arrays of {dtype} and shape {shape} are refused: they are no plain numbers.")
    return dtype, shape, math.prod(shape) * dtype.itemsize


def _from_frame(dtype, shape, n_bytes, frame):
    if n_bytes != frame.nbytes:
        raise ValueError(f"An array of shape {shape}, {dtype} has {n_bytes} bytes, but {frame.nbytes} came.")
    array = _aligned(frame, dtype.alignment).view(dtype).reshape(shape) if n_bytes else np.empty(shape, dtype)
    array.flags.writeable = False
    return array


def _aligned(frame, alignment):
    """Return the bytes of a frame where numbers may begin: NumPy is 40 times slower elsewhere."""
    array = np.frombuffer(frame, dtype=np.uint8)
    return array if array.ctypes.data % alignment == 0 else array.copy()
