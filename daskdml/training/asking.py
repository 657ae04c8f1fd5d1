"""What all estimators that train by batches ask of their strategy, and say of it."""

import warnings


def check_strategy(strategy):
    """Refuse what is none of `daskdml.strategies`.

    Parameters
    ----------
    strategy : object
        An estimator's parameter, or what it takes None for.

    Raises
    ------
    ValueError
        Saying what to give.
    """
    if not isinstance(strategy, type) and hasattr(strategy, "advance"):
        return
    known = strategy.__name__ if hasattr(strategy, "advance") else "AllReduce"  # a class: its brackets are missing
    raise ValueError(f"strategy must be one of daskdml.strategies, such as {known}(), or None; got {strategy!r}.")


def check_place(strategy, layout):
    """Refuse rows on a device where strategies have shards of the model in the memory of hosts.

    Parameters
    ----------
    strategy : object of `daskdml.strategies`
    layout : str
        Of the rows.

    Raises
    ------
    ValueError
    """
    if layout == "device" and (strategy.is_sharded or strategy.is_served):
        raise ValueError(
            f"{type(strategy).__name__} has shards in the memory of hosts, and no step for those of a device; pass "
            "X.get(), NumPy chunks, or another strategy."
        )


def warn_of_forgetting(strategy):
    """Warn where a call of ``partial_fit`` begins without what ranks have left out in the one before.

    Parameters
    ----------
    strategy : object of `daskdml.strategies`
    """
    if strategy.remembers:
        warnings.warn(
            f"{type(strategy).__name__} with error feedback: each call of partial_fit begins without what the last "
            "one left out; give more rows to a call.",
            stacklevel=5,
        )  # fmt: skip
