"""Pointwise losses: functions of (y, raw prediction), with no X, no mean, no penalty.

Conventions. ``y`` has shape (n,): targets, or class codes 0, 1, ... ``raw`` has shape (n,) for one output, (n, k) for
k, before the link. ``weight`` has shape (n,) and multiplies value, gradient and hessian. Each loss states facts as
attributes (``n_outputs``, ``smooth``, ``shift_invariant``, ``constant_hessian``, ``y_domain``, ``infimum``,
``quantile``) and has

* ``tile``: a compiled function of at most 256 rows, which kernels receive as an argument,
  ``tile(raw, y, weight, gradient, hessian, params, order) -> value``; order 0 wants the value, 1 the gradient too, 2
  the hessian too, 3 gradient and hessian alone: it returns 0.0, and writes the bits of order 2; 4 the value
  of each row, written over its weight (a tile may write more than is wanted);
* ``arrays``: the same by array formulas, for tests and for GPUs; it computes all three whatever the order;
* ``predict``: the inverse link; ``baseline``: the best constant, from the mean of the targets (the shares of the
  classes), or from their ``quantile`` where that is a number and not None; finite for every mean there can be.

``y_domain`` holds the lowest and the highest target. A loss that is not ``smooth`` writes a subgradient where it has a
kink and, as hessian, a positive stand-in.

To add a loss: one file like these, one line below; `daskdml.testing.LossContract` then tests it.
"""

from daskdml.losses._absolute import Absolute
from daskdml.losses._gamma import Gamma
from daskdml.losses._logistic import Logistic
from daskdml.losses._multinomial import Multinomial
from daskdml.losses._pinball import Pinball
from daskdml.losses._poisson import Poisson
from daskdml.losses._squared import Squared

__all__ = ["Absolute", "Gamma", "Logistic", "Multinomial", "Pinball", "Poisson", "Squared"]
