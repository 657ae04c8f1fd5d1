"""What outlives the death of a rank that holds shards: copies on its own shelf and on the next rank's.

Ranks put their shards down every now and then, and the state beside them; where there is one group, each sends copies
to the next rank. A new group goes on from the newest version of which every shard is somewhere, which may be some steps
before the last one; they are the same steps again. On a shelf that all see, each shard is put down once.
"""

import logging

import numpy as np

RESULT = "result-"
SAVING_SHARE = 0.05  # of the time, at most, that putting shards down takes
_log = logging.getLogger("daskdml.ranks")


def save(replica, state, comm, is_last):
    """Put the shards of a rank down, if it is time or this is the end.

    Parameters
    ----------
    replica : ShardedReplica
    state : TrainingState
        After a step.
    comm : Comm
    is_last : bool
        Then only what the caller wants is put down.
    """
    shelf, started = comm.shelf, comm.clock()
    if is_last:
        return _put_results(replica, comm)
    if not shelf.is_kept:
        return None  # nobody comes after this group
    least = max(replica.saving_seconds / SAVING_SHARE, replica.training.save_every if shelf.is_shared else 0.0)
    is_time = started - replica.saved_at >= least
    if not comm.broadcast(np.array([is_time or comm.is_pausing()]))[0]:
        return None
    _put_all(replica, state, comm)
    replica.saved_at = comm.clock()
    replica.saving_seconds = replica.saved_at - started
    return None


def _put_all(replica, state, comm):
    """Put down all shards and the state; leave it at the last version where a file system fails."""
    shelf, version = comm.shelf, 1 + state.epoch * replica.training.schedule.n_batches + state.batch
    parts = {k: [arrays, replica.best.get(k)] for k, arrays in replica.shards.items()}
    faults = _put(_shard_name, parts, version, replica.grid, comm)
    if not shelf.is_shared or comm.rank == 0:
        faults += shelf.faults_of(shelf.put, "state", version, state)
    if comm.vote(bool(faults)):
        _log.warning("shards could not be put down, the last version stays: %s", faults or "on another worker")
    elif not shelf.is_shared or comm.rank == 0:
        # Now all shards of this version are there, on two ranks each.
        shelf.faults_of(shelf.drop_below, version)


def result_name(shard):
    """Return the name under which a shard of the model is kept in the end."""
    return f"{RESULT}{shard}"


def is_result(name):
    """Tell whether a part is of the model in the end."""
    return name.startswith(RESULT)


def _shard_name(shard):
    return f"shard-{shard}"


def _put_results(replica, comm):
    """Put down what the model is made of, with its moments: a later call may go on with them."""
    parts = {k: [arrays, replica.best.get(k)] for k, arrays in replica.shards.items()}
    # Nobody steps on: what lies in memory need not be copied.
    faults = _put(result_name, parts, 1, replica.grid, comm, copies=False)
    if comm.vote(bool(faults)):
        raise OSError(f"The model could not be put down: {faults[0] if faults else 'on another worker'}; make room.")


def _put(name_of, parts, version, grid, comm, copies=True):
    """Keep a value of each shard of this rank, and where no other group has it on the next rank too; return faults."""
    shelf, faults = comm.shelf, []
    for k, value in parts.items() if grid.group == 0 or not shelf.is_shared else ():
        faults += shelf.faults_of(shelf.put, name_of(k), version, value, copies)
    if shelf.is_shared or grid.n_groups > 1 or comm.size == 1:
        return faults
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    own, others = grid.shards_of(comm.rank), grid.shards_of(before)
    # One at a time: no more than that is on its way.
    for i in range(max(len(own), len(others))):
        if i < len(own):
            _send(parts[own[i]], after, comm)
        if i < len(others):
            faults += shelf.faults_of(shelf.put, name_of(others[i]), version, _receive(before, comm), False)
    return faults


def restore(replica, state, comm):
    """Let a new group have the shards of the newest version that is whole, and return its state.

    Parameters
    ----------
    replica : ShardedReplica
    state : TrainingState
        That the group was told to begin with.
    comm : Comm

    Returns
    -------
    TrainingState
    """
    shelf, sharded, grid = comm.shelf, replica.sharded, replica.grid
    found = {} if comm.generation == 1 and not shelf.is_shared else shelf.versions()
    shelf.refuse_unseen(comm)
    known = comm.gather_values(found)
    version, holders = comm.broadcast_value(known and _newest_whole(known, sharded.n_shards))
    own = grid.shards_of(comm.rank)
    if not version:
        return _begin(replica, state, own)
    for k in range(sharded.n_shards):
        name, value = _shard_name(k), None
        having = range(comm.size) if shelf.is_shared else holders[k]
        source, lacking = having[k % len(having)], [to for to in grid.owners(k) if to not in having]
        if comm.rank in having and (k in own or (comm.rank == source and lacking)):
            value = shelf.get(name, version)
        for to in lacking if comm.rank == source else ():
            _send(value, to, comm)
        if comm.rank in lacking:
            value = _receive(source, comm)
        if k in own:
            arrays, best = value
            replica.shards[k] = [np.array(array) for array in arrays]
            if best is not None:
                replica.best[k] = np.array(best)
    states = comm.gather_values(shelf.get("state", version) if "state" in found else None)
    state = comm.broadcast_value(states and next(kept for kept in states if kept is not None))
    if not shelf.is_shared:
        # What a dead rank had is on one shelf now: on two again before the rows travel.
        _put_all(replica, state, comm)
    return state


def _newest_whole(known, n_shards):
    """Return the newest version of which all shards are kept, and the ranks that have each; 0 for none."""
    holders = {}
    for rank, versions in enumerate(known):
        for name, numbers in versions.items():
            for version in numbers:
                holders.setdefault(version, {}).setdefault(name, []).append(rank)
    names = ["state", *map(_shard_name, range(n_shards))]
    whole = [version for version, ranks in holders.items() if all(name in ranks for name in names)]
    if not whole:
        return 0, []
    return max(whole), [holders[max(whole)][name] for name in names[1:]]


def _begin(replica, state, own):
    """Begin with the first parameters; count it where steps were taken already, for they are lost."""
    training, sharded = replica.training, replica.sharded
    if training.begin is None:
        flats, _ = sharded.start(training.schedule.seed, own)
        zeros = range(training.transform.n_moments)
        replica.shards = {k: [flat, *(np.zeros_like(flat) for _ in zeros)] for k, flat in flats.items()}
    else:
        replica.shards = {k: [_part_of(sharded, whole, k) for whole in training.begin] for k in own}
    if state.best_theta is not None:
        replica.best = {k: arrays[0].copy() for k, arrays in replica.shards.items()}
    first = training.first
    if (state.epoch, state.batch) != (first.epoch, first.batch):
        return first._replace(n_lost=state.n_lost + 1)
    return state


def _part_of(sharded, whole, k):
    """Return a shard of what to begin with, of which None stands for zeros."""
    return np.zeros(sharded.n_params_of(k), sharded.dtype) if whole is None else sharded.part_of(whole, k)


def _send(value, to, comm):
    arrays, best = value
    comm.send(to, np.array([len(arrays), best is not None]))
    for array in (*arrays, *([] if best is None else [best])):
        comm.send(to, array)


def _receive(source, comm):
    n_arrays, has_best = comm.receive(source).tolist()
    arrays = [comm.receive(source) for _ in range(n_arrays)]
    return [arrays, comm.receive(source) if has_best else None]
