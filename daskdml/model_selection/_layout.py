"""How the rows of a split's inputs are cut into chunks, and what the strata hold."""

import functools

import numpy as np
from sklearn.utils import check_consistent_length

from daskdml.data import is_dask
from daskdml.data.kinds import is_dask_array, n_rows
from daskdml.model_selection import _draw as draw


class InMemory:
    """Rows in memory: one chunk."""

    def __init__(self, n, strata):
        self.lengths, self.strata = (n,), strata

    def map(self, fn):
        """Return ``[fn(start, n, strata)]``."""
        return [fn(0, self.lengths[0], self.strata)]

    def count(self):
        """Return the distinct strata and their rows."""
        return [draw.count_labels(self.strata)]


class Chunked:
    """The chunks of a Dask collection, and the strata cut like them (None without strata)."""

    def __init__(self, collection, stratify):
        from daskdml.data import row_masks
        from daskdml.data.lazy import count_chunks, known_lengths

        self.collection, self.n_chunks = collection, count_chunks(collection)
        self.strata, self.lengths = None, known_lengths(collection)
        if stratify is not None:
            self.strata, self.lengths = row_masks.cut_like(collection, stratify)

    def map(self, fn):
        """Return ``fn(start, n, strata)`` of every chunk, in order."""
        from daskdml.data.row_masks import map_spans

        return map_spans(fn, self.lengths, self.strata)

    def count(self):
        """Return the distinct strata and their rows of every chunk; their sums are the chunks' lengths."""
        from daskdml.data.row_masks import map_chunks

        counted = map_chunks(draw.count_labels, self.strata)
        if self.lengths is None:
            self.lengths = tuple(int(counts.sum()) for _, counts in counted)
        return counted

    def fill_lengths(self, others):
        """Find lengths that are not known: those of as many other chunks, or by reading the least that tells them.

        Chunks of unknown lengths are taken to agree with their neighbours' here; each checks itself when it is masked.
        """
        from daskdml.data.row_masks import chunk_lengths

        if self.lengths is not None:
            return
        alike = [one for one in others if one.n_chunks == self.n_chunks]
        known = [one.lengths for one in alike if one.lengths is not None]
        cheapest = min((one.collection for one in alike), key=lambda collection: len(collection.shape))
        self.lengths = known[0] if known else chunk_lengths(cheapest)


class Table:
    """The layouts of a split's inputs.

    Attributes
    ----------
    layouts : list of Chunked or None
        One per input; inputs that are chunked alike share one, None stands for an input in memory.
    reference : InMemory or Chunked
        The one that thresholds are found on.
    told : list of Chunked
        Those of Dask arrays, whose chunk sizes the result must know.
    labels, counts : array-like
        The strata, sorted, and their rows; None and the number of rows without strata.
    """

    def __init__(self, layouts, reference, told, counted):
        self.layouts, self.reference, self.told = layouts, reference, told
        self.labels, self.counts = (None, [sum(reference.lengths)]) if counted is None else _merged(counted)

    def survey(self, seed, labels, windows):
        """Return `draw.survey` of every chunk of the layouts that need it."""
        fn = functools.partial(draw.survey, seed, labels, windows)
        return {layout: layout.map(fn) for layout in dict.fromkeys([self.reference, *self.told])}


def lay_out(arrays, stratify):
    """Find the chunks of all inputs and check that they have the same rows.

    Parameters
    ----------
    arrays : sequence of array-like or Dask collections
    stratify : array-like, Dask collection or None

    Returns
    -------
    Table
    """
    inputs = [*arrays] if stratify is None else [*arrays, stratify]
    in_memory = [one for one in inputs if not is_dask(one)]
    check_consistent_length(*in_memory)
    if len(in_memory) == len(inputs):
        layouts, reference = [None] * len(arrays), InMemory(_length(arrays[0]), stratify)
        return Table(layouts, reference, [], None if stratify is None else reference.count())
    layouts = _lazy_layouts(arrays, stratify)
    lazy = list(dict.fromkeys(one for one in layouts if one is not None)) or [Chunked(stratify, stratify)]
    counted = None if stratify is None else lazy[0].count()
    for layout in lazy:
        layout.fill_lengths(lazy)
    totals = [sum(layout.lengths) for layout in lazy] + [_length(one) for one in in_memory]
    if len(set(totals)) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {totals}")
    told = [layout for array, layout in zip(arrays, layouts) if is_dask_array(array)]
    return Table(layouts, lazy[0], told, counted)


def _lazy_layouts(arrays, stratify):
    """Return one layout per input, shared by Dask collections that are chunked alike."""
    known = {}
    for one in sorted(filter(is_dask, arrays), key=lambda one: len(one.shape)):  # vectors first: cheapest to measure
        known.setdefault(_chunking_of(one), one)
    known = {chunking: Chunked(one, stratify) for chunking, one in known.items()}
    return [known[_chunking_of(one)] if is_dask(one) else None for one in arrays]


def _chunking_of(collection):
    from daskdml.data.lazy import count_chunks, known_lengths

    if is_dask_array(collection):
        return "array", known_lengths(collection) or count_chunks(collection)
    return "frame", collection.divisions


def _length(table):
    return len(table) if isinstance(table, (list, tuple, range)) else n_rows(table)


def _merged(counted):
    """Add up the strata of all chunks."""
    try:
        labels, at = np.unique(np.concatenate([labels for labels, _ in counted if len(labels)]), return_inverse=True)
    except TypeError as error:
        raise ValueError("stratify holds strings beside numbers; make its labels one kind.") from error
    counts = np.concatenate([counts for labels, counts in counted if len(labels)])
    return labels, np.bincount(at.ravel(), counts).astype(np.int64)
