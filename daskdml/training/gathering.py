"""A model cut into shards, as the process that asked for it sees it: what is sent out, and what comes back."""

import mmap
import tempfile

import numpy as np

from daskdml.training.parts import result_name
from daskdml.utils.config import get_config
from daskdml.utils.memory import Pages, RowsFile

MAPPED_BYTES = 1 << 28  # of parameters: more of them are a file, whose pages need not be in memory


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
        begin = [whole if whole.any() else None for whole in begin]  # zeros need not be sent
    state = state._replace(
        theta=common, moments=tuple(moments), best_theta=None if best is None else sharded.common_of(best)
    )  # fmt: skip
    return training._replace(first=state, begin=begin, save_every=get_config()["checkpoint_every"]), state


def room_of(n, dtype, mapped_bytes=MAPPED_BYTES):
    """Return an array for so many numbers, which maps a file without a name if they take so many bytes."""
    if n * dtype.itemsize < mapped_bytes:
        return np.empty(n, dtype)
    with tempfile.TemporaryFile(dir=get_config()["scratch_dir"]) as file:
        RowsFile(file, (n, 1), dtype)  # reserves the room
        # Not np.memmap, which joblib would send to other processes by the name of the file, and it has none.
        return np.ndarray(n, dtype, mmap.mmap(file.fileno(), n * dtype.itemsize))


class Gathering:
    """Puts shards together as they come, one at a time.

    Parameters
    ----------
    training : Training

    Attributes
    ----------
    arrays : list of ndarray of shape (n_params,)
        Parameters and moments; large ones map files without a name.
    best : ndarray of shape (n_params,), or None
        Parameters of the best epoch, where one was marked.
    """

    def __init__(self, training):
        self._objective = training.objective
        self._sharded = training.objective.in_shards(training.strategy.n_shards)
        self._numbers = {result_name(k): k for k in range(self._sharded.n_shards)}
        # At once: better no room now than at the end.
        self.arrays = [self._room() for _ in range(1 + training.transform.n_moments)]
        self.best = self._room() if training.is_judged_by_score else None
        self._has_best = self._is_given = False

    def take(self, name, value):
        """Take in a shard."""
        parts, best = value
        self._is_given, self._has_best = True, best is not None
        for array, part in zip([*self.arrays, self.best], [*parts, best]):
            if part is not None:
                with Pages(array):
                    self._sharded.put(array, self._numbers[name], part)

    def _room(self):
        return room_of(self._objective.n_params, self._objective.dtype)

    def whole(self, state):
        """Return a state with all parameters."""
        if not self._is_given:  # of a training that failed
            return state
        for array, common in zip(self.arrays, (state.theta, *state.moments)):
            self._sharded.put_common(array, common)
        if self._has_best:
            self._sharded.put_common(self.best, state.best_theta)
        theta, *moments = self.arrays
        return state._replace(theta=theta, moments=tuple(moments), best_theta=self.best if self._has_best else None)
