"""A stand-in for cupy on machines without a device: arrays that hold NumPy's and refuse what cupy's refuse.

That is every way to the host but ``get``, and every mixture with arrays of NumPy, also in an assignment.
Stricter than cupy, functions of NumPy take none of these arrays (its ufuncs do). Of cupy's functions there are the few
that daskdml and Dask name, and reductions return arrays without dimensions. What cupy computes otherwise than NumPy
only a device can show: `test_networks.py` and `test_kernels.py`.
"""

import operator
import sys
from types import ModuleType

import numpy as np

FUNCTIONS = (
    "abs add arange ascontiguousarray concatenate dot empty empty_like equal exp greater greater_equal isfinite isinf "
    "isnan less less_equal log log1p matmul maximum minimum multiply not_equal ones ones_like sqrt subtract take tanh "
    "tensordot true_divide where zeros"
)
OPERATORS = "add sub mul truediv matmul pow and or lt le gt ge eq ne"
METHODS = "all any argmax astype copy max mean min ravel repeat reshape sum"
fetched = []  # bytes of what was brought to the host


class ndarray:
    """An array whose values only `get` and the functions of the stand-in see."""

    __module__ = "cupy"

    def __init__(self, values):
        self._values = values

    def get(self):
        fetched.append(self._values.nbytes)
        return self._values.copy()

    def item(self):
        return self._values.item()

    def tolist(self):
        return self._values.tolist()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if method != "__call__" or ufunc.__name__ not in FUNCTIONS.split():
            return NotImplemented
        if out is not None:
            kwargs["out"] = out[0]
        return getattr(sys.modules["cupy"], ufunc.__name__)(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"np.{function.__name__} is given an array of a device; use its module's.")

    def __reduce__(self):
        return _made, (self._values,)

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    T = property(lambda self: _made(self._values.T))

    def __len__(self):
        return len(self._values)

    def __bool__(self):
        return bool(self._values)

    def __float__(self):
        return float(self._values)

    def __int__(self):
        return int(self._values)

    def __getitem__(self, key):
        return _made(self._values[_key(key)])

    def __setitem__(self, key, value):
        self._values[_key(key)] = _own(value)

    def __invert__(self):
        return _made(~self._values)

    def __neg__(self):
        return _made(-self._values)


def _made(values):
    return ndarray(values if isinstance(values, np.ndarray) else np.asarray(values))


def _own(value):
    """Return what an argument holds, and refuse what cupy's functions refuse."""
    if isinstance(value, ndarray):
        return value._values
    if isinstance(value, (tuple, list)):
        return type(value)(map(_own, value))
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _key(key):
    """Return an index; arrays of the host are brought to the device, which cupy does too."""
    if isinstance(key, tuple):
        return tuple(map(_key, key))
    return key if isinstance(key, np.ndarray) else _own(key)


def _function(function):
    def call(*args, **kwargs):
        found = function(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})
        return kwargs["out"] if kwargs.get("out") is not None else _made(found)

    return call


def _method(name):
    def call(self, *args, **kwargs):
        return _made(getattr(self._values, name)(*args, **kwargs))

    return call


def _operator(name):
    def call(self, other):
        return _made(getattr(operator, f"__{name}__")(self._values, _own(other)))

    def reverse(self, other):
        return _made(getattr(operator, f"__{name}__")(_own(other), self._values))

    def change(self, other):
        self._values[...] = getattr(operator, f"__{name}__")(self._values, _own(other))
        return self

    return call, reverse, change


for _name in METHODS.split():
    setattr(ndarray, _name, _method(_name))
for _name in OPERATORS.split():
    _call, _reverse, _change = _operator(_name)
    setattr(ndarray, f"__{_name}__", _call)
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, f"__r{_name}__", _reverse)
        setattr(ndarray, f"__i{_name}__", _change)


def asarray(values, dtype=None):
    """Return an array of the device: of memory of the host a copy."""
    return _made(np.asarray(values._values, dtype)) if isinstance(values, ndarray) else _made(np.array(values, dtype))


module = ModuleType("cupy")
module.ndarray, module.generic, module.fetched = ndarray, np.generic, fetched
module.asarray = module.array = asarray
for _name in FUNCTIONS.split():
    setattr(module, _name, _function(getattr(np, _name)))
