"""Steps of stochastic gradient descent: parameters and moments in, parameters and moments out.

Conventions. A transform has ``n_moments``, and ``step(theta, gradient, moments, rate, n_updates, decay, each)``, which
changes theta and moments in place; they begin as zeros. What is stepped along is
``scale * (gradient + strength * theta)`` with ``decay = (n_decayed, strength, scale)``; see `daskdml.kernels.descent`.
"""

from typing import NamedTuple

import numpy as np

from daskdml.kernels import descent
from daskdml.utils.portable import portable

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

    def step(self, theta, gradient, moments, rate, n_updates, decay, each):
        """Step; ``n_updates`` counts this one."""

        def move(part, n_decayed, strength, scale):
            descent.momentum(
                theta[part], gradient[part], moments[0][part], n_decayed, strength, scale, rate, self.factor,
                self.is_nesterov,
            )  # fmt: skip

        _by_parts(move, len(theta), decay, each)


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

    def step(self, theta, gradient, moments, rate, n_updates, decay, each):
        """Step; ``n_updates`` counts this one."""
        rate = rate * np.sqrt(1.0 - self.beta_2**n_updates) / (1.0 - self.beta_1**n_updates)

        def move(part, n_decayed, strength, scale):
            descent.adam(
                theta[part], gradient[part], *(moment[part] for moment in moments), n_decayed, strength, scale, rate,
                self.beta_1, self.beta_2, self.epsilon,
            )  # fmt: skip

        _by_parts(move, len(theta), decay, each)


def _by_parts(move, n, decay, each):
    n_decayed, *rest = decay
    n_parts = -(-n // PART)
    if n_parts == 1:
        return move(slice(0, n), n_decayed, *rest)
    return each(n_parts, lambda i: move(slice(i * PART, (i + 1) * PART), max(n_decayed - i * PART, 0), *rest))
