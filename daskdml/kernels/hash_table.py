"""Numbers for keys of 64 bits: the k-th distinct key gets number k, and rows of tables lie by these numbers.

Open addressing with linear probing in a power of two of slots. A table that gets too full goes on in one of twice the
slots, to which every insertion brings some of the old one's: no call takes much longer than another.
"""

import functools
import mmap

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import build, f4, f8, i8, matrix, types, vector
from daskdml.kernels.copying import copy_memory

LEAST_SLOTS = 1024
MOST_LOAD = 0.7
MOVED_PER_KEY = 4  # slots that are brought to the new table for each key of a call: two would be enough
u8 = types.uint64


class HashTable:
    """Numbers of keys.

    Attributes
    ----------
    n_keys : int

    Examples
    --------
    >>> table = HashTable()
    >>> table.insert(np.array([7, -3, 7])), table.find(np.array([-3, 5]))
    (array([0, 1, 0]), array([ 1, -1]))

    Notes
    -----
    16 bytes a slot, of which 35 to 70 % are used; while slots are brought over, half as many again.
    """

    def __init__(self):
        self.n_keys, self._slots, self._old, self._moved = 0, _slots(LEAST_SLOTS), None, 0

    def find(self, keys):
        """Return the number of each key, -1 for those that have none.

        Parameters
        ----------
        keys : ndarray of int64, shape (n,)

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        out = np.empty(len(keys), np.int64)
        _compiled(_find)(keys, *self._slots, *(self._old or _NONE), out)
        return out

    def insert(self, keys):
        """Return the number of each key; new ones get the next numbers, in their order.

        Parameters
        ----------
        keys : ndarray of int64, shape (n,)

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        out, first = np.empty(len(keys), np.int64), 0
        while first < len(keys):  # a part at a time: a table grows between two of them
            part = slice(first, first + len(self._slots[0]) // 8)
            self._make_room(len(keys[part]))
            self.n_keys = _compiled(_insert)(keys[part], *self._slots, *(self._old or _NONE), self.n_keys, out[part])
            first = part.stop
        return out

    def _make_room(self, n):
        """Make room for n more keys, and bring some slots of the old table over."""
        if self._old is None and self.n_keys + n > MOST_LOAD * len(self._slots[0]):
            self._old, self._slots, self._moved = self._slots, _slots(2 * len(self._slots[0])), 0
        if self._old is not None:
            stop = min(self._moved + MOVED_PER_KEY * max(n, 1), len(self._old[0]))
            _compiled(_move)(*self._old, self._moved, stop, *self._slots)
            self._moved = stop
            if stop == len(self._old[0]):
                self._old = None

    def keys(self):
        """Return all keys in the order of their numbers.

        Returns
        -------
        ndarray of int64, shape (n_keys,)
        """
        out = np.empty(self.n_keys, np.int64)
        for keys, numbers in (self._slots, self._old or _NONE):
            used = numbers > 0
            out[numbers[used] - 1] = keys[used]
        return out


def _slots(n):
    """Return keys and numbers + 1 of empty slots: zeros, which the system makes when they are first used.

    Page by page: NumPy asks for huge pages, and the first keys of a table of 128 MB waited 0.22 s for zeros (measured).
    """
    return tuple(np.frombuffer(mmap.mmap(-1, 8 * n), np.int64) for _ in range(2))


_NONE = np.zeros(0, np.int64), np.zeros(0, np.int64)


def add_rows(numbers, rows, out):
    """Add up rows that have the same number: ``out[numbers[i]] += rows[i]``, in their order.

    Parameters
    ----------
    numbers : ndarray of int64, shape (n,)
    rows : ndarray of shape (n, width), float32 or float64
    out : ndarray of shape (m, width), of the dtype of ``rows``
    """
    real = f4 if rows.dtype == np.float32 else f8
    build(_add_rows, types.void(vector(i8, read=True), matrix(real, read=True), matrix(real)))(numbers, rows, out)


def put_pieces(source, targets, n_bytes):
    """Copy pieces that lie behind each other to where they belong: what `copy_pieces` does, backwards.

    Parameters
    ----------
    source : ndarray, C-contiguous
        Of pieces of equal length.
    targets : ndarray of int64, shape (n,)
        Addresses. The caller keeps what is there alive.
    n_bytes : int
        Of a piece.
    """
    build(_put_pieces, types.void(i8, vector(i8, read=True), i8))(source.ctypes.data, targets, n_bytes)


@functools.cache
def _compiled(body):
    read, write = vector(i8, read=True), vector(i8)
    signatures = {
        _find: types.void(read, write, write, write, write, write),
        _insert: i8(read, write, write, write, write, i8, write),
        _move: types.void(write, write, i8, i8, write, write),
    }
    return build(body, signatures[body])


@register_jitable
def _first_slot(key, n_slots):
    """Return where to begin to look: the finaliser of SplitMix64 (G. Steele et al., 2014), whose low bits are good."""
    bits = np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((bits ^ (bits >> np.uint64(31))) & np.uint64(n_slots - 1))


@register_jitable
def _slot_of(key, keys, numbers):
    """Return the slot of a key, or the empty one where it belongs."""
    slot = _first_slot(key, keys.size)
    while numbers[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & (keys.size - 1)
    return slot


def _find(wanted, keys, numbers, old_keys, old_numbers, out):
    for i in range(wanted.size):
        number = numbers[_slot_of(wanted[i], keys, numbers)]
        if number == 0 and old_keys.size:
            number = old_numbers[_slot_of(wanted[i], old_keys, old_numbers)]
        out[i] = number - 1


def _insert(wanted, keys, numbers, old_keys, old_numbers, n_keys, out):
    for i in range(wanted.size):
        slot = _slot_of(wanted[i], keys, numbers)
        number = numbers[slot]
        if number == 0:
            if old_keys.size:
                number = old_numbers[_slot_of(wanted[i], old_keys, old_numbers)]
            if number == 0:
                n_keys += 1
                number = n_keys
            keys[slot], numbers[slot] = wanted[i], number
        out[i] = number - 1
    return n_keys


def _move(old_keys, old_numbers, first, stop, keys, numbers):
    for old in range(first, stop):
        if old_numbers[old]:
            slot = _slot_of(old_keys[old], keys, numbers)
            keys[slot], numbers[slot] = old_keys[old], old_numbers[old]


def _add_rows(numbers, rows, out):
    for i in range(numbers.size):
        for j in range(rows.shape[1]):
            out[numbers[i], j] += rows[i, j]


def _put_pieces(source, targets, n_bytes):
    for i in range(targets.size):
        copy_memory(targets[i], source, n_bytes)
        source += n_bytes
