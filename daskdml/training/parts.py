"""What outlives the death of a rank that holds shards: copies on its own shelf and on the next rank's.

Ranks put their shards down every now and then, and the state beside them; where there is one group, each sends copies
to the next rank. A new group goes on from the newest version of which every shard is somewhere, which may be some steps
before the last one; they are the same steps again. On a shelf that all see, each shard is put down once.
"""

import numpy as np

SAVING_SHARE = 0.05  # of the time, at most, that putting shards down takes


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
        return _put_results(replica, state, comm)
    if comm.size == 1 and not shelf.is_shared:
        return None  # nobody would be left to find it
    is_time = started - replica.saved_at >= replica.saving_seconds / SAVING_SHARE
    if not comm.broadcast(np.array([is_time]))[0]:
        return None
    version = 1 + state.epoch * replica.training.schedule.n_batches + state.batch
    parts = {k: [arrays, replica.best.get(k)] for k, arrays in replica.shards.items()}
    _put(_shard_name, parts, version, replica.grid, comm)
    if not shelf.is_shared or comm.rank == 0:
        shelf.put("state", version, state)
    comm.barrier()  # now all shards of this version are there, on two ranks each
    shelf.drop_below(version)
    replica.saved_at = comm.clock()
    replica.saving_seconds = replica.saved_at - started
    return None


def result_name(shard):
    """Return the name under which a shard of the model is kept in the end."""
    return f"result-{shard}"


def _shard_name(shard):
    return f"shard-{shard}"


def _put_results(replica, state, comm):
    """Put down what the model is made of, with its moments where a later call goes on with them."""
    training, parts = replica.training, {}
    for k, (theta, *moments) in replica.shards.items():
        parts[k] = [[theta, *(moments if training.returns_moments else ())], replica.best.get(k)]
    # Nobody steps on: what lies in memory need not be copied.
    _put(result_name, parts, 1, replica.grid, comm, copies=False)
    comm.barrier()


def _put(name_of, parts, version, grid, comm, copies=True):
    """Keep a value of each shard of this rank, and where no other group has it on the next rank too."""
    shelf = comm.shelf
    for k, value in parts.items() if grid.group == 0 or not shelf.is_shared else ():
        shelf.put(name_of(k), version, value, copies)
    if shelf.is_shared or grid.n_groups > 1 or comm.size == 1:
        return
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    own, others = grid.shards_of(comm.rank), grid.shards_of(before)
    # One at a time: no more than that is on its way.
    for i in range(max(len(own), len(others))):
        if i < len(own):
            _send(parts[own[i]], after, comm)
        if i < len(others):
            shelf.put(name_of(others[i]), version, _receive(before, comm), False)


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
    known = comm.gather_values(found)
    version, holders = comm.broadcast_value(known and _newest_whole(known, sharded.n_shards, shelf.is_shared))
    own = grid.shards_of(comm.rank)
    if not version:
        return _begin(replica, state, own)
    for k in range(sharded.n_shards):
        name, source, owners = _shard_name(k), holders[k], grid.owners(k)
        if shelf.is_shared:
            value = shelf.get(name, version) if k in own else None
        else:
            value = shelf.get(name, version) if comm.rank == source else None
            for to in owners if comm.rank == source else ():
                if to != source:
                    _send(value, to, comm)
            if k in own and comm.rank != source:
                value = _receive(source, comm)
        if k in own:
            arrays, best = value
            replica.shards[k] = [np.array(array) for array in arrays]
            if best is not None:
                replica.best[k] = np.array(best)
    states = comm.gather_values(shelf.get("state", version) if "state" in found else None)
    return comm.broadcast_value(states and next(kept for kept in states if kept is not None))


def _newest_whole(known, n_shards, is_shared):
    """Return the newest version of which all shards are kept, and the rank that each is taken from; 0 for none."""
    holders = {}
    for rank, versions in enumerate(known):
        for name, numbers in versions.items():
            for version in numbers:
                holders.setdefault(version, {}).setdefault(name, rank)
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
        replica.shards = {k: [sharded.part_of(whole, k) for whole in training.begin] for k in own}
    if state.best_theta is not None:
        replica.best = {k: arrays[0].copy() for k, arrays in replica.shards.items()}
    first = training.first
    if (state.epoch, state.batch) != (first.epoch, first.batch):
        return first._replace(n_lost=state.n_lost + 1)
    return state


def _send(value, to, comm):
    arrays, best = value
    comm.send(to, np.array([len(arrays), best is not None]))
    for array in (*arrays, *([] if best is None else [best])):
        comm.send(to, array)


def _receive(source, comm):
    n_arrays, has_best = comm.receive(source).tolist()
    arrays = [comm.receive(source) for _ in range(n_arrays)]
    return [arrays, comm.receive(source) if has_best else None]
