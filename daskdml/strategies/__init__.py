"""How ranks that train together communicate: what a user hands to ``strategy=``.

Conventions. A strategy is a scikit-learn estimator: it is cloned, searched over (``strategy__compression__ratio``) and
never changed by a fit. What it remembers from batch to batch lies in ``replica.memory`` of each rank. It has

* ``check(solver)``, which refuses parameters, and combinations that cannot be right;
* ``batches_per_update``;
* ``advance(replica, comm, first, stop)``: train on batches ``first`` to ``stop - 1``; all ranks have the same
  ``replica.theta`` and moments before and after it.

To add a strategy: one file like these, one line below.
"""

from daskdml.strategies._all_reduce import AllReduce

__all__ = ["AllReduce"]
