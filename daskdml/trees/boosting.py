"""One iteration of boosting on the rows of one rank: gradients, a tree per output, new raw predictions, scores."""

import time
import weakref
from typing import Any, NamedTuple

import numpy as np

from daskdml.kernels import exact, growing, loss_rows
from daskdml.trees.given_rows import WatchedRows
from daskdml.trees.grower import Grower
from daskdml.trees.growth import Steps
from daskdml.trees.kept_rows import Codes, DenseRows, StoredRows, TileRows, Tiles
from daskdml.trees.leaf_quantiles import leaf_quantiles
from daskdml.trees.pieces import in_pieces, tiled
from daskdml.trees.predictor import Ensemble
from daskdml.trees.shards import Shard, Shards, TileShards, cut
from daskdml.utils.portable import portable
from daskdml.utils.random import row_hash, uniform

MOST_TIMES = 15  # that a row may count: four bits of an entry
COUNTED_ROWS = 1_000_000  # up to which as many rows are held out as were asked for
SCORED_ROWS = 10_000  # that trees are grown on, of which scores other than the loss are taken: as scikit-learn
MOST_SCORED = 1_000_000  # of the others, each of which travels to rank 0 after every iteration
MOST_SCORED_BYTES = 64 << 20
_TREE_STREAM, VALIDATION_STREAM, _SCORE_STREAM = 21, 22, 23
_EPSILON = 1e-15
_MOST_GRADIENT = 1e37
# Bits of a rounded hessian, and of a gradient with its sign. Of 12 a packed histogram holds 8,191 rows; of 15 it holds
# an eighth of them, which costs where leaves have more, and rounds so much finer where rows are few.
FEW_BITS, MANY_BITS, FEW_ROWS = 12, 15, 50_000
_OF_CLASSES = ("logistic", "multinomial")
# Largest gradient and hessian of losses that have them, at weight one.
_BOUNDS = {"logistic": (1.0, 0.25), "multinomial": (1.0, 0.25), "absolute": (1.0, 1.0), "pinball": (1.0, 1.0)}


@portable
class BoostingState(NamedTuple):
    """What boosting has come to.

    Attributes
    ----------
    baseline : ndarray of float64, shape (n_outputs,), or None
        What is predicted without trees; None before the first iteration.
    trees : tuple of tuple of Tree
        One of each output per iteration.
    train_scores, validation_scores : tuple of float
        Minus the mean loss, before the first iteration and after each; empty where nobody asks.
    is_over : bool
    seconds : dict of str to float
        What phases have taken on the rank that says so.
    n_rounds, n_splits, bytes_sent : int
    """

    baseline: Any = None
    trees: tuple = ()
    train_scores: tuple = ()
    validation_scores: tuple = ()
    is_over: bool = False
    seconds: Any = None
    n_rounds: int = 0
    n_splits: int = 0
    bytes_sent: int = 0


