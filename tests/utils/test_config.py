"""Options of a run: where they come from, and who sees them."""

import subprocess
import sys
import threading

import dask
import pytest

from daskdml import config_context, get_config, set_config


def test_context_is_undone():
    before = get_config()
    with config_context(runtime="debug", n_threads=2):
        assert get_config() == {**before, "runtime": "debug", "n_threads": 2}
        with config_context(memory="stream"):
            assert get_config()["memory"] == "stream" and get_config()["runtime"] == "debug"
        assert get_config()["memory"] == before["memory"]
    assert get_config() == before


def test_context_is_undone_after_an_error():
    with pytest.raises(KeyError), config_context(runtime="debug"):
        raise KeyError
    assert get_config()["runtime"] == "auto"


def test_context_belongs_to_its_thread():
    seen = []
    with config_context(runtime="debug"):
        thread = threading.Thread(target=lambda: seen.append(get_config()["runtime"]))
        thread.start()
        thread.join()
    assert seen == ["auto"]


def test_set_config_lasts(monkeypatch):
    monkeypatch.setattr("daskdml.utils.config._global", {})
    set_config(n_threads=3)
    assert get_config()["n_threads"] == 3
    with config_context(n_threads=1):
        assert get_config()["n_threads"] == 1
    assert get_config()["n_threads"] == 3


@pytest.mark.parametrize(
    "name, value", [("runtime", "debug"), ("memory", "mmap"), ("n_threads", 3), ("scratch_dir", "/x")]
)
def test_none_gives_an_option_back(monkeypatch, name, value):
    monkeypatch.setattr("daskdml.utils.config._global", {})
    default = get_config()[name]
    set_config(**{name: None})
    assert get_config()[name] == default
    set_config(**{name: value})
    with config_context(**{name: None}):
        assert get_config()[name] == value
    set_config(**{name: None})
    assert get_config()[name] == default
    with config_context(**{name: value}):
        with config_context(**{name: None}):
            assert get_config()[name] == default
        assert get_config()[name] == value
    with dask.config.set({f"daskdml.{name.replace('_', '-')}": value}), config_context(**{name: None}):
        assert get_config()[name] == value


def test_dask_configuration_is_read():
    with dask.config.set({"daskdml.memory": "mmap", "daskdml.n-threads": 2}):
        assert get_config()["memory"] == "mmap" and get_config()["n_threads"] == 2
        with config_context(memory="pinned"):
            assert get_config()["memory"] == "pinned"
    with dask.config.set({"daskdml.memory": "paper"}), pytest.raises(ValueError, match="'memory' must be one of"):
        get_config()


def test_environment_is_read():
    code = "from daskdml import get_config; print(get_config()['runtime'])"
    out = subprocess.run(
        [sys.executable, "-c", code], env={"DASK_DASKDML__RUNTIME": "debug"}, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "debug"


@pytest.mark.parametrize(
    "options, match",
    [
        ({"speed": 1}, "no option 'speed'; it has runtime, memory"),
        ({"runtime": "fast"}, "'runtime' must be one of auto, threads, tasks, spmd, debug; got 'fast'"),
        ({"memory": "paper"}, "'memory' must be one of"),
        ({"n_threads": 0}, "int of at least 1; got 0"),
        ({"n_threads": 2.0}, "int of at least 1; got 2.0"),
        ({"scratch_dir": 3}, "None or a path; got 3"),
    ],
)
def test_wrong_options_are_refused(options, match):
    for change in (set_config, lambda **o: config_context(**o).__enter__()):
        with pytest.raises(ValueError, match=match):
            change(**options)


@pytest.mark.parametrize(
    "option",
    [
        {"timeout": 0}, {"timeout": -1.0}, {"timeout": True}, {"timeout": "60"}, {"checkpoint_every": 0},
        {"checkpoint_every": False}, {"checkpoint": 3}, {"resume": 1}, {"resume": "yes"}, {"runtime": "mpi"},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_long_fits_are_checked(option):
    (name,) = option
    with pytest.raises(ValueError, match=name), config_context(**option):
        pass


def test_resume_without_a_checkpoint_is_refused(monkeypatch):
    monkeypatch.setattr("daskdml.utils.config._global", {})
    with pytest.raises(ValueError, match="resume=True needs checkpoint"), config_context(resume=True):
        pass
    with pytest.raises(ValueError, match="resume=True needs checkpoint"):
        set_config(resume=True)
    assert not get_config()["resume"]
    set_config(checkpoint="memory://fits")
    with config_context(resume=True):
        with config_context(checkpoint=None):  # that of set_config is in force again
            assert get_config()["checkpoint"] == "memory://fits"
        with pytest.raises(ValueError, match="resume=True needs checkpoint"):
            set_config(checkpoint=None)
    set_config(resume=True)
    set_config(checkpoint=None, resume=None)
    with dask.config.set({"daskdml.resume": True}), pytest.raises(ValueError, match="resume=True needs checkpoint"):
        get_config()
    assert get_config()["checkpoint"] is None


def test_options_of_long_fits(tmp_path):
    before = get_config()
    assert [before[name] for name in ("timeout", "checkpoint", "checkpoint_every", "resume")] == [60, None, 30, False]
    options = {"timeout": 3, "checkpoint": tmp_path / "fit", "checkpoint_every": 0.5, "resume": True, "runtime": "spmd"}
    with config_context(**options):
        assert get_config() == {**before, **options}
    with dask.config.set({"daskdml.checkpoint-every": 7.0, "daskdml.checkpoint": "memory://fit"}):
        assert (get_config()["checkpoint_every"], get_config()["checkpoint"]) == (7.0, "memory://fit")
    assert get_config() == before
