"""Moves rows from ranks that are slow to others, so that all have as many as they work off in the same time."""

import itertools

import numpy as np

from daskdml.training.meeting import receive_piece, send_piece

UNEVEN = 1.25  # times the seconds that an even epoch would take: below, it is chance, or not worth the bytes


def are_uneven(rows, speed):
    """Tell whether ranks take very different times for their rows.

    Parameters
    ----------
    rows : ndarray of shape (n_ranks,)
        That each rank has.
    speed : ndarray of shape (n_ranks,)
        Rows a second.

    Examples
    --------
    >>> are_uneven(np.array([100, 100, 100]), np.array([100.0, 100.0, 25.0]))
    True
    >>> are_uneven(np.array([100, 100]), np.array([100.0, 110.0]))
    False
    """
    return bool((rows / speed).max() >= UNEVEN * rows.sum() / speed.sum())


def new_owners(owners, sizes, speed, most=np.inf):
    """Return who is to have each unit: from whoever is the last to be ready to whoever is the first, while it helps.

    Parameters
    ----------
    owners : ndarray of int64, shape (n_units,)
        -1 for units without rows.
    sizes : ndarray of int64, shape (n_units,)
        Rows.
    speed : ndarray of shape (n_ranks,)
        Rows a second.
    most : ndarray of shape (n_ranks,), optional
        Rows that each rank has room for.

    Examples
    --------
    >>> new_owners(np.array([0, 0, 0, 1, 1, 1]), np.full(6, 10), np.array([50.0, 10.0])).tolist()
    [0, 0, 0, 1, 0, 0]
    """
    found = owners.copy()
    has = np.bincount(owners[owners >= 0], sizes[owners >= 0], len(speed))
    own = [np.flatnonzero(owners == rank).tolist() for rank in range(len(speed))]
    while True:
        giver = int(np.argmax(has / speed))
        if not own[giver]:
            return found
        unit = own[giver].pop()
        after = np.where(has + sizes[unit] <= most, (has + sizes[unit]) / speed, np.inf)
        after[giver] = np.inf
        receiver = int(np.argmin(after))
        if not after[receiver] < has[giver] / speed[giver]:
            return found
        found[unit] = receiver
        has[giver] -= sizes[unit]
        has[receiver] += sizes[unit]


def move(pieces, schedule, owners, found, comm):
    """Send the rows of units to their new owners; return the pieces that this rank has then.

    Parameters
    ----------
    pieces : list of Piece
    schedule : Schedule
    owners, found : ndarray of int64, shape (n_units,)
        Who has each unit now, and who shall.
    comm : Comm
    """
    spans, runs = np.stack(schedule.unit_spans(np.arange(schedule.n_units))), []
    moved = np.flatnonzero(owners != found)
    for _, run in itertools.groupby(enumerate(moved.tolist()), lambda at: (at[1] - at[0], owners[at[1]], found[at[1]])):
        units = [unit for _, unit in run]
        ends = int(spans[0, units[0]]), int(spans[1, units[-1]])
        runs.append((*ends, int(owners[units[0]]), int(found[units[0]])))
    kept, gone = _split(pieces, [run[:2] for run in runs if run[2] == comm.rank])
    for first, _, giver, receiver in runs:
        if giver == comm.rank:
            comm.send(receiver, np.array([piece.start for piece in gone[first]], np.int64))
            for piece in gone[first]:
                send_piece(piece, receiver, comm)
        elif receiver == comm.rank:
            starts = comm.receive(giver).tolist()
            kept += [receive_piece(start, giver, comm) for start in starts]
    return kept


def _split(pieces, spans):
    """Return the pieces without the rows of spans, and those of each span by its first row; every row is cut once."""
    kept, gone = [], {first: [] for first, _ in spans}
    for piece in pieces:
        begin, end = piece.start, piece.start + piece.X.shape[0]
        at = begin
        for first, stop in spans:  # in ascending order
            if first >= end or stop <= begin:
                continue
            if at < first:
                kept.append(piece.rows(at, first))
            gone[first].append(piece.rows(max(first, begin), min(stop, end)))
            at = min(stop, end)
        if at < end:
            kept.append(piece.rows(at, end))
    return kept, gone
