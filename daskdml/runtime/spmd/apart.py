"""What ranks of a fit add up at their own pace, with a parameter server."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.runtime.tables.spec import DenseTable
from daskdml.runtime.threads import for_each
from daskdml.utils.fold import Fold
from daskdml.utils.portable import portable

SUM, READY = "sum", "ready"  # names of the tables


class Server(NamedTuple):
    """What a fit asks of a parameter server.

    Attributes
    ----------
    strategy : daskdml.strategies.ParameterServer
    n_numbers : int
        That are added up.
    """

    strategy: Any
    n_numbers: int

    @property
    def tables(self):
        """The tables of a program that has one."""
        codec = self.strategy.compression
        return {SUM: DenseTable(self.n_numbers, "float64", compression=codec), READY: DenseTable(1, "float64")}


@portable
class Told(NamedTuple):
    """What ranks did at their own pace.

    Attributes
    ----------
    n_rows : int
        Rows that all of them read.
    n_pushes : int
        Of all.
    staleness : ndarray of int64
        See `daskdml.runtime.tables.session.Tables.take_stalenesses`.
    order : tuple or None
        What it belongs to, and what shards did in which order, where that is recorded.
    """

    n_rows: int
    n_pushes: int
    staleness: np.ndarray
    order: Any


class Ledger:
    """What one rank adds to the sum of all, and reads of it.

    Parameters
    ----------
    server : Server
    blocks : list of Block
        This rank's.
    comm : Comm
    n_threads : int

    Raises
    ------
    ValueError
        For an order of another fit: shards would wait for pushes that never come.
    """

    def __init__(self, server, blocks, comm, n_threads):
        self._server, self._blocks, self._comm, self._n_threads = server, blocks, comm, n_threads
        self._tables, self._n_rows, self._n_ready, self._first_clock = comm.tables, 0, 0.0, 0
        replay = server.strategy.replay
        if replay is not None and comm.generation == 1 and replay["of"] != self._of:
            raise ValueError(
                f"replay is the order of a fit of {replay['of']}, and this is one of {self._of}: give the same rows "
                "and number of workers."
            )

    @property
    def _of(self):
        """What an order belongs to."""
        comm = self._comm
        return {
            "ranks": comm.size, "shards": self._tables.layout.n_shards, "rows": comm.meta.n_samples,
            "numbers": self._server.n_numbers, **self._server.strategy.recorded(comm, False),
        }  # fmt: skip

    def reduce(self, fn, reads_x=True):
        """Fold ``fn(block)`` over this rank's rows alone."""
        fold = Fold(len(self._blocks))

        def visit(i):
            self._comm.check()
            fold.add(i, fn(self._blocks[i]))

        for_each(len(self._blocks), visit, self._n_threads)
        if reads_x:
            n_rows = sum(block.n_rows for block in self._blocks)
            self._n_rows += n_rows
            self._comm.worked(lambda: n_rows)
        return fold.result()

    def begin(self, first):
        """Return the sum that ranks begin with: what those of an earlier group have come to, or else ``first``."""
        found = self._read_alike()
        if not found[SUM].any():
            if self._comm.rank == 0:
                self._tables[SUM].add(first)
            self._tables.push()
            found = self._read_alike()
        self._n_ready, self._first_clock = found[READY][0], self._tables.clock
        return found[SUM]

    def _read_alike(self):
        """Return what rank 0 reads when nobody pushes."""
        self._tables.settle()
        self._comm.barrier()
        self._tables.agree(self._comm)
        found = self._tables.get_dense() if self._comm.rank == 0 else None
        return self._comm.broadcast_value(found)

    def push(self, change, becomes_ready):
        """Add to the sum, and complete a clock."""
        self._tables[SUM].add(change)
        if becomes_ready:
            self._tables[READY].add(np.ones(1))
        self._tables.push()

    def read(self):
        """Return the sum, as new as the consistency asks for, and whether all ranks have said that they are ready."""
        found = self._tables.get_dense()
        return found[SUM], round(float(found[READY][0] - self._n_ready)) >= self._comm.size

    def leave(self):
        """Let nobody wait for this rank's clock: others may go on until they hear that all are ready."""
        self._tables.leave()

    def add_up(self, own):
        """Wait for all ranks, and return the sum of what they give."""
        return self._comm.allreduce(own)

    def tell(self):
        """Return what was `Told`."""
        comm, order = self._comm, None
        n_rows, n_pushes = comm.allreduce(np.array([self._n_rows, self._tables.clock - self._first_clock])).tolist()
        if self._server.strategy.record and comm.generation == 1:
            order = self._of, self._tables.take_orders(comm)
        return Told(n_rows, n_pushes, self._tables.take_stalenesses(comm), order)
