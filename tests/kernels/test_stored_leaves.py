"""Slots and lists of rows of which few values are stored, against sets of rows divided one by one."""

import numpy as np
import pytest

from daskdml.kernels import stored, stored_leaves

from .histograms import Stored, random_entries, unpack

N, P = 700, 6


def table(share, seed=0):
    """Return rows of which the bins of a share differ from that of zero; one column never, one in all rows."""
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, 9, (N, P))
    rows = Stored(bins)
    bins = np.where(rng.random((N, P)) < share, bins, rows.zero)
    bins[:, 0], bins[:, 1] = rows.zero[0], (rows.zero[1] + 1) % 9
    bins[rng.random((N, P)) < 0.02] = 255
    bins[:3] = [list(range(3, 9))] * 3  # so that all bins are there, as before
    bins[3:12] = np.arange(9)[:, None]
    return Stored(bins)


def begin(rows, entries, least):
    """Return the leaves of a tree of which the root is a slot, or a list."""
    nodes = np.zeros((400, 3), np.int64)
    if len(entries) < least:
        nodes[0, 1] = len(entries)
        return stored_leaves.Leaves(nodes, np.empty(0, np.uint8), entries, np.array([len(entries), 0]))
    nodes[0] = -1, len(entries), -1
    slots, listed = np.zeros(len(entries), np.uint8), np.full(len(entries), 77, np.uint64)
    return stored_leaves.Leaves(nodes, slots, listed, np.array([0, 1]))


def by_leaf(entries, segments, nodes):
    return {node: sorted(entries[slice(*segments[node])].tolist()) for node in nodes}


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("least", [1, 10, 200, N * 10])
@pytest.mark.parametrize("n_used", [1, 251])
def test_trees_of_slots_and_lists(share, least, n_used):
    """Children, histograms and, at the end, ranges, whichever leaves are divided in which order, and whichever are cut
    off again; with more large leaves than there are slots too."""
    rows = table(share)
    entries = random_entries(rows.n, np.arange(rows.n))
    expected, columns = {0: entries.tolist()}, stored.by_columns(rows.codes, rows.indptr, rows.first)
    leaves, windows = begin(rows, entries, least), rows.windows(40)
    leaves.used[1] += n_used - 1
    parents, n_nodes, rng = {}, 1, np.random.default_rng(1)
    spare, took = np.empty(rows.n + 1, np.uint64), np.zeros(2, np.int64)
    while n_nodes < 390:
        alive = [node for node in expected if node not in parents.values()]
        chosen = rng.permutation(alive)[: rng.integers(1, 4)].tolist()
        goes_right = (rng.random((len(chosen), 256)) < rng.choice([0.1, 0.5])).astype(np.uint8)
        adds, sums = rng.integers(-1, 2, len(chosen)), rows.zeros(len(chosen))
        splits = [
            (int(rng.integers(0, P)), node, n_nodes + 2 * s, n_nodes + 2 * s + 1) for s, node in enumerate(chosen)
        ]
        stored_leaves.split_leaves(
            rows.codes, rows.indptr, columns, entries, leaves, np.array(splits), goes_right, adds, rows.packed,
            rows.first, rows.zero, windows, sums, spare, least, took,
        )  # fmt: skip
        assert not rows.packed.any()
        for s, (feature, node, *children) in enumerate(splits):
            for side, child in enumerate(children):
                expected[child] = [
                    e for e in expected[node] if goes_right[s, rows.rows[unpack(e)[1], feature]] == side
                ]
                parents[child] = node
                start, stop, parent = leaves.nodes[child].tolist()
                assert parent == node and stop - max(start, 0) == len(expected[child])
            added = expected[children[adds[s]]] if adds[s] >= 0 else []
            np.testing.assert_array_equal(sums[s], rows.histogram(np.array(added, np.uint64)))
        n_nodes += 2 * len(chosen)
    assert (took >= 0).all() and took.all() == took.any()  # both, or none where no clock can be read
    has_slots = len(leaves.slots) > 0
    assert has_slots == (least <= rows.n)
    assert leaves.used[1] <= stored_leaves.LISTED
    assert least > 10 or leaves.used[1] >= min(n_used + 4, stored_leaves.LISTED)
    alive = [node for node in expected if node not in parents.values()]
    for wanted in (cut_off(parents, n_nodes, rng), cut_off(parents, n_nodes, rng), alive, [0]):
        found, segments = entries.copy(), np.full((n_nodes, 2), -7)
        if has_slots:
            stored_leaves.settle(found, leaves, n_nodes, np.array(wanted), segments, spare)
        else:
            segments[wanted] = leaves.nodes[wanted, :2]
        assert by_leaf(found, segments, wanted) == {node: sorted(expected[node]) for node in wanted}
        assert (np.delete(segments, wanted, axis=0) == -7).all()


def cut_off(parents, n_nodes, rng):
    """Return the leaves of what is left of a tree if some nodes lose all that is below them."""
    is_gone, is_cut = np.zeros(n_nodes, bool), rng.random(n_nodes) < 0.1
    for child in range(1, n_nodes):
        is_gone[child] = is_gone[parents[child]] or is_cut[parents[child]]
    inner = {parent for child, parent in parents.items() if not is_gone[child]}
    return [node for node in range(n_nodes) if not is_gone[node] and node not in inner]


@pytest.mark.parametrize("most", [1, 5, 100, 10**6])
def test_windows_are_as_long_as_they_may_be(most):
    rows = table(0.3)
    ends = rows.windows(most).tolist()
    assert ends[-1] == rows.n and ends == sorted(set(ends))
    for a, b in zip([0, *ends[:-1]], ends):
        assert most_often(rows, a, b) <= most
        assert b == rows.n or most_often(rows, a, b + 1) > most


def most_often(rows, start, stop):
    return np.bincount(rows.codes[rows.indptr[start] : rows.indptr[stop]]).max(initial=0)


def test_codes_by_columns():
    rows = table(0.4)
    ends, of_row, bins = stored.by_columns(rows.codes, rows.indptr, rows.first)
    for f in range(P):
        own = slice(ends[f], ends[f + 1])
        stands = np.flatnonzero(rows.rows[:, f] != rows.zero[f])
        assert of_row[own].tolist() == stands.tolist()
        assert (rows.first[f] + bins[own]).tolist() == rows.places(f)[stands].tolist()
    assert ends[0] == 0 and ends[-1] == len(rows.codes)
