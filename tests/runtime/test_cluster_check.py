"""The comparison of client and workers: what differs is named, with the worker and the cure."""

import copy
import warnings

import pytest

from daskdml.runtime import cluster_check
from daskdml.runtime.cluster_check import PACKAGES, check_cluster, compare

OURS = {"versions": dict.fromkeys(PACKAGES, "2.0"), "cpu": ("zen4", "abc"), "host": "a", "host_memory": 10}


def workers(**changes):
    """Return the facts of two workers, the second one changed."""
    first, second = copy.deepcopy(OURS), copy.deepcopy(OURS)
    for name, value in changes.items():
        if name in PACKAGES:
            second["versions"][name] = value
        else:
            second[name] = value
    return {"tcp://one": first, "tcp://two": second}


def test_equal_workers_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(OURS, workers())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_named_with_the_cure(package):
    with pytest.raises(RuntimeError) as caught:
        compare(OURS, workers(**{package: None}))
    text = str(caught.value)
    assert "tcp://two" in text and f"cannot import {package}" in text and f"install {package}==2.0" in text


@pytest.mark.parametrize("package", PACKAGES)
def test_another_version_is_named_with_the_cure(package):
    with pytest.raises(RuntimeError, match=f"tcp://two has {package} 1.9, this process has 2.0; install the"):
        compare(OURS, workers(**{package: "1.9"}))


def test_another_cpu_warns():
    with pytest.warns(RuntimeWarning, match=r"tcp://two has another CPU \(skylake\).*no longer the same bits"):
        compare(OURS, workers(cpu=("skylake", "def")))


def test_a_worker_that_cannot_answer_is_named():
    with pytest.raises(RuntimeError, match="tcp://two could not be asked"):
        compare(OURS, {**workers(), "tcp://two": OSError("no route")})


@pytest.mark.cluster
def test_real_workers_are_asked_once(cluster_client, monkeypatch):
    cluster_check._checked.clear()
    found = check_cluster(cluster_client)
    assert sorted(found) == sorted(cluster_client.nthreads())
    assert all(worker.n_threads == 1 and worker.memory_limit > 10**8 for worker in found.values())
    monkeypatch.setattr(cluster_client, "run", None)
    assert check_cluster(cluster_client) == found


@pytest.mark.cluster
def test_the_probe_needs_no_daskdml_on_the_worker(cluster_client):
    import cloudpickle

    pickled = cloudpickle.dumps(cluster_check._probe())
    def blocked(pickled):
        import pickle
        import sys

        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "daskdml"}
        sys.modules["daskdml"] = None
        try:
            return pickle.loads(pickled)(None, ("daskdml", "numpy"))["versions"]["numpy"]
        finally:
            del sys.modules["daskdml"]
            sys.modules.update(hidden)

    assert all(cluster_client.run(blocked, pickled).values())


def test_a_worker_that_joins_and_does_not_fit_is_left_out(cluster_client, monkeypatch):
    cluster_check._checked.clear()
    monkeypatch.setattr(cluster_client, "run", lambda *args, workers, **kwargs: dict.fromkeys(workers, OSError("gone")))
    assert check_cluster(cluster_client, leave_out=True) == {}
    with pytest.raises(RuntimeError, match="could not be asked"):
        check_cluster(cluster_client)
    probe = cluster_check._probe
    addresses = sorted(cluster_client.nthreads())

    def ask(function, packages, workers, on_error):
        facts = {address: {**probe()(None, packages), "memory_limit": 10**9} for address in workers}
        facts[addresses[0]]["versions"]["numpy"] = "0.1"
        return facts

    monkeypatch.setattr(cluster_client, "run", ask)
    with pytest.raises(RuntimeError, match="has numpy 0.1"):
        check_cluster(cluster_client)
    with pytest.warns(RuntimeWarning, match="has numpy 0.1.*takes no part in the fit"):
        assert sorted(check_cluster(cluster_client, leave_out=True)) == addresses[1:]
    assert sorted(check_cluster(cluster_client, leave_out=True)) == addresses[1:]
    with pytest.raises(RuntimeError, match="has numpy 0.1"):
        check_cluster(cluster_client)
    cluster_check._checked.clear()
