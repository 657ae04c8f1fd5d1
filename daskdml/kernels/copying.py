"""Copies pieces of memory that lie anywhere into one array: rows of many blocks become a batch."""

import ctypes
import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from daskdml.kernels.compile import build, i8, vector

AHEAD = 4  # pieces: about as long as a line takes from memory
FIRST = 512  # bytes of a piece that are asked for; of a longer one the processor asks for the rest by itself


def copy_pieces(sources, n_bytes, out):
    """Copy pieces of memory behind each other.

    Parameters
    ----------
    sources : ndarray of int64, shape (n,)
        Addresses. The caller keeps what is there alive.
    n_bytes : ndarray of int64, shape (n,)
    out : ndarray, C-contiguous
        With room for all of them.

    Examples
    --------
    >>> import numpy as np
    >>> X, out = np.arange(6.0).reshape(3, 2), np.empty((2, 2))
    >>> copy_pieces(X.ctypes.data + 16 * np.array([2, 0]), np.full(2, 16), out)
    >>> out
    array([[4., 5.],
           [0., 1.]])
    """
    _compiled()(sources, n_bytes, out.ctypes.data)


@functools.cache
def _compiled():
    return build(_copy, types.void(vector(i8, read=True), vector(i8, read=True), i8))


def _copy(sources, n_bytes, target):
    for i in range(sources.size):
        if i + AHEAD < sources.size:
            for place in range(0, min(n_bytes[i + AHEAD], FIRST), 64):
                ask_for(sources[i + AHEAD] + place)
        copy_memory(target, sources[i], n_bytes[i])
        target += n_bytes[i]


def copy_memory(target, source, n_bytes):
    """Copy bytes from one address to another."""
    ctypes.memmove(int(target), int(source), int(n_bytes))


def ask_for(address):
    """Ask for memory that will be read soon; changes nothing."""


@intrinsic
def _copy_memory(context, target, source, n_bytes):
    def emit(ctx, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        target, source = (builder.inttoptr(arg, byte) for arg in args[:2])
        kind = ir.FunctionType(ir.VoidType(), [byte, byte, ir.IntType(64), ir.IntType(1)])
        function = builder.module.declare_intrinsic("llvm.memcpy", [byte, byte, ir.IntType(64)], kind)
        builder.call(function, [target, source, args[2], ir.IntType(1)(0)])
        return ctx.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def _ask_for(context, address):
    def emit(ctx, builder, sig, args):
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [builder.inttoptr(args[0], byte), i32(0), i32(3), i32(1)])
        return ctx.get_dummy_value()

    return types.void(types.int64), emit


@overload(copy_memory)
def _copy_memory_compiled(target, source, n_bytes):
    return lambda target, source, n_bytes: _copy_memory(target, source, n_bytes)


@overload(ask_for)
def _ask_for_compiled(address):
    return lambda address: _ask_for(address)
