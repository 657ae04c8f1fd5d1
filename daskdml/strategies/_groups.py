"""Which ranks are in step with each other, where not all are."""

import numbers

from daskdml.utils.params import Interval, Options

GROUPS = [Interval(numbers.Integral, 1, None), Options({"host"}), None]  # what a strategy's ``groups`` may be


def group_of(comm, groups):
    """Return the ranks that this one adds up gradients with before every step.

    Parameters
    ----------
    comm : daskdml.runtime.spmd.Comm
    groups : int, "host" or None
        So many groups of neighbours; or those of a machine each.

    Returns
    -------
    sequence of int or None
        Ascending, this rank among them; None if there are no groups, or no other ranks.
    """
    if groups is None or comm.size == 1:
        return None
    if groups == "host":
        hosts = comm.hosts
        return [rank for rank, host in enumerate(hosts) if host == hosts[comm.rank]]
    n_groups = min(groups, comm.size)
    edges = [comm.size * k // n_groups for k in range(n_groups + 1)]
    mine = next(k for k in range(n_groups) if edges[k] <= comm.rank < edges[k + 1])
    return range(edges[mine], edges[mine + 1])
