"""Steps of stochastic gradient descent: parameters and moments in, parameters and moments out.

Conventions. A transform has ``n_moments``, and ``step(theta, gradient, moments, rate, n_updates, decay, each, share)``,
which changes theta and moments in place; they begin as zeros. What is stepped along is
``scale * (gradient + strength * theta)`` with ``decay = (n_decayed, strength, scale)``; see `daskdml.kernels.descent`.
``learnt(theta, moments, n_updates)`` is what has been found so far.

With a ``share`` below 1 a step is so much of one, for gradients of parts of a batch that come one by one: as many as
make a whole batch move theta as far as its own gradient does, and moments forget as much, to first order in the rate.
``n_updates`` counts shares then.
"""

import math
from typing import NamedTuple

import numpy as np

from daskdml.kernels import descent
from daskdml.utils.portable import portable

ROUNDING = 1e-6  # of sums of shares
PART = 1 << 18  # parameters that a thread steps at once; whatever their number, parts begin at the same places


@portable
class Momentum(NamedTuple):
    """Gradient descent with momentum; see `daskdml.kernels.descent.momentum`.

    Attributes
    ----------
    factor : float
    is_nesterov : bool
    """

    factor: float = 0.9
    is_nesterov: bool = True

    n_moments = 1

    def step(self, theta, gradient, moments, rate, n_updates, decay, each, share=1.0):
        """Step; ``n_updates`` counts this one."""

        factor = self.factor
        if share != 1.0:
            factor = self.factor**share
            # A gradient moves theta by rate / (1 - factor) in the end.
            rate = rate * share * (share if factor == 1.0 else (1.0 - factor) / (1.0 - self.factor))

        def move(part, n_decayed, strength, scale):
            descent.momentum(
                theta[part], gradient[part], moments[0][part], n_decayed, strength, scale, rate, factor,
                self.is_nesterov,
            )  # fmt: skip

        _by_parts(move, theta, decay, each)

    def learnt(self, theta, moments, n_updates):
        """Return theta."""
        return theta


@portable
class Adam(NamedTuple):
    """Adam; see `daskdml.kernels.descent.adam`.

    Attributes
    ----------
    beta_1, beta_2, epsilon : float
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    n_moments = 2

    def step(self, theta, gradient, moments, rate, n_updates, decay, each, share=1.0):
        """Step; ``n_updates`` counts this one."""
        if share == 1.0:
            first, second = 1.0 - self.beta_1**n_updates, 1.0 - self.beta_2**n_updates
        else:  # of a share as small as rounding, too
            betas = self.beta_1, self.beta_2
            first, second = (-math.expm1(n_updates * math.log(beta)) if beta else 1.0 for beta in betas)
        rate = share * rate * np.sqrt(second) / first
        beta_1, beta_2 = self.beta_1**share, self.beta_2**share

        def move(part, n_decayed, strength, scale):
            descent.adam(
                theta[part], gradient[part], *(moment[part] for moment in moments), n_decayed, strength, scale, rate,
                beta_1, beta_2, self.epsilon,
            )  # fmt: skip

        _by_parts(move, theta, decay, each)

    def learnt(self, theta, moments, n_updates):
        """Return theta."""
        return theta


@portable
class Plain(NamedTuple):
    """Gradient descent by scikit-learn's schedules, with its penalties and averages; see `kernels.descent.plain`.

    With the rate eta of update t = 1, 2, ...::

        w <- soft(max(0, 1 - eta l2) w - eta gradient, eta l1),   b <- b - intercept_rate eta gradient

    Attributes
    ----------
    schedule : {"constant", "adaptive", "invscaling", "optimal"}
        eta is the rate that `step` is given; that over ``t^power``; or ``1 / (alpha (start + t - 1))``.
    power, alpha, start : float
    l2, l1 : float
        Strengths of the penalties of the mean loss, here and not in ``decay``, of which the strength is ignored.
    intercept_rate : float
    average : int
        Parameters are averaged from this update on; 0 for never.

    Notes
    -----
    t counts updates, whatever the rows of a batch. A mean over b rows has a b-th of the variance, and after as many
    rows ``optimal`` has b times the rate of steps of one row: as much noise is left. Were rows counted, rates would go
    down b times too fast: with alpha = 0.01 and batches of 200 rows the objective was up to 40 times too large after 20
    epochs of three data sets, and is at most 20 % too large so (measured).
    """

    schedule: str = "constant"
    power: float = 0.5
    alpha: float = 0.0
    start: float = 0.0
    l2: float = 0.0
    l1: float = 0.0
    intercept_rate: float = 1.0
    average: int = 0

    @property
    def n_moments(self):
        """One for averages."""
        return 1 if self.average else 0

    def rate(self, first, t):
        """Return the rate of update t."""
        if self.schedule == "optimal":
            return 1.0 / (self.alpha * (self.start + t - 1.0))
        return first / t**self.power if self.schedule == "invscaling" else first

    def step(self, theta, gradient, moments, rate, n_updates, decay, each, share=1.0):
        """Step; ``n_updates`` counts this one."""
        rate = share * self.rate(rate, n_updates + (1.0 - share))
        factors = max(0.0, 1.0 - rate * self.l2), rate * self.l1
        is_averaged = self.is_averaged(n_updates)
        weight = 0.0
        if is_averaged:  # the first share of all has all of it
            is_first = not self.is_averaged(n_updates - share)
            weight = 1.0 if is_first else share / (n_updates - self.average + share)

        def move(part, n_decayed, _, scale):
            average = moments[0][part] if is_averaged else theta[:0]
            rates = rate, self.intercept_rate * rate
            descent.plain(theta[part], gradient[part], average, n_decayed, *factors, scale, *rates, weight)

        _by_parts(move, theta, decay, each)

    def is_averaged(self, n_updates):
        """Tell whether averages have begun by then."""
        return bool(self.average) and self.average <= n_updates + ROUNDING

    def learnt(self, theta, moments, n_updates):
        """Return the average, or theta where there is none yet."""
        return moments[0] if self.is_averaged(n_updates) else theta


def _by_parts(move, theta, decay, each):
    n, (n_decayed, *rest) = len(theta), decay
    n_parts = -(-n // PART) if isinstance(theta, np.ndarray) else 1  # a device has threads of its own
    if n_parts == 1:
        return move(slice(0, n), n_decayed, *rest)
    return each(n_parts, lambda i: move(slice(i * PART, (i + 1) * PART), max(n_decayed - i * PART, 0), *rest))
