"""How many bytes a process may hold, and how blocks wait between passes accordingly."""

import os
import shutil
import tempfile

SHARE = 0.5  # of the limit that pinned blocks may take; the rest is for kernels, partial results and the reader
SCRATCH_MARGIN = 1.3
SMALL_BYTES = 1 << 25  # of rows that are quicker fetched into this process than walked by tasks, at 10 to 30 ms a pass
FETCH_SLACK = 8  # times the mean that a chunk of small data may be larger


def process_limit():
    """Return the bytes this process may still take.

    The smallest of the memory available on the machine, and what is left of the limits of the control group and of the
    process itself (data, address space, resident set).
    """
    import psutil

    return min([psutil.virtual_memory().available, *_cgroup_limits(), *_resource_limits().values()])


def choose_mode(n_bytes, limit, free_scratch):
    """Choose how blocks wait between passes.

    Parameters
    ----------
    n_bytes : int
        Of all blocks.
    limit : int
        Bytes of memory, summed over workers.
    free_scratch : int
        Free bytes of scratch space, summed over workers.

    Returns
    -------
    {"pinned", "mmap", "stream"}

    Examples
    --------
    >>> choose_mode(8e9, 32e9, 100e9), choose_mode(8e9, 3e9, 100e9), choose_mode(8e9, 3e9, 1e9)
    ('pinned', 'mmap', 'stream')
    """
    if n_bytes <= SHARE * limit:
        return "pinned"
    return "mmap" if n_bytes * SCRATCH_MARGIN <= free_scratch else "stream"


def free_scratch(folder):
    """Return the free bytes a folder offers to mapped blocks; few where the address space is limited."""
    limits = _resource_limits()
    return min(free_on_disk(folder), limits.get("RLIMIT_AS", float("inf")) * SHARE)


def free_on_disk(folder):
    """Return the free bytes of a folder's disk; none where it lies in memory itself."""
    import psutil

    folder = os.path.realpath(folder)
    mounts = [mount for mount in psutil.disk_partitions(all=True) if _holds(mount.mountpoint, folder)]
    # Of several at one place the last one mounted is seen.
    kind = max(reversed(mounts), key=lambda mount: len(mount.mountpoint), default=None)
    return 0 if kind is not None and kind.fstype in ("tmpfs", "ramfs") else shutil.disk_usage(folder).free


def _holds(mountpoint, folder):
    try:
        return os.path.commonpath([mountpoint, folder]) == mountpoint
    except ValueError:  # another drive, or what a container cannot reach
        return False


def scratch_folder(asked):
    """Return the folder for mapped blocks of this process: the option ``scratch_dir`` or the temporary folder."""
    if asked is None:
        return tempfile.gettempdir()
    try:
        os.makedirs(asked, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The option scratch_dir names {os.fspath(asked)!r}, which cannot be made ({error.strerror}); "
            "give it a folder that can be written to."
        ) from error
    if not os.access(asked, os.W_OK | os.X_OK):
        raise ValueError(
            f"The option scratch_dir names {os.fspath(asked)!r}, which cannot be written to; give it another folder."
        )
    return os.fspath(asked)


def format_bytes(n):
    """Write a number of bytes with at most two digits behind three powers of ten.

    Examples
    --------
    >>> format_bytes(40_000_000), format_bytes(3.14e9), format_bytes(12)
    ('40 MB', '3.1 GB', '12 B')
    """
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= power:
            return f"{n / power:.1f} {unit}" if n < 9.95 * power else f"{n / power:.0f} {unit}"
    return f"{n:.0f} B"


def format_count(n, thing):
    """Write a number of things.

    Examples
    --------
    >>> format_count(1, "block"), format_count(2, "block")
    ('1 block', '2 blocks')
    """
    return f"{n} {thing}" + "s" * (n != 1)


def _resource_limits():
    """Return what the finite limits of this process still allow, by name."""
    import psutil

    try:
        import resource
    except ImportError:  # not a POSIX system
        return {}
    used = psutil.Process().memory_info()
    spent = {"RLIMIT_DATA": getattr(used, "data", used.rss), "RLIMIT_AS": used.vms, "RLIMIT_RSS": used.rss}
    left = {}
    for name, n_bytes in spent.items():
        limit = resource.getrlimit(getattr(resource, name))[0] if hasattr(resource, name) else -1
        if limit not in (resource.RLIM_INFINITY, -1):
            left[name] = max(0, limit - n_bytes)
    return left


def _cgroup_limits():
    """Return what this process's control group still allows, for versions 2 and 1; nothing where there is no limit."""
    found = []
    for folder, limit_name, usage_name in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit = int(_read(folder, limit_name))
            used = int(_read(folder, usage_name)) - _cached(folder)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < 2**60:
            found.append(max(0, limit - used))
    return found


def _cached(folder):
    """Return the bytes of file cache in a control group, which the kernel gives back under pressure."""
    fields = dict(line.split() for line in _read(folder, "memory.stat").splitlines())
    kinds = ("inactive_file", "active_file")
    return sum(int(fields.get(kind, fields.get(f"total_{kind}", 0))) for kind in kinds)


def _read(folder, name):
    with open(os.path.join(folder, name)) as file:
        return file.read().strip()