class Boosting(NamedTuple):
    """What is boosted, and how.

    Attributes
    ----------
    loss : object
        See `daskdml.losses`.
    settings : daskdml.trees.growth.Settings
    bins : daskdml.trees.binning.Bins
    has_missing : ndarray of bool, shape (p,)
        Which features miss values in some row.
    n_rows : int
        As often as they count.
    n_iter : int
        Iterations at most.
    seed : int
    counts : bool
        Whether weights say how often a row counts (integers up to 15) instead of what its gradient is multiplied by.
    most_weight : float
        The largest weight.
    subsample : float
        Share of the rows that a tree is grown on.
    is_stochastic : bool
        How gradients are rounded.
    validation : float or None
        Only the score is taken of rows whose hashes are below it; see `held_out_share`.
    scores : bool
        Whether scores are taken.
    patience : int
        Iterations without a better score after which boosting ends.
    tol : float
        By which a score must be better.
    class_weight : ndarray of shape (n_classes,), or None
        What gradients are multiplied by, beside weights.
    given : GivenRows or None
        Rows that scores are taken of, instead of a share of those that trees are grown on.
    score : callable of (raw, y, weight), or None
        Returns a score, of which more is better; None takes the loss.
    by_columns : bool
        Whether bins are kept by columns too, and in one piece; changes no bit.
    panels : tuple of slice, or None
        The features of each panel, where ranks have blocks of some panels: those of panel j with numbers from
        ``j * n_blocks`` on.
    n_blocks : int
        Of a panel.
    """

    loss: Any
    settings: Any
    bins: Any
    has_missing: Any
    n_rows: int
    n_iter: int
    seed: int
    counts: bool = True
    most_weight: float = 1.0
    subsample: float = 1.0
    is_stochastic: bool = True
    validation: Any = None
    scores: bool = False
    patience: int = 10
    tol: float = 1e-7
    class_weight: Any = None
    given: Any = None
    score: Any = None
    by_columns: bool = True
    panels: Any = None
    n_blocks: int = 0

    @property
    def has_hessian(self):
        """Whether hessians differ from row to row."""
        return not (self.loss.constant_hessian and self.counts and self.class_weight is None)

    def is_done(self, state):
        """Tell whether boosting is over."""
        return state.is_over or len(state.trees) >= self.n_iter

    def shards(self, blocks, n_threads, for_each):
        """Return the rows of a rank as `Shards`.

        Parameters
        ----------
        blocks : list of daskdml.data.Block
            Whose X are bins.
        n_threads : int
        for_each : callable of (n_items, work)
        """
        is_tiled = self.panels is not None
        pieces = tiled(blocks, self.n_blocks, self.by_columns) if is_tiled else in_pieces(blocks, self.by_columns)
        places = []
        for i, piece in enumerate(pieces):
            edges = cut(len(piece.X), n_threads if len(pieces) == 1 else 1)
            places += [(i, a, b) for a, b in zip(edges[:-1], edges[1:])]
        made = [None] * len(places)

        def make(i):
            piece, a, b = pieces[places[i][0]], *places[i][1:]
            made[i] = self._shard(piece, a, b)

        for_each(len(places), make)
        return (TileShards if is_tiled else Shards)(made, self.bins.first, n_threads, for_each)

    def _shard(self, piece, a, b):
        n, k = b - a, self.loss.n_outputs
        own = [(max(c, a), min(d, b), first - c) for c, d, first in piece.spans if c < b and d > a]
        spans = [(c - a, d - a, c + before) for c, d, before in own]
        given, times, factor = None if piece.weight is None else piece.weight[a:b], None, None
        if given is not None:
            times = given.astype(np.uint8) if self.counts else (given > 0).astype(np.uint8)
            factor = None if self.counts else given
        if self.class_weight is not None:
            by_class = self.class_weight[piece.y[a:b].astype(np.intp)]
            factor = by_class if factor is None else factor * by_class
        if self.validation is not None:
            times = np.ones(n, np.uint8) if times is None else times
            held = [is_held_out(self.seed, first, d - c, self.validation) for c, d, first in spans]
            times = np.where(np.concatenate([np.zeros(0, bool), *held]), 0, times).astype(np.uint8)
        raw = np.zeros(n if k == 1 else (n, k))
        y = piece.y[a:b]
        y = np.ascontiguousarray(y if y.dtype in (np.float32, np.float64) else y.astype(np.float64))
        return Shard(self._kept(piece.X[a:b]), y, factor, times, spans, raw, self.has_hessian, given)

    def _kept(self, X):
        if isinstance(X, Tiles):
            return TileRows(X, self.bins.first, self.panels, self.by_columns)
        if isinstance(X, Codes):
            return StoredRows(X, self.bins.first, self.bins.zero, self.by_columns)
        return DenseRows(X, self.bins.first, self.by_columns)

    def predict(self, shards, state):
        """Let the raw predictions of all rows be those of a state."""
        shards.watched = shards.shares = None
        if state.baseline is None:
            return
        _begin(shards, state.baseline)
        if state.trees and shards.talks:
            shards.unseen = state.trees
        elif state.trees:
            model = Ensemble(state.trees, self.loss.n_outputs, state.baseline)
            shards.each(lambda shard: shard.rows.predict(model, shard.raw))

    def iterate(self, state, shards, comm):
        """Return the state after one more iteration; raw predictions of the shards become those after it."""
        first = len(state.trees)
        grower = self._grower(shards, comm)
        if shards.talks:
            shards.comm = comm
            shards.follow()
        if state.baseline is None:
            state = state._replace(baseline=self._baseline(shards, comm))
            _begin(shards, state.baseline)
        if self.scores and not state.train_scores:
            state = self._score(state, shards, comm)
        before, rounds, sent = dict(shards.seconds), comm.rounds, comm.bytes_sent
        started = time.perf_counter()
        largest = shards.gradients(self.loss)
        steps = self._steps(largest, comm)
        shards.clock("gradient", started)
        trees = []
        for k in range(self.loss.n_outputs):
            number = first * self.loss.n_outputs + k
            key = int(row_hash(self.seed, _TREE_STREAM, [number])[0])
            growth = grower.grow(k, key, steps, self.subsample, self.is_stochastic)
            started = time.perf_counter()
            values = self._leaf_values(growth, steps, shards, comm)
            shards.add_leaves(k, growth.leaves, values)
            trees.append(growth.tree(values, steps, self.bins.thresholds, self.settings.learning_rate))
            shards.clock("leaves", started)
        state = state._replace(trees=(*state.trees, tuple(trees)))
        if self.scores:
            started = time.perf_counter()
            state = self._score(state, shards, comm)
            shards.clock("score", started)
        spent = state.seconds or {}
        now = {phase: spent.get(phase, 0.0) + s - before.get(phase, 0.0) for phase, s in shards.seconds.items()}
        return state._replace(
            seconds=now, n_rounds=state.n_rounds + comm.rounds - rounds, n_splits=state.n_splits + grower.take_splits(),
            bytes_sent=state.bytes_sent + comm.bytes_sent - sent,
        )  # fmt: skip

    def _grower(self, shards, comm):
        if shards.grower is None:
            p = len(self.bins.thresholds)
            facts = np.zeros((p, 4), np.int64)
            facts[:, 0], facts[:, 1], facts[:, 2] = self.bins.n_bins, self.has_missing, self.bins.is_categorical
            # Weak: in a cycle rows would stay until Python looks for such, beside those of the next fit.
            shards.grower = Grower(weakref.proxy(shards), comm, facts, self.settings)
        return shards.grower

    def _baseline(self, shards, comm):
        """Return the best constants: from exact sums over the rows that trees are grown on, or their quantile."""
        loss, k = self.loss, self.loss.n_outputs
        if loss.quantile is not None:
            # Entries of a tree that nobody grows say which rows count, in one leaf.
            shards.root(0, 0, (1.0, 1.0), growing.COUNT_MOST // MOST_TIMES)[:] = 0
            return leaf_quantiles(shards, comm, np.zeros(1, np.int64), loss.quantile, self.counts)
        totals = shards.once(lambda shard: _target_sums(shard, k))
        sums = [sum(part) for part in zip(*totals)] if totals else [0] * (k + 1)
        if comm.size > 1:
            sums = comm.broadcast_value(_add_up(comm.gather_values(sums)))
        weight, *parts = sums
        means = np.array([part / weight for part in parts])
        return np.atleast_1d(loss.baseline(means if k > 1 else means[0]))

    def _steps(self, largest, comm):
        weight = 1.0 if self.counts else self.most_weight
        if self.class_weight is not None:
            weight *= self.class_weight.max()
        if self.loss.name in _BOUNDS:
            # No rank asks the others: one that has NaN must not either, but raise, which ends the run for all.
            largest = np.where(np.isnan(largest), largest, np.array(_BOUNDS[self.loss.name]) * weight)
        elif comm.size > 1:
            largest = comm.allreduce(largest, operation="max")
        if not (largest <= _MOST_GRADIENT).all():  # NaN is not either
            raise ValueError(
                f"The gradients of the {self.loss.name} loss, up to {largest.max():g}, are not finite or too large for "
                "float32: divide y, or the weights, by their size; or lower learning_rate."
            )
        most_times = int(self.most_weight) if self.counts else 1
        bits = FEW_BITS if self.n_rows > FEW_ROWS else MANY_BITS
        return Steps.of(largest, self.n_rows, bits, max(most_times, 1), not self.has_hessian)

    def _leaf_values(self, growth, steps, shards, comm):
        """Return what each leaf adds: from sums of gradients of many bits, or quantiles of residuals."""
        if growth.is_stump:
            return np.zeros(1)  # as scikit-learn has it
        low, high = growth.bounds()
        if self.loss.quantile is not None:
            values = leaf_quantiles(shards, comm, growth.leaves, self.loss.quantile, self.counts)
            if self.settings.monotonic_cst is not None:
                values = growth.monotone(values, self.settings.monotonic_cst)
        else:
            sums = shards.sum_leaves(growth.k, growth.leaves, steps.leaf_scales)
            sums = comm.allreduce(sums) if comm.size > 1 else sums
            g, h = (sums / steps.leaf_scales).T
            values = np.clip(-g / (h + self.settings.l2_regularization + _EPSILON), low, high)
        return self.settings.learning_rate * values

    def _score(self, state, shards, comm):
        """Return the state with the scores of the raw predictions as they are."""
        train, held = (self._losses if self.score is None else self._other_scores)(state, shards, comm)
        state = state._replace(train_scores=(*state.train_scores, train))
        has_others = self.validation is not None or self.given is not None
        if has_others:
            state = state._replace(validation_scores=(*state.validation_scores, held))
        watched = state.validation_scores if has_others else state.train_scores
        return state._replace(is_over=should_stop(watched, self.patience, self.tol))

    def _losses(self, state, shards, comm):
        """Return minus the mean loss of the rows that trees are grown on, and of the others."""
        totals = shards.once(lambda shard: _loss_sums(shard, self.loss, self.counts, self.validation is not None))
        sums = [sum(part) for part in zip(*totals)] if totals else [0] * 4
        if self.given is not None:
            sums[2:] = self._watch(state, shards, comm).sums(self.loss)
        if comm.size > 1:
            sums = comm.broadcast_value(_add_up(comm.gather_values(sums)))
        train, weight, held, held_weight = (exact.as_float(total) for total in sums)
        return -train / weight, (-held / held_weight if held_weight else None)

    def _other_scores(self, state, shards, comm):
        """Return the scores of some rows that trees are grown on, and of the others."""
        if shards.shares is None:
            shards.shares = self._shares_to_score(shards, comm)
        parts = [self._rows_to_score(shards, is_held, shards.shares[is_held]) for is_held in (False, True)]
        if self.given is not None:
            parts[1] = self._given_to_score(self._watch(state, shards, comm))
        parts = tuple(parts)
        gathered = [parts] if comm.size == 1 else comm.gather_values(parts)
        scores = None
        if gathered is not None:
            has_others = self.validation is not None or self.given is not None
            scores = tuple(
                self._score_of([parts[k] for parts in gathered], is_watched=bool(k) or not has_others) for k in range(2)
            )
        return scores if comm.size == 1 else comm.broadcast_value(scores)

    @property
    def _most_scored(self):
        return min(MOST_SCORED, MOST_SCORED_BYTES // (8 * (self.loss.n_outputs + 3)))

    def _shares_to_score(self, shards, comm):
        """Return the share of the rows with weight to score, of those that trees are grown on and of the others."""
        own = shards.counting()
        n = np.array([sum(int(self._may_score(s, held).sum()) for s in own) for held in (False, True)], np.int64)
        n = n if comm.size == 1 else comm.allreduce(n)
        return SCORED_ROWS / max(n[0], 1), self._most_scored / max(n[1], 1)

    def _may_score(self, shard, is_held):
        trains = shard.times > 0 if len(shard.times) else np.ones(len(shard), bool)
        if is_held and self.validation is None:
            return np.zeros(len(shard), bool)
        weight = self._weight_to_score(shard)
        chosen = ~trains if is_held else trains
        return chosen if weight is None else chosen & (weight > 0)

    def _weight_to_score(self, shard):
        """Return weights of rows, those of their classes in them as scikit-learn has it; None for ones."""
        weight = shard.given_weight
        if self.class_weight is not None:
            by_class = self.class_weight[shard.y.astype(np.intp)]
            weight = by_class if weight is None else weight * by_class
        return weight

    def _rows_to_score(self, shards, is_held, share):
        """Return numbers, raw predictions, y and weights of rows, chosen by hashes of their numbers."""
        raw = np.empty((0, self.loss.n_outputs) if self.loss.n_outputs > 1 else 0)
        found = [(np.empty(0, np.int64), raw, np.empty(0), None)]
        for shard in shards.counting():
            chosen, weight = self._may_score(shard, is_held), self._weight_to_score(shard)
            numbers = np.concatenate([np.empty(0, np.int64), *(np.arange(f, f + b - a) for a, b, f in shard.spans)])
            chosen = chosen & self._is_drawn(numbers, share)
            weight = None if weight is None else weight[chosen]
            found.append((numbers[chosen], shard.raw[chosen], shard.y[chosen].astype(np.float64), weight))
        return _joined_rows(found)

    def _given_to_score(self, watched):
        raw = watched.raw[:, 0] if self.loss.n_outputs == 1 else watched.raw
        numbers = watched.first + np.arange(len(raw))
        chosen = self._is_drawn(numbers, self._most_scored / len(self.given.y))
        weight = None
        if self.given.weight is not None:
            chosen = chosen & (watched.weight > 0)
            weight = watched.weight[chosen]
        return numbers[chosen], raw[chosen], watched.y[chosen], weight

    def _is_drawn(self, numbers, share):
        return np.ones(len(numbers), bool) if share >= 1 else uniform(self.seed, _SCORE_STREAM, numbers) < share

    def _score_of(self, parts, is_watched):
        """Return the score of rows, in the order of their numbers: the same bits from any ranks."""
        numbers, raw, y, weight = _joined_rows(parts)
        if not len(numbers):
            return np.nan
        order = np.argsort(numbers, kind="stable")
        try:
            return self.score(raw[order], y[order], None if weight is None else weight[order])
        except ValueError:
            # A few rows may lack a class that the score asks for. Nobody stops because of these.
            if is_watched or self.loss.name not in _OF_CLASSES or len(np.unique(y)) >= max(self.loss.n_outputs, 2):
                raise
            return np.nan

    def _watch(self, state, shards, comm):
        """Return the validation rows of this rank, raw predictions brought up to the state."""
        if shards.watched is None:
            shards.watched = WatchedRows(self.given, comm.rank, comm.size, self.loss.n_outputs, state.baseline)
        shards.watched.follow(state.trees)
        return shards.watched


def _joined_rows(parts):
    """Return (numbers, raw, y, weight) of several parts as one."""
    parts = [part for part in parts if len(part[0])] or parts[:1]
    numbers, raw, y, weight = zip(*parts)
    weight = None if weight[0] is None else np.concatenate(weight)
    return np.concatenate(numbers), np.concatenate(raw), np.concatenate(y), weight


def _begin(shards, baseline):
    for shard in shards:
        shard.raw[:] = baseline[0] if shard.raw.ndim == 1 else baseline


def _target_sums(shard, k):
    """Return exact sums over the rows that count: of the weight, and of weight times y, for several classes of each."""
    times, weight = shard.times, shard.weight
    if not len(times):
        times = np.ones(len(shard), np.uint8)
    sums = np.zeros(k + 1, object)
    for n in np.unique(times[times > 0]).tolist():
        rows = times == n
        y, w = shard.y[rows].astype(np.float64), weight[rows] if len(weight) else None
        ones = np.ones(len(y)) if w is None else w
        parts = [ones] + ([ones * y] if k == 1 else [ones[y == c] for c in range(k)])
        sums += [n * exact.exact_sum(part) for part in parts]
    return sums.tolist()


def held_out_share(seed, n_rows, n_held):
    """Return the share that the hashes of so many rows are below: of exactly so many up to a million rows.

    Parameters
    ----------
    seed : int
    n_rows : int
    n_held : int
        Less than ``n_rows``.

    Returns
    -------
    float

    Examples
    --------
    >>> int(is_held_out(0, 0, 50, held_out_share(0, 50, 5)).sum())
    5
    """
    if n_rows > COUNTED_ROWS:
        return n_held / n_rows
    return float(np.partition(_validation_hashes(seed, 0, n_rows), n_held)[n_held])


def is_held_out(seed, first_row, n_rows, share):
    """Return which of some rows are for validation: a hash of the row's number decides."""
    return _validation_hashes(seed, first_row, n_rows) < share


def _validation_hashes(seed, first_row, n_rows):
    return uniform(seed, VALIDATION_STREAM, np.arange(first_row, first_row + n_rows))


def should_stop(scores, patience, tol):
    """Tell whether none of the last ``patience`` scores is better than the one before them, by more than tol.

    Examples
    --------
    >>> should_stop([1.0, 2.0, 2.0], 2, 0.0), should_stop([3.0, 2.0, 2.0], 2, 0.0)
    (False, True)
    """
    if len(scores) <= patience:
        return False
    return not any(score > scores[-patience - 1] + tol for score in scores[-patience:])


def _add_up(parts):
    return None if parts is None else [sum(part) for part in zip(*parts)]


def _loss_sums(shard, loss, counts, has_validation):
    """Return exact sums: loss and weight of the rows trees are grown on, loss and weight of the others."""
    values = loss_rows.losses(shard.raw, shard.y, loss)
    weight = np.ones(len(shard)) if shard.given_weight is None else shard.given_weight
    if len(shard.weight):
        weight = shard.weight if not counts else weight * shard.weight
    values = values * weight
    if not np.isfinite(values).all():
        raise ValueError(
            f"The {loss.name} loss is not finite: divide y, or the weights, by their size; or lower learning_rate."
        )
    if not has_validation:
        return exact.exact_sum(values), exact.exact_sum(weight), 0, 0
    held = is_held_out_of(shard)
    return tuple(exact.exact_sum(part[rows]) for rows in (~held, held) for part in (values, weight))


def is_held_out_of(shard):
    """Return which rows of a shard no tree is grown on, those without weight among them."""
    return shard.times == 0
