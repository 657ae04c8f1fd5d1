"""A network cut into shards: which parameters belong to each, and what each adds to sums over all of them.

Conventions. Layers are cut in pairs, from the last one back: the first of a pair by its neurons (columns of its
coefficients), the second by the same neurons as its inputs (rows), so that nothing travels between the two. A layer
that is left over at the beginning is cut by its inputs: by features. What layers cut by inputs give is added up over
the shards; their intercepts belong to no shard and stand behind each other in ``common``. A shard is one flat vector:
its coefficients of all layers, then its intercepts of layers cut by neurons. Rows come in micro-batches, a list of
matrices; every product is one micro-batch's and one shard's, so that bits depend on nothing else.
"""

import itertools

import numpy as np

from daskdml.kernels.layers import activate, back_through, product
from daskdml.utils.fold import Fold, add_in_place

NEURONS = 64  # of a shard at least: products of matrices with fewer columns take longer a number
MOST_SHARDS, LEAST_SHARDS = 64, 8
WAVE = 8  # shards of which what is added up is computed at a time


class ShardedNetwork:
    """The parts of a network; see the conventions of this file.

    Parameters
    ----------
    network : Network
    n_shards : int or "auto", default "auto"
        Bits depend on it. "auto" has at least 64 neurons in each, but 8 shards at least and 64 at most.

    Notes
    -----
    M. Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model parallelism", 2019.
    Of n rows a shard sends one array of n x outputs for each layer cut by inputs, and one of n x inputs for each layer
    cut by neurons but the first.

    Examples
    --------
    >>> from daskdml.losses import Squared
    >>> from daskdml.objectives.network import Network
    >>> sharded = Network((3, 10, 2), "relu", Squared()).in_shards(2)
    >>> sharded.shapes_of(0), sharded.n_common
    ([(3, 5), (5, 2)], 2)
    """

    def __init__(self, network, n_shards="auto"):
        self.network, self.dtype, n_layers = network, network.dtype, len(network.shapes)
        self.by_inputs = tuple((n_layers - 1 - i) % 2 == 0 for i in range(n_layers))
        widths = [shape[0] if by_inputs else shape[1] for shape, by_inputs in zip(network.shapes, self.by_inputs)]
        least = min(widths)
        if n_shards == "auto":
            n_shards = min(int(np.clip(max(widths) // NEURONS, LEAST_SHARDS, MOST_SHARDS)), least)
        elif n_shards > least:
            raise ValueError(
                f"n_shards={n_shards} is more than the network can be cut into: layers of {network.sizes} neurons are "
                f"cut by {' and '.join(map(str, widths))}; use at most {least}, or n_shards='auto'."
            )
        self.n_shards, self._shapes = int(n_shards), {}
        self._cuts = [[k * width // self.n_shards for k in range(self.n_shards + 1)] for width in widths]
        self._common_edges = [0, *itertools.accumulate(
            shape[1] if by_inputs else 0 for shape, by_inputs in zip(network.shapes, self.by_inputs))]  # fmt: skip

    # Which parameters are whose ---------------------------------------------------------------------------------------

    @property
    def n_common(self):
        """Parameters that belong to no shard."""
        return self._common_edges[-1]

    def cut(self, layer, shard):
        """Return the neurons of a layer, or its inputs, that belong to a shard."""
        return slice(self._cuts[layer][shard], self._cuts[layer][shard + 1])

    def shapes_of(self, shard):
        """Return the shapes of a shard's coefficients."""
        if shard not in self._shapes:
            widths = [cuts[shard + 1] - cuts[shard] for cuts in self._cuts]
            self._shapes[shard] = [
                (width, shape[1]) if by_inputs else (shape[0], width)
                for width, shape, by_inputs in zip(widths, self.network.shapes, self.by_inputs)
            ]
        return self._shapes[shard]

    def n_decayed_of(self, shard):
        """Return how many coefficients a shard has, which stand first."""
        return sum(a * b for a, b in self.shapes_of(shard))

    def n_params_of(self, shard):
        """Return the length of a shard."""
        own = [shape[1] for shape, by_inputs in zip(self.shapes_of(shard), self.by_inputs) if not by_inputs]
        return self.n_decayed_of(shard) + sum(own)

    def coefs(self, shard, flat):
        """Return a shard's coefficients of each layer, views."""
        edges = [0, *itertools.accumulate(a * b for a, b in self.shapes_of(shard))]
        return [flat[a:b].reshape(shape) for a, b, shape in zip(edges, edges[1:], self.shapes_of(shard))]

    def intercepts(self, shard, flat):
        """Return a shard's intercepts of each layer, views; None where they are common."""
        found, at = [], self.n_decayed_of(shard)
        for shape, by_inputs in zip(self.shapes_of(shard), self.by_inputs):
            found.append(None if by_inputs else flat[at : at + shape[1]])
            at += 0 if by_inputs else shape[1]
        return found

    def common_intercepts(self, common):
        """Return the common intercepts of each layer, views; None where they belong to shards."""
        spans = itertools.pairwise(self._common_edges)
        return [common[a:b] if by_inputs else None for (a, b), by_inputs in zip(spans, self.by_inputs)]

    def part_of(self, theta, shard):
        """Return a shard of all parameters."""
        out = np.empty(self.n_params_of(shard), theta.dtype)
        for own, whole in self._pairs(shard, out, theta):
            own[...] = whole
        return out

    def put(self, theta, shard, flat):
        """Write a shard to where it belongs among all parameters."""
        for own, whole in self._pairs(shard, flat, theta):
            whole[...] = own

    def _pairs(self, shard, flat, theta):
        coefs, intercepts = self.network.coefs(theta), self.network.intercepts(theta)
        for i, (coef, intercept) in enumerate(zip(self.coefs(shard, flat), self.intercepts(shard, flat))):
            cut = self.cut(i, shard)
            yield coef, coefs[i][cut] if self.by_inputs[i] else coefs[i][:, cut]
            if intercept is not None:
                yield intercept, intercepts[i][cut]

    def common_of(self, theta):
        """Return the common parameters of all."""
        return np.concatenate([np.array(own) for own, _ in self._common_pairs(theta)])

    def put_common(self, theta, common):
        """Write the common parameters to where they belong."""
        for own, part in self._common_pairs(theta):
            own[...] = common[part]

    def _common_pairs(self, theta):
        for i, intercept in enumerate(self.network.intercepts(theta)):
            if self.by_inputs[i]:
                yield intercept, slice(self._common_edges[i], self._common_edges[i + 1])

    def start(self, seed, shards):
        """Draw the first parameters, those of `Network.start`, without more than some rows of all at a time.

        Returns
        -------
        dict of int to ndarray
            Of the shards that were asked for.
        common : ndarray of shape (n_common,)
        """
        dtype = self.network.dtype
        flats = {shard: np.empty(self.n_params_of(shard), dtype) for shard in shards}
        coefs = {shard: self.coefs(shard, flat) for shard, flat in flats.items()}
        own = {shard: self.intercepts(shard, flat) for shard, flat in flats.items()}
        common = np.empty(self.n_common, dtype)
        for i, first, drawn, intercept in self.network.draws(seed):
            rows = slice(first, first + len(drawn))
            for shard in shards:
                cut = self.cut(i, shard)
                if not self.by_inputs[i]:
                    coefs[shard][i][rows] = drawn[:, cut]
                else:
                    a, b = max(cut.start, rows.start), min(cut.stop, rows.stop)
                    if a < b:
                        coefs[shard][i][a - cut.start : b - cut.start] = drawn[a - first : b - first]
                if intercept is not None and not self.by_inputs[i]:
                    own[shard][i][:] = intercept[cut]
            if intercept is not None and self.by_inputs[i]:
                common[self._common_edges[i] : self._common_edges[i + 1]] = intercept
        return flats, common

    def rows(self, flats, common, X, for_each, first_feature=0):
        """Return `ShardedRows` of this network."""
        return ShardedRows(self, flats, common, X, for_each, first_feature)

    # What is computed of rows -----------------------------------------------------------------------------------------

    def forward(self, rows, add_up):
        """Return what the layers give for some rows.

        Parameters
        ----------
        rows : ShardedRows
        add_up : callable of a Fold
            Returns the sum over the shards of all ranks, an array of shape (n, outputs of a layer).

        Returns
        -------
        Activations
        """
        inner, outer, last = {}, {}, len(self.by_inputs) - 1
        shared = self.common_intercepts(rows.common)
        for i, by_inputs in enumerate(self.by_inputs):

            def multiply(k, m, out, i=i):
                product(_input(rows, inner, outer, i, k, m), rows.coefs[k][i], out)

            if by_inputs:
                outer[i] = add_up(self._fold(rows, multiply, self.network.sizes[i + 1]))
                activation = self.network.activation if i < last else "identity"
                for span in rows.spans:
                    activate(outer[i][span], shared[i], activation)
                continue
            inner[i] = {k: np.empty((rows.n, self.shapes_of(k)[i][1]), self.dtype) for k in rows.shards}

            def work(k, m, i=i, multiply=multiply):
                a = inner[i][k][rows.spans[m]]
                multiply(k, m, a)
                activate(a, rows.intercepts[k][i], self.network.activation)

            rows.each(work)
        return Activations(inner, outer)

    def _fold(self, rows, multiply, width):
        """Return the `Fold` over this rank's shards of what ``multiply(shard, m, out)`` writes: (n, width) of each.

        A few at a time: they are as wide as the sum.
        """
        fold = Fold(self.n_shards, add_in_place)
        for first in range(0, len(rows.shards), WAVE):
            into = {k: np.empty((rows.n, width), self.dtype) for k in rows.shards[first : first + WAVE]}
            rows.each(lambda k, m, into=into: multiply(k, m, into[k][rows.spans[m]]), list(into))
            for k, part in into.items():
                fold.add(k, part)
        return fold

    def backward(self, rows, found, delta, add_up):
        """Return the slopes of the objective with regard to what layers give, before their activation.

        Parameters
        ----------
        rows : ShardedRows
        found : Activations
        delta : ndarray of shape (n, n_outputs)
            Of the last layer.
        add_up : callable
            As of `forward`.

        Returns
        -------
        Slopes
        """
        last, activation = len(self.by_inputs) - 1, self.network.activation
        inner, outer, inner_sums = {}, {last: delta}, {}
        outer_sums = {last: self._through(rows, found.outer[last], delta, "identity")}
        for i in range(last, 0, -2):
            before = {k: np.empty_like(found.inner[i - 1][k]) for k in rows.shards}
            sums = {k: np.empty((len(rows.spans), a.shape[1]), a.dtype) for k, a in before.items()}

            def work(k, m, i=i, before=before, sums=sums):
                span = rows.spans[m]
                np.matmul(outer[i][span], rows.coefs[k][i].T, out=before[k][span])
                back_through(found.inner[i - 1][k][span], before[k][span], activation, sums[k][m])

            def multiply(k, m, out, i=i, before=before):
                np.matmul(before[k][rows.spans[m]], rows.coefs[k][i - 1].T, out=out)

            rows.each(work)
            inner[i - 1], inner_sums[i - 1] = before, sums
            if i > 1:
                outer[i - 2] = add_up(self._fold(rows, multiply, self.network.sizes[i - 1]))
                outer_sums[i - 2] = self._through(rows, found.outer[i - 2], outer[i - 2], activation)
        return Slopes(inner, outer, inner_sums, outer_sums)

    def _through(self, rows, a, delta, activation):
        """Go back through an activation of a layer that was added up; return sums over the rows of micro-batches."""
        sums = np.empty((len(rows.spans), delta.shape[1]), delta.dtype)
        for m, span in enumerate(rows.spans):
            back_through(a[span], delta[span], activation, sums[m])
        return sums

    def gradient(self, rows, found, slopes, shard, m, out):
        """Write the gradient of a shard over the rows of a micro-batch."""
        span = rows.spans[m]
        coefs, intercepts = self.coefs(shard, out), self.intercepts(shard, out)
        for i, by_inputs in enumerate(self.by_inputs):
            delta = slopes.outer[i][span] if by_inputs else slopes.inner[i][shard][span]
            product(_input(rows, found.inner, found.outer, i, shard, m).T, delta, coefs[i])
            if not by_inputs:
                intercepts[i][:] = slopes.inner_sums[i][shard][m]

    def common_gradient(self, slopes, m, out):
        """Write the gradient of the common parameters over the rows of a micro-batch."""
        for i, sums in slopes.outer_sums.items():
            out[self._common_edges[i] : self._common_edges[i + 1]] = sums[m]


class ShardedRows:
    """Some rows, and the shards of this rank.

    Parameters
    ----------
    sharded : ShardedNetwork
    flats : dict of int to ndarray
        This rank's shards.
    common : ndarray of shape (n_common,)
    X : list of ndarray or CSR
        Of each micro-batch; where the first layer is cut by inputs only the features from ``first_feature`` on, of
        which this rank's shards need some.
    for_each : callable of (n_items, work)
    first_feature : int, default 0
    """

    def __init__(self, sharded, flats, common, X, for_each, first_feature=0):
        self.shards, self.common, self._for_each = sorted(flats), common, for_each
        edges = [0, *itertools.accumulate(part.shape[0] for part in X)]
        self.n, self.spans = edges[-1], [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.coefs = {k: sharded.coefs(k, flats[k]) for k in self.shards}
        self.intercepts = {k: sharded.intercepts(k, flats[k]) for k in self.shards}
        X = [part.astype(sharded.network.dtype, copy=False) for part in X]
        self._X, self._columns = X, {}
        if sharded.by_inputs[0]:
            # Of CSR each cut would look at all that is stored.
            X = [part.tocsc() if hasattr(part, "indptr") else part for part in X]
            for k in self.shards:
                cut = sharded.cut(0, k)
                columns = slice(cut.start - first_feature, cut.stop - first_feature)
                self._columns[k] = [part[:, columns] for part in X]

    def input(self, shard, m):
        """Return what the first layer takes of a micro-batch."""
        return self._columns[shard][m] if self._columns else self._X[m]

    def each(self, work, shards=None):
        """Call ``work(shard, m)`` for shards, all if none are given, and all micro-batches, on all threads."""
        n, shards = len(self.spans), self.shards if shards is None else shards
        self._for_each(len(shards) * n, lambda j: work(shards[j // n], j % n))


class Activations:
    """What layers give, by their numbers.

    Attributes
    ----------
    inner : dict of int to dict of int to ndarray
        Of layers cut by neurons, by shards.
    outer : dict of int to ndarray
        Of layers cut by inputs, of all shards.
    """

    def __init__(self, inner, outer):
        self.inner, self.outer = inner, outer

    @property
    def raw(self):
        """Raw predictions."""
        return self.outer[max(self.outer)]


class Slopes(Activations):
    """Slopes with regard to those before their activation, and their sums over the rows of each micro-batch."""

    def __init__(self, inner, outer, inner_sums, outer_sums):
        super().__init__(inner, outer)
        self.inner_sums, self.outer_sums = inner_sums, outer_sums


def _input(rows, inner, outer, layer, shard, m):
    """Return what a layer takes of a micro-batch."""
    if layer == 0:
        return rows.input(shard, m)
    return (inner[layer - 1][shard] if layer - 1 in inner else outer[layer - 1])[rows.spans[m]]
