"""Puts chunks on workers as futures, one contiguous range each, and makes lost ones again."""

import functools
import itertools
import uuid

import numpy as np

from daskdml.utils.config import get_config

from .cluster_check import check_cluster
from .graphs import OURS
from .mapped import MappedChunk
from .replacing import ReplaceRows, apply_steps, itself
from .waiting import ALLOWED_DEATHS, WorkerLost, cancelling, gather, raise_first, too_many_deaths, wait_for
from .watch import Watch

UNEVEN = 1.3  # times its share that a worker holds before chunks are moved away


class NoRoom(Exception):
    """The workers may not hold all chunks."""

    def __init__(self, total, n_workers):
        super().__init__(total, n_workers)
        self.total, self.n_workers = total, n_workers


class Placed:
    """Chunks as futures, each pinned to one worker, with the recipe to make it again.

    Parameters
    ----------
    client : distributed.Client
    sources : Sources
    workers : dict of str to cluster_check.Worker
    make : callable of a chunk, default itself
        What is kept of it, such as a MappedChunk.

    Notes
    -----
    Each worker gets one contiguous range of chunks, in proportion to its threads, so that its partial sums are few.
    A chunk made from data that workers hold already goes to the worker that holds most of its bytes.

    Tasks are pinned strictly. A loosely pinned one (``allow_other_workers``) is stolen together with its rows, and is
    never run again if no other worker is running at the moment its worker dies. A strictly pinned one waits for ever
    for its dead worker; `repair` makes such chunks again elsewhere.
    """

    def __init__(self, client, sources, workers, make=itself):
        self.client, self.watch = client, Watch(client, get_config()["timeout"])
        self.workers = workers
        self.futures = []
        self._recipes = []
        self.add(sources, make)

    def add(self, sources, make=itself, homes=None):
        """Compute more chunks; ``homes`` (numbers by address) may say where."""
        if homes is None:
            spread = _ranges(range(len(sources)), self.workers)
            homes = sources.homes(self.client, self.workers) if sources.from_futures else spread
        first = len(self.futures)
        self._recipes += [(sources, i, (make,)) for i in range(len(sources))]
        self.futures += [None] * len(sources)
        self._make({address: [first + i for i in numbers] for address, numbers in homes.items()})

    def transform(self, change, kind):
        """Replace every chunk by ``change(chunk)``, on the same worker.

        Parameters
        ----------
        change : callable of a Chunk or MappedChunk
        kind : str
            A word for the names of its tasks.
        """

        def submit(started):
            order = []
            for address, members in self.held().items():
                chunks = [self.futures[i] for i in members]
                name = f"{OURS}{kind}-{uuid.uuid4().hex}"
                started += self.client.map(change, chunks, key=name, workers=[address])
                order += members
            return order

        order, made = self.carry_out(submit)
        raise_first(made)
        for i, future in zip(order, made):
            self.futures[i] = future
            sources, k, steps = self._recipes[i]
            self._recipes[i] = sources, k, (*steps, change)

    def held(self, wanted=None):
        """Return the numbers of the (wanted) chunks by the worker that holds them; makes lost ones again first."""
        wanted = range(len(self.futures)) if wanted is None else wanted
        while True:
            holders = self.client.who_has([self.futures[i] for i in wanted])
            held = {}
            for i in wanted:
                addresses = holders.get(self.futures[i].key)
                held.setdefault(min(addresses) if addresses else None, []).append(i)
            if None not in held:
                return held
            self.repair()

    def carry_out(self, submit, results=None):
        """Start tasks and wait for them, again after each death of a worker.

        Parameters
        ----------
        submit : callable of a list
            Appends futures of tasks pinned to the workers of `held`; what it returns is returned first.
        results : callable of what it returns and the list, optional
            Returns futures, whose results are wanted here: a worker may die before they have left it.

        Returns
        -------
        object, list
            Futures of all tasks, or the results.
        """
        for _ in range(ALLOWED_DEATHS + 1):
            try:
                with cancelling(self.client) as started:
                    answer = submit(started)
                    wait_for(self.watch, started, set(self.workers))
                    if results is None:
                        return answer, started
                    return answer, gather(self.client, self.watch, results(answer, started), set(self.workers))
            except WorkerLost as error:
                lost = error
                self.repair()
        raise too_many_deaths(lost)

    def repair(self):
        """Make the chunks again that nobody holds, on the workers there are now."""
        self._make(self._lost())

    def settle(self, sizes, most=None, uneven=UNEVEN):
        """Make lost chunks again and move others, so that no worker holds much more than its share.

        Parameters
        ----------
        sizes : list of int
            Of the chunks, such as their rows.
        most : callable of (address, cluster_check.Worker, size), optional
            What a worker that holds so much of it may hold, in that unit.
        uneven : float, default 1.3
            Times its share that a worker may hold before chunks are moved.

        Returns
        -------
        dict of str to list of int
            The numbers of the chunks that each worker holds.

        Raises
        ------
        NoRoom
            If the workers that are there may not hold all chunks.
        """
        deaths, limits = 0, {}
        while True:
            self.workers = check_cluster(self.client, leave_out=True)
            holders = self.client.who_has(self.futures)
            held, lost = {address: [] for address in self.workers}, []
            for i, future in enumerate(self.futures):
                homes = [a for a in holders.get(future.key) or () if a in held]
                held[min(homes)].append(i) if homes else lost.append(i)
            threads = {address: worker.n_threads for address, worker in self.workers.items()}
            load = {address: sum(sizes[i] for i in numbers) for address, numbers in held.items()}
            for address, worker in self.workers.items() if most is not None else ():
                # Once each: what is put there from now on is not in the memory that was last heard of.
                limits.setdefault(address, most(address, worker, load[address]))
            homes, moves = assign(held, lost, threads, sizes, limits, uneven)
            if not lost and not moves:
                return {address: numbers for address, numbers in held.items() if numbers}
            try:
                self.client.cancel([self.futures[i] for i in lost], force=True)
                self._make(homes, elsewhere=False)
                self._move(moves)
            except WorkerLost as error:
                deaths += 1
                if deaths > ALLOWED_DEATHS:
                    raise too_many_deaths(error) from None

    def _move(self, moves):
        """Send chunks to other workers, or make them again there where they are files."""
        with cancelling(self.client) as started:
            moved = []
            for address, numbers in moves.items():
                movable = [i for i in numbers if _keeps_in_memory(self._recipes[i][2])]
                for i in movable:
                    key = f"{OURS}moved-{uuid.uuid4().hex}"
                    moved.append((i, self.client.submit(itself, self.futures[i], key=key, workers=[address])))
                rest = [i for i in numbers if i not in movable]
                moved += zip(rest, compute_on(self.client, address, self._delayed(rest)) if rest else ())
            started += [future for _, future in moved]
            wait_for(self.watch, started, set(self.workers))
            raise_first(started)
        for i, future in moved:
            self.futures[i] = future

    def release(self):
        """Let go of all chunks."""
        for future in self.futures:
            future.release()
        self.futures = []

    def _make(self, homes, *, elsewhere=True):
        """Compute chunks where ``homes`` (numbers by address) says; those that a death interrupts, elsewhere.

        Without ``elsewhere`` a death is raised as `WorkerLost`.
        """
        for _ in range(ALLOWED_DEATHS + 1):
            with cancelling(self.client) as started:
                for address, numbers in homes.items():
                    new = compute_on(self.client, address, self._delayed(numbers))
                    started += new
                    for i, future in zip(numbers, new):
                        self.futures[i] = future
                try:
                    wait_for(self.watch, started, set(homes) - {None})
                    lost = None
                except WorkerLost as error:
                    lost = error
                raise_first(started)
            if lost is None:
                return
            if not elsewhere:
                raise lost
            homes = self._lost()
        raise too_many_deaths(lost)

    def _delayed(self, numbers):
        """Return the recipes of some chunks as Delayed objects."""
        found = []
        for sources, group in itertools.groupby(numbers, key=lambda i: self._recipes[i][0]):
            recipes = [self._recipes[i] for i in group]
            steps = [functools.partial(apply_steps, steps=steps) for _, _, steps in recipes]
            found += sources.delayed("chunk", [k for _, k, _ in recipes], steps)
        return found

    def _lost(self):
        """Cancel the chunks that nobody holds; return where to make them again."""
        self.workers = check_cluster(self.client, leave_out=True)
        holders = self.client.who_has(self.futures)
        lost = [i for i, future in enumerate(self.futures) if not holders.get(future.key)]
        self.client.cancel([self.futures[i] for i in lost], force=True)
        return _ranges(lost, self.workers)


