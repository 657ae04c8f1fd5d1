"""Fits that fail leave an object as it was."""

import functools


def all_or_nothing(method):
    """Give an object all its attributes back when a method of it raises, so that nothing is half fitted.

    Attributes that the method replaces come back; those it would change in place do not.

    Parameters
    ----------
    method : function
        Such as ``fit``.

    Returns
    -------
    function

    Examples
    --------
    >>> class Counter:
    ...     @all_or_nothing
    ...     def fit(self, X):
    ...         self.n_ = len(X)
    ...         self.first_ = X[0]
    >>> counter = Counter()
    >>> counter.fit([3, 4])
    >>> try:
    ...     counter.fit([])
    ... except IndexError:
    ...     vars(counter)
    {'n_': 2, 'first_': 3}
    """

    @functools.wraps(method)
    def whole(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole
