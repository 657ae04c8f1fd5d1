"""Let a transformer's Dask output pass by scikit-learn's output containers, which would collect it."""

import functools


class LazyOutputMixin:
    """Make ``set_output`` act on in-memory input only.

    Stands before `sklearn.base.TransformerMixin`, which wraps ``transform`` and ``fit_transform`` so that their result
    becomes the configured container. A Dask collection would be computed for that, in the client; it is returned as it
    is instead: a Dask DataFrame already carries the names and the index that a container would add.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name in ("transform", "fit_transform"):
            if hasattr(cls, name):
                setattr(cls, name, _wrapped_in_memory_only(getattr(cls, name)))


def _wrapped_in_memory_only(wrapped):
    plain = getattr(wrapped, "__wrapped__", wrapped)

    @functools.wraps(plain)
    def method(self, X, *args, **params):
        from daskdml.data import is_dask

        return (plain if is_dask(X) else wrapped)(self, X, *args, **params)

    return method
