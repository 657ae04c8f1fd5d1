"""Pointwise losses: functions of (y, raw prediction), with no X, no mean, no penalty.

Conventions. ``y`` has shape (n,): targets, or class codes 0, 1, ... ``raw`` has shape (n,) for one output, (n, k) for
k, before the link. ``weight`` has shape (n,) and multiplies value, gradient and hessian. Each loss states facts as
attributes (``n_outputs``, ``smooth``, ``shift_invariant``, ``constant_hessian``, ``y_domain``, ``infimum``) and has

* ``tile``: a compiled function of at most 256 rows, which kernels receive as an argument,
  ``tile(raw, y, weight, gradient, hessian, params, order) -> value``; order 0 wants the value, 1 the gradient too, 2
  the hessian too (a tile may write more);
* ``arrays``: the same by array formulas, for tests and for GPUs;
* ``predict``: the inverse link; ``baseline``: the best constant.

To add a loss: one file like these, one line below; `daskdml.testing.LossContract` then tests it.
"""

from daskdml.losses._logistic import Logistic
from daskdml.losses._multinomial import Multinomial
from daskdml.losses._squared import Squared

__all__ = ["Logistic", "Multinomial", "Squared"]
