"""How kernels are built: lazily, with explicit signatures, cached on disk where a disk lets us.

Three rules, each from a measured fault. Nothing is compiled at import. A walker of X receives the loss as the address
of a C callback, never as a closure or as a plain dispatcher: those get no cache hit in a second process. Named
fast-math flags only: ``fastmath=True`` makes ``isnan`` false, and kernels must carry NaN to the partial sums.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import tempfile
import threading
import time

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

FLAGS = {"reassoc", "contract", "arcp", "nsz"}
_HARMLESS = {"nsz"}  # changes no rounding; without any flag the trees of forests take 1.4 times as long (measured)
_lock = threading.RLock()
_seconds = [0.0]
_tiles: dict = {}

f4, f8, i4, i8 = types.float32, types.float64, types.int32, types.int64


def vector(dtype, *, read=False):
    """Numba type of a contiguous 1-D array; ``read`` accepts read-only arrays (memory maps, pandas) too."""
    return types.Array(dtype, 1, "C", readonly=read)


def matrix(dtype, order="C", *, read=False):
    """Numba type of a 2-D array; ``read`` accepts read-only arrays too."""
    return types.Array(dtype, 2, order, readonly=read)


# raw, y, weight, gradient, hessian, params, order -> value; see daskdml.losses.
TILE_SIGNATURE = f8(vector(f8), vector(f8), vector(f8), vector(f8), vector(f8), vector(f8), i8)
TILE = types.FunctionType(TILE_SIGNATURE)
# The same with (rows, outputs) arrays for raw, gradient and hessian.
TILE_MULTI_SIGNATURE = f8(matrix(f8), vector(f8), vector(f8), matrix(f8), matrix(f8), vector(f8), i8)
TILE_MULTI = types.FunctionType(TILE_MULTI_SIGNATURE)

TILE_ROWS = 256

# How a kernel is handed a tile function: by its address. numba looks up an argument of a function type by a call back
# into Python, which was 12 of the 19 microseconds of a walk over eight rows.
ADDRESS = types.int64


def address(tile):
    """Return what a kernel takes as an `ADDRESS` in place of a tile function made by `build_tile`."""
    return tile if numba.config.DISABLE_JIT else tile.address


def tile_at(address, raw):
    """Return the tile function at an address, of the kind that takes arrays like ``raw``."""
    return address


def _pointer(kind):
    @intrinsic
    def pointer(context, address):
        def emit(ctx, builder, sig, args):
            function = cgutils.create_struct_proxy(kind)(ctx, builder)
            function.c_addr = builder.inttoptr(args[0], cgutils.voidptr_t)
            function.py_addr = function.jit_addr = cgutils.voidptr_t(None)
            return function._getvalue()

        return kind(types.int64), emit

    return pointer


_pointers = {1: _pointer(TILE), 2: _pointer(TILE_MULTI)}


@overload(tile_at)
def _tile_at_compiled(address, raw):
    pointer = _pointers[raw.ndim]
    return lambda address, raw: pointer(address)


@functools.cache
def build(body, signature, rounds_as_written=False):
    """Compile one function for one signature, once per process.

    Parameters
    ----------
    body : function
        Module-level function; its own file is watched by the cache, so an edit is seen.
    signature : numba signature
    rounds_as_written : bool, default False
        Whether no addition may be reordered or fused. Of a function that is called, not inlined, a process that
        compiles runs another copy than one that loads it from the cache: with liberties the last bits may differ.

    Returns
    -------
    numba dispatcher, or ``body`` itself under ``NUMBA_DISABLE_JIT=1``
    """
    flags = _HARMLESS if rounds_as_written else FLAGS
    return _timed(numba.njit, signature, body, nogil=True, error_model="numpy", fastmath=flags)


def build_tile(body, signature):
    """Compile a tile function, to be handed to kernels as an argument of type `TILE` or `TILE_MULTI`.

    A C callback and not a dispatcher: it has one address for good. Known by its body alone, for to hash a signature
    takes as long as to apply a loss to a hundred rows.
    """
    if numba.config.DISABLE_JIT:
        return body
    with _lock:
        if body not in _tiles:
            _tiles[body] = _timed(numba.cfunc, signature, body, error_model="numpy", fastmath=FLAGS)
        return _tiles[body]


def _timed(decorator, signature, body, **options):
    with _lock:
        started = time.perf_counter()
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _cache_folder(before)
        try:
            return decorator(signature, cache=True, **options)(body)
        finally:
            numba.config.CACHE_DIR = before
            _seconds[0] += time.perf_counter() - started


@functools.cache
def _cache_folder(chosen):
    """Return where compiled code is kept: a folder named by the sources of all kernels and losses.

    numba watches the file of the function it caches, not those of the functions inlined into it: after an edit of one
    of those it would run old machine code on arrays laid out by new Python code.
    """
    package = pathlib.Path(__file__).parent.parent
    sources = sorted([*package.glob("kernels/*.py"), *package.glob("losses/*.py")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    user = os.getuid() if hasattr(os, "getuid") else None
    # A home that cannot be written to (containers, services) leaves the system's temporary folder.
    shared = os.path.join(tempfile.gettempdir(), f"daskdml-{user}")
    for place in [chosen] if chosen else [os.path.join(home, "daskdml"), shared]:
        folder = os.path.join(place, digest)
        with contextlib.suppress(OSError):
            os.makedirs(place, mode=0o700, exist_ok=True)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # In a folder that is shared somebody else may have made it first, with code of theirs in it.
            ours = user is None or os.stat(place).st_uid == os.stat(folder).st_uid == user
            if os.access(folder, os.W_OK) and (ours or chosen):
                return folder
    return tempfile.mkdtemp(prefix="daskdml-")


def compile_seconds():
    """Seconds this process has spent building kernels (or loading them from the cache)."""
    return _seconds[0]
