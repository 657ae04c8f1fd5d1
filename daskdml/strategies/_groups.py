"""Which ranks are in step with each other, where not all are."""

import numbers

from daskdml.utils.params import Interval, Options

GROUPS = [Interval(numbers.Integral, 1, None), Options({"host"}), None]  # what a strategy's ``groups`` may be


def groups_of(comm, groups):
    """Return the ranks of each group; see `group_of`.

    Parameters
    ----------
    comm : daskdml.runtime.spmd.Comm
    groups : int, "host" or None

    Returns
    -------
    list of sequence of int, or None
    """
    if groups is None or comm.size == 1:
        return None
    if groups == "host":
        hosts = comm.hosts
        return [[rank for rank, host in enumerate(hosts) if host == one] for one in dict.fromkeys(hosts)]
    n_groups = min(groups, comm.size)
    edges = [comm.size * k // n_groups for k in range(n_groups + 1)]
    return [range(a, b) for a, b in zip(edges, edges[1:])]


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
    found = groups_of(comm, groups)
    return None if found is None else next(members for members in found if comm.rank in members)
