"""The fold against its definition, for any arrival order and any split over workers."""

import operator
import pickle
import threading

import numpy as np
import pytest

from daskdml.utils.fold import Fold


def tree(values, combine):
    """Definition: combine neighbours level by level, a last one without partner passes up."""
    while len(values) > 1:
        pairs = [combine(values[i], values[i + 1]) for i in range(0, len(values) - 1, 2)]
        values = pairs + values[len(values) - len(values) % 2 :]
    return values[0]


def bracket(left, right):
    return f"({left}{right})"


@pytest.mark.parametrize("n_blocks", range(1, 41))
def test_any_arrival_order_gives_the_tree(n_blocks):
    names = [f"<{i}>" for i in range(n_blocks)]
    rng = np.random.default_rng(n_blocks)
    for _ in range(5):
        fold = Fold(n_blocks, bracket)
        for i in rng.permutation(n_blocks):
            fold.add(int(i), names[i])
        assert fold.result() == tree(names, bracket)


@pytest.mark.parametrize("n_blocks", range(1, 41))
def test_any_split_over_workers_gives_the_tree(n_blocks):
    names = [f"<{i}>" for i in range(n_blocks)]
    rng = np.random.default_rng(n_blocks)
    for n_workers in (1, 2, 3, 5):
        owner = rng.integers(n_workers, size=n_blocks)
        parts = [Fold(n_blocks, bracket) for _ in range(n_workers)]
        for i in rng.permutation(n_blocks):
            parts[owner[i]].add(int(i), names[i])
        total = Fold(n_blocks, bracket)
        for k in rng.permutation(n_workers):
            total.merge(pickle.loads(pickle.dumps(parts[k])))
        assert total.result() == tree(names, bracket)


@pytest.mark.parametrize("n_blocks", [1, 2, 31, 32, 1000])
def test_a_contiguous_range_holds_few_nodes(n_blocks):
    rng = np.random.default_rng(0)
    for _ in range(20):
        low, high = sorted(rng.integers(n_blocks + 1, size=2))
        fold = Fold(n_blocks)
        most = 0
        for i in range(low, high):
            fold.add(i, 1)
            most = max(most, len(fold.nodes))
        assert most <= 2 * max(1, np.ceil(np.log2(n_blocks + 1)))


def test_threads_may_add_at_once():
    values = np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(500) ** 0.3
    fold = Fold(500)

    def add(k):
        for i in range(k, 500, 4):
            fold.add(i, values[i])

    threads = [threading.Thread(target=add, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fold.result() == tree(list(values), operator.add)


def test_values_may_be_none():
    fold = Fold(3, lambda left, right: right if left is None else left)
    for i, value in enumerate([None, None, 7]):
        fold.add(i, value)
    assert fold.result() == 7


def test_wrong_use_is_refused():
    fold = Fold(2)
    with pytest.raises(ValueError, match="not one of the 2 blocks"):
        fold.add(2, 0)
    fold.add(0, 1)
    with pytest.raises(ValueError, match="not received all"):
        fold.result()
    with pytest.raises(ValueError, match="given twice"):
        fold.add(0, 1)


def test_a_block_given_twice_is_noticed():
    fold = Fold(3)
    for block in (0, 1, 2):
        fold.add(block, block)
    fold.place(0, 1, 5)
    with pytest.raises(ValueError, match="given twice"):
        fold.result()
