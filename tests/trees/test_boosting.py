"""Iterations of boosting on the rows of ranks."""

import numpy as np
import pytest

from daskdml.data import Block
from daskdml.kernels.binning import row_bytes
from daskdml.losses import Logistic, Multinomial, Poisson, Squared
from daskdml.programs import BoostingProgram
from daskdml.runtime.spmd import Meta, run_threads
from daskdml.trees import Bins, Boosting, BoostingState, Settings

N, BLOCK = 600, 100


def blocks(y, weight=None):
    """Return rows of two features with ten bins each, in blocks."""
    rng = np.random.default_rng(0)
    X = np.zeros((N, row_bytes(2)), np.uint8)
    X[:, :2] = rng.integers(0, 10, (N, 2))
    parts = enumerate(range(0, N, BLOCK))
    return [
        Block(X[a : a + BLOCK], y[a : a + BLOCK], None if weight is None else weight[a : a + BLOCK], i, a)
        for i, a in parts
    ]


def boost(loss, rows, n_ranks=1, **options):
    """Return the state after three iterations."""
    bins = Bins((np.arange(9.0), np.arange(9.0)), np.zeros(2, bool), 10)
    boosting = Boosting(loss, Settings(5, learning_rate=0.1), bins, np.zeros(2, bool), N, 3, 0, **options)
    program = BoostingProgram(boosting, BoostingState())
    return run_threads(program, rows, Meta(N, 2, len(rows)), n_ranks).state


@pytest.mark.timeout(60)
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
@pytest.mark.parametrize("loss", [Logistic(), Multinomial(2), Squared(), Poisson()], ids=lambda loss: loss.name)
def test_nan_on_one_rank_ends_the_run_of_all(loss, n_ranks):
    """Also where bounds of the gradients are known, so that ranks do not ask each other for the largest."""
    y = np.random.default_rng(0).integers(0, 2, N).astype(float)
    weight = np.ones(N)
    weight[-1] = np.nan
    with pytest.raises(ValueError, match=f"gradients of the {loss.name} loss, up to nan, are not finite"):
        boost(loss, blocks(y, weight), n_ranks, counts=False)
