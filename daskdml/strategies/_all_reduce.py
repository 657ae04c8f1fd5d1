"""Every rank takes the same step, along the sum of all gradients."""

import numbers

from sklearn.base import BaseEstimator

from daskdml.utils.params import Interval, Options, check_params


class AllReduce(BaseEstimator):
    """Add up the gradients of all ranks before every step: the model is the one of a single process, bit for bit.

    Parameters
    ----------
    topology : {"auto", "central", "tree", "ring"}, default "auto"
        Of sums that are compressed; exact ones go along the fixed tree of micro-batches, whatever the ranks.
    accumulate : int, default 1
        Batches of which gradients are added up before a step: a batch of ``accumulate * batch_size`` rows in the memory
        of one of ``batch_size``.

    Notes
    -----
    A gradient a step and rank, through a tree, or by slices where it is long: ``2 (P - 1) / P`` of its bytes.

    Examples
    --------
    >>> AllReduce(accumulate=4)
    AllReduce(accumulate=4)
    """

    _constraints = {
        "topology": [Options({"auto", "central", "tree", "ring"})],
        "accumulate": [Interval(numbers.Integral, 1, None, "left")],
    }

    def __init__(self, topology="auto", *, accumulate=1):
        self.topology = topology
        self.accumulate = accumulate

    def check(self, solver):
        """Raise for parameters that are none."""
        check_params(self, self._constraints)

    @property
    def batches_per_update(self):
        """Batches of one step."""
        return self.accumulate

    def advance(self, replica, comm, first, stop):
        """Train on some batches."""
        for begin in range(first, stop, self.accumulate):
            fold = replica.gradients(begin, min(begin + self.accumulate, stop))
            comm.check()
            if comm.size == 1:
                total = fold.result()
            else:
                total = comm.allreduce_blocks(fold, n_blocks=fold.n_blocks, like=replica.like)
            replica.update(total)
