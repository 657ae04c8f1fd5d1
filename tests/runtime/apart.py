"""Dask arrays whose column panels different workers hold."""

import sys
import uuid

import cloudpickle
import dask.array as da
import numpy as np
from distributed import wait

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

WIDTHS, BANDS = (5, 1, 6), (2000, 1500, 2500)


def hold(piece):
    return piece.copy()


def columns_apart(client, X, bands=BANDS, widths=WIDTHS, turn=0, beside=1, unknown=False, strict=True):
    """Return X as a Dask array whose panels the workers hold in turns, ``beside`` at a time, and the worker of each."""
    workers = sorted(client.nthreads())  # asks; what a new client knows of its scheduler may still be nothing
    stops, name = np.cumsum(widths), f"apart-{uuid.uuid4().hex}"
    blocks, places = {}, {}
    for i, stop in enumerate(np.cumsum(bands)):
        for j, right in enumerate(stops):
            piece = X[stop - bands[i] : stop, right - widths[j] : right]
            address = workers[(j // beside + turn * i) % len(workers)]
            # By the keys of the array: another persist would leave it to the scheduler where small panels go.
            future = client.submit(
                hold, piece, key=(name, i, j), workers=[address], allow_other_workers=not strict, pure=False
            )  # fmt: skip
            blocks[name, i, j], places[future.key] = future, address
    wait(list(blocks.values()))
    chunks = tuple(np.nan if unknown else n for n in bands), tuple(widths)
    return da.Array(blocks, name, chunks, dtype=X.dtype, meta=X[:0, :0]), places
