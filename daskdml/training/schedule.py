"""Which rows form which batch: a function of the seed, the epoch and the numbers of rows, and of nothing else.

Rows are cut into *strata*, contiguous ranges, one for each micro-batch of a batch; a stratum into *units* of some
thousand rows, which one rank holds whole; a unit into *slices*, the rows of a micro-batch, dealt anew in each epoch.
A batch is one slice of each stratum. So ranks that hold contiguous ranges of rows have equal work in each batch, no row
travels, and neither the number of ranks nor where chunks begin changes a batch.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from daskdml.kernels.permuting import permute
from daskdml.utils.batches import MICRO_ROWS
from daskdml.utils.random import row_hash

SLICES = 16  # of a unit
LEAST_ROWS = 32  # of a micro-batch that is made smaller so that there are several for each rank
# Up to so many bytes rows are put in a random order first, wherever they lie; above, batches are drawn from where rows
# are, some thousand that follow each other at a time.
MIXED_BYTES = 1 << 30
MIXED_COLUMNS = 1000  # counted at most: wide rows are sparse
ORDER_STREAM, DEAL_STREAM, HOLD_STREAM, MIX_STREAM = 41, 42, 43, 44


def micro_batches(batch_size, least=1):
    """Return how many micro-batches a batch is made of: it divides ``batch_size`` where that has such a divisor.

    Parameters
    ----------
    batch_size : int
    least : int, default 1
        At least so many, if there are rows for them.

    Examples
    --------
    >>> [micro_batches(n) for n in (1, 32, 200, 256, 4096, 101)]
    [1, 1, 1, 1, 16, 1]
    """
    wanted = min(max(-(-batch_size // MICRO_ROWS), least), batch_size)
    for n in sorted(range(max(wanted // 2, 1), 2 * wanted + 1), key=lambda n: abs(n - wanted)):
        if batch_size % n == 0 and n >= min(least, batch_size):
            return n
    return 1 if batch_size <= 4 * MICRO_ROWS and least == 1 else wanted


def least_parts(n_ranks, batch_size, per_rank=1):
    """Return how many micro-batches a batch is to have at least so that each rank has a part of it.

    Parameters
    ----------
    n_ranks, batch_size : int
    per_rank : int, default 1
        That each is to have, where they are of some rows then: ranks of other speeds can have more or fewer of them.

    Examples
    --------
    >>> [least_parts(8, batch_size, 4) for batch_size in (4, 100, 600, 2048)]
    [4, 8, 18, 32]
    """
    finer = min(per_rank * n_ranks, batch_size // LEAST_ROWS) if n_ranks > 1 else 1
    return min(max(n_ranks, finer), batch_size)


def is_mixable(n_samples, n_features, dtype):
    """Tell whether rows are few enough to be put in a random order unless somebody says otherwise."""
    return n_samples * min(n_features, MIXED_COLUMNS) * np.dtype(dtype).itemsize <= MIXED_BYTES


@dataclass(frozen=True)
class Schedule:
    """The batches of all epochs.

    Attributes
    ----------
    n_samples : int
    n_micro, micro_rows : int
        Micro-batches of a batch, and rows of one.
    seed : int
    is_shuffled : bool
        Otherwise batches are the rows in their order.
    is_mixed : bool
        Whether strata are cut from a random order of all rows, `order`, instead of their own.
    n_held : int
        Rows of a unit that are held out.
    """

    n_samples: int
    n_micro: int
    micro_rows: int
    seed: int
    is_shuffled: bool = True
    is_mixed: bool = False
    n_held: int = 0

    @classmethod
    def of(cls, n_samples, batch_size, seed, *, is_shuffled=True, is_mixed=False, held_out=0.0, least=1):
        """Return the schedule of batches of so many rows; ``held_out`` is the share of rows that are in none."""
        n_micro = micro_batches(batch_size, least)
        rows = -(-batch_size // n_micro)
        n_held = round(SLICES * rows * held_out / (1 - held_out))
        if held_out > 0:
            n_held = max(n_held, 1)
        return cls(n_samples, n_micro, rows, seed, is_shuffled, is_mixed and is_shuffled, n_held)

    @property
    def cut(self):
        """What depends on how many ranks a batch is to have work for: see `Schedule.of`."""
        return self.n_micro, self.micro_rows, self.n_held

    def cut_as(self, cut):
        """Return the schedule of the same rows that is cut otherwise; as it is for an empty ``cut``."""
        return replace(self, **dict(zip(("n_micro", "micro_rows", "n_held"), cut)))

    def idle_ranks(self, n_ranks, n_batches, spreads):
        """Say why some ranks have nothing to do in a step of so many batches, in a list; an empty one if all have.

        Parameters
        ----------
        n_ranks, n_batches : int
        spreads : bool
            Whether batches are cut for the ranks that there were in the beginning.
        """
        n_parts = self.n_micro * min(n_batches, self.n_batches)
        if not self.is_shuffled:
            n_parts = min(-(-n_parts // SLICES), self.n_units)  # rows of a batch follow each other, on one rank
        if n_parts >= n_ranks:
            return []
        if not self.is_shuffled:
            why = "its rows follow each other, on one of them. shuffle=True gives work to all."
        elif spreads:
            why = f"batches are cut for the {self.n_micro} that there were in the beginning. A new fit uses all."
        else:
            why = (
                f"a batch is dealt to them by some {MICRO_ROWS} rows. A batch_size that is a multiple of "
                f"{MICRO_ROWS * n_ranks}, AllReduce(accumulate=) and LocalSGD() give work to all; batches as small as "
                "these are faster in one process, runtime='threads'."
            )
        return [f"A step has work for {n_parts} of {n_ranks} workers, the others wait: {why}"]

    @property
    def n_strata(self):
        """Strata: as many as micro-batches, or one where nothing is shuffled."""
        return self.n_micro if self.is_shuffled else 1

    @property
    def unit_rows(self):
        """Rows of a unit, the last one of a stratum may have fewer."""
        return SLICES * self.micro_rows + self.n_held

    def _first_row(self, stratum):
        return stratum * self.n_samples // self.n_strata

    @property
    def units_per_stratum(self):
        """Numbers of units that a stratum has at most; unit j of stratum k is ``k * units_per_stratum + j``."""
        longest = -(-self.n_samples // self.n_strata)
        return max(-(-longest // self.unit_rows), 1)

    @property
    def n_units(self):
        """Numbers of units; some may have no rows."""
        return self.n_strata * self.units_per_stratum

    def unit_spans(self, units):
        """Return the first row of each unit and the one after its last."""
        strata, j = np.divmod(np.asarray(units, np.int64), self.units_per_stratum)
        stop = self._first_row(strata + 1)
        first = np.minimum(self._first_row(strata) + j * self.unit_rows, stop)
        return first, np.minimum(first + self.unit_rows, stop)

    def unit_of(self, rows):
        """Return the unit of each row."""
        rows = np.asarray(rows, np.int64)
        strata = ((rows + 1) * self.n_strata - 1) // self.n_samples
        return strata * self.units_per_stratum + (rows - self._first_row(strata)) // self.unit_rows

    def _n_trained(self, n_rows):
        """Return how many of the rows of a unit are in batches."""
        return n_rows - n_rows * self.n_held // self.unit_rows

    @functools.cached_property
    def _n_slices(self):
        """Return the slices of each stratum, the full ones and all."""
        strata = np.arange(self.n_strata)
        n = self._first_row(strata + 1) - self._first_row(strata)
        whole, rest = np.divmod(n, self.unit_rows)
        trained = self._n_trained(rest)
        full = whole * SLICES + trained // self.micro_rows
        return full, full + (trained % self.micro_rows > 0)

    @property
    def n_trained(self):
        """Rows of an epoch."""
        n = self.n_samples
        sizes = (self._first_row(k + 1) - self._first_row(k) for k in range(self.n_strata)) if n else ()
        return sum(size // self.unit_rows * SLICES * self.micro_rows + self._n_trained(size % self.unit_rows)
                   for size in sizes)  # fmt: skip

    @property
    def n_batches(self):
        """Batches of an epoch; the last may be short."""
        most = int(self._n_slices[1].max())
        return most if self.is_shuffled else -(-most // self.n_micro)

    def slices(self, epoch, first, stop):
        """Return the slices of batches ``first`` to ``stop - 1``.

        Returns
        -------
        batches, micro : ndarray of int64
            Which micro-batch of which batch each slice is.
        units, places : ndarray of int64
            The unit of each, and which of its slices it is.
        """
        full, total = self._n_slices
        batches, micro = (part.ravel() for part in np.mgrid[first:stop, 0 : self.n_micro])
        if self.is_shuffled:
            strata, slices = micro, batches.copy()
            is_full = slices < full[strata]
            keys = self._keys(ORDER_STREAM, epoch, np.arange(self.n_strata))[strata[is_full]]
            drawn = np.empty(len(keys), np.int64)
            permute(slices[is_full], full[strata[is_full]], keys, drawn)
            slices[is_full] = drawn
        else:
            strata, slices = np.zeros_like(micro), batches * self.n_micro + micro
        exists = slices < total[strata]
        units = strata * self.units_per_stratum + slices // SLICES
        return batches[exists], micro[exists], units[exists], (slices % SLICES)[exists]

    def rows_of(self, epoch, units, places):
        """Return the rows of some slices behind each other, and where each slice begins among them.

        Returns
        -------
        rows : ndarray of int64
            Numbers in the order that strata are cut from.
        edges : ndarray of int64, shape (n_slices + 1,)
        """
        first, stop = self.unit_spans(units)
        trained = self._n_trained(stop - first)
        begin, counts = places * self.micro_rows, self.slice_sizes(units, places)
        edges = np.concatenate([[0], np.cumsum(counts)])
        of_rows = functools.partial(np.repeat, repeats=counts)
        at = np.arange(edges[-1]) + of_rows(begin - edges[:-1])
        if self.is_shuffled:
            distinct, inverse = np.unique(units, return_inverse=True)
            keys = self._keys(DEAL_STREAM, epoch, distinct)[inverse]
            dealt = np.empty(len(at), np.int64)
            permute(at, of_rows(trained), of_rows(keys), dealt)
            at = dealt
        if self.n_held:
            at = self._by_holding(at, of_rows(stop - first), of_rows(units))
        return of_rows(first) + at, edges

    def slice_sizes(self, units, places):
        """Return how many rows some slices have."""
        first, stop = self.unit_spans(units)
        return np.minimum(self._n_trained(stop - first) - places * self.micro_rows, self.micro_rows)

    def held_rows(self, unit):
        """Return the rows of a unit that are held out, in ascending order."""
        first, stop = (int(edge) for edge in self.unit_spans(unit))
        held = np.arange(self._n_trained(stop - first), stop - first)
        return first + np.sort(self._by_holding(held, np.full(len(held), stop - first), np.full(len(held), unit)))

    def _by_holding(self, at, sizes, units):
        """Return the places in their units of the k-th rows, of which the first are in batches."""
        keys, out = row_hash(self.seed, HOLD_STREAM, units), np.empty(len(at), np.int64)
        permute(at, np.asarray(sizes, np.int64), keys, out)
        return out

    def _keys(self, stream, epoch, numbers):
        return row_hash(self.seed, stream, epoch * self.n_units + np.asarray(numbers))

    def mix(self, rows, backwards=False):
        """Return where rows stand in the order that strata are cut from, or which rows stand there."""
        rows = np.asarray(rows, np.int64)
        if not self.is_mixed:
            return rows
        out = np.empty(len(rows), np.int64)
        keys = np.full(len(rows), row_hash(self.seed, MIX_STREAM, [0])[0])
        permute(rows, np.full(len(rows), self.n_samples), keys, out, backwards)
        return out
