"""What shards do with gradients that are pushed to them: steps of SGD, momentum, AdaGrad or Adam, and L1 after each."""

import numbers

import numpy as np

from daskdml.utils.params import Interval, Options, check_values


class TableRule:
    """Take a step along each gradient that is added to a table.

    With g the sum of what was pushed together, in the n-th push to this part of the table::

        sgd       w <- w - r g,                                          r = rate
        momentum  v <- momentum v - r g,                 w <- w + v
        adagrad   s <- s + g^2,                          w <- w - r g,   r = rate / (sqrt(s) + epsilon)
        adam      m <- momentum m + (1 - momentum) g,    w <- w - r m / (1 - momentum^n)
                  s <- beta_2 s + (1 - beta_2) g^2,      r = rate / (sqrt(s / (1 - beta_2^n)) + epsilon)

    where r is zero as long as a number has had no gradient; and then, with L1, ``w <- sign(w) max(|w| - r l1, 0)``: the
    proximal operator of ``l1 |w|`` in the metric of the step.

    Parameters
    ----------
    method : {"sgd", "momentum", "adagrad", "adam"}, default "sgd"
    rate : float, default 0.1
    l1 : float, default 0.0
        Of all that is pushed together: with BSP that of a clock, else of each push.
    momentum : float, default 0.9
        Also of the first moments of ``adam``.
    beta_2 : float, default 0.999
    epsilon : float, default 1e-8

    Attributes
    ----------
    n_moments : int
        Arrays beside each number of the table: 0, 1, 1 and 2.

    Raises
    ------
    ValueError
        For parameters that are none.

    Notes
    -----
    Of a `SparseTable` the rows that are added to take a step, and no other: L1 shrinks them then, and moments of others
    stay. J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods", JMLR 12 (2011); D. Kingma, J. Ba, "Adam", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> rule, w, s = TableRule("adagrad", rate=0.5, l1=0.1), np.array([1.0, 0.0]), np.zeros(2)
    >>> rule.step(w, np.array([2.0, 0.0]), [s], 1)
    >>> w, s
    (array([0.475, 0.   ]), array([4., 0.]))
    """

    _MOMENTS = {"sgd": 0, "momentum": 1, "adagrad": 1, "adam": 2}

    def __init__(self, method="sgd", rate=0.1, *, l1=0.0, momentum=0.9, beta_2=0.999, epsilon=1e-8):
        self.method, self.rate, self.l1 = method, rate, l1
        self.momentum, self.beta_2, self.epsilon = momentum, beta_2, epsilon
        real = numbers.Real
        check_values("TableRule", dict(vars(self)), {
            "method": [Options(set(self._MOMENTS))], "rate": [Interval(real, 0, None, "neither")],
            "l1": [Interval(real, 0, None, "left")], "momentum": [Interval(real, 0, 1, "left")],
            "beta_2": [Interval(real, 0, 1, "left")], "epsilon": [Interval(real, 0, None, "neither")],
        })  # fmt: skip

    @property
    def n_moments(self):
        """How many arrays there are beside the table."""
        return self._MOMENTS[self.method]

    def step(self, theta, update, moments, n_updates):
        """Take a step, in place.

        Parameters
        ----------
        theta, update : ndarray of shape (n,)
        moments : list of ndarray of shape (n,)
        n_updates : int
            This one among them.
        """
        rate, mu = self.rate, self.momentum
        if self.method == "momentum":
            moments[0] *= mu
            moments[0] -= rate * update
            theta += moments[0]
        elif self.method == "adam":
            first, second = moments
            first += (1.0 - mu) * (update - first)
            second += (1.0 - self.beta_2) * (update * update - second)
            rate = self._scaled(second / (1.0 - self.beta_2**n_updates))
            theta -= rate * first / (1.0 - mu**n_updates)
        else:
            if self.method == "adagrad":
                moments[0] += update * update
                rate = self._scaled(moments[0])
            theta -= rate * update
        if self.l1:
            np.copyto(theta, np.sign(theta) * np.maximum(np.abs(theta) - rate * self.l1, 0.0))

    def _scaled(self, square):
        """Return the rate of each number: zero where there never was a gradient, and no L1 then either."""
        return np.where(square > 0, self.rate / (np.sqrt(square) + self.epsilon), 0.0).astype(square.dtype)
