"""A model cut into shards, as the process that asked for it sees it: what is sent out, and what comes back."""

import tempfile

import numpy as np

from daskdml.training.parts import result_name
from daskdml.training.training import MAPPED_BYTES
from daskdml.utils.config import get_config
from daskdml.utils.memory import Pages


def in_shards(training, state):
    """Return a training and its first state for ranks that hold shards.

    Parameters
    ----------
    training : Training
    state : TrainingState
        With all parameters, or None for new ones.
    """
    sharded = training.objective.in_shards(training.strategy.n_shards)
    begin, theta, best = None, state.theta, state.best_theta
    if theta is None:
        common = sharded.start(training.schedule.seed, ())[1]
        moments = tuple(np.zeros_like(common) for _ in range(training.transform.n_moments))
    else:
        begin = [theta, *state.moments]
        common, *moments = map(sharded.common_of, begin)
    state = state._replace(
        theta=common, moments=tuple(moments), best_theta=None if best is None else sharded.common_of(best)
    )  # fmt: skip
    return training._replace(first=state, begin=begin), state


class Gathering:
    """Puts shards together as they come, one at a time.

    Parameters
    ----------
    training : Training

    Attributes
    ----------
    arrays : list of ndarray of shape (n_params,)
        Parameters, and moments if they came too; large ones map files without a name.
    best : ndarray of shape (n_params,), or None
        Parameters of the best epoch, where one was marked.
    """

    def __init__(self, training):
        self._objective = training.objective
        self._sharded = training.objective.in_shards(training.strategy.n_shards)
        self._numbers = {result_name(k): k for k in range(self._sharded.n_shards)}
        self.arrays, self.best = [], None

    def take(self, name, value):
        """Take in a shard."""
        parts, best = value
        if not self.arrays:
            self.arrays = [self._room() for _ in parts]
            self.best = None if best is None else self._room()
        for array, part in zip([*self.arrays, self.best], [*parts, best]):
            if part is not None:
                with Pages(array):
                    self._sharded.put(array, self._numbers[name], part)

    def _room(self):
        n, dtype = self._objective.n_params, self._objective.dtype
        if n * dtype.itemsize < MAPPED_BYTES:
            return np.empty(n, dtype)
        with tempfile.TemporaryFile(dir=get_config()["scratch_dir"]) as file:
            return np.memmap(file, dtype, "w+", shape=(n,))

    def whole(self, state):
        """Return a state with all parameters."""
        if not self.arrays:  # of a training that failed
            return state
        for array, common in zip(self.arrays, (state.theta, *state.moments)):
            self._sharded.put_common(array, common)
        if self.best is not None:
            self._sharded.put_common(self.best, state.best_theta)
        theta, *moments = self.arrays
        return state._replace(theta=theta, moments=tuple(moments), best_theta=self.best)
