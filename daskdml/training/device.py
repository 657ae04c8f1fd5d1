"""What one rank does whose rows are on a device: gradients and steps are computed there, and sent through the host.

Rows are taken from where they lie, in the order that the schedule says, and parameters and moments are on the device
from the beginning of a superstep to its end. What ranks exchange is brought to the host in one array, so that every
strategy and topology is the one of the host; sums from device to device (NCCL, UCX) are not made.
"""

import functools
import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels.device import device_module, on_host
from daskdml.training.replica import EXTRAS, Replica
from daskdml.training.rows import HeldRows
from daskdml.utils.fold import Fold

ROWS = 65_536  # whose activations are in memory at once, at most


class DeviceReplica(Replica):
    """The rows of a rank on a device, and its parameters and moments there while a step is under way.

    Notes
    -----
    All rows that a rank has of a step are computed at once, and of all ranks sums are added up, whatever micro-batches
    they are of: the answer is that of the host to rounding, not to the bit, and its last bits depend on the number of
    ranks.
    """

    def __init__(self, training, blocks, n_threads, each):
        super().__init__(training, blocks, 1, _one_by_one)  # a device has no use for several threads
        self.xp = device_module()

    def meet(self, comm):
        self._rank, self._size = comm.rank, comm.size
        return super().meet(comm)

    def hold(self, pieces):
        # A batch of mixed rows, a gigabyte at most or asked for, is of all pieces; of others it is of a few.
        return DeviceRows(pieces, self.xp, is_joined=self.training.schedule.is_mixed)

    def load(self, theta, moments):
        if self.theta is None:
            self.theta, *self.moments = (self.xp.asarray(part) for part in (theta, *moments))
        else:
            self.unpack(np.concatenate([theta, *moments]))

    def copies(self):
        return tuple(on_host(part) for part in (self.theta, *self.moments))

    def packed(self):
        return on_host(self.xp.concatenate([self.theta, *self.moments]))

    def unpack(self, packed):
        super().unpack(self.xp.asarray(packed))

    def is_finite(self, comm):
        return bool(self.xp.isfinite(self.theta).all())

    def raw(self, theta, X):
        return on_host(super().raw(theta, self.xp.asarray(X)))

    def plan(self, age, first, stop):
        super().plan(age, first, stop)
        if self._selection is not None:
            targets = self._selection.y, self._selection.weight
            self._targets = [None if part is None else self.xp.asarray(part, dtype=np.float64) for part in targets]

    @functools.cached_property
    def _workspace(self):
        """What gradients are computed in: arrays of activations, a sum of gradients, and one more to add to it."""
        objective, schedule = self.training.objective, self.training.schedule
        work = objective.workspace(min(schedule.n_micro * schedule.micro_rows, ROWS), like=self.xp)
        return work, *(self.xp.empty(objective.n_params + EXTRAS, objective.dtype) for _ in range(2))

    def gradients(self, first, stop):
        """Return the `Fold` of all ranks' sums with this one's: on the device, unless they are sent."""
        started = time.perf_counter()
        (begin, end), (work, total, part) = self.rows_of(first, stop), self._workspace
        n = work.activations[0].shape[0]
        if begin == end:
            total[:] = 0
        for row in range(begin, end, n):
            self._gradient(row, min(row + n, end), total if row == begin else part, work)
            if row > begin:
                total += part
        fold = Fold(self._size, self._add)
        is_sent = self._size > 1 and self.training.strategy.sends_gradients
        fold.add(self._rank, on_host(total) if is_sent else total)
        self.charge("compute", started)
        return fold

    def _gradient(self, first, stop, out, work):
        """Write the gradient of some rows of the selection, and `EXTRAS` behind it."""
        objective, selection = self.training.objective, self._selection
        y, weight = (None if part is None else part[first:stop] for part in self._targets)
        value = objective.gradient(self.theta, selection.X(first, stop), y, weight, out, work)
        y, weight = selection.y[first:stop], None if weight is None else selection.weight[first:stop]
        extras = objective.scikit_learn_loss(value, y, weight), objective.weight_of(y, weight), stop - first
        out[objective.n_params :] = self.xp.asarray(extras, dtype=out.dtype)

    def update(self, total, first, stop, is_own=False):
        super().update(self.xp.asarray(total), first, stop, is_own)

    def _give_back(self, array):
        """Keep nothing: the arrays that gradients are computed in are always the same."""


class DeviceRows(HeldRows):
    """Pieces of rows on a device; see `HeldRows`. y and weights stay on the host.

    Parameters
    ----------
    pieces : list of Piece
        Whatever X is not on the device is brought there.
    xp : module
    is_joined : bool
        Whether to put X together, which takes as much memory again and one call to take rows, whatever their pieces.
    """

    def __init__(self, pieces, xp, is_joined):
        self.xp, self.is_joined = xp, is_joined
        super().__init__([piece._replace(X=xp.asarray(piece.X)) for piece in pieces])

    def _locate(self):
        """Note which matrices hold X, and the first row of each."""
        self.matrices, self.edges = [piece.X for piece in self.pieces], self._first
        if self.is_joined and len(self.matrices) > 1:
            self.matrices, self.edges = [self.xp.concatenate(self.matrices)], self._first[:1]

    def _selection(self, piece, at, place, y, weight):
        there = self.xp.asarray(place) if len(self.matrices) == 1 else None
        return DeviceSelection(self, place, there, y, weight)


class DeviceSelection(NamedTuple):
    """Rows that are to be taken together; see `Selection`.

    Attributes
    ----------
    held : DeviceRows
    place : ndarray of int64
        Of rows among all that are held.
    there : array on the device, or None
        The same, where one matrix holds them all.
    y, weight : ndarray
    """

    held: Any
    place: Any
    there: Any
    y: Any
    weight: Any

    def X(self, first=0, stop=None, out=None):
        """Return some of the rows as a new matrix on the device; ``out`` is not used."""
        held, xp = self.held, self.held.xp
        if self.there is not None:
            return held.matrices[0][self.there[first:stop]]
        place = self.place[first:stop]
        number = np.searchsorted(held.edges, place, side="right") - 1
        found = xp.empty((len(place), held.n_features), held.dtype)
        for k in np.unique(number).tolist():
            here = np.flatnonzero(number == k)
            found[xp.asarray(here)] = held.matrices[k][xp.asarray(place[here] - held.edges[k])]
        return found


def _one_by_one(n_items, work):
    for i in range(n_items):
        work(i)
