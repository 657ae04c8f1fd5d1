"""A fit as a program: every rank runs all of it on its own blocks, and passes are summed over the ranks."""

import operator
import time
from typing import Any, NamedTuple

import numpy as np

from daskdml.data import Chunk
from daskdml.runtime.journal import Journal
from daskdml.runtime.run import Run, concatenate_chunks, pilot_rows
from daskdml.runtime.spmd.program import Program
from daskdml.runtime.threads import for_each
from daskdml.utils.fold import Fold


class Facts(NamedTuple):
    """What ranks are told of a `Run`; stands in for the data when they make theirs."""

    n_features: int
    dtype: Any
    layout: str
    rows_per_block: int
    lengths: tuple
    mode: str
    where: str
    n_workers: int
    rows_read: int
    bytes_moved: int
    timings: dict

    @classmethod
    def of(cls, run):
        """Return the facts of a run."""
        return cls(*(getattr(run, name) for name in cls._fields))


class Answer(NamedTuple):
    """What a fit returned on a rank, and the accounts of that rank's run."""

    value: Any
    rows_read: int
    bytes_moved: int
    timings: dict


class FitProgram(Program):
    """Run ``body(run)`` on every rank; the state is the `Journal` of its passes.

    Parameters
    ----------
    body : callable of a Run
        Must do the same on every rank: a function of what its passes return.
    facts : Facts
    server : daskdml.runtime.spmd.apart.Server, optional
        Of what ranks add up at their own pace.
    """

    tells_work = True

    def __init__(self, body, facts, server=None):
        self.body, self.facts, self.server = body, facts, server
        if server is not None:
            self.served_by(server.strategy)

    def init(self, meta):
        return ()

    def tables(self, meta):
        return {} if self.server is None else self.server.tables

    def run(self, step, state, local, comm, commit):
        run = RankRun(self.facts, local, comm, self.n_threads, self.server)
        run.journal = Journal(state, lambda entries: commit(len(entries), entries))
        value = self.body(run)
        sent = int(comm.allreduce(np.array([comm.bytes_sent]))[0])
        return Answer(value, run.rows_read, self.facts.bytes_moved + sent, run.timings)


class RankRun(Run):
    """The rows of a fit as one rank sees them: passes over its own blocks, summed with those of the others.

    Parameters
    ----------
    facts : Facts
    blocks : list of Block
        This rank's.
    comm : Comm
    n_threads : int
    server : Server, optional
    """

    runtime = "spmd"

    def __init__(self, facts, blocks, comm, n_threads, server=None):
        n_chunks = len(facts.lengths)
        super().__init__(facts, mode=facts.mode, n_workers=comm.size, n_chunks=n_chunks, lengths=facts.lengths)
        self.where, self.rows_read = f"{facts.where}, ranks", facts.rows_read
        self.timings.update(facts.timings)
        self.n_threads = n_threads
        self._facts, self._blocks, self._comm = facts, blocks, comm
        self.server = server if comm.size > 1 else None

    @property
    def bytes_moved(self):
        """Bytes moved before the ranks began, and sent by this one since."""
        return self._facts.bytes_moved + self._comm.bytes_sent

    @bytes_moved.setter
    def bytes_moved(self, n):
        pass  # `Run` sets it to 0; the transport counts

    def transform_targets(self, fn):
        self._blocks = [block._replace(y=fn(block.y)) for block in self._blocks]

    def warm(self, fn):
        start = time.perf_counter()
        fn()
        self.timings["compile"] += time.perf_counter() - start

    def apart(self, work):
        def make():
            from daskdml.runtime.spmd.apart import Ledger

            ledger = Ledger(self.server, self._blocks, self._comm, self.n_threads)
            return work(ledger), ledger.tell()

        value, told = self.journal(work, lambda: None, make)
        self._count(told.n_rows)
        return value, told

    def pilot(self, n_rows, seed):
        """Draw rows to rank 0, where passes over them are made; all ranks get their results."""
        self._check_rows()
        rows, own = pilot_rows(self.n_samples, n_rows, seed), {}
        for block in self._blocks:
            first, last = np.searchsorted(rows, [block.start, block.start + block.n_rows])
            if last > first:
                chunk = Chunk(block.X, block.y, block.weight).take(rows[first:last] - block.start)
                own[block.index] = tuple(map(_flat, (chunk.X, chunk.y, chunk.weight)))
        parts = self._comm.gather_values(own)
        self._count(len(rows))
        if parts is None:
            return PilotRun(self, None, len(rows))
        found = sorted((index, part) for some in parts for index, part in some.items())
        chunks = [Chunk(*map(_thick, part)) for _, part in found]
        return PilotRun(self, self._in_process(concatenate_chunks(chunks)), len(rows))

    def _fold(self, fn, combine):
        fold = Fold(self.n_blocks, combine)
        self._each(fn, fold.add)
        self.timings["reduce"] += fold.seconds / self.n_threads
        self.timings["compute"] -= fold.seconds / self.n_threads
        return self._comm.allreduce_values(fold, combine)

    def _map_blocks(self, fn):
        own = {}
        self._each(fn, own.__setitem__)
        parts = self._comm.gather_values(own)
        found = parts and sorted((index, value) for some in parts for index, value in some.items())
        return self._comm.broadcast_value(parts and [value for _, value in found])

    def _each(self, fn, keep):
        seconds = []

        def visit(i):
            self._comm.check()
            start, block = time.perf_counter(), self._blocks[i]
            keep(block.index, fn(block))
            seconds.append(time.perf_counter() - start)

        for_each(len(self._blocks), visit, self.n_threads)
        self.timings["compute"] += sum(seconds) / self.n_threads
        self._comm.worked(lambda: sum(block.n_rows for block in self._blocks))


