"""The model is cut into shards, and every rank holds some of them."""

import numbers
import warnings

from sklearn.base import BaseEstimator

from daskdml.utils.batches import AUTO_BATCH, MICRO_ROWS
from daskdml.utils.params import Interval, Options, check_params


class Hybrid(BaseEstimator):
    """Cut the model into shards that a few ranks hold between them, and let groups of such ranks share the rows.

    Layers of a network are cut in pairs, the first of a pair by its neurons, the second by the same neurons as inputs;
    a layer that is left over at the beginning, such as that of a linear model, by features. Inside a group the outputs
    of layers cut by inputs are added up over shards; across groups gradients are, shard by shard.

    Parameters
    ----------
    ranks_per_model : int, default 2
        Ranks of a group, about: ranks are dealt evenly to as many groups as that makes, and to more of them where there
        would be more ranks than shards. A batch has work for as many groups as it has micro-batches of some 256 rows.
    n_shards : int or "auto", default "auto"
        Bits depend on it, and not on how many ranks hold the shards. "auto" has at least 64 neurons (features of a
        linear model) in each, but 8 shards at least and 64 at most.
    accumulate : int, default 1
        Batches of which gradients are added up before a step.

    Notes
    -----
    A rank holds its shards' parameters and moments (the parameters twice with early stopping), the gradient of a shard
    per thread and level of the tree over micro-batches, the rows of some batches, and what its shards' neurons give for
    one batch. For every batch of n rows and every pair of layers it sends some ``2 n h`` numbers forwards and as many
    backwards, but none back to the features, h being the outputs of the pair; and the batch's rows travel to the ranks
    that do not hold them (of one group and a model whose first layer is cut by features only columns do, once).

    Each shard is put down on two workers, in files, every now and then (5 % of the time at most): when one dies the
    others go on from there, to the same bits. Where two die at once whose copies are each other's, training begins
    anew and the report counts it; ``config_context(checkpoint=...)`` has them written to a folder that all workers must
    see, shard by shard, and a later process goes on from them. A warm start, and `partial_fit` after the first call,
    send the whole model to every worker, from where they take their shards. M. Shoeybi et al., "Megatron-LM: training
    multi-billion parameter language models using model parallelism", 2019.

    Examples
    --------
    >>> Hybrid(ranks_per_model=4).n_groups(size=8, n_shards=16)
    2
    """

    _constraints = {
        "ranks_per_model": [Interval(numbers.Integral, 1, None)],
        "n_shards": [Interval(numbers.Integral, 1, None), Options({"auto"})],
        "accumulate": [Interval(numbers.Integral, 1, None)],
    }

    is_sharded = True
    batches_per_update = 1
    is_local = is_served = spreads = remembers = guard = False

    def __init__(self, ranks_per_model=2, *, n_shards="auto", accumulate=1):
        self.ranks_per_model = ranks_per_model
        self.n_shards = n_shards
        self.accumulate = accumulate

    def check(self, estimator):
        """Refuse parameters that are none.

        Parameters
        ----------
        estimator : estimator
            That it is the strategy of.
        """
        names = self.get_params(deep=False)
        check_params(self, {name: allowed for name, allowed in self._constraints.items() if name in names})
        batch_size = getattr(estimator, "batch_size", "auto")
        is_auto = batch_size == "auto"  # how many rows that is nobody knows before the data, but not how many at most
        rows = (AUTO_BATCH if is_auto else batch_size) * self.accumulate
        if "ranks_per_model" in names and rows <= MICRO_ROWS:
            warnings.warn(
                f"Hybrid with batch_size={batch_size!r}: a step of {'at most ' if is_auto else ''}{rows} rows has work "
                f"for one group of ranks, the others wait; give each group some {MICRO_ROWS} rows of a batch.",
                stacklevel=5,
            )  # fmt: skip

    def loosened(self, n_numbers):
        """Return a strategy that leaves out less: None, for nothing is left out.

        Parameters
        ----------
        n_numbers : int
            Coefficients of the model.

        Returns
        -------
        None
        """
        return None

    def manner(self, n_ranks):
        """Say in a few words how many ranks do what.

        Parameters
        ----------
        n_ranks : int

        Returns
        -------
        str
        """
        return f"{n_ranks} ranks, of which some {self.ranks_per_model} at a time hold the model between them"

    def n_groups(self, size, n_shards):
        """Return how many groups of ranks hold the model, each all of it.

        Parameters
        ----------
        size : int
            Ranks.
        n_shards : int

        Returns
        -------
        int
        """
        return max(size // self.ranks_per_model, -(-size // n_shards), 1)

    def advance(self, replica, comm, first, stop):
        """Train on some batches.

        Parameters
        ----------
        replica : daskdml.training.sharded.ShardedReplica
        comm : daskdml.runtime.spmd.Comm
        first, stop : int
            Batches ``first`` to ``stop - 1`` of the epoch.
        """
        step = replica.n_merged
        for begin in range(first, stop, step):
            replica.step_along(comm, begin, min(begin + step, stop), stop, step)
        replica.settle(comm)


class ModelParallel(Hybrid):
    """Cut the model into shards that all ranks hold between them; every rank works on all rows.

    For models that are too large for one worker; see `Hybrid`, of which this is the case of one group. One where there
    are at least as many shards as ranks, that is.

    Parameters
    ----------
    n_shards : int or "auto", default "auto"
    accumulate : int, default 1
        See `Hybrid`.

    Examples
    --------
    >>> ModelParallel().n_groups(size=8, n_shards=16)
    1
    """

    def __init__(self, *, n_shards="auto", accumulate=1):
        self.n_shards = n_shards
        self.accumulate = accumulate

    def manner(self, n_ranks):
        """Say in a few words how many ranks do what.

        Parameters
        ----------
        n_ranks : int

        Returns
        -------
        str
        """
        return f"{n_ranks} ranks hold the model between them"

    def n_groups(self, size, n_shards):
        """Return how many groups of ranks hold the model, each all of it: one, or as few as there are shards for.

        Parameters
        ----------
        size : int
            Ranks.
        n_shards : int

        Returns
        -------
        int
        """
        return -(-size // n_shards)
