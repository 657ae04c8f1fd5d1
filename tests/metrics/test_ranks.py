"""Keys sort as scores do, merging loses nothing, and the bound with bins holds."""

import itertools
import warnings

import dask.array as da
import numpy as np
import pytest
import sklearn.metrics as theirs
from numpy.testing import assert_allclose, assert_array_equal

from daskdml.metrics import roc_auc_score
from daskdml.metrics._ranks import Cells, area_under_curve, score_keys

SPREADS = {
    "margins": lambda rng, n: rng.normal(size=n),
    "wide": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-300, 290, n),
    "probabilities": lambda rng, n: rng.uniform(size=n),
    "near zero": lambda rng, n: rng.beta(0.1, 50, n),
    "near one": lambda rng, n: 1 - rng.beta(0.1, 50, n),
    "narrow": lambda rng, n: rng.normal(1e6, 1e-3, n),
    "ties": lambda rng, n: np.round(rng.normal(size=n), 1),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("spread", SPREADS)
def test_keys_sort_as_scores(rng, spread):
    scores = SPREADS[spread](rng, 2000)
    assert_array_equal(np.unique(scores, return_inverse=True)[1], np.unique(score_keys(scores), return_inverse=True)[1])


def test_keys_at_the_seams():
    at = [-1e308, -1.0, -5e-324, 0.0, 5e-324, 0.5, 1.0, 2.0, 2.0**970]
    scores = np.unique([np.nextafter(x, direction) for x in at for direction in (-np.inf, x, np.inf)][:-1])
    keys = score_keys(scores)
    assert (keys[1:] > keys[:-1]).all()
    assert_array_equal(*(score_keys(np.array([zero])) for zero in (0.0, -0.0)))


def bounded(y, scores, bins, lengths, max_fpr=None):
    """Answer and bound from chunks of the given lengths, merged in order."""
    whole = Cells.of(scores[:0], y[:0], None, bins)
    for rows in np.split(np.arange(len(y)), np.cumsum(lengths)):
        whole = whole.merge(Cells.of(scores[rows], y[rows], None, bins), bins)
    return area_under_curve(whole, np.array([False, True]), np.array([True, False]), max_fpr)


@pytest.mark.parametrize("max_fpr", [None, 0.5, 0.01])
@pytest.mark.parametrize("bins", [2, 16, 300])
@pytest.mark.parametrize("spread", SPREADS)
def test_the_bound_holds(rng, spread, bins, max_fpr):
    scores = SPREADS[spread](rng, 3000)
    y = (np.argsort(np.argsort(scores)) / 3000 + rng.normal(0, 0.5, 3000) > 0.8).astype(int)
    area, bound = bounded(y, scores, bins, [1000, 0, 1, 1500], max_fpr)
    exact = theirs.roc_auc_score(y, scores, max_fpr=max_fpr)
    assert abs(area - exact) <= bound + 1e-12
    if spread == "ties" and bins == 300:
        assert bound == 0
    if max_fpr is None and bins == 300:
        assert bound <= (0.05 if spread == "wide" else 0.02)


@pytest.mark.parametrize("bins", [10, 100, None])
def test_chunking_changes_nothing(rng, bins):
    scores, y = rng.beta(0.3, 5, 1000), rng.integers(0, 2, 1000)
    answers = {bounded(y, scores, bins, lengths) for lengths in ([], [500], [1, 2, 3], [100] * 9)}
    order = rng.permutation(1000)
    answers.add(bounded(y[order], scores[order], bins, [300, 300]))
    assert len(answers) == 1


def test_bins_keep_at_most_so_many_cells(rng):
    scores = rng.normal(size=1000)
    cells = [Cells.of(part, np.zeros(500, dtype=int), None, 64) for part in np.split(scores, 2)]
    for one in (*cells, cells[0].merge(cells[1], 64)):
        assert 32 <= len(np.unique(one.keys)) <= 64


def test_the_area_is_the_share_of_pairs_won(rng):
    y, s, w = rng.integers(0, 2, 40), rng.integers(0, 8, 40), rng.uniform(size=40)
    pairs = list(itertools.product(np.flatnonzero(y), np.flatnonzero(y == 0)))
    won = sum(w[i] * w[j] * ((s[i] > s[j]) + 0.5 * (s[i] == s[j])) for i, j in pairs)
    assert_allclose(roc_auc_score(y, s, sample_weight=w), won / sum(w[i] * w[j] for i, j in pairs), rtol=1e-12)


@pytest.mark.parametrize("options", [{"multi_class": "ovr", "average": "micro"}, {"multi_class": "ovo"}])
def test_many_classes_with_bins(rng, options):
    y, p = rng.integers(0, 4, 5000), rng.dirichlet(np.ones(4), 5000)
    lazy = da.from_array(y, chunks=700), da.from_array(p, chunks=(900, 4))
    assert abs(roc_auc_score(*lazy, bins=2000, **options) - theirs.roc_auc_score(y, p, **options)) < 1e-3


def test_a_wide_bound_warns(rng):
    y, s = rng.integers(0, 2, 1000), rng.normal(size=1000)
    with pytest.warns(UserWarning, match="only known to within .*; raise bins"):
        roc_auc_score(y, s, bins=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        roc_auc_score(y, s, bins=100_000)
    with pytest.raises(ValueError, match="'bins' parameter"):
        roc_auc_score(y, s, bins=1)
