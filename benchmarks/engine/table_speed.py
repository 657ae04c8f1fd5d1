"""How fast a worker reads from and pushes to a table on another process of the same machine."""

import time

import numpy as np

from benchmarks.report import Sheet
from daskdml import DenseTable, Program
from daskdml.strategies import ASP

NUMBERS, FEW = 1_000_000, 50
TIMES, OFTEN = 30, 400
LEAST_RATE, MOST_MS = 250.0, 1.5


class Speed(Program):
    """Each rank in turn reads and pushes; the other only has the shard, or is the one that measures itself.

    Parameters
    ----------
    times, often : int
        How often the long and the short table are read.
    """

    consistency = ASP()
    replicas = 0
    shards = 1
    caches = False  # what nobody has changed is to be sent again

    def __init__(self, times, often):
        self.times, self.often = times, often

    def tables(self, meta):
        return {"long": DenseTable(NUMBERS), "few": DenseTable(FEW)}

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        found = []
        for rank in range(comm.size):
            comm.barrier()
            found.append(self._measure(comm) if rank == comm.rank else np.zeros((3, max(self.times, self.often))))
        comm.barrier()
        return [comm.allreduce(one) for one in found]

    def _measure(self, comm):
        long, few, update = comm.tables["long"], comm.tables["few"], np.ones(NUMBERS, np.float32)
        seconds = np.zeros((3, max(self.times, self.often)))
        for i in range(-3, self.times):  # the first three warm up
            seconds[1, i] = _seconds(lambda: self._push(comm, long, update))
            seconds[0, i] = _seconds(long.get)  # which has just changed
        for i in range(-3, self.often):
            seconds[2, i] = _seconds(few.get)
        return seconds

    @staticmethod
    def _push(comm, table, update):
        table.add(update)
        comm.tables.push()
        comm.tables.settle()

    def done(self, state):
        return state is not None


def _seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def speed(rows=None, full=False):
    """Megabytes a second of a million float32 each way, until read and until acknowledged; milliseconds of 50 numbers.

    A LocalCluster of two processes, one of which has the only shard: of both ranks' figures the slower are the other's.

    Parameters
    ----------
    rows : int, optional
        Without effect.
    full : bool, default False
        Three runs instead of one.

    Returns
    -------
    Sheet
    """
    from dask import array
    from distributed import Client, LocalCluster

    import daskdml

    sheet, runs = Sheet("table_speed", at_size=full), []
    for _ in range(3 if full else 1):
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster),
            daskdml.config_context(runtime="spmd"),
        ):
            ranks = daskdml.run(Speed(TIMES, OFTEN), array.ones((4, 1), chunks=(2, 1)))
            runs.append(max(ranks, key=lambda seconds: np.median(seconds[2, :OFTEN])))
    work = "1 worker to 1 shard, processes of one machine"
    for what, row in (("read", 0), ("pushed and acknowledged", 1)):
        rates = [4e-6 * NUMBERS / np.median(run[row, :TIMES]) for run in runs]
        sheet.add(work, "daskdml", f"MB/s of {NUMBERS:,} float32, {what}", rates, must=(">=", LEAST_RATE))
    times = [1e3 * np.median(run[2, :OFTEN]) for run in runs]
    sheet.add(work, "daskdml", f"ms to read {FEW} float32, median", times, must=("<=", MOST_MS))
    late = [1e3 * np.quantile(run[2, :OFTEN], 0.99) for run in runs]
    sheet.add(work, "daskdml", f"ms to read {FEW} float32, 99 %", late)
    return sheet
