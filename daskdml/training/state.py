"""What all ranks know of a training: parameters, moments, and how it went so far."""

from typing import Any, NamedTuple

import numpy as np

from daskdml.utils.portable import portable


@portable
class EpochTrace(NamedTuple):
    """What it had taken when an epoch ended, of one rank.

    Attributes
    ----------
    seconds : dict
        By phase, and "all".
    n_rounds, bytes_sent, bytes_received : int
    """

    seconds: Any
    n_rounds: int
    bytes_sent: int
    bytes_received: int


@portable
class TrainingState(NamedTuple):
    """A training between two batches, the same on every rank but for what is said to be of one.

    Attributes
    ----------
    theta : ndarray of shape (n_params,)
    moments : tuple of ndarray of shape (n_params,)
    rate : float
        Of learning, before what a strategy or a warm-up makes of it.
    epoch, batch : int
        Epochs of this fit that are over, and batches of the next one.
    age, n_updates, n_seen : int
        Epochs, updates and rows of all fits that went on from each other.
    loss_sum : ndarray of shape (2,)
        Of the epoch so far: mean losses of batches times their rows, with the penalty, and these rows. Batches whose
        weights are all zero are not among them.
    losses, scores : tuple of float
        By epochs, of all fits.
    best_loss, best_score : float
    best_theta : ndarray or None
    n_idle : int
        Epochs in a row that were no better.
    stopped_because : str
        Empty while it goes on.
    seconds : dict
        Of one rank: "compute", "update", "encode", "transfer", "wait", "score", "save".
    trace : tuple of EpochTrace
        After each epoch of this fit.
    n_rounds, bytes_sent, bytes_received : int
        Of one rank.
    n_ranks : int
        In the last superstep.
    n_lost : int
        How often a group began without what its ranks had remembered.
    shared : dict or None
        What a strategy remembers on all ranks alike.
    moved : dict or None
        Bytes that it sent and received for "rows", "steps", "scores" and "saving": pairs.
    n_steps : int
        Supersteps of this fit, those that a death had done again counted once.
    cut : tuple of int
        How batches are cut, see `Schedule.cut`: for the ranks that there were in the beginning, where that matters.
    """

    theta: Any
    moments: tuple
    rate: float
    epoch: int = 0
    batch: int = 0
    age: int = 0
    n_updates: int = 0
    n_seen: int = 0
    loss_sum: Any = np.zeros(2)
    losses: tuple = ()
    scores: tuple = ()
    best_loss: float = np.inf
    best_score: float = -np.inf
    best_theta: Any = None
    n_idle: int = 0
    stopped_because: str = ""
    seconds: Any = None
    trace: tuple = ()
    n_rounds: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    n_ranks: int = 1
    n_lost: int = 0
    shared: Any = None
    moved: Any = None
    n_steps: int = 0
    cut: tuple = ()
