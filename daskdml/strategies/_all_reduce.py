"""Every rank takes the same step, along the sum of all gradients."""

import functools
import numbers
import warnings

import numpy as np
from sklearn.base import BaseEstimator, clone

from daskdml.compress import FP16, QSGD, ErrorFeedback, OneBit, RandomK, SignificantRows, TopK
from daskdml.compress.codec import Codec
from daskdml.utils.params import Interval, Options, check_params

MEASURED = "means of three seeds of `python -m benchmarks codecs --full`"
MOST_SIGNIFICANT = 2.0  # measured: 1, which is harmless, and 3
NARROW = 1 << 16  # `TopK` sends two bytes for the place of a number of no more than so many, four of more


class AllReduce(BaseEstimator):
    """Add up the gradients of all ranks before every step.

    Without compression the model is the one of a single process, bit for bit.

    Parameters
    ----------
    topology : {"auto", "central", "tree", "ring"}, default "auto"
        Which way gradients go, or what is made of them: all to rank 0 and back, up and down a tree of ranks, or around
        a ring. "auto" chooses by the bytes and the number of ranks; with a codec, the way on which the rank that sends
        most sends the fewest bytes: as few as around a ring. Bits depend on it with "sum" and "linear" codecs alone.
        Sums of intercepts beside a codec go the quickest way.
    compression : codec of `daskdml.compress` or None, default None
        Makes what ranks send of the gradients of coefficients; those of intercepts are sent as they are.
    error_feedback : bool, default True
        Whether what a biased codec leaves out is added to the next gradient; see `ErrorFeedback`. "sum" and unbiased
        codecs leave nothing out for long, and do without.
    accumulate : int, default 1
        Batches of which gradients are added up before a step: those of the batch of ``accumulate * batch_size`` rows,
        to the bit, for gradients are computed some 256 rows at a time whatever the batch.
    significance : float or None, default None
        Rows of coefficients wait until their accumulated gradient is at least so many times as large as the mean row's;
        see `SignificantRows`. Not beside ``compression``.
    max_bytes_per_round : int or None, default None
        A rank makes a packet of at most so many bytes of a gradient, beside the intercepts, but of one number at least:
        the largest numbers, and the rest waits for the next round. Every rank gets the packets of all. Not beside
        ``compression`` or ``significance``.
    exact_updates : int, default 0
        Before so many steps the whole gradient is sent, whatever leaves something out afterwards. With Adam, of which
        the second moments begin with these, some 50 cost less than the codec does without.
    guard : bool, default False
        Watch the loss: where an epoch's is half as large again as the best one, training goes back to that one, and
        where two epochs in a row are no better, on; with more bytes from then on in both cases. ``fit_report_.notes``
        says what was done, and why.

    Notes
    -----
    Without compression, by "auto", a rank sends some ``2 (P - 1) / P`` times the bytes of a gradient of 256 kB or more,
    and up to four gradients of a smaller one, to the ranks below it in the tree. What is left out waits in the memory
    of its rank; when a worker dies the new group begins without any, and the report counts how often
    (``counts["memories lost"]``), and so does each call of ``partial_fit``. With compression the bits depend on the
    number of ranks.

    Examples
    --------
    >>> from daskdml.compress import TopK
    >>> AllReduce(compression=TopK(ratio=0.01)).get_params()["compression__ratio"]
    0.01
    """

    _constraints = {
        "topology": [Options({"auto", "central", "tree", "ring"})],
        "compression": [Codec, None],
        "error_feedback": ["boolean"],
        "accumulate": [Interval(numbers.Integral, 1, None)],
        "significance": [Interval(numbers.Real, 0, None, "neither"), None],
        "max_bytes_per_round": [Interval(numbers.Integral, 1, None), None],
        "exact_updates": [Interval(numbers.Integral, 0, None)],
        "guard": ["boolean"],
    }

    is_local = is_sharded = is_served = False
    sends_gradients = True
    batches_per_update = parts_per_rank = 1

    @property
    def spreads(self):
        """Whether each rank is to have a part of every batch: what a codec leaves out depends on the ranks anyway."""
        codec = self.codec(1)
        return codec is not None and codec.reduce_kind != "sum"

    def __init__(
        self, topology="auto", *, compression=None, error_feedback=True, accumulate=1, significance=None,
        max_bytes_per_round=None, exact_updates=0, guard=False,
    ):  # fmt: skip
        self.topology = topology
        self.compression = compression
        self.error_feedback = error_feedback
        self.accumulate = accumulate
        self.significance = significance
        self.max_bytes_per_round = max_bytes_per_round
        self.exact_updates = exact_updates
        self.guard = guard

    def manner(self, n_ranks):
        """Say in a few words how many ranks do what.

        Parameters
        ----------
        n_ranks : int

        Returns
        -------
        str
        """
        return f"{n_ranks} replicas in sync"

    def loosened(self, n_numbers):
        """Return a strategy that leaves out less, or None where nothing is left out.

        Parameters
        ----------
        n_numbers : int
            Coefficients of the model.

        Returns
        -------
        AllReduce or None
        """
        changed = clone(self)
        if self.significance is not None:
            changed.significance = self.significance / 4 if self.significance > 0.1 else None
        elif self.max_bytes_per_round is not None:
            if self._most_numbers(n_numbers, 8) >= n_numbers:
                return None
            changed.max_bytes_per_round = 4 * self.max_bytes_per_round
        elif self.compression is None or self.compression.exact:
            return None
        else:
            changed.compression = self.compression.finer()
        return changed

    def check(self, estimator):
        """Refuse what cannot be right, and warn of what is known to cost accuracy.

        Parameters
        ----------
        estimator : estimator
            That it is the strategy of.
        """
        check_params(self, self._constraints)
        given = [name for name in ("compression", "significance", "max_bytes_per_round") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(
                f"AllReduce sends less in one way at a time: {' and '.join(given)} were given; leave one of them."
            )
        if isinstance(self.compression, ErrorFeedback):
            raise ValueError(
                "compression=ErrorFeedback(...) would add what was left out twice: give the codec inside it, and "
                "error_feedback=True."
            )
        codec = self.codec(1)
        if codec is None:
            return
        codec.start(0)
        solver, momentum = getattr(estimator, "solver", "sgd"), getattr(estimator, "momentum", 0.0)
        name = type(self.compression).__name__ if self.compression is not None else given[0]
        # What rounds each number by a hundredth or less; of fewer bits nothing is measured.
        rounds = codec.exact or isinstance(codec, FP16) or (isinstance(codec, QSGD) and codec.bits >= 8)
        # Measured, too: nothing over 31 seeds of linear digits; see docs/guide/networks.md.
        begins_well = isinstance(self.compression, OneBit) and self.exact_updates >= 50
        if solver == "adam" and not rounds and not begins_well:
            warnings.warn(
                f"{name} in front of solver='adam' may cost accuracy: its second moments see what is sent now and "
                "then. On digits RandomK(0.01) cost 1.9 to 2.8 points, significance=3 0.4 to 1.4, TopK(0.01) 0.6 to "
                f"0.8, PowerSGD(2) and OneBit up to 0.4, FP16 and QSGD of 8 bits none ({MEASURED}). Use those two, "
                "OneBit with exact_updates=50, or solver='sgd'.",
                stacklevel=5,
            )  # fmt: skip
        if solver != "adam" and self.significance is not None and self.significance > MOST_SIGNIFICANT:
            warnings.warn(
                f"significance={self.significance} lets most rows wait for long: with 3 digits cost up to 1.3 points "
                f"after 40 epochs, and 3.2 to 4.9 after 20 ({MEASURED}). With 1 they cost none; or train longer.",
                stacklevel=5,
            )  # fmt: skip
        if isinstance(self.compression, RandomK) and solver == "sgd" and momentum > 0:
            warnings.warn(
                f"RandomK with momentum={momentum}: with 0.9 a network on digits diverged (accuracy 0.30 instead of "
                f"0.97, {MEASURED}); use momentum=0 and a smaller rate, or TopK.",
                stacklevel=5,
            )  # fmt: skip
        if not self.error_feedback and not codec.unbiased and codec.reduce_kind != "sum":
            warnings.warn(
                f"Without error feedback what {name} leaves out is lost for good (3.7 to 4.3 points of accuracy with "
                f"TopK(0.01) and solver='sgd', {MEASURED}); set error_feedback=True.",
                stacklevel=5,
            )  # fmt: skip

    @property
    def remembers(self):
        """Whether ranks remember what was not sent."""
        return isinstance(self.codec(1), ErrorFeedback)

    def codec(self, n_numbers, n_bytes=4):
        """Return what makes packets of gradients, with error feedback where it is asked for and needed.

        Parameters
        ----------
        n_numbers : int
            Coefficients of the model.
        n_bytes : int, default 4
            Of a number.

        Returns
        -------
        codec of `daskdml.compress`, or None
            None adds up gradients as they are.
        """
        codec, feeds_back = self.compression, self.error_feedback
        if self.significance is not None:
            codec = SignificantRows(self.significance)
        elif self.max_bytes_per_round is not None:
            # Half a number less: a ratio is rounded up.
            codec = TopK(ratio=min((max(self._most_numbers(n_numbers, n_bytes), 1) - 0.5) / n_numbers, 1.0))
        if codec is None or codec.exact or codec.unbiased or codec.reduce_kind == "sum" or not feeds_back:
            return codec
        return ErrorFeedback(codec)

    def _most_numbers(self, n_numbers, n_bytes):
        """Return how many numbers of ``n_bytes`` a round may send, with their places."""
        return self.max_bytes_per_round // (n_bytes + (2 if n_numbers <= NARROW else 4))

    def advance(self, replica, comm, first, stop):
        """Train on some batches.

        Parameters
        ----------
        replica : daskdml.training.replica.Replica
        comm : daskdml.runtime.spmd.Comm
        first, stop : int
            Batches ``first`` to ``stop - 1`` of the epoch.
        """
        codec = self.codec(replica.n_decayed, replica.like.itemsize) if comm.size > 1 else None
        step, topology = replica.n_merged, None if self.topology == "auto" else self.topology
        for begin in range(first, stop, step):
            end = min(begin + step, stop)
            fold = replica.gradients(begin, end)
            comm.worked(functools.partial(replica.n_rows, begin, end))
            comm.check()
            if comm.size == 1:
                total = fold.result()
            elif codec is None or replica.n_updates < self.exact_updates:
                total = comm.allreduce_blocks(fold, n_blocks=fold.n_blocks, like=replica.like, topology=topology)
            else:
                total = self._sum_of_codes(replica.sum_of(fold), codec, replica, comm, topology)
            replica.update(total, begin, end)

    def _sum_of_codes(self, own, codec, replica, comm, topology):
        """Return the sum over ranks of what a codec makes of their gradients; what stands behind them is exact."""
        n = replica.n_decayed
        total = np.empty_like(own)
        total[n:] = comm.allreduce(own[n:])
        weight = total[-2]
        if not weight > 0:
            total[:n] = 0
            return total
        layers = replica.layers if codec.by_layer else [(slice(0, n), (n,))]
        states = replica.memory.setdefault("codecs", {})
        for i, (part, shape) in enumerate(layers):
            if i not in states:
                # Linear codes are added up, so all ranks draw alike; others should not, or what they round off adds up.
                seed = (replica.n_updates << 32) + (i << 20)
                states[i] = codec.start(seed + (0 if codec.reduce_kind == "linear" else comm.rank))
            # Means, not sums: what waits must count as much in a batch of other weight.
            mean = (own[part] / weight).reshape(shape)
            found, states[i] = comm.allreduce_codes(mean, codec, states[i], topology)
            total[part] = found.reshape(-1) * weight
        return total
