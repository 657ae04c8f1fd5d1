"""Blocks of rows on top of each other, as large pieces as memory allows."""

from types import SimpleNamespace

import numpy as np

from daskdml.trees.kept_rows import Codes, Tiles, stacked


def in_pieces(blocks, joins):
    """Put blocks together: all of them, or only those that lie behind each other in memory.

    A histogram of a leaf costs as much as two thousand rows once a piece.

    Parameters
    ----------
    blocks : list of daskdml.data.Block
        In the order of rows.
    joins : bool
        Whether those that do not lie behind each other are copied.

    Returns
    -------
    list of objects with X, y, weight and spans
        The last says which rows follow each other in the data: (start, stop, number of the first row).
    """
    pieces = []
    for block in blocks:
        last = pieces[-1] if pieces else None
        if last is not None and (joins or _follows(last[-1], block)):
            last.append(block)
        else:
            pieces.append([block])
    return [_joined(piece) for piece in pieces]


def tiled(blocks, n_blocks, joins):
    """Put blocks of panels together: those of rows of which the same panels are here; X are `Tiles`.

    Parameters
    ----------
    blocks, joins : see `in_pieces`
    n_blocks : int
        Of a panel.
    """
    by_row, pieces = {}, {}
    for block in blocks:
        by_row.setdefault(block.start, {})[block.index // n_blocks] = block
    for _, own in sorted(by_row.items()):
        of_panels = pieces.setdefault(tuple(sorted(own)), [])
        if of_panels and (joins or all(_follows(of_panels[-1][-1][j], block) for j, block in own.items())):
            of_panels[-1].append(own)
        else:
            of_panels.append([own])
    found = []
    for numbers, of_panels in pieces.items():
        for piece in of_panels:
            found.append(_joined([own[numbers[0]] for own in piece]))
            others = {j: _stacked([own[j] for own in piece]) for j in numbers[1:]}
            found[-1].X = Tiles({numbers[0]: found[-1].X, **others})
    return found


def _follows(a, b):
    if a.start + a.n_rows != b.start:
        return False
    a, b = (block.X.data if hasattr(block.X, "indptr") else block.X for block in (a, b))
    return a.base is not None and a.base is b.base and a.ctypes.data + a.nbytes == b.ctypes.data


def _joined(piece):
    """Return blocks as one piece; spans are its rows that follow each other in the data."""
    spans, n = [], 0
    for block in piece:
        m = block.n_rows
        if spans and spans[-1][2] + n - spans[-1][0] == block.start:
            spans[-1] = spans[-1][0], n + m, spans[-1][2]
        else:
            spans.append((n, n + m, block.start))
        n += m
    y = np.concatenate([block.y for block in piece])
    weight = None if piece[0].weight is None else np.concatenate([block.weight for block in piece])
    return SimpleNamespace(X=_stacked(piece), y=y, weight=weight, spans=spans)


def _stacked(piece):
    """Return X of blocks on top of each other."""
    parts, is_whole = [block.X for block in piece], all(_follows(a, b) for a, b in zip(piece[:-1], piece[1:]))
    return Codes.stacked(parts, is_whole) if hasattr(parts[0], "indptr") else stacked(parts, is_whole)
