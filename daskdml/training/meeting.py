"""Brings units together that lie on several ranks: each belongs to one of them, which is sent the others' rows."""

import itertools

import numpy as np
from scipy import sparse

from daskdml.kernels.device import on_host
from daskdml.training.rows import HeldRows, Piece


def meet(pieces, schedule, comm, hold=HeldRows):
    """Return the rows of the units that this rank owns, and the numbers of these units.

    A unit belongs to the rank that holds its first row. Where strata are cut from a random order of all rows, ranks own
    equal ranges of units instead, and nearly all rows travel, once.

    Parameters
    ----------
    pieces : list of Piece
        Of this rank; every row is held by exactly one.
    schedule : Schedule
    comm : Comm
    hold : callable of a list of Piece, default HeldRows

    Returns
    -------
    HeldRows, or what ``hold`` makes of pieces
        By their numbers in the order that strata are cut from; of one rank by their own.
    units : ndarray of int64
    """
    pieces = _joined(pieces)
    if comm.size == 1:
        return hold(pieces), np.arange(schedule.n_units)
    own = np.array([(piece.start, piece.start + piece.X.shape[0]) for piece in pieces], np.int64).reshape(-1, 2)
    if schedule.is_mixed:
        return _deal(pieces, own, schedule, comm, hold)
    spans = comm.allgather(own)
    rank_of = {}  # of the first row of a unit
    starts = np.concatenate([part[:, 0] for part in spans])
    holders = np.repeat(np.arange(comm.size), [len(part) for part in spans])
    order = np.argsort(starts)
    starts, holders = starts[order], holders[order]
    firsts = schedule.unit_spans(np.arange(schedule.n_units))
    rank_of = holders[np.searchsorted(starts, firsts[0], side="right") - 1]
    kept = []
    for holder, span in ((rank, span) for rank in range(comm.size) for span in spans[rank].tolist()):
        for first, stop, owner in _cut(span, schedule, rank_of):
            mine = holder == comm.rank
            if mine or owner == comm.rank:
                piece = next(piece.rows(first, stop) for piece in pieces if piece.start == span[0]) if mine else None
                if owner != holder:
                    piece = send_piece(piece, owner, comm) if mine else receive_piece(first, holder, comm)
                kept += [piece] if piece is not None else []
    units = np.flatnonzero((rank_of == comm.rank) & (firsts[1] > firsts[0]))
    return hold(_joined(kept)), units


def _cut(span, schedule, rank_of):
    """Yield (first, stop, owner) of the runs of units of one owner that a span of rows holds."""
    first, stop = span
    units = np.arange(schedule.unit_of([first])[0], schedule.unit_of([stop - 1])[0] + 1)
    begin, end = schedule.unit_spans(units)
    units, begin, end = (part[end > begin] for part in (units, begin, end))
    owners = rank_of[units]
    edges = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(units)]
    for a, b in itertools.pairwise(edges):
        yield max(int(begin[a]), first), min(int(end[b - 1]), stop), int(owners[a])


def _joined(pieces):
    """Put pieces together whose rows follow each other in memory as well: the blocks of one chunk."""
    runs = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if runs and _follows(runs[-1][-1], piece):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [run[0] if len(run) == 1 else _one_of(run) for run in runs]


def _one_of(run):
    """Return pieces that lie side by side as one; X is a view of them all."""
    first = run[0]
    n = sum(piece.X.shape[0] for piece in run)
    X = np.lib.stride_tricks.as_strided(first.X, (n, first.X.shape[1]), first.X.strides, writeable=False)
    weight = None if first.weight is None else np.concatenate([piece.weight for piece in run])
    return Piece(first.start, X, np.concatenate([piece.y for piece in run]), weight)


def _follows(last, piece):
    n = last.X.shape[0]
    if last.start + n != piece.start or not all(isinstance(part.X, np.ndarray) for part in (last, piece)):
        return False
    # Of one array: memory that merely lies side by side may belong to two owners.
    is_same = _owner(last.X) is _owner(piece.X) and last.X.strides == piece.X.strides
    return is_same and last.X.ctypes.data + n * last.X.strides[0] == piece.X.ctypes.data


def _owner(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _deal(pieces, own, schedule, comm, hold):
    """Send every row to the owner of its unit in the random order."""
    edges = schedule.n_units * np.arange(comm.size + 1) // comm.size
    numbers = np.concatenate([np.arange(a, b) for a, b in own]) if len(own) else np.empty(0, np.int64)
    places = schedule.mix(numbers)
    owners = np.searchsorted(edges, schedule.unit_of(places), side="right") - 1
    held, here = hold(pieces), {}
    for to in range(comm.size):
        rows = np.flatnonzero(owners == to)
        rows = rows[np.argsort(places[rows])]
        piece = Piece(0, None, None, None)
        if len(rows):
            found = held.select(numbers[rows])
            piece = Piece(0, on_host(found.X()), found.y, found.weight)
        if to == comm.rank:
            here = places[rows], piece
        else:
            comm.send(to, places[rows])
            send_piece(piece, to, comm)
    found = [here if r == comm.rank else (comm.receive(r), receive_piece(0, r, comm)) for r in range(comm.size)]
    units = np.arange(edges[comm.rank], edges[comm.rank + 1])
    first, stop = schedule.unit_spans(units)
    return hold([_ordered(found)] if (stop > first).any() else []), units[stop > first]


def _ordered(found):
    """Return rows that came from all ranks as one piece, in their new order."""
    found = [(places, piece) for places, piece in found if len(places)]
    places, pieces = np.concatenate([part[0] for part in found]), [part[1] for part in found]
    order = np.argsort(places)
    y = np.concatenate([piece.y for piece in pieces])[order]
    weight = None if pieces[0].weight is None else np.concatenate([piece.weight for piece in pieces])[order]
    if hasattr(pieces[0].X, "indptr"):
        X = sparse.vstack([piece.X for piece in pieces], format="csr")[order]
    else:
        X = np.empty((len(places), pieces[0].X.shape[1]), pieces[0].X.dtype)
        rank, at = np.empty(len(places), np.int64), 0
        rank[order] = np.arange(len(places))
        for piece in pieces:
            X[rank[at : at + piece.X.shape[0]]] = piece.X
            at += piece.X.shape[0]
    return Piece(int(places[order[0]]), X, y, weight)


def send_piece(piece, to, comm):
    """Send a piece as arrays, of which X may be None for no rows; returns None."""
    X = on_host(piece.X)
    is_sparse = hasattr(X, "indptr")
    parts = [] if X is None else [X.data, X.indices, X.indptr] if is_sparse else [X]
    shape = (0, 0) if X is None else X.shape
    comm.send(to, np.array([len(parts), piece.weight is not None, *shape], np.int64))
    if parts:
        for part in (*parts, piece.y, *([] if piece.weight is None else [piece.weight])):
            comm.send(to, part)


def receive_piece(start, source, comm):
    """Return the piece that `send_piece` has sent here."""
    n_parts, has_weight, *shape = comm.receive(source).tolist()
    if not n_parts:
        return Piece(start, np.empty(shape), np.empty(0), None)
    parts = [comm.receive(source) for _ in range(n_parts)]
    X = parts[0] if n_parts == 1 else sparse.csr_array(tuple(parts), shape=tuple(shape))
    y = comm.receive(source)
    return Piece(start, X, y, comm.receive(source) if has_weight else None)
