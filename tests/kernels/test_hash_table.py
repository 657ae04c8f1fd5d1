"""Numbers of keys against a dict, whatever the keys, and through every growth."""

import numpy as np
import pytest

from daskdml.kernels import hash_table
from daskdml.kernels.hash_table import LEAST_SLOTS, HashTable, add_rows, put_pieces


@pytest.fixture(params=["compiled", "plain"])
def how(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(hash_table, "build", lambda body, signature: body)
        monkeypatch.setattr(hash_table, "_compiled", lambda body: body)
    with np.errstate(over="ignore"):  # as unsigned integers multiply
        yield request.param


KEYS = {
    "in a row": lambda rng, n: np.arange(n, dtype=np.int64),
    "drawn": lambda rng, n: rng.integers(-(2**63), 2**63 - 1, n, dtype=np.int64),
    "often the same": lambda rng, n: rng.integers(0, 50, n),
    "far apart": lambda rng, n: np.arange(n, dtype=np.int64) << 40,
    "both ends": lambda rng, n: np.resize([0, -1, 2**63 - 1, -(2**63)], n).astype(np.int64),
}


@pytest.mark.parametrize("keys", KEYS)
def test_numbers_are_those_of_a_dict(how, keys):
    rng = np.random.default_rng(0)
    table, known = HashTable(), {}
    for n in (0, 1, 5, 700, 3000 if how == "compiled" else 300, 1):
        new = KEYS[keys](rng, n)
        for key in new.tolist():
            known.setdefault(key, len(known))
        assert table.insert(new).tolist() == [known[key] for key in new.tolist()]
        assert table.n_keys == len(known)
        assert table.keys().tolist() == list(known)
        wanted = np.concatenate([new, rng.integers(-(2**63), 2**63 - 1, 20, dtype=np.int64)])
        assert table.find(wanted).tolist() == [known.get(key, -1) for key in wanted.tolist()]


def test_a_table_grows_a_little_at_a_time():
    """Slots of the old table are brought over by later calls; meanwhile keys are found in both."""
    table, keys = HashTable(), np.arange(200_000, dtype=np.int64) * 7919
    n_between = 0
    for first in range(0, len(keys), 50):
        part = keys[first : first + 50]
        assert table.insert(part).tolist() == list(range(first, first + 50))
        if table._old is not None:
            n_between += 1
            some = np.array([0, first // 2, first])
            assert table.find(keys[some]).tolist() == some.tolist()
        assert table.n_keys <= 0.75 * len(table._slots[0])
    assert n_between > 100 and len(table._slots[0]) >= 2**18 > LEAST_SLOTS
    np.testing.assert_array_equal(table.find(keys), np.arange(200_000))
    np.testing.assert_array_equal(table.keys(), keys)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_one_number_are_added_up(how, dtype):
    rng = np.random.default_rng(0)
    numbers, rows = rng.integers(0, 20, 100), rng.normal(size=(100, 3)).astype(dtype)
    out, expected = np.ones((20, 3), dtype), np.ones((20, 3), dtype)
    add_rows(numbers, rows, out)
    np.add.at(expected, numbers, rows)
    np.testing.assert_array_equal(out, expected)


def test_pieces_are_put_where_they_belong(how):
    rng = np.random.default_rng(0)
    slabs = [np.zeros((10, 3)) for _ in range(2)]
    places, rows = rng.permutation(20)[:7], rng.normal(size=(7, 3))
    targets = np.array([slabs[place // 10].ctypes.data + 24 * (place % 10) for place in places])
    put_pieces(rows, targets, 24)
    expected = np.zeros((20, 3))
    expected[places] = rows
    np.testing.assert_array_equal(np.concatenate(slabs), expected)
