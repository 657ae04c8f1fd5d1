"""Bytes of one all-reduce of a layer's gradient through each codec, and of whole steps, beside a ring without one."""

import numpy as np

from benchmarks.report import Sheet
from daskdml.compress import FP16, QSGD, Identity, OneBit, PowerSGD, RandomK, SignificantRows, TopK
from daskdml.runtime.spmd import Program
from daskdml.strategies import AllReduce

SHAPE = 784, 128
RANKS = (2, 8, 64)
# Error feedback around a codec sends as many bytes.
CODECS = (
    Identity(), FP16(), QSGD(8), QSGD(4), QSGD(2), OneBit(), TopK(0.01), TopK(0.001), RandomK(0.01), PowerSGD(1),
    PowerSGD(2), PowerSGD(4), SignificantRows(1.0),
)  # fmt: skip


class SumOfCodes(Program):
    """Add up one gradient of each rank through a codec; the state is the bytes that each of them sent for it."""

    def __init__(self, codec, topology, shape=SHAPE):
        self.codec, self.topology, self.shape = codec, topology, shape

    def fingerprint(self):
        return f"{self.codec} {self.topology} {self.shape}"

    def init(self, meta):
        return None

    def step(self, state, local, comm):
        before = comm.bytes_sent
        comm.allreduce_codes(gradient_of(comm.rank, self.shape), self.codec, topology=self.topology)
        sent = comm.bytes_sent - before
        return np.concatenate(comm.allgather(np.array([sent], np.float64)))

    def done(self, state):
        return state is not None


def gradient_of(rank, shape=SHAPE):
    """Return the gradient that a rank is said to have: normal numbers."""
    return np.random.default_rng([rank, 3]).standard_normal(shape, dtype=np.float32)


def most_bytes(codec, n_ranks, topology="ring", shape=SHAPE):
    """Return the bytes that the rank that sends most does for one sum over simulated ranks.

    Parameters
    ----------
    codec : codec of daskdml.compress
    n_ranks : int
    topology : str or None, default "ring"
        Of codecs whose codes are added up; None leaves the choice to the library.
    shape : tuple of int

    Returns
    -------
    int
    """
    from daskdml.testing import SimulatedCluster

    sent = SimulatedCluster(n_ranks, rows_per_block=1).run(SumOfCodes(codec, topology, shape), np.zeros((n_ranks, 1)))
    return int(sent.max())


def ring_bytes(n_ranks, shape=SHAPE):
    """Return the bytes that a rank sends in a ring without compression: 2 (P - 1) / P of the float32 numbers."""
    return 2 * (n_ranks - 1) / n_ranks * int(np.prod(shape)) * 4


def payload_gain(codec, shape=SHAPE):
    """Return how many times fewer bytes the packet of one gradient has."""
    return int(np.prod(shape)) * 4 / codec.encode(gradient_of(0, shape), codec.start(0))[0].nbytes


def run(rows=None, full=False):
    """Bytes of the rank that sends most, and how many times fewer than in an exact ring; the payload's gain beside it.

    Parameters
    ----------
    rows : int, optional
        Of the gradient, instead of 784.
    full : bool, default False
        64 ranks too.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("codec_bytes", at_size=rows is None)
    shape = (rows or SHAPE[0], SHAPE[1])
    for n_ranks in RANKS if full else RANKS[:-1]:
        work = f"all-reduce of {shape[0]} x {shape[1]} float32, {n_ranks} simulated ranks"
        ring = ring_bytes(n_ranks, shape)
        sheet.add(work, "exact ring", "bytes of the rank that sends most", ring, note="2 (P - 1) / P of the gradient")
        for codec in CODECS:
            goes_round = codec.reduce_kind != "gather"
            sent = most_bytes(codec, n_ranks, "ring", shape)
            note = "every rank gets the packets of all"
            if goes_round:
                chosen = most_bytes(codec, n_ranks, None, shape)
                note = f"in a ring; by the topology that is chosen here {chosen:,}"
            gain = payload_gain(codec, shape)
            must = ("<=", ring * 1.001) if codec.exact else None
            sheet.add(work, f"daskdml, {codec}", "bytes of the rank that sends most", sent, must=must,
                      quality=("payload's gain", gain), note=note)  # fmt: skip
            sheet.add(work, f"daskdml, {codec}", "times fewer bytes than an exact ring", ring / sent,
                      quality=("payload's gain", gain))  # fmt: skip
        _steps(sheet, n_ranks)
    return sheet


def _steps(sheet, n_ranks):
    """Add the rows of whole networks: all that a step of a fit sends, intercepts and the sum of losses too."""
    n_params = SHAPE[0] * SHAPE[1] + SHAPE[1] * 10 + SHAPE[1] + 10
    work = f"a step of {SHAPE[0]}-{SHAPE[1]}(relu)-10, {n_ranks} simulated ranks"
    for codec, least in ((FP16(), 1.95), (PowerSGD(2), 40.0)):
        for topology in ("ring", "auto"):
            sent = step_bytes(AllReduce(topology, compression=codec), n_ranks)
            must = (">=", least)
            sheet.add(work, f"daskdml, {codec}, topology={topology!r}", "times fewer bytes than an exact ring",
                      ring_bytes(n_ranks, (n_params,)) / sent, must=must, note=f"{sent:,.0f} bytes")  # fmt: skip


def step_bytes(strategy, n_ranks):
    """Return the bytes of the rank that sends most in a step of a fit: the difference of six steps and two."""
    import warnings

    from daskdml.neural_network import MLPClassifier
    from daskdml.testing import SimulatedCluster

    n, sent = max(4 * n_ranks, 64), []
    X, y = np.random.default_rng(0).standard_normal((n, SHAPE[0]), dtype=np.float32), np.arange(n) % 10
    for n_steps in (2, 6):
        cluster = SimulatedCluster(n_ranks, rows_per_block=n // n_ranks)
        model = MLPClassifier(
            SHAPE[1:], solver="sgd", batch_size=n, max_iter=n_steps, tol=0.0, n_iter_no_change=9, random_state=0,
            strategy=strategy,
        )  # fmt: skip
        with warnings.catch_warnings(action="ignore"):
            cluster.fit(model, X, y)
        sent.append(cluster.report.bytes_sent)
    return max(n_bytes - sent[0].get(rank, 0) for rank, n_bytes in sent[1].items()) / 4
