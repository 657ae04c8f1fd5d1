"""Linear models of which batches are trained on: a network without hidden layers, with scikit-learn's SGD objective."""

from typing import NamedTuple

import numpy as np

from daskdml.kernels.device import module_of
from daskdml.kernels.margins import apply_margins
from daskdml.objectives.network import Network


class MarginLoss(NamedTuple):
    """A loss of `daskdml.kernels.sequential`; its link is the identity.

    Attributes
    ----------
    name : one of ``LOSSES``
    epsilon : float
    """

    name: str
    epsilon: float = 0.1

    def predict(self, raw):
        """Return raw."""
        return raw


class LinearBatches(Network):
    """Linear models beside each other, one for each output, of which none sees the others.

        raw = x W + b
        objective = mean_i weight_i sum_j factor_ij loss(y_ij, raw_ij) + sum_j (l2 / 2 ||w_j||^2 + l1 ||w_j||_1)

    The mean is over rows, whatever they weigh, as in scikit-learn: a batch of one row is its step.

    Parameters
    ----------
    n_features : int
    loss : MarginLoss
    labels : tuple of int, or None
        The class that each output tells from all others; None where y are numbers.
    factors : list of (float, float)
        Of each output: of the weights of rows of its class, and of the others.
    l2, l1 : float
        Only for the value: steps along the penalty are the transform's, `daskdml.solvers.descent.Plain`.

    Notes
    -----
    ``4 n p k`` flops for n rows; theta and gradients are float64, rows may be float32.

    Examples
    --------
    >>> model = LinearBatches(2, MarginLoss("hinge"), (1,), [(1.0, 1.0)])
    >>> out = np.empty(model.n_params)
    >>> work = model.workspace(1)
    >>> model.gradient(np.zeros(3), np.array([[1.0, 2.0]]), np.array([1.0]), None, out, work), out
    (1.0, array([-1., -2., -1.]))
    """

    def __init__(self, n_features, loss, labels, factors, l2=0.0, l1=0.0):
        super().__init__((n_features, len(factors)), "identity", loss, dtype=np.float64)
        self.l2, self.l1 = float(l2), float(l1)
        self._labels = np.array(() if labels is None else labels, np.int64)
        self._factors = np.array(factors, np.float64)

    def draws(self, seed):
        """Yield zeros; see `Network.draws`."""
        yield 0, 0, np.zeros(self.shapes[0]), np.zeros(self.sizes[-1])

    def gradient(self, theta, X, y, weight, out, work):
        """Write the gradient of the sum of losses, and return that sum; see `Network.gradient`."""
        # float32 rows are made float64 here, or each of the two products would do it.
        return super().gradient(theta, X.astype(self.dtype, copy=False), y, weight, out, work)

    def output(self, raw, y, weight, delta):
        """Write the weighted gradient of the loss with regard to raw predictions; return the sum of losses."""
        y = module_of(raw).asarray(y, dtype=np.float64)
        return apply_margins(raw, y, weight, *self.loss, self._labels, self._factors, delta)

    def weight_of(self, y, weight):
        """Return the number of rows."""
        return len(y)

    def penalty(self, coefs, weight):
        """Return what is added to the sum of losses of so many rows."""
        norms, xp = 0.0, module_of(coefs)
        with np.errstate(over="ignore"):
            if self.l2:
                norms += 0.5 * self.l2 * float(xp.dot(coefs, coefs))
            if self.l1:
                norms += self.l1 * float(xp.abs(coefs).sum())
        return weight * norms / self.sizes[-1]

    def scikit_learn_loss(self, value, y, weight):
        """Return a sum of losses and outputs as the mean over the outputs."""
        return value / self.sizes[-1]