def _keeps_in_memory(steps):
    """Tell whether what steps of a recipe make lies in memory: the last of them that says so decides."""
    for step in reversed(steps):
        if isinstance(step, ReplaceRows):
            return not step.to_files
        if step is itself or step is MappedChunk:
            return step is itself
    return False


def assign(held, lost, threads, sizes, limits=None, most=UNEVEN):
    """Plan where lost chunks are made again, and which ones move.

    Parameters
    ----------
    held : dict of str to list of int
        Chunk numbers by worker.
    lost : list of int
        Those that nobody holds.
    threads : dict of str to int
        By worker: a worker's share of the rows is in proportion.
    sizes : list of int
        Of all chunks.
    limits : dict of str to float, optional
        What a worker may hold.
    most : float, default 1.3
        Times its share that a worker may hold before something is moved.

    Returns
    -------
    homes, moves : dict of str to list of int
        Chunk numbers by worker.

    Raises
    ------
    NoRoom
        If there is no room for some chunk.

    Examples
    --------
    >>> assign({"a": [0, 1], "b": [4, 5], "c": []}, [2, 3], {"a": 1, "b": 1, "c": 1}, [10] * 6)
    ({'c': [2, 3]}, {})
    """
    total = sum(sizes)
    share = {a: max(total * n / sum(threads.values()), 1e-9) for a, n in threads.items()}
    load = {a: sum(sizes[i] for i in numbers) for a, numbers in held.items()}
    room = {a: (limits or {}).get(a, np.inf) for a in share}
    homes, moves, held = {}, {}, {a: sorted(numbers) for a, numbers in held.items()}
    home = None
    for i in sorted(lost):
        # Neighbours stay together as long as their worker has less than its share.
        if home is None or load[home] + sizes[i] / 2 > share[home] or load[home] + sizes[i] > room[home]:
            fit = [a for a in share if load[a] + sizes[i] <= room[a]]
            if not fit:
                raise NoRoom(total, len(share))
            home = min(fit, key=lambda a: (load[a] / share[a], a))
        homes.setdefault(home, []).append(i)
        load[home] += sizes[i]
    while True:
        full, empty = (pick(load, key=lambda a: (load[a] / share[a], a)) for pick in (max, min))
        movable = [i for i in held[full] if load[empty] + sizes[i] <= room[empty]]
        if load[full] <= most * share[full] or not movable:
            return homes, moves
        i = movable[-1] if held[empty] and held[empty][0] > movable[-1] else movable[0]
        if (load[empty] + sizes[i]) / share[empty] >= load[full] / share[full]:
            return homes, moves
        held[full].remove(i)
        load[full], load[empty] = load[full] - sizes[i], load[empty] + sizes[i]
        moves.setdefault(empty, []).append(i)


