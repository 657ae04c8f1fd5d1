"""What ranks keep from group to group: parts by name and version."""

import numpy as np
import pytest

from daskdml.runtime.shelf import MemoryShelf, Shelf, hand_over, newest
from daskdml.runtime.spmd import Program


@pytest.fixture(params=["memory", "files", "shared"])
def shelf(request, tmp_path):
    if request.param == "memory":
        return MemoryShelf()
    return Shelf.of_process(str(tmp_path)) if request.param == "files" else Shelf(tmp_path / "shelf", is_shared=True)


def test_parts_come_back_as_they_were(shelf):
    value = [[np.arange(3.0), np.zeros(2, np.float32)], None]
    shelf.put("a-1", 7, value)
    value[0][0][:] = -1  # what was put down is a copy
    (first, second), none = shelf.get("a-1", 7)
    np.testing.assert_array_equal(first, [0.0, 1.0, 2.0])
    assert second.dtype == np.float32 and none is None
    assert shelf.get("a-1", 8) is None and shelf.get("a-2", 7) is None


def test_versions_and_what_is_let_go_of(shelf):
    assert shelf.versions() == {}
    for name, version in [("a", 1), ("a", 12), ("b", 2), ("a", 3)]:
        shelf.put(name, version, version)
    assert shelf.versions() == {"a": [1, 3, 12], "b": [2]}
    assert newest(shelf, "a") == 12 and newest(shelf, "c") is None
    shelf.drop_below(3)
    assert shelf.versions() == {"a": [3, 12]}
    shelf.clear()
    assert shelf.versions() == {}


def test_a_file_that_was_being_written_is_no_version(tmp_path):
    shelf = Shelf(tmp_path / "shelf", is_shared=True)
    shelf.put("a", 4, 1)
    (path,) = (tmp_path / "shelf").iterdir()
    (tmp_path / "shelf" / f"{path.name}.0a1b.part").write_bytes(b"half")
    (tmp_path / "shelf" / "notes.txt").write_bytes(b"")
    assert shelf.versions() == {"a": [4]}
    shelf.drop_below(9)
    assert shelf.versions() == {}


def test_the_folder_of_a_worker_goes_with_its_shelf(tmp_path):
    shelf = Shelf.of_process(str(tmp_path))
    shelf.put("a", 1, 1)
    assert list(tmp_path.iterdir())
    del shelf
    assert not list(tmp_path.iterdir())


class Asking(Program):
    def __init__(self):
        self.taken = {}

    def parts(self, state):
        return ("a", "b")

    def take(self, name, value):
        self.taken[name] = value


def test_parts_are_handed_over_from_wherever_they_are():
    program, first, second = Asking(), {"a": 1}, {"a": 1, "b": 2}
    hand_over(program, None, [first.get, second.get])
    assert program.taken == second
    with pytest.raises(RuntimeError, match="'b' of the result died after the last step"):
        hand_over(program, None, [first.get])
