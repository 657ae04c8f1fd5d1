"""What workers see of each other's pushes to a parameter server."""

import numbers

from sklearn.base import BaseEstimator

from daskdml.utils.params import Interval, check_params


class BSP(BaseEstimator):
    """Bulk synchronous parallel: a worker reads what all have pushed in all clocks before.

    Updates of one clock are taken in together, as their sum in the order of workers, when the last one has come.

    Notes
    -----
    The slowest worker of each clock is waited for. L. Valiant, "A bridging model for parallel computation", 1990.

    Examples
    --------
    >>> BSP().bound
    0
    """

    bound, is_collective = 0, True


class SSP(BaseEstimator):
    """Stale synchronous parallel: a worker may be some clocks ahead of the slowest one, and no more.

    What it reads in clock c misses no update of clocks before ``c - staleness``, and may have newer ones. An update
    counts as soon as it comes.

    Parameters
    ----------
    staleness : int, default 3
        Clocks.

    Notes
    -----
    Workers that are slow now and then are not waited for; one that is always slow is, after ``staleness`` clocks. Of
    P workers an update sees at most ``(P - 1) (2 staleness + 1)`` others that came between. Q. Ho et al., "More
    effective distributed ML via a stale synchronous parallel parameter server", 2013.

    Examples
    --------
    >>> SSP(3).bound
    3
    """

    _constraints = {"staleness": [Interval(numbers.Integral, 0, None)]}
    is_collective = False

    def __init__(self, staleness=3):
        self.staleness = staleness

    def __repr__(self):  # reports name the number where it is the default, too
        return f"SSP({self.staleness!r})"

    @property
    def bound(self):
        """Clocks that a worker may be ahead."""
        check_params(self, self._constraints)
        return int(self.staleness)


class ASP(BaseEstimator):
    """Asynchronous: nobody waits for anybody, and nothing is promised of what is read.

    Notes
    -----
    A slow worker's rows count less than others', for it pushes less often. B. Recht et al., "Hogwild!", 2011.

    Examples
    --------
    >>> ASP().bound is None
    True
    """

    bound, is_collective = None, False
