"""A fully connected network: its loss and gradient on some rows, its raw predictions on others.

Conventions. ``theta`` is one flat vector: the coefficients of all layers, then the intercepts of all layers. A batch's
gradient is a *sum* over its rows, without the penalty: sums of batches are the sum of a larger batch.
"""

import functools
import itertools

import numpy as np
from scipy.special import xlogy

from daskdml.kernels.device import module_of
from daskdml.kernels.layers import activate, back_through, product
from daskdml.kernels.pointwise import apply_loss
from daskdml.objectives.shards import ShardedNetwork

DRAWN = 1 << 20  # numbers drawn at a time


class Network:
    """Layers of linear maps with an activation between them, and a loss at the end.

        a_0 = x,   a_l = act(a_{l-1} W_l + b_l),   raw = a_{L-1} W_L + b_L
        objective = (sum_i weight_i loss(y_i, raw_i) + alpha / 2 sum_l ||W_l||^2) / sum_i weight_i

    Parameters
    ----------
    sizes : tuple of int
        Features, neurons of each hidden layer, outputs.
    activation : {"identity", "logistic", "tanh", "relu"}
    loss : object of `daskdml.losses`
        One that takes a raw value is added up over the outputs.
    alpha : float, default 0.0
    dtype : numpy dtype, default float32
        Of parameters, activations and gradients; losses are computed in float64.

    Notes
    -----
    scikit-learn's ``MLPClassifier`` and ``MLPRegressor``. ``6 d n`` flops for n rows and d coefficients, in products of
    matrices; memory beside theta is two numbers a row and neuron. D. Rumelhart, G. Hinton, R. Williams, "Learning
    representations by back-propagating errors", 1986.

    Examples
    --------
    >>> from daskdml.losses import Squared
    >>> network = Network((2, 3, 1), "tanh", Squared(), dtype=np.float64)
    >>> network.n_params, network.n_decayed
    (13, 9)
    >>> network.raw(network.start(0), np.zeros((5, 2))).shape
    (5, 1)
    """

    def __init__(self, sizes, activation, loss, alpha=0.0, dtype=np.float32):
        self.sizes, self.activation, self.loss = tuple(int(n) for n in sizes), activation, loss
        self.alpha, self.dtype = float(alpha), np.dtype(dtype)

    @functools.cached_property
    def shapes(self):
        """Shapes of the coefficients of all layers."""
        return tuple(itertools.pairwise(self.sizes))

    @functools.cached_property
    def n_decayed(self):
        """Coefficients: the parameters that the penalty acts on, which stand first."""
        return sum(a * b for a, b in self.shapes)

    @functools.cached_property
    def n_params(self):
        """Length of theta."""
        return self.n_decayed + sum(self.sizes[1:])

    @functools.cached_property
    def _edges(self):
        sizes = [a * b for a, b in self.shapes] + list(self.sizes[1:])
        return [0, *itertools.accumulate(sizes)]

    def coefs(self, theta):
        """Return the coefficients of each layer, views of theta of shape (n_in, n_out)."""
        edges = self._edges
        return [theta[edges[i] : edges[i + 1]].reshape(shape) for i, shape in enumerate(self.shapes)]

    def intercepts(self, theta):
        """Return the intercepts of each layer, views of theta."""
        edges, n = self._edges, len(self.shapes)
        return [theta[edges[n + i] : edges[n + i + 1]] for i in range(n)]

    def flatten(self, coefs, intercepts):
        """Return theta of the parameters of all layers."""
        return np.concatenate([np.ravel(part) for part in (*coefs, *intercepts)]).astype(self.dtype)

    def start(self, seed):
        """Draw the first theta, as scikit-learn does for ``random_state=seed``: uniform up to sqrt(f / (in + out)).

        f is 2 for "logistic", otherwise 6. X. Glorot, Y. Bengio, "Understanding the difficulty of training deep
        feedforward neural networks", 2010.
        """
        theta = np.empty(self.n_params, self.dtype)
        coefs, intercepts = self.coefs(theta), self.intercepts(theta)
        for i, first, drawn, intercept in self.draws(seed):
            coefs[i][first : first + len(drawn)] = drawn
            if intercept is not None:
                intercepts[i][:] = intercept
        return theta

    def draws(self, seed):
        """Yield what `start` draws in its order, some rows of coefficients at a time.

        Yields
        ------
        layer, first : int
            Whose coefficients they are, and the number of the first row.
        drawn : ndarray of float64, shape (n_rows, n_out)
        intercept : ndarray of float64, shape (n_out,), or None
            With the last rows of a layer.
        """
        random, factor = np.random.RandomState(seed % 2**32), 2.0 if self.activation == "logistic" else 6.0
        for i, (n_in, n_out) in enumerate(self.shapes):
            bound, n_rows = np.sqrt(factor / (n_in + n_out)), max(DRAWN // n_out, 1)
            for first in range(0, n_in, n_rows):
                drawn = random.uniform(-bound, bound, (min(n_rows, n_in - first), n_out))
                is_last = first + len(drawn) == n_in
                yield i, first, drawn, random.uniform(-bound, bound, n_out) if is_last else None

    def in_shards(self, n_shards="auto"):
        """Return the `ShardedNetwork` of so many shards."""
        return ShardedNetwork(self, n_shards)

    def raw(self, theta, X):
        """Return raw predictions.

        Parameters
        ----------
        theta : ndarray of shape (n_params,)
        X : ndarray or CSR of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_outputs), of theta's dtype
        """
        layers = list(zip(self.coefs(theta), self.intercepts(theta)))
        for coef, intercept in layers[:-1]:
            X = X @ coef
            activate(X, intercept, self.activation)
        coef, intercept = layers[-1]
        return X @ coef + intercept

    def workspace(self, n_rows, like=np):
        """Return the arrays that `gradient` of up to so many rows writes to, for one thread."""
        return Workspace(self.sizes, n_rows, self.dtype, like)

    def gradient(self, theta, X, y, weight, out, work):
        """Write the gradient of ``sum_i weight_i loss_i`` and return that sum.

        Parameters
        ----------
        theta : ndarray of shape (n_params,)
        X : ndarray of ``dtype``, or CSR, shape (n, n_features)
        y : ndarray of shape (n,) or (n, n_outputs)
        weight : ndarray of float64, shape (n,), or None
        out : ndarray of shape (n_params,), or longer
        work : Workspace

        Returns
        -------
        float
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is seen in the sum of losses
            parts = *work.parts_of(self, theta), *work.parts_of(self, out)
            return float(self._gradient(X, y, weight, *parts, work))

    def _gradient(self, X, y, weight, coefs, intercepts, d_coefs, d_intercepts, work):
        n, last = X.shape[0], len(self.shapes) - 1
        inputs = [X]
        for i in range(last + 1):
            a = work.activations[i][:n]
            product(inputs[i], coefs[i], a)
            activate(a, intercepts[i], self.activation if i < last else "identity")
            inputs.append(a)
        delta = work.deltas[last][:n]
        value = self.output(inputs[-1], y, weight, delta)
        for i in range(last, -1, -1):
            back_through(inputs[i + 1], delta, self.activation if i < last else "identity", d_intercepts[i])
            product(inputs[i].T, delta, d_coefs[i])
            if i:
                before = work.deltas[i - 1][:n]
                product(delta, coefs[i].T, before)
                delta = before
        return value

    def output(self, raw, y, weight, delta):
        """Write the weighted gradient of the loss with regard to raw predictions; return the sum of losses.

        That is not waited for where it is computed on a device.
        """
        by_rows = self.loss.n_outputs > 1
        margins = raw.astype(np.float64)
        if not by_rows:
            k = margins.shape[1]
            margins, y = margins.reshape(-1), y.reshape(-1)
            weight = weight if weight is None or k == 1 else weight.repeat(k)
        if isinstance(raw, np.ndarray):
            value, gradient, _ = apply_loss(margins, y, weight, self.loss, 1)
        else:  # on a device, by whole arrays
            xp = module_of(raw)
            weight = xp.ones(len(margins)) if weight is None else xp.asarray(weight)
            value, gradient, _ = self.loss.arrays(margins, xp.asarray(y, dtype=np.float64), weight, 1, xp)
        delta[...] = gradient.reshape(raw.shape)
        return value

    def weight_of(self, y, weight):
        """Return what the sums over a batch are divided by."""
        return len(y) if weight is None else weight.sum()

    def penalty(self, coefs, weight):
        """Return what is added to the sum of losses of a batch of that weight."""
        if not self.alpha:
            return 0.0
        with np.errstate(over="ignore"):
            return 0.5 * self.alpha * float(module_of(coefs).dot(coefs, coefs))

    def scikit_learn_loss(self, value, y, weight):
        """Return a sum of losses as scikit-learn counts it: the mean over outputs of squared errors, y log y - y."""
        if self.loss.name == "squared":
            return value / self.sizes[-1]
        if self.loss.name == "poisson":
            known = xlogy(y, y) - y
            known = known if known.ndim == 1 else known.sum(axis=1)
            return value + float(known.sum() if weight is None else known @ weight)
        return value


class Workspace:
    """Arrays of one thread that a gradient is computed in.

    Attributes
    ----------
    activations, deltas : list of ndarray of shape (n_rows, n_neurons)
    """

    def __init__(self, sizes, n_rows, dtype, like=np):
        self.activations = [like.empty((n_rows, n), dtype) for n in sizes[1:]]
        self.deltas = [like.empty((n_rows, n), dtype) for n in sizes[1:]]
        self._parts = {}

    def parts_of(self, network, theta):
        """Return coefficients and intercepts of a vector, which is often one that was here before.

        To make the views anew takes as long as to activate a layer of 256 rows.
        """
        known, *parts = self._parts.get(id(theta), (None,))
        if known is not theta:
            if len(self._parts) > 64:
                self._parts.clear()
            parts = network.coefs(theta), network.intercepts(theta)
            self._parts[id(theta)] = theta, *parts  # held, so that its number is no other array's
        return parts