def compute_on(client, address, chunks):
    """Start computing chunks on one worker (None: on any) and what several chunks share wherever Dask likes.

    Were the latter pinned as well, they could not be made again once that worker has died: they keep their keys.
    """
    import dask

    if address is None:
        return client.compute(chunks)
    prefix = OURS

    def workers(key):  # the scheduler calls it, perhaps without daskdml: a local function travels by value
        return [address] if isinstance(key, tuple) and str(key[0]).startswith(prefix) else []

    with dask.annotate(workers=workers):
        return client.compute(chunks)


def _ranges(numbers, workers):
    """Return the numbers of chunks by worker: contiguous ranges in proportion to the workers' threads."""
    threads = np.array([0, *[worker.n_threads for worker in workers.values()]])
    edges = np.round(np.cumsum(threads) / threads.sum() * len(numbers)).astype(int)
    return {address: list(numbers[a:b]) for address, a, b in zip(workers, edges[:-1], edges[1:]) if b > a}


def sets_of(held, workers, chunk_bytes, share):
    """Cut the chunks that each worker holds into sets, one per task.

    Parameters
    ----------
    held : dict of str to list of int
        Chunk numbers by worker.
    workers : dict of str to cluster_check.Worker
    chunk_bytes : int
        Memory that one chunk takes as the argument of a task.
    share : float
        Of a worker's memory that its running tasks may bring back from disk.

    Returns
    -------
    list of (str, list of int)
        In the order of their first chunk; at least as many per worker as it has threads.
    """
    sets = []
    for address, numbers in held.items():
        worker = workers.get(address) or next(iter(workers.values()))
        bound = max(1.0, share * worker.memory_limit / worker.n_threads)
        n_sets = max(worker.n_threads, int(np.ceil(len(numbers) * chunk_bytes / bound)))
        pieces = np.array_split(sorted(numbers), min(n_sets, len(numbers)))
        sets += [(address, piece.tolist()) for piece in pieces]
    return sorted(sets, key=lambda item: item[1][0])
