"""All ranks of a group in one process and one thread: the smallest transport, and the one that tests begin with."""

import random
from collections import defaultdict, deque

from daskdml.comm.endpoint import Endpoint
from daskdml.comm.moves import Pass, Recv, Send


def exchange(ranks, codec=None, seed=None):
    """Carry out the moves of all ranks until each has returned.

    Parameters
    ----------
    ranks : list of generators
        One per rank, each yielding moves.
    codec : codec, optional
        Makes packets; None sends arrays as they are.
    seed : int, optional
        Draws whose turn it is; None lets each rank go on as far as it can, in order.

    Returns
    -------
    results : list
        What each generator returned.
    sent : list of int
        Bytes that each rank sent.

    Raises
    ------
    RuntimeError
        If all ranks that have not returned wait for each other, or a packet was never received.

    Examples
    --------
    >>> from daskdml.comm import allreduce
    >>> results, sent = exchange([allreduce(rank, 3, np.full(2, 10.0**rank)) for rank in range(3)])
    >>> results[2], sent
    (array([111., 111.]), [32, 16, 16])
    """
    group = _Group(ranks, codec)
    draw = random.Random(seed)
    ready = list(range(len(ranks)))
    while ready:
        rank = ready[draw.randrange(len(ready))] if seed is not None else ready[0]
        if group.advance(rank, 1 if seed is not None else None):
            continue
        ready = group.ready()
    group.check()
    return group.results, group.sent


class _Group:
    def __init__(self, ranks, codec):
        self.ranks = ranks
        self.endpoints = [Endpoint(codec) for _ in ranks]
        self.mail = defaultdict(deque)
        self.answers = [None] * len(ranks)
        self.waits = [None] * len(ranks)
        self.done = [False] * len(ranks)
        self.results = [None] * len(ranks)
        self.sent = [0] * len(ranks)

    def ready(self):
        """Return the ranks that can go on."""
        return [
            r for r in range(len(self.ranks))
            if not self.done[r] and (self.waits[r] is None or self.mail[self.waits[r], r])
        ]  # fmt: skip

    def advance(self, rank, most):
        """Carry out at most ``most`` moves of a rank; return whether it could go on at once."""
        moves = 0
        while most is None or moves < most:
            if self.waits[rank] is not None:
                if not self.mail[self.waits[rank], rank]:
                    return False
                self.answers[rank], self.waits[rank] = self.mail[self.waits[rank], rank].popleft(), None
            try:
                move = self.ranks[rank].send(self.answers[rank])
            except StopIteration as end:
                self.done[rank], self.results[rank] = True, end.value
                return False
            self.answers[rank] = self.carry_out(rank, move)
            moves += 1
        return False

    def carry_out(self, rank, move):
        if isinstance(move, Recv):
            self.waits[rank] = move.source
            return None
        answer = self.endpoints[rank](move)
        if not isinstance(move, (Send, Pass)):
            return answer
        self.sent[rank] += answer.nbytes
        self.mail[rank, move.to].append(answer)
        return None

    def check(self):
        stuck = [f"rank {r} waits for rank {self.waits[r]}" for r, done in enumerate(self.done) if not done]
        if stuck:
            raise RuntimeError("No rank can go on: " + ", ".join(stuck) + ".")
        left = [f"{len(packets)} from rank {a} to rank {b}" for (a, b), packets in sorted(self.mail.items()) if packets]
        if left:
            raise RuntimeError("Packets that nobody received: " + ", ".join(left) + ".")