class PilotRun(Run):
    """Rows that rank 0 holds; the results of passes over them are those of all ranks.

    Parameters
    ----------
    parent : Run
        Of the same ranks.
    inner : LocalRun or None
        On rank 0.
    n_samples : int
    """

    def __init__(self, parent, inner, n_samples):
        super().__init__(parent, mode="pinned", n_workers=1, n_chunks=1, lengths=[n_samples], parent=parent)
        self.n_threads, self._comm, self._inner = parent.n_threads, parent._comm, inner
        if inner is not None:
            inner._parent = None  # rows are counted here, on all ranks alike

    def map_reduce(self, fn, combine=operator.add, *, reads_x=True):
        return self._on_rank_0(lambda: self._inner.map_reduce(fn, combine, reads_x=reads_x), reads_x)

    def map(self, fn, *, reads_x=True):
        return self._on_rank_0(lambda: self._inner.map(fn, reads_x=reads_x), reads_x)

    def _on_rank_0(self, compute, reads_x):
        """Return what rank 0 computes, and take over how long it took."""
        found = None
        if self._inner is not None:
            found = compute(), self._inner.timings
        self._count_pass(reads_x)
        value, self.timings = self._comm.broadcast_value(found)
        return value

    def pilot(self, n_rows, seed):
        inner = None if self._inner is None else self._inner.pilot(n_rows, seed)
        n = min(n_rows, self.n_samples)
        self._count(n)
        return PilotRun(self, inner, n)


def _flat(part):
    """Take a matrix apart into arrays."""
    if isinstance(part, tuple):
        return ["panels", *map(_flat, part)]
    if hasattr(part, "indptr"):
        return ["csr", type(part).__name__, part.shape, part.data, part.indices, part.indptr]
    return part


def _thick(part):
    """Put together what `_flat` took apart."""
    if not isinstance(part, list):
        return part
    kind, *rest = part
    if kind == "panels":
        return tuple(map(_thick, rest))
    from scipy import sparse

    name, shape, *arrays = rest
    make = {"csr_matrix": sparse.csr_matrix, "csr_array": sparse.csr_array}[name]
    return make(tuple(arrays), shape=shape)
