"""Collectives of values that are no arrays: packed for the way, and sent as they are, whatever the codec."""

import numpy as np

from daskdml.comm import tree
from daskdml.comm.blocks import by_slices, is_sliced
from daskdml.comm.moves import Pass, Recv
from daskdml.utils.fold import Fold
from daskdml.utils.portable import pack, unpack


def allreduce_values(rank, size, values, n_blocks, combine):
    """Combine one value per block along the fixed binary tree over block numbers.

    Parameters
    ----------
    rank, size : int
    values : dict of int to object, or Fold
        This rank's blocks, or what has been folded of them already; every block is held by exactly one rank.
    n_blocks : int
        Of all ranks.
    combine : callable of two values
        Returns a new one.

    Yields
    ------
    moves
        See `daskdml.comm.moves`.

    Returns
    -------
    object
        The same bits on every rank, and for any distribution of the blocks over any number of ranks.

    Raises
    ------
    TypeError
        If a value cannot be packed, see `daskdml.utils.portable`.
    ValueError
        On rank 0, if a block is missing or was given twice.

    Notes
    -----
    A rank sends what its fold and its children's have left, at most ``2 log2(n_blocks)`` values for a contiguous range
    of blocks, up a tree of ranks, and the result down. Large records of float64 arrays that say ``adds_up`` are summed
    as vectors, each rank folding a slice (see `daskdml.comm.blocks`): the additions, and so the bits, are the same.
    """
    fold = values
    if not isinstance(values, Fold):
        fold = Fold(n_blocks, combine)
        for block, value in values.items():
            fold.add(block, value)
    sample = next(iter(fold.nodes.values()))
    vector = _flat(sample)
    if vector is not None and is_sliced(size, vector.nbytes):
        flat = Fold(n_blocks)
        flat.nodes = {node: _flat(value) for node, value in fold.nodes.items()}
        return _record(sample, (yield from by_slices(rank, size, flat, len(vector))))
    for child in tree.children(rank, size):
        for (level, i), value in unpack((yield Recv(child))):
            fold.place(level, i, value)
    if rank:
        yield Pass(tree.parent(rank), pack([(node, fold.nodes[node]) for node in sorted(fold.nodes)]))
        return unpack((yield from tree.pass_down(rank, size, None)))
    # Unpacked on rank 0 too: what it holds must not differ from what the others hold, nor be changed by anyone.
    return unpack((yield from tree.pass_down(rank, size, pack(fold.result()))))


def _flat(value):
    """Return a record that adds up field by field as one vector; None for anything else."""
    if not getattr(value, "adds_up", False):
        return None
    fields = [np.asarray(field) for field in value if field is not None]
    if any(field.dtype != np.float64 for field in fields):
        return None
    return np.concatenate([field.ravel() for field in fields])


def _record(sample, vector):
    """Return the record of a vector, of the kind and the shapes of another one."""
    fields, at = [], 0
    for field in sample:
        n, shape = np.size(field), np.shape(field)
        part = None if field is None else vector[at : at + n].reshape(shape)
        fields.append(part if part is None or shape else float(part))
        at += 0 if field is None else n
    return type(sample)(*fields)


def gather_values(rank, size, value, root=0):
    """Collect a value of each rank on rank ``root``, which returns their list; the others return None."""
    if rank != root:
        yield Pass(root, pack(value))
        return None
    found = []
    for source in range(size):
        found.append(unpack(pack(value) if source == root else (yield Recv(source))))
    return found


def broadcast_value(rank, size, value):
    """Give the value of rank 0 to every rank."""
    return unpack((yield from tree.pass_down(rank, size, pack(value) if rank == 0 else None)))
