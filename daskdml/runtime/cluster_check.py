"""Compares client and workers before any data move: the package, its versions, the CPU."""

import functools
import warnings
from typing import NamedTuple

from .watch import patiently

PACKAGES = ("daskdml", "numpy", "scipy", "numba")
WAIT_FOR_WORKER = 60  # seconds, for a cluster that scales up on demand
_checked = {}


class Worker(NamedTuple):
    """A worker as far as placement is concerned."""

    n_threads: int
    memory_limit: int


def check_cluster(client, *, leave_out=False):
    """Compare the workers with this process.

    Parameters
    ----------
    client : distributed.Client
    leave_out : bool, default False
        Leave workers that do not fit out, and say so, instead of raising: one that joins must not end a fit.

    Returns
    -------
    dict of str to Worker
        By address, in a fixed order.

    Raises
    ------
    RuntimeError
        If a worker misses daskdml or has another version of a package that computes; if there is no worker.

    Warns
    -----
    RuntimeWarning
        If CPUs differ: results then depend on which worker computes which block.

    Notes
    -----
    One question to the scheduler; the workers themselves are asked once per client and set of workers.
    """
    while True:
        threads = _threads(client)
        known = _checked.get(client.id, {})
        settled = {address for address, facts in known.items() if leave_out or facts is not None}
        new = sorted(set(threads) - settled)
        if not new:
            return _describe(threads, {address: known[address] for address in threads if known[address] is not None})
        facts = patiently(client, functools.partial(_ask, client, new), asks_again=True)
        there = _threads(client)  # a worker may have gone while we asked
        facts = {address: found for address, found in facts.items() if address in there}
        if leave_out:
            # One that does not answer may have only just begun, or be about to go: it is asked again the next time.
            answered = {address: found for address, found in facts.items() if not isinstance(found, BaseException)}
            facts = {address: _fitting(address, found) for address, found in answered.items()}
            if not facts:
                return _describe(threads, {address: known[address] for address in threads if known.get(address)})
        else:
            compare(_probe()(None, PACKAGES), facts)
        _checked.clear()
        _checked[client.id] = {**known, **facts}


def _ask(client, addresses):
    """Return the facts, or what went wrong, of those workers that are there."""
    there = client.nthreads()
    there = [address for address in addresses if address in there]
    return client.run(_probe(), packages=PACKAGES, workers=there, on_error="return") if there else {}


def _fitting(address, found):
    """Return the facts of a worker, or None, with a warning, if it does not fit."""
    try:
        compare(_probe()(None, PACKAGES), {address: found})
    except RuntimeError as error:
        warnings.warn(f"{error} It takes no part in the fit that is running.", RuntimeWarning, stacklevel=5)
        return None
    return found


def compare(ours, facts):
    """Raise or warn about the first worker whose facts differ from this process's."""
    for address, found in sorted(facts.items()):
        if isinstance(found, BaseException):
            raise RuntimeError(f"The worker {address} could not be asked for its versions: {found!r}.")
        for package in PACKAGES:
            have, want = found["versions"][package], ours["versions"][package]
            if have is None:
                raise RuntimeError(
                    f"The worker {address} cannot import {package}; install {package}=={want} in the workers' "
                    f"environment (for instance with distributed.PipInstall) and restart them."
                )
            if have != want:
                raise RuntimeError(
                    f"The worker {address} has {package} {have}, this process has {want}; install the same version on "
                    "both, otherwise results would depend on where they are computed."
                )
    cpus = {found["cpu"] for found in facts.values()} | {ours["cpu"]}
    if len(cpus) > 1:
        other = next(address for address, found in sorted(facts.items()) if found["cpu"] != ours["cpu"])
        warnings.warn(
            f"The worker {other} has another CPU ({facts[other]['cpu'][0]}) than this process ({ours['cpu'][0]}): "
            "results are equal to rounding, but no longer the same bits for any placement of the blocks.",
            RuntimeWarning,
            stacklevel=5,
        )


def free_scratch(client):
    """Return the free bytes of the workers' local directories, each disk counted once."""

    def ask(dask_worker):
        import os
        import socket

        from daskdml.runtime.memory import free_on_disk

        folder = dask_worker.local_directory
        return (socket.gethostname(), os.stat(folder).st_dev), free_on_disk(folder)

    return sum(dict(patiently(client, lambda: client.run(ask), asks_again=True).values()).values())


def _probe():
    """Return the function that collects facts; a local one travels by value, to workers without daskdml too."""

    def facts(dask_worker, packages):
        import hashlib
        import importlib
        import importlib.metadata
        import socket

        import psutil

        versions = {}
        for package in packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                try:
                    versions[package] = importlib.import_module(package).__version__
                except ImportError:
                    versions[package] = None
        cpu = ("unknown", "")
        if versions.get("numba"):
            from llvmlite import binding

            features = binding.get_host_cpu_features().flatten()
            cpu = (binding.get_host_cpu_name(), hashlib.sha256(features.encode()).hexdigest()[:8])
        return {
            "versions": versions,
            "cpu": cpu,
            "host": socket.gethostname(),
            "host_memory": psutil.virtual_memory().total,
            "memory_limit": getattr(getattr(dask_worker, "memory_manager", None), "memory_limit", None),
        }

    return facts


def _threads(client):
    """Return the number of threads by worker address; if there is no worker yet, ask for one and wait."""
    found = client.nthreads()
    if not found:
        from distributed import TimeoutError

        try:
            client.submit(int, pure=False).result(timeout=WAIT_FOR_WORKER)
        except TimeoutError:
            raise RuntimeError(
                f"The cluster has no workers, and none came within {WAIT_FOR_WORKER} seconds; start some, for instance "
                "with cluster.scale(2)."
            ) from None
        found = client.nthreads()
    return found


def _describe(threads, facts):
    """Return the workers in a fixed order; one without a memory limit may use its part of the host."""
    hosts = [found["host"] for found in facts.values()]
    return {
        address: Worker(
            threads[address], found["memory_limit"] or found["host_memory"] // hosts.count(found["host"])
        )
        for address, found in sorted(facts.items())
    }
