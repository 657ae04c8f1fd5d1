"""How ranks that train together communicate: what a user hands to ``strategy=``.

Conventions. A strategy is a scikit-learn estimator: it is cloned, searched over (``strategy__compression__ratio``) and
never changed by a fit. What a rank remembers from batch to batch lies in ``replica.memory``, what all ranks know alike
in ``replica.shared``, a dict that is replaced, which outlives deaths. It has

* ``check(estimator)``, which refuses parameters, and combinations that cannot be right, and warns of risky ones;
* ``is_local``, whether ranks learn from their own rows for a while; ``spreads``, whether each is to have a part of
  every batch, small as it may be; ``remembers``, whether a rank knows what others do not, which its death loses;
  ``accumulate``, batches of which gradients are added up in one step, which makes them one batch of the schedule;
  ``batches_per_update``, those between two sums at least; ``is_sharded``, whether ranks hold parts of the model
  (`daskdml.training.sharded`); ``is_served``, whether they are with a parameter server (`daskdml.training.served`),
  else ``sends_gradients``, whether those of a rank travel: they are brought to the host
  then, wherever they are;
* ``manner(n_ranks)``, a few words for the report;
* ``advance(replica, comm, first, stop)``: train on batches ``first`` to ``stop - 1``; all ranks have the same
  ``replica.theta`` and moments before and after it, which ``replica.packed()`` and ``unpack`` bring to the host and
  back.

To add a strategy: one file like these, one line below.
"""

from daskdml.strategies._all_reduce import AllReduce
from daskdml.strategies._consistency import ASP, BSP, SSP
from daskdml.strategies._local_sgd import LocalSGD, OuterStep
from daskdml.strategies._model_parallel import Hybrid, ModelParallel
from daskdml.strategies._parameter_server import ParameterServer

__all__ = ["ASP", "BSP", "SSP", "AllReduce", "Hybrid", "LocalSGD", "ModelParallel", "OuterStep", "ParameterServer"]
