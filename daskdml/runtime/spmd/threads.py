"""Ranks as threads of this process: the group never changes, and sums cross no network."""

import threading

from daskdml.runtime.spmd.program import Comm, GroupChanged, Station, run_rank


def run_threads(program, blocks, meta, n_ranks, *, topology="tree"):
    """Run a program on threads of this process.

    Parameters
    ----------
    program : Program
    blocks : list of Block
    meta : Meta
    n_ranks : int
        At most one per block is started.
    topology : str, default "tree"

    Returns
    -------
    Outcome
        Of rank 0.

    Raises
    ------
    Exception
        What the program raised, on whichever rank.
    """
    n_ranks = max(min(n_ranks, len(blocks)), 1)
    group = _Group(n_ranks)
    outcomes = [None] * n_ranks

    def run(rank):
        own = blocks[rank * len(blocks) // n_ranks : (rank + 1) * len(blocks) // n_ranks]
        comm = Comm(rank, n_ranks, 1, meta, _Wire(group, rank), topology=topology)
        outcomes[rank] = run_rank(program, own, comm, 0, program.init(meta))
        if outcomes[rank].kind == "failed":
            group.close()

    others = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(1, n_ranks)]
    for thread in others:
        thread.start()
    try:
        run(0)
    finally:
        # A Ctrl-C in rank 0 must not leave the others waiting for it.
        if outcomes[0] is None:
            group.close()
        for thread in others:
            thread.join()
    errors = [outcome.error for outcome in outcomes if outcome.kind == "failed"]
    if errors:
        raise errors[0]
    return outcomes[0]


class _Group:
    """Where packets for each rank arrive, and the lock that all ranks share."""

    def __init__(self, n_ranks):
        self.changed, self.closed = threading.Condition(), False
        self.stations = [Station() for _ in range(n_ranks)]

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class _Wire:
    """The transport of one rank."""

    def __init__(self, group, rank):
        self.group, self.rank, self.sent = group, rank, {}

    def send(self, to, packet):
        with self.group.changed:
            number = self.sent.get(to, 0)
            self.sent[to] = number + 1
            self.group.stations[to].put(1, self.rank, number, packet)
            self.group.changed.notify_all()

    def receive(self, source):
        station = self.group.stations[self.rank]
        with self.group.changed:
            self.group.changed.wait_for(lambda: self.group.closed or station.has(1, source))
            if not station.has(1, source):
                raise GroupChanged
            return station.take(1, source)
