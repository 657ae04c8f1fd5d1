"""Functions of a row band's place: computed per chunk, or used to mask chunks lazily where they lie.

A *span* is (number of the chunk, global id of its first row, rows). What a row's fate is made of (a hash of its global
id, its stratum) is known at the chunk, so nothing as long as the data goes through the client.
"""

import uuid

import numpy as np

from daskdml.data.kinds import is_dask_array, n_rows
from daskdml.data.lazy import align, compute_lengths, count_chunks, known_lengths, meta_of


def chunk_lengths(X):
    """Return the rows per chunk of a Dask collection; computes them where they are not known."""
    return known_lengths(X) or compute_lengths(X)


def cut_like(X, column):
    """Cut a column (in memory or Dask) to the chunks of a Dask collection X.

    Returns
    -------
    column : Dask collection of as many chunks as X
    lengths : tuple of int or None
        Rows per chunk of X where they are known.
    """
    column, _, lengths = align(X, column, None)
    return column, lengths


def map_spans(fn, lengths, column):
    """Compute ``fn(start, n, chunk of column)`` for every chunk.

    Parameters
    ----------
    fn : picklable callable
    lengths : tuple of int
        Rows per chunk.
    column : Dask collection of as many chunks, or None
        None calls ``fn(start, n, None)``.

    Returns
    -------
    list
        In chunk order.
    """
    return _compute([(_called, fn, span) for span in _spans(lengths)], column)


def map_chunks(fn, column):
    """Compute ``fn(chunk)`` for every chunk of a column whose lengths need not be known."""
    return _compute([(fn,)] * count_chunks(column), column)


def _compute(calls, column):
    """Compute one call per chunk, the chunk being its last argument."""
    import dask
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph

    # `simplify` reads this column alone but, unlike `optimize`, does not merge small Parquet partitions.
    column = column if column is None or is_dask_array(column) else column.simplify()
    keys = [None] * len(calls) if column is None else list(_flat(column.__dask_keys__()))
    name = "spans-" + uuid.uuid4().hex
    layer = {(name, i): (*call, key) for i, (call, key) in enumerate(zip(calls, keys))}
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[] if column is None else [column])
    return list(dask.compute(*(Delayed(key, graph, layer=name) for key in layer)))


def _flat(keys):
    for key in keys:
        yield from _flat(key) if isinstance(key, list) else [key]


def mask_rows(collections, fn, lengths, column, kept):
    """Keep the rows of every chunk that ``fn(start, n, chunk of column)`` marks, lazily and in their order.

    Parameters
    ----------
    collections : list of Dask arrays, or list of Dask DataFrames and Series
        Chunked alike.
    fn : picklable callable giving an ndarray of bool, shape (n,)
    lengths : tuple of int
        Rows per chunk; a chunk with another number of rows raises when it is computed.
    column : Dask collection with the chunks of the collections, or None
        An array beside arrays; either beside DataFrames.
    kept : tuple of int or None
        Rows per chunk of the result; needed for arrays, not looked at for DataFrames.

    Returns
    -------
    list of Dask collections
        Of the kinds that came in; columns, column chunks, index and divisions kept.

    Notes
    -----
    DataFrames cut from one source read each partition once for all results together.
    """
    if is_dask_array(collections[0]):
        return [_mask_array(one, fn, lengths, column, kept) for one in collections]
    return _mask_frames(collections, fn, lengths, column)


def _mask_frames(frames, fn, lengths, column):
    import dask.dataframe as dd

    # Numbered partitions must stay as they are, and Dask's optimiser merges small Parquet partitions by the columns
    # that each result happens to need. So all frames become one expression, simplified and no further.
    joined = column is not None and not is_dask_array(column)
    inputs = [*frames, column] if joined else frames
    bands = dd.map_partitions(
        _together, *inputs, align_dataframes=False, meta=(None, object), enforce_metadata=False, clear_divisions=True
    ).simplify()
    graph, keys = dict(bands.__dask_graph__()), bands.__dask_keys__()
    apart = [None] * len(keys)
    if column is not None and not joined:
        graph.update(column.__dask_graph__())
        apart = list(_flat(column.__dask_keys__()))
    results = []
    for position, frame in enumerate(frames):
        name = "masked-" + uuid.uuid4().hex
        places = enumerate(zip(keys, _spans(lengths), apart))
        layer = {(name, i): (_mask_band, key, position, joined, span, other, fn) for i, (key, span, other) in places}
        divisions = tuple(frame.divisions)
        results.append(dd.from_graph({**graph, **layer}, meta_of(frame), divisions, list(layer), "masked"))
    return results


def _together(*chunks):
    return chunks


def _mask_band(band, position, joined, span, column, fn):
    return _masked(band[position], span[None], band[-1] if joined else column, fn=fn)


def _spans(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.stack([np.arange(len(lengths)), starts, lengths], axis=1).astype(np.int64)


def _span_array(lengths):
    import dask.array as da

    return da.from_array(_spans(lengths), chunks=(1, 3))


def _mask_array(X, fn, lengths, column, kept):
    import dask.array as da

    rows = "ijklmnopq"[: X.ndim]
    arguments = [X, rows, _span_array(lengths), "iS"]
    if column is not None:
        arguments += [column, "iTU"[: column.ndim]]
    return da.blockwise(
        _masked,
        rows,
        *arguments,
        fn=fn,
        adjust_chunks={"i": tuple(kept)},
        concatenate=True,
        align_arrays=False,
        dtype=X.dtype,
        meta=meta_of(X),
    )


def _called(fn, span, column):
    number, start, n = (int(one) for one in span)
    if column is not None:
        _check_rows(number, n, n_rows(column))
    return fn(start, n, column)


def _masked(chunk, spans, column=None, *, fn):
    number, start, n = (int(one) for one in spans[0])
    for part in (chunk, column):
        if part is not None:
            _check_rows(number, n, n_rows(part))
    if hasattr(chunk, "tocsr"):
        chunk = chunk.tocsr()
    return chunk[fn(start, n, column)]


def _check_rows(number, expected, found):
    if expected != found:
        raise ValueError(
            f"Chunk {number} has {found} rows in one collection and {expected} in another; pass collections whose "
            "chunks hold the same rows (cut from one DataFrame), or arrays of known sizes (X.compute_chunk_sizes())."
        )
