"""Sums with one fixed order of additions, whoever computes the terms and whenever they arrive."""

import operator
import threading
import time


def add_in_place(left, right):
    """Add up two arrays in the memory of one that may be written to: what came from other ranks may not."""
    if left.flags.writeable:
        return left.__iadd__(right)
    return left + right if not right.flags.writeable else right.__iadd__(left)


class Fold:
    """Fold the values of blocks along a binary tree over the block index.

    Node (0, i) is the value of block i; node (level, i) is ``combine`` of (level - 1, 2 i) and (level - 1, 2 i + 1),
    and a last node without a partner passes up unchanged. The tree depends on the number of blocks alone, so floating
    point rounding is the same for any arrival order, any number of threads and any split of the blocks over workers.

    Parameters
    ----------
    n_blocks : int
    combine : callable, default operator.add
        ``combine(left, right)``, associative up to rounding. A value belongs to the fold from `add` on: ``combine`` may
        write its result into either argument, if that is writeable. What is read-only others may be reading, and must
        stay as it is.

    Notes
    -----
    Values of a contiguous range of blocks are held as at most 2 log2(n_blocks) nodes. `add` and `merge` may be called
    from several threads; ``combine`` runs outside the lock.

    Examples
    --------
    >>> fold = Fold(3)
    >>> for index in (2, 0, 1):
    ...     fold.add(index, 10**index)
    >>> fold.result()
    111
    """

    def __init__(self, n_blocks, combine=operator.add):
        self.n_blocks = n_blocks
        self.combine = combine
        self.nodes = {}
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, index, value):
        """Add the value of block ``index``."""
        if not 0 <= index < self.n_blocks:
            raise ValueError(f"Block {index} is not one of the {self.n_blocks} blocks of this fold.")
        self.place(0, index, value)

    def merge(self, other):
        """Add the nodes of another fold over other blocks of the same data."""
        for (level, i), value in sorted(other.nodes.items(), key=operator.itemgetter(0)):
            self.place(level, i, value)
        self.seconds += other.seconds

    def result(self):
        """Return the value over all blocks."""
        root = ((self.n_blocks - 1).bit_length(), 0)
        if root not in self.nodes:
            raise ValueError(f"This fold over {self.n_blocks} blocks has not received all of them.")
        if len(self.nodes) > 1:
            raise ValueError(f"Blocks of this fold over {self.n_blocks} were given twice.")
        return self.nodes[root]

    def place(self, level, i, value):
        """Put a value at its node, then combine upwards as far as partners are there.

        Parameters
        ----------
        level, i : int
            A node: the sum of the blocks ``i * 2**level`` to ``(i + 1) * 2**level - 1``, as far as there are any.
        value : object
        """
        seconds = 0.0
        while (last := ((self.n_blocks - 1) >> level)) > 0:
            if i == last and i % 2 == 0:
                level, i = level + 1, i // 2
                continue
            with self._lock:
                if (level, i) in self.nodes:
                    raise ValueError(f"Node {(level, i)} of this fold was given twice.")
                if (level, i ^ 1) not in self.nodes:
                    self.nodes[level, i] = value
                    self.seconds += seconds
                    return
                partner = self.nodes.pop((level, i ^ 1))
            start = time.perf_counter()
            value = self.combine(partner, value) if i % 2 else self.combine(value, partner)
            seconds += time.perf_counter() - start
            level, i = level + 1, i // 2
        with self._lock:
            self.nodes[level, 0] = value
            self.seconds += seconds

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()
