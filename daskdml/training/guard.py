"""Watches whether training with less communication converges, and goes on with more where it does not."""

import numpy as np

from daskdml.training.served import GONE_BACK

WORSE = 1.5  # times the best loss of an epoch at which training goes back
PATIENCE = 2  # epochs that may be no better


def strategy_at(strategy, level, n_numbers):
    """Return the strategy after having been loosened so many times; see its ``loosened``."""
    for _ in range(level):
        strategy = strategy.loosened(n_numbers) or strategy
    return strategy


def watch(training, state, replica, n_numbers, goes_back=True):
    """Look at the epoch that has just ended; loosen the strategy, and go back, where convergence suffers.

    Parameters
    ----------
    training : Training or SequentialTraining
    state : TrainingState or SequentialState
    replica : Replica
    n_numbers : int
        Coefficients of the model.
    goes_back : bool, default True
        Whether the state has all that the best epoch has learnt; else training goes on from where it is.

    Returns
    -------
    state : TrainingState
    has_gone_back : bool
        Whether the epoch counts for nothing.
    """
    shared, loss = dict(state.shared or {}), state.losses[-1]
    good = shared.get("good")
    level, idle = shared.get("level", 0), shared.get("idle", 0)
    finer = strategy_at(training.strategy, level, n_numbers).loosened(n_numbers)
    learnt = (state.theta, state.moments) if goes_back else (None, None)
    is_bad = not np.isfinite(loss) or not np.isfinite(state.theta).all() or (good and loss > WORSE * good[2])
    is_better = not is_bad and (not good or loss < good[2] - max(training.tol, 0.0))
    if is_better or finer is None:
        shared.update(good=(*learnt, loss, state.n_updates) if not is_bad else good, idle=0)
        return state._replace(shared=shared), False
    if not is_bad and idle + 1 < PATIENCE:
        return state._replace(shared={**shared, "idle": idle + 1}), False
    what = f"epoch {state.epoch}: the loss is {loss:.4g}"
    if good:
        what += f", the best one {good[2]:.4g}" if is_bad else f", no better than {good[2]:.4g} for {PATIENCE} epochs"
    why = "from the best one" if is_bad and good else "lest it is what waits that holds it up"
    why = "from where it is" if is_bad and not goes_back else why
    note = f"{what}; goes on with {finer}, {why}"
    shared.update(level=level + 1, idle=0, notes=(*shared.get("notes", ()), note))
    replica.forget()
    state = state._replace(shared=shared)
    # Where not even the first epoch was good there is nothing to go back to.
    if not (is_bad and good and goes_back):
        return state, False
    shared.pop("velocity", None)  # of an outer step: it led here
    if training.is_served:
        shared[GONE_BACK] = True
    return state._replace(theta=good[0], moments=good[1], n_updates=good[3]), True
