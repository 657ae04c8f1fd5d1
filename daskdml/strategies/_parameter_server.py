"""Parameters lie in shards with all workers, who push gradients and read whenever they like."""

import numbers
import warnings

from sklearn.base import BaseEstimator, clone

from daskdml.compress import FP16, QSGD, ErrorFeedback
from daskdml.compress.codec import Codec
from daskdml.strategies._consistency import ASP, BSP, SSP
from daskdml.strategies._groups import GROUPS, group_of, groups_of
from daskdml.utils.params import Interval, Options, check_params

# With one part a batch a slow rank has all or nothing of it: in step 53 and not 90 % of the lost time came back.
PARTS = 4
MOST_MOMENTUM = 0.7  # with ASP, measured: 0.5 and 0.7 cost nothing
LOOSEST = 8  # clocks, of what comes after ASP where convergence suffers


class ParameterServer(BaseEstimator):
    """Let every rank push gradients of its rows to a server, and read parameters from it, at its own pace.

    A batch is split over the ranks. With B the weight of the batch's rows and W that of those in a push::

        BSP: when all have pushed, one step along the mean over the batch
        SSP, ASP: as soon as a push has come, W / B of a step along the mean over its rows

    With SSP and ASP B is what as many rows weigh in the mean: a batch of heavy rows is a longer step.

    Parameters
    ----------
    shards : int or "auto", default "auto"
        Into how many parts the parameters are cut; "auto" is four for each worker, or fewer lest they have less than
        4,096 numbers.
    replicas : int, default 1
        Copies of each shard on other workers: as many may die at once, and nothing that was acknowledged is lost.
    consistency : BSP, SSP, ASP or None, default None
        How far ranks may be ahead of each other; None is ``BSP()``.
    compression : codec of `daskdml.compress` or None, default None
        Makes what is pushed of the gradients of coefficients, of each shard's part for itself, with error feedback
        where it leaves something out; what is read is sent as it is.
    cache : bool, default True
        Whether a rank keeps what it has read, and is sent only the shards that have changed since. With ``sparse`` what
        a batch stores is read anew, for every push changes all shards.
    reads_ahead : bool or "auto", default "auto"
        Whether a rank asks for the parameters of its next step before it computes this one, as far as the consistency
        allows: with BSP it does not. They come while it computes, and are a clock older, which wants a smaller rate.
        "auto" does so with ASP, which waits for nobody then, and not with ``sparse``, where the rows of one batch
        store what those of the next one do.
    groups : int, "host" or None, default None
        Ranks in so many groups, or in one for each machine, that are in step: they add up their gradients, one of them
        pushes the sum, reads for all, and is what the consistency is about. Not with ``sparse``.
    moves_rows : bool, default True
        Whether a rank that took much longer for an epoch than the others gives them rows, so that all take as long: an
        epoch is of the same rows, each of them once, whoever has it. No worker takes more than half of the memory that
        it has left.
    record : bool, default False
        Whether ``fit_report_.order`` says in which order each shard took pushes in and answered reads: three numbers
        for each of them. Not beside ``moves_rows``, which looks at the clock.
    replay : dict or None, default None
        The order of an earlier fit, which had as many workers with the same rows, and of which no worker died: that one
        is followed, and makes the same bits.
    sparse : bool or "auto", default "auto"
        Whether a rank has only the coefficients that the rows of its batch store: it reads those, takes a step for each
        row, as models without a strategy do, and pushes by how much they have moved. For `SGDClassifier` and
        `SGDRegressor` on CSR rows; "auto" does so from 2**20 features on.
    guard : bool, default False
        Watch the loss as in `AllReduce`; with half the staleness from then on, ASP with ``SSP(8)``, and in the end in
        step. With ``sparse`` it goes on from where it is, for nobody has what an earlier epoch had learnt.
        ``fit_report_.notes`` says what was done, and why.

    Notes
    -----
    All ranks meet at the end of every epoch: that is when losses are added up and rows are scored. A rank reads all
    parameters before every step, and sends a gradient; every push goes on to ``replicas`` other workers. With one rank
    the model is that of a single process, bit for bit; with BSP it is to rounding, and the last bits depend on which
    rank has which rows, which ``moves_rows`` makes a matter of the clock; with SSP and ASP on who was when.
    ``fit_report_.histograms["staleness"]`` says how many pushes of others had come between what a rank read and its own
    push. What was acknowledged survives a death; the group that is formed then goes on from the batch of the rank that
    had come furthest, see `daskdml.Program.tables`. M. Li et al., "Scaling distributed machine learning with the
    parameter server", 2014.

    With ``sparse`` a batch costs a rank 12 bytes each way for each of the n coefficients that its rows store (a number
    of 32 bits, and a float64), 12 n more for a copy, and memory of 2 / P of the model on P workers; one rank takes
    scikit-learn's steps, several add up what one after the other would have moved a coefficient by. Checkpoints of it
    are of the ends of epochs, and workers write them shard by shard.

    Examples
    --------
    >>> from daskdml.strategies import SSP
    >>> ParameterServer(consistency=SSP(3)).get_params()["consistency__staleness"]
    3
    """

    _constraints = {
        "shards": [Options({"auto"}), Interval(numbers.Integral, 1, None)],
        "replicas": [Interval(numbers.Integral, 0, None)],
        "consistency": [BSP, SSP, ASP, None],
        "compression": [Codec, None],
        "cache": ["boolean"],
        "reads_ahead": ["boolean", Options({"auto"})],
        "groups": GROUPS,
        "moves_rows": ["boolean"],
        "record": ["boolean"],
        "replay": [dict, None],
        "sparse": ["boolean", Options({"auto"})],
        "guard": ["boolean"],
    }

    is_served = spreads = True
    is_local = is_sharded = False
    sends_gradients = True
    accumulate = batches_per_update = 1

    def __init__(
        self, shards="auto", *, replicas=1, consistency=None, compression=None, cache=True, reads_ahead="auto",
        groups=None, moves_rows=True, record=False, replay=None, sparse="auto", guard=False,
    ):  # fmt: skip
        self.shards = shards
        self.replicas = replicas
        self.consistency = consistency
        self.compression = compression
        self.cache = cache
        self.reads_ahead = reads_ahead
        self.groups = groups
        self.moves_rows = moves_rows
        self.record = record
        self.replay = replay
        self.sparse = sparse
        self.guard = guard

    @property
    def _rule(self):
        return BSP() if self.consistency is None else self.consistency

    @property
    def parts_per_rank(self):
        """Micro-batches of a batch that each rank is to have: where rows move, it has another number of them."""
        return PARTS if self.moves_rows else 1

    @property
    def bound(self):
        """Clocks that ranks may be apart, None if they may be any."""
        return self._rule.bound

    def asks_ahead(self, is_by_row):
        """Tell whether a rank is to ask for what its next step needs before it computes this one.

        Parameters
        ----------
        is_by_row : bool
            Whether ranks have only the coefficients that their rows store.

        Returns
        -------
        bool
        """
        return self.bound is None and not is_by_row if self.reads_ahead == "auto" else self.reads_ahead

    def is_by_row(self, is_large):
        """Tell whether ranks take a step a row, with the coefficients that their rows store.

        Parameters
        ----------
        is_large : bool
            Whether these are CSR rows of very many features.

        Returns
        -------
        bool
        """
        return is_large if self.sparse == "auto" else bool(self.sparse)

    @property
    def remembers(self):
        """Whether ranks remember what was not sent."""
        codec = self.compression
        return codec is not None and not (codec.exact or codec.unbiased or codec.reduce_kind == "sum")

    def manner(self, n_ranks):
        """Say in a few words how many ranks do what.

        Parameters
        ----------
        n_ranks : int

        Returns
        -------
        str
        """
        groups = {None: "", "host": " in groups, one a machine,", 1: " in a group"}.get(
            self.groups, f" in {self.groups} groups"
        )
        return f"{n_ranks} replicas{groups} with a parameter server, {self._rule}"

    def loosened(self, n_numbers):
        """Return a strategy of which ranks are less far apart, or None where they are in step.

        Parameters
        ----------
        n_numbers : int
            Coefficients of the model.

        Returns
        -------
        ParameterServer or None
        """
        bound = self._rule.bound
        if bound == 0:
            return None
        return clone(self).set_params(consistency=SSP(LOOSEST if bound is None else bound // 2))

    def group(self, comm):
        """Return the ranks that this one is in step with, itself among them; None if it is for itself.

        Parameters
        ----------
        comm : daskdml.runtime.spmd.Comm

        Returns
        -------
        sequence of int or None
        """
        return group_of(comm, self.groups)

    def recorded(self, comm, is_by_row):
        """Return what of this an order belongs to, beside rows and batches, in words.

        Parameters
        ----------
        comm : daskdml.runtime.spmd.Comm
        is_by_row : bool
            See `asks_ahead`.

        Returns
        -------
        dict
        """
        groups = groups_of(comm, self.groups)
        return {
            "consistency": str(self.consistency), "reads_ahead": bool(self.asks_ahead(is_by_row)),
            "groups": None if groups is None else [list(members) for members in groups],
        }  # fmt: skip

    def check(self, estimator):
        """Refuse what cannot be right.

        Parameters
        ----------
        estimator : estimator
            That it is the strategy of.
        """
        check_params(self, self._constraints)
        self._rule.bound  # noqa: B018 - refuses a staleness that is none
        if self.is_by_row(False) and not hasattr(estimator, "l1_ratio"):
            raise ValueError(
                f"sparse=True is for linear models of sparse rows; every row has to do with all weights of "
                f"{type(estimator).__name__}. Leave it at 'auto'."
            )
        if self.moves_rows and (self.record or self.replay is not None):
            raise ValueError(
                "moves_rows=True moves rows by what the clock says, and record and replay are of what a fit does "
                "again: set moves_rows=False."
            )
        if self.guard and (self.record or self.replay is not None):
            raise ValueError("guard=True does what no order tells; leave it out beside record and replay.")
        if self.guard and self._rule.bound == 0:
            raise ValueError(
                f"guard=True tightens staleness, and {self._rule} has none: leave it out, or take SSP or ASP. What "
                "compression leaves out AllReduce(guard=True) makes less of."
            )
        if self.replay is not None and not {"of", "shards"} <= set(self.replay):
            raise ValueError("replay must be the fit_report_.order of a fit with record=True.")
        if isinstance(self.compression, ErrorFeedback):
            raise ValueError(
                "compression=ErrorFeedback(...) would add what was left out twice: give the codec inside it."
            )
        if self.compression is not None and self.compression.reduce_kind == "linear":
            raise ValueError(
                f"compression={self.compression} is added up by ranks that send at the same time, and a parameter "
                "server is pushed to whenever a rank is ready: take FP16(), QSGD(), TopK() or OneBit()."
            )

        momentum, solver = getattr(estimator, "momentum", 0.0), getattr(estimator, "solver", "adam")
        if self._rule.bound is None and solver == "sgd" and momentum > MOST_MOMENTUM:
            warnings.warn(
                f"momentum={momentum} with ASP(): what is stale moves on by itself, and momentum comes on top. With "
                "0.9 accuracy was 0.1 to 1.4 points lower after as many epochs, with 0 and ten times the rate it was "
                "not (`python -m benchmarks staleness --full`).",
                stacklevel=5,
            )  # fmt: skip

        codec = self.compression
        is_coarse = codec is not None and not (
            codec.exact or isinstance(codec, FP16) or (isinstance(codec, QSGD) and codec.bits >= 8)
        )
        if is_coarse and getattr(estimator, "solver", "sgd") == "adam":
            warnings.warn(
                f"{type(codec).__name__} in front of solver='adam' may cost accuracy: its second moments see what is "
                "sent now and then. Use FP16(), QSGD() of 8 bits, or solver='sgd'.",
                stacklevel=5,
            )  # fmt: skip

    def check_exact(self):
        """Refuse what has nothing to act on where ranks evaluate all their rows, and the optimum is certified."""
        for name, is_asked, why in (
            ("sparse=True", self.sparse is True, "a rank evaluates all its rows, which store all features"),
            ("groups", self.groups is not None, "ranks push a vector for a whole pass over their rows"),
            ("reads_ahead=True", self.reads_ahead is True, "to read takes a thousandth of what a pass does"),
            ("guard=True", self.guard, "the last passes are in step anyway, and certify the optimum"),
        ):
            if is_asked:
                raise ValueError(f"{name} has nothing to act on with a model that is fitted to its optimum: {why}.")

    def advance(self, replica, comm, first, stop):
        """Train on some batches.

        Parameters
        ----------
        replica : daskdml.training.served.ServedReplica
        comm : daskdml.runtime.spmd.Comm
        first, stop : int
            Batches ``first`` to ``stop - 1`` of the epoch.
        """
        if first == 0:
            replica.begin_epoch(comm)
        # That of the tables, which a strategy that was tightened since has in common.
        is_whole = replica.training.strategy._rule.is_collective
        for begin in range(first, stop, replica.n_merged):
            end = min(begin + replica.n_merged, stop)
            # Not before all meet, nor where nothing new would be on its way.
            asks = self.asks_ahead(False) and not replica.pushes_all and end < replica.training.schedule.n_batches
            replica.fetch(comm, self._rule.bound, asks)
            replica.push(comm, replica.work(comm, begin, end), begin, end, is_whole)
        if stop == replica.training.schedule.n_batches:
            replica.meet_again(comm, self.moves_rows, self.record)
